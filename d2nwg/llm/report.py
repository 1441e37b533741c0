"""Evaluation of a refinement: accuracies and paired comparisons on questions that played no part in the selection."""

from collections.abc import Mapping

import numpy as np

from d2nwg.evaluation.accuracy import LEVEL, interval

DRAWS = 10_000  # of the bootstrap


def compare(base: np.ndarray, other: np.ndarray, *, seed: int = 0) -> dict:
    """Compare two models on the same Q questions.

    Args:
        base, other: (Q,) bool, whether each answers a question right.
        seed: of the bootstrap.
    Returns:
        ``difference`` in accuracy (other − base, a fraction), its 95 % ``interval`` (paired percentile bootstrap,
        10,000 resamples of the questions), the numbers of questions ``gained`` and ``lost``, and ``mcnemar``, the
        p-value of the exact McNemar test.
    Raises:
        ValueError: no questions, or different numbers of them.
    """
    from scipy.stats import binomtest

    base, other = np.asarray(base, bool), np.asarray(other, bool)
    if base.shape != other.shape or not len(base):
        raise ValueError("both need the same questions, at least one")
    change = other.astype(int) - base
    rng = np.random.default_rng(seed)
    draws = np.concatenate(
        [change[rng.integers(len(change), size=(100, len(change)))].mean(1) for _ in range(DRAWS // 100)]
    )
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    gained, lost = int((change > 0).sum()), int((change < 0).sum())
    return {
        "difference": float(change.mean()),
        "interval": [float(low), float(high)],
        "gained": gained,
        "lost": lost,
        "mcnemar": float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0,
    }


def accuracy_interval(right: np.ndarray) -> list[float]:
    """The 95 % Wilson interval of the accuracy on questions, (Q,) right or wrong: [low, high], fractions."""
    return list(interval(int(np.sum(right)), len(right)))


def summary(right: Mapping[str, np.ndarray], *, seed: int = 0) -> dict:
    """Compare a refinement with its base and with noise, in numbers and in sentences.

    Args:
        right: (Q,) bool for ``base``, ``refined`` and, optionally, ``noise``, on the same questions.
        seed: of the bootstrap.
    Returns:
        ``rows`` {name: {accuracy, interval, versus_base}}, ``refined_versus_noise`` and ``words``. An accuracy has a
        Wilson interval, a difference that of `compare`, both at 95 %.
    """
    base = right["base"]
    rows = {
        name: {"accuracy": float(np.mean(values)), "interval": accuracy_interval(values)}
        | ({} if name == "base" else {"versus_base": compare(base, values, seed=seed)})
        for name, values in right.items()
    }
    result: dict = {"rows": rows, "words": words(rows)}
    if "noise" in right:
        against = compare(right["noise"], right["refined"], seed=seed)
        result["refined_versus_noise"] = against
        if against["interval"][0] > 0:
            result["words"].append("It is better than Gaussian noise of the same size chosen in the same way.")
        else:
            result["words"].append(
                "It cannot be distinguished from Gaussian noise of the same size chosen in the same way "
                f"({_points(against['difference'])}, 95 % interval {_range(against['interval'])})."
            )
    return result


def words(rows: Mapping[str, dict]) -> list[str]:
    """The comparison of base and refined model, in sentences."""
    base, refined = rows["base"]["accuracy"], rows["refined"]["accuracy"]
    versus = rows["refined"]["versus_base"]
    first = (
        f"On the report set the base is right on {base:.1%}, the refined model on {refined:.1%}: "
        f"{_points(versus['difference'])}, 95 % interval {_range(versus['interval'])}, McNemar p = "
        f"{versus['mcnemar']:.2g}."
    )
    low, high = versus["interval"]
    if versus["gained"] + versus["lost"] == 0:
        second = "Not one answer changed."
    elif low > 0 and versus["mcnemar"] < 0.05:
        second = "That is more than chance explains."
    elif high < 0 and versus["mcnemar"] < 0.05:
        second = "The refined model is worse, by more than chance explains."
    else:
        second = "That is within noise: the selection's gain has not been shown to carry over."
    return [first, second]


def _points(value: float) -> str:
    return f"{100 * value:+.1f} points"


def _range(values) -> str:
    return f"{100 * values[0]:+.1f} to {100 * values[1]:+.1f}"
