"""The figure of a fine-tuning: every start, its numbers, and the range in which they differ."""

import math

import pytest

from d2nwg.figures.finetune import finetune_figure
from tests.helpers.reports import make_tuned as report


def test_a_line_and_a_band_for_each_start():
    made = report([0.7, 0.8, 0.85, 0.9], [0.1, 0.5, 0.75, 0.8], [0.75, 0.8, 0.8, 0.85])
    figure = finetune_figure(made)
    lines = {trace.name: trace for trace in figure.data if trace.name}
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    assert set(lines) == {"generated start", "random initialisation", "ridge on the shown images"} and len(bands) == 3
    ours = lines["generated start"]
    assert ours.y == pytest.approx((70, 80, 85, 90)) and ours.x == pytest.approx([math.log1p(e) for e in range(4)])
    assert figure.data[-1] is ours or figure.data[-1].name == "generated start", "over the others"
    assert len({(trace.line.color, trace.line.dash) for trace in lines.values()}) == 3
    low, high = figure.layout.yaxis.range
    assert 40 < low < 50 and 90 < high <= 100, "a random head before training is off the range"
    assert list(figure.layout.xaxis.ticktext) == ["0", "1", "2", "3"]


def test_one_seed_has_no_band():
    made = report([0.7, 0.8, 0.85, 0.9], [0.1, 0.5, 0.75, 0.8], seeds=(0,))
    assert not [trace for trace in finetune_figure(made).data if trace.fill]
