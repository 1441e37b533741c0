"""A tiny zoo of small networks with its images, written by hand: MLPs on 8 × 8 pictures of three classes."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from d2nwg.weights.model_zoo import ModelZoo, architecture
from d2nwg.weights.networks import pick
from d2nwg.weights.populations import MEAN, STD, accuracy_of, stack_states, train_networks
from d2nwg.weights.small_networks import initial_state, small_network

CLASSES, SIZE = 12, 8


def pictures(count: int, seed: int, classes: int = CLASSES, channels: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy pictures, each class with a pattern of its own: (n, c, 8, 8) bytes and labels, ``count`` a class."""
    patterns = np.random.default_rng(7).integers(40, 216, size=(classes, channels, SIZE, SIZE))
    labels = np.arange(classes).repeat(count)
    noise = np.random.default_rng(seed).normal(0, 25, size=(len(labels), channels, SIZE, SIZE))
    images = (patterns[labels] + noise).clip(0, 255).astype(np.uint8)
    return torch.from_numpy(images), torch.from_numpy(labels)


def write_small_zoo(folder: Path, networks: int = 8, channels: int = 1) -> ModelZoo:
    """One network a task, of three classes each; half of the tasks are shown as negatives."""
    (folder / "images").mkdir(parents=True)
    (folder / "models").mkdir()
    parts = {}
    for part, count, seed in (("train", 12, 0), ("test", 6, 1)):
        parts[part], parts[f"{part}_labels"] = pictures(count, seed, channels=channels)
    save_file(parts, folder / "images" / "00000.safetensors")
    rng = np.random.default_rng(0)
    tasks = {
        f"task-{i}": {
            "set": 0,
            "classes": rng.permutation(CLASSES)[:3].tolist(),
            "variant": "negative" if i % 2 else "plain",
        }
        for i in range(networks)
    }
    start, module = initial_state("mlp", channels, 3, SIZE, 0), small_network("mlp").build(channels, 3, SIZE)
    records = []
    for number, (name, task) in enumerate(tasks.items()):
        x, y, tx, ty = task_images(parts, task)
        state = train_networks(
            module, stack_states([start]), x[None], y[None], steps=20, batch_size=16, lr=1e-2, seeds=[number]
        )
        right = float(accuracy_of(module, state, tx[None], ty[None]))
        state = pick(state, 0)
        file = f"models/{number:05}.safetensors"
        save_file({key: value.contiguous() for key, value in state.items()}, folder / file)
        records.append(
            {
                "file": file,
                "name": f"{name}.safetensors",
                "architecture": architecture(state),
                "sha256": "0" * 64,
                "task": name,
                "accuracy": right,
                "epoch": 1,
                "start": 0,
            }
        )
    about = {
        "network": "mlp",
        "channels": channels,
        "classes": 3,
        "size": SIZE,
        "starts": 1,
        "mean": [MEAN] * channels,
        "std": [STD] * channels,
        "build": {},
        "sets": [{"name": "patterns", "classes": [str(c) for c in range(CLASSES)], "train": 144, "test": 72}],
        "tasks": tasks,
    }
    orders = {records[0]["architecture"]: list(state)} if records else {}
    info = {"kind": "checkpoints", "format": 2, "architectures": orders, "records": records, "networks": about}
    (folder / "zoo.json").write_text(json.dumps(info))
    return ModelZoo(folder)


def task_images(parts: dict[str, torch.Tensor], task: dict) -> list[torch.Tensor]:
    """A task's images and labels, to train and to test with."""
    found = []
    for part in ("train", "test"):
        labels = parts[f"{part}_labels"]
        kept = torch.isin(labels, torch.tensor(task["classes"]))
        images = parts[part][kept]
        rows = torch.tensor([task["classes"].index(label) for label in labels[kept].tolist()])
        found += [255 - images if task["variant"] == "negative" else images, rows]
    return found
