"""Arguments that nobody means: refused in a sentence, whatever the verb, before anything is done."""

import pytest

from d2nwg.cli import main

HUGE = "9" * 5000


def says(capsys, *arguments: str) -> str:
    """The one sentence of a refusal."""
    try:
        code = main(list(arguments))
    except SystemExit as left:
        code = left.code
    said = capsys.readouterr()
    assert code == 2 and not said.out and said.err.count("\n") == 1 and said.err.endswith(".\n"), said
    assert said.err.strip().isprintable() and len(said.err) < 700
    return said.err


@pytest.mark.parametrize("value", ["-1", "1.5", "nan", "inf", "", " 5", "1e3", "0x10", "1_0", "\u0663", "9" * 20, HUGE])
@pytest.mark.parametrize(
    "line",
    [
        ["generate", "d", "--out", "o", "--num-samples"],
        ["generate", "d", "--out", "o", "--seed"],
        ["explore", "--out", "o", "--num-trained"],
        ["finetune", "h", "d", "--out", "o", "--epochs"],
        ["zoo", "build", "d", "--out", "o", "--subsets"],
        ["zoo", "build", "d", "--out", "o", "--classes"],
        ["llm", "refine", "m", "--select", "q", "--report", "r", "--out", "o", "--select-questions"],
        ["llm", "chat", "m", "--max-tokens"],
    ],
)
def test_what_is_no_number(line, value, capsys):
    assert line[-1] in says(capsys, *line, value)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "x", "", HUGE + "x"])
@pytest.mark.parametrize(
    "line",
    [
        ["llm", "spectrum", "m", "--out", "o", "--percent"],
        ["llm", "chat", "m", "--temperature"],
        ["finetune", "h", "d", "--out", "o", "--lr"],
        ["sample", "b", "--out", "o", "--around"],
    ],
)
def test_what_is_no_finite_number(line, value, capsys):
    assert f"argument {line[-1]}" in says(capsys, *line, value).lower()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["generate", "a\0b", "--out", "o"], "holds a NUL byte"),
        (["generate", "d", "--out", "a\0b"], "holds a NUL byte"),
        (["predict", "h", "a.png", "b\0"], "holds a NUL byte"),
        (["generate", "d", "--out", ""], "The argument out is empty"),
        (["zoo", "import", "", "--preview"], "The argument checkpoints is empty"),
        (["zoo", "import", "a", " ", "--preview"], "The argument checkpoints is empty"),
        (["llm", "chat", "m", "--save", ""], "The argument save is empty"),
        (["zoo", "build", "d", "--out", "o", "--encoder", ""], "The argument encoder is empty"),
        (["evaluate", "h", "d", "--device", "cuda:" + "9" * 99], "is not a device"),
        (["llm", "spectrum", "m", "--percent", "0", "--out", "o"], "above 0 and at most 100 percent, not 0.0"),
    ],
)
def test_names_that_are_none(line, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert words in says(capsys, *line)
    assert not list(tmp_path.iterdir())


def test_overlong_paths(capsys, tmp_path):
    long = str(tmp_path / ("x" * 300))
    for line in (["evaluate", long, long], ["zoo", "import", long, "--preview"], ["llm", "evaluate", long, long]):
        assert says(capsys, *line)


def test_what_must_be_one_at_least(capsys):
    said = says(capsys, "generate", "d", "--out", "o", "--shots", "-3")
    assert "must be a whole number from 1 to 1,000,000,000, not -3" in said
