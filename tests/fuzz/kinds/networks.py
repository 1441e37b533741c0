"""Zoos of small networks with their images, bundles trained on them, and generated networks, from strangers."""

from random import Random

from tests.fuzz.case import Case
from tests.fuzz.kinds.adapters import LIMITS, damage
from tests.fuzz.room import Room
from tests.fuzz.stock import FEW_STEPS, Stock


def make(rng: Random, room: Room, stock: Stock) -> Case:
    """One of them with something wrong, and a verb that reads it."""
    out, leaves = ["--out", room.out / "x"], "(?!)"
    kind = rng.choice(["small_zoo", "data_networks", "data_networks", "network", "network"])
    given = stock.copy(getattr(stock, kind), room.given)
    damage(given, rng)
    if kind == "small_zoo":
        settings = [part for text in FEW_STEPS for part in ("--set", text)]
        train = ["train", "--zoo", given, "--generator", "dataset-networks", "--preset", "tiny", *settings, *out]
        line, leaves = rng.choice([["zoo", "info", given], train, train]), "x.training"
    elif kind == "data_networks":
        line = ["generate", stock.images, "--bundle", given, "--shots", rng.choice([1, 2, 10**9]), *out]
        line += ["--num-samples", rng.choice([1, 2, 10**9])]
    else:
        some = next(path for path in sorted(stock.images.rglob("*.png")))
        line = rng.choice([["predict", given, some], ["evaluate", given, stock.images]])
    return Case([*map(str, line), "--device", "cpu"], limits=LIMITS, leaves=leaves)
