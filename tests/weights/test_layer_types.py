"""Layer types: matching layers of two architectures, and copying them."""

import pytest
import torch

from d2nwg.utils.errors import UserError
from d2nwg.weights.layer_types import copy_matching, match_tensors
from tests.helpers.networks import network, staged


def blocks_of(source: int, target: int) -> dict[str, list[int]]:
    """Stage → which block of the source each block of the target is matched with."""
    shapes = [{n: tuple(v.shape) for n, v in staged(blocks).state_dict().items()} for blocks in (source, target)]
    found: dict[str, list[int]] = {"layer1": [], "layer2": []}
    matches = match_tensors(*shapes)
    assert list(matches) == list(shapes[1])
    for name, match in matches.items():
        if name.endswith("conv1.weight") and "layer" in name:
            found[name.split(".")[0]].append(int(match.split(".")[1]))
        # A block is taken as a whole, and for the same job.
        assert name.split(".")[2:] == match.split(".")[2:] and name.split(".")[0] == match.split(".")[0]
        ours, theirs = name.split("."), match.split(".")
        if "layer" in name:
            whole = [m for n, m in matches.items() if n.split(".")[:2] == ours[:2]]
            assert {tuple(m.split(".")[:2]) for m in whole} == {tuple(theirs[:2])}
    return found


def test_blocks_are_matched_by_stage_and_relative_depth():
    assert blocks_of(5, 3) == {"layer1": [0, 2, 4], "layer2": [0, 2, 4]}
    assert blocks_of(5, 5) == {"layer1": [0, 1, 2, 3, 4], "layer2": [0, 1, 2, 3, 4]}
    assert blocks_of(2, 4) == {"layer1": [0, 0, 1, 1], "layer2": [0, 1, 1, 1]}, "the first of layer2 has its own shapes"
    assert blocks_of(3, 5)["layer1"] == [0, 1, 1, 2, 2], "of two that are as near, the deeper one"


def test_copying_matching_layers():
    source, target = staged(3, seed=1).state_dict(), staged(5, seed=2)
    copied = copy_matching(source, target.state_dict())
    target.load_state_dict(copied)
    assert torch.equal(copied["layer2.4.conv1.weight"], source["layer2.2.conv1.weight"])
    assert torch.equal(copied["layer1.1.bn1.running_var"], source["layer1.1.bn1.running_var"])
    assert torch.equal(copied["linear.bias"], source["linear.bias"])
    other = copy_matching(dict(sorted(source.items())), target.state_dict())  # files need not keep the order
    assert list(other) == list(copied) and all(torch.equal(other[name], copied[name]) for name in copied)
    copied["linear.bias"] += 1
    assert not torch.equal(copied["linear.bias"], source["linear.bias"]), "a copy"


def test_layers_of_another_family_are_refused():
    with pytest.raises(UserError, match="Nothing matches conv1.weight: layers are taken from an architecture of the"):
        copy_matching(network().state_dict(), staged(2).state_dict())
    with pytest.raises(UserError, match="Nothing matches layer2.1.conv1.weight"):
        copy_matching(staged(1).state_dict(), staged(2).state_dict())
