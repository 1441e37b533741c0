"""Hostile inputs, made by a seed, for everything that reads: ``python -m tests.fuzz --minutes N``.

Each kind (`tests.fuzz.kinds`) makes cases of one sort of input. A case runs in a forked process, within bounds of time
and memory and under watch (`tests.fuzz.watch`); it may be refused in a sentence, and must do nothing else than what it
was asked for. `tests.fuzz.kills` kills writers at random moments, and compares what is there in the end with what an
undisturbed run makes.
"""
