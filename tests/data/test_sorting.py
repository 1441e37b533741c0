"""Loose pictures that are sorted into classes, and what they are as a data set."""

import contextlib
import zipfile

import pytest

from d2nwg.data import sorting as module
from d2nwg.data.images import load_images
from d2nwg.data.sorting import Sorting, check_name, pack_folder
from d2nwg.utils.errors import UserError
from tests.fuzz.kinds.archives import NAMES
from tests.helpers.images import make_image_folder


@pytest.fixture
def files(tmp_path):
    """Six pictures of different content, two each of a name."""
    folder = make_image_folder(tmp_path / "source", ("cat", "dog"), per_class=3)
    return sorted(folder.rglob("*.png"))


@pytest.fixture
def board(files):
    """The six: two in cat, one not sorted, three in dog."""
    made = Sorting()
    made.add_classes("cat, dog")
    for file in files:
        made.add(file, file.parent.name)
    made.move(made.of("cat")[:1], "")
    return made


def test_sorted_pictures_are_the_data_set_of_their_folder(board, files, tmp_path):
    images = board.load(tmp_path)
    assert images.classes == ("cat", "dog") and images.name == "your photographs"
    assert images.notes == ("Left out, because not sorted: 1 picture.",)
    found = {
        (images.classes[label], item.read_bytes()) for item, label in zip(images.items, images.labels, strict=True)
    }
    assert found == {(file.parent.name, file.read_bytes()) for file in files[1:]}
    assert not list(tmp_path.glob("*.zip")), "what was packed is gone"
    again = load_images(board.pack(tmp_path / "kept.zip"), into=tmp_path)
    assert [item.read_bytes() for item in again.items] == [item.read_bytes() for item in images.items]


def test_equal_names_of_files_are_kept_apart(board, tmp_path):
    board.rename("dog", "cat")
    board.add_classes("none")
    board.move(board.of("")[:1], "none")
    with zipfile.ZipFile(board.pack(tmp_path / "a.zip")) as archive:
        names = sorted(name.split("/", 1)[1] for name in archive.namelist())
    assert names == ["cat/00.png", "cat/01-2.png", "cat/01.png", "cat/02-2.png", "cat/02.png", "none/00.png"]
    assert len(board.load(tmp_path)) == 6


def test_the_same_classes_are_the_same_bytes(board, tmp_path):
    first = board.pack(tmp_path / "a.zip").read_bytes()
    moved = board.of("cat")
    board.move(moved, "dog")
    board.move(moved, "cat")
    assert board.pack(tmp_path / "b.zip").read_bytes() == first


def test_classes_are_added_renamed_merged_and_removed(board):
    assert board.add_classes("Fox ; cat\nhen, hen") == ["Fox", "hen"]
    assert board.classes == ["cat", "dog", "Fox", "hen"]
    with pytest.raises(UserError, match="There is a class cat already"):
        board.add_classes("CAT")
    assert board.rename("cat", " Cat ") == "Cat" and len(board.of("Cat")) == 2
    assert board.rename("dog", "cat") == "Cat" and len(board.of("Cat")) == 5, "merged"
    assert board.classes == ["Cat", "Fox", "hen"]
    assert board.remove_class("Cat") == 5 and len(board.of("")) == 6
    for do in (lambda: board.rename("Cat", "x"), lambda: board.remove_class("Cat"), lambda: board.move([], "Cat")):
        with pytest.raises(UserError, match="no class Cat any more"):
            do()


def test_the_same_file_is_there_once(board, files, tmp_path):
    copy = tmp_path / "copy.png"
    copy.write_bytes(files[4].read_bytes())
    assert board.add(copy, "cat") is None and len(board.pictures) == 6
    assert board.drop([*board.of("dog"), 10**6]) == 3
    assert board.add(copy, "cat") not in (None, *range(6)), "a number is never used again"


def test_what_is_no_data_set_yet_is_said(tmp_path, files):
    board = Sorting()
    with pytest.raises(UserError, match="no pictures to sort"):
        board.load(tmp_path)
    board.add(files[0], "a")
    board.add(files[1], "")
    with pytest.raises(UserError, match="at least two classes"):
        board.pack(tmp_path / "x.zip")
    board.move(board.of(""), "")
    board.add(files[2], "b")
    files[0].unlink()
    with pytest.raises(UserError, match=r"00.png is no longer here"):
        board.load(tmp_path)


@pytest.mark.parametrize(
    "name", ["", " ", ".hidden", "..", "a/b", "a\\b", "C:", "a\0b", "a\nb", "\u202egnp", "\ud800", "x" * 81, "é" * 101]
)
def test_names_that_no_folder_has(name):
    with pytest.raises(UserError) as said:
        check_name(name)
    assert "\0" not in str(said.value) and "\u202e" not in str(said.value)


def test_limits(board, files, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_CLASSES", 3)
    with pytest.raises(UserError, match="3 classes"):
        board.add_classes("a, b")
    monkeypatch.setattr(module, "MOST", 6)
    (tmp_path / "new.png").write_bytes(b"new")
    with pytest.raises(UserError, match="up to 6 pictures"):
        board.add(tmp_path / "new.png", "")


@pytest.mark.parametrize(
    "name", ["\u202e..png", "../../x.png", ".png", "a" * 300 + ".PNG", "x", "ß?*.jpeg", "\ud800.png"]
)
def test_names_of_files_are_made_fit_for_an_archive(board, files, tmp_path, name):
    board.drop(list(board.pictures))
    board.add(files[0], "cat", name)
    board.add(files[1], "dog", name)
    assert len(board.load(tmp_path)) == 2


def test_a_folder_is_read_as_a_zip_of_it(files, tmp_path):
    pairs = [(f"photos/{file.parent.name}/{file.name}", file) for file in files]
    images = load_images(pack_folder(pairs, tmp_path / "photos.zip"), into=tmp_path)
    assert images.classes == ("cat", "dog") and len(images) == 6
    for inside in NAMES:  # refused in a sentence, or harmless
        with contextlib.suppress(UserError):
            load_images(pack_folder([*pairs, (inside, files[0])], tmp_path / "some.zip"), into=tmp_path / "inside")
    found = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*.png")}
    assert {"source", "inside"} < found and len(found) == 3
    for inside in ("../../etc/x.png", "/etc/x.png", "a\ud800/x.png", "x" * 5000 + "/x.png", "a/\u202e.png"):
        with pytest.raises(UserError):
            file = pack_folder([*pairs, (inside, files[0])], tmp_path / "hostile.zip")
            load_images(file, into=tmp_path)
    assert not list(tmp_path.glob("*/x.png"))
