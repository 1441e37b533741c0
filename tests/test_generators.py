"""The registry: a generator that a test adds is trained, saved, sampled, and offered, without any other edit."""

import json
from dataclasses import dataclass, fields
from typing import ClassVar

import pytest
import torch

from d2nwg import generators, load_bundle
from d2nwg.bundles import bundle_generator, list_bundles
from d2nwg.cli import main
from d2nwg.conditions import CONDITIONERS
from d2nwg.conditions.dataset import DatasetEncoder
from d2nwg.generators import GENERATORS, Generator, for_zoo, generator_of, get_generator, presets, register
from d2nwg.training.cards import CardText
from d2nwg.training.config import UNetConfig
from d2nwg.training.config_base import setting
from d2nwg.utils.errors import UserError


@dataclass(frozen=True)
class ToyConfig(UNetConfig):
    """The UNet's, with a preset and a field of its own."""

    PRESETS: ClassVar[dict[str, dict]] = {"toy": dict(vae_steps=4, align_steps=2, diffusion_steps=4, batch_size=8)}
    colour: str = setting("red", "of the toy", lambda: ("red", "blue"))


def toy_card(zoos, config, measured) -> CardText:
    return CardText(f"A {config.colour} toy.", "samples = pipe(support)", f"{len(zoos)} zoo.", "Played.")


TOY = Generator(
    name="toy",
    label="A toy",
    about="a generator to play with",
    makes="head",
    zoo=("heads",),
    config="tests.test_generators:ToyConfig",
    trainer="d2nwg.training.heads_unet:train",
    pipeline="d2nwg.pipelines.heads:LatentHeadPipeline",
    card="tests.test_generators:toy_card",
)


@pytest.fixture
def toy():
    yield register(TOY)
    del generators.GENERATORS[TOY.name]


def test_a_generator_is_an_entry(toy, tiny_zoo, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path))
    out = tmp_path / "bundles" / "my-toy"
    out.parent.mkdir()
    options = ["--preset", "toy", "--set", "colour=blue", "--device", "cpu"]
    assert main(["train", "--zoo", str(tiny_zoo.path), "--generator", "toy", *options, "--out", str(out)]) == 0
    assert "A blue toy." in (out / "README.md").read_text() and "--generator toy" in (out / "README.md").read_text()
    assert json.loads((out / "training.json").read_text())["generator"] == "toy"
    assert list_bundles()["my-toy"] == out and bundle_generator(out) is toy
    samples = load_bundle("my-toy")([torch.rand(2, 48), torch.rand(3, 48)], num_samples=2)
    assert samples.state["weight"].shape == (2, 2, 48)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "{unet,dual,dataset-networks,networks,adapters,toy}" in said
    assert "toy: a generator to play with" in said and "toy: toy" in said


def test_a_generator_is_offered_in_the_train_tab(toy):
    import gradio as gr

    from d2nwg.ui.app import build_app

    blocks = build_app().blocks.values()
    radio = next(block for block in blocks if isinstance(block, gr.Radio) and block.elem_id == "train-generator")
    assert ("A toy", "toy") in [tuple(choice) for choice in radio.choices]
    assert any(isinstance(block, gr.Textbox) and block.label == "colour" for block in blocks)


class NoisySlots(DatasetEncoder):
    """A condition of a test's own."""

    given, described = "a few images a class and a coin", "noisy encoder"

    def forward(self, features, mask, latents=None):
        noise = 0.01 * torch.randn(features.shape, generator=torch.Generator().manual_seed(0)).to(features)
        return super().forward(features + noise, mask, latents)


def test_a_condition_is_a_file_and_an_entry(tiny_zoo, tmp_path, monkeypatch):
    monkeypatch.setitem(CONDITIONERS, "noisy", "tests.test_generators:NoisySlots")
    out = tmp_path / "bundle"
    options = ["--preset", "tiny", *(f"--set={stage}_steps=2" for stage in ("vae", "align", "diffusion"))]
    command = ["train", "--zoo", str(tiny_zoo.path), "--condition", "noisy", *options, "--device", "cpu"]
    assert main([*command, "--out", str(out)]) == 0
    assert "a few images a class and a coin" in (out / "README.md").read_text()
    pipe = load_bundle(out)
    assert type(pipe.condition_encoder) is NoisySlots
    assert len(pipe([torch.rand(2, 48), torch.rand(3, 48)], num_samples=2)) == 2
    monkeypatch.delitem(CONDITIONERS, "noisy")
    with pytest.raises(UserError, match="names the component NoisySlots of tests.test_generators: not loaded"):
        load_bundle(out)


def test_names_of_generators():
    assert get_generator("models") is get_generator("networks"), "an earlier id"
    with pytest.raises(UserError, match="no generator nets: choose one of unet, dual, dataset-networks"):
        get_generator("nets")
    with pytest.raises(ValueError, match="There is a generator models already"):
        register(Generator("new", "", "", "head", ("heads",), "", "", "", "", aliases=("models",)))
    assert [one.name for one in for_zoo("heads")] == ["unet", "dual"] and for_zoo("checkpoints")[0].name == "networks"
    assert [one.name for one in for_zoo("adapters")] == ["adapters"]
    assert presets()["paper"] == ["unet"] and set(presets()["tiny"]) == set(GENERATORS)
    assert generator_of(UNetConfig()).name == "unet"


@pytest.mark.parametrize("name", generators.GENERATORS)
def test_every_part_of_an_entry_is_there(name):
    from diffusers import DiffusionPipeline

    generator = get_generator(name)
    assert callable(generator.part("trainer")) and callable(generator.part("card"))
    assert issubclass(generator.part("pipeline"), DiffusionPipeline)
    config = generator.config_class()
    assert all(isinstance(steps, int) for steps in config.stages().values()) and config.stages()
    assert all(field.metadata["help"] for field in fields(config))
    short = config.shortened(3)
    assert set(short.stages().values()) == {3} and short.checkpoint_every > max(config.stages().values())
