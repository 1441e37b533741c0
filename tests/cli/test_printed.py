"""What verbs print of hostile files."""

import csv
import io
import json
import sys

import pytest
import torch

from d2nwg import cli
from d2nwg.data.tables import as_cell, from_cell, read_tables, write_csv
from d2nwg.heads import Head
from d2nwg.weights.imports import import_checkpoints
from d2nwg.weights.model_zoo import ModelZoo, export_zoo
from tests.helpers.images import make_image_folder
from tests.helpers.networks import network
from tests.tiny_llm import make_tiny_llm
from tests.utils.test_text import BAD, HOSTILE

EVIL = HOSTILE.replace("\0", "") + "\nline\t"


def harmless(text: str) -> bool:
    return not BAD & set(text)


def call(capsys, *words, code: int = 0) -> str:
    capsys.readouterr()
    assert cli.main([*map(str, words), "--device", "cpu"]) == code
    said = capsys.readouterr()
    assert harmless(said.out + said.err)
    return said.err if code else said.out


def test_predict_and_evaluate(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path / "cache"))
    folder = make_image_folder(tmp_path / "images", classes=(EVIL.replace("/", ""), "other"), per_class=2)
    from d2nwg.encoders.images import load_encoder

    encoder, classes = load_encoder("pixels/4", "cpu"), sorted(path.name for path in folder.iterdir())
    classes = [name.strip() for name in classes]
    head = Head({"weight": torch.zeros(2, 16), "bias": torch.tensor([1.0, 0.0])}, encoder.name, tuple(classes),
                encoder.preprocessing)  # fmt: skip
    file = head.save(tmp_path / "head.safetensors")
    picture = folder / "other" / "a\n\x1b[2J\tb.png"
    (folder / "other" / "00.png").rename(picture)
    (line,) = call(capsys, "predict", file, picture).splitlines()
    fields = line.split("\t")
    assert len(fields) == 3 and fields[0].endswith("a\\n\\x1b[2J\\tb.png") and fields[1].startswith("a\\x1b[31mred")
    assert json.loads(call(capsys, "evaluate", file, folder))["classes"] == classes, "JSON gives the names as they are"
    assert call(capsys, "predict", file, folder / "gone\x1b[2J.png", code=2).count("\n") == 1


def test_import_and_info(tmp_path, capsys):
    state = {f"{EVIL}.{name}": tensor for name, tensor in network().state_dict().items()}
    torch.save(state, tmp_path / "x\x1b[31m.pt")
    (tmp_path / "x.csv").write_text(f'file,task\n"x\x1b[31m.pt","{EVIL}"\n')
    preview = call(capsys, "zoo", "import", tmp_path / "x\x1b[31m.pt", "--preview")
    assert len(preview.splitlines()) == len(preview.split("\n")) - 1
    call(capsys, "zoo", "import", tmp_path, "--out", tmp_path / "zoo")
    assert json.loads(call(capsys, "zoo", "info", tmp_path / "zoo"))["checkpoints"] == 1
    (tmp_path / "bad.csv").write_text(f'file,accuracy\nx,"{EVIL}"\n')
    said = call(capsys, "zoo", "import", tmp_path, "--table", tmp_path / "bad.csv", "--out", tmp_path / "y", code=2)
    assert said.count("\n") == 1


def test_answers(tmp_path, capsys, monkeypatch):
    model = make_tiny_llm(tmp_path / "tiny")
    (model / "source.json").write_text(json.dumps({"name": EVIL, "source": EVIL}))
    monkeypatch.setattr("transformers.PreTrainedTokenizerFast.decode", lambda *args, **kwargs: f"answer {HOSTILE}\n2")
    for against in ([], ["--against", model]):
        monkeypatch.setattr(sys, "stdin", io.StringIO("hot?\n"))
        said = call(capsys, "llm", "chat", model, *against, "--max-tokens", "3")
        assert "answer a\\u001b[31mred" in said.replace("\\x1b", "\\u001b") and "title" in said


def test_an_option_with_control_characters(capsys):
    with pytest.raises(SystemExit):
        cli.main(["generate", "x", "--out", "y", "--shots", "1\x1b[31m\n2"])
    said = capsys.readouterr().err
    assert harmless(said) and said.count("\n") == 1


FORMULAS = ["=1+1", "+x", "-x", "@SUM(A1)", "\t=1", "\r=1", "＝1", "'=1", "''=1", "-1+cmd|' /C calc'!A0"]
PLAIN = ["x", "-1", "+1.5e-3", "-0", "'x", "", "a=1", "1-2"]


def test_cells_that_a_spreadsheet_would_compute(tmp_path):
    assert [as_cell(text) for text in FORMULAS] == [f"'{text}" for text in FORMULAS]
    assert [as_cell(value) for value in (*PLAIN, -1.5, -2, None, True)] == [*PLAIN, -1.5, -2, None, True]
    assert [from_cell(as_cell(text)) for text in FORMULAS + PLAIN] == FORMULAS + PLAIN
    assert as_cell(float("nan")) == as_cell(float("-inf")) == ""
    path = write_csv(tmp_path / "x.csv", [["file", "task"], *([text, "=2"] for text in FORMULAS)])
    with path.open(newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["file", *(f"'{text}" for text in FORMULAS)]
    assert {row["task"] for row in read_tables([path]).values()} == {"=2"}


def test_exports_come_back(tmp_path):
    """Names and tasks that look like formulas."""
    for seed, name in enumerate(("=x", "-y", "z")):
        torch.save(network(seed=seed).state_dict(), tmp_path / f"{name}.pt")
    (tmp_path / "t.csv").write_text("file,task,accuracy\n=x.pt,=1+1,0.5\n-y.pt,@SUM(A1),0.25\nz.pt,-1,1\n")
    import_checkpoints(tmp_path, tmp_path / "zoo")
    out = export_zoo(ModelZoo(tmp_path / "zoo"), tmp_path / "out")
    with (out / "zoo.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[1:] == [
        ["'-y.safetensors", "0.25", "", "'@SUM(A1)"],
        ["'=x.safetensors", "0.5", "", "'=1+1"],
        ["z.safetensors", "1.0", "", "-1"],
    ]
    import_checkpoints(out, tmp_path / "again")
    first, again = ([(r["accuracy"], r["task"]) for r in ModelZoo(tmp_path / z).records] for z in ("zoo", "again"))
    assert first == again
