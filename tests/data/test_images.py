import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d2nwg.data.image_set import ImageSet
from d2nwg.data.images import load_files, load_folder, load_images
from d2nwg.data.labelled import check_readable
from d2nwg.data.split import candidates, split_support_query
from tests.helpers.images import make_image_folder
from tests.helpers.refusals import refusal


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def fake_set(sizes: dict[str, int], tests: dict[str, int] | None = None) -> ImageSet:
    """Images that are only names."""
    classes = tuple(sorted(sizes))
    rows = [(c, k, False) for c in classes for k in range(sizes[c])]
    rows += [(c, k, True) for c in classes for k in range((tests or {}).get(c, 0))]
    return ImageSet(
        "fake",
        classes,
        [Path(f"{c}/{k}.png") for c, k, _ in rows],
        np.array([classes.index(c) for c, _, _ in rows]),
        np.array([t for _, _, t in rows]),
    )


# ---------------------------------------- folders


def test_folder_of_class_folders(image_folder):
    images = load_images(image_folder)
    assert images.name == "colours" and images.classes == ("blue", "green", "red") and len(images) == 24
    assert images.labels.dtype == np.int64 and np.bincount(images.labels).tolist() == [8, 8, 8]
    assert not images.is_test.any() and images.notes == ()


def test_train_and_test_folders(tmp_path):
    touch(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/2.png", "test/a/3.png", "extra/c/1.png")
    images = load_images(str(tmp_path))
    assert images.classes == ("a", "b") and images.is_test.tolist() == [False, False, True, True]
    notes = " ".join(images.notes)
    assert "extra" in notes and "No test images for b" in notes


@pytest.mark.parametrize("name", ["valid", "val", "Validation", "TEST"])
def test_other_names_of_a_test_folder(tmp_path, name):
    images = load_images(touch(tmp_path, "Train/a/1.png", "Train/b/1.png", f"{name}/a/2.png", f"{name}/b/2.png"))
    assert images.is_test.sum() == 2


def test_classes_may_be_called_train_and_test(tmp_path):
    images = load_images(touch(tmp_path, "train/1.png", "test/1.png", "bus/1.png"))
    assert images.classes == ("bus", "test", "train") and not images.is_test.any()


def test_a_test_class_that_training_lacks(tmp_path):
    touch(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/2.png", "test/zebra/2.png")
    assert "zebra" in refusal(load_images, tmp_path)


@pytest.mark.parametrize("top", ["photos", "photos/inner"])
def test_a_single_top_folder_is_entered(tmp_path, top):
    images = load_images(touch(tmp_path, f"{top}/a/1.png", f"{top}/b/1.png", "__MACOSX/top/a/._1.png", ".x.png"))
    assert images.classes == ("a", "b") and len(images) == 2


def test_a_single_top_folder_with_splits(tmp_path):
    images = load_images(touch(tmp_path, "top/train/a/1.png", "top/train/b/1.png", "top/test/a/1.png"))
    assert images.is_test.sum() == 1


def test_images_at_any_depth_of_a_class(tmp_path):
    assert len(load_images(touch(tmp_path, "a/images/1.JPEG", "a/2.jpg", "b/x/y/1.webp"))) == 3


def test_what_is_not_an_image_is_left_out_and_counted(tmp_path):
    touch(tmp_path, "a/1.png", "a/n.txt", "a/.hidden.png", "a/Thumbs.db", "b/1.png", "empty/x.csv", "loose.png")
    images = load_images(tmp_path)
    assert images.classes == ("a", "b") and len(images) == 2
    notes = " ".join(images.notes)
    assert "2 files" in notes and "empty" in notes and "loose.png" in notes


def test_no_images(tmp_path):
    assert tmp_path.name in refusal(load_images, tmp_path)
    assert "no images" in refusal(load_images, touch(tmp_path, "a/readme.txt", "b/readme.txt"))


def test_loose_images_without_class_folders(tmp_path):
    assert "folder of its own" in refusal(load_images, touch(tmp_path, "1.png", "2.png"))


def test_one_class_only(tmp_path):
    assert "only one class, cats" in refusal(load_images, touch(tmp_path, "cats/1.png", "cats/2.png"))


def test_nothing_there(tmp_path):
    assert "nowhere.zip" in refusal(load_images, tmp_path / "nowhere.zip")
    assert "nowhere.zip" in refusal(load_images, "nowhere.zip")
    assert "single image" in refusal(load_images, touch(tmp_path, "one.png") / "one.png")


@pytest.mark.parametrize("pair", [("Cat", "cat"), ("café", "cafe\u0301"), ("dog", "dog ")])
def test_class_folders_that_collide(tmp_path, pair):
    touch(tmp_path, f"{pair[0]}/1.png", f"{pair[1]}/1.png", "x/1.png")
    if len(list(tmp_path.iterdir())) < 3:
        pytest.skip("this file system merges them")
    text = refusal(load_images, tmp_path)
    assert pair[0].lower()[:3] in text.lower() and "same name" in text


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes only on Linux")
def test_names_on_disk_that_are_not_utf8(tmp_path):
    touch(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "a" / os.fsdecode(b"bad\xff.png")).touch()
    images = load_images(tmp_path)
    assert len(images) == 2 and "not UTF-8" in images.notes[0]
    touch(tmp_path, os.fsdecode(b"caf\xe9/1.png"))
    text = refusal(load_images, tmp_path)
    assert "not UTF-8" in text and "caf" in text


def test_accents_are_stored_one_way(tmp_path):
    assert load_images(touch(tmp_path, "cafe\u0301/1.png", "tea/1.png")).classes == ("café", "tea")


def test_links_to_folders_do_not_loop(tmp_path):
    touch(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert len(load_images(tmp_path)) == 2


def test_files_are_listed_without_being_opened(tmp_path, monkeypatch):
    touch(tmp_path, *(f"c{c}/{i}.jpg" for c in range(4) for i in range(200)))
    looked_up, stat = [], os.stat
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("an image was opened"))
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("a file was read"))
    monkeypatch.setattr(os, "stat", lambda path, *_, **__: looked_up.append(path) or stat(path, *_, **__))
    assert len(load_images(tmp_path)) == 800
    assert len(looked_up) < 50, "one system call a folder, not one a file"


# ---------------------------------------- loose files


def test_classes_from_file_names():
    names = ["cat_01.jpg", "cat (2).png", "Cat-3.jpg", "dog.png", "dog 2.webp", "red panda_7.jpg", "red panda.jpg"]
    images = load_files([Path(name) for name in names])
    assert images.classes == ("Cat", "dog", "red panda")  # capitals do not part a class
    assert np.bincount(images.labels).tolist() == [3, 2, 2] and "file names" in images.notes[0]


def test_loose_files_that_cannot_be_used(tmp_path):
    assert "0017.jpg" in refusal(load_files, [Path("cat_1.jpg"), Path("0017.jpg")])
    assert "Several archives" in refusal(load_files, [Path("a.zip"), Path("b.zip")])
    assert "b.zip" in refusal(load_files, [Path("cat_1.jpg"), Path("b.zip")])
    assert "only one class" in refusal(load_files, [Path("cat_1.jpg")])
    assert "No files" in refusal(load_files, [])
    assert "no labelled images" in refusal(load_files, [Path(".a"), Path(".b")])
    assert "notes.txt" in refusal(load_files, [touch(tmp_path, "notes.txt") / "notes.txt"])


def test_one_dropped_folder(image_folder):
    assert len(load_files([image_folder])) == 24


# ---------------------------------------- splitting


def test_support_comes_in_class_order_and_query_is_the_rest():
    images = fake_set({"a": 10, "b": 7, "c": 6})
    support, query = split_support_query(images, 5, seed=0)
    assert images.labels[support].tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert sorted([*support, *query]) == list(range(23))


def test_a_class_with_too_few_images():
    images = fake_set({"cat": 10, "rare": 5})
    text = refusal(split_support_query, images, 5, seed=0)
    assert "rare" in text and "5 images" in text and "6 are needed" in text
    assert "rare" in refusal(candidates, images, 5, seed=0)
    split_support_query(images, 4, seed=0)


def test_with_a_test_split_shots_are_enough():
    images = fake_set({"a": 5, "b": 5}, {"a": 3, "b": 2})
    support, query = split_support_query(images, 5, seed=0)
    assert not images.is_test[support].any() and images.is_test[query].all() and len(query) == 5
    assert "5 training images but 6 are needed" in refusal(split_support_query, images, 6, seed=0)


def test_shots_and_query_must_be_positive():
    refusal(split_support_query, fake_set({"a": 3, "b": 3}), 0, seed=0)
    refusal(split_support_query, fake_set({"a": 3, "b": 3}), 1, seed=0, max_query=0)


def test_the_query_is_capped_class_by_class():
    images = fake_set({"a": 105, "b": 55, "c": 8, "d": 205})
    _, query = split_support_query(images, 5, seed=1, max_query=40)
    counts = np.bincount(images.labels[query], minlength=4)
    assert counts.sum() == 40 and counts[2] >= 1 and 10 <= counts[0] <= 12 and 20 <= counts[3] <= 23
    assert len(split_support_query(images, 5, seed=1, max_query=None)[1]) == 373 - 20
    many = fake_set({f"c{i:03}": 3 for i in range(100)})
    assert len(split_support_query(many, 1, seed=0, max_query=10)[1]) == 100  # at least one a class


def test_the_split_depends_on_seed_and_names_only(tmp_path):
    names = [f"{c}/{i}.png" for c in "abc" for i in range(9)]

    def chosen(root, seed):
        images = load_images(touch(tmp_path / root, *(names if root == "one" else names[::-1])))
        return [
            {str(Path(images.items[i]).relative_to(tmp_path / root)) for i in part}
            for part in split_support_query(images, 3, seed=seed, max_query=10)
        ]

    assert chosen("one", 0) == chosen("two", 0)
    assert chosen("one", 0) != chosen("one", 1)


def test_the_order_of_scandir_does_not_matter(tmp_path, monkeypatch):
    make_image_folder(tmp_path / "x", per_class=9)
    before = load_images(tmp_path / "x")
    scandir = os.scandir

    class Reversed:
        def __init__(self, path):
            with scandir(path) as entries:
                self.entries = list(entries)[::-1]

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    assert load_folder(tmp_path / "x").items == before.items


def test_renaming_the_classes_order_keeps_the_images():
    """The images of a class do not change when another class joins."""
    two, three = fake_set({"b": 9, "c": 9}), fake_set({"a": 9, "b": 9, "c": 9})
    first = {two.items[i] for i in split_support_query(two, 3, seed=5)[0]}
    assert first <= {three.items[i] for i in split_support_query(three, 3, seed=5)[0]}


@pytest.mark.parametrize("tests", [None, {"a": 60, "b": 30, "c": 9}])
def test_candidates_are_all_that_the_split_needs(tests):
    images = fake_set({"a": 200, "b": 40, "c": 12}, tests)
    arguments = dict(seed=3, max_query=50)
    wanted = candidates(images, 5, **arguments)
    assert len(wanted) <= 5 * 3 + 50 + 2 * 3 and sorted(set(wanted)) == wanted.tolist()
    seen = np.zeros(len(images), bool)
    seen[wanted] = True
    for mask in (seen, np.ones(len(images), bool), None):  # the same whatever else was encoded
        support, query = split_support_query(images, 5, readable=mask, **arguments)
        np.testing.assert_array_equal(support, split_support_query(images, 5, **arguments)[0])
        np.testing.assert_array_equal(query, split_support_query(images, 5, **arguments)[1])


@pytest.mark.parametrize("tests", [None, {"a": 20, "b": 20}])
@pytest.mark.parametrize("bad_share", [0.05, 0.3, 0.6])
def test_unreadable_images_are_replaced(tests, bad_share):
    rng = np.random.default_rng(0)
    for seed in range(20):
        images = fake_set({"a": 60, "b": 60}, tests)
        good = rng.random(len(images)) > bad_share
        looked, unreadable = np.zeros(len(images), bool), np.zeros(len(images), bool)
        while True:  # what a caller does
            new = candidates(images, 5, seed=seed, max_query=20, unreadable=unreadable)
            if looked[new].all():
                break
            looked[new] = True
            unreadable = looked & ~good
        support, query = split_support_query(images, 5, seed=seed, readable=looked & good, max_query=20)
        assert good[support].all() and good[query].all() and not set(support) & set(query)
        assert np.bincount(images.labels[support]).tolist() == [5, 5]
        if bad_share < 0.5:
            assert len(query) >= 18 if tests is None else len(query) > 8


def test_one_round_survives_a_few_unreadable_images():
    images = fake_set({"a": 30, "b": 30}, {"a": 5, "b": 5})
    wanted = candidates(images, 5, seed=0)
    readable = np.zeros(len(images), bool)
    readable[wanted] = True
    readable[[i for i in wanted if images.labels[i] == 0 and not images.is_test[i]][:2]] = False
    assert len(split_support_query(images, 5, seed=0, readable=readable)[0]) == 10


def test_a_class_with_too_few_readable_images():
    images = fake_set({"a": 20, "spoilt": 20})
    readable = np.ones(len(images), bool)
    readable[20:35] = False
    text = refusal(split_support_query, images, 5, seed=0, readable=readable)
    assert "spoilt" in text and "5 readable images" in text


def test_no_readable_test_image():
    images = fake_set({"a": 5, "b": 5}, {"a": 3, "b": 3})
    assert "no readable test image" in refusal(split_support_query, images, 5, seed=0, readable=~images.is_test)


def test_unreadable_images_are_counted_or_refused():
    images = fake_set({"a": 10, "b": 10})
    looked, readable = np.arange(10), np.zeros(20, bool)
    readable[:10] = True
    assert check_readable(images, looked, readable) == ()
    readable[3] = False
    (note,) = check_readable(images, looked, readable)
    assert "1 image of 10" in note and "a/3.png" in note
    readable[:5] = False
    (note,) = check_readable(images, looked, readable)
    assert "5 images of 10" in note and "and 2 more" in note
    readable[:6] = False
    text = refusal(check_readable, images, looked, readable)
    assert "6 of 10" in text and "a/0.png" in text and "and 3 more" in text
