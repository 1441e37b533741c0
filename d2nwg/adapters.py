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
from d2nwg.utils.errors import UserError
from d2nwg.utils.outputs import new_folder
from d2nwg.utils.paths import read_json
from d2nwg.utils.text import markdown, shown
from d2nwg.weights.networks import State

FORMAT, VERSION = "d2nwg-adapter", "1"
FILES = ("adapter_config.json", "adapter_model.safetensors", "head.safetensors")
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
encoder.max_seq_length = {tokens}
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
        card = CARD.format(title=markdown(self.info.get("task", name)), about=about, **words)
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


def strength(encoder: AdaptedEncoder, texts: Sequence[Text]) -> Tensor:
    """How far the adapter in an encoder turns the vectors of these texts, (n,) in degrees: 0 where it has no effect."""
    with_it = encoder.embed(texts)
    kept = encoder.state()
    encoder.reset()
    try:
        without = encoder.embed(texts)
    finally:
        encoder.load(kept)
    return torch.rad2deg((with_it * without).sum(1).clamp(-1, 1).arccos())
