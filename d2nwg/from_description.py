"""A description of a task in, an adapter of a text encoder out: `generate_from_description`."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from d2nwg.adapters import Adapter, strength
from d2nwg.bundles import load_adapter_pipeline
from d2nwg.conditions.class_names import check_names, class_of
from d2nwg.encoders.lora import AdaptedEncoder, LoraShape, adapted_encoder
from d2nwg.models.adapter_space import HEAD, AdapterSpace, KnownTask
from d2nwg.pipelines.adapters import GUIDANCE, STEPS, AdapterSamples, check_description
from d2nwg.utils.devices import resolve_device
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import seed_number, whole
from d2nwg.utils.outputs import new_folder
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import folded, number, some
from d2nwg.weights.networks import State

WEAK = 2.0  # degrees; an adapter that turns vectors by less does nothing to speak of
MOST_TURNED = 30  # sentences that say what an adapter does
NAMED = 10.0  # length of a row that a class name gives, where the known heads say nothing


@dataclass
class DescribedAdapter:
    """A generated adapter.

    Attributes:
        adapter: the sample in the middle of all.
        samples: all of them.
        nearest: names of the nearest known tasks, and the cosines of their descriptions with this one.
        near_tasks: these tasks, as the bundle knows them.
        seen: whether the description is one of a known task.
        effect: by how many degrees the adapter turns the vectors of sentences, on average.
        look_up: what looking up the nearest task gives instead: its first adapter of the zoo, as the bundle keeps it.
        look_up_effect: by how many degrees that one turns them.
        notes: sentences for the user.
        seconds: wall time, loading aside.
    """

    adapter: Adapter
    samples: AdapterSamples
    nearest: list[tuple[str, float]]
    near_tasks: list[KnownTask]
    seen: bool
    effect: float
    look_up: Adapter
    look_up_effect: float
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
            "look_up_effect_degrees": round(self.look_up_effect, 2),
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
    guidance_scale: float = GUIDANCE,
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
    description = check_description(description)
    labels = [class_of(name) for name in check_names(labels)] if labels else []
    whole(num_samples, "The number of samples", 1)
    seed_number(seed)
    progress("Opening the bundle", 0, 1)
    device = resolve_device(device)
    path, pipe = load_adapter_pipeline(bundle, device)
    space = pipe.weight_space
    with encoder_of(space, path.name, device) as encoder:
        shape = encoder.shape
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
            labels=labels,
        )
        nearest = [(space.tasks[place].name, cosine) for place, cosine in samples.nearest]
        sentences = turned_sentences(space)
        plain = encoder.embed(sentences)  # no adapter is in it yet

        def made(state: State, head: State, **about) -> tuple[Adapter, float, bool]:
            state, head = ({name: value.cpu().contiguous() for name, value in part.items()} for part in (state, head))
            encoder.load(state)
            head, classes, from_names = _head(head, samples, labels, encoder, nearest)
            info = {"bundle": path.name, "description": description, **about, "head_from_names": from_names}
            info |= {"task": nearest[0][0] if samples.seen else "new", "metric": samples.task.metric}
            adapter = Adapter(state, head, shape, classes, samples.task.pairs, info)
            return adapter, float(strength(encoder, sentences, plain).mean()), from_names

        chosen = samples.central()
        drawn = samples.one(chosen)
        adapter, effect, from_names = made(*drawn, seed=seed, num_samples=num_samples, sample=chosen)
        look_up, look_up_effect, _ = made(*_first_of(space, samples.nearest[0][0]), looked_up=True)
    notes = _notes(nearest, samples.seen)
    if from_names:
        notes.append("Its labels are not those of a known task, so that the head begins at the vectors of their names.")
    if effect < WEAK:
        notes.append(
            f"The adapter hardly has an effect: it turns the vectors of sentences by {effect:.1f}° on average."
        )
    return DescribedAdapter(
        adapter=adapter,
        samples=samples,
        nearest=nearest,
        near_tasks=[space.tasks[place] for place, _ in samples.nearest],
        seen=samples.seen,
        effect=effect,
        look_up=look_up,
        look_up_effect=look_up_effect,
        notes=notes,
        seconds=time.perf_counter() - started,
    )


@contextmanager
def encoder_of(space: AdapterSpace, bundle: str, device: str | None) -> Iterator[AdaptedEncoder]:
    """The encoder that the adapters of a bundle are of, without one in it (`d2nwg.encoders.lora.adapted_encoder`).

    Raises:
        UserError: it is not available, or has other weights than where the bundle, of this name, was trained.
    """
    shape = LoraShape.from_json(space.config.shape)
    with adapted_encoder(shape, device) as encoder:
        if encoder.key != space.config.encoder_key:
            raise UserError(f"{shape.base} has other weights here than where {bundle} was trained: train it anew.")
        yield encoder


def turned_sentences(space: AdapterSpace) -> list[str]:
    """The sentences whose vectors say by how far an adapter turns them."""
    return [task.descriptions[0] for task in space.tasks][:MOST_TURNED]


def _first_of(space: AdapterSpace, task: int) -> tuple[State, State]:
    """The matrices and the head of a task's first member of the zoo, as the bundle keeps it."""
    member = int(torch.nonzero(space.zoo_tasks == task)[0])
    state = space.to_states(space.zoo_vectors[member][None], space.tasks[task].rows)
    return {k: v[0] for k, v in state.items() if k not in HEAD}, {k: state[k][0] for k in HEAD}


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
