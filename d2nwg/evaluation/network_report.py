"""The report of a generated network: all that was measured, as ``report.json`` holds it, and what the card says."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from d2nwg.evaluation.report import SampleScore, Seconds
from d2nwg.utils.text import markdown, number

if TYPE_CHECKING:
    from d2nwg.pipelines.dataset_networks import HeadKind


@dataclass(frozen=True)
class NetworkAccuracy:
    """Accuracies on the query images, as fractions, without a step of fine-tuning.

    Attributes:
        network: of the network that is handed out.
        generated_head, closed_form_head: the same trunk with either head; one of them is handed out.
        samples, samples_std: mean and standard deviation over the samples; None without any.
        random: mean of random networks.
        zoo_average: the average of the zoo's networks.
        nearest_member: the zoo's network that is right on most of the support, its classes matched; None where the
            bundle keeps none.
        average_closed_form: the average trunk with the closed-form head.
        common_closed_form: the generator without its condition: the mean of the trunks that it makes for random tasks,
            with the closed-form head.
        gradient_steps: a random network trained on the support for as long as generation took, in ``steps`` steps.
        gradient_50: the same in 50 steps, however long they take.
    """

    network: float
    generated_head: float
    closed_form_head: float
    samples: float | None
    samples_std: float | None
    random: float
    zoo_average: float
    nearest_member: float | None
    average_closed_form: float
    common_closed_form: float
    gradient_steps: float
    steps: int
    gradient_50: float


@dataclass(frozen=True)
class NetworkReport:
    """What ``report.json`` holds.

    Attributes:
        data: name of the data set, and ``classes`` their names.
        bundle: its name.
        network: the architecture, for images of ``channels`` × ``size`` × ``size``.
        shots: support images a class.
        num_support, num_query: images that generation saw, and that score.
        num_samples: networks drawn by diffusion beside the deterministic one.
        seed: of the split and the noise.
        head: how the network's head was made.
        query_accuracy: see there.
        samples: each of those that were drawn; its distance as below.
        per_class: accuracy on each class; None for a class without query images.
        distance: of the trunk to the nearest one of the zoo, in distances between neighbours there; None where the
            bundle keeps fewer than two.
        seconds: wall time; ``generating`` is that of the network alone.
        notes: sentences.
    """

    data: str
    classes: list[str]
    bundle: str
    network: str
    channels: int
    size: int
    shots: int
    num_support: int
    num_query: int
    num_samples: int
    seed: int
    head: "HeadKind"
    query_accuracy: NetworkAccuracy
    samples: list[SampleScore]
    per_class: dict[str, float | None]
    distance: float | None
    seconds: Seconds
    generating: float
    notes: list[str]

    noun = "image"

    def to_json(self) -> dict:
        """As ``report.json`` holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict) -> "NetworkReport":
        """The reverse of `to_json`, for what that has written: nothing is checked."""
        parts = {"query_accuracy": NetworkAccuracy(**data["query_accuracy"]), "seconds": Seconds(**data["seconds"])}
        return cls(**{**data, **parts, "samples": [SampleScore(**one) for one in data["samples"]]})

    def baselines(self) -> dict[str, float]:
        """What a person would otherwise take, in a few words, with its accuracy; random comes last."""
        right = self.query_accuracy
        found = {
            "50 gradient steps": right.gradient_50,
            number(right.steps, "gradient step"): right.gradient_steps,
            "mean trunk": right.common_closed_form,
            "average trunk": right.average_closed_form,
            "nearest network": right.nearest_member,
            "zoo average": right.zoo_average,
            "random network": right.random,
        }
        return {name: value for name, value in found.items() if value is not None}


def about(report: NetworkReport) -> str:
    """What the card says of a network."""
    right = report.query_accuracy
    rows = {
        "this network": right.network,
        "a random one": right.random,
        "average of the zoo": right.zoo_average,
        "nearest network of the zoo, classes matched": right.nearest_member,
        "average trunk with a closed-form head": right.average_closed_form,
        "the generator's mean trunk with a closed-form head": right.common_closed_form,
        f"{right.steps} gradient steps on the same images, the seconds that generation took": right.gradient_steps,
        "50 gradient steps on the same images": right.gradient_50,
        f"{report.num_samples} samples of the same generator, mean": right.samples,
    }
    table = "\n".join(f"| {name} | {value:.1%} |" for name, value in rows.items() if value is not None)
    return f"""Generated for {markdown(report.data)} by the bundle {markdown(report.bundle)} from {report.num_support}
images in {report.generating:.2f} s, without training. On {report.num_query} images that generation never saw, right on:

| | |
|---|---|
{table}
"""
