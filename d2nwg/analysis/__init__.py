"""A population of weights as something to look at and ask about: data only, no figures.

`population` makes it (zoo heads of a bundle, samples for tasks, heads trained for the same tasks), `projection` maps it
to the plane, `compare` asks how alike its parts are, `projector` writes it for the TensorBoard Embedding Projector, and
`explore` does all of it for a bundle and some images.
"""
