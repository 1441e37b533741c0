"""Array files wherever images are taken."""

import numpy as np
import pytest

from d2nwg.data.arrays import load_arrays
from d2nwg.data.decode import open_image
from d2nwg.data.images import load_files, load_images
from d2nwg.data.sources import load_data
from d2nwg.data.text_set import TextSet
from d2nwg.utils.errors import UserError


def idx(path, array) -> None:
    path.write_bytes(
        bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()
    )


@pytest.mark.parametrize("shape", [(9, 9), (9, 9, 3)])
def test_an_array_file_is_a_set_of_images(shape, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(256, size=(24, *shape), dtype=np.uint8), np.arange(24) % 12
    names = [f"kind {i}" for i in range(12)]
    np.savez(tmp_path / "toy.npz", x_train=x[:12], y_train=y[:12], x_test=x[12:], y_test=y[12:], class_names=names)
    data = load_data(tmp_path / "toy.npz")
    assert (data.name, data.noun, len(data)) == ("toy", "image", 24) and data.classes == tuple(names)
    assert data.is_test.tolist() == [False] * 12 + [True] * 12 and not data.scale()
    for number in (0, 23):
        picture = np.asarray(open_image(data.items[number]))
        assert np.array_equal(picture, x[number] if len(shape) == 3 else np.repeat(x[number, ..., None], 3, 2))
    one, other = load_arrays(data, size=9), load_arrays(tmp_path / "toy.npz", size=9)
    assert np.array_equal(one.test, other.test) and one.channels == (1 if len(shape) == 2 else 3)
    assert np.array_equal(one.test[:, 0], x[one.test_index].reshape(12, 9, 9, -1)[..., 0])


def test_the_numbers_of_test_images_are_those_of_the_set(tmp_path):
    from tests.helpers.images import make_image_folder

    data = load_images(make_image_folder(tmp_path / "data", ("0", "1"), 10))
    (tmp_path / "data" / "0").joinpath(data.items[3].name).write_bytes(b"no picture")
    found = load_arrays(data, size=8)
    assert found.test_labels.tolist() == data.labels[found.test_index].tolist() and len(found.test_index) >= 3
    for pixels, number in zip(found.test, found.test_index, strict=True):
        expected = np.asarray(open_image(data.items[number]).resize((8, 8))).transpose(2, 0, 1)
        assert np.abs(expected[: len(pixels)].astype(int) - pixels).mean() < 20


def test_files_of_an_idx_set_come_one_by_one(tmp_path):
    x, y = np.random.default_rng(0).integers(256, size=(10, 5, 5), dtype=np.uint8), (np.arange(10) % 2).astype(np.uint8)
    files = []
    for name, array in (("images-idx3", x), ("labels-idx1", y)):
        (tmp_path / name).mkdir()
        files.append(tmp_path / name / f"train-{name}-ubyte")
        idx(files[-1], array)
    data = load_files(files, into=tmp_path / "into")
    assert len(data) == 10 and data.classes == ("0", "1")
    with pytest.raises(UserError, match="its labels are missing"):
        load_files(files[:1], into=tmp_path / "into")


def test_arrays_that_do_not_fit_into_memory_are_refused(tmp_path, monkeypatch):
    np.savez(tmp_path / "big.npz", x=np.zeros((10, 100, 100), np.uint8), y=np.arange(10) % 2)
    idx(tmp_path / "train-images-idx3-ubyte", np.zeros((10, 100, 100), np.uint8))
    idx(tmp_path / "train-labels-idx1-ubyte", (np.arange(10) % 2).astype(np.uint8))
    monkeypatch.setattr("d2nwg.utils.limits.free_memory", lambda device: 150_000)
    for name in ("big.npz", "train-images-idx3-ubyte"):
        with pytest.raises(UserError, match=f"Reading {name} needs 1 MB of memory, and 1 MB are free: give fewer"):
            load_images(tmp_path / name)


def test_texts_are_no_arrays():
    with pytest.raises(UserError, match="holds texts, and images are needed"):
        load_arrays(TextSet("words", ("a", "b"), ["x", "y"], np.array([0, 1]), np.zeros(2, bool)))
