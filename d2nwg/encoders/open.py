"""The encoder of that name, whatever it takes."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from d2nwg.data.labelled import LabelledSet
from d2nwg.data.text_set import TextSet
from d2nwg.encoders import images
from d2nwg.encoders.sentences import PAIRS, TEXTS, load_sentence_encoder, takes_texts, text_encoder_of
from d2nwg.encoders.texts import DEFAULT_TEXT_ENCODER


class FeatureEncoder(Protocol):
    """What encoders of images and of texts have in common; see `d2nwg.encoders.base.Encoder`."""

    name: str
    num_features: int
    preprocessing: dict
    device: torch.device

    @property
    def encode(self) -> Callable[..., tuple[torch.Tensor, np.ndarray]]:
        """Features (n, num_features) of items, and a bool array (n,) that is False where one could not be read."""


def load_encoder(name: str = images.DEFAULT_ENCODER, device: str | None = None) -> FeatureEncoder:
    """The encoder that a head or a bundle names: of images (`d2nwg.encoders.images`), or of texts
    (`d2nwg.encoders.sentences`).

    Raises:
        UserError: unknown name or device, or weights that can be neither found nor fetched.
    """
    if texts := takes_texts(name):
        return load_sentence_encoder(name, pairs=texts == 2, device=device)
    return images.load_encoder(name, device)


def name_for(data: LabelledSet, asked: str | None, default: str) -> str:
    """The name of the encoder of a data set.

    Args:
        asked: by a person: an image encoder, or a text encoder with ``texts/`` before it or without.
        default: for images.
    """
    if not isinstance(data, TextSet):
        return asked or default
    return f"{PAIRS if data.pairs else TEXTS}{text_encoder_of(asked or DEFAULT_TEXT_ENCODER)}"
