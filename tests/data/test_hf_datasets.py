import io
from pathlib import Path

import pytest
from PIL import Image

from d2nwg.data import hf_datasets
from d2nwg.data.columns import Columns
from d2nwg.data.decode import open_image
from d2nwg.data.images import load_images
from d2nwg.data.sources import load_data
from d2nwg.data.split import split_support_query
from tests.helpers.refusals import refusal

datasets = pytest.importorskip("datasets")


def pixels(colour: str, size: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, "PNG")
    return buffer.getvalue()


def table(labels, *, image="image", label="label", kind=None, **columns) -> "datasets.Dataset":
    """A data set of one plain picture a label."""
    texts = dict.fromkeys(columns, datasets.Value("string"))
    kind = kind or datasets.ClassLabel(names=["cat", "dog"])
    features = datasets.Features({image: datasets.Image(), label: kind, **texts})
    rows = [{"bytes": pixels("red" if k in (0, "cat") else "blue"), "path": None} for k in labels]
    return datasets.Dataset.from_dict({image: rows, label: list(labels), **columns}, features=features)


def test_a_saved_data_set_with_splits(tmp_path):
    saved = datasets.DatasetDict(train=table([0, 1, 0, 1]), validation=table([0]), test=table([1, 0]))
    saved.save_to_disk(tmp_path / "pets")
    images = load_images(tmp_path / "pets")
    assert images.name == "pets" and images.classes == ("cat", "dog")
    assert images.labels.tolist() == [0, 1, 0, 1, 1, 0] and images.is_test.tolist() == [False] * 4 + [True] * 2
    assert isinstance(images.items[0], bytes)
    assert [open_image(item).getpixel((0, 0)) for item in images.items][4:] == [(0, 0, 255), (255, 0, 0)]
    support, query = split_support_query(images, 1, seed=0)
    assert open_image(images.items[support[0]]).size == (8, 8) and len(query) == 2


def test_a_saved_single_split_with_text_labels(tmp_path):
    table(
        ["dog", "cat", "cat"], image="photo", label="category", kind=datasets.Value("string"), caption=["x", "y", "z"]
    ).save_to_disk(tmp_path / "pets")
    images = load_images(tmp_path / "pets")
    assert images.classes == ("cat", "dog") and images.labels.tolist() == [1, 0, 0] and not images.is_test.any()
    assert "photo" in images.notes[0] and "category" in images.notes[0]


@pytest.mark.parametrize("folder", ["", "data", "plain_text"])
def test_a_folder_of_parquet_files(tmp_path, monkeypatch, folder):
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "pets"
    (root / folder).mkdir(parents=True)
    table([0, 1, 1]).to_parquet(root / folder / "train-00000-of-00001.parquet")
    table([0, 1]).to_parquet(root / folder / "test-00000-of-00001.parquet")
    images = load_images(root)
    assert images.classes == ("cat", "dog") and images.is_test.sum() == 2
    assert open_image(images.items[4]).getpixel((0, 0)) == (0, 0, 255)


def plain_parquet(folder: Path, images: list, **columns) -> Path:
    """Parquet as other tools write it: no Hugging Face features, images as {bytes, path}."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    pq.write_table(pa.table({"img": pa.array(images, kind), **columns}), folder / "x.parquet")
    return folder


def test_parquet_without_hugging_face_features(tmp_path, monkeypatch):
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path / "cache"))
    rows = [{"bytes": pixels("red"), "path": "1.png"}, {"bytes": pixels("blue"), "path": None}]
    images = load_images(plain_parquet(tmp_path / "plain", rows, target=[7, 3]))
    assert images.classes == ("3", "7") and open_image(images.items[0]).getpixel((0, 0)) == (255, 0, 0)


def test_rows_are_read_lazily(tmp_path, monkeypatch):
    table([0, 1] * 50).save_to_disk(tmp_path / "pets")
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("an image was opened"))
    monkeypatch.setattr(hf_datasets._Rows, "__getitem__", lambda *_: pytest.fail("an image was read"))
    assert len(load_images(tmp_path / "pets").items) == 100


def test_rows_without_labels_are_left_out(tmp_path):
    datasets.DatasetDict(train=table([0, 1, None]), test=table([-1, -1]), validation=table([1])).save_to_disk(
        tmp_path / "pets"
    )
    images = load_images(tmp_path / "pets")
    assert images.labels.tolist() == [0, 1, 1] and images.is_test.tolist() == [False, False, True]
    notes = " ".join(images.notes)
    assert "1 row of train" in notes and "2 rows of test" in notes


def test_a_test_class_that_training_lacks(tmp_path):
    datasets.DatasetDict(
        train=table(["cat", "dog"], kind=datasets.Value("string")), test=table(["emu"], kind=datasets.Value("string"))
    ).save_to_disk(tmp_path / "pets")
    assert "emu" in refusal(load_images, tmp_path / "pets")


def test_images_that_lead_outside_are_not_read(tmp_path, monkeypatch):
    """A data set may name any path; only files of the data set itself are opened."""
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "pets"
    secret, own = tmp_path / "secret.png", root / "own.png"
    secret.write_bytes(pixels("red"))
    rows = [{"bytes": None, "path": str(path)} for path in (secret, own, root / ".." / "secret.png")]
    images = load_images(plain_parquet(root, [*rows, None], label=["a", "b", "b", "b"]))
    assert list(images.items) == [b"", own.resolve(), b"", b""]
    assert "cannot be read" in refusal(open_image, images.items[0])


def test_missing_columns(tmp_path):
    datasets.Dataset.from_dict({"text": ["x", "y"], "label": ["a", "b"]}).save_to_disk(tmp_path / "texts")
    assert "holds texts, and images are needed here" in refusal(load_images, tmp_path / "texts")
    datasets.Dataset.from_dict({"text": [["x"]], "label": [[1]]}).save_to_disk(tmp_path / "lists")
    assert "neither images nor texts" in refusal(load_images, tmp_path / "lists")
    table(["x", "y"], label="caption", kind=datasets.Value("string")).save_to_disk(tmp_path / "captions")
    assert "no label column" in refusal(load_images, tmp_path / "captions")
    table([0, 0]).save_to_disk(tmp_path / "cats")
    assert "only one class, cat" in refusal(load_images, tmp_path / "cats")
    table([-1, None]).save_to_disk(tmp_path / "hidden")
    assert "no labelled images" in refusal(load_images, tmp_path / "hidden")


def test_texts_and_pairs_of_texts(tmp_path):
    names = datasets.Features(
        text=datasets.Value("string"), label=datasets.ClassLabel(names=["bad", "good"]), note=datasets.Value("int64")
    )
    train = datasets.Dataset.from_dict(
        {"text": ["one", "two", None, "four"], "label": [0, 1, 1, -1], "note": [1, 2, 3, 4]}, features=names
    )
    test = datasets.Dataset.from_dict({"text": ["five"], "label": [1], "note": [5]}, features=names)
    datasets.DatasetDict(train=train, test=test).save_to_disk(tmp_path / "reviews")
    found = load_data(tmp_path / "reviews")
    assert list(found.items) == ["one", "two", "", "five"] and found.is_test.tolist() == [False] * 3 + [True]
    assert found.classes == ("bad", "good") and found.labels.tolist() == [0, 1, 1, 1] and found.noun == "text"
    assert any("Columns used: text and label" in note for note in found.notes)
    train.save_to_disk(tmp_path / "one")
    assert load_data(tmp_path / "one", columns=Columns(("text",), "note")).classes == ("1", "2", "3", "4")
    twos = {"premise": ["a", "b"], "hypothesis": ["c", "d"], "label": ["x", "y"]}
    datasets.Dataset.from_dict(twos).save_to_disk(tmp_path / "pairs")
    assert list(load_data(tmp_path / "pairs").items) == [("a", "c"), ("b", "d")]
    measured = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [2.6, 3.0]}
    datasets.Dataset.from_dict(measured).save_to_disk(tmp_path / "stsb")
    assert "holds measurements such as 2.6" in refusal(load_data, tmp_path / "stsb")


def test_the_label_column_with_the_usual_name_wins(tmp_path):
    data = table([0, 1]).add_column("split_id", [0, 0])
    data = data.cast_column("split_id", datasets.ClassLabel(names=["x", "y"]))
    data.select_columns(["split_id", "label", "image"]).save_to_disk(tmp_path / "pets")
    assert load_images(tmp_path / "pets").classes == ("cat", "dog")


def test_a_damaged_data_set(tmp_path):
    table([0, 1]).save_to_disk(tmp_path / "pets")
    next((tmp_path / "pets").glob("*.arrow")).write_bytes(b"junk")
    assert "pets" in refusal(load_images, tmp_path / "pets")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.parquet").write_bytes(b"junk")
    assert "broken" in refusal(load_images, tmp_path / "broken")


# ---------------------------------------- the Hub


def test_names():
    assert all(map(hf_datasets.is_hub_name, ["mnist", "ylecun/mnist", "org/na-me_1.0", "org/name@config"]))
    assert not any(map(hf_datasets.is_hub_name, ["/etc", "../x", "./x", "a/b/c", "a b", "", "x.zip", "x.tar.gz", "a/"]))


def test_offline_is_one_sentence():
    assert "ylecun/never-downloaded" in refusal(load_images, "ylecun/never-downloaded")


def test_a_loader_of_datasets_is_not_a_data_set(image_folder, monkeypatch):
    """`datasets` would read every fitting file of the current folder."""
    monkeypatch.chdir(image_folder)
    for name in ("imagefolder", "json"):
        assert "not the name" in refusal(load_images, name)


def test_an_unreachable_hub_is_asked_once(monkeypatch):
    """Without HF_HUB_OFFLINE; `datasets` alone would try for half a minute."""
    from huggingface_hub import HfApi, constants

    class Nobody(HfApi):
        def __init__(self):
            super().__init__(endpoint="http://127.0.0.1:9")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi", Nobody)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: pytest.fail("asked again"))
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_: pytest.fail("asked again"))
    text = refusal(load_images, "ylecun/mnist")
    assert "cannot be reached" in text and "ylecun/mnist" in text


@pytest.fixture
def reachable(monkeypatch):
    """A Hub that knows every name and costs nothing to ask."""
    monkeypatch.setattr(hf_datasets, "_check_hub", lambda repo: None)

    class Builder:
        class info:
            download_size = 1000

    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_: Builder)
    return Builder


def test_a_hub_data_set(monkeypatch, reachable):
    asked = []
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda *a: (
            asked.append(a)
            or datasets.DatasetDict(
                train=table([0, 1], image="img", label="fine_label"), test=table([1], image="img", label="fine_label")
            )
        ),
    )
    images = load_images("org/pets@small")
    assert asked == [("org/pets", "small")] and images.name == "org/pets@small"
    assert images.labels.tolist() == [0, 1, 1] and images.is_test.tolist() == [False, False, True]


def test_a_hub_data_set_with_parts_or_of_another_kind(monkeypatch, reachable):
    def fail(error):
        def load(*_):
            raise error

        monkeypatch.setattr(datasets, "load_dataset_builder", load)
        return refusal(load_images, "org/pets")

    assert "'a', 'b'" in fail(ValueError("Config name is missing.\nPlease pick one among: ['a', 'b']\nExample:\n"))
    assert "cannot be loaded" in fail(RuntimeError("Dataset scripts are no longer supported"))
    assert "cannot be reached" in fail(ConnectionError("Couldn't reach 'org/pets' on the Hub"))


def test_a_hub_data_set_that_is_too_large(reachable):
    reachable.info.download_size = 10**12
    assert "GiB to download" in refusal(load_images, "org/huge")


def test_a_name_the_hub_does_not_know(monkeypatch):
    import httpx
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError

    def missing(*_, **__):
        raise RepositoryNotFoundError(
            "401 Client Error.", response=httpx.Response(404, request=httpx.Request("GET", "https://huggingface.co"))
        )

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(HfApi, "dataset_info", missing)
    assert "no folder, archive or Hub data set named org/typo" in refusal(load_images, "org/typo")


def test_a_local_folder_is_never_loaded_through_the_hub(tmp_path, monkeypatch):
    (tmp_path / "org" / "pets").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert "./org/pets" in refusal(hf_datasets.load_hub, "org/pets")
    assert "not the name" in refusal(hf_datasets.load_hub, str(Path("/etc")))
