"""What is taken away: nothing is lost, and nothing that others named is copied."""

import json
import shutil
import unicodedata
import zipfile
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from d2nwg.bundles import bundle_files, pack_bundle, push_bundle
from d2nwg.utils.errors import UserError
from d2nwg.weights.imports import import_checkpoints
from d2nwg.weights.model_zoo import ModelZoo, export_names, export_zoo
from tests.helpers.disk import content
from tests.helpers.networks import network
from tests.helpers.refusals import refusal

PARTS = st.sampled_from(
    ["x", "X", "x-2", "x-3", "x.pt", "é", "e\u0301", "a" * 255, "a" * 254 + "b", "ß", "ss", "zoo", "ä" * 127]
)
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)


@given(st.lists(NAMES, min_size=1, max_size=12), st.sampled_from(["safetensors", "pt"]))
def test_names_differ_wherever_they_are_written(names, format):
    """Also where capitals or the composition of accents do not count."""
    paths = export_names(names, format)
    alike = [unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold()) for path in paths]
    assert len(set(alike)) == len(names)
    folders = {str(parent) for path in alike for parent in Path(path).parents}
    assert not folders & set(alike), "none is a folder of another"
    assert all(len(part.encode()) <= 255 for path in paths for part in Path(path).parts)
    assert all(path.endswith(f".{format}") for path in paths)


def test_many_equal_names_take_no_time():
    assert len(set(export_names(["x.pt"] * 20_000, "pt"))) == 20_000


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_real_names_are_kept(order):
    """A made-up name gives way to a real one, whichever comes first."""
    names = [("x-2.pt", "x.pt", "x.safetensors")[i] for i in order]
    assert sorted(export_names(names, "pt")) == ["x-2.pt", "x-3.pt", "x.pt"]


@pytest.fixture
def zoo(tmp_path):
    for seed in range(3):
        torch.save(network(seed=seed).state_dict(), tmp_path / f"{seed}.pt")
    import_checkpoints(tmp_path / "0.pt", tmp_path / "zoo")
    return tmp_path / "zoo"


def test_an_append_overwrites_no_member(zoo, tmp_path):
    """Whatever numbers the members of a stranger's zoo have."""
    info = json.loads((zoo / "zoo.json").read_text())
    (zoo / "models" / "00000.safetensors").rename(zoo / "models" / "00001.safetensors")
    info["records"][0]["file"] = "models/00001.safetensors"
    (zoo / "zoo.json").write_text(json.dumps(info))
    was = ModelZoo(zoo).state(0)
    import_checkpoints([tmp_path / "1.pt", tmp_path / "2.pt"], zoo, append=True)
    now = ModelZoo(zoo)
    assert len(now) == 3 and len({record["file"] for record in now.records}) == 3
    assert all(torch.equal(now.state(0)[name], tensor) for name, tensor in was.items())
    assert len({now.state(i)["0.weight"].sum().item() for i in range(3)}) == 3


def test_an_append_writes_nothing_elsewhere(zoo, tmp_path):
    shutil.move(zoo / "models", tmp_path / "mine")
    (zoo / "models").symlink_to(tmp_path / "mine")
    was = content(tmp_path / "mine")
    text = refusal(import_checkpoints, tmp_path / "1.pt", zoo, append=True)
    assert "damaged at models" in text and content(tmp_path / "mine") == was


def test_what_a_killed_append_left_is_cleared(zoo, tmp_path):
    (zoo / ".models.partial-a1b2c3d4" / "models").mkdir(parents=True)
    import_checkpoints(tmp_path / "1.pt", zoo, append=True)
    assert sorted(path.name for path in zoo.iterdir()) == ["models", "zoo.json"]


@pytest.mark.parametrize("name", ["/etc/passwd", "../../x", "a/../../x", "..", ".", "", "a\0b", "\ud800"])
def test_a_name_that_leads_out(name, zoo, tmp_path):
    info = json.loads((zoo / "zoo.json").read_text())
    info["records"][0]["name"] = name
    (zoo / "zoo.json").write_text(json.dumps(info))
    assert "damaged at records.0.name" in refusal(lambda: export_zoo(ModelZoo(zoo), tmp_path / "out"))


@pytest.mark.parametrize("text", ["task", "architecture"])
def test_half_a_character(text, zoo):
    info = json.loads((zoo / "zoo.json").read_text())
    info["records"][0][text] = "\ud800"
    (zoo / "zoo.json").write_text(json.dumps(info))
    assert f"damaged at records.0.{text}" in refusal(ModelZoo, zoo)


def test_a_bundle_takes_no_other_files_with_it(tiny_bundle, tmp_path, monkeypatch):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (bundle / ".hidden").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("secret")
    packed = pack_bundle(bundle, tmp_path)
    with zipfile.ZipFile(packed) as archive:
        names = {str(file.relative_to(bundle)) for file in bundle_files(bundle)}
        assert {name.removeprefix("bundle/") for name in archive.namelist()} == names and ".hidden" not in names
    was = packed.read_bytes()
    (bundle / "vae" / "notes.txt").symlink_to(tmp_path / "secret")
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", lambda *args, **kwargs: pytest.fail("uploaded"))
    for take in (lambda: pack_bundle(bundle, tmp_path), lambda: push_bundle(bundle, "me/x")):
        assert "notes.txt, which is linked to a file outside the folder" in refusal(take)
    assert packed.read_bytes() == was, "what was packed before stays"


def test_heads_of_a_long_path_have_names_of_their_own(tmp_path):
    from d2nwg.heads import Head
    from d2nwg.interpolation.result import Interpolation

    class Long(Interpolation):
        def __init__(self):
            self.alpha, self.paths = torch.linspace(0, 1, 1501), {"weights": None}
            self.mixer = SimpleNamespace(noun="head")

        def report(self):
            return {}

        def head(self, method, point, seed=0):
            state = {"weight": torch.zeros(2, 1), "bias": torch.tensor([float(point), 0])}
            return Head(state, "x", ("a", "b"), {})

    Long().save(tmp_path)
    assert {float(load_file(file)["bias"][0]) for file in (tmp_path / "heads").iterdir()} == set(range(1501))


def test_a_model_takes_no_other_files_with_it(tmp_path, monkeypatch):
    from d2nwg.llm.export import save_model
    from d2nwg.llm.models import load_language_model
    from tests.tiny_llm import make_tiny_llm

    model = make_tiny_llm(tmp_path / "tiny")
    (tmp_path / "secret").write_text("secret")
    own = load_language_model(model, device="cpu", fresh=True)

    def save(out):
        return save_model(own.model, own.tokenizer, tmp_path / out, base="tiny", source=model)

    (model / "LICENSE").symlink_to(tmp_path / "secret")
    assert "LICENSE is a link that leads out of the model's folder" in refusal(save, "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert (save("out") / "LICENSE").read_text() == "secret", "the Hub's cache consists of links"
    (model / "LICENSE").unlink()
    (model / "LICENSE").symlink_to("config.json")
    monkeypatch.undo()
    assert (save("again") / "LICENSE").is_file() and not (tmp_path / "again" / "LICENSE").is_symlink()
    with pytest.raises(UserError, match="is there already"):
        save("again")
