"""Settings that make no networks or too large ones are refused before the first step; unfinished runs of any shape."""

import json
import os
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from d2nwg.training import trial
from d2nwg.training.config import DualConfig, NetworksConfig, UNetConfig
from d2nwg.training.loop import MetricsLog
from d2nwg.training.run import train_bundle
from d2nwg.utils import limits
from tests.helpers.refusals import refusal
from tests.helpers.training import SHORT, quick_config, stop_at


def train(zoo, tmp_path, config, **options):
    return train_bundle(zoo, config, tmp_path / "bundle", device="cpu", **options)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(unet_channels=(7,)), "These settings make no denoiser ("),
        (dict(vae_channels=(3,)), "These settings make no VAE ("),
        (dict(patch=(3, 1, 5), vae_channels=(8, 8, 8)), "These settings make no VAE ("),
        (dict(encoder_width=7), "These settings make no condition ("),
        (dict(latent_channels=2**20, vae_channels=(8,)), "needs "),
        (dict(batch_size=10**6, vae_channels=(2**12,)), "needs "),
    ],
)
def test_networks_that_cannot_be_trained(changes, words, tiny_zoo, tmp_path, monkeypatch):
    monkeypatch.setattr("d2nwg.training.heads_unet.make_vae", lambda *_: pytest.fail("it was built in earnest"))
    said = refusal(train, tiny_zoo, tmp_path, quick_config(**changes))
    assert words in said and ("others that fit together" in said or "choose smaller widths or batches" in said)


def test_a_dual_generator_that_cannot_be_trained(tiny_zoo, tmp_path, monkeypatch):
    small = DualConfig.preset("tiny", steps=1)
    assert "does not divide into 3 attention heads" in refusal(train, tiny_zoo, tmp_path, replace(small, heads=3))
    monkeypatch.setattr(limits, "free_memory", lambda device: 1e6)
    assert "on 1,000,000 tasks a step needs " in refusal(train, tiny_zoo, tmp_path / "b", replace(small, tasks=10**6))


def test_the_trial_takes_no_memory_and_draws_no_numbers(tiny_zoo):
    before = torch.random.get_rng_state()
    with trial.unreal("It fails"):
        network = torch.nn.Linear(10**6, 10**6)
        with trial.counted(network) as found:
            network(torch.zeros(2, 10**6))
    assert trial.weights(network) == 10**12 + 10**6 and found == [2 * 10**6]
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("kind", [UNetConfig, DualConfig, NetworksConfig])
def test_every_number_of_a_configuration_is_checked(kind):
    config = kind()
    for field in fields(kind):
        value = getattr(config, field.name)
        if isinstance(value, bool):
            wrong: list = [None, "yes", 2]
        elif isinstance(value, (int, float)):
            wrong = [-1, float("nan"), float("inf"), 10**30, True, "5", None]
        elif isinstance(value, str):
            wrong = [None, 5, "\x1b[31m"]
        else:
            wrong = [None, 5, "x", (float("nan"),), (-1,), (1.5,)]
        for one in wrong:
            assert f"The setting {field.name} cannot be" in refusal(replace, config, **{field.name: one})
            assert refusal(kind.from_config, {**config.to_config(), field.name: one})
    assert "are damaged" in refusal(kind.from_config, {"fly": 1})
    assert "are damaged" in refusal(kind.from_config, [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "damaged at its config.json"),
        ("{", "damaged at its config.json"),
        ("[" * 100_000, "damaged at its config.json"),
        ('{"format": 2}', "damaged at its config.json"),
        ('{"format": 2, "zoos": [5]}', "damaged at its config.json"),
        ('{"format": 2, "zoos": ["x"]}', "was started on the zoo x"),
        ('{"format": 2, "zoos": [ZOO], "generator": "dual", "config": {}}', "is of another generator"),
        ('{"format": 2, "zoos": [ZOO], "generator": 5}', "is of another generator"),
        ('{"format": 2, "zoos": [ZOO], "generator": "unet", "config": 5}', "settings of a UNetConfig are damaged"),
        ('{"format": 2, "zoos": [ZOO], "generator": "unet", "config": {"seed": "x"}}', "seed cannot be x"),
    ],
)
def test_an_unfinished_run_of_any_shape(text, words, tiny_zoo, tmp_path):
    work = tmp_path / "bundle.training"
    work.mkdir()
    (work / "config.json").write_text(text.replace("ZOO", json.dumps(str(tiny_zoo.path.resolve()))))
    assert words in refusal(train, tiny_zoo, tmp_path, quick_config(), resume=True)


@pytest.mark.parametrize("damage", ["cut", "fifo", "empty", "other"])
def test_a_damaged_checkpoint(damage, tiny_zoo, tmp_path):
    from d2nwg.utils.errors import Cancelled

    with pytest.raises(Cancelled):
        train(tiny_zoo, tmp_path, quick_config(**SHORT), progress=stop_at("Training the VAE", 5))
    path = tmp_path / "bundle.training" / "vae" / "checkpoint"
    data = path.read_bytes()
    path.unlink()
    if damage == "fifo":
        os.mkfifo(path)
    elif damage == "other":
        torch.save({"step": 3, "modules": {}, "optimiser": {}, "ema": None}, path)
    else:
        path.write_bytes(data[:-100] if damage == "cut" else b"")
    said = refusal(train, tiny_zoo, tmp_path, quick_config(**SHORT), resume=True)
    assert f"The checkpoint {path} is damaged, or of other settings" in said


def test_what_a_resumed_run_logs_is_what_an_undisturbed_one_does(tmp_path):
    class Alone:
        is_main_process = True

    log = MetricsLog(tmp_path / "metrics.jsonl", Alone())
    for step in (1, 2, 3):
        log(stage="generator", step=step, steps=9, loss=1.0)
    log(stage="generator", step=2, held_out_accuracy=0.5)  # at the beginning of the step after the second
    log(stage="generator", step=2, steps=9, measured=1)
    log(stage="other", accuracy=1)
    with log.path.open("a") as file:
        file.write('5\n["x"]\n{"stage": "generator", "st')
    log.rewind("generator", 2)
    kept = [json.loads(text) for text in log.path.read_text().splitlines()]
    assert [(line["stage"], line.get("step"), "steps" in line) for line in kept] == [
        *[("generator", step, True) for step in (1, 2)],
        ("generator", 2, True),
        ("other", None, False),
    ]
    assert not any(np.isnan(line["time"]) for line in kept)


def test_a_card_names_the_command_that_makes_it_anew():
    from d2nwg.training.cards import command_line

    assert "--resume" not in command_line(["train", "--zoo", "z", "--resume", "--out", "b"])
