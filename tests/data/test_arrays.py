"""Small images as arrays: npz files, IDX files, folders."""

import gzip

import numpy as np
import pytest
from PIL import Image

from d2nwg.data.arrays import draw, load_arrays
from tests.helpers.refusals import refusal


def _images(count, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def _npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def _idx(path, array):
    head = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    content = head + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def test_an_npz_file_with_a_test_part_is_read_as_it_is(tmp_path):
    x, y = _images(30, 12, 12), np.arange(30) % 3
    path = _npz(tmp_path / "toy.npz", x_train=x, y_train=y, x_test=x[:9], y_test=y[:9], class_names=["a", "b", "c"])
    found = load_arrays(path, size=12)
    assert (found.name, found.classes, found.channels) == ("toy", ("a", "b", "c"), 1)
    assert np.array_equal(found.train[:, 0], x) and np.array_equal(found.train_labels, y)
    assert np.array_equal(found.test[:, 0], x[:9]) and np.array_equal(found.test_labels, y[:9])


def test_without_a_test_part_a_fifth_of_each_class_is_one(tmp_path):
    path = _npz(tmp_path / "toy.npz", x=_images(40, 8, 8, 3), y=np.repeat(["cat", "dog"], 20))
    found = load_arrays(path, size=8)
    assert found.classes == ("cat", "dog") and found.train.shape == (32, 3, 8, 8)
    assert np.bincount(found.test_labels).tolist() == [4, 4]
    assert not {x.tobytes() for x in found.train} & {x.tobytes() for x in found.test}
    again, other = load_arrays(path, size=8), load_arrays(path, size=8, seed=1)
    assert np.array_equal(found.test, again.test) and not np.array_equal(found.test, other.test)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda x: x[:, :, :, None], (1, 8, 8)),
        (lambda x: np.repeat(x[:, None], 3, 1), (3, 8, 8)),
        (lambda x: x.astype(np.float32) / 255, (1, 8, 8)),
        (lambda x: x.astype(np.int64), (1, 8, 8)),
        (lambda x: np.pad(x, ((0, 0), (2, 2), (0, 0))), (1, 8, 8)),
    ],
)
def test_pixels_of_other_types_and_shapes_are_the_same_images(tmp_path, make, shape):
    x = _images(20, 8, 8)
    found = load_arrays(_npz(tmp_path / "toy.npz", x=make(x), y=np.arange(20) % 2), size=8)
    assert found.train.shape[1:] == shape and {i.tobytes() for i in found.train[:, 0]} <= {i.tobytes() for i in x}


def test_images_of_other_sizes_are_resized_from_their_middle(tmp_path):
    x = np.zeros((20, 16, 20), np.uint8)
    x[:, :, 2:18], x[10:, :8] = 200, 100
    found = load_arrays(_npz(tmp_path / "toy.npz", x=x, y=np.arange(20) // 10), size=8)
    first, second = (found.train[found.train_labels == label][0, 0] for label in (0, 1))
    assert first.shape == (8, 8) and (first == 200).all()
    assert (second[:3] == 100).all() and (second[5:] == 200).all()


def test_rows_are_drawn_in_proportion_to_the_classes():
    labels = np.repeat([0, 1, 2], [600, 300, 30])
    train, test = draw(labels, np.zeros(930, bool), rows=300, seed=0)
    assert len(train) == 300 and len(test) == 100 and not set(train) & set(test)
    for part in (train, test):
        shares = np.bincount(labels[part], minlength=3) / len(part)
        assert np.allclose(shares, [0.645, 0.323, 0.032], atol=0.02)


def test_idx_files_are_found_in_their_folder_or_by_name(tmp_path):
    x, y = _images(20, 9, 9), np.arange(20) % 2
    for part, end in (("train", ".gz"), ("t10k", "")):
        _idx(tmp_path / f"train-images-idx3-ubyte{end}".replace("train", part), x)
        _idx(tmp_path / f"train-labels-idx1-ubyte{end}".replace("train", part), y)
    for source in (tmp_path, tmp_path / "train-images-idx3-ubyte.gz"):
        found = load_arrays(source, size=9)
        assert found.classes == ("0", "1") and found.name == tmp_path.name
        assert np.array_equal(found.train[:, 0], x) and np.array_equal(found.test_labels, y)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    assert "no t10k-labels-idx1-ubyte beside" in refusal(load_arrays, tmp_path)


def test_folders_of_images_stay_grey_where_they_are_grey(tmp_path):
    for name, colours in (("grey", [(9, 9, 9), (200, 200, 200)]), ("colour", [(9, 9, 9), (200, 0, 0)])):
        for label, colour in enumerate(colours):
            folder = tmp_path / name / str(label)
            folder.mkdir(parents=True)
            for number in range(6):
                Image.new("RGB", (20, 14), colour).save(folder / f"{number}.png")
    grey, colour = load_arrays(tmp_path / "grey", size=10), load_arrays(tmp_path / "colour", size=10)
    assert grey.train.shape == (10, 1, 10, 10) and colour.train.shape == (10, 3, 10, 10)
    assert (grey.train[grey.train_labels == 1] == 200).all() and len(grey.test) == 2
    assert np.array_equal(grey.coloured().train[:, 2], grey.train[:, 0])
    (tmp_path / "grey" / "0" / "0.png").write_bytes(b"no picture")
    assert any("could not be read" in note for note in load_arrays(tmp_path / "grey", size=10).notes)


X, Y = _images(10, 8, 8), np.arange(10) % 2


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"pixels": X}, "holds no labelled images"),
        ({"x_train": X, "y_train": Y, "x_test": X}, "only one of x_test and y_test"),
        ({"x": X, "y": Y[:5]}, "10 images and 5 labels"),
        ({"x": X[:, 0], "y": Y}, "holds no images"),
        ({"x": X[..., None].repeat(4, -1), "y": Y}, "holds no images"),
        ({"x": X * np.float32(np.nan), "y": Y}, "no pixels"),
        ({"x": X.astype(int) * 300, "y": Y}, "no pixels"),
        ({"x": X.astype("U3"), "y": Y}, "no pixels"),
        ({"x": X, "y": Y * 1.0}, "holds no labels"),
        ({"x": X, "y": Y * 0}, "has 1 class;"),
        ({"x": X, "y": Y.astype(object)}, "Python objects"),
        ({"x": X, "y": Y, "class_names": ["a"]}, "do not fit"),
        ({"x": X, "y": Y, "class_names": ["a", "a"]}, "not all different"),
        ({"x": X, "y": Y, "class_names": np.array([1, 2])}, "do not fit"),
        ({"x_train": X, "y_train": Y, "x_test": X[:, :4], "y_test": Y}, "another shape"),
        ({"x_train": X, "y_train": Y * 0, "x_test": X, "y_test": Y}, "has no image to train with"),
    ],
)
def test_arrays_that_are_no_labelled_images_are_refused(tmp_path, arrays, words):
    assert words in refusal(load_arrays, _npz(tmp_path / "bad.npz", **arrays), size=8)


def test_damaged_and_lying_files_are_refused(tmp_path, monkeypatch):
    path = _npz(tmp_path / "toy.npz", x=X, y=Y)
    content = path.read_bytes()
    for cut in (0, 10, len(content) // 2):
        path.write_bytes(content[:cut])
        assert "cannot be read as arrays" in refusal(load_arrays, path, size=8)
    path.write_bytes(content.replace(b"(10, 8, 8)", b"(99, 8, 8)"))  # more than there is
    assert "cannot be read as arrays" in refusal(load_arrays, path, size=8)
    path.write_bytes(content)
    monkeypatch.setattr("d2nwg.data.array_files.MAX_BYTES", 100)
    assert "which is the limit" in refusal(load_arrays, path, size=8)


def test_damaged_idx_files_are_refused(tmp_path):
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    _idx(labels, Y)
    _idx(images, X)
    content = images.read_bytes()
    huge = content[:4] + np.array([2**31, 2**31, 2**31], ">u4").tobytes()
    for bad in (b"", content[:9], content[:-1], content + b"x", b"\0\0\x0d\3" + content[4:]):
        images.write_bytes(bad)
        assert "no IDX file" in refusal(load_arrays, tmp_path, size=8)
    images.write_bytes(huge)
    assert "which is the limit" in refusal(load_arrays, tmp_path, size=8)
    images.unlink()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(content)[:-9])
    assert "no IDX file" in refusal(load_arrays, tmp_path, size=8)
    _idx(tmp_path / "letters-train-images-idx3-ubyte", X)
    assert "several sets" in refusal(load_arrays, tmp_path, size=8)
