"""The methods of interpolation: their ids, and what a person reads. Nothing heavy is imported here."""

CONDITION = "condition"
CONDITION_SPHERICAL = "condition-spherical"
LATENT = "latent"
WEIGHTS = "weights"

METHODS = (CONDITION, CONDITION_SPHERICAL, LATENT, WEIGHTS)
BASELINE = WEIGHTS  # the linear path between weights: always computed, the others are compared with it

LABELS = {
    CONDITION: "conditions, linear",
    CONDITION_SPHERICAL: "conditions, spherical",
    LATENT: "latents, spherical",
    WEIGHTS: "weights, linear",
}
