"""The map of tasks and the figures of a path between two descriptions, as a reader sees them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from d2nwg.exploration.task_map import map_tasks
from d2nwg.figures.base import ACCENT
from d2nwg.figures.description_path import QUESTIONS, all_figures, distance_figure, save_figures, score_figure
from d2nwg.figures.task_map import question, task_map_figure
from d2nwg.interpolation.descriptions import description_path
from d2nwg.models.adapter_space import KnownTask

ENDS = ["Did the reviewer enjoy the film?", "Tell whether a legal agreement is invalid."]


def test_a_map_says_who_is_who(adapters):
    made = map_tasks(ENDS[0], bundle=adapters, num_samples=3)
    made = replace(
        made, tasks=(KnownTask("<b>tone", ("Is it %{x} <i>good</i>?",), ("no",), "matthews", False), made.tasks[1])
    )
    traces = {trace.name: trace for trace in task_map_figure(made).data}
    assert list(traces) == ["&lt;b&gt;tone", "contrary", "samples"]
    tone = traces["&lt;b&gt;tone"]
    assert tone.meta == "<b>&lt;b&gt;tone</b><br>Is it %{x} &lt;i&gt;good&lt;/i&gt;?<br>matthews"
    assert tone.hovertemplate == "%{meta}<extra></extra>" and len(tone.x) == int((made.owners == 0).sum())
    assert traces["samples"].marker.color == ACCENT and len({t.marker.color for t in traces.values()}) == 3
    np.testing.assert_array_equal(traces["samples"].x, made.projection.tsne[-3:, 0])
    assert "nearest: " in traces["samples"].hovertext[0] and question(made).startswith("Where do samples")
    pca = task_map_figure(made, "pca")
    assert "of the variance" in pca.layout.xaxis.title.text.replace("<br>", " ")
    np.testing.assert_array_equal(pca.data[2].y, made.projection.pca[-3:, 1])
    alone = map_tasks(bundle=adapters)
    assert len(task_map_figure(alone).data) == 2 and question(alone) == "Which tasks does the bundle know?"


def test_many_tasks_are_told_apart_by_shape_and_colour(adapters):
    made = map_tasks(bundle=adapters)
    many = tuple(replace(made.tasks[0], name=f"task {n}") for n in range(12))
    owners = np.arange(len(made.vectors)) % 12
    looks = {(t.marker.color, t.marker.symbol) for t in task_map_figure(replace(made, tasks=many, owners=owners)).data}
    assert len(looks) == min(12, len(made.vectors))


@pytest.fixture(scope="module")
def path(adapters):
    return description_path(ENDS, bundle=adapters, points=4, num_samples=1)


def test_lines_of_a_path(path, tmp_path):
    drawn = all_figures(path)
    assert list(drawn) == list(QUESTIONS) and drawn["scores-a"] is None and drawn["scores-b"] is None
    distance = distance_figure(path, 1 / 3)
    assert [trace.name for trace in distance.data if trace.showlegend] == [
        *("to A's adapter", "to B's adapter", "to the nearest of the zoo"),
    ]
    np.testing.assert_allclose(distance.data[0].y, path.stretches["condition"].far[0])
    assert distance.layout.shapes[0].x0 == 1 / 3 and len(distance.data) == 6
    np.testing.assert_allclose(drawn["degrees"].data[1].y, path.stretches["weights"].degrees)
    assert {page.name for page in save_figures(path, tmp_path)} == {"distance.html", "degrees.html"}


def test_scores_stand_beside_no_adapter(path):
    for stretch in path.stretches.values():
        stretch.scores[0] = torch.linspace(0.5, 1, 4)
    path.ends[0].texts.append("a text")
    path.plain[0] = 0.25
    figure = score_figure(path, 0)
    assert figure.data[0].y.tolist() == pytest.approx([50, 66.667, 83.333, 100], abs=0.01)
    assert figure.data[-1].name == "no adapter" and figure.data[-1].y == (25, 25)
    assert figure.layout.yaxis.title.text == "right, %"
    path.ends[0].metric = "matthews"
    assert score_figure(path, 0).data[0].y[0] == 0.5 and score_figure(path, 1) is None
