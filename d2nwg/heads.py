"""A head as a file: save, load, predict, evaluate.

A head is a linear layer, or a two-layer MLP, on the features of a frozen encoder. Its file is a safetensors file whose
metadata name the encoder, its preprocessing and the classes.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from d2nwg.data.deep import PixelScale
from d2nwg.encoders.sentences import takes_texts
from d2nwg.evaluation.accuracy import confusion_matrix, per_class_accuracy
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import some
from d2nwg.weights.networks import build_head

if TYPE_CHECKING:
    from d2nwg.data.labelled import LabelledSet
    from d2nwg.data.text_set import Text
    from d2nwg.encoders.open import FeatureEncoder
    from d2nwg.weights.network_files import NetworkFile

FORMAT, VERSION = "d2nwg-head", "1"
LINEAR, MLP = ("weight", "bias"), ("0.weight", "0.bias", "2.weight", "2.bias")
_JSON_FIELDS = {"encoder": str, "classes": list, "preprocessing": dict, "info": dict}


@dataclass
class Head:
    """A classifier on frozen features.

    ``state`` is the state dict of `module`, float32: ``weight`` (C, d) and ``bias`` (C,); or, for an MLP of hidden
    width h, ``0.weight`` (h, d), ``0.bias`` (h,), ``2.weight`` (C, h) and ``2.bias`` (C,).

    Raises:
        UserError: tensors that are none of these, are not finite, or disagree with each other or the classes.
    """

    state: dict[str, Tensor]
    encoder: str
    classes: tuple[str, ...]
    preprocessing: dict
    info: dict = field(default_factory=dict)
    kind = "head"

    def __post_init__(self):
        self.classes = tuple(self.classes)
        self.state = {name: tensor.detach().cpu().float().contiguous() for name, tensor in self.state.items()}
        if reason := self._flaw():
            raise UserError(f"The head cannot be used because {reason}.")

    @property
    def scale(self) -> PixelScale:
        """On which images of more than 8 bits a channel become 8 bits, as those that the head was made from did."""
        return PixelScale.from_json(self.info.get("pixel_scale"))

    def keep_scale(self, scale: PixelScale) -> None:
        """Have ``info`` hold the scale of the images that the head was made from, where there is one."""
        if scale:
            self.info["pixel_scale"] = scale.to_json()

    @property
    def noun(self) -> str:
        """What the head tells apart: ``"image"``, ``"text"``, or ``"pair"`` of texts."""
        return ("image", "text", "pair")[takes_texts(self.encoder)]

    @property
    def num_features(self) -> int:
        """d, the number of features of an item."""
        return next(t for name, t in self.state.items() if name in ("weight", "0.weight")).shape[1]

    def module(self) -> nn.Module:
        """A new ``nn.Linear(d, C)``, or ``nn.Sequential(Linear, ReLU, Linear)``, that maps features to logits."""
        return build_head(self.state).requires_grad_(False)

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file; encoder, classes, preprocessing and info go into its metadata as JSON."""
        metadata = {name: json.dumps(getattr(self, name), ensure_ascii=False) for name in _JSON_FIELDS}
        save_file(self.state, path, {"format": FORMAT, "version": VERSION, **metadata})
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> "Head":
        """Read what `save` wrote.

        Raises:
            UserError: not such a file, or one whose numbers cannot be used.
        """
        try:
            if not Path(path).is_file():  # a FIFO would block
                raise FileNotFoundError(path)
            with safetensors.safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:  # before tensors of any size are read
                    raise UserError(f"{path} is not a d2nwg head: give the head.safetensors that generate wrote.")
                state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (no mapping)
        except UserError:
            raise
        except Exception as reason:  # a damaged file can fail in any way
            raise UserError(f"{path} cannot be read as a head: {_why(Path(path))}.") from reason
        if metadata.get("version") != VERSION:
            raise UserError(f"{path} was written by a newer d2nwg: update this one to read it.")
        try:
            fields = {name: json.loads(metadata[name]) for name in _JSON_FIELDS}
        except (KeyError, ValueError, RecursionError):
            fields = {}
        if not fields or not all(isinstance(fields[name], kind) for name, kind in _JSON_FIELDS.items()):
            raise UserError(f"{path} is damaged: its metadata cannot be read.")
        try:
            return cls(state, **fields)
        except UserError as reason:
            raise UserError(f"{path}: {reason}") from reason

    def open_encoder(self, device: str | None = None) -> "FeatureEncoder":
        """The encoder that the head sits on.

        Raises:
            UserError: it is not available, or is not the one this head was made for.
        """
        from d2nwg.encoders.open import load_encoder

        encoder = load_encoder(self.encoder, device)
        if encoder.num_features != self.num_features:
            raise UserError(
                f"This head takes {self.num_features} features but {self.encoder} gives "
                f"{encoder.num_features}: make the head again."
            )
        if encoder.preprocessing != self.preprocessing:
            raise UserError(
                f"This head was made with another preprocessing than {self.encoder} has here: make "
                "the head again, or install the timm or open_clip version it was made with."
            )
        return encoder

    @torch.inference_mode()
    def probabilities(
        self,
        items: Sequence[Any],
        *,
        device: str | None = None,
        progress: Progress = silent,
        scale: PixelScale | None = None,
    ) -> tuple[Tensor, np.ndarray]:
        """Class probabilities (n, C) float32 of items, and a bool array (n,): False and a row of zeros where one could
        not be read.

        Args:
            items: images (paths or bytes), texts, or pairs of texts: what the head's encoder takes (`noun`).
            scale: of images of more than 8 bits a channel, for kinds that the head's own lacks.
        Raises:
            UserError: the encoder is not available, or is not the one this head was made for.
        """
        encoder = self.open_encoder(device)
        scale = self.scale | (scale or PixelScale())
        features, readable = encoder.encode(items, progress=progress, **scale.option)
        probabilities = self.module()(features).softmax(1)
        probabilities[torch.from_numpy(~readable)] = 0
        return probabilities, readable

    def _flaw(self) -> str | None:
        if len(self.classes) < 2 or not all(isinstance(name, str) and name for name in self.classes):
            return "it needs the names of at least two classes"
        if len(set(self.classes)) < len(self.classes):
            return "two of its classes have the same name"
        if set(self.state) not in (set(LINEAR), set(MLP)):
            return "its tensors are neither those of a linear layer nor those of a two-layer MLP"
        layers = [LINEAR] if len(self.state) == len(LINEAR) else [MLP[:2], MLP[2:]]
        shapes = [(self.state[weight].shape, self.state[bias].shape) for weight, bias in layers]
        if any(len(w) != 2 or 0 in w or b != w[:1] for w, b in shapes) or any(
            after[0][1] != before[0][0] for before, after in pairwise(shapes)
        ):
            return "the shapes of its tensors disagree"
        if shapes[-1][0][0] != len(self.classes):
            return f"it has {len(self.classes)} class names for {shapes[-1][0][0]} outputs"
        if not all(tensor.isfinite().all() for tensor in self.state.values()):
            return "some of its numbers are not finite"
        return None


def evaluate_head(
    head: "Head | NetworkFile", data: "LabelledSet", *, device: str | None = None, progress: Progress = silent
) -> dict:
    """Score a head, or a small network, on labelled items: on the test split when there is one, otherwise on all.

    Classes are matched by name; the data need not have all classes of the head.

    Returns:
        ``accuracy`` (fraction), ``per_class`` (name → fraction), ``num_images``, ``num_texts`` or ``num_pairs``
        (scored), ``classes`` (the head's), ``confusion`` (counts, a row a true class, a column a predicted one, in that
        order), ``skipped`` (items that could not be read), ``notes`` (sentences).
    Raises:
        UserError: data of another kind than the head takes, classes that it does not know, or nothing readable.
    """
    if data.noun != head.noun:
        raise UserError(f"{data.name} holds {data.noun}s, and the head tells {head.noun}s apart: give some of those.")
    chosen = np.flatnonzero(data.is_test) if data.is_test.any() else np.arange(len(data.items))
    row = {name: i for i, name in enumerate(head.classes)}
    unknown = [name for name in (data.classes[c] for c in np.unique(data.labels[chosen])) if name not in row]
    if unknown:
        raise UserError(
            f"{data.name} has classes that the head does not know ({some(unknown)}): its own are "
            f"{some(head.classes, 8)}."
        )
    items = [data.items[int(i)] for i in chosen]
    scale = data.scale(progress)
    probabilities, readable = head.probabilities(items, device=device, progress=progress, scale=scale)
    if not readable.any():
        raise UserError(f"None of the {len(chosen)} {data.noun}s in {data.name} can be read.")
    truth = np.array([row.get(name, -1) for name in data.classes])[data.labels[chosen[readable]]]
    confusion = confusion_matrix(truth, probabilities.argmax(1).numpy()[readable], len(head.classes))
    per_class, notes = per_class_accuracy(confusion, head.classes), list(data.notes)
    notes += (head.scale | scale).of(scale.ranges).notes()
    if not data.is_test.any():
        notes.append(
            f"There is no test {'folder' if data.noun == 'image' else 'split'}, so every {data.noun} was scored: where "
            "the head was made from some of them, its accuracy on the others is the one to trust."
        )
    return {
        "accuracy": float(confusion.trace() / confusion.sum()),
        "per_class": {name: right for name, right in per_class.items() if right is not None},
        f"num_{data.noun}s": int(confusion.sum()),
        "classes": list(head.classes),
        "confusion": confusion.tolist(),
        "skipped": int((~readable).sum()),
        "notes": notes,
    }


def predict_images(
    head: "Head | NetworkFile", paths: Sequence[str | Path], *, top: int = 5, device: str | None = None
) -> list[dict]:
    """Classify image files.

    Returns:
        a dictionary for each image: ``image`` (its path), ``label`` and ``probability`` of the likeliest class, ``top``
        (the ``top`` likeliest classes as (label, probability), best first).
    Raises:
        UserError: files that are not there or cannot be read as images.
    """
    from d2nwg.data.decode import open_image

    _check_kind(head, "image")
    files = [Path(path) for path in paths]
    if missing := [str(file) for file in files if not file.is_file()]:
        raise UserError(f"There is no such file: {some(missing)}.")
    probabilities, readable = head.probabilities(files, device=device)
    for i in np.flatnonzero(~readable):
        open_image(files[i])  # says why it cannot be read
        raise UserError(f"{files[i]} cannot be read.")
    return _rows(head, probabilities, top, "image", map(str, paths))


def predict_texts(head: Head, texts: Sequence["Text"], *, top: int = 5, device: str | None = None) -> list[dict]:
    """Classify texts, or pairs of texts.

    Returns:
        what `predict_images` returns, with ``text`` in the place of ``image``.
    Raises:
        UserError: the head takes something else, or a text is empty.
    """
    pairs = [isinstance(text, tuple) for text in texts]
    _check_kind(head, "pair" if any(pairs) else "text")
    probabilities, readable = head.probabilities(texts, device=device)
    if not readable.all():
        raise UserError("One of the texts is empty: write something, or leave it out.")
    return _rows(head, probabilities, top, "text", texts)


def _check_kind(head: "Head | NetworkFile", noun: str) -> None:
    if head.noun != noun:
        wants = {"image": "images", "text": "single texts", "pair": "two texts a row"}
        raise UserError(f"This head takes {wants[head.noun]}, not {wants[noun]}.")


def _rows(head: "Head | NetworkFile", probabilities: Tensor, top: int, noun: str, items: Iterable) -> list[dict]:
    values, indices = probabilities.topk(min(top, len(head.classes)), 1)
    rows = []
    for item, p, k in zip(items, values.tolist(), indices.tolist(), strict=True):
        best = [(head.classes[i], value) for i, value in zip(k, p, strict=True)]
        rows.append({noun: item, "label": best[0][0], "probability": best[0][1], "top": best})
    return rows


def _why(path: Path) -> str:
    if path.is_dir():
        return "it is a folder; name the head.safetensors in it"
    return "it is not a safetensors file, or a damaged one" if path.exists() else "there is no such file"
