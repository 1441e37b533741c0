"""Predictions for many items: what is read, in which order, and the table."""

import csv
import shutil

import numpy as np
import pytest
import torch

from d2nwg import cli
from d2nwg.heads import Head
from d2nwg.predictions import Predictions, predict_many
from d2nwg.utils.errors import UserError

CLASSES = ("blue", "green", "red")


@pytest.fixture
def head(monkeypatch, cheap_encoder):
    """A head that says red to everything."""
    monkeypatch.setattr("d2nwg.encoders.open.load_encoder", lambda name, device=None: cheap_encoder)
    d = cheap_encoder.num_features
    return Head(
        {"weight": torch.zeros(3, d), "bias": torch.tensor([0.0, 0, 1])},
        cheap_encoder.name,
        CLASSES,
        cheap_encoder.preprocessing,
    )


def test_wrong_ones_come_first_and_then_the_doubtful():
    chances = np.array([[0.9, 0.1], [0.4, 0.6], [0.55, 0.45], [0.2, 0.8]], np.float32)
    found = Predictions(tuple("abcd"), tuple("abcd"), ("no", "yes"), chances, np.array([0, 0, -1, 0]))
    assert found.predicted.tolist() == [0, 1, 0, 1] and found.wrong.tolist() == [False, True, False, True]
    assert [found.names[i] for i in found.order()] == ["b", "d", "c", "a"]
    assert found.accuracy == pytest.approx(1 / 3), "of the three whose class is known"


def test_folders_archives_and_files(head, image_folder, tmp_path):
    """Every image is found, and the class of one in a folder named as a class is known."""
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", image_folder)
    loose = tmp_path / "loose.png"
    shutil.copy(image_folder / "red" / "00.png", loose)
    (image_folder / "red" / "cut.png").write_bytes(b"\x89PNG")
    count = len(list(image_folder.rglob("*.png")))
    found = predict_many(head, [image_folder, archive, loose])
    assert len(found.names) == 2 * (count - 1) + 1
    assert found.truth[-1] == -1 and (found.truth[:-1] >= 0).all()
    assert [note for note in found.notes if "red/cut.png" in note and "1 image" in note]
    assert found.accuracy == pytest.approx(1 / 3), "it says red to all"


def test_the_table(head, image_folder, tmp_path):
    found = predict_many(head, [image_folder])
    rows = list(csv.reader(found.save(tmp_path / "table.csv").open(newline="")))
    assert rows[0] == ["item", "predicted", "probability", "true", "right", *CLASSES] and len(rows) == 25
    for row in rows[1:]:
        assert row[0].startswith(row[3]) and row[1] == "red" and row[4] == ("yes" if row[3] == "red" else "no")
        assert float(row[2]) == float(row[7]) and sum(map(float, row[5:])) == pytest.approx(1, abs=2e-4)


def test_nothing_to_read(head, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="hold no images"):
        predict_many(head, [tmp_path / "empty"])
    (tmp_path / "empty" / "a.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="None of these can be read: empty/a.png"):
        predict_many(head, [tmp_path / "empty"])


def test_the_command_line(head, image_folder, tmp_path, capsys):
    file, out = head.save(tmp_path / "head.safetensors"), tmp_path / "table.csv"
    assert cli.main(["predict", str(file), str(image_folder), "--csv", str(out)]) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 24 and said.out.splitlines()[0].startswith("blue/00.png\tred\t")
    assert "Right on 33.3% of the 24 images in folders named as a class." in said.err
    assert len(out.read_text().splitlines()) == 25
    assert cli.main(["predict", str(file), str(image_folder), "--csv", str(out)]) == 2, "nothing is overwritten"
    assert "exists already" in capsys.readouterr().err
