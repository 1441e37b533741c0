"""A generated network trained further: what scores it was not shown, the starts beside it, and going on."""

import json

import numpy as np
import pytest
import torch

from d2nwg.cli import main
from d2nwg.data.arrays import load_arrays
from d2nwg.evaluation.finetune_report import FineTuneReport
from d2nwg.finetuning import networks
from d2nwg.finetuning.networks import finetune_network, read_network_parts
from d2nwg.network_generation import ROWS, split
from d2nwg.training.config import DatasetNetworksConfig
from d2nwg.training.run import train_bundle
from d2nwg.utils.errors import Cancelled, UserError
from d2nwg.weights.network_files import NetworkFile, load_network, save_network
from d2nwg.weights.networks import pick
from d2nwg.weights.populations import accuracy_of, train_networks
from d2nwg.weights.small_networks import initial_state
from tests.helpers.small_zoo import SIZE, pictures, write_small_zoo

CLASSES, SHOTS = ("a", "b", "c"), 3


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """An array file of three classes of 20 training and 10 test pictures."""
    path, arrays = tmp_path_factory.mktemp("arrays") / "patterns.npz", {"class_names": np.array(CLASSES)}
    for part, count, seed in (("train", 20, 0), ("test", 10, 1)):
        images, labels = pictures(count, seed, 3)
        arrays |= {f"x_{part}": images.numpy()[:, 0], f"y_{part}": labels.numpy()}
    np.savez(path, **arrays)
    return path


@pytest.fixture
def start() -> NetworkFile:
    info = {"data": "patterns", "seed": 5, "shots": SHOTS}
    return NetworkFile(initial_state("mlp", 1, 3, SIZE, 9), "mlp", 1, CLASSES, SIZE, (0.5,), (0.3,), "b", info)


def run(start, data, **kwargs):
    return finetune_network(start, data, **dict(epochs=3, seeds=2, batch_size=16, device="cpu") | kwargs)


def test_what_was_shown_only_trains(start, data):
    parts = read_network_parts(start, data, 6000, 0)
    given, *_ = split(load_arrays(data, size=SIZE, rows=ROWS, seed=5), 1, SHOTS, None, 5)
    shown = parts.train.features[parts.shown]
    assert sorted(map(bytes, shown.numpy())) == sorted(map(bytes, given.numpy())) and not parts.notes
    assert len(parts.train.labels) == 60 and len(parts.test.labels) == 30
    few = read_network_parts(start, data, 12, 0)
    assert len(few.train.labels) == 12 and int(few.shown.sum()) == 9, "the shown ones come first"
    start.info = {}
    assert "is not known" in read_network_parts(start, data, 6000, 0).notes[0]
    start.classes = ("a", "b", "x")
    with pytest.raises(UserError, match=r"the same classes \(c, x\)"):
        read_network_parts(start, data, 6000, 0)


def test_curves_are_those_of_ordinary_training(start, data):
    made = run(start, data, lr=0.02)
    assert [curve.arm for curve in made.report.curves] == ["generated", "random"] and not made.report.tuned
    parts = read_network_parts(start, data, 6000, 0)
    x, test = (start.normalised(items.features)[None] for items in (parts.train, parts.test))
    right = [accuracy_of(start.module(), one(start.state), test, parts.test.labels[None]).item()]
    for steps in (4, 8, 11):
        trained = train_networks(
            start.module(),
            one(start.state),
            x,
            parts.train.labels[None],
            steps=steps,
            batch_size=16,
            lr=0.02,
            seeds=[1],
        )
        right.append(accuracy_of(start.module(), trained, test, parts.test.labels[None]).item())
    assert [row[1] for row in made.report.curves[0].accuracy] == pytest.approx(right, abs=1e-6)
    assert right[-1] > right[0]
    first = made.network.logits(parts.test.features).argmax(1) == parts.test.labels
    assert first.float().mean().item() == pytest.approx(made.report.curves[0].accuracy[-1][0], abs=1e-6)


def one(state):
    return {name: value.unsqueeze(0) for name, value in state.items()}


def test_learning_rates_are_chosen_on_training_images(start, data, tmp_path):
    made = run(start, data)
    assert made.report.tuned and all(curve.lr in networks.LRS for curve in made.report.curves)
    with np.load(data) as found:
        arrays = dict(found)
    arrays["y_test"] = (arrays["y_test"] + 1) % 3
    np.savez(tmp_path / "patterns.npz", **arrays)
    other = run(start, tmp_path / "patterns.npz")
    assert other.report.curves[0].accuracy != made.report.curves[0].accuracy
    assert [curve.lr for curve in other.report.curves] == [curve.lr for curve in made.report.curves]
    assert all(torch.equal(tensor, made.network.state[name]) for name, tensor in other.network.state.items())


@pytest.mark.parametrize("after", ["Tuning learning rates", "Fine-tuning"])
def test_gone_on_with(start, data, tmp_path, after):
    whole, work = run(start, data), tmp_path / "work"

    def stop(stage, done, total):
        if stage == after and 2 * done > total:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(start, data, folder=work, progress=stop)
    kept = {path.name for path in work.iterdir()}
    assert ("training-generated.safetensors" if after == "Fine-tuning" else "tuning-generated.safetensors") in kept
    with pytest.raises(UserError, match="begun with another head"):
        run(start, data, folder=work, resume=True, lr=0.1)
    done = run(start, data, folder=work, resume=True)
    assert done.report.curves == whole.report.curves
    assert all(torch.equal(tensor, whole.network.state[name]) for name, tensor in done.network.state.items())


def test_starts_of_the_zoo(start, data, tmp_path):
    config = DatasetNetworksConfig.preset("tiny", steps=6, checkpoint_every=6, width=16)
    bundle = train_bundle(write_small_zoo(tmp_path / "zoo"), config, tmp_path / "bundle", device="cpu")
    parts = read_network_parts(start, data, 6000, 0)
    arms = networks._starts(start, bundle, parts, [0, 1])
    assert list(arms) == ["generated", "random", "average", "nearest", "noise", "density"]
    for name, states in arms.items():
        same = torch.equal(*(torch.cat([t.flatten() for t in pick(states, i).values()]) for i in (0, 1)))
        assert same == (name in ("generated", "average", "nearest")), "what is drawn differs by seed"
        NetworkFile(pick(states, 1), "mlp", 1, CLASSES, SIZE)
    other = NetworkFile(initial_state("cnn", 1, 3, 28, 0), "cnn", 1, CLASSES, 28)
    with pytest.raises(UserError, match="another architecture"):
        networks._of_zoo(other, bundle, parts, [0])


def test_on_the_command_line(start, data, tmp_path, capsys):
    save_network(start, tmp_path / "net")
    line = ["finetune", str(tmp_path / "net"), str(data), "--epochs", "2", "--seeds", "2", "--batch-size", "16"]
    assert main([*line, "--device", "cpu", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "random initialisation" in said and "The fine-tuned network is in" in said
    made = load_network(tmp_path / "out")
    assert made.info["finetuned"]["epochs"] == 2 and made.mean == start.mean and made.bundle == "b"
    report = FineTuneReport.from_json(json.loads((tmp_path / "out" / "finetune.json").read_text()))
    assert report.kind == "network" and report.num_shown == 9
    assert "random initialisation" in (tmp_path / "out" / "README.md").read_text()
