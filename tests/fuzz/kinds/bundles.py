"""Bundles, heads and reports from strangers: JSON of any shape, tensors of other shapes, names of code."""

import json
from random import Random

from tests.fuzz.case import Case
from tests.fuzz.hostile import damage_file, damaged_json, json_of, plain
from tests.fuzz.room import Room
from tests.fuzz.stock import Stock

CLASSES = [
    ["os", "system"],
    ["subprocess", "Popen"],
    ["d2nwg.models.vae", "torch"],
    ["diffusers", "DDPMScheduler"],
    ["diffusers", "AutoencoderKL"],
    ["d2nwg.cli", "main"],
    ["d2nwg.models.spaces", "WeightSpace"],
    ["diffusers.", "x"],
    ["", ""],
    ["d2nwg", "__doc__"],
]


def make(rng: Random, room: Room, stock: Stock) -> Case:
    """A copy of a bundle or a head with something wrong, and a verb that opens it."""
    out = room.out / "x"
    if rng.random() < 0.25:
        made = stock.copy(stock.generated, room.given)
        for _ in range(rng.choice((1, 1, 2))):
            if plain(made / "head.safetensors"):
                damage_file(made / "head.safetensors", rng, links=False)
        head = made / "head.safetensors"
        line = rng.choice(
            [
                ["predict", head, stock.images / "a" / "00.png"],
                ["evaluate", head, stock.images],
                [
                    "interpolate",
                    head,
                    stock.images,
                    "--bundle",
                    stock.unet,
                    "--points",
                    2,
                    "--seeds",
                    1,
                    "--shots",
                    1,
                    "--out",
                    out,
                ],
            ]
        )
        return Case([*map(str, line), "--device", "cpu"])
    name = rng.choice(["unet", "dual", "networks", "unet"])
    bundle = stock.copy(getattr(stock, name), room.given)
    for _ in range(rng.choice((1, 1, 1, 2))):
        files = [path for path in sorted(bundle.rglob("*")) if plain(path)]
        inside = [path for path in files if path.suffix == ".json"] if rng.random() < 0.8 else files
        if not inside:
            break
        path = rng.choice(inside)
        if path.name == "model_index.json" and rng.random() < 0.4:
            index = json_of(path)
            index = index if isinstance(index, dict) else {}
            index[rng.choice([key for key in index if not key.startswith("_")] or ["x"])] = rng.choice(CLASSES)
            path.write_text(json.dumps(index))
        elif path.suffix == ".json" and rng.random() < 0.7 and (value := json_of(path)) is not None:
            path.write_text(json.dumps(damaged_json(value, rng)))
        else:
            damage_file(path, rng)
    few = ["--shots", 2, "--num-samples", 4]
    lines = [["generate", stock.images, "--bundle", bundle, *few, "--out", out]]
    if name == "networks":
        lines = [
            ["sample", bundle, "--task", "x", "--num-samples", 2, "--steps", 2, "--out", out],
            ["generate", stock.images, "--bundle", bundle, "--out", out],
        ]
    else:
        lines += [
            ["generate", stock.images, "--bundle", bundle, *few, "--sampler", "ancestral", "--steps", 3, "--out", out],
            ["explore", "--data", stock.images, "--bundle", bundle, *few, "--num-trained", 2, "--out", out],
            [
                "interpolate",
                stock.images,
                stock.images,
                "--bundle",
                bundle,
                "--points",
                3,
                "--seeds",
                1,
                *few,
                "--out",
                out,
            ],
            ["sample", bundle, "--out", out],
        ]
    return Case([*map(str, rng.choice(lines)), "--device", "cpu"])
