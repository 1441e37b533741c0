"""Texts in, feature vectors out: a text encoder behind the interface of the image encoders.

The name of such an encoder says what it takes: ``texts/NAME`` takes texts, and its features are the vectors of the text
encoder NAME (`d2nwg.encoders.texts`); ``text-pairs/NAME`` takes pairs of texts, and its features are the absolute
difference of their vectors and the length of their sum: how far they are apart, in all and in what, at one length. From
few pairs that is right on 8 points more than both vectors, difference and product side by side (InferSent, Conneau et
al., 2017), as measured on SICK and QNLI.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from d2nwg.data.deep import PixelScale
from d2nwg.data.text_set import Text
from d2nwg.encoders.texts import DEFAULT_TEXT_ENCODER, TextEncoder, load_text_encoder
from d2nwg.utils.devices import resolve_device
from d2nwg.utils.progress import Progress, silent

TEXTS, PAIRS = "texts/", "text-pairs/"
BLOCK = 512  # texts between two calls of ``progress``


class SentenceEncoder:
    """A frozen network that turns texts, or pairs of texts, into feature vectors; see `d2nwg.encoders.base.Encoder`.

    Attributes:
        name: ``texts/NAME`` or ``text-pairs/NAME``.
        num_features: width of a feature vector: that of NAME, and one more for pairs.
        preprocessing: ``texts``: how many an item has.
        device: that it computes on.
    """

    def __init__(self, encoder: TextEncoder, pairs: bool, device: str):
        self.texts, self.pairs = encoder, pairs
        self.name = f"{PAIRS if pairs else TEXTS}{encoder.name}"
        self.num_features = encoder.num_features + pairs
        self.preprocessing = {"texts": 2 if pairs else 1}
        self.device = torch.device(device)

    def encode(
        self,
        items: Sequence[Text],
        *,
        progress: Progress = silent,
        cache: bool = True,
        scale: PixelScale | None = None,
    ) -> tuple[Tensor, np.ndarray]:
        """Features (n, num_features) float32 on the CPU, and a bool array (n,) that is False where a text is empty or
        not of the kind, a text or a pair, that this takes (its row is zero).

        Args:
            items: texts, or pairs of them.
            progress: called with the stage ``"Reading texts"``.
            cache: keep and reuse vectors on disk.
            scale: of images; no text has one.
        """
        count = 2 if self.pairs else 1
        features, readable = torch.zeros(len(items), self.num_features), np.ones(len(items), bool)
        for start in range(0, len(items), BLOCK):
            progress("Reading texts", start, len(items))
            rows = [(item,) if isinstance(item, str) else tuple(item) for item in items[start : start + BLOCK]]
            good = [i for i, row in enumerate(rows) if len(row) == count and all(text.strip() for text in row)]
            vectors = self.texts.encode([text for i in good for text in rows[i]], cache=cache)
            readable[start : start + len(rows)] = np.isin(np.arange(len(rows)), good)
            if good:
                features[[start + i for i in good]] = _joined(vectors) if self.pairs else vectors
        progress("Reading texts", len(items), len(items))
        return features, readable


def _joined(vectors: Tensor) -> Tensor:
    """(2n, d) of unit length, the two of each pair one after the other → (n, d + 1) of unit length."""
    u, v = vectors[0::2], vectors[1::2]
    return torch.cat([(u - v).abs(), (u + v).norm(dim=-1, keepdim=True)], -1) / 2


def takes_texts(encoder: str) -> int:
    """How many texts an item of an encoder has, by its name: 1, 2 for pairs, 0 for images."""
    return 1 if encoder.startswith(TEXTS) else 2 if encoder.startswith(PAIRS) else 0


def text_encoder_of(encoder: str) -> str:
    """The text encoder in the name of an encoder of texts or pairs."""
    return encoder.removeprefix(TEXTS).removeprefix(PAIRS)


def load_sentence_encoder(
    name: str = DEFAULT_TEXT_ENCODER, *, pairs: bool = False, device: str | None = None
) -> SentenceEncoder:
    """The encoder of texts, or of pairs of texts, on a text encoder (`load_text_encoder`).

    Raises:
        UserError: unknown name or device, or weights that can be neither found nor fetched.
    """
    return SentenceEncoder(load_text_encoder(text_encoder_of(name), device), pairs, resolve_device(device))
