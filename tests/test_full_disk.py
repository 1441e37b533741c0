"""Every verb that writes, on a disk that is full at each of its files in turn: a sentence, nothing half-written left,
and what was there before as it was."""

import json
import shutil
from pkgutil import resolve_name

import pytest
import torch
from transformers import AutoModelForCausalLM

from d2nwg.cli import main
from d2nwg.data.images import load_images
from d2nwg.training.config import NetworksConfig
from d2nwg.training.run import train_bundle
from d2nwg.utils.errors import UserError
from d2nwg.weights.build import build_zoo
from d2nwg.weights.imports import import_checkpoints
from d2nwg.weights.model_zoo import ModelZoo, export_zoo
from d2nwg.weights.zoo import ZooConfig
from tests.helpers.disk import FullDisk, content, every_full_disk
from tests.helpers.images import make_pattern_folder
from tests.helpers.networks import network
from tests.helpers.training import SHORT, quick_config, tensors
from tests.tiny_llm import make_tiny_llm


@pytest.fixture
def place(tmp_path, tmp_path_factory, monkeypatch):
    """The folder on the disk that fills up; cache and inputs are elsewhere."""
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path_factory.mktemp("cache")))
    return tmp_path


@pytest.fixture
def call(capsys):
    """A verb as a function that raises what it says."""

    def call(*words):
        capsys.readouterr()
        code = main([*map(str, words), "--device", "cpu"])
        said = capsys.readouterr().err.splitlines()  # of progress, and at the end the sentence
        if code:
            raise UserError(said[-1])

    return call


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    for seed in range(3):
        torch.save(network(seed=seed).state_dict(), folder / f"{seed}.pt")
    return folder


def test_import_append_and_export(place, checkpoints):
    zoo = place / "zoo"
    assert every_full_disk(place, lambda: import_checkpoints(checkpoints / "0.pt", zoo)) == 2
    assert every_full_disk(place, lambda: import_checkpoints(checkpoints, zoo, append=True)) == 3
    assert [record["name"] for record in ModelZoo(zoo).records] == ["0.pt", "1.pt", "2.pt"]
    for format in ("safetensors", "pt"):
        assert every_full_disk(place, lambda f=format: export_zoo(ModelZoo(zoo), place / f, format=f)) == 4


def test_build(place, patterns, cheap_encoder):
    config = ZooConfig(subsets=4, max_classes=3, images=3, width=4)
    images = load_images(patterns)
    assert every_full_disk(place, lambda: build_zoo([images], cheap_encoder, config, place / "zoo")) == 3


def computed_once(monkeypatch, module: str, name: str) -> None:
    """A function gives what it gave the first time: only writing is repeated."""
    function, given = resolve_name(f"{module}:{name}"), []
    monkeypatch.setattr(
        f"{module}.{name}", lambda *a, **k: given[0] if given else given.append(function(*a, **k)) or given[0]
    )


def test_what_is_generated(place, call, tiny_bundle, cheap_encoder, tmp_path_factory, monkeypatch):
    for module in ("d2nwg.opened", "d2nwg.interpolation.path"):
        monkeypatch.setattr(f"{module}.load_encoder", lambda name, device=None: cheap_encoder)
    for where in ("generate:generate_heads", "exploration.explore:explore", "exploration.look:look"):
        computed_once(monkeypatch, *f"d2nwg.{where}".split(":"))
    computed_once(monkeypatch, "d2nwg.interpolation.path", "interpolate")
    data = make_pattern_folder(tmp_path_factory.mktemp("new") / "fresh", range(100, 103), per_class=6)
    few = ("--bundle", tiny_bundle, "--shots", 2, "--num-samples", 3, "--steps", 2)
    (place / "mine").write_text("kept")
    refusals = every_full_disk(place, lambda: call("generate", data, *few, "--out", place / "out"))
    assert refusals == len(list((place / "out").iterdir())) >= 4, "one a file"
    assert every_full_disk(
        place, lambda: call("explore", "--data", data, *few, "--num-trained", 2, "--out", place / "explored")
    )
    few = ("--bundle", tiny_bundle, "--points", 3, "--seeds", 1, "--num-samples", 2)
    assert every_full_disk(place, lambda: call("interpolate", data, data, *few, "--out", place / "path"))


def test_language_models(place, call, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("llm")
    model = make_tiny_llm(elsewhere / "tiny")
    rows = [{"question": f"{word} hot?", "choices": ["hot", "water"], "answer": 0} for word in ("is", "was")]
    for name, row in zip(("a", "b"), rows, strict=True):
        (elsewhere / f"{name}.jsonl").write_text(json.dumps(row))
    questions = elsewhere / "a.jsonl"
    assert every_full_disk(place, lambda: call("llm", "spectrum", model, "--out", place / "s.json")) == 1
    assert every_full_disk(place, lambda: call("llm", "evaluate", model, questions, "--out", place / "e.json")) == 1

    from d2nwg.llm.delta import save_delta
    from d2nwg.llm.refine import Refined, save_refined

    state = AutoModelForCausalLM.from_pretrained(model).state_dict()
    name = "model.layers.0.mlp.gate_proj.weight"
    delta = save_delta(state, {name: state[name] + 1}, elsewhere / "delta", name="tiny", facts={})
    assert every_full_disk(place, lambda: call("llm", "apply", delta, model, "--out", place / "applied")) > 3
    (delta.parent / "log.jsonl").write_text("{}\n")
    made = Refined("tiny", {name: state[name] + 1}, {"words": ["No better."]}, delta.parent, delta)
    assert every_full_disk(place, lambda: save_refined(made, place / "refined", model=model)) > 5
    assert {"delta.safetensors", "log.jsonl", "report.json"} < set(content(place / "refined"))


def test_an_encoder_without_a_cache(place, image_folder, monkeypatch):
    """Features are computed where they cannot be kept."""
    from d2nwg.encoders.images import load_encoder

    encoder, files = load_encoder("pixels/4", "cpu"), sorted(image_folder.rglob("*.png"))
    known = encoder.encode(files)[0]
    (place / "file").write_text("")
    for cache in (place / "file", place / "damaged"):
        if cache.name == "damaged":
            monkeypatch.setenv("D2NWG_CACHE", str(cache))
            encoder.encode(files)
            for file in (cache / "features").iterdir():
                file.write_bytes(b"no database" * 100)
        monkeypatch.setenv("D2NWG_CACHE", str(cache))
        features, readable = encoder.encode(files)
        assert torch.equal(features, known) and readable.all()


@pytest.mark.parametrize(("kind", "at"), [("unet", (1, 21)), ("networks", (0, 2, 12))])
def test_training_goes_on_where_it_was(place, kind, at, tiny_zoo, tmp_path_factory):
    """The first file is that of the run, then come its log and checkpoints, and at last the bundle."""
    if kind == "unet":
        zoo, config = tiny_zoo, quick_config(**SHORT)
    else:
        folder = tmp_path_factory.mktemp("more")
        for seed in range(6):
            torch.save(network(seed=seed).state_dict(), folder / f"{seed}.pt")
        import_checkpoints(folder, place.parent / "networks")
        zoo, config = ModelZoo(place.parent / "networks"), NetworksConfig.preset("tiny", **SHORT)
    whole = train_bundle(zoo, config, tmp_path_factory.mktemp("whole") / "bundle", device="cpu")
    out = place / "bundle"
    for number in at:
        with pytest.MonkeyPatch.context() as patch:
            disk = FullDisk(patch, place, number)
            with pytest.raises(UserError) as caught:
                train_bundle(zoo, config, out, device="cpu")
        said = str(caught.value)
        assert ("disk is full" in said or "could not be written" in said) and "make room" in said
        assert not out.exists() and disk.opened > number
        left = [path for path in content(place) if "partial" in path]
        assert not left and (bool(number) == (place / "bundle.training").exists())
        train_bundle(zoo, config, out, resume=bool(number), device="cpu")
        torch.testing.assert_close(tensors(out), tensors(whole), rtol=0, atol=0, equal_nan=True)
        shutil.rmtree(out)
        assert not content(place)
