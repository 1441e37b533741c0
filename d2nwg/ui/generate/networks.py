"""Whole networks in the Generate tab, made by bundles whose generator makes them for images that it is shown."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2nwg.jobs.owner import Viewer
from d2nwg.pipelines import DEFAULT
from d2nwg.ui.generate import html, network_html
from d2nwg.ui.generate.made import Picked, Result
from d2nwg.ui.html import percent
from d2nwg.ui.settings import network_bundles
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent

FILES = {  # of `NetworkGeneration.save`
    "head": "network.safetensors",
    "onnx": "model.onnx",
    "samples": "samples.safetensors",
    "report": "report.json",
}
MAX_IMAGES = 1000  # that a network is trained further on


@dataclass(eq=False)
class NetworkResult(Result):
    """Networks that one press of the button has made; ``generation`` is the `NetworkGeneration`."""

    kind = "network"

    @property
    def recommended(self) -> None:
        """See `Result`: that is only judged of heads."""
        return None

    def head(self, picked: Picked):
        """See `Result`: a `NetworkFile`."""
        return self.generation.network if picked is None else self.generation.sample(picked)

    def name(self, picked: Picked) -> str:
        """See `Result`."""
        return "network" if picked is None else f"sample {picked}"

    def about(self, picked: Picked) -> str:
        """See `Result`."""
        report = self.generation.report
        return (
            f"right on {percent(report.query_accuracy.network if picked is None else report.samples[picked].accuracy)}"
        )

    def sentence(self) -> str:
        """See `Result`."""
        return network_html.result(self.generation.report)

    def table(self) -> dict:
        """See `Result`."""
        report = self.generation.report
        right = report.query_accuracy.network
        return html.table("generated", right, report.samples, network_html.COLUMNS, report.distance)

    def strip(self, picked: Picked = None):
        """See `Result`."""
        from d2nwg.figures.generate import network_samples_figure

        return network_samples_figure(self.generation.report, picked)

    def save(self, picked: Picked, folder: Path) -> dict[str, Path]:
        """See `Result`: also as ONNX."""
        files = super().save(picked, folder)
        return files | {"onnx": self.head(picked).save_onnx(files["head"].with_suffix(".onnx"))}

    def snippet(self, file: Path) -> str:
        """See `Result`."""
        return self.generation.network.use(file.name)

    def held_out(self):
        """See `Result`."""
        return self.generation.query_index

    def truth(self):
        """See `Result`."""
        return self.generation.truth

    def predicted(self, picked: Picked):
        """See `Result`."""
        return self.head(picked).logits(self.generation.query).argmax(-1).numpy()


def generate(images, settings: dict, folder: Path, free, typed: str, progress: Progress = silent) -> tuple[Any, dict]:
    """See `d2nwg.ui.generate.service.generate`: a `NetworkGeneration`, and its files as head, onnx, samples, report.

    Raises:
        UserError: there is something that networks are not made from.
    """
    from d2nwg.network_generation import generate_network

    bundle = settings["bundle"]
    if images is None or images.noun != "image":
        what = "class names alone" if images is None else f"{images.noun}s"
        raise UserError(
            f"The bundle {bundle} makes whole networks from images, some of each class, and not from {what}: give "
            "images, or choose a bundle of heads above."
        )
    others = {"Class names": typed, "Images without labels": free, "A task": settings["task"]}
    others["The paper's sampler"] = settings["sampler"] != DEFAULT
    if given := [what for what, value in others.items() if value]:
        raise UserError(f"{given[0]} cannot be used by the bundle {bundle}, which makes whole networks: leave it out.")
    run = {key: settings[key] for key in ("bundle", "shots", "num_samples", "seed", "steps", "max_query")}
    made = generate_network(images, **run, progress=progress)
    progress("Writing the files", 0, 1)
    return made, written(made, folder)


def written(made, folder: Path) -> dict[str, Path]:
    """Write a `NetworkGeneration` into a folder that is there: its files as head, onnx, samples, report."""
    made.save(folder, made.report.data)
    return {key: folder / name for key, name in FILES.items()}


def finetune(start, data, settings: dict, bundle: Path | None, file: Path, progress: Progress = silent):
    """Train a network further, beside what its bundle's zoo has to offer: the `FineTuneReport`, and its file."""
    from d2nwg.finetuning.networks import finetune_network

    made = finetune_network(start, data, bundle=bundle, max_images=MAX_IMAGES, progress=progress, **settings)
    return made.report, made.network.save(file)


def bundle_of(start, viewer: Viewer) -> Path | None:
    """The bundle that made a network, where it is still here and the visitor may use it; None for a head."""
    return network_bundles(viewer).get(getattr(start, "bundle", ""))
