"""Class names as a person writes them, and their text vectors."""

import pytest
import torch

from d2nwg.conditions.class_names import (
    LONGEST,
    MOST,
    check_names,
    class_of,
    embed_names,
    read_names,
    readable,
    rename,
    split_names,
    without,
)
from d2nwg.encoders.texts import TextEncoder
from d2nwg.utils.errors import UserError


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("tabby cat, golden retriever,red fox", ["tabby cat", "golden retriever", "red fox"]),
        ("  cat ,, dog, ", ["cat", "dog"]),
        ("cat\ndog, wild\n\n", ["cat", "dog, wild"]),
        ("cat\r\ndog\r\n", ["cat", "dog"]),
        ("😀, Hauskatze", ["😀", "Hauskatze"]),
    ],
)
def test_names_in_a_text(text, names):
    assert read_names(text) == names


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbfcat\r\npansy: a small flower, of gardens\r\n\r\n", b"cat\npansy: a small flower, of gardens"],
)
def test_names_in_a_file(tmp_path, content):
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    assert read_names(path) == read_names(str(path)) == ["cat", "pansy: a small flower, of gardens"]


def test_a_typed_text_is_never_a_path(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("cat\ndog")
    assert split_names(str(path)) == [str(path)] and split_names("cat\ndog") == ["cat", "dog"]


def test_one_name_in_a_file_keeps_its_comma(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("dog, wild")
    assert read_names(path) == ["dog, wild"]


@pytest.mark.parametrize(
    ("content", "words"), [(b"\xff\xfe\x00", "UTF-8"), (b"", "No class is named"), (b"\n \n", "No")]
)
def test_files_that_hold_no_names(tmp_path, content, words):
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_names(path)


def test_a_file_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr("d2nwg.conditions.class_names.MOST_BYTES", 3)
    (tmp_path / "names.txt").write_text("cat\ndog")
    with pytest.raises(UserError, match="too large"):
        read_names(tmp_path / "names.txt")


@pytest.mark.parametrize("text", ["", " ", ",,", "\n"])
def test_no_names(text):
    with pytest.raises(UserError, match="No class is named"):
        read_names(text)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "No class is named"),
        (["cat"], "cat is the only name"),
        (["cat", ""], "is empty"),
        (["cat", ": a pet"], "is empty"),
        (["cat", "Cat"], "Cat is given twice"),
        (["cat", "cat: the same"], "cat is given twice"),
        (["é", "e\u0301"], "given twice"),
        (["cat", "x" * (LONGEST + 1)], f"has {LONGEST + 1} characters"),
        (["cat", "\udcff"], "not UTF-8"),
        ([f"class {i}" for i in range(10_000)], f"10,000 names are too many: give at most {MOST:,}"),
    ],
)
def test_names_that_a_head_cannot_have(names, words):
    with pytest.raises(UserError, match=words) as said:
        check_names(names)
    assert "\n" not in str(said.value) and len(str(said.value)) < 300


def test_names_that_it_can_have():
    for names in (["😀", "🐱"], ["x" * LONGEST, "cat: " + "long " * 200], [str(i) for i in range(MOST)]):
        assert check_names(names) == names
    assert class_of("pansy: a flower: small") == "pansy" and class_of("a:b") == "a:b"


def test_renaming():
    assert rename(["0", "1"], ["cat", "dog"]) == ["cat", "dog"]
    assert rename(["0", "1", "2"], ["2 = red fox"]) == ["0", "1", "red fox"]
    for names, words in ((["cat"], "1 names are given for 2"), (["9=cat"], "no class 9"), (["0=1"], "given twice")):
        with pytest.raises(UserError, match=words):
            rename(["0", "1"], names)


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("n01440764", "tench, Tinca tinca"),
        ("golden_retriever", "golden retriever"),
        ("TriangleDanger", "Triangle Danger"),
        ("photo/guitar", "photo guitar"),
        ("AT-Flower", "AT Flower"),
        ("class_3", "class 3"),
    ],
)
def test_names_become_phrases(name, phrase):
    assert readable(name) == phrase


def test_a_vector_is_of_the_name_and_of_what_describes_it():
    asked = []

    def forward(batch):
        asked.extend(batch)
        return torch.tensor([[1.0, float("photo" in text), float("flower" in text)] for text in batch])

    encoder = TextEncoder("fake/three", forward, 3, "x")
    plain, described = embed_names(["rose", "pansy: a garden flower"], encoder)
    assert {"rose", "a photo of a rose", "pansy", "pansy: a garden flower"} <= set(asked)
    assert plain[2] == 0 and described[2] > 0.3
    torch.testing.assert_close(torch.stack([plain, described]).norm(dim=-1), torch.ones(2))


def test_same_names_are_found_by_any_lemma():
    kept = without(["tench, Tinca tinca", "Goldfish", "carp"], ["goldfish", "TENCH"])
    assert kept.tolist() == [False, False, True] and without(["a"], []).tolist() == [True]
