"""The methods of interpolation: their ids, what a person reads, and defaults. Nothing heavy is imported here."""

CONDITION = "condition"
CONDITION_SPHERICAL = "condition-spherical"
LATENT = "latent"
WEIGHTS = "weights"

METHODS = (CONDITION, CONDITION_SPHERICAL, LATENT, WEIGHTS)
POINTS, NAME_POINTS = 21, 11  # of a path between tasks, and of one between names, by default
BASELINE = WEIGHTS  # the linear path between weights: always computed, the others are compared with it

LABELS = {
    CONDITION: "conditions, linear",
    CONDITION_SPHERICAL: "conditions, spherical",
    LATENT: "latents, spherical",
    WEIGHTS: "weights, linear",
}
