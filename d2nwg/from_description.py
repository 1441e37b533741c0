"""A description of a task in, an adapter of a text encoder out: `generate_from_description`."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from d2nwg.adapters import Adapter, strength
from d2nwg.bundles import load_bundle, resolve_bundle
from d2nwg.conditions.class_names import check_names, class_of
from d2nwg.encoders.lora import AdaptedEncoder, LoraShape
from d2nwg.pipelines.adapters import STEPS, AdapterSamples
from d2nwg.utils.devices import resolve_device
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import seed_number, whole
from d2nwg.utils.outputs import new_folder
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import folded, number, some, utf8
from d2nwg.weights.networks import State

LONGEST = 5_000  # characters of a description
WEAK = 2.0  # degrees; an adapter that turns vectors by less does nothing to speak of
NAMED = 10.0  # length of a row that a class name gives, where the known heads say nothing


@dataclass
class DescribedAdapter:
    """A generated adapter.

    Attributes:
        adapter: the sample in the middle of all.
        samples: all of them.
        nearest: names of the nearest known tasks, and the cosines of their descriptions with this one.
        seen: whether the description is one of a known task.
        effect: by how many degrees the adapter turns the vectors of sentences, on average.
        notes: sentences for the user.
        seconds: wall time, loading aside.
    """

    adapter: Adapter
    samples: AdapterSamples
    nearest: list[tuple[str, float]]
    seen: bool
    effect: float
    notes: list[str]
    seconds: float

    def to_json(self) -> dict:
        """As ``report.json`` holds it."""
        return {
            **self.adapter.info,
            "classes": list(self.adapter.classes),
            "pairs": self.adapter.pairs,
            "nearest": [{"task": name, "cosine": round(cosine, 4)} for name, cosine in self.nearest],
            "seen": self.seen,
            "effect_degrees": round(self.effect, 2),
            "distance": [round(value, 4) for value in self.samples.distance.tolist() if value == value],
            "seconds": round(self.seconds, 3),
            "notes": self.notes,
        }

    def save(self, out: str | Path) -> Path:
        """Write the adapter's folder, with ``report.json``. Raises UserError as `new_folder`."""
        with new_folder(out, empty=True) as part:
            self.write(part, Path(out).name)
        return Path(out)

    def write(self, part: Path, name: str) -> None:
        """The files, into a folder that is there."""
        self.adapter.write(part, name, " ".join(self.notes))
        report = json.dumps(self.to_json(), indent=1, ensure_ascii=False)
        (part / "report.json").write_text(report, encoding="utf-8", errors="backslashreplace")


def generate_from_description(
    description: str,
    *,
    labels: Sequence[str] = (),
    bundle: str | Path | None = None,
    num_samples: int = 10,
    seed: int = 0,
    steps: int = STEPS,
    guidance_scale: float = 1.0,
    device: str | None = None,
    progress: Progress = silent,
) -> DescribedAdapter:
    """Generate an adapter of a text encoder, with a head, for a task in words.

    Args:
        description: of the task, in the language of the bundle's sentence encoder (the shipped one speaks English).
        labels: names of the classes. Of a known task they may be left out; where they are not its own, the head
            begins at the vectors of these names.
        bundle: name or path; by default the shipped one.
        num_samples: adapters to sample; the one in the middle of them is taken.
        seed: of the noise.
        steps: denoising steps.
        guidance_scale: of classifier-free guidance.
        progress: stages "Opening the bundle", "Sampling adapters".
    Raises:
        UserError: an empty or too long description, labels that cannot be used, a task that is new and has no labels,
            or a bundle that cannot be opened.
    """
    if len(description) > LONGEST:
        raise UserError(f"The description has {len(description):,} characters; say it in at most {LONGEST:,}.")
    description = utf8(description)
    labels = [class_of(name) for name in check_names(labels)] if labels else []
    whole(num_samples, "The number of samples", 1)
    seed_number(seed)
    progress("Opening the bundle", 0, 1)
    device = resolve_device(device)
    path = resolve_bundle(bundle, "adapter")
    pipe = load_bundle(path).to(device)
    shape = LoraShape.from_json(pipe.weight_space.config.shape)
    encoder = AdaptedEncoder(shape, device)
    if encoder.key != pipe.weight_space.config.encoder_key:
        raise UserError(f"{shape.base} has other weights here than where {path.name} was trained: train it anew.")
    progress("Opening the bundle", 1, 1)
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    samples = pipe(
        description,
        num_samples=num_samples,
        generator=generator,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        progress=progress,
    )
    chosen = samples.central()
    state, head = ({name: tensor.cpu().contiguous() for name, tensor in part.items()} for part in samples.one(chosen))
    encoder.load(state)
    nearest = [(pipe.weight_space.tasks[place].name, cosine) for place, cosine in samples.nearest]
    notes = _notes(nearest, samples.seen)
    head, classes, from_names = _head(head, samples, labels, encoder, nearest)
    if from_names:
        notes.append("Its labels are not those of a known task, so that the head begins at the vectors of their names.")
    effect = float(strength(encoder, [text for task in pipe.weight_space.tasks for text in task.descriptions]).mean())
    if effect < WEAK:
        notes.append(
            f"The adapter hardly has an effect: it turns the vectors of sentences by {effect:.1f}° on average."
        )
    info = {"bundle": path.name, "description": description, "seed": seed, "num_samples": num_samples}
    info |= {"task": nearest[0][0] if samples.seen else "new", "sample": chosen, "head_from_names": from_names}
    adapter = Adapter(state, head, shape, classes, samples.task.pairs, info)
    return DescribedAdapter(adapter, samples, nearest, samples.seen, effect, notes, time.perf_counter() - started)


def _notes(nearest: list[tuple[str, float]], seen: bool) -> list[str]:
    beside = some([f"{name} ({cosine:.2f})" for name, cosine in nearest])
    if seen:
        return [f"This is a task that the generator knows, {nearest[0][0]}. Nearest by description: {beside}."]
    return [f"The generator knows no such task, so expect little of the adapter. Nearest by description: {beside}."]


def _head(
    head: State, samples: AdapterSamples, labels: list[str], encoder: AdaptedEncoder, nearest: list[tuple[str, float]]
) -> tuple[State, tuple[str, ...], bool]:
    """``weight`` and ``bias``, the classes, and whether it was made from their names.

    Raises:
        UserError: the task is new and has no labels.
    """
    head = {name.removeprefix("head."): tensor for name, tensor in head.items()}
    known = list(samples.task.classes)
    if not labels and not samples.seen:
        raise UserError(
            f"The generator knows no such task (nearest: {nearest[0][0]}, cosine {nearest[0][1]:.2f}): name its "
            "labels, in English."
        )
    if not labels:
        return head, tuple(known), False
    own = {folded(name): place for place, name in enumerate(known)}
    if samples.seen and len(labels) == len(known) and {folded(name) for name in labels} == set(own):
        order = [own[folded(name)] for name in labels]
        return {name: tensor[order] for name, tensor in head.items()}, tuple(labels), False
    length = float(head["weight"].norm(dim=1).median()) or NAMED
    return {"weight": length * rows_of_names(labels, encoder), "bias": torch.zeros(len(labels))}, tuple(labels), True


def rows_of_names(labels: list[str], encoder: AdaptedEncoder) -> Tensor:
    """(C, d) unit directions of class names among each other, on an encoder with an adapter."""
    vectors = encoder.embed(labels)
    return torch.nn.functional.normalize(vectors - vectors.mean(0), dim=-1)


def sentence(made: DescribedAdapter, out: str | Path) -> str:
    """What was made, for a person."""
    kind = number(len(made.adapter.classes), "class", "classes") if made.adapter.classes else "a value"
    return (
        f"An adapter for {kind}, made in {made.seconds:.1f} s, is in {out}. It turns the vectors of sentences by "
        f"{made.effect:.0f}° on average."
    )
