"""``--out`` of every verb: looked at before anything is read or computed, and held until it is written."""

import threading

import pytest

from d2nwg.cli import main
from d2nwg.utils.outputs import claimed
from tests.helpers.disk import content

# Everything that they read is missing: that would be said if it were looked for first.
VERBS = {
    "zoo build": ["zoo", "build", "nothing"],
    "zoo import": ["zoo", "import", "nothing"],
    "zoo export": ["zoo", "export", "nothing"],
    "train": ["train", "--zoo", "nothing"],
    "sample": ["sample", "nothing"],
    "generate": ["generate", "nothing"],
    "finetune": ["finetune", "nothing", "nothing"],
    "explore": ["explore", "--data", "nothing"],
    "interpolate": ["interpolate", "nothing", "nothing"],
    "llm spectrum": ["llm", "spectrum", "./nothing"],
    "llm refine": ["llm", "refine", "./nothing", "--select", "nothing", "--report", "nothing"],
    "llm split": ["llm", "split", "nothing"],
    "zoo build --llm": ["zoo", "build", "nothing", "--llm", "./nothing"],
    "llm evaluate": ["llm", "evaluate", "./nothing", "nothing"],
    "llm apply": ["llm", "apply", "nothing", "./nothing"],
    "llm chat": ["llm", "chat", "./nothing"],
}


@pytest.fixture
def call(tmp_path, tmp_path_factory, monkeypatch, capsys):
    """Run a verb in an empty folder; what it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path_factory.mktemp("cache")))

    def call(words: list[str], out: str) -> str:
        assert main([*words, "--save" if "chat" in words else "--out", out]) == 2
        said = capsys.readouterr()
        assert not said.out and said.err.count("\n") == 1
        return said.err

    return call


@pytest.mark.parametrize("words", VERBS.values(), ids=VERBS)
def test_what_is_there_stays(words, call, tmp_path):
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    for name in ("README.md", "report.json", "cat/1.jpg"):
        (tmp_path / "photos" / name).write_text("mine")
    (tmp_path / "file.json").write_text("mine")
    was = content(tmp_path)
    for out in ("photos", "file.json", "file.json/out"):
        said = call(words, out)
        assert " already: " in said or "file.json is no folder" in said
        assert content(tmp_path) == was


@pytest.mark.parametrize("words", VERBS.values(), ids=VERBS)
def test_the_second_is_told_at_once(words, call, tmp_path):
    with claimed(tmp_path / "out"):
        said = []
        thread = threading.Thread(target=lambda: said.append(call(words, "out")))
        thread.start()
        thread.join()
    assert "out is being written already: wait for that, or choose another name" in said[0]
    assert "out" not in content(tmp_path)
    assert " already" not in call(words, "out"), "it is free again"
    assert not content(tmp_path), "nothing is left of a run that failed"
