"""Which items of a data set train a head further, and which score it: never one that the head was made from."""

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor

from d2nwg.data.labelled import LabelledSet, check_readable
from d2nwg.data.split import shared_out
from d2nwg.encoders.open import FeatureEncoder
from d2nwg.encoders.split import read_split
from d2nwg.evaluation.finetune import Items
from d2nwg.finetuning.plan import is_count
from d2nwg.heads import Head
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import shown, some


@dataclass(frozen=True)
class Parts:
    """The features of a data set, and which of them train and which score.

    Attributes:
        train, test: the labels are rows of the head.
        shown: (n,) bool, the training items that the head was made from.
        index: numbers of both in the data set.
        seed, max_images: that the parts follow from, with the head's own seed and shots.
        notes: sentences.
    """

    train: Items
    test: Items
    shown: Tensor
    index: tuple[np.ndarray, np.ndarray]
    seed: int
    max_images: int
    notes: tuple[str, ...]

    def digest(self) -> str:
        """Equal for the same parts of the same set."""
        labels = (part.labels.numpy() for part in (self.train, self.test))
        return sha256(b"/".join(np.asarray(a, np.int64).tobytes() for a in (*self.index, *labels))).hexdigest()


def read_parts(
    head: Head, data: LabelledSet, encoder: FeatureEncoder, max_images: int, seed: int, progress: Progress = silent
) -> Parts:
    """Encode images to train and to score on. Those that the head was made from (its ``info`` has the seed and the
    shots of `d2nwg.generate`) only train; those that scored an earlier fine-tuning score again.

    Raises:
        UserError: see `finetune`.
    """
    rows = _rows(head, data)
    earlier = head.info.get("finetuned")
    if isinstance(earlier, dict) and is_count(earlier.get("seed"), 0) and is_count(earlier.get("max_images"), 4):
        seed, max_images = earlier["seed"], earlier["max_images"]
    shots, own_seed, notes = _shown(head, data)
    split, most_test = bool(data.is_test.any()), max(len(data.classes), max_images // 3)
    most = most_test if split else max(len(data.classes), max_images - max(1, shots) * len(data.classes))
    found = read_split(data, encoder, max(1, shots), own_seed, most, progress)
    rng = np.random.default_rng(seed)
    if split:
        test, more = found.query_index, _others(data, found.support_index, max_images - most_test, rng)
        more, features, unread = _encode(data, encoder, more, progress)
        notes += unread
        score = Items(found.query, found.query_labels)
        train = Items(
            torch.cat([found.support, features]), torch.cat([found.labels, torch.from_numpy(data.labels[more])])
        )
    else:
        held = _a_third(found.query_labels.numpy(), rng)
        test, more = found.query_index[held], found.query_index[~held]
        aside, query = torch.from_numpy(held), Items(found.query, found.query_labels)
        score, rest = query.at(aside), query.at(~aside)
        train = Items(torch.cat([found.support, rest.features]), torch.cat([found.labels, rest.labels]))
    shown = torch.arange(len(train.labels)) < (len(found.labels) if shots else 0)
    return Parts(
        Items(train.features, rows[train.labels]),
        Items(score.features, rows[score.labels]),
        shown,
        (np.concatenate([found.support_index, more]), test),
        seed,
        max_images,
        (*notes, *found.notes),
    )


def _rows(head: Head, data: LabelledSet) -> Tensor:
    """(classes of the data,) the head's rows of the data's classes: by name, or in order where the head's classes were
    renamed."""
    if data.noun != head.noun:
        raise UserError(f"{data.name} holds {data.noun}s, and the head tells {head.noun}s apart: give some of those.")
    if set(head.classes) == set(data.classes):
        return torch.tensor([head.classes.index(name) for name in data.classes])
    if head.info.get("data") == data.name and len(head.classes) == len(data.classes):
        return torch.arange(len(data.classes))
    missing = [name for name in head.classes if name not in data.classes]
    more = [name for name in data.classes if name not in head.classes]
    what = (
        f"lacks {some(missing)}, which the head knows" if missing else f"has {some(more)}, which the head does not know"
    )
    raise UserError(f"{data.name} {what}: give data with the head's own classes ({some(head.classes, 8)}).")


def _shown(head: Head, data: LabelledSet) -> tuple[int, int, tuple[str, ...]]:
    """How many images a class the head was made from (0 for none, or where they cannot be known), by which seed, and
    notes."""
    shots, seed, source = (head.info.get(name) for name in ("shots", "seed", "data"))
    fewest = np.bincount(data.labels[~data.is_test], minlength=len(data.classes)).min()
    if shots == 0:
        return 0, 0, ()
    if not is_count(shots, 1) or not is_count(seed, 0) or fewest < shots + (not data.is_test.any()):
        unknown = (
            f"Which {data.noun}s the head was made from is not known: some of them may be among those that score it."
        )
        return 0, 0, (unknown,)
    notes: tuple[str, ...] = ()
    if source != data.name:
        notes = (
            f"The head was made from {shown(source)}, these are {data.name}: where both hold the same {data.noun}s, it "
            "may have seen some that score it.",
        )
    return shots, seed, notes


def _a_third(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A mask of a third of each class, at least one."""
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        held[own[: -(-len(own) // 3)]] = True
    return held


def _others(data: LabelledSet, support: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers of training images beside the support, at most so many, in equal shares of the classes."""
    free = np.setdiff1d(np.flatnonzero(~data.is_test), support)
    shares = shared_out(np.bincount(data.labels[free], minlength=len(data.classes)), max(0, most - len(support)))
    chosen = [rng.permutation(free[data.labels[free] == label])[:share] for label, share in enumerate(shares)]
    return np.concatenate(chosen)


def _encode(data: LabelledSet, encoder: FeatureEncoder, index: np.ndarray, progress: Progress):
    """Features of images; those that cannot be read are left out, and named in a note."""
    scale = data.scale()
    features, readable = encoder.encode([data.items[int(i)] for i in index], progress=progress, **scale.option)
    mask = np.ones(len(data), bool)
    mask[index] = readable
    notes = check_readable(data, index, mask) if len(index) else ()
    return index[readable], features[torch.from_numpy(readable)], notes
