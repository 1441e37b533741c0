"""Sampling: from a condition and noise to weights."""

# Few steps of the multistep solver were as good as twenty on the training sets: the latents' spread is narrow.
DEFAULT_STEPS = 5
DEFAULT, ANCESTRAL = "default", "ancestral"
ADAPTER_STEPS = 20
# Samples for descriptions that their generator had never seen lay nearest to the zoo with 1.5 (of 1, 1.5, 2 and 3).
GUIDANCE = 1.5
LONGEST_DESCRIPTION = 5_000  # characters
SAMPLERS = (DEFAULT, ANCESTRAL)  # the bundle's own scheduler, and the sampler of the paper (equation 6)
