"""Questions of random words, and a zoo of fine-tunes on them of a tiny language model."""

import json
from pathlib import Path

import numpy as np

from tests.tiny_llm import WORDS


def random_questions(count: int, seed: int):
    """Questions of random words."""
    from d2nwg.llm.questions import ask

    rng, words = np.random.default_rng(seed), WORDS.split()
    return [
        ask(" ".join(rng.choice(words, 6)) + "?", list(rng.choice(words, 4, replace=False)), int(rng.integers(4)))
        for _ in range(count)
    ]


def write_questions(path: Path, questions) -> Path:
    """The questions as a JSONL file."""
    rows = [
        {
            "question": one.contexts[0].removeprefix("Question: ").removesuffix("\nAnswer:"),
            "choices": [choice.strip() for choice in one.continuations],
            "answer": one.answer,
        }
        for one in questions
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make_llm_zoo(base: str, out: Path, seeds: int = 1):
    """A zoo of two checkpoints a seed: one of each of the last two epochs."""
    from d2nwg.encoders.lora import LoraShape
    from d2nwg.llm.adapter_zoo import LlmZooConfig, build_llm_adapters
    from d2nwg.weights.finetune import TuneConfig

    tune = TuneConfig(epochs=2, batch=6, lr=2e-2, keep=2)
    config = LlmZooConfig(LoraShape(base, rank=2, alpha=6), tune, seeds=seeds)
    return build_llm_adapters([random_questions(18, 3)], config, out, select=random_questions(8, 1))
