"""Exploring the tiny bundle: what is made, what is said of it, the figures, the files and the verb."""

import csv
import json
import re

import numpy as np
import pytest
import torch

from d2nwg import cli
from d2nwg.analysis.populations import SAMPLE, TRAINED, ZOO
from d2nwg.data.images import load_images
from d2nwg.evaluation.accuracy import accuracies
from d2nwg.evaluation.zoo_baselines import AVERAGE, NOISE, RANDOM
from d2nwg.exploration import tasks
from d2nwg.exploration.explore import explore
from d2nwg.exploration.look import look, turned
from d2nwg.exploration.seen import search, seen
from d2nwg.exploration.words import details, save, summary, table, verdict
from d2nwg.figures.base import ACCENT
from d2nwg.figures.explore import QUESTIONS, all_figures, write_html
from d2nwg.figures.explore_map import COLOUR_BY, map_figure
from d2nwg.utils.errors import Cancelled, UserError
from tests.helpers.images import make_pattern_folder


@pytest.fixture(scope="module")
def cheap(cheap_encoder):
    """The cheap encoder in place of a network."""
    from d2nwg import opened

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opened, "load_encoder", lambda name, device=None: cheap_encoder)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five classes that the tiny zoo has not seen."""
    return make_pattern_folder(tmp_path_factory.mktemp("new") / "fresh", range(100, 105), per_class=14)


@pytest.fixture(scope="module")
def found(cheap, folder, tiny_bundle):
    return explore(
        load_images(folder),
        bundle=tiny_bundle,
        tasks=3,
        classes=3,
        shots=4,
        num_samples=18,
        num_trained=9,
        steps=2,
        max_query=30,
        device="cpu",
    )


@pytest.fixture(scope="module")
def view(found):
    return look(found, perplexity=5)


def test_what_is_compared(found):
    heads = found.heads
    assert len(heads.of(ZOO)) == len(found.space.zoo_vectors) and len(found.tasks) == 3
    assert [len(heads.of(SAMPLE, i)) for i in range(3)] == [6, 6, 6] and len(heads.of(TRAINED, 1)) == 3
    assert len({task.name for task in found.tasks}) == 3 and all(task.count == 3 for task in found.tasks)
    for i, task in enumerate(found.tasks):  # as vectors the samples are the heads that were generated
        again = task.score(found.space, heads.vectors[heads.of(SAMPLE, i)])
        assert again == pytest.approx(task.generation.sample_accuracy, abs=1e-6)
    index = heads.of(SAMPLE, 2)[4]
    head, made = found.head(index), found.tasks[2].generation.sample_head(4)
    assert head.classes == made.classes and np.allclose(head.state["weight"], made.state["weight"], atol=1e-3)


def test_the_distance_is_the_one_that_generate_reports(found):
    for i, task in enumerate(found.tasks):
        reported = [row.nearest_zoo_distance for row in task.generation.report.samples]
        assert found.distance[found.heads.of(SAMPLE, i)] == pytest.approx(reported, abs=1e-4)


def test_several_tasks_share_the_images_that_are_read(found, folder):
    items = {str(item) for task in found.tasks for item in task.images.items}
    assert len(items) <= 5 * (4 + 6 + 1)
    pool = load_images(folder)
    assert [len(s.classes) for s in tasks.subsets(pool, 4, 2, seed=0)] == [2] * 4
    assert len(tasks.subsets(pool, 99, 4, seed=0)) == 5  # there are no more
    with pytest.raises(UserError, match="has 5 classes"):
        tasks.subsets(pool, 2, 6, seed=0)


def test_baselines_are_what_they_say(found):
    noise, samples = found.baselines[NOISE], found.heads.of(SAMPLE)
    zoo = found.heads.vectors[found.heads.of(ZOO)][found.heads.counts[found.heads.of(ZOO)] == 3]
    unit = np.median(np.linalg.norm(zoo, axis=1))
    gaps = np.linalg.norm(found.heads.vectors[samples][:, None] - zoo, axis=2).min(1) / unit
    assert found.distance[samples] == pytest.approx(gaps, rel=1e-3)
    assert (noise.distance <= gaps * 1.001).all()  # the noise may have led nearer to another head
    assert noise.distance.mean() > 0.5 * gaps.mean()
    assert len(found.baselines[AVERAGE].accuracy) == len(samples) and np.isnan(found.baselines[RANDOM].distance).all()
    task = found.tasks[0]
    state = found.space.to_heads(torch.from_numpy(zoo), task.order)
    own = found.baselines[ZOO].accuracy[found.baselines[ZOO].task == 0]
    assert own == pytest.approx(accuracies(state, task.query, task.labels).numpy())


def test_copies_are_noticed(found, view):
    assert view.copies < len(found.heads.of(SAMPLE))
    samples = found.heads.of(SAMPLE)
    zoo = found.heads.of(ZOO)[found.heads.counts[found.heads.of(ZOO)] == 3]
    kept = found.heads.vectors[samples].copy()
    try:
        found.heads.vectors[samples] = found.heads.vectors[np.resize(zoo, len(samples))] * 1.001
        copied = look(found, perplexity=5)
    finally:
        found.heads.vectors[samples] = kept
    assert copied.copies == len(samples) and copied.closeness["samples_to_zoo"] < 0.01
    assert "18 of 18 samples are near copies" in verdict(found, copied)[0]


def test_a_view(found, view):
    assert set(found.heads.counts[view.rows]) == {3}
    every = look(found, perplexity=5, all_counts=True)
    assert len(every.rows) == len(found.heads) and every.points.shape[1] == found.space.layout.size
    assert every.copies == view.copies  # other counts change the map, not the comparison
    latent = look(found, where="latent", part="row 2", perplexity=5)
    channels, rows, width = found.vae.latent_shape
    assert latent.points.shape[1] == channels * rows * width // found.vae.config.tokens


def test_mistakes(found, cheap, folder, tiny_bundle):
    with pytest.raises(UserError, match="There is no part"):
        look(found, part="row 99")
    with pytest.raises(UserError, match="no part weight"):
        look(found, where="latent", part="weight")
    with pytest.raises(UserError, match="keeps zoo heads of"):
        explore(load_images(make_pattern_folder(folder.parent / "many", range(7), per_class=3)), bundle=tiny_bundle)

    def stop(*_):
        raise Cancelled

    with pytest.raises(Cancelled):
        explore(load_images(folder), bundle=tiny_bundle, progress=stop)


def test_without_a_vae_there_is_no_latent_space(found):
    from dataclasses import replace

    bare = replace(found, vae=None)
    assert bare.spaces == ["weights"]
    with pytest.raises(UserError, match="no VAE"):
        look(bare, where="latent")
    assert len(look(bare, perplexity=5).rows)


def test_words(found, view):
    said = verdict(found, view)
    assert re.match(r"Samples are .* zoo .* of 18 samples", said[0]) or "none of 18 samples" in said[0]
    assert "(energy coefficient " in said[2] and "heads trained on the same images" in said[3]
    assert f"keeps {len(found.space.zoo_vectors)} of 300 zoo heads" in said[-1]
    about = details(found, view, int(found.heads.of(SAMPLE)[7]))
    assert about["head"] == "sample 1" and about["task"] == found.tasks[1].name and len(about["neighbours"]) == 5
    assert about["accuracy"] == found.tasks[1].generation.sample_accuracy[1]
    assert about["distance"] == pytest.approx(found.distance[found.heads.of(SAMPLE)[7]], rel=1e-4)


def test_files(found, view, tmp_path):
    save(found, view, tmp_path)
    with (tmp_path / "projection.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(view.rows) and float(rows[3]["tsne_1"]) == pytest.approx(view.projection.tsne[3, 0])
    numbers = json.loads((tmp_path / "summary.json").read_text())
    assert numbers == json.loads(json.dumps(summary(found, view))) and numbers["points"]["sample"] == 18
    assert len((tmp_path / "projector" / "metadata.tsv").read_text().splitlines()) == len(view.rows) + 1
    assert (tmp_path / "projector" / "tensor.bytes").stat().st_size == 4 * view.points.size
    assert "noise" in (tmp_path / "baselines.csv").read_text() and "weight" in (tmp_path / "densities.csv").read_text()


# --------------------------------------------------------------------------------------------------- figures


@pytest.mark.parametrize("colour", COLOUR_BY)
def test_the_map_has_every_head_once(found, view, colour):
    figure = map_figure(found, view, "pca", colour, [int(view.rows[0])])
    points = np.concatenate([trace.customdata for trace in figure.data if trace.customdata is not None])
    assert sorted(points) == sorted(view.rows)
    assert len({trace.marker.symbol for trace in figure.data}) >= 3  # not by colour alone
    title = figure.layout.xaxis.title.text.replace("\u00a0", " ").replace("<br>", " ")  # wrapped for narrow screens
    assert "% of the variance" in title
    if colour in ("accuracy", "distance"):
        assert figure.layout.coloraxis.colorscale[0][1] == "#440154"  # viridis
    ringed = figure.data[-1]
    assert (ringed.x[0], ringed.y[0]) == pytest.approx(tuple(view.projection.pca[0]))


@pytest.mark.parametrize("colour", COLOUR_BY)
def test_a_map_in_three_dimensions(found, view, colour):
    solid = turned(view, 3, perplexity=5)
    assert solid.projection.pca.shape == solid.projection.tsne.shape == (len(view.rows), 3)
    assert (
        np.allclose(solid.projection.pca[:, :2], view.projection.pca) and "three dimensions" in solid.projection.words
    )
    assert solid.near is view.near and {"pca_3", "tsne_3"} <= set(table(found, solid))
    figure = map_figure(found, solid, "pca", colour, [int(view.rows[0])])
    points = np.concatenate([trace.customdata for trace in figure.data if trace.customdata is not None])
    assert sorted(points) == sorted(view.rows) and {trace.type for trace in figure.data} == {"scatter3d"}
    assert "component 3" in figure.layout.scene.zaxis.title.text.replace("<br>", " ")
    with pytest.raises(UserError, match="number of dimensions"):
        turned(view, 4)


def test_a_search_finds_by_name_class_and_kind(found, view):
    rows = view.rows.tolist()
    samples, trained = found.heads.of(SAMPLE), found.heads.of(TRAINED)
    assert search(found, rows) == rows and search(found, rows, origins=[SAMPLE]) == samples.tolist()
    name = found.tasks[1].images.classes[0]
    of_class = {i for i, task in enumerate(found.tasks) if name in task.images.classes}
    assert set(search(found, rows, name.upper())) == {i for i in rows if found.heads.task[i] in of_class}
    assert (
        search(found, rows, "trained head 2", [TRAINED, SAMPLE]) == trained[found.heads.number[trained] == 2].tolist()
    )
    assert search(found, rows, "no such name") == []


def test_what_a_head_gets_right(found):
    for index in (int(found.heads.of(SAMPLE, 2)[4]), int(found.heads.of(TRAINED, 1)[0])):
        told = seen(found, index, most=5)
        task, accuracy = found.tasks[found.heads.task[index]], found.heads.accuracy[index]
        assert told.correct / told.of == pytest.approx(accuracy) and told.task == task.name
        assert len(told.right) == min(5, told.correct)
        for number, name in told.right:
            assert task.images.classes[task.images.labels[number]] == name
        for number, name, taken in told.wrong:
            assert task.images.classes[task.images.labels[number]] == name != taken
        assert len({name for _, name in told.right}) > 1, "every class in turn"
    other = int(np.flatnonzero(found.heads.counts != 3)[0])
    assert seen(found, other) is None, "no task has as many classes"


def test_many_points_go_to_the_graphics_card(found, view, monkeypatch):
    assert map_figure(found, view).data[0].type == "scatter"
    monkeypatch.setattr("d2nwg.figures.explore_map.MANY", 10)
    assert map_figure(found, view).data[0].type == "scattergl"


def test_every_figure_has_a_question_a_template_and_units(found, view, tmp_path):
    figures = all_figures(found, view)
    assert set(figures) == set(QUESTIONS)
    for name, figure in figures.items():
        assert figure.layout.template.layout.paper_bgcolor == "rgba(0,0,0,0)"
        assert QUESTIONS[name].endswith("?") and figure.layout.xaxis.title.text
        assert all(len(line) <= 34 for line in figure.layout.xaxis.title.text.split("<br>")), "cut off on a phone"
    samples = [trace for trace in figures["novelty"].data if trace.name == "samples"]
    assert samples[0].marker.color == ACCENT and len(samples[0].x) == 18
    rights = figures["accuracies"]
    pixel = (rights.layout.yaxis.range[1] - rights.layout.yaxis.range[0]) / (rights.layout.height - 40)
    dots = [trace for trace in rights.data if trace.mode == "markers"]
    medians = [trace for trace in rights.data if trace.mode == "text"]
    assert len(dots) == len(medians) == 5
    for row, median in zip(dots, medians, strict=True):
        assert max(row.y) + 3.5 * pixel < median.y[0] - 6 * pixel, "the words stand above the dots"
    page = write_html(figures["map"], tmp_path / "map.html", "map", "<b>words</b>").read_text()
    assert QUESTIONS["map"] in page and "<b>words" not in page and len(page) > 10**6


# ------------------------------------------------------------------------------------------------------ verb


def test_the_verb(cheap, folder, tiny_bundle, tmp_path, capsys):
    out = tmp_path / "out"
    asked = [
        "explore",
        "--bundle",
        tiny_bundle,
        "--data",
        folder,
        "--num-samples",
        6,
        "--num-trained",
        4,
        "--shots",
        3,
        "--out",
        out,
        "--device",
        "cpu",
        "--perplexity",
        4,
        "--dimensions",
        3,
    ]
    assert cli.main([str(word) for word in asked]) == 0
    said = capsys.readouterr().out
    assert "6 samples for 1 task" in said and str(out) in said
    names = {file.name for file in out.iterdir()}
    assert names >= {"map.html", "map-pca.html", "novelty.html", "projection.csv", "summary.json", "projector"}
    assert json.loads((out / "summary.json").read_text())["tasks"][0]["name"] == "fresh"
    assert "scatter3d" in (out / "map.html").read_text() and "tsne_3" in (out / "projection.csv").read_text()
    assert cli.main([str(word) for word in asked]) == 2
    assert "out exists already" in capsys.readouterr().err
    asked += ["--out", tmp_path / "other"]
    assert cli.main([str(word) for word in [*asked, "--part", "row 99"]]) == 2
    assert cli.main([str(word) for word in [*asked, "--tasks", "2", "--data", folder, folder]]) == 2
    mistakes = capsys.readouterr().err
    assert "There is no part row 99" in mistakes and "--tasks draws tasks from one data set" in mistakes
    assert "Traceback" not in mistakes and not (tmp_path / "other").exists()


def test_the_table_has_no_unknown_columns(found, view):
    columns = table(found, view)
    assert {len(values) for values in columns.values()} == {len(view.rows)}
    zoo = columns["origin"].index(ZOO)
    assert columns["task"][zoo] == "a zoo task of 3 classes" and columns["head"][zoo].startswith("zoo head ")


def test_a_zoo_head_in_place_of_the_chosen_one(found):
    index = int(found.heads.of(ZOO)[found.heads.counts[found.heads.of(ZOO)] == 3][0])
    head, task = found.head(index), found.tasks[0]
    shown = task.with_chosen(head)
    assert shown.head is head and shown.report.selection.startswith("zoo head ")
    predicted = head.module()(task.query).argmax(1)
    assert shown.report.query_accuracy.chosen == pytest.approx(float((predicted == task.labels).float().mean()))
    assert shown.confusion.trace() == (predicted == task.labels).sum() and shown.report.samples
    assert task.generation.report.selection != shown.report.selection
