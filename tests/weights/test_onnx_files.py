"""Networks as ONNX files: another runtime says the same of any number of pictures."""

import json

import numpy as np
import onnxruntime
import pytest
import torch

from d2nwg.weights.network_files import NetworkFile
from d2nwg.weights.small_networks import NETWORKS, initial_state


@pytest.mark.parametrize("name", NETWORKS)
def test_onnxruntime_and_torch_agree(name, tmp_path):
    channels = 3 if name == "resnet" else 1
    state, classes = initial_state(name, channels, 3, 28, 0), ("a cat", "it's", "ü")
    for key in state:  # a trained network's statistics are not those of a new one
        if "running" in key:
            state[key] = torch.rand(state[key].shape, generator=torch.Generator().manual_seed(1)) + 0.5
    network = NetworkFile(state, name, channels, classes, 28, (0.4,) * channels, (0.2,) * channels)
    session = onnxruntime.InferenceSession(network.save_onnx(tmp_path / "model.onnx"))
    rng = np.random.default_rng(0)
    for number in (1, 2, 7):
        images = rng.integers(256, size=(number, channels, 28, 28), dtype=np.uint8)
        expected = network.logits(torch.from_numpy(images)).softmax(1).numpy()
        (found,) = session.run(["probabilities"], {"images": images})
        assert found.shape == (number, 3) and np.abs(found - expected).max() < 1e-5
        assert np.ptp(expected) > 0.01
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list(classes)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
