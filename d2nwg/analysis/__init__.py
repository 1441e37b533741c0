"""Statistics of populations of weights; no figures.

`populations` gathers heads and says what can be compared, `projections` maps them to the plane and writes them for the
TensorBoard Embedding Projector, `compare` measures distances, densities and differences between distributions.
"""
