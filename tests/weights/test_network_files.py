"""A network as a folder: round trip, the card's lines in plain PyTorch, and damage."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from d2nwg.utils.errors import UserError
from d2nwg.weights.network_files import NetworkFile, is_network, load_network, read_network, save_network
from d2nwg.weights.small_networks import NETWORKS, initial_state

CLASSES = ("a cat", "it's \"`two`", "ü")


def made(name: str = "mlp", channels: int = 1, size: int = 8, **changes) -> NetworkFile:
    state = initial_state(name, channels, 3, size, 0)
    parts = {"mean": (0.4,) * channels, "std": (0.2,) * channels, "bundle": "b", "info": {"seed": 3}} | changes
    return NetworkFile(state, name, channels, CLASSES, size, **parts)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_folder_comes_back(name, tmp_path):
    network = made(name, 3, 28)
    save_network(network, tmp_path / "out")
    back = load_network(tmp_path / "out")
    assert {**vars(back), "state": None} == {**vars(network), "state": None}
    assert all(torch.equal(back.state[key], value) for key, value in network.state.items())
    assert is_network(tmp_path / "out") and not is_network(tmp_path)


def test_one_file_comes_back(tmp_path):
    network = made()
    file = network.save(tmp_path / "mine.safetensors")
    back = read_network(file)
    assert {**vars(back), "state": None} == {**vars(network), "state": None}
    assert all(torch.equal(back.state[key], value) for key, value in network.state.items())
    save_file(network.state, tmp_path / "other.safetensors", {"kind": "another"})
    (tmp_path / "none").write_bytes(b"no")
    for other in ("other.safetensors", "none", "nowhere"):
        assert read_network(tmp_path / other) is None


@pytest.mark.parametrize("about", ["", "[]", '{"format": 1}', None])
def test_a_damaged_file_is_named(about, tmp_path):
    facts = json.dumps(made().facts() | {"size": 9}) if about is None else about  # other tensors than it says
    save_file(made().state, tmp_path / "x.safetensors", {"kind": "d2nwg-network", "about": facts})
    with pytest.raises(UserError, match=r"x\.safetensors is damaged"):
        read_network(tmp_path / "x.safetensors")


@pytest.mark.parametrize(("name", "channels"), [("cnn", 1), ("resnet", 3)])
def test_the_cards_lines_need_pytorch_alone(name, channels, tmp_path):
    network = made(name, channels, 28)
    save_network(network, tmp_path / "it's {a} `net`")
    folder = tmp_path / "it's {a} `net`"
    pixels = np.random.default_rng(0).integers(256, size=(28, 28, 3), dtype=np.uint8)
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(folder / "x.png")
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
    code += "\nimport sys\nassert 'd2nwg' not in sys.modules\nprint(classify('x.png').tolist())"
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    given = torch.from_numpy(pixels[..., :channels]).permute(2, 0, 1)[None]
    expected = network.module()(network.normalised(given))[0].softmax(0)
    assert torch.allclose(torch.tensor(json.loads(run.stdout)), expected, atol=1e-5)


def test_what_is_no_network_is_refused(tmp_path):
    with pytest.raises(UserError, match="no generated network"):
        load_network(tmp_path)
    with pytest.raises(UserError, match="not the weights"):
        NetworkFile(initial_state("mlp", 1, 2, 8, 0), "mlp", 1, CLASSES, 8)
    with pytest.raises(UserError, match="no small network"):
        NetworkFile({}, "huge", 1, CLASSES, 8)
    state = initial_state("mlp", 1, 3, 8, 0)
    state["head.bias"][0] = torch.nan
    with pytest.raises(UserError, match="not finite"):
        NetworkFile(state, "mlp", 1, CLASSES, 8)


@pytest.mark.parametrize(
    ("field", "value"),
    [("classes", ["a"]), ("size", 10**6), ("std", [0.0]), ("network", 3), ("format", 2), ("channels", 2)],
)
def test_damage_is_named(field, value, tmp_path):
    save_network(made(), tmp_path / "out")
    path = tmp_path / "out" / "network.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(UserError, match=f"damaged at {field}"):
        load_network(tmp_path / "out")


def test_other_tensors_are_refused(tmp_path):
    save_network(made(), tmp_path / "out")
    weights = tmp_path / "out" / "network.safetensors"
    state = load_file(weights)
    for wrong in ({**state, "more": torch.zeros(2)}, {**state, "head.weight": torch.zeros(4, 32)}):
        save_file(wrong, weights)
        with pytest.raises(UserError, match=r"damaged at network\.safetensors"):
            load_network(tmp_path / "out")
    weights.write_bytes(b"no")
    with pytest.raises(UserError, match=r"damaged at network\.safetensors"):
        load_network(tmp_path / "out")
