"""What the classes of ImageNet are called (WordNet's lemmas and definitions, which timm carries), and the rows that a
classifier trained on them has learnt."""

from dataclasses import dataclass
from functools import cache

from torch import Tensor

from d2nwg.encoders.images import classifier_weight
from d2nwg.utils.errors import UserError

SUBSETS = {1000: "imagenet-1k", 11821: "imagenet-12k", 21841: "imagenet-22k", 21842: "imagenet-22k-ms"}


@dataclass(frozen=True)
class NamedRows:
    """The rows of a classifier.

    Attributes:
        weight: (N, d) on the encoder's features.
        names: (N,) the lemmas of each row's class, such as ``"tench, Tinca tinca"``.
        definitions: (N,) one phrase each.
    """

    weight: Tensor
    names: tuple[str, ...]
    definitions: tuple[str, ...]


@cache
def _info(subset: str = "imagenet-1k"):
    from timm.data import ImageNetInfo

    return ImageNetInfo(subset)


def lemmas_of(synset: str) -> str | None:
    """The lemmas of a synset id (``"n01440764"``), or None for what is no id of ImageNet."""
    if len(synset) != 9 or synset[0] not in "nN" or not synset[1:].isdecimal():
        return None
    try:
        return _info().label_name_to_description(synset.lower())
    except KeyError:
        return None


def classifier_rows(encoder: str) -> NamedRows | None:
    """The rows of an image encoder's own ImageNet classifier, by the encoder's name; None for one that has none.

    Raises:
        UserError: its weights can be neither found nor fetched.
    """
    weight = classifier_weight(encoder)
    if weight is None or len(weight) not in SUBSETS:
        return None
    info = _info(SUBSETS[len(weight)])
    synsets = info.label_names()
    if len(synsets) != len(weight):
        raise UserError(f"The classifier of {encoder} has {len(weight)} rows, and ImageNet {len(synsets)} classes.")
    lemmas = [info.label_name_to_description(name) for name in synsets]
    detailed = [info.label_name_to_description(name, detailed=True) for name in synsets]
    definitions = [long[len(short) + 2 :] for short, long in zip(lemmas, detailed, strict=True)]
    return NamedRows(weight, tuple(lemmas), tuple(definitions))
