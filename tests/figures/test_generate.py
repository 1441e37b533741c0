"""The figures: what they show, that names are only text, and that they read in the dark."""

import re
from pathlib import Path

import numpy as np
import pytest

from d2nwg.figures.base import ACCENT, INK, STRONG, in_lines, label, percent
from d2nwg.figures.generate import BASELINES, confusion_figure, network_samples_figure, samples_figure
from tests.helpers.reports import make_network_report, make_report


def report(samples=(0.5, 0.6, 0.7), **accuracy):
    return make_report(samples, [0.5 if i else None for i in range(len(samples))], accuracy)


def texts(figure) -> str:
    return str(figure.to_dict())


def test_an_axis_title_fits_on_a_phone():
    title = in_lines("distance to the nearest zoo head, in lengths of a zoo head")
    assert title == "distance to the nearest zoo head,<br>in lengths of a zoo head"
    assert in_lines("right on 200 held-out images") == "right on 200 held-out images" and in_lines("") == ""


def test_samples_figure_shows_samples_and_baselines():
    figure = samples_figure(report())
    *marks, strip = figure.data
    assert sorted(strip.x) == [50, 60, 70]
    assert len(marks) == 1 + len(BASELINES)
    assert [re.sub("</?b>", "", mark.text[0]) for mark in marks] == [percent(v) for v in (0.62, 0.6, 0.63, 0.61, 0.1)]
    assert list(figure.layout.yaxis.ticktext) == ["3 samples", "chosen: average of 3", *BASELINES.values()]
    assert "1,200 held-out images" in figure.layout.xaxis.title.text
    assert "zoo" not in strip.hovertext[0] and "0.50 lengths of a zoo head from" in strip.hovertext[1]


def test_a_far_random_head_is_named_at_the_edge():
    far = samples_figure(report(random=0.05))
    low, high = far.layout.xaxis.range
    assert low > 40 and all(low <= x <= high for trace in far.data for x in trace.x)
    assert any(trace.marker.symbol == "triangle-left" for trace in far.data)
    near = samples_figure(report(samples=(0.12, 0.2), chosen=0.15, class_mean=0.2, ridge=0.2, logistic_regression=0.2))
    assert not any(trace.marker.symbol == "triangle-left" for trace in near.data)


def test_average_has_a_line_of_its_own_when_it_was_not_chosen():
    ticks = samples_figure(report(average=0.58)).layout.yaxis.ticktext
    assert list(ticks)[1:3] == ["chosen", "average of 3"]


def test_the_picked_sample_is_ringed():
    widths = samples_figure(report(), picked=1).data[-1].marker.line.width
    assert widths[1] > 0 and widths[0] == widths[2] == 0


def test_networks_stand_beside_their_baselines():
    figure = network_samples_figure(make_network_report(), picked=0)
    *marks, strip = figure.data
    assert sorted(strip.x) == [50, 60] and strip.marker.line.width[0] > strip.marker.line.width[1] == 0
    rows = list(figure.layout.yaxis.ticktext)
    assert rows[:3] == ["2 samples", "generated network", "with a generated head"]
    assert rows[3:] == list(make_network_report().baselines()) and rows[-1] == "random network"
    at_edge = {row for row, mark in zip(rows[1:], marks, strict=True) if mark.marker.symbol == "triangle-left"}
    assert at_edge == {"with a generated head", "2 gradient steps", "zoo average", "random network"}
    assert "distances of zoo neighbours" in strip.hovertext[0] and "zoo" not in strip.hovertext[1]


@pytest.mark.parametrize("samples", [(0.5,), (1.0, 1.0), (0.0, 0.0)])
def test_samples_figure_has_room_at_the_extremes(samples):
    figure = samples_figure(
        report(
            samples,
            chosen=samples[0],
            class_mean=samples[0],
            ridge=samples[0],
            logistic_regression=samples[0],
            random=0.0,
        )
    )
    low, high = figure.layout.xaxis.range
    assert 0 <= low < high <= 100


def test_confusion_figure_counts():
    figure = confusion_figure(np.array([[8, 2], [0, 0]]), ["cat", "dog"])
    assert figure.data[0].z.tolist() == [[0.8, 0.2], [0, 0]]  # a class without images is no division by zero
    assert list(figure.data[0].hovertext[0]) == ["cat recognised<br>8 of 10", "cat taken for dog<br>2 of 10"]
    assert sorted(text for trace in figure.data[1:] for text in trace.text) == ["2", "8"]
    assert list(figure.layout.xaxis.ticktext) == ["cat", "dog"]


def test_confusion_figure_of_many_long_names():
    names = [f"a rather long name of class number {i}" for i in range(60)]
    figure = confusion_figure(np.eye(60, dtype=int), names)
    assert len(figure.data) == 1
    assert len(figure.layout.xaxis.ticktext) <= 30
    assert all(len(text) <= 16 for text in figure.layout.xaxis.ticktext)
    assert 300 <= figure.layout.height <= 560


def test_names_are_only_text():
    nasty = "<a href='javascript:alert(1)'>x</a>"
    figure = texts(confusion_figure(np.eye(2, dtype=int), [nasty, "b"]))
    assert "<a" not in figure and "&lt;a" in figure


def test_label():
    assert label("short", 10) == "short"
    assert label("0123456789", 7) == "0123…89" and len(label("x" * 99, 16)) == 16


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("ink", [INK, STRONG])
def test_ink_reads_on_white_and_is_mapped_in_the_style_sheet(ink):
    assert 1.05 / (luminance(ink) + 0.05) >= 4.5
    rgb = "rgb({}, {}, {})".format(*(int(ink[i : i + 2], 16) for i in (1, 3, 5)))
    assert rgb in (Path(__file__).parents[2] / "assets" / "style.css").read_text()


def test_every_figure_wears_the_template():
    for figure in (samples_figure(report()), confusion_figure(np.eye(3), "abc")):
        layout = figure.layout.template.layout
        assert layout.paper_bgcolor == "rgba(0,0,0,0)" and layout.colorway[0] == ACCENT
