"""Sampling: from a condition and noise to weights."""

# Few steps of the multistep solver were as good as twenty on the training sets: the latents' spread is narrow.
DEFAULT_STEPS = 5
DEFAULT, ANCESTRAL = "default", "ancestral"
SAMPLERS = (DEFAULT, ANCESTRAL)  # the bundle's own scheduler, and the sampler of the paper (equation 6)
