"""Where bundles are found, and what is said when there is none."""

import json

import pytest
import torch

from d2nwg import bundles
from d2nwg.bundles import bundle_encoder, list_bundles, load_bundle, load_pipeline, resolve_bundle
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import shipped


@pytest.fixture
def places(tmp_path, monkeypatch):
    """An empty cache and an empty folder of shipped bundles."""
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bundles, "shipped", lambda name: tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(folder):
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "DualHeadPipeline"}')
    return folder


def test_shipped_ones_and_ones_own(places):
    assert list_bundles() == {}
    shipped = put(places / "pretrained" / bundles.DEFAULT_BUNDLE)
    own = put(places / "cache" / "bundles" / "mine")
    put(places / "cache" / "bundles" / bundles.DEFAULT_BUNDLE)  # cannot take the place of a shipped one
    (places / "pretrained" / "empty").mkdir()
    assert list_bundles() == {bundles.DEFAULT_BUNDLE: shipped, "mine": own}
    assert resolve_bundle() == resolve_bundle(bundles.DEFAULT_BUNDLE) == shipped and resolve_bundle("mine") == own
    elsewhere = put(places / "elsewhere" / "bundle")
    assert resolve_bundle(elsewhere) == elsewhere and str(resolve_bundle("elsewhere/bundle")) == "elsewhere/bundle"


def test_no_bundle_at_all(places):
    with pytest.raises(UserError, match=f"no bundle {bundles.DEFAULT_BUNDLE}: none is at hand"):
        resolve_bundle()


def test_a_name_that_is_not_known(places):
    put(places / "pretrained" / "one")
    with pytest.raises(UserError, match="no bundle other: the ones at hand are one"):
        resolve_bundle("other")
    (places / "folder").mkdir()
    with pytest.raises(UserError, match=r"folder is no bundle: it has no model_index\.json"):
        resolve_bundle("folder")


def test_the_encoder_of_a_bundle(places, tiny_bundle):
    assert bundle_encoder(tiny_bundle) == "fake/colours"
    broken = put(places / "broken")
    with pytest.raises(UserError, match="broken is incomplete"):
        bundle_encoder(broken)
    (broken / "weight_space").mkdir()
    for text in ("{", "{}"):
        (broken / "weight_space" / "config.json").write_text(text)
        with pytest.raises(UserError, match="broken is incomplete"):
            bundle_encoder(broken)


@pytest.mark.parametrize("damage", ["empty_index", "no_weights", "cut_weights", "no_config"])
def test_a_damaged_bundle_is_refused(damage, tiny_bundle, tmp_path):
    import shutil

    path = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, path)
    weights = path / "denoiser" / "diffusion_pytorch_model.safetensors"
    if damage == "empty_index":
        (path / "model_index.json").write_text("{}")
    elif damage == "no_weights":
        weights.unlink()
    elif damage == "cut_weights":
        weights.write_bytes(weights.read_bytes()[:-1000])
    else:
        (path / "vae" / "config.json").unlink()
    with pytest.raises(UserError, match="bundle cannot be opened") as said:
        load_pipeline(path, "cpu")
    assert "\n" not in str(said.value)


def test_a_bundle_is_loaded_once_until_it_changes(tiny_bundle, tmp_path):
    import os
    import shutil

    path = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, path)
    first = load_pipeline(path, "cpu")
    assert load_pipeline(path, "cpu") is first
    os.utime(path / "model_index.json", ns=(0, 0))
    assert load_pipeline(path, "cpu") is not first


def test_the_shipped_bundles_are_whole():
    for path in list_bundles().values():
        index = json.loads((path / "model_index.json").read_text())
        assert index["_class_name"] in ("LatentHeadPipeline", "DualHeadPipeline") and (path / "README.md").is_file()
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        assert size <= 20e6 and bundle_encoder(path).startswith(("timm/", "open_clip/", "pixels/"))


def test_no_shipped_file_is_larger_than_a_code_host_takes_gladly():
    sizes = {path: path.stat().st_size for path in shipped("pretrained").rglob("*") if path.is_file()}
    assert max(sizes.values()) <= 10_000_000, max(sizes, key=lambda path: sizes[path])
    for bundle in shipped("pretrained").iterdir():
        assert sum(size for path, size in sizes.items() if bundle in path.parents) <= 20_000_000, bundle


def test_large_weights_are_saved_in_several_files(tmp_path):
    load_bundle(bundles.DEFAULT_BUNDLE).save_pretrained(tmp_path)
    parts = sorted(tmp_path.glob("names/*.safetensors"))
    assert len(parts) > 1 and max(part.stat().st_size for part in parts) <= 10_000_000
    written, kept = (load_bundle(path).names.state_dict() for path in (tmp_path, bundles.DEFAULT_BUNDLE))
    assert all(torch.equal(tensor, kept[name]) for name, tensor in written.items()) and written.keys() == kept.keys()
