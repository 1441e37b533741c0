"""What an accuracy measured on few images or questions is known to."""

LEVEL = 0.95


def interval(right: int, total: int) -> tuple[float, float]:
    """The Wilson score interval (Wilson, 1927) of a proportion, at 95 %.

    It does not shrink to a point where everything is right, or nothing is: of 20 of 20 it is 0.84 to 1.

    Args:
        right: successes.
        total: trials, at least one; each by itself (for pairs of models on the same images, see the paired comparison
            in `d2nwg.llm.report`).
    Returns:
        Lower and upper end, fractions.
    Raises:
        ValueError: no trials, or more successes than trials.
    """
    from scipy.stats import binomtest

    found = binomtest(int(right), int(total)).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)
