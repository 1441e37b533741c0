"""The three scenarios of the second paper: networks for tasks that are given by their identity."""

from statistics import mean

from benchmarks.papers.spec import NOT, PARTLY, REPRODUCED, Entry, Grid, Published, Verdict

SUBSTITUTED = (
    "two-layer networks of 28 × 28 pixels for twelve tasks of digits and letters: only the paper's abstract is "
    "at hand, "
    "not its tasks and models"
)
COLUMNS = ("trained on it", "sampled", "average of samples", "same sum of weights")
CLOSE = 1.0  # points within which samples are as good as trained networks


def _case(number: int) -> Published:
    kept = 4 if number == 3 else 3
    return Published(
        "Sampled against trained",
        "python -m benchmarks.tasks",
        page="pretrained/tasks-small-networks/README.md",
        keep=lambda cells: cells[0].startswith(str(number)),
        label=(1,),
        columns=COLUMNS[:kept],
        title="percent right, mean ± standard deviation over networks",
    )


def _gap(one: Grid, other: str) -> tuple[float, float, float]:
    """Means of the samples, of another column, and of their difference."""
    pairs = [(one[label, "sampled"], one[label, other]) for label, _ in one.rows]
    return mean(a for a, _ in pairs), mean(b for _, b in pairs), mean(a - b for a, b in pairs)


def seen(found: dict[str, Grid]) -> Verdict:
    """Samples are as good as networks trained on the task."""
    sampled, trained, gap = _gap(found["published-0"], "trained on it")
    many = f" on average of {len(found['published-0'].rows)} tasks" if len(found["published-0"].rows) > 1 else ""
    status = REPRODUCED if gap > -CLOSE else PARTLY
    return Verdict(status, f"sampled {sampled:.1f}, trained {trained:.1f}", f"{gap:+.1f} points{many}")


def unseen(found: dict[str, Grid]) -> Verdict:
    """Fails on unseen tasks, as the paper says."""
    sampled, trained, gap = _gap(found["published-0"], "trained on it")
    *_, beside = _gap(found["published-0"], "same sum of weights")
    words = f"it fails here too: {gap:+.1f} points from trained networks, {beside:+.1f} from plain sums of weights"
    return Verdict(REPRODUCED if gap < -10 else NOT, f"sampled {sampled:.1f}, trained {trained:.1f}", words)


ENTRIES = (
    Entry(
        "scenario1",
        "One seen task",
        "accurate parameters from the task's identity",
        seen,
        substituted=SUBSTITUTED,
        published=(_case(1),),
    ),
    Entry(
        "scenario2",
        "Several seen tasks, one generator",
        "accurate parameters, and interpolation where the parameter subspaces are well structured",
        seen,
        substituted=SUBSTITUTED,
        published=(_case(2),),
    ),
    Entry(
        "scenario3",
        "Unseen tasks",
        "fails to generalise",
        unseen,
        substituted=f"{SUBSTITUTED}; an unseen task's identity is composed of seen ones",
        published=(_case(3),),
    ),
)
