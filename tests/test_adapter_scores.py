"""Adapters on labelled texts: labels are matched, baselines stand beside, and what does not fit is refused."""

import csv
import json

import numpy as np
import pytest
import torch

from d2nwg.adapter_scores import FREQUENT, GENERATED, LOOK_UP, WITHOUT, compare, evaluate_adapter, targets_of, words
from d2nwg.adapters import Adapter, predict_texts
from d2nwg.cli import main
from d2nwg.data.labelled import labelled_set
from d2nwg.data.text_set import TextSet
from d2nwg.from_description import generate_from_description
from d2nwg.utils.errors import UserError
from tests.helpers.text_tasks import DESCRIBED, opinions


@pytest.fixture(scope="module")
def tone(described):
    """The adapter of a known task."""
    return generate_from_description(DESCRIBED["tone"][0], bundle=described[0] / "bundles" / "adapters", num_samples=2)


def texts(labels=("no", "yes"), number=60, pairs=False) -> TextSet:
    rows = opinions(number, 7)
    items = [(row["text"], "a film") if pairs else row["text"] for row in rows]
    return labelled_set(TextSet, "mine", items, [labels[row["label"]] for row in rows], [False] * number, ())


def test_an_adapter_is_scored_beside_what_one_would_have_without_it(tone):
    data = texts()
    found = compare(tone, data)
    assert set(found.scores) == {GENERATED, LOOK_UP, WITHOUT, FREQUENT}
    assert found.scores[GENERATED] > 0.9 and found.scores[LOOK_UP] > 0.9 and found.scores[WITHOUT] < 0.9
    assert found.scores[FREQUENT] == pytest.approx(max(np.bincount(data.labels)) / 60)
    assert all(low <= found.scores[name] <= high for name, (low, high) in found.intervals.items())
    assert found.confusion.sum() == 60 and found.said.shape == (60, 2)
    said = words(found, "tone")
    assert f"{found.scores[GENERATED]:.1%} of 60 texts" in said and "adapter of tone" in said
    alone = evaluate_adapter(tone.adapter, data)
    assert (
        alone["accuracy"] == pytest.approx(found.scores[GENERATED]) and alone["confusion"] == found.confusion.tolist()
    )


def test_labels_are_matched(tone):
    adapter, data = tone.adapter, texts()
    plain = targets_of(adapter, data)
    assert [adapter.classes[i] for i in plain.values] == [data.classes[i] for i in data.labels]
    shouted = targets_of(adapter, texts(("NO", "Yes")))
    numbers = targets_of(adapter, texts(("0", "1")))
    assert (shouted.values == plain.values).all() and (numbers.values == plain.values).all()
    assert "0 as no, 1 as yes" in numbers.notes[-1] and not shouted.notes
    few = targets_of(adapter, data, most=10)
    assert len(few.texts) == 10 and "10 of 60 texts" in few.notes[0]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (texts(("no", "perhaps")), "does not know .perhaps.: its own are no, yes"),
        (texts(("1", "2")), "does not know"),
        (texts(pairs=True), "holds pairs, and this adapter reads single texts"),
    ],
)
def test_what_does_not_fit_is_refused(tone, data, why):
    with pytest.raises(UserError, match=why):
        targets_of(tone.adapter, data)


def test_values(tone):
    adapter = Adapter(
        tone.adapter.state, {"weight": torch.randn(1, 16), "bias": torch.zeros(1)}, tone.adapter.shape, (), True
    )
    data = texts(("0.5", "3"), pairs=True)
    found = targets_of(adapter, data)
    assert found.values.dtype == np.float32 and set(found.values) == {0.5, 3.0}
    assert -1 <= evaluate_adapter(adapter, data)["pearson"] <= 1
    with pytest.raises(UserError, match="are no numbers"):
        targets_of(adapter, texts(("low", "3"), pairs=True))
    with pytest.raises(UserError, match="are no numbers"):
        targets_of(adapter, texts(("nan", "3"), pairs=True))
    assert set(predict_texts(adapter, [("one", "two")])[0]) == {"text", "value"}
    with pytest.raises(UserError, match="two texts a row"):
        predict_texts(adapter, ["one"])


def test_on_the_command_line(tone, tmp_path, capsys):
    out = tone.save(tmp_path / "mine")
    assert main(["predict", str(out), "--text", "a very good film", "bad book"]) == 0
    first, second = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert first[:2] == ["a very good film", "yes"] and second[1] == "no" and 0.5 < float(first[2]) <= 1
    table = tmp_path / "rows.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("text", "label"), *((row["text"], row["label"]) for row in opinions(40, 3))])
    assert main(["evaluate", str(out), str(table)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy"] > 0.9 and found["num_texts"] == 40 and -1 <= found["matthews"] <= 1
    assert main(["predict", str(out), "--text", " "]) == 2 and "is empty" in capsys.readouterr().err
    assert main(["evaluate", str(out), "example:digits"]) == 2 and "an adapter reads texts" in capsys.readouterr().err
