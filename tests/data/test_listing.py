"""Only regular files below the folder are opened; links and special files are named."""

import os
import socket

import pytest
from PIL import Image

from d2nwg.data.decode import open_image
from d2nwg.data.images import load_images, load_unlabelled
from d2nwg.data.listing import skipped_note, walk
from d2nwg.encoders.cache import content_hash
from tests.helpers.refusals import refusal


@pytest.fixture
def folder(tmp_path):
    """Two classes of two images each, and everything that is no regular file below the folder."""
    root = tmp_path / "data"
    for label in "ab":
        (root / label).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (4, 4), (i, 0, 0)).save(root / label / f"{i}.png")
    (tmp_path / "outside").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "outside" / "x.png")
    os.mkfifo(root / "a" / "fifo.png")
    os.mkfifo(root / "a" / "fifo.txt")
    (root / "a" / "device.png").symlink_to("/dev/zero")
    (root / "a" / "gone.png").symlink_to(root / "nowhere.png")
    (root / "a" / "away.png").symlink_to(tmp_path / "outside" / "x.png")
    (root / "a" / "inside.png").symlink_to(root / "b" / "1.png")
    (root / "b" / "loop").symlink_to(root)
    (root / "c").symlink_to(tmp_path / "outside")
    with socket.socket(socket.AF_UNIX) as made:
        here = os.getcwd()
        os.chdir(root / "b")  # a socket's path must be short
        made.bind("socket.png")
        os.chdir(here)
    return root


def test_the_walk_names_what_it_skips(folder):
    listings = list(walk(folder, folder))
    assert [(os.path.relpath(one.path, folder), one.files) for one in listings] == [
        (".", []),
        ("a", ["0.png", "1.png", "inside.png"]),
        ("b", ["0.png", "1.png"]),
    ]
    assert skipped_note([pair for one in listings for pair in one.skipped], folder) == [
        "Not read: 1 entry linked to a file outside the folder: a/away.png.",
        "Not read: 2 entries linked to a folder: b/loop, c.",
        "Not read: 2 entries linked to nothing that is a regular file: a/device.png, a/gone.png.",
        "Not read: 3 entries neither regular file nor folder: a/fifo.png, a/fifo.txt, b/socket.png.",
    ]


def test_a_data_set_reads_regular_files_and_says_what_it_did_not(folder):
    images = load_images(folder)
    assert [item.name for item in images.items] == ["0.png", "1.png", "inside.png", "0.png", "1.png"]
    assert len([note for note in images.notes if note.startswith("Not read: ")]) == 4
    assert len(load_unlabelled([folder])) == 5


@pytest.mark.parametrize("name", ["a/fifo.png", "a/device.png", "b/socket.png", "b"])
def test_no_special_file_is_opened(folder, name):
    assert "it is no regular file" in refusal(open_image, folder / name)
    assert content_hash(folder / name) is None


def test_a_data_set_of_links_is_refused(folder):
    (folder / "x.parquet").symlink_to(folder.parent / "outside" / "x.png")
    assert "cannot be read as a data set. Not read: 2 entries linked to a file outside" in refusal(load_images, folder)
