"""Writes ``golden.json``: numbers that a seed gives with each shipped bundle, which moving code must not change.

A bundle that is trained anew replaces its own: ``python -m tests.golden NAME``.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

FILE = Path(__file__).with_name("golden.json")
SHIPPED = Path(__file__).resolve().parents[1] / "pretrained"


def measure(bundle: str) -> dict[str, list[float]]:
    """Some numbers of what seed 0 gives: from a support of random features, for the first task, or a description."""
    from d2nwg.bundles import load_bundle

    pipe: Any = load_bundle(SHIPPED / bundle)
    run = {"num_samples": 2, "generator": torch.Generator().manual_seed(0)}
    if hasattr(pipe.weight_space, "tasks"):
        samples = pipe("Is this film review positive?", **run)
        return _some({name: samples.state[name] for name in list(samples.state)[:2]} | samples.head)
    if pipe.tasks:
        task, classes = next(iter(pipe.tasks.items()))
        samples = pipe.for_tasks([[f"{task}/{label}" for label in classes]], **run)
    else:
        random = torch.Generator().manual_seed(1)
        width = pipe.weight_space.config.num_features
        centres = torch.rand(4, 1, width, generator=random)
        support = centres + 0.3 * torch.rand(4, 3, width, generator=random)
        samples = pipe(support, **run)
    return _some(samples.state)


def _some(state: dict[str, torch.Tensor]) -> dict[str, list[float]]:
    return {
        name: [round(float(value), 6) for value in tensor.flatten()[:: max(1, tensor.numel() // 16)]]
        for name, tensor in state.items()
    }


if __name__ == "__main__":
    kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    names = sys.argv[1:] or sorted(path.parent.name for path in SHIPPED.glob("*/model_index.json"))
    FILE.write_text(json.dumps(kept | {name: measure(name) for name in names}, indent=1) + "\n")
