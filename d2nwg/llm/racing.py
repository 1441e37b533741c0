"""Candidates race: all are scored on a tenth of the questions, those that are left on a fifth, two fifths, and seven
tenths, and the first one on all.

A candidate is dropped where it is not among the best so far (two thirds of them stay for the third part, half for the
fourth, one for the last: successive halving, Karnin et al., 2013, done slowly), or where what is known of it, question
by question, makes it unlikely to end up where it would have to: above the best one, and, by the rule of acceptance,
above the weights in hand. Differences are paired. Their mean on all Q questions is predicted from n of them: it lies
about the mean of these, as far as the part that was not seen allows, s √(1/n − 1/Q) with s their standard deviation.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

SHARES = (0.1, 0.2, 0.4, 0.7, 1)  # of the questions, one rung after another
PLACES = (1, 2 / 3, 1 / 2, 0)  # of all candidates, how many may stay after each rung, at least one
LEAST = 8  # questions in the first rung: fewer say nothing about a spread
ACCEPTED = 0.9  # one-sided level of the interval that must lie above the weights in hand
DROPPED = 0.95  # how sure it must be that a candidate does not get there


def rungs(questions: int, seed: int, racing: bool = True) -> list[list[int]]:
    """The questions that each rung adds, drawn by the seed: all of them together are ``range(questions)``."""
    if not racing:
        return [list(range(questions))]
    ends = sorted({round(share * questions) for share in SHARES if share * questions >= LEAST} | {questions})
    order = np.random.default_rng(seed).permutation(questions)
    return [sorted(map(int, part)) for part in np.split(order, ends[:-1])]


def lower_bound(differences: np.ndarray) -> float:
    """The one-sided bound, at the level `ACCEPTED`, below the mean of paired differences (n,): Student's interval; of
    fewer than two −inf."""
    if len(differences) < 2:
        return -np.inf
    return float(differences.mean() - _quantile(ACCEPTED, len(differences)) * _error(differences))


def out_of_reach(differences: np.ndarray, questions: int, accepted: bool = False) -> bool:
    """Whether the mean over all questions will hardly be above 0, or its `lower_bound` with ``accepted``.

    Args:
        differences: (n,) of the candidate from what it is compared with, on the questions so far.
        questions: how many there are.
    """
    count = len(differences)
    if count < 2:
        return False
    spread = _error(differences) * count**0.5
    unseen = spread * max(0.0, 1 / count - 1 / questions) ** 0.5
    needed = _quantile(ACCEPTED, questions) * spread / questions**0.5 if accepted else 0.0
    return bool(differences.mean() + _quantile(DROPPED, count) * unseen < needed)


def places(count: int, to_come: int) -> int:
    """How many of ``count`` candidates may stay where so many rungs are still to come."""
    return max(1, math.ceil(count * PLACES[-to_come]))


def race(
    parts: Sequence[Sequence[int]],
    count: int,
    score: Callable[[int, int], np.ndarray],
    current: np.ndarray,
    *,
    any_wins: bool = False,
) -> tuple[np.ndarray, int]:
    """Score candidates rung by rung, and find the best.

    Args:
        parts: of `rungs`.
        count: of the candidates, K.
        score: of a candidate on a part, both by number: (2, n), the criterion and the tie-breaker of each question.
        current: (2, Q) of the weights in hand.
        any_wins: somebody has to win, also who does not get above the weights in hand.
    Returns:
        (K, 2, Q), NaN where a candidate was not scored; and the number of the best of those that were scored on most
        questions: by the mean of the criterion, then of the tie-breaker, then by order.
    """
    questions = current.shape[1]
    found, left, best = np.full((count, *current.shape), np.nan), list(range(count)), 0
    for rung, part in enumerate(parts):
        for candidate in left:
            found[candidate][:, part] = score(candidate, rung)
        seen = [index for one in parts[: rung + 1] for index in one]
        left = sorted(left, key=lambda candidate: tuple(found[candidate][:, seen].mean(1)), reverse=True)
        best = left[0]
        if rung == len(parts) - 1:
            break
        ahead, held = found[best, 0, seen], current[0, seen]
        left = [
            one
            for one in left[: places(count, len(parts) - 1 - rung)]
            if not (one != best and out_of_reach(found[one, 0, seen] - ahead, questions))
            and (any_wins or not out_of_reach(found[one, 0, seen] - held, questions, accepted=True))
        ]
        if not left:
            break
    return found, best


def _error(differences: np.ndarray) -> float:
    """The standard error of their mean."""
    return float(differences.std(ddof=1)) / len(differences) ** 0.5


def _quantile(level: float, count: int) -> float:
    from scipy.stats import t

    return float(t.ppf(level, count - 1))
