"""Class names in, a head out, without an image: `generate_from_names`."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from d2nwg.bundles import load_pipeline, resolve_bundle
from d2nwg.conditions.base import Task
from d2nwg.conditions.class_names import check_distinct, check_names, class_of, embed_names
from d2nwg.encoders.images import load_encoder
from d2nwg.heads import Head
from d2nwg.pipelines.names import Expectation
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import seed_number, whole
from d2nwg.utils.paths import write_whole
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import number, shown
from d2nwg.weights.networks import State, pick


@dataclass
class NamedGeneration:
    """Heads made from names alone.

    Attributes:
        head: the average of the samples, which is what the names say.
        samples: all sampled heads as one batch: ``weight`` (S, C, D), ``bias`` (S, C). They differ as far as the names
            leave open.
        expectation: how accurate it can be expected to be.
        notes: sentences for the user.
        seconds: wall time, the encoders' loading aside.
    """

    head: Head
    samples: State
    expectation: Expectation
    notes: list[str]
    seconds: float

    def sample_head(self, index: int) -> Head:
        """Sample ``index`` as a head of its own."""
        info = {**self.head.info, "selection": f"sample {index}"}
        return Head(pick(self.samples, index), self.head.encoder, self.head.classes, self.head.preprocessing, info)

    def to_json(self) -> dict:
        """As ``report.json`` holds it."""
        return {
            "classes": list(self.head.classes),
            "encoder": self.head.encoder,
            **self.head.info,
            "num_samples": len(self.samples["bias"]),
            "expected": asdict(self.expectation) | {"far": self.expectation.far},
            "seconds": round(self.seconds, 3),
            "notes": self.notes,
        }

    def save(self, folder: str | Path) -> Path:
        """Write ``head.safetensors``, ``samples.safetensors`` and ``report.json``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.head.save(folder / "head.safetensors")
        save_file({name: tensor.contiguous() for name, tensor in self.samples.items()}, folder / "samples.safetensors")
        write_whole(folder / "report.json", json.dumps(self.to_json(), indent=1, ensure_ascii=False))
        return folder


def generate_from_names(
    names: Sequence[str],
    *,
    bundle: str | Path | None = None,
    num_samples: int = 50,
    seed: int = 0,
    encoder: str | None = None,
    device: str | None = None,
    progress: Progress = silent,
) -> NamedGeneration:
    """Generate heads for classes of which there is no image.

    Args:
        names: of the classes; each may be followed by a colon and a description. The sentence encoder that is shipped
            speaks English.
        bundle: name or path; by default the shipped one.
        num_samples: heads to sample.
        seed: of the noise.
        encoder: of the images; by default the bundle's. It needs a classifier of ImageNet's classes, or a text tower.
        progress: stages "Opening the bundle" and "Reading the names".
    Raises:
        UserError: fewer than two names, names that cannot be used (`check_names`, `check_distinct`), a bundle or an
            encoder that knows nothing of names, or more heads than fit into the memory.
    """
    names = check_names(names)
    whole(num_samples, "The number of samples", 1)
    seed_number(seed)
    progress("Opening the bundle", 0, 1)
    path = resolve_bundle(bundle)
    pipe = load_pipeline(path, device)
    if not pipe.uses_names:
        raise UserError(f"The bundle {path.name} was trained without class names: choose another one, or give images.")
    images = load_encoder(encoder or pipe.weight_space.config.encoder, device)
    on = pipe.names_on(images.name)
    pipe.check_size(num_samples, len(names), images.num_features, 0)
    on.prepare()
    progress("Opening the bundle", 1, 1)
    started = time.perf_counter()
    progress("Reading the names", 0, 1)
    check_distinct(names, embed_names(names, on.text_encoder))
    generator = torch.Generator().manual_seed(seed)
    samples = pipe(Task(names=names, encoder=images.name), num_samples=num_samples, generator=generator)
    state = {name: tensor.cpu() for name, tensor in samples.state.items()}
    directions = on.directions(names)
    expectation = on.expectation(names, directions)
    progress("Reading the names", 1, 1)
    info = {"bundle": path.name, "data": "class names", "seed": seed, "shots": 0}
    info["selection"] = f"average of {number(num_samples, 'sample')}"
    average = {name: tensor.mean(0) for name, tensor in state.items()}
    head = Head(average, images.name, tuple(map(class_of, names)), images.preprocessing, info)
    notes = notes_on(names, expectation)
    return NamedGeneration(head, state, expectation, notes, time.perf_counter() - started)


def notes_on(names: Sequence[str], expectation: Expectation) -> list[str]:
    """Sentences about what to expect of names."""
    notes = []
    if expectation.accuracy is not None:
        chance = 1 / len(names)
        notes.append(
            f"A head from such names is right on about {expectation.accuracy:.0%} of images (give or take "
            f"{expectation.give_or_take:.0%}; guessing gives {chance:.0%}), as measured on classes that were kept from "
            "training."
        )
    if expectation.far:
        beside = [f"{class_of(name)} ({near})" for name, near in zip(names, expectation.nearest, strict=False)][:3]
        notes.append(
            "These names are far from all that the zoo knows, so the head is little better than a guess: give a few "
            "images, describe the classes in English after a colon, or use more common names. Nearest known: "
            f"{shown('; '.join(beside), 300)}."
        )
    return notes
