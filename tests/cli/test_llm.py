"""``llm chat`` and ``llm apply``."""

import io
import json
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from d2nwg.cli import main
from d2nwg.llm.delta import fingerprint, save_delta
from d2nwg.utils.text import printable
from tests.tiny_llm import make_tiny_llm

NAME = "model.layers.1.mlp.gate_proj.weight"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model's folder, and two deltas on it."""
    folder = tmp_path_factory.mktemp("llm")
    base = make_tiny_llm(folder / "tiny")
    deltas = []
    for seed in (1, 2):
        state = AutoModelForCausalLM.from_pretrained(base).state_dict()
        new = state[NAME] + torch.randn(state[NAME].shape, generator=torch.Generator().manual_seed(seed))
        deltas.append(save_delta(state, {NAME: new}, folder / str(seed), name="me/tiny", facts={"seed": seed}))
    return base, deltas


def say(monkeypatch, capsys, lines, *arguments):
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    assert main(["llm", "chat", *map(str, arguments), "--device", "cpu", "--max-tokens", "6"]) == 0
    return capsys.readouterr().out


def test_chat(tiny, tmp_path, monkeypatch, capsys):
    base, deltas = tiny
    out = say(monkeypatch, capsys, ["is it hot?", "and now?"], base, "--save", tmp_path / "talk.json")
    kept = json.loads((tmp_path / "talk.json").read_text())
    assert [turn["message"] for turn in kept["turns"]] == ["is it hot?", "and now?"]
    assert all(printable(turn["answers"][0]["text"]) in out for turn in kept["turns"])
    assert out.count("a second") == 2

    out = say(monkeypatch, capsys, ["is it hot?"], base, "--against", deltas[0], "--save", tmp_path / "talk.md")
    assert "refined: " in out and "[" in out
    assert "**refined**" in (tmp_path / "talk.md").read_text()
    again = say(monkeypatch, capsys, ["is it hot?"], base, "--against", base)
    assert "(2): " in again and "[" not in again.split("(2): ")[1].split("\n")[0]


def test_apply_one_and_the_average_of_two(tiny, tmp_path, capsys):
    base, deltas = tiny
    assert (
        main(["llm", "apply", str(deltas[0].parent), str(base), "--out", str(tmp_path / "one"), "--device", "cpu"]) == 0
    )
    one = AutoModelForCausalLM.from_pretrained(tmp_path / "one").state_dict()
    was = AutoModelForCausalLM.from_pretrained(base).state_dict()
    assert [name for name in was if fingerprint(was[name]) != fingerprint(one[name])] == [NAME]
    assert main(["llm", "apply", *map(str, deltas), str(base), "--out", str(tmp_path / "two"), "--device", "cpu"]) == 0
    two = AutoModelForCausalLM.from_pretrained(tmp_path / "two").state_dict()
    noise = [torch.randn(was[NAME].shape, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    torch.testing.assert_close(two[NAME], was[NAME] + sum(noise) / 2)
    assert json.loads((tmp_path / "two" / "report.json").read_text())["average_of"] == [{"seed": 1}, {"seed": 2}]

    for arguments, words in (
        (["apply", str(deltas[0]), str(tmp_path / "one"), "--out", str(tmp_path / "x")], "not what it was made from"),
        (["apply", str(tmp_path / "gone"), str(base), "--out", str(tmp_path / "x")], "is not there"),
        (["apply", str(deltas[0]), str(base), "--out", str(tmp_path / "one")], "is there already"),
        (["chat", str(base), "--temperature", "-1"], "Temperature should be"),
    ):
        capsys.readouterr()
        assert main(["llm", *arguments, "--device", "cpu"]) == 2
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1
    assert not (tmp_path / "x").exists()
