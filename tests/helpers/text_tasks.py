"""A small text encoder, and tasks of texts that it can learn."""

import json
from pathlib import Path

import numpy as np

DESCRIBED = {  # of two tasks with opposite labels
    "tone": ["Is this film review positive?", "Does the author like the movie?"],
    "contrary": ["Which legal contract is void?", "Find out if an agreement binds nobody."],
}
SETTINGS = dict(coordinates=8, patch=(8, 1, 2), latent_channels=4, vae_channels=(16,), unet_channels=(32,))
WORDS = ("good", "bad", "film", "the", "was", "a", "very", "book", "meal", "song")


def tiny_text_encoder(folder: Path) -> Path:
    """A sentence-transformers model with random weights (2 layers, 16 numbers wide), as a folder."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizer

    plain = folder / "plain"
    plain.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (plain / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=64, **sizes)).save_pretrained(plain)
    BertTokenizer(str(plain / "vocab.txt")).save_pretrained(plain)
    body = Transformer(str(plain), max_seq_length=32)
    SentenceTransformer(modules=[body, Pooling(16), Normalize()], device="cpu").save(str(folder / "encoder"))
    return folder / "encoder"


def write_task(folder: Path, rows: dict[str, list[dict]], **about) -> Path:
    """A folder with a table for each part and a ``task.json``."""
    folder.mkdir(parents=True)
    for part, lines in rows.items():
        (folder / f"{part}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "task.json").write_text(json.dumps(about))
    return folder


def opinions(number: int, seed: int = 0, flip: bool = False) -> list[dict]:
    """Short texts, and whether they hold the word good (1) or bad (0)."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(number):
        label = int(rng.integers(2))
        words = [*rng.choice(WORDS[2:], 4), WORDS[0] if label else WORDS[1]]
        rows.append({"text": " ".join(rng.permutation(words)), "label": label ^ int(flip)})
    return rows


def tiny_adapters(folder: Path):
    """Two tasks of opposite labels, a zoo of their adapters in ``zoo``, and a bundle trained on it in
    ``bundles/adapters``: the tasks and the zoo."""
    from d2nwg.data.text_tasks import load_text_task
    from d2nwg.encoders.lora import LoraShape
    from d2nwg.training.config import AdaptersConfig
    from d2nwg.training.run import train_bundle
    from d2nwg.weights.build_adapters import AdapterZooConfig, build_adapters
    from d2nwg.weights.finetune import TuneConfig

    base, tasks = str(tiny_text_encoder(folder / "tiny")), []
    for name, flip in (("tone", False), ("contrary", True)):
        rows = {"train": opinions(160, 1, flip), "dev": opinions(40, 2, flip), "test": opinions(60, 3, flip)}
        path = write_task(folder / name, rows, descriptions=DESCRIBED[name], labels=["no", "yes"])
        tasks.append(load_text_task(path))
    config = AdapterZooConfig(LoraShape(base, rank=2), TuneConfig(epochs=3, batch=8, lr=1e-2), seeds=2)
    zoo = build_adapters(tasks, config, folder / "zoo")
    trained = AdaptersConfig.preset("tiny", vae_steps=200, align_steps=50, diffusion_steps=300, **SETTINGS)
    (folder / "bundles").mkdir()
    train_bundle(zoo, trained, folder / "bundles" / "adapters", device="cpu")
    return tasks, zoo
