"""Learning curves on the tiny bundle: what is measured, what the words and the figure say, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from d2nwg import cli, opened
from d2nwg.data.images import load_images
from d2nwg.figures.learning_curve import learning_curve_figure
from d2nwg.generate import generate_heads
from d2nwg.learning_curve import ARMS, GENERATED, learning_curve, rows, sentences
from d2nwg.utils.errors import Cancelled, UserError
from tests.helpers.images import make_pattern_folder
from tests.helpers.reports import make_curve


@pytest.fixture(autouse=True)
def encoded(monkeypatch, cheap_encoder):
    """How many images the encoder has been given."""
    counted, encode = [], cheap_encoder.encode
    monkeypatch.setattr(opened, "load_encoder", lambda name, device=None: cheap_encoder)
    monkeypatch.setattr(
        cheap_encoder, "encode", lambda items, **kw: (counted.extend(items), encode(items, **kw))[1], raising=False
    )
    return counted


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four classes that the tiny zoo has not seen."""
    return make_pattern_folder(tmp_path_factory.mktemp("new") / "fresh", range(100, 104), per_class=16)


def draw(folder, bundle, **kwargs):
    run = dict(shots=(5, 1, 20), draws=2, num_samples=4, steps=2, device="cpu") | kwargs
    return learning_curve(load_images(folder), bundle=bundle, **run)


def test_each_point_is_what_generate_measures(folder, tiny_bundle, encoded):
    curve = draw(folder, tiny_bundle, seed=3)
    assert (curve.shots, curve.seeds) == ([1, 5], [3, 4]) and set(curve.accuracy) == set(ARMS)
    assert curve.notes == ["Not with 20 images a class: at least one class has too few."]
    assert len(encoded) == len(set(encoded)) <= 64, "an image is encoded once, however many draws there are"
    for place, shots in enumerate(curve.shots):
        for draw_, seed in enumerate(curve.seeds):
            made = generate_heads(
                load_images(folder), bundle=tiny_bundle, shots=shots, num_samples=4, steps=2, seed=seed, device="cpu"
            ).report.query_accuracy
            assert curve.accuracy[GENERATED][place][draw_] == pytest.approx(made.chosen, abs=1e-6)
            for arm in ARMS:
                if arm != GENERATED:
                    assert curve.accuracy[arm][place][draw_] == pytest.approx(getattr(made, arm), abs=1e-6)
    assert json.loads(json.dumps(curve.to_json()))["num_query"] == curve.num_query == [60, 60]


@pytest.fixture
def curve():
    return make_curve()


def test_what_it_says(curve):
    first, last, saved = sentences(curve)
    assert first == (
        "With 1 labelled image a class the generated head is right on 70.0% ± 14.1, the best baseline (class mean) on "
        "55.0%, ahead of it in 1 of 2 draws."
    )
    assert "With 5 labelled images a class the generated head is right on 93.0%" in last and "2 of 2 draws" in last
    assert saved == "The best baseline needs 5 images a class to be as good as the generated head with 1 image."
    above = replace(curve, accuracy={**curve.accuracy, GENERATED: [[0.97, 0.97], [0.98, 0.98]]})
    assert sentences(above)[-1] == "No baseline gets there with 5 images a class."
    below = replace(curve, accuracy={**curve.accuracy, GENERATED: [[0.1, 0.1], [0.2, 0.2]]})
    assert len(sentences(below)) == 2, "nothing is saved"
    assert rows(curve)[:2] == [
        ["% right with … images a class", "1", "5"],
        [ARMS[GENERATED], "70.0 ± 14.1", "93.0 ± 2.8"],
    ]


def test_the_figure_shows_the_means(curve):
    figure = learning_curve_figure(curve)
    lines = {trace.name: trace for trace in figure.data}
    assert list(lines) == list(reversed(ARMS.values())), "the generated head is drawn last"
    assert lines[ARMS[GENERATED]].y == pytest.approx([70, 93])
    assert lines[ARMS[GENERATED]].error_y.array == pytest.approx(np.std([[80, 60], [95, 91]], axis=1, ddof=1))
    one = replace(curve, seeds=[0], accuracy={arm: [v[:1] for v in values] for arm, values in curve.accuracy.items()})
    assert not learning_curve_figure(one).data[0].error_y.visible


def test_what_is_refused(folder, tiny_bundle):
    with pytest.raises(UserError, match="has 16 images but 18 are needed"):
        draw(folder, tiny_bundle, shots=(17,))
    for wrong in ({"draws": 0}, {"shots": (0,)}, {"num_samples": 0}, {"seed": -1}):
        with pytest.raises(UserError, match="should be a whole number"):
            draw(folder, tiny_bundle, **wrong)
    with pytest.raises(UserError, match="makes whole networks: choose a bundle of heads"):
        draw(folder, "networks-28px")
    with pytest.raises(UserError, match="makes heads from the name of a task"):
        draw(folder, "tasks-small-networks")


def test_it_can_be_stopped(folder, tiny_bundle):
    def stop(stage, *rest):
        if stage == "Drawing":
            raise Cancelled

    with pytest.raises(Cancelled):
        draw(folder, tiny_bundle, progress=stop)


def test_the_command(folder, tiny_bundle, tmp_path, capsys):
    line = [
        "curve",
        str(folder),
        "--bundle",
        str(tiny_bundle),
        "--shots",
        "1",
        "3",
        "--draws",
        "2",
        "--num-samples",
        "2",
    ]
    out = tmp_path / "curve.json"
    assert cli.main([*line, "--steps", "1", "--device", "cpu", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "generated head" in said and "With 3 labelled images a class" in said and str(out) in said
    assert json.loads(out.read_text())["shots"] == [1, 3]
    assert cli.main([*line, "--out", str(out)]) == 2 and "exists already" in capsys.readouterr().err
