"""Outputs: checked first, one writer at a time, whole or not at all."""

import errno
import os
import threading

import pytest
from safetensors import SafetensorError

from d2nwg.utils.errors import Cancelled, UserError
from d2nwg.utils.outputs import claimed, disk_error, new_folder
from d2nwg.utils.paths import partial_name, whole_file, whole_folder, write_whole
from tests.helpers.disk import content
from tests.helpers.refusals import refusal


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path_factory.mktemp("cache")))


def write(out, **options):
    with new_folder(out, **options) as folder:
        (folder / "file").write_text("new")


def test_a_new_folder_is_whole_or_not_there(tmp_path):
    for reason in (UserError("no."), Cancelled(), KeyboardInterrupt()):
        with pytest.raises(type(reason)), new_folder(tmp_path / "a" / "b" / "out") as folder:
            (folder / "file").write_text("half")
            raise reason
        assert not list(tmp_path.iterdir()), "folders made for it are gone, too"
    write(tmp_path / "a" / "b" / "out")
    assert (tmp_path / "a" / "b" / "out" / "file").read_text() == "new" and len(content(tmp_path)) == 4
    assert (tmp_path / "a" / "b" / "out").stat().st_mode & 0o777 == 0o755


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "README.md").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "full")
    (tmp_path / "empty").mkdir()
    was = content(tmp_path)
    for name, empty in (("full", True), ("file", True), ("link", True), ("empty", False)):
        assert "exists already: choose another name" in refusal(write, tmp_path / name, empty=empty)
    assert "file is no folder" in refusal(write, tmp_path / "file" / "out")
    assert content(tmp_path) == was


def test_an_empty_folder_is_filled(tmp_path, monkeypatch):
    """Not replaced: it may be a mount."""
    out = tmp_path / "out"
    out.mkdir()
    was = out.stat().st_ino
    (out / ".partial-a1b2c3d4").mkdir()  # of a killed run
    (tmp_path / "link").symlink_to(out)
    write(tmp_path / "link", empty=True)
    assert out.stat().st_ino == was and content(out) == {"file": b"new"}


def test_a_dangling_link_is_followed(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "there")
    write(tmp_path / "link")
    assert (tmp_path / "there" / "file").read_text() == "new" and (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "~nobody-of-this-name/x"], ids=["long", "nul", "home"])
def test_what_can_be_no_path(tmp_path, name):
    text = refusal(write, name if name.startswith("~") else tmp_path / name)
    assert "cannot be written" in text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_is_noticed_first(tmp_path, monkeypatch, code):
    def refuse(*args, **kwargs):
        raise OSError(code, os.strerror(code), "x")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(UserError, match=r"out cannot be written: [a-z ]+\.$"), claimed(tmp_path / "out"):
        pytest.fail("begun")
    assert not list(tmp_path.iterdir())


def test_names_of_any_length(tmp_path):
    """Names of incomplete folders fit in 255 bytes, and differ where the outputs do."""
    long = ["ä" * 127, "ä" * 126 + "b", "x" * 255]
    for name in long:
        write(tmp_path / name)
        write_whole(tmp_path / name / "y".ljust(255, "y"), "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(long)
    parts = {partial_name(tmp_path / name, "building").name for name in long}
    assert len(parts) == 3 and all(len(os.fsencode(part)) <= 255 for part in parts)


def test_the_folders_above_a_name_that_is_too_long_are_taken_away(tmp_path):
    with pytest.raises(UserError, match="file name too long"), claimed(tmp_path / "new" / "folder" / ("y" * 300)):
        pass
    assert not (tmp_path / "new").exists()


def test_one_thread_may_take_it_twice_and_no_other_once(tmp_path):
    refused = []

    def other():
        with pytest.raises(UserError) as caught:
            write(tmp_path / "out")
        refused.append(str(caught.value))

    with claimed(tmp_path / "out") as out:
        write(out)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert "is being written already" in refused[0]
    assert "exists already" in refusal(write, tmp_path / "out"), "it is free again"


def test_two_results_are_both_kept(tmp_path):
    out = tmp_path / "out"
    words = r"Another program made .*out meanwhile: the result is in .*out-2\."
    with pytest.raises(UserError, match=words), new_folder(out) as folder:
        (folder / "file").write_text("ours")
        out.mkdir()
        (out / "file").write_text("theirs")
    assert content(tmp_path) == {"out": None, "out/file": b"theirs", "out-2": None, "out-2/file": b"ours"}
    with whole_folder(tmp_path / "cached") as folder:  # one is as good as the other
        (tmp_path / "cached").mkdir()
        (tmp_path / "cached" / "file").write_text("theirs")
        (folder / "file").write_text("ours")
    assert (tmp_path / "cached" / "file").read_text() == "theirs" and len(list(tmp_path.iterdir())) == 3


def test_a_file_is_old_or_new(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), whole_file(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert content(tmp_path) == {"file": b"old"}
    (tmp_path / ".file.partial-999999999-1.file").write_text("of a killed process")
    (tmp_path / f".file.partial-{os.getpid()}-1.file").write_text("of a thread that is at it")
    write_whole(path, "new")
    assert content(tmp_path) == {"file": b"new", f".file.partial-{os.getpid()}-1.file": b"of a thread that is at it"}


def test_what_the_disk_says_is_found_in_other_exceptions():
    def raised(*errors):
        try:
            try:
                raise errors[0]
            finally:
                if errors[1:]:
                    raise errors[1]
        except Exception as reason:
            return disk_error(reason)

    full, words = OSError(errno.ENOSPC, "No space left on device"), "the disk is full"
    assert raised(full) == raised(full, RuntimeError("unexpected pos 64 vs 0")) == words
    assert raised(SafetensorError("Error while serializing: I/O error: … (os error 28)")) == words
    assert raised(SafetensorError("Error while serializing: I/O error: … (os error 13)")) == "permission denied"
    assert raised(SafetensorError("No such file or directory (os error 2)")) is None
    assert raised(PermissionError(errno.EACCES, "no", "x")) is raised(ValueError("x")) is None
