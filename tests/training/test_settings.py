"""Configurations as text: every field has a meaning and a type, and only what fits is taken."""

from dataclasses import fields

import pytest

from d2nwg.generators import GENERATORS
from d2nwg.training.config import DualConfig, NetworksConfig, UNetConfig
from d2nwg.training.settings import as_text, changed, choices, meanings, split_setting
from d2nwg.utils.errors import UserError

CONFIGS = [generator.config_class for generator in GENERATORS.values()]


@pytest.mark.parametrize("config", CONFIGS)
def test_every_field_has_a_meaning_and_reads_its_own_text(config):
    assert list(meanings(config)) == [field.name for field in fields(config)] and all(meanings(config).values())
    for preset in config.PRESETS:
        made = config.preset(preset, seed=7)
        assert changed(config(), {name: as_text(value) for name, value in vars(made).items()}) == made


def test_no_predictor_judges_chunks():
    with pytest.raises(UserError, match="judges whole networks"):
        NetworksConfig(layout="independent", predictor="weights")


def test_what_is_one_of_a_few():
    assert choices(UNetConfig)["condition"] == ("dataset", "task", "none")
    assert choices(NetworksConfig)["layout"] == ("whole", "chunked", "independent")
    assert choices(DualConfig) == {"mixed_precision": ("no", "fp16", "bf16")}


@pytest.mark.parametrize(
    ("config", "name", "text", "said"),
    [
        (UNetConfig, "colour", "red", "There is no setting colour: choose among"),
        (UNetConfig, "vae_steps", "many", "'many' cannot be the vae_steps: write for instance 500"),
        (UNetConfig, "vae_steps", "-1", "cannot be the vae_steps"),
        (UNetConfig, "vae_steps", "2.5", "cannot be the vae_steps"),
        (UNetConfig, "vae_lr", "nan", "cannot be the vae_lr"),
        (UNetConfig, "vae_lr", "inf", "cannot be the vae_lr"),
        (UNetConfig, "ema", "1.5", "cannot be the ema"),
        (UNetConfig, "batch_size", "0", "cannot be the batch_size"),
        (UNetConfig, "batch_size", "9" * 30, "cannot be the batch_size"),
        (UNetConfig, "patch", "1, 2", "cannot be the patch: write for instance 64, 1, 2"),
        (UNetConfig, "vae_channels", "", "cannot be the vae_channels"),
        (UNetConfig, "vae_channels", "32, 0", "cannot be the vae_channels"),
        (UNetConfig, "vae_skip", "perhaps", "cannot be the vae_skip: write for instance yes"),
        (UNetConfig, "prediction", "noise", "choose one of epsilon, v_prediction, sample"),
        (UNetConfig, "condition", "weather", "choose one of dataset, task, none"),
        (NetworksConfig, "batchnorm", "", "choose one of travel, recalibrate"),
        (DualConfig, "shots", "a\x07b", "cannot be the shots"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(config, name, text, said):
    with pytest.raises(UserError, match=said) as refused:
        changed(config(), {name: text})
    assert str(refused.value).isprintable()


def test_names_and_lists_may_be_written_loosely():
    made = changed(DualConfig(), {"held_out": " pacs , clothes", "unlabelled": "[0, 5]", "lr": "1e-4"})
    assert made.held_out == ("pacs", "clothes") and made.unlabelled == (0, 5) and made.lr == 1e-4
    assert changed(made, {"held_out": ""}).held_out == ()
    assert split_setting(" vae-steps = 3") == ("vae_steps", "3")
    with pytest.raises(UserError, match="write FIELD=VALUE"):
        split_setting("vae_steps")
