"""Adapters as changes of weights: mixed, and compared, whatever B and A they are parted into."""

import pytest
import torch

from d2nwg.weights.lora import distances, inner_products, mix_adapters

NAMES = [f"layer.{n}.query.lora_{part}.weight" for n in range(2) for part in "AB"]


def adapter(seed: int, rank: int = 2, sizes=(9, 7)) -> dict:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(rank, sizes[1]), (sizes[0], rank)] * 2
    return {name: torch.randn(shape, generator=generator) for name, shape in zip(NAMES, shapes, strict=True)}


def products(state) -> list:
    return [state[b] @ state[a] for a, b in (NAMES[:2], NAMES[2:])]


@pytest.mark.parametrize("sizes", [(9, 7), (3, 7), (9, 3)])
def test_a_mix_is_the_nearest_matrix_of_its_rank(sizes):
    parts = [adapter(seed, sizes=sizes) for seed in range(3)]
    for shares in (None, (0.7, 0.2, 0.1)):
        mixed = mix_adapters(parts, shares)
        assert list(mixed) == NAMES
        for i, product in enumerate(products(mixed)):
            whole = sum(w * products(one)[i] for w, one in zip(shares or [1 / 3] * 3, parts, strict=True))
            left, values, right = torch.linalg.svd(whole, full_matrices=False)
            torch.testing.assert_close(product, left[:, :2] * values[:2] @ right[:2], atol=1e-5, rtol=1e-4)


def test_the_ends_of_a_mix_are_what_is_mixed():
    one, other = adapter(0), adapter(1)
    for state, shares in ((one, (1, 0)), (other, (0, 1))):
        mixed = mix_adapters([one, other], shares)
        assert float(distances(mixed, state)) < 1e-5 and not torch.allclose(mixed[NAMES[0]], state[NAMES[0]])


def test_distances_are_those_of_the_products():
    one, many = adapter(0), [adapter(seed) for seed in range(1, 4)]
    batch = {name: torch.stack([state[name] for state in many]) for name in NAMES}
    flat = [torch.cat([part.flatten() for part in products(state)]) for state in (one, *many)]
    torch.testing.assert_close(distances(one, batch), torch.stack([(flat[0] - f).norm() for f in flat[1:]]))
    torch.testing.assert_close(inner_products(one, batch).float(), torch.stack([flat[0] @ f for f in flat[1:]]))
    assert float(distances(one, one)) < 1e-3
