"""Calls of the library with hostile numbers: configurations, and the functions behind the verbs."""

import sys
from collections.abc import Callable
from random import Random

from tests.fuzz.case import Case
from tests.fuzz.hostile import damaged_json
from tests.fuzz.room import Room
from tests.fuzz.stock import Stock

VALUES = [
    0,
    1,
    2,
    3,
    -1,
    -5,
    1.5,
    float("nan"),
    float("inf"),
    -float("inf"),
    10**6,
    10**9,
    10**13,
    2**63,
    2**64,
    10**30,
    True,
]
FIELDS = {
    "generate": ("shots", "num_samples", "seed", "steps", "max_query"),
    "explore": ("tasks", "classes", "shots", "num_samples", "num_trained", "seed", "steps", "max_query"),
    "interpolate": ("points", "seeds", "shots", "num_samples", "seed", "steps", "max_query"),
    "look": ("perplexity", "seed"),
    "map_names": ("perplexity", "seed"),
    "name_path": ("points", "best", "max_query", "seed"),
    "networks": ("num_samples", "num_inference_steps", "around", "architecture"),
    "heads": ("num_samples", "num_inference_steps", "guidance_scale"),
}


def make(rng: Random, room: Room, stock: Stock) -> Case:
    """One call with one or two hostile numbers."""
    name = rng.choice(
        [*FIELDS, "zoo", "zoo", "training", "training", "refine", "refine", "chat", "rank", "mix", "json", "json"]
    )
    chosen: dict = {}
    if name in FIELDS:
        chosen = {key: rng.choice(VALUES) for key in rng.sample(FIELDS[name], rng.choice((1, 1, 2)))}
    seed = rng.random()
    make_call = globals()[f"_{name}"]
    bundle = rng.choice([stock.unet, stock.dual])
    _ = stock.images, stock.patterns, stock.networks, stock.generated  # made before the case runs
    call: Callable[[], object] = make_call(chosen, stock, Random(seed), bundle)

    def run() -> int:
        from d2nwg.utils.errors import UserError

        try:
            call()
        except UserError as reason:
            print(reason, file=sys.stderr)
            return 2
        return 0

    run.words = f"{name} {chosen} {seed} {bundle.name}"  # type: ignore[attr-defined]
    return Case(call=run)


def _generate(chosen: dict, stock: Stock, rng: Random, bundle) -> Callable:
    def call():
        from d2nwg.data.images import load_images
        from d2nwg.generate import generate_heads

        generate_heads(
            load_images(stock.images), bundle=bundle, device="cpu", **{"shots": 2, "num_samples": 3, **chosen}
        )

    return call


def _explore(chosen: dict, stock: Stock, rng: Random, bundle) -> Callable:
    def call():
        from d2nwg.data.images import load_images
        from d2nwg.exploration.explore import explore

        explore(
            load_images(stock.patterns),
            bundle=bundle,
            device="cpu",
            **{"shots": 2, "num_samples": 3, "num_trained": 2, "tasks": 2, "classes": 3, **chosen},
        )

    return call


def _look(chosen: dict, stock: Stock, rng: Random, bundle) -> Callable:
    def call():
        from d2nwg.data.images import load_images
        from d2nwg.exploration.explore import explore
        from d2nwg.exploration.look import look

        look(
            explore(load_images(stock.images), bundle=bundle, device="cpu", shots=2, num_samples=6, num_trained=0),
            **chosen,
        )

    return call


def _interpolate(chosen: dict, stock: Stock, rng: Random, bundle) -> Callable:
    def call():
        from d2nwg.data.images import load_images
        from d2nwg.interpolation.path import interpolate

        few = {"shots": 2, "num_samples": 2, "points": 3, "seeds": 1, **chosen}
        interpolate([load_images(stock.images)] * 2, bundle=bundle, device="cpu", **few)

    return call


def _map_names(chosen: dict, stock: Stock, rng: Random, bundle) -> Callable:
    def call():
        from d2nwg.exploration.names import map_names

        map_names(["cat", "dog"], "do", bundle=stock.dual, device="cpu", **{"perplexity": 3, **chosen})

    return call


def _name_path(chosen: dict, stock: Stock, rng: Random, bundle) -> Callable:
    def call():
        from d2nwg.data.images import load_images
        from d2nwg.interpolation.names import name_path

        name_path(["cat", "dog"], load_images(stock.images), bundle=stock.dual, device="cpu", **{"points": 3, **chosen})

    return call


def _mix(chosen: dict, stock: Stock, rng: Random, bundle) -> Callable:
    def call():
        from d2nwg.data.images import load_images
        from d2nwg.interpolation.path import interpolate

        made = interpolate(
            [load_images(stock.images)] * 2, bundle=bundle, device="cpu", shots=2, num_samples=2, points=2, seeds=1
        )
        made.mixed([rng.choice(VALUES) for _ in range(rng.choice((1, 2, 3)))], "weights")

    return call


def _networks(chosen: dict, stock: Stock, rng: Random, bundle) -> Callable:
    def call():
        from d2nwg.bundles import load_bundle

        load_bundle(stock.networks)(**{"task": "x", "num_samples": 2, "num_inference_steps": 2, **chosen})

    return call


def _heads(chosen: dict, stock: Stock, rng: Random, bundle) -> Callable:
    def call():
        import torch

        from d2nwg.bundles import load_bundle

        pipe = load_bundle(bundle)
        pipe([torch.rand(2, pipe.weight_space.config.num_features) for _ in range(3)], **{"num_samples": 2, **chosen})

    return call


def _zoo(chosen: dict, stock: Stock, rng: Random, bundle) -> Callable:
    def call():
        from pathlib import Path

        from d2nwg.data.images import load_images
        from d2nwg.encoders.images import load_encoder
        from d2nwg.utils.paths import cache_dir
        from d2nwg.weights.build import build_zoo
        from d2nwg.weights.zoo import ZooConfig

        few = {"subsets": 4, "min_classes": 2, "max_classes": 3, "images": 2, "width": 4}
        keys = (
            "subsets",
            "min_classes",
            "max_classes",
            "images",
            "hidden",
            "width",
            "l2",
            "checkpoints",
            "max_per_class",
            "seed",
            "probe",
        )
        for _ in range(rng.choice((1, 1, 2))):
            key = rng.choice(keys)
            few[key] = rng.choice(["mlp", "", 5] if key == "probe" else VALUES)
            if few["subsets"] == 10**6:  # takes minutes, as it should
                few["subsets"] = 10**9
        print(few)
        build_zoo(
            [load_images(stock.images)],
            load_encoder("pixels/4", "cpu"),
            ZooConfig(**few),
            Path(cache_dir()) / "zoo",
            device="cpu",
        )

    return call


def _training(chosen: dict, stock: Stock, rng: Random, bundle) -> Callable:
    def call():
        from dataclasses import fields, replace

        from d2nwg.generators import GENERATORS

        kind = rng.choice([one.config_class for one in GENERATORS.values()])
        name = rng.choice([field.name for field in fields(kind)])
        value = rng.choice([*VALUES, "x", "", None, (), (1,), (0,), (-1, 2), [1], (float("nan"),), {}])
        print(kind.__name__, name, value)
        config = (
            replace(kind(), **{name: value})
            if rng.random() < 0.5
            else kind.from_config({**kind().to_config(), name: value})
        )
        config.shortened(2), config.stages()

    return call


def _refine(chosen: dict, stock: Stock, rng: Random, bundle) -> Callable:
    def call():
        from dataclasses import fields, replace

        from d2nwg.llm.presets import RefineConfig

        name = rng.choice([field.name for field in fields(RefineConfig)])
        value = rng.choice([*VALUES, "x", "", None, (), (1,), (-1, 2)])
        print(name, value)
        if rng.random() < 0.5:
            RefineConfig.of("tiny", **{name: value}) if name != "preset" else RefineConfig.of(value)
        else:
            replace(RefineConfig(), **{name: value})

    return call


def _chat(chosen: dict, stock: Stock, rng: Random, bundle) -> Callable:
    def call():
        from d2nwg.llm.chat import ChatSettings

        ChatSettings(
            **{
                rng.choice(["temperature", "top_p", "seed", "max_tokens", "system"]): rng.choice(
                    [*VALUES, "x", None, ""]
                )
            }
        )

    return call


def _rank(chosen: dict, stock: Stock, rng: Random, bundle) -> Callable:
    def call():
        from d2nwg.llm.spectrum import rank

        rank([], rng.choice(["paper", "spectrum", "x", "", 5]), rng.choice([*VALUES, "x", None]))

    return call


def _json(chosen: dict, stock: Stock, rng: Random, bundle) -> Callable:
    def call():
        import json

        from d2nwg.evaluation.report import Report, readme
        from d2nwg.llm.card import model_card

        if rng.random() < 0.5:
            report = damaged_json(json.loads((stock.generated / "report.json").read_text()), rng)
            readme(Report.from_json(report), "linear")
        else:
            report = damaged_json({"words": ["a", "b"], "licence": "mit", "rows": {"base": {"accuracy": 0.5}}}, rng)
            model_card("x", "base/model", object(), report if isinstance(report, dict) else {"words": report})

    return call
