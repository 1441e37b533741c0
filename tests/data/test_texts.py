"""Labelled texts from tables, folders and archives, and every way in which a table can be wrong."""

import csv
import gzip
import json
import os
import zipfile

import numpy as np
import pytest

from d2nwg.data import rows
from d2nwg.data.columns import Columns
from d2nwg.data.image_set import ImageSet
from d2nwg.data.rows import LONGEST
from d2nwg.data.sources import load_data, load_data_files, load_free
from d2nwg.data.text_set import TextSet
from d2nwg.data.texts import load_free_texts, load_texts
from d2nwg.utils.errors import UserError
from tests.helpers.images import make_image_folder
from tests.helpers.refusals import refusal

REVIEWS = [
    ("A lovely film, warm and wise.", "positive"),
    ('They call it "art"; I call it a nap.', "negative"),
    ("Gut, schön und größer als gedacht!", "positive"),
    ("Dull; flat, and far too long", "negative"),
]


def write(path, *, header=("text", "label"), rows=REVIEWS, separator=",", encoding="utf-8"):
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=separator).writerows([*([header] if header else []), *rows])
    return path


def lines(path, *found):
    path.write_text("".join(one if isinstance(one, str) else json.dumps(one) + "\n" for one in found), "utf-8")
    return path


def read(data: TextSet) -> list[tuple]:
    return sorted((text, data.classes[label]) for text, label in zip(data.items, data.labels, strict=True))


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_any_usual_csv_is_read(separator, encoding, tmp_path):
    found = load_texts(write(tmp_path / "reviews.csv", separator=separator, encoding=encoding))
    assert found.name == "reviews" and found.classes == ("negative", "positive") and read(found) == sorted(REVIEWS)
    assert found.noun == "text" and not found.pairs and not found.is_test.any()
    assert any("Western European" in note for note in found.notes) == (encoding == "latin-1")
    assert "Columns used: text and label." in found.notes


def test_a_csv_as_it_comes_from_a_spreadsheet_and_from_unix(tmp_path):
    for name, end in (("a.csv", "\r\n"), ("b.csv", "\n"), ("c.csv", "\r")):
        (tmp_path / name).write_bytes(end.join(["text,label", '"a, b",x', '"line\none",y', "", "'=c,x"]).encode())
        assert read(load_texts(tmp_path / name)) == [("=c", "x"), ("a, b", "x"), ("line\none", "y")]


def test_tabs_with_quotes_that_enclose_nothing(tmp_path):
    (tmp_path / "glue.tsv").write_text('sentence\tlabel\n"Yes, he said\t1\nno "quotes\t0\nplain\t1\n"\t0\n')
    assert ('"Yes, he said', "1") in read(load_texts(tmp_path / "glue.tsv"))


@pytest.mark.parametrize("packed", [False, True])
def test_jsonl(packed, tmp_path):
    path = lines(tmp_path / "r.jsonl", *({"id": i, "text": t, "label": c} for i, (t, c) in enumerate(REVIEWS)))
    if packed:
        path = path.with_name("r.jsonl.gz")
        path.write_bytes(gzip.compress((tmp_path / "r.jsonl").read_bytes()))
    assert load_texts(path).name == "r" and read(load_texts(path)) == sorted(REVIEWS)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([1, 0, 1, 0], ("0", "1")),
        ([1.0, 0.0, 1.0, 0.0], ("0", "1")),
        (["1.0", "0", "1", "0.0"], ("0", "1")),
        ([True, False, True, False], ("False", "True")),
        (["Sports", "world", "sports ", "World"], ("Sports", "world")),
        (["é", "x", "e\u0301", "x"], ("x", "é")),
        ([" a\nb", "c", "a  b", "c"], ("a b", "c")),
        ([10, 9, 2, 10], ("10", "2", "9")),
    ],
)
def test_labels_of_any_kind(labels, classes, tmp_path):
    found = [{"text": text, "label": label} for (text, _), label in zip(REVIEWS, labels, strict=True)]
    assert load_texts(lines(tmp_path / "x.jsonl", *found)).classes == classes


def test_columns_are_found_by_name_or_by_what_is_in_them_or_chosen(tmp_path):
    odd = [(i, f"{text} {i}", cls, "en", 2.5 * i) for i, (text, cls) in enumerate(REVIEWS * 3)]
    path = write(tmp_path / "a.csv", header=("id", "Review_Text", "Sentiment", "lang", "score"), rows=odd)
    assert "Columns used: Review_Text and Sentiment." in load_texts(path).notes
    path = write(tmp_path / "b.csv", header=("id", "words", "kind", "lang", "score"), rows=odd)
    assert "Columns used: words and kind." in load_texts(path).notes
    path = write(tmp_path / "c.csv", header=("text", "label", "b", "c"), rows=[(*row[1:],) for row in odd])
    found = load_texts(path, columns=Columns(("TEXT",), "label"))
    assert found.classes == ("negative", "positive")
    assert "no column x; its columns are text, label, b, c" in refusal(load_texts, path, columns=Columns(label="x"))
    assert "one text or two" in refusal(load_texts, path, columns=Columns(("text", "b", "c")))


def test_two_texts_a_row_make_pairs(tmp_path):
    twos = [(text, "and " + text, cls) for text, cls in REVIEWS]
    for header in (("sentence1", "sentence2", "label"), ("premise", "hypothesis", "gold_label"), ("x", "y", "label")):
        path = write(tmp_path / "pairs.csv", header=header, rows=twos)
        found = load_texts(path, columns=Columns(("x", "y") if header[0] == "x" else ()))
        assert found.pairs and found.noun == "pair" and set(found.items) == {row[:2] for row in twos}
    assert load_free_texts([path], pairs=True, columns=Columns(("x", "y"))) == [row[:2] for row in twos]
    single = write(tmp_path / "one.csv")
    assert "takes two a row" in refusal(load_free_texts, [single], pairs=True)


def test_a_split_column_or_files_part_train_from_test(tmp_path):
    several = [(f"{text} {part}", cls, part) for text, cls in REVIEWS for part in ("train", "dev", "test")]
    found = load_texts(write(tmp_path / "all.csv", header=("text", "label", "split"), rows=several))
    assert sorted(text[-5:] for text in found.items) == [" test"] * 4 + ["train"] * 4
    assert [text.endswith("test") for text in found.items] == found.is_test.tolist()
    folder = tmp_path / "parts"
    folder.mkdir()
    write(folder / "train.csv", rows=REVIEWS)
    write(folder / "test.csv", rows=[("new", "positive"), ("old", "negative"), ("odd", "strange"), REVIEWS[0]])
    found = load_data(folder)
    assert found.name == "parts" and found.is_test.sum() == 3 and len(found) == 6
    assert "Left out: 1 row repeated." in found.notes, "what is in both is for testing only"
    assert any("of a class without training rows (strange)" in note for note in found.notes)
    (folder / "test.csv").rename(folder / "more.csv")
    assert not load_data(folder).is_test.any()
    (folder / "train.csv").rename(folder / "other.csv")
    assert "several tables (more.csv, other.csv)" in refusal(load_data, folder)


def test_a_dev_part_stands_in_for_a_missing_test_part(tmp_path):
    parted = [(f"{text} {part}", cls, part) for text, cls in REVIEWS for part in ("train", "dev", "extra")]
    found = load_texts(write(tmp_path / "x.csv", header=("text", "label", "split"), rows=parted))
    assert len(found) == 8 and found.is_test.sum() == 4 and not any("extra" in text for text in found.items)


def make_text_folder(folder, parts=("",)):
    for part in parts:
        for cls, words in {"sport": "goal team", "science": "cell atom"}.items():
            (folder / part / cls).mkdir(parents=True)
            for i, word in enumerate(words.split()):
                (folder / part / cls / f"{i}.txt").write_text(f"a {word} {part}\n")
    return folder


def test_folders_of_texts(tmp_path):
    folder = make_text_folder(tmp_path / "news")
    (folder / "sport" / "bad.txt").write_bytes(b"\0\1\2")
    found = load_data(folder)
    assert read(found) == [("a atom", "science"), ("a cell", "science"), ("a goal", "sport"), ("a team", "sport")]
    assert "Left out, because they are no texts: sport/bad.txt." in found.notes
    found = load_data(make_text_folder(tmp_path / "split", ("train", "test")))
    assert len(found) == 8 and found.is_test.sum() == 4 and found.classes == ("science", "sport")
    listed = tmp_path / "listed"
    listed.mkdir()
    (listed / "up.txt").write_text("one\ntwo\n\nthree\n")
    (listed / "down.txt").write_text("four\nfive\n")
    assert load_data(listed).classes == ("down", "up") and len(load_data(listed)) == 5


def test_archives_hold_images_or_texts(tmp_path):
    folder = make_text_folder(tmp_path / "news")
    with zipfile.ZipFile(tmp_path / "news.zip", "w") as archive:
        for file in folder.rglob("*.txt"):
            archive.write(file, file.relative_to(tmp_path))
    assert read(load_data(tmp_path / "news.zip")) == read(load_data(folder))
    assert load_data_files([tmp_path / "news.zip"], into=tmp_path / "in").name == "news"
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.writestr("a.exe", "x")
    assert "holds no images" in refusal(load_data, tmp_path / "none.zip")
    assert isinstance(load_data(make_image_folder(tmp_path / "pictures")), ImageSet)


def test_texts_without_labels(tmp_path):
    (tmp_path / "more.txt").write_text("one\n\ntwo\n")
    like = load_texts(write(tmp_path / "a.csv"))
    assert load_free([tmp_path / "more.txt"], like) == ["one", "two"]
    assert load_free([tmp_path / "a.csv"], like) == [text for text, _ in REVIEWS]
    assert load_free([make_text_folder(tmp_path / "news")], like) == ["a cell", "a atom", "a goal", "a team"]
    assert "There is no" in refusal(load_free, [tmp_path / "gone"], like)
    (tmp_path / "empty.txt").write_text(" \n\n")
    assert "holds no rows" in refusal(load_free, [tmp_path / "empty.txt"], like)


def test_empty_long_and_repeated_texts(tmp_path):
    long = [("x" * 10_000_000, "a"), ("y" * 10_000_000, "b")]
    more = [("", "a"), ("  ", "b"), ("one", ""), ("two", "a"), ("two", "b")]
    found = load_texts(write(tmp_path / "x.csv", rows=[*long, *more]))
    assert [len(text) for text in found.items] == [LONGEST, LONGEST, 3]
    assert {"Left out: 2 rows without a text.", "Left out: 1 row without a label.", "Left out: 1 row repeated."} <= set(
        found.notes
    )


def test_no_header(tmp_path):
    (tmp_path / "ag.csv").write_text(
        '"3","Wall St.","Short-sellers are back"\n"4","Atoms","Cells divide in the end"\n' * 2
    )
    found = load_texts(tmp_path / "ag.csv")
    assert found.items[0] == "Short-sellers are back" or len(found) == 2
    assert found.classes == ("3", "4") and "has no row of column names" in " ".join(found.notes)


NUMBERS = [{"text": f"text {i}", "label": i / 3} for i in range(9)]
BAD = {
    "no labels": (
        lambda p: write(p, header=("text", "id"), rows=[(f"t{i}", i) for i in range(9)]),
        "no column of labels",
    ),
    "one class": (lambda p: write(p, rows=[(f"t {i}", "a") for i in range(9)]), "only one class, a;"),
    "no text column": (
        lambda p: write(p, header=("x", "label"), rows=[(i, i % 2) for i in range(9)]),
        "no column of texts",
    ),
    "one column": (lambda p: write(p, header=("text",), rows=[(f"t {i}",) for i in range(9)]), "no column of labels"),
    "measurements": (lambda p: lines(p.with_suffix(".jsonl"), *NUMBERS), "holds measurements such as 0.333333"),
    "empty": (lambda p: p.touch() or p, "holds no rows"),
    "header alone": (lambda p: write(p, rows=[]), "holds no rows"),
    "empty texts": (lambda p: write(p, rows=[("", "a"), (" ", "b")] * 3), "no column of texts"),
    "NUL bytes": (lambda p: p.write_bytes(b"text,label\nab\0c,x\n" * 9) and p, "does not look like text|NUL bytes"),
    "late NUL": (lambda p: p.write_bytes(b"text,label\n" + b"ab,x\n" * 30_000 + b"\0") and p, "NUL bytes"),
    "an image": (lambda p: p.write_bytes(bytes(range(256)) * 40) and p, "does not look like text"),
    "no gzip": (lambda p: write(p.with_suffix(".csv.gz")), "is damaged or incomplete"),
    "half a gzip": (
        lambda p: (
            p.with_suffix(".csv.gz").write_bytes(gzip.compress(os.urandom(9999))[:5000]) and p.with_suffix(".csv.gz")
        ),
        "is damaged or incomplete",
    ),
    "a JSON array": (lambda p: lines(p.with_suffix(".jsonl"), json.dumps(NUMBERS)), "is one JSON array"),
    "a pretty array": (lambda p: lines(p.with_suffix(".jsonl"), "[\n", '{"a": 1},\n', "]"), "is one JSON array"),
    "broken JSON": (
        lambda p: lines(p.with_suffix(".jsonl"), *['{"text": "a"\n'] * 5),
        "Line 1 of .* is no JSON object",
    ),
    "deep JSON": (lambda p: lines(p.with_suffix(".jsonl"), "[" * 10**5 + "\n", *["5\n"] * 5), "JSON"),
    "nested texts": (
        lambda p: lines(p.with_suffix(".jsonl"), *[{"text": {"en": f"t{i}"}, "label": i % 2} for i in range(6)]),
        "no column of texts",
    ),
    "nested labels": (
        lambda p: lines(p.with_suffix(".jsonl"), *[{"text": f"t{i}", "label": [i % 2]} for i in range(6)]),
        "no column of labels",
    ),
    "nothing in common": (lambda p: p.write_text("a,b\n" + "x,y,z\n" * 9) and p, "another number of columns"),
    "a line without end": (lambda p: p.write_bytes(b'text,label\n"' + b"x" * (33 * 2**20)) and p, "cannot be read"),
    "a quote without end": (
        lambda p: p.write_bytes(b'text,label\n"a' + b",x\nb" * (9 * 2**20)) and p,
        "cannot be read",
    ),
    "a list of texts": (lambda p: lines(p.with_suffix(".txt"), "a\nb\n"), "one list of texts without labels"),
    "many columns": (
        lambda p: p.write_text(",".join(f"c{i}" for i in range(300)) + "\n" + "x," * 299 + "x\n") and p,
        "too many",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_table_is_refused_with_a_sentence(what, tmp_path):
    make, words = BAD[what]
    path = make(tmp_path / "bad.csv")
    with pytest.raises(UserError, match=words) as caught:
        load_texts(path)
    assert "bad" in str(caught.value) and str(caught.value).endswith(".")


def test_lines_that_are_no_json_are_left_out_and_counted(tmp_path):
    good = [{"text": text, "label": cls} for text, cls in REVIEWS]
    found = load_texts(lines(tmp_path / "x.jsonl", *good, "{broken\n", "\n", "5\n"))
    assert len(found) == 4 and any("2 lines of x.jsonl (5, 7)" in note for note in found.notes)


def test_a_file_is_read_within_bounds(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "MAX_BYTES", 2**20)
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(b"text,label\n" + b"a,b\n" * 2**20))
    assert "larger than 1 MiB" in refusal(load_texts, tmp_path / "bomb.csv.gz")
    monkeypatch.setattr(rows, "MAX_ROWS", 3)
    assert "more than 3 rows" in refusal(load_texts, write(tmp_path / "x.csv"))


def test_special_files_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    assert "no regular file" in refusal(load_texts, tmp_path / "pipe.csv")
    os.mkfifo(tmp_path / "pipe.zip")
    for load in (load_texts, load_data, lambda path: load_free_texts([path])):
        assert "There is no folder" in refusal(load, tmp_path / "pipe.zip")
    folder = make_text_folder(tmp_path / "news")
    os.mkfifo(folder / "sport" / "pipe.txt")
    (folder / "sport" / "passwd.txt").symlink_to("/etc/passwd")
    found = load_data(folder)
    assert len(found) == 4 and any("neither regular file nor folder" in note for note in found.notes)
    assert any("linked to a file outside" in note for note in found.notes)


def test_ten_thousand_classes(tmp_path):
    found = load_texts(write(tmp_path / "x.csv", rows=[(f"text {i}", f"c{i % 10_000}") for i in range(20_000)]))
    assert len(found.classes) == 10_000 and np.bincount(found.labels).tolist() == [2] * 10_000
