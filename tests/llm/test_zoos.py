"""Zoos of fine-tunes found by name, and one sample of all their layers."""

import json

import pytest
import torch

from d2nwg.cli import main
from d2nwg.encoders.lora import LoraShape
from d2nwg.llm import zoos
from d2nwg.llm.lora import merged
from d2nwg.llm.models import load_language_model
from d2nwg.llm.zoo_sample import sample_from_zoo
from d2nwg.llm.zoos import base_of, find_language_zoo, list_language_zoos
from d2nwg.utils.errors import UserError
from d2nwg.weights.model_zoo import ModelZoo
from tests.helpers.llm_zoo import make_llm_zoo, random_questions, write_questions
from tests.tiny_llm import make_tiny_llm


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(make_tiny_llm(tmp_path_factory.mktemp("llm") / "tiny", width=16, layers=2))


@pytest.fixture(scope="module")
def zoo(base, tmp_path_factory):
    return make_llm_zoo(base, tmp_path_factory.mktemp("zoo") / "mine")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def at_hand(zoo, cache, tmp_path, monkeypatch):
    """The zoo is shipped under one name and lies in the cache under two, among what is none."""
    monkeypatch.setattr(zoos, "shipped", lambda name: tmp_path / name)
    for place in (tmp_path / "pretrained", cache / "zoos"):
        place.mkdir(parents=True)
        (place / "both").symlink_to(zoo.path)
        (place / "nothing").mkdir()
        for name, text in (("damaged", "{"), ("heads", '{"format": 1}'), ("list", "[]")):
            (place / name).mkdir()
            (place / name / "zoo.json").write_text(text)
    (cache / "zoos" / "own").symlink_to(zoo.path)
    text = json.loads((zoo.path / "zoo.json").read_text())
    text["adapters"]["base"] = "text-encoder"
    (cache / "zoos" / "texts").mkdir()
    (cache / "zoos" / "texts" / "zoo.json").write_text(json.dumps(text))
    return tmp_path


def test_zoos_are_found_by_name(at_hand, base, zoo, cache, monkeypatch):
    assert list_language_zoos() == {"both": at_hand / "pretrained" / "both", "own": cache / "zoos" / "own"}
    assert base_of(zoo.path) == base and base_of(cache / "zoos" / "texts") is None
    assert find_language_zoo("own") == cache / "zoos" / "own" and find_language_zoo(zoo.path) == zoo.path
    with pytest.raises(UserError, match="There is no zoo other: those at hand: both, own."):
        find_language_zoo("other")
    monkeypatch.chdir(zoo.path.parent)
    (at_hand / "pretrained" / "both").unlink()
    assert find_language_zoo("mine").resolve() == zoo.path, "a path comes first"


def test_the_command_line_takes_a_name(at_hand, base, tmp_path, capsys):
    sets = [write_questions(tmp_path / f"{seed}.jsonl", random_questions(8, seed)) for seed in (1, 2)]
    line = ["llm", "refine", base, "--select", sets[0], "--report", sets[1], "--preset", "tiny", "--candidates", 1]
    assert main([*map(str, line), "--zoo", "both", "--out", str(tmp_path / "out")]) == 0, "shipped"
    said = capsys.readouterr().out
    assert "best checkpoint of 2" in said and f"It is in {tmp_path}" in said
    assert main([*map(str, line), "--zoo", "neither", "--out", str(tmp_path / "other")]) == 2
    assert "There is no zoo neither" in capsys.readouterr().err


def test_a_sample_lies_in_the_span_of_the_fine_tunes(base, zoo):
    own = load_language_model(base)
    before = {name: value.clone() for name, value in own.model.state_dict().items()}
    made = sample_from_zoo(own, zoo, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in own.model.state_dict().items())
    scale = LoraShape.from_json(zoo.adapters.shape).scale
    members = [merged(own, zoo.plain_state(number), scale) for number in range(len(zoo))]
    assert made.keys() == members[0].keys()
    for name, value in made.items():
        one, two = (member[name] - before[name] for member in members)
        changed = value - before[name]
        share = float(((changed - two) * (one - two)).sum() / (one - two).square().sum())
        torch.testing.assert_close(changed, share * one + (1 - share) * two, atol=1e-5, rtol=1e-3)
        assert value.dtype == own.stored_dtype and changed.abs().max() > 0
    again, other = sample_from_zoo(own, zoo, seed=0), sample_from_zoo(own, zoo, seed=1)
    assert all(torch.equal(value, made[name]) for name, value in again.items())
    assert any(not torch.equal(value, made[name]) for name, value in other.items())


def test_a_zoo_of_another_model_is_refused(zoo, tmp_path):
    other = load_language_model(make_tiny_llm(tmp_path / "other", seed=1, width=16, layers=2))
    with pytest.raises(UserError, match="weights are others"):
        sample_from_zoo(other, ModelZoo(zoo.path))
