"""Files of folders from strangers: their own, regular, small and JSON; and what a killed process left."""

import os
from pathlib import Path

import pytest

from d2nwg.data.archives import LEFT_OUT, left_out
from d2nwg.utils.paths import check_own_files, is_partial, leads_out, read_json
from tests.helpers.refusals import refusal


@pytest.fixture
def secret(tmp_path) -> Path:
    """A file beside the folder."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret.json").write_text('["secret"]')
    return tmp_path / "secret.json"


def test_only_regular_json_of_the_folder_is_read(secret):
    folder = secret.parent / "folder"
    for name, text in (("deep", "[" * 100_000), ("cut", "{"), ("bytes", "\xff"), ("digits", "1" * 5000)):
        (folder / name).write_text(text, encoding="latin-1")
        assert read_json(folder / name) is None
    (folder / "large").write_text("[1, 2, 3]")
    assert read_json(folder / "large") == [1, 2, 3] and read_json(folder / "large", most=4) is None
    os.mkfifo(folder / "fifo")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "out").symlink_to(secret)
    (folder / "in").symlink_to("large")
    assert [read_json(folder / name) for name in ("fifo", "zero", "out", "gone", ".")] == [None] * 5
    assert read_json(folder / "in") == [1, 2, 3]


def test_a_link_into_the_hubs_cache_is_no_way_out(secret, monkeypatch):
    from huggingface_hub import constants

    hub = secret.parent / "hub"
    (hub / "blobs").mkdir(parents=True)
    (hub / "snapshots").mkdir()
    (hub / "blobs" / "1").write_text("{}")
    link = hub / "snapshots" / "config.json"
    link.symlink_to("../blobs/1")
    assert leads_out(link)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub))
    assert not leads_out(link) and read_json(link) == {}


@pytest.mark.parametrize("kind", ["link", "fifo", "device", "folder"])
def test_a_folder_with_something_else_is_refused(kind, secret):
    folder = secret.parent / "folder"
    (folder / "fine").write_text("")
    check_own_files(folder, "It")
    if kind == "fifo":
        os.mkfifo(folder / "odd")
    else:
        (folder / "odd").symlink_to({"link": secret, "device": "/dev/zero", "folder": secret.parent}[kind])
    assert "It holds odd, " in refusal(check_own_files, folder, "It")


def test_the_list_of_what_was_left_out_is_not_a_strangers(secret):
    folder = secret.parent / "folder"
    (folder / LEFT_OUT).symlink_to(secret)
    assert left_out(folder) == []
    (folder / LEFT_OUT).unlink()
    (folder / LEFT_OUT).write_text('["a.txt", 5]')
    assert left_out(folder) == ["a.txt", "5"]


def test_what_a_killed_process_left():
    partial = (".made.partial-a1b2c3d4", ".partial-a1b2c3d4", ".run.json.partial-17-3.file")
    assert all(is_partial(Path(name)) for name in partial)
    assert not any(is_partial(Path(name)) for name in ("made.partial-1", ".partial", "partial-1", ".made-partial"))
