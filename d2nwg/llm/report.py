"""Evaluation of a refinement: accuracies and paired comparisons on questions that played no part in the selection."""

from collections.abc import Mapping

import numpy as np

DRAWS = 10_000  # of the bootstrap
NAMES = {
    "base": "base",
    "refined": "refined",
    "noise": "noise",
    "rank": "rank cut",
    "rebuilt": "rebuilt",
    "single": "best checkpoint",
    "soup": "average",
    "noised": "checkpoint + noise",
}
BASELINES = {
    "noise": "Gaussian noise of the same size",
    "rank": "cutting ranks",
    "rebuilt": "the VAE's reconstruction",
    "single": "the best single checkpoint",
    "soup": "the checkpoints' average",
    "noised": "the best checkpoint with noise",
}
FAR = 0.25  # relative error of reconstructed weights that is worth a sentence
ONE_MODEL = (
    "With one pretrained model a perfect generator draws its VAE's posterior, which is independent noise around the "
    "reconstruction: this mode can find a change that helps by chance, and cannot know beforehand which one will."
)
RULE = (
    "On the selection questions a candidate replaced weights only where the one-sided 90 % interval of its paired "
    "difference from them lay above zero; of many candidates some pass by chance."
)


# What a 95 % interval of a difference says.
_VERDICTS = (
    ("is better than", lambda low, high: low > 0),
    ("cannot be distinguished from", lambda low, high: low <= 0 <= high),
    ("is worse than", lambda low, high: high < 0),
)


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
    from d2nwg.evaluation.accuracy import LEVEL, mcnemar  # brings torch, and the page is up before that

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
        "mcnemar": mcnemar(gained, lost),
    }


def accuracy_interval(right: np.ndarray) -> list[float]:
    """The 95 % Wilson interval of the accuracy on questions, (Q,) right or wrong: [low, high], fractions."""
    from d2nwg.evaluation.accuracy import interval  # brings torch, and the page is up before that

    return list(interval(int(np.sum(right)), len(right)))


def summary(right: Mapping[str, np.ndarray], *, seed: int = 0) -> dict:
    """Compare a refinement with its base and with what else was tried, in numbers and in sentences.

    Args:
        right: (Q,) bool for ``base``, ``refined`` and, optionally, the baselines (`BASELINES`), on the same questions.
        seed: of the bootstrap.
    Returns:
        ``rows`` {name: {accuracy, interval, versus_base}}, ``refined_versus`` {baseline: comparison} and ``words``. An
        accuracy has a Wilson interval, a difference that of `compare`, both at 95 %.
    """
    base = right["base"]
    rows = {
        name: {"accuracy": float(np.mean(values)), "interval": accuracy_interval(values)}
        | ({} if name == "base" else {"versus_base": compare(base, values, seed=seed)})
        for name, values in right.items()
    }
    versus = {name: compare(right[name], right["refined"], seed=seed) for name in BASELINES if name in right}
    said = words(rows)
    for verb, fits in _VERDICTS:
        found = [
            f"{BASELINES[name]} ({_points(one['difference'])}, {_range(one['interval'])})"
            for name, one in versus.items()
            if fits(*one["interval"])
        ]
        if found:
            same = "" if "soup" in right else ", chosen in the same way"  # an average is not chosen
            said.append(f"It {verb} {_listed(found)}{same}.")
    return {"rows": rows, "refined_versus": versus, "words": said}


def reconstruction_words(found: dict) -> list[str]:
    """A sentence where what the VAE gives back is far from the weights; `found` is the report's ``reconstruction``."""
    if found["error"] < FAR:
        return []
    return [
        f"The chosen weights hardly compress: at {found['compression']['latents']:.1f} numbers a latent they come back "
        f"with a relative error of {found['error']:.2f}, and with all of them the model is right on "
        f"{found['selection_accuracy']:.1%} of the selection questions instead of "
        f"{found['base_selection_accuracy']:.1%}; every candidate carries some of that loss."
    ]


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


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
