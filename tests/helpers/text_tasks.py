"""A small text encoder, and tasks of texts that it can learn."""

import json
from pathlib import Path

import numpy as np

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
