"""What visitors may name on this machine, and what they are told about the rest of it: nothing."""

import json
import os
import shutil
import zipfile

import pytest

from d2nwg.jobs.owner import EVERYTHING
from d2nwg.ui import access
from d2nwg.ui.explore import service as explore
from d2nwg.ui.generate import settings as generate
from d2nwg.ui.interpolate import settings as interpolate
from d2nwg.ui.language import models
from d2nwg.ui.language import service as own
from d2nwg.ui.session import private_root
from d2nwg.ui.train import service as training
from d2nwg.utils.errors import UserError
from tests.tiny_llm import make_tiny_llm


@pytest.fixture
def allowed(tmp_path, monkeypatch):
    """A folder that the app was started with, beside one that it was not."""
    folder = tmp_path / "allowed"
    for place in (folder / "model", tmp_path / "secret"):
        place.mkdir(parents=True)
        (place / "config.json").write_text("{}")
    monkeypatch.setattr(access.ACCESS, "folders", (folder.resolve(),))
    monkeypatch.delenv("SPACE_ID", raising=False)
    return folder


def outside(allowed) -> list[str]:
    """Paths that are not allowed: some are there, some are not."""
    secret = allowed.parent / "secret"
    (allowed / "out").symlink_to(secret)
    (allowed / "nowhere").symlink_to(allowed.parent / "nothing")
    (allowed / "circle").symlink_to(allowed / "circle")
    (allowed / "model-with-link").mkdir()
    (allowed / "model-with-link" / "config.json").symlink_to(secret / "config.json")
    (allowed / "deep" / "templates").mkdir(parents=True)
    (allowed / "deep" / "templates" / "x.jinja").symlink_to("/etc/passwd")
    (allowed / "folder-link").mkdir()
    (allowed / "folder-link" / "more").symlink_to("/etc")
    os.mkfifo(allowed / "pipe")
    (allowed / "special").mkdir()
    os.mkfifo(allowed / "special" / "config.json")
    inside = ("out", "out/config.json", "out/nothing", "nowhere", "circle", "model-with-link", "deep", "folder-link")
    return [
        "/etc",
        "/etc/passwd",
        "/nonexistent",
        "/",
        "~",
        "~/.ssh",
        "~root",
        "..",
        "../..",
        "./model",
        "file:///etc/passwd",
        "file://localhost/etc",
        "//etc",
        "\\\\host\\share",
        "C:\\Windows",
        "/etc/passwd\0",
        "\0",
        "/" + "x" * 5000,
        "/" + "x/" * 400,
        "${HOME}",
        "$HOME/x",
        str(secret),
        f"{secret}/config.json",
        f"{secret}-and-more",
        f"{allowed}-too",
        f"{allowed}/../secret",
        f"{allowed}/model/../../secret",
        f"{allowed}/model/../../nothing",
        *(f"{allowed}/{name}" for name in (*inside, "pipe", "special", "not-there")),
    ]


def test_what_is_not_allowed_is_answered_alike(allowed, monkeypatch):
    paths = outside(allowed)
    for check, asked, words in (
        (models.check_model, paths, "A model is the default one, a Hub id"),
        (lambda path: training.zoo_path(path, EVERYTHING), [*paths, "etc/passwd", "x"], "That zoo is not to be had"),
    ):
        said = set()
        for path in asked:
            with pytest.raises(UserError, match=words) as refusal:
                check(path)
            said.add(str(refusal.value))
        assert len(said) == 1, said


def test_what_is_allowed(allowed):
    (allowed / "alias").symlink_to(allowed / "model")
    (allowed / "model" / "tokenizer.json").symlink_to(allowed / "model" / "config.json")
    for path in (f"{allowed}/model", f" {allowed}/model ", f"{allowed}/alias", f"{allowed}/../allowed/model"):
        assert models.check_model(path) == str((allowed / "model").resolve())
    assert ("model", str(allowed.resolve() / "model")) in models.model_choices()
    assert training.zoo_path(f"{allowed}/model", EVERYTHING) == (allowed / "model").resolve()


def test_hub_ids_are_not_looked_for_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(access.ACCESS, "folders", ())
    (tmp_path / "org" / "name").mkdir(parents=True)
    (tmp_path / "org" / "name" / "config.json").write_text("{}")
    assert models.check_model(" org/name ") == "org/name"
    said = set()
    for name in ("org/name", "org/none", "org"):
        with pytest.raises(UserError) as refusal:
            own.load(models.check_model(name))
        said.add(str(refusal.value).replace(name, "NAME"))
    assert len(said) == 1 and "Hub cannot be reached" in said.pop()


def test_on_a_space(allowed, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "me/space")
    assert models.check_model("default") == "default" and models.check_model("org/name") == "org/name"
    assert "drop" not in models.model_hint() and "Hub id" in models.model_hint()
    for path in ("/etc", "/nowhere", str(allowed / "model"), "upload", "~", "../.."):
        with pytest.raises(UserError, match="On this shared machine a model is the default one or a Hub id"):
            models.check_model(path)
    with pytest.raises(UserError, match="choose one from the list.$"):
        training.zoo_path(str(allowed / "model"), EVERYTHING)


def test_the_default_model(monkeypatch):
    words, name = models.model_choices()[0]
    assert name == models.check_model(words) == "default" and "93 MB" in words and "93 MB" in models.model_hint()
    for nothing in ("  ", None, "", 3):
        with pytest.raises(UserError, match="Choose a model"):
            models.check_model(nothing)
    with pytest.raises(UserError, match="Drop a GGUF file"):
        models.check_model("upload")


def test_folders_that_are_none_are_refused_at_the_start(tmp_path):
    with pytest.raises(UserError, match="There is no folder"):
        access.open_to_visitors([tmp_path / "none"])


def test_a_link_names_no_file(served):
    """gradio's own links keep what they show in files."""
    client = served.client()
    places = ("../../../../etc/passwd", "..", "/etc/passwd", "nothing", "a" * 64, "%2e%2e%2fx")
    assert {client.get("/config", params={"deep_link": place}).json()["deep_link_state"] for place in places} == {
        "invalid"
    }
    keys = ("bundle", "example", "with", "from", "to", "third", "data", "model", "zoo", "file", "task", "mode")
    for place in ("/etc/passwd", "../../x", "task:/etc/passwd", "own"):
        query = dict.fromkeys(keys, place)
        assert generate.from_link(query)[0] == explore.from_link(query) == {}
        assert interpolate.from_link(query) == own.from_link(query) == {}


# ---------------------------------------------------------------------------------------------------- uploads


@pytest.fixture
def uploads(tmp_path, monkeypatch):
    """The folder of this process's uploads."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    monkeypatch.setenv("GRADIO_EXAMPLES_CACHE", "")
    private_root.cache_clear()
    yield private_root()
    private_root.cache_clear()


def packed(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, f"{folder.name}/{file.relative_to(folder)}")
    return str(path)


def test_an_uploaded_model(tmp_path, uploads):
    folder = make_tiny_llm(tmp_path / "my model")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "vocab_file": "/etc/passwd", "merges": "/etc"}))
    (folder / "source.json").write_text('{"name": "another", "source": "elsewhere"}')
    file = packed(folder, uploads / "mine.zip")
    asked = models.check_model("upload", file)
    looked = own.look(asked, "paper", 25)
    assert looked.model == "mine" and looked.source == "the file mine.zip" and len(looked.matrices) == 21
    assert own.load(asked) is own.load(asked), "unpacked and loaded once"
    kept = json.loads(next(uploads.rglob("models/*/*/tokenizer_config.json")).read_text())
    assert "vocab_file" not in kept and "merges" not in kept and kept["model_max_length"] == 256
    assert models.model_choices(file)[1] == ("mine.zip (your file)", "upload")

    os.remove(file)
    with pytest.raises(UserError, match="mine.zip is no longer here"):
        own.load(asked)
    with pytest.raises(UserError, match="no longer here"):
        models.check_model("upload", "/etc/passwd")


def test_uploads_that_are_no_models(tmp_path, uploads):
    folder = make_tiny_llm(tmp_path / "tiny")
    (folder / "model.safetensors").write_bytes(b"damaged")
    damaged = packed(folder, uploads / "damaged.zip")
    (folder / "config.json").unlink()
    for file, words in (
        (damaged, "damaged.zip cannot be loaded"),
        (packed(folder, uploads / "none.zip"), "none.zip holds no model"),
        (str(uploads / "x.gguf"), "is not a zip or tar"),
        (str(uploads / "y.gguf"), "y.gguf is damaged"),
    ):
        (uploads / "x.gguf").write_bytes(b"x" * 100)
        (uploads / "y.gguf").write_bytes(b"GGUF" + b"x" * 100)
        with pytest.raises(UserError, match=words) as refusal:
            own.load(models.check_model("upload", file))
        assert str(uploads) not in str(refusal.value), "no folder of the server is named"


def test_old_unpacked_uploads_are_removed(tmp_path, uploads):
    asked = models.check_model("upload", packed(make_tiny_llm(tmp_path / "tiny"), uploads / "tiny.zip"))
    place = models.located(asked)
    old = uploads / "models" / "old"
    old.mkdir()
    os.utime(old, (1, 1))
    assert models.located(asked) == place and not old.exists()


def test_an_index_names_nothing_outside_of_its_folder(tmp_path):
    from d2nwg.llm.models import load_language_model

    other, folder = make_tiny_llm(tmp_path / "other"), make_tiny_llm(tmp_path / "tiny")
    shutil.move(folder / "model.safetensors", tmp_path / "elsewhere.safetensors")
    for name in ("../elsewhere.safetensors", str(other / "model.safetensors"), "a/../../elsewhere.safetensors"):
        index = {"metadata": {}, "weight_map": {"model.norm.weight": name}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(UserError, match="names weights outside of its folder"):
            load_language_model(folder, device="cpu")


def test_a_tokenizer_reads_no_file_that_its_configuration_names(tmp_path):
    """Of a Hub model the configuration is a stranger's too."""
    from d2nwg.llm.models import load_language_model

    folder = make_tiny_llm(tmp_path / "tiny")
    (tmp_path / "secret.json").write_text((folder / "tokenizer.json").read_text().replace("the", "leaked"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {key: str(tmp_path / "secret.json") for key in ("tokenizer_file", "vocab_file", "merges_file")}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert not any("leaked" in word for word in load_language_model(folder, device="cpu").tokenizer.get_vocab())


def test_a_few_models_stay_loaded(tmp_path, monkeypatch):
    from d2nwg.llm import models as library

    monkeypatch.setattr(library, "_loaded", {})
    folders = [make_tiny_llm(tmp_path / str(seed), seed=seed) for seed in range(library.KEPT + 1)]
    first = library.load_language_model(folders[0], device="cpu")
    assert library.load_language_model(folders[0], device="cpu") is first
    for folder in folders[1:]:
        library.load_language_model(folder, device="cpu")
    assert len(library._loaded) == library.KEPT and first not in library._loaded.values()
