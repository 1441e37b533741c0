"""The map of names and the figures of a path between two, as a reader sees them."""

import time

import numpy as np
import pytest

from d2nwg.data.images import load_images
from d2nwg.figures.base import ACCENT, ZOO
from d2nwg.figures.name_map import WRITTEN, _Labels, name_map_figure, question
from d2nwg.figures.name_path import LINES, classes_figure, nearest_figure, strip
from tests.helpers.images import make_image_folder
from tests.helpers.reports import make_name_map, make_name_path


def traces(figure) -> dict:
    return {trace.name or trace.mode: trace for trace in figure.data}


def test_who_is_who_on_the_map():
    made = make_name_map("wolf", names=2)
    found = traces(name_map_figure(made))
    assert found["classifier's classes"].marker.color == ZOO == found["training sets' classes"].marker.color
    assert found["your names"].marker.color == ACCENT and len(found["your names"].x) == 2
    assert list(found["your names"].hovertext) == [f"<b>{n}</b><br>nearest: wolf 1.00, d 0.50" for n in made.names]
    assert found["spelled so"].x.tolist() == [10, 0] and found["near in meaning"].y.tolist() == [-10]
    assert "wolf" in found["markers+text"].text
    pca = name_map_figure(made, "pca")
    assert traces(pca)["spelled so"].x.tolist() == [1, 0]
    assert "60.0\u00a0% of the variance" in pca.layout.xaxis.title.text.replace("<br>", " ")
    assert question(made).startswith("Where do your names lie")
    assert question(make_name_map(names=0)) == "Which names does the zoo know?"
    assert "your names" not in traces(name_map_figure(make_name_map(names=0)))


def test_texts_on_the_map_do_not_cover_each_other_or_the_points():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(400, 2))
    labels = _Labels(points)
    labels.add(points[:60], [f"name {i}" for i in range(60)])
    labels.add(points[60:90], ["x" * 20] * 30)
    boxes = labels._boxes
    written = boxes[(boxes[:, 1] - boxes[:, 0])[:, 1] > 15]
    assert 15 < len(written) <= WRITTEN and labels._texts[0][1] == "name 0"
    for i, box in enumerate(written):
        others = np.delete(boxes, [k for k, other in enumerate(boxes) if (other == box).all()], 0)
        over = ((box[0] < others[:, 1]) & (box[1] > others[:, 0])).all(1)
        later = others[over][:, 1, 1] - others[over][:, 0, 1] < 11  # points that were added after the text
        assert later.all(), i


def test_the_lines_along_a_path(tmp_path):
    images = load_images(make_image_folder(tmp_path / "x", [f"class {i:02}" for i in range(12)], 2))
    made = make_name_path(images=images, points=5)
    lines = nearest_figure(made).data
    assert {line.name for line in lines} == {"wolf", "dog"} and len(lines) == 3
    np.testing.assert_allclose(sorted(line.y[0] for line in lines), [0, 0.4, 1], atol=1e-6)
    classes = classes_figure(made).data
    bright = [line for line in classes if line.showlegend]
    assert len(classes) == 12 and len(bright) == LINES and len({line.line.color for line in bright}) == LINES
    assert "class 11" in {line.name for line in bright}, "image i scores i: the last class leads"
    assert classes_figure(make_name_path()) is None


def test_the_strip(tmp_path):
    images = load_images(make_image_folder(tmp_path / "x", ("a", "b"), 3))
    shown = strip(make_name_path("wolf", images, points=4))
    assert shown.count('class="stop"') == 4 and shown.count('<img src="data:image/webp') == 8
    assert "<b>0.00 · wolf</b>" in shown and "<b>1.00 · dog</b>" in shown and "<span>5.00</span>" in shown
    assert "<img" not in strip(make_name_path("wolf"))


@pytest.mark.parametrize("names", [1, 2000])
def test_many_names_are_drawn_in_little_time(names):
    begun = time.process_time()
    name_map_figure(make_name_map(names=names))
    assert time.process_time() - begun < 20
