"""The report of a generation: all that was measured, as ``report.json`` and README.md hold it."""

import time
from dataclasses import asdict, dataclass

from d2nwg.utils.errors import UserError
from d2nwg.utils.text import markdown, shown

LEAST_TRUST = 0.15  # with less, items without labels make no difference worth speaking of
LEAST_BELIEF = 0.5  # with less, names mean more likely nothing, or something else


@dataclass(frozen=True)
class QueryAccuracy:
    """Accuracies on the query items, as fractions.

    Attributes:
        chosen: of the head that is handed out.
        average: of the average of the samples.
        mean, std: over the samples.
        oracle_top3: mean of the three samples that are best on the query items themselves (the papers' protocol).
        class_mean, ridge, logistic_regression: of the baselines fitted to the same support items.
        random: mean of random heads.
        without_unlabelled: of the average of samples made without the unlabelled items; None where there were none.
        without_names: likewise, without the class names; None where they are no condition.
    """

    chosen: float
    average: float
    mean: float
    std: float
    oracle_top3: float
    class_mean: float
    ridge: float
    logistic_regression: float
    random: float
    without_unlabelled: float | None = None
    without_names: float | None = None


@dataclass(frozen=True)
class SampleScore:
    """One sample.

    Attributes:
        accuracy: on the query items, a fraction.
        nearest_zoo_distance: to the nearest zoo head, in lengths of a zoo head (`d2nwg.evaluation.zoo_distance`); None
            where the bundle keeps no zoo head with as many classes, or the heads sit on another encoder.
    """

    accuracy: float
    nearest_zoo_distance: float | None


@dataclass(frozen=True)
class Novelty:
    """The average of the samples beside the zoo (`d2nwg.evaluation.zoo_baselines`).

    Attributes:
        distance: to the nearest zoo head, in lengths of a zoo head.
        nearest_zoo_head: accuracy of that zoo head.
        zoo_head_plus_noise: accuracy of that zoo head with Gaussian noise whose norm is that distance.
        average_of_nearest: accuracy of the average of the three nearest zoo heads.
    """

    distance: float
    nearest_zoo_head: float
    zoo_head_plus_noise: float
    average_of_nearest: float


@dataclass(frozen=True)
class Seconds:
    """Wall time of each step, and of all: the bundle is opened, the data are read, heads are sampled, the samples and
    the baselines are scored."""

    opening: float
    features: float
    sampling: float
    baselines: float
    total: float


class Clock:
    """Wall time of steps that follow each other."""

    def __init__(self):
        self._laps: dict[str, float] = {}
        self._started = self._last = time.perf_counter()

    def lap(self, step: str) -> None:
        """``step`` ends now."""
        now = time.perf_counter()
        self._laps[step], self._last = now - self._last, now

    def seconds(self) -> Seconds:
        """Of each step and of all."""
        laps = {step: round(seconds, 3) for step, seconds in self._laps.items()}
        return Seconds(**laps, total=round(self._last - self._started, 3))


BASELINES = {  # fields of `QueryAccuracy`, in words
    "class_mean": "class mean",
    "ridge": "ridge",
    "logistic_regression": "logistic regression",
    "random": "random head",
}


@dataclass(frozen=True)
class Report:
    """What ``report.json`` holds.

    Attributes:
        data: name of the data set.
        classes: their names.
        bundle: its name.
        task: what a task-conditioned bundle was given; None for a bundle that is shown the data.
        encoder: of the images or texts.
        shots: support items a class.
        num_support, num_query, num_unlabelled: items that generation may see, that score, and without labels.
        unlabelled_trust: how far the unlabelled items counted, 0 to 1; None without any.
        num_samples: heads that were sampled.
        seed: of the split and the noise.
        selection: how the chosen head was chosen, in words.
        query_accuracy: accuracies on the query items.
        per_class: accuracy of the chosen head on each class; None for a class without query items.
        samples: each sample.
        novelty: the average of the samples beside the zoo; None where ``nearest_zoo_distance`` is.
        seconds: wall time.
        device: that computed.
        notes: sentences on what was left out.
        noun: what an item of the data is called: ``"image"``, ``"text"``, or ``"pair"`` of texts.
        recommended: ``"generated"``, or the baseline to take instead, judged on support items left out in turn
            (`d2nwg.evaluation.recommend`); None where that was not done.
        cross_validation: share of those items that the generated head and each baseline get right; None likewise.
    """

    data: str
    classes: list[str]
    bundle: str
    task: str | None
    encoder: str
    shots: int
    num_support: int
    num_query: int
    num_unlabelled: int
    unlabelled_trust: float | None
    num_samples: int
    seed: int
    selection: str
    query_accuracy: QueryAccuracy
    per_class: dict[str, float | None]
    samples: list[SampleScore]
    novelty: Novelty | None
    seconds: Seconds
    device: str
    notes: list[str]
    noun: str = "image"
    recommended: str | None = None
    cross_validation: dict[str, float] | None = None

    def to_json(self) -> dict:
        """As ``report.json`` holds it."""
        data = asdict(self)
        for name in ("without_unlabelled", "without_names"):
            if data["query_accuracy"][name] is None:
                del data["query_accuracy"][name]
        # The file's key is older than the field's name.
        data["seconds"] = {"rivals" if name == "baselines" else name: s for name, s in data["seconds"].items()}
        return data

    @classmethod
    def from_json(cls, data: dict) -> "Report":
        """The reverse of `to_json`.

        Raises:
            UserError: it is no such report.
        """
        from pydantic import TypeAdapter, ValidationError

        try:
            seconds = {"baselines" if name == "rivals" else name: s for name, s in data["seconds"].items()}
            return TypeAdapter(cls).validate_python({**data, "seconds": seconds})
        except ValidationError as reason:
            where = ".".join(map(str, reason.errors()[0]["loc"]))
            raise UserError(f"The report is damaged at {shown(where)}: generate the head again.") from reason
        except (KeyError, TypeError, AttributeError, RecursionError) as reason:
            raise UserError("This is no report of a generation: give the report.json that generate wrote.") from reason


_MODULES = {
    "linear": 'head = torch.nn.Linear(*reversed(state["weight"].shape))',
    "mlp": """hidden, width = state["0.weight"].shape
head = torch.nn.Sequential(
    torch.nn.Linear(width, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, len(classes))
)""",
}


# What predict is given, by what an item is called.
_ITEMS = {"image": "picture.jpg", "text": '--text "A text."', "pair": '--text "One text." "The other."'}
_VECTORS = """
from sentence_transformers import SentenceTransformer

encoder = SentenceTransformer("{encoder}")
"""
_FEATURES = {
    "text": """features = torch.from_numpy(encoder.encode(["A text."], normalize_embeddings=True))
""",
    "pair": """u, v = torch.from_numpy(encoder.encode(["One text.", "The other."], normalize_embeddings=True))
features = torch.cat([(u - v).abs(), (u + v).norm(dim=-1, keepdim=True)], -1)[None] / 2
""",
}


def _use(report: Report) -> str:
    """The lines of Python that make a head's input from texts."""
    if report.noun not in _FEATURES or "/open_clip/" in report.encoder:
        return ""
    named = shown(report.encoder.partition("/")[2]).replace("\\", "").replace('"', "")
    return f"{_VECTORS.format(encoder=named)}{_FEATURES[report.noun]}print(classes[int(head(features).argmax())])\n"


def unheeded(trust: float | None, belief: float | None, noun: str = "image") -> list[str]:
    """Sentences on what was given and hardly counted.

    Args:
        trust: how far items without labels counted, 0 to 1; None without any.
        belief: how far class names counted beside the items, 0 to 1; None without any.
        noun: what an item is called.
    """
    notes = []
    if trust is not None and trust < LEAST_TRUST:
        notes.append(f"The unlabelled {noun}s hardly count: with them, labelled ones are recognised worse.")
    if belief is not None and belief < LEAST_BELIEF:
        notes.append(f"The class names hardly count: the {noun}s do not bear them out.")
    return notes


def advice(report: Report) -> str | None:
    """A sentence on the baseline that is better than the generated head, judged on the support alone; None without."""
    if report.recommended in (None, "generated"):
        return None
    right, name = report.cross_validation or {}, report.recommended.replace("_", " ")
    return (
        f"Take {'the ' if name == 'class mean' else ''}{name} instead: where {report.noun}s that generation may see "
        f"are left out in turn, it is right on {right[report.recommended]:.1%} of them, and the generated head on "
        f"{right['generated']:.1%}."
    )


def readme(report: Report, probe: str) -> str:
    """The README.md that is saved with generated heads; ``probe`` is ``"linear"`` or ``"mlp"``."""
    right, noun, better = report.query_accuracy, report.noun, advice(report)
    better = f"\n{better} It is in `{report.recommended}.safetensors`.\n" if better else ""
    return f"""# A generated head for {markdown(report.data)}

`head.safetensors` is a classifier for {len(report.classes)} classes on the features of {markdown(report.encoder)}.
It was right on {right.chosen:.1%} of {report.num_query} {noun}s that generation never saw. Baselines fitted to the same
{report.num_support} {noun}s: class mean {right.class_mean:.1%}, ridge {right.ridge:.1%}, logistic regression
{right.logistic_regression:.1%}. Chosen: {report.selection}.
{better}
With d2nwg:

```
python -m d2nwg predict head.safetensors {_ITEMS.get(noun, _ITEMS["image"])}
```

Anywhere else it is a state dict; encoder, preprocessing and class names are in the file's metadata:

```python
import json, torch
from safetensors import safe_open

with safe_open("head.safetensors", "pt") as f:
    state = {{name: f.get_tensor(name) for name in f.keys()}}
    classes = json.loads(f.metadata()["classes"])
    preprocessing = json.loads(f.metadata()["preprocessing"])
{_MODULES[probe]}
head.load_state_dict(state)  # its input: the pooled features of {shown(report.encoder)}
{_use(report)}```

`samples.safetensors` holds all {report.num_samples} sampled heads with a leading axis; `report.json` all numbers.
Distances there are in lengths of a zoo head: 1 is the median length of the zoo heads with as many classes.
"""
