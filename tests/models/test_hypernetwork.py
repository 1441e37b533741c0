"""The hypernetwork and the space of small networks: round trips, units, the closed-form head, permutations."""

import pytest
import torch

from d2nwg.models.hypernetwork import HyperNetwork, ridge_rows
from d2nwg.models.network_space import SmallNetworkSpace
from d2nwg.weights.networks import pick
from d2nwg.weights.populations import logits_of, stack_states
from d2nwg.weights.small_networks import initial_state, small_network


def networks(name: str, size: int, count: int = 4) -> list[dict]:
    return [initial_state(name, 1, 3, size, seed) for seed in range(count)]


def space_of(name: str = "mlp", size: int = 8, count: int = 4):
    space = SmallNetworkSpace(name, 1, size, 3, coordinates=2, components=6, mean=(0.5,), std=(0.5,))
    images = space.normalised(torch.randint(256, (40, 1, size, size), dtype=torch.uint8))
    trunks, rows = space.fit(networks(name, size, count), images)
    return space, trunks, rows


@pytest.mark.parametrize(("name", "size"), [("mlp", 8), ("resnet", 8), ("cnn", 20)])
def test_networks_are_trunks_and_rows(name, size):
    space, trunks, rows = space_of(name, size)
    made = space.network_state(space.trunk_state(trunks), rows)
    for given, back in zip(networks(name, size), [pick(made, i) for i in range(4)], strict=True):
        assert list(back) == list(given)
        assert all(torch.allclose(back[key].float(), value.float(), atol=1e-4) for key, value in given.items())
    images = torch.randint(256, (5, 1, size, size), dtype=torch.uint8)
    features = space.features(space.trunk_state(trunks), space.normalised(images).unsqueeze(0))
    expected = logits_of(small_network(name).build(1, 3, size), stack_states(networks(name, size)), images[None])
    assert torch.allclose(features @ rows[..., :-1].mT + rows[..., -1].unsqueeze(1), expected, atol=1e-4)


def test_coordinates_are_of_unit_variance():
    space, trunks, _ = space_of()
    found = space.coordinates(trunks)
    assert torch.allclose(found.square().mean(0), torch.ones(2), atol=1e-3)
    assert torch.allclose(space.coordinates(found @ space.basis), found, atol=1e-4)


def test_a_zoo_of_one_network_has_no_directions():
    space, trunks, _ = space_of(count=1)
    assert not trunks.any() and not space.coordinates(trunks).any() and space.unit.min() > 0


def test_an_untrained_generator_makes_the_average():
    space, *_ = space_of()
    model = HyperNetwork(space.num_described, space.numel, space.num_features + 1, 2, width=16)
    slots = model.encode(torch.rand(2, 3, 5, space.num_described))
    assert not model.trunks(slots, space.basis).any()
    assert torch.equal(model.head_rows(slots, space), space.row_centre.expand(2, 3, -1))


def test_slots_are_permuted_with_the_classes():
    torch.manual_seed(0)
    model = HyperNetwork(6, 10, 4, 2, width=16)
    features, order = torch.rand(1, 5, 3, 6), torch.tensor([3, 0, 4, 1, 2])
    slots, moved = model.encode(features), model.encode(features[:, order])
    assert torch.allclose(moved.classes, slots.classes[:, order], atol=1e-5)
    assert torch.allclose(moved.pooled, slots.pooled, atol=1e-5)
    used = torch.ones(1, 5, 3, dtype=torch.bool)
    used[0, 1, 2:] = False
    fewer = features.clone()
    fewer[0, 1, 2] = 99.0
    alone = model.encode(features[:, 1:2, :2])
    assert torch.allclose(model.encode(fewer[:, 1:2], used[:, 1:2]).classes, alone.classes, atol=1e-5)


def test_ridge_is_scikit_learns():
    from sklearn.linear_model import Ridge

    features, labels = torch.rand(1, 30, 4), torch.arange(30) % 3
    targets = torch.eye(3)[labels][None]
    rows = ridge_rows(features, targets, torch.tensor(0.5), torch.tensor(2.0))[0]
    centred = features[0] - features[0].mean(0)
    size = float((centred.T @ centred).diagonal().mean())
    expected = Ridge(alpha=(0.5 + 1e-4) * size).fit(centred.numpy(), targets[0].numpy())
    assert torch.allclose(rows[:, :-1], 2 * torch.from_numpy(expected.coef_).float(), atol=1e-4)
    assert torch.allclose(rows[:, -1], -2 * torch.from_numpy(expected.coef_).float() @ features[0].mean(0), atol=1e-4)
