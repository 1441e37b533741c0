"""The result that stands on the page at first: of the default example with the tab's defaults, computed once.

``python -m d2nwg.ui.generate.first`` computes and writes it anew, which a new default bundle makes necessary.
"""

import json
import shutil
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from d2nwg.bundles import bundle_files, resolve_bundle
from d2nwg.evaluation.report import Report
from d2nwg.ui.generate import html
from d2nwg.ui.generate.made import FILES, ITEMS, SNIPPET, Picked, Result
from d2nwg.ui.generate.settings import DEFAULTS, check_settings
from d2nwg.ui.session import new_folder
from d2nwg.ui.uploads import read_data
from d2nwg.utils.paths import shipped, write_whole

STORED = shipped("assets") / "first"
BASELINES = ("class_mean", "ridge", "logistic_regression")
BEFOREHAND = "Computed beforehand, with the settings that stand here at first; Generate computes it again."


def write(folder: Path = STORED) -> Any:
    """Generate with the tab's defaults, and store what the page shows of it, and the files that it offers: the
    `Generation`."""
    from safetensors.torch import load_file, save_file

    from d2nwg.ui.generate import service
    from d2nwg.ui.generate.luck import sentence_of_draws

    images = read_data(example=DEFAULTS["example"])
    keys = ("shots", "samples", "seed", "steps", "max_query")
    settings = check_settings(None, *(DEFAULTS[key] for key in keys), sampler=DEFAULTS["sampler"])
    made, _ = service.generate(images, settings, folder)
    for name in BASELINES:
        made.baseline_head(name).save(folder / f"{name}.safetensors")
    # in half precision, which changes none of their accuracies: they are the largest file
    samples = {name: tensor.half() for name, tensor in load_file(folder / FILES["samples"]).items()}
    save_file(samples, folder / FILES["samples"])
    item = int(np.random.default_rng(0).choice(made.data.query_index))
    facts = {
        "bundle": fingerprint(),
        "confusion": made.confusion.tolist(),
        "query": made.data.query_index.tolist(),
        "tried": {"item": item, "likeliest": service.look(made.head, images.items[item])},
        "draws": sentence_of_draws(Result(images, made, {}, ())),
    }
    write_whole(folder / "first.json", json.dumps(facts))
    (folder / "README.md").unlink()
    return made


def fingerprint(bundle: Path | None = None) -> str:
    """A hash of what a bundle makes heads with: its weights and settings, without its card. By default of the bundle
    that is used when none is asked for."""
    path, found = bundle or resolve_bundle(), sha256()
    for file in sorted(bundle_files(path)):
        if file.suffix in (".json", ".safetensors"):
            found.update(file.relative_to(path).as_posix().encode())
            found.update(sha256(file.read_bytes()).digest())
    return found.hexdigest()


class Stored:
    """Stands for the `Generation` that was stored. Its numbers are at hand, and its heads are read when asked for: the
    page opens without torch."""

    def __init__(self, folder: Path):
        facts = json.loads((folder / "first.json").read_text(encoding="utf-8"))
        self.folder, self.tried, self.draws = folder, facts["tried"], facts["draws"]
        self.report = Report.from_json(json.loads((folder / FILES["report"]).read_text(encoding="utf-8")))
        self.confusion = np.array(facts["confusion"])
        self.data = SimpleNamespace(query_index=np.array(facts["query"]))

    @cached_property
    def head(self) -> Any:
        """The chosen head."""
        return self._head("head")

    def sample_head(self, index: int) -> Any:
        """See `Generation`."""
        from safetensors import safe_open

        from d2nwg.heads import Head

        with safe_open(self.folder / FILES["samples"], "pt") as stored:
            state = {name: stored.get_slice(name)[index] for name in stored.keys()}  # noqa: SIM118 (no mapping)
        right = self.report.samples[index].accuracy
        info = {**self.head.info, "selection": f"sample {index}", "query_accuracy": right}
        return Head(state, self.head.encoder, self.head.classes, self.head.preprocessing, info)

    def baseline_head(self, name: str) -> Any:
        """See `Generation`."""
        return self._head(name)

    def _head(self, name: str) -> Any:
        from d2nwg.heads import Head

        return Head.load(self.folder / f"{name}.safetensors")


@dataclass(eq=False)
class FirstResult(Result):
    """The stored result, as a visitor's own.

    Attributes:
        tried: the held-out image that was tried beforehand, and its class; None once it was shown.
    """

    tried: tuple[Path, str] | None = None

    def draw(self) -> tuple[Any, str]:
        """See `Result`; at first the one that was tried beforehand."""
        tried, self.tried = self.tried, None
        return tried or super().draw()

    def baselines(self) -> dict[str, float]:
        """See `Result`; read from what the files say of themselves, without torch."""
        from safetensors import safe_open

        found = {}
        for name in BASELINES:
            with safe_open(self.generation.folder / f"{name}.safetensors", "np") as stored:
                found[name] = json.loads(stored.metadata()["info"])["query_accuracy"]
        return found

    def truth(self) -> np.ndarray:
        """See `Result`."""
        return self.images.labels[self.held_out()]

    def predicted(self, picked: Picked) -> np.ndarray:
        """See `Result`; the images are read for it, as their features are not stored."""
        items = [self.images.items[number] for number in self.held_out()]
        return self.head(picked).probabilities(items)[0].argmax(-1).numpy()

    def about(self, picked: Picked) -> str:
        """See `Result`."""
        return super().about(picked) if picked is not None else self.generation.report.selection

    def sentence(self) -> str:
        """See `Result`: it says also that it was computed beforehand."""
        return html.result(self.generation.report, BEFOREHAND, self.draws)

    def snippet(self, file: Path) -> str:
        """See `Result`."""
        return SNIPPET.format(file=file.name, encoder=self.generation.report.encoder, item=ITEMS[self.noun])


def first_result() -> FirstResult:
    """The stored result, for a visitor."""
    from d2nwg.figures.generate import confusion_figure

    images, made = read_data(example=DEFAULTS["example"]), Stored(_offered())
    files = {key: made.folder / name for key, name in FILES.items()}
    index = made.tried["item"]
    item, truth = images.items[index], images.classes[images.labels[index]]
    known = {(None, item): made.tried["likeliest"]}
    result = FirstResult(images, made, files, (), known, made.draws, (item, truth))
    result.figures = result.strip(), confusion_figure(made.confusion, made.report.classes)
    return result


@lru_cache(1)
def _offered() -> Path:
    """A copy of what is stored where the app may offer its files, one for all visitors."""
    return shutil.copytree(STORED, new_folder("first"), dirs_exist_ok=True)


if __name__ == "__main__":
    write()
