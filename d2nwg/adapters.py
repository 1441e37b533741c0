"""An adapter with its head as a person takes it away: a folder that plain peft loads, with the head beside it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from d2nwg.data.text_set import Text
from d2nwg.encoders.lora import PREFIX, AdaptedEncoder, LoraShape
from d2nwg.encoders.texts import DEFAULT_TEXT_ENCODER
from d2nwg.utils.errors import UserError
from d2nwg.utils.outputs import new_folder
from d2nwg.utils.paths import read_json
from d2nwg.utils.text import markdown, shown
from d2nwg.weights.networks import State

FORMAT, VERSION = "d2nwg-adapter", "1"
FILES = ("adapter_config.json", "adapter_model.safetensors", "head.safetensors")
# Causal language models often have no token to pad with.
PADDING = "\nencoder.tokenizer.pad_token = encoder.tokenizer.pad_token or encoder.tokenizer.eos_token"
CARD = """---
library_name: peft
base_model: {base}
---
# {title}

{about}

The adapter changes {layers} weight matrices of `{base}` (LoRA, rank {rank}). With
[peft](https://huggingface.co/docs/peft) and sentence-transformers alone:

```python
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

encoder = SentenceTransformer("{base}")
encoder.load_adapter("{folder}")  # this folder
encoder.max_seq_length = {tokens}{padding}
head = load_file("{folder}/head.safetensors")
features = encoder.encode({example}, convert_to_tensor=True, normalize_embeddings=True).cpu()
print(features @ head["weight"].T + head["bias"])  # {said}
```
"""


@dataclass
class Adapter:
    """An adapter of a text encoder and a head on its vectors.

    Attributes:
        state: ``….lora_A.weight`` (r, in) and ``….lora_B.weight`` (out, r) of each adapted layer.
        head: ``weight`` (C, d) and ``bias`` (C,).
        shape: which layers of which encoder.
        classes: C names; none where the head says a value (C = 1).
        pairs: whether it reads pairs of texts.
        info: where it comes from, as JSON.

    Raises:
        UserError: the head's shape and the classes disagree, or a number is not finite.
    """

    state: State
    head: State
    shape: LoraShape
    classes: tuple[str, ...] = ()
    pairs: bool = False
    info: dict = field(default_factory=dict)

    def __post_init__(self):
        self.classes = tuple(self.classes)
        rows = len(self.classes) or 1
        if set(self.head) != {"weight", "bias"} or self.head["weight"].dim() != 2:
            raise UserError("The head of this adapter is damaged: make it again.")
        if self.head["weight"].shape[0] != rows or self.head["bias"].shape != (rows,):
            raise UserError(f"The head of this adapter has {len(self.head['weight'])} rows for {rows} classes.")
        if not all(tensor.isfinite().all() for tensor in (*self.state.values(), *self.head.values())):
            raise UserError("This adapter holds numbers that are not finite: make it again.")

    @property
    def noun(self) -> str:
        """What it reads: ``"text"``, or ``"pair"`` of texts."""
        return "pair" if self.pairs else "text"

    def encoder(self, device: str | None = None) -> AdaptedEncoder:
        """Its encoder, with the adapter in it."""
        encoder = AdaptedEncoder(self.shape, device)
        encoder.load(self.state)
        return encoder

    @torch.inference_mode()
    def predict(self, texts: Sequence[Text], encoder: AdaptedEncoder | None = None) -> Tensor:
        """Probabilities (n, C) of the classes, or values (n,).

        Args:
            encoder: with this adapter in it; by default it is loaded.
        """
        features = (encoder or self.encoder()).embed(texts)
        said = features @ self.head["weight"].T + self.head["bias"]
        return said.softmax(1) if self.classes else said[:, 0]

    def save(self, out: str | Path, about: str = "") -> Path:
        """Write the folder: peft's two files, the head and ``README.md``. Raises UserError as `new_folder`."""
        with new_folder(out, empty=True) as part:
            self.write(part, Path(out).name, about)
        return Path(out)

    def write(self, part: Path, name: str, about: str = "") -> None:
        """The files, into a folder that is there; ``name`` is what its card calls it."""
        from peft import LoraConfig

        layers = sorted({key.split(".lora_")[0] for key in self.state})
        targets = sorted({layer.rpartition(".")[2] for layer in layers})
        config = LoraConfig(
            r=self.shape.rank,
            lora_alpha=self.shape.alpha,
            target_modules=list(self.shape.targets) or targets,
            task_type="FEATURE_EXTRACTION",
            base_model_name_or_path=self.shape.base,
            inference_mode=True,
        )
        config.save_pretrained(str(part))
        save_file({PREFIX + key: value.contiguous() for key, value in self.state.items()}, part / FILES[1])
        facts = {"shape": asdict(self.shape), "classes": self.classes, "pairs": self.pairs, "info": self.info}
        metadata = {"format": FORMAT, "version": VERSION, "about": json.dumps(facts, ensure_ascii=False)}
        save_file({key: value.contiguous() for key, value in self.head.items()}, part / FILES[2], metadata)
        example = '[("one text", "another one")]' if self.pairs else '["a text"]'
        said = ", ".join(map(markdown, self.classes)) if self.classes else "a value"
        words = {"layers": len(layers), "base": self.shape.base, "rank": self.shape.rank, "folder": markdown(name)}
        words |= {"tokens": self.shape.max_tokens, "example": example, "said": shown(said, 200)}
        padding = "" if self.shape.base == DEFAULT_TEXT_ENCODER else PADDING
        card = CARD.format(title=markdown(self.info.get("task", name)), about=about, padding=padding, **words)
        (part / "README.md").write_text(card, encoding="utf-8", errors="backslashreplace")

    @classmethod
    def load(cls, folder: str | Path) -> "Adapter":
        """Read what `save` wrote.

        Raises:
            UserError: it is no such folder, or damaged.
        """
        folder = Path(folder)
        if not all((folder / name).is_file() for name in FILES):
            raise UserError(f"{shown(folder)} is no adapter: give a folder that generate --describe wrote.")
        try:
            with safetensors.safe_open(folder / FILES[2], "pt") as file:
                about = json.loads((file.metadata() or {})["about"])
            state, head = load_file(folder / FILES[1]), load_file(folder / FILES[2])
            shape = LoraShape.from_json(about["shape"])
            config = read_json(folder / FILES[0])
            if config["r"] != shape.rank:
                raise ValueError("another rank")
            parts = {"classes": about["classes"], "pairs": bool(about["pairs"]), "info": dict(about["info"])}
        except Exception as reason:  # a damaged file can fail in any way
            raise UserError(f"The adapter {shown(folder)} is damaged: make it again.") from reason
        return cls({key.removeprefix(PREFIX): value for key, value in state.items()}, head, shape, **parts)


def is_adapter(path: str | Path) -> bool:
    """Whether a path is a folder of an adapter, damaged or not."""
    return (Path(path) / FILES[0]).is_file()


def predict_texts(
    adapter: Adapter, texts: Sequence[Text], *, top: int = 5, encoder: AdaptedEncoder | None = None
) -> list[dict]:
    """What an adapter says of texts, or of pairs of texts.

    Args:
        encoder: with this adapter in it; by default it is loaded.
    Returns:
        a dictionary a text: ``text``, ``label``, ``probability`` and ``top`` ((label, probability), best first); of an
        adapter that says a value, ``text`` and ``value``.
    Raises:
        UserError: single texts for an adapter of pairs, or the reverse, or an empty text.
    """
    if any(isinstance(text, tuple) != adapter.pairs for text in texts):
        raise UserError(f"This adapter reads {'two texts a row' if adapter.pairs else 'single texts'}: give those.")
    if not all(part.strip() for text in texts for part in ((text,) if isinstance(text, str) else text)):
        raise UserError("One of the texts is empty: write something, or leave it out.")
    said = adapter.predict(texts, encoder)
    if not adapter.classes:
        return [{"text": text, "value": float(value)} for text, value in zip(texts, said, strict=True)]
    values, places = said.topk(min(top, len(adapter.classes)), 1)
    rows = []
    for text, p, k in zip(texts, values.tolist(), places.tolist(), strict=True):
        best = [(adapter.classes[i], value) for i, value in zip(k, p, strict=True)]
        rows.append({"text": text, "label": best[0][0], "probability": best[0][1], "top": best})
    return rows


def strength(encoder: AdaptedEncoder, texts: Sequence[Text], without: Tensor | None = None) -> Tensor:
    """How far the adapter in an encoder turns the vectors of these texts, (n,) in degrees: 0 where it has no effect.

    Args:
        without: (n, d) their vectors without an adapter, for who measures several; by default they are embedded.
    """
    with_it = encoder.embed(texts)
    if without is not None:
        return _degrees(with_it, without)
    kept = encoder.state()
    encoder.reset()
    try:
        without = encoder.embed(texts)
    finally:
        encoder.load(kept)
    return _degrees(with_it, without)


def _degrees(one: Tensor, other: Tensor) -> Tensor:
    """The angles between vectors (n, d) of unit length, (n,)."""
    return torch.rad2deg((one * other).sum(1).clamp(-1, 1).arccos())
