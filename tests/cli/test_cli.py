"""The command line as a process: help, one sentence for every mistake, and nothing heavy before it is needed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import d2nwg
from d2nwg import cli
from d2nwg.utils.errors import UserError

ROOT = Path(d2nwg.__file__).parents[1]
VERBS = [verb.__name__.rpartition(".")[2] for verb in cli.VERBS]
HEAVY = {
    "torch",
    "gradio",
    "sklearn",
    "diffusers",
    "transformers",
    "timm",
    "open_clip",
    "datasets",
    "plotly",
    "sentence_transformers",
}


def run(*args, python=(), **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *python, "-m", "d2nwg", *map(str, args)],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=900,
        **options,
    )


def says_one_sentence(process: subprocess.CompletedProcess) -> str:
    """Exit code 2, nothing on stdout, and on stderr one line that is a sentence; returns it."""
    assert (process.returncode, process.stdout) == (2, ""), process.stderr
    assert process.stderr.count("\n") == 1 and process.stderr.endswith(".\n"), process.stderr
    assert "Error" not in process.stderr and "Traceback" not in process.stderr
    return process.stderr


def test_help_names_every_verb():
    process = run("--help")
    assert process.returncode == 0 and not process.stderr
    assert all(verb in process.stdout for verb in VERBS)
    assert run("--version").stdout == f"d2nwg {d2nwg.__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb, capsys):
    text = help_of(capsys, verb)
    if verb == "zoo":  # a verb of verbs: the example and the options stand one level down
        text = help_of(capsys, verb, "build")
    elif verb == "llm":
        text = help_of(capsys, verb, "chat")
    assert f"example: python -m d2nwg {verb}" in text
    if verb != "jobs":  # which computes nothing itself
        assert "--device" in text and "--seed" in text


def help_of(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main([*words, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_help_imports_nothing_heavy():
    lines = run("--help", python=("-X", "importtime")).stderr.splitlines()
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    assert "argparse" in imported and "d2nwg" in imported
    assert not imported & HEAVY


def test_importing_the_library_imports_nothing_heavy():
    code = "import sys, d2nwg; print(*{name.partition('.')[0] for name in sys.modules})"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "d2nwg" in process.stdout.split()
    assert not set(process.stdout.split()) & HEAVY


def test_the_library_exports_what_it_says():
    assert all(getattr(d2nwg, name) is not None for name in d2nwg.__all__)
    assert set(d2nwg.__all__) <= set(dir(d2nwg))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = d2nwg.nonsense


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "VERB"),
        (["fly"], "fly"),
        (["--fly"], "VERB"),
        (["evaluate"], "HEAD, DATA"),
        (["evaluate", "head.safetensors", "data", "more"], "more"),
        (["evaluate", "h", "d", "--seed", "x"], "must be a whole number from 0 to 9,223,372,036,854,775,807, not x"),
        (["evaluate", "h", "d", "--seed", "-1"], "--seed"),
        (["evaluate", "h", "d", "--device", "toaster"], "'toaster' is not a device"),
        (["predict", "head.safetensors"], "Nothing to label"),
    ],
)
def test_mistakes_in_arguments(args, words):
    assert words in says_one_sentence(run(*args))


def test_a_file_that_is_no_head(tmp_path, image_folder):
    (tmp_path / "head.safetensors").write_text("this is no head")
    assert "head.safetensors" in says_one_sentence(run("evaluate", tmp_path / "head.safetensors", image_folder))


@pytest.fixture
def head(tmp_path) -> Path:
    import torch

    from d2nwg.encoders.images import DEFAULT_ENCODER, load_encoder
    from d2nwg.heads import Head

    encoder = load_encoder(DEFAULT_ENCODER)
    state = {"weight": torch.zeros(3, encoder.num_features), "bias": torch.tensor([0.0, 0, 1])}
    made = Head(state, encoder.name, ("blue", "green", "red"), encoder.preprocessing)
    return made.save(tmp_path / "red.safetensors")


def test_data_that_cannot_be_used(head, image_folder, tmp_path, capsys):
    (image_folder / "cut.png").write_bytes(b"\x89PNG")
    assert "cut.png" in says_one_sentence(run("predict", head, image_folder / "cut.png"))
    for args in (["evaluate", head, tmp_path / "nowhere"], ["predict", head, tmp_path / "nowhere"]):
        assert cli.main([str(arg) for arg in args]) == 2
        said = capsys.readouterr()
        assert "nowhere" in said.err and said.err.count("\n") == 1 and not said.out


def test_evaluate_and_predict_print_results(head, image_folder, capsys):
    import json

    assert cli.main(["evaluate", str(head), str(image_folder)]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["num_images"] == 24
    assert scores["per_class"] == {"blue": 0, "green": 0, "red": 1} and scores["accuracy"] == pytest.approx(1 / 3)
    pictures = [image_folder / "blue" / "00.png", image_folder / "green" / "01.png"]
    process = run("predict", head, *pictures, "--device", "cpu")
    assert process.returncode == 0
    assert process.stdout.splitlines() == [f"{picture}\tred\t0.5761" for picture in pictures]


def raising(problem: BaseException):
    def run(args):
        raise problem

    return run


@pytest.mark.parametrize(
    ("problem", "code", "said"),
    [
        (UserError("Class cat has\ntwo images."), 2, "Class cat has two images.\n"),
        (KeyboardInterrupt(), 130, "Stopped.\n"),
        (PermissionError(13, "Permission denied", "/out/head"), 2, "/out/head: Permission denied.\n"),
    ],
)
def test_how_a_run_can_end(problem, code, said, monkeypatch, capsys):
    monkeypatch.setattr(cli.predict, "run", raising(problem))
    assert cli.main(["predict", "head", "image"]) == code
    assert capsys.readouterr() == ("", said)


def test_a_programming_mistake_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(cli.predict, "run", raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["predict", "head", "image"])


@pytest.mark.skipif(os.name != "posix", reason="pipes as POSIX has them")
def test_a_reader_that_has_gone_is_no_problem():
    reader, writer = os.pipe()
    os.close(reader)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.run(
        [sys.executable, "-m", "d2nwg", "--help"],
        cwd=ROOT,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=900,
        env=buffered,
    )
    os.close(writer)
    assert process.stderr == "" and process.returncode == 141


def test_every_package_is_installed():
    """pyproject.toml lists the packages by hand, for some of them lie elsewhere in the repository."""
    tomllib = pytest.importorskip("tomllib")
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {str(file.parent.relative_to(ROOT)).replace(os.sep, ".") for file in ROOT.glob("d2nwg/**/__init__.py")}
    assert set(tool["packages"]) == found | {"d2nwg.assets", "d2nwg.pretrained"}


def test_a_zoo_that_is_none_is_refused_before_anything_heavy_is_imported(tmp_path):
    process = run("train", "--zoo", tmp_path / "nope", "--out", tmp_path / "out", python=("-X", "importtime"))
    lines = process.stderr.splitlines()
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines if line.startswith("import time:")}
    assert "argparse" in imported and not imported & HEAVY
    assert process.returncode == 2 and "nope is no zoo" in lines[-1]
