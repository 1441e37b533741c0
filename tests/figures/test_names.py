"""Names in figures: plotly renders a subset of HTML in texts, and templates in hovers; names are neither."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from d2nwg.data.images import load_images
from d2nwg.figures import explore, explore_map, generate, interpolate, language, name_map, name_path, train
from d2nwg.figures.base import label, titled
from tests.helpers.images import make_pattern_folder
from tests.helpers.reports import make_name_map, make_name_path, make_report

NAME = '<a href="http://evil">x</a><br>%{x}&lt;b&gt;'
OWN = re.compile(r"</?b>|<br>|<extra></extra>|<span style='[\w:;-]*'>|</span>")  # what our own texts are marked up with
UNSEEN = ("customdata", "uirevision", "template")  # customdata is for clicks


def texts(part, key: str = ""):
    """Every text of a figure that is shown, with the key it stands under."""
    if isinstance(part, dict):
        for name, value in part.items():
            if name not in UNSEEN:
                yield from texts(value, name)
    elif isinstance(part, (list, tuple, np.ndarray)):
        for value in part:
            yield from texts(value, key)
    elif isinstance(part, str):
        yield key, part


def check(figure, named: bool) -> None:
    """No name is markup or a template; `named`: the name is there, as a reader sees it."""
    said = ""
    for key, text in texts(figure.to_plotly_json()):
        left = OWN.sub("", text)
        assert "<" not in left and ">" not in left and "&quot;" not in left, (key, text)
        if key in ("hovertemplate", "texttemplate"):
            assert "%{x}&" not in text and "evil" not in text, text
        said += left
    said, *starts = (
        text.replace(" ", "") for text in (said, label(NAME)[:20], label(NAME[:10]))
    )  # lines may end there
    assert not named or any(start in said for start in starts), "the name is shown"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two data sets of the same hostile classes."""
    root = tmp_path_factory.mktemp("hostile")
    folders = [make_pattern_folder(root / name, range(100, 103), per_class=10, seed=i) for i, name in enumerate("ab")]
    classes = tuple(f"{NAME}{i}" for i in range(3))
    return [replace(load_images(folder), name=NAME, classes=classes) for folder in folders]


@pytest.fixture(scope="module")
def encoder(cheap_encoder):
    with pytest.MonkeyPatch.context() as patch:
        for module in ("d2nwg.opened", "d2nwg.interpolation.path", "d2nwg.encoders.images"):
            patch.setattr(f"{module}.load_encoder", lambda *_, **__: cheap_encoder)
        yield


def test_labels():
    assert label(NAME) == '&lt;a href="http://evil"&gt;x&lt;/a&gt;&lt;br&gt;%{x}&amp;lt;b&amp;gt;'
    assert label("it's so", 4) == "it…o" and label("<b>" * 20, 9).count("&") == 5


def test_generate():
    report = make_report(data=NAME, classes=[NAME, "b"], selection=NAME, task=NAME, notes=[NAME])
    check(generate.samples_figure(report), named=False)
    check(generate.confusion_figure(np.eye(2, dtype=int), [NAME, f"{NAME}b"]), named=True)


def test_explore(pictures, encoder, tiny_bundle, tmp_path):
    from d2nwg.exploration.explore import explore as find
    from d2nwg.exploration.look import look

    settings = dict(tasks=2, classes=2, shots=3, num_samples=6, num_trained=4, steps=2, max_query=12, device="cpu")
    found = find(pictures[0], bundle=tiny_bundle, **settings)
    found = replace(found, densities={f"{NAME}{i}": value for i, value in enumerate(found.densities.values())})
    view = look(found, perplexity=3)
    for colour in explore_map.COLOUR_BY:
        check(explore_map.map_figure(found, view, "pca", colour), named=True)
    for name, figure in explore.all_figures(found, view).items():
        check(figure, named=name in ("map", "novelty", "densities", "similarity"))
        page = explore.write_html(figure, tmp_path / f"{name}.html", name, NAME, script="directory").read_text()
        assert "<a href" not in page and "evil" in page
        check(titled(figure, explore.QUESTIONS[name], NAME), named=True)


def test_interpolate(pictures, encoder, tiny_bundle, tmp_path):
    from d2nwg.interpolation.path import interpolate as walk

    made = walk(pictures, bundle=tiny_bundle, points=3, seeds=1, num_samples=2, shots=3, steps=2)
    for name, figure in interpolate.path_figures(made).items():
        check(figure, named=name != "map-of-weights")
    for page in interpolate.save_figures(made, tmp_path):
        assert "<a href" not in page.read_text()


def test_a_map_of_names_and_a_path_between_two(pictures, tmp_path):
    for method in ("tsne", "pca"):
        check(name_map.name_map_figure(make_name_map(NAME), method), named=True)
    made = make_name_path(NAME, pictures[0])
    check(name_path.nearest_figure(made), named=True)
    check(name_path.classes_figure(made), named=True)
    for page in name_path.save_figures(made, tmp_path):
        assert "<a href" not in page.read_text(), page.name


def test_language():
    matrix = SimpleNamespace(layer=0, type="q", shape=(4, 4), values=[1.0, 2.0], std=0.1, name=NAME)
    ranked = [SimpleNamespace(matrix=matrix, snr=1.0, rank=1, chosen=True)]
    check(language.layers_figure(ranked, NAME), named=True)
    line = dict(number=0, layer=NAME, type=NAME, arm="refined", before=0.1, after=0.2, accepted=True, best=0)
    check(language.search_figure([{**line, "candidates": [{"score": 0.2}]}], "accuracy"), named=True)


def test_train():
    lines = [{"stage": NAME, "step": i, "steps": 2, "loss": 1.0, "sampled_accuracy": 0.5} for i in (1, 2)]
    check(train.losses_figure(lines), named=True)
    check(train.accuracies_figure(lines), named=False)
