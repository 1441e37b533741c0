"""Exploring a bundle of whole networks that are made for a data set."""

import csv
import json

import numpy as np
import pytest
import torch

from d2nwg import cli
from d2nwg.analysis.compare import spacing
from d2nwg.analysis.populations import MADE, SAMPLE, TRAINED, ZOO
from d2nwg.data.images import load_images
from d2nwg.evaluation.zoo_baselines import AVERAGE, NOISE, RANDOM
from d2nwg.exploration.explore import explore
from d2nwg.exploration.look import look
from d2nwg.exploration.words import details, summary, verdict
from d2nwg.figures.explore import QUESTIONS, all_figures
from d2nwg.network_generation import generate_network
from d2nwg.training.config import DatasetNetworksConfig
from d2nwg.training.run import train_bundle
from d2nwg.utils.errors import UserError
from tests.helpers.small_zoo import pictures, write_small_zoo

SETTINGS = dict(shots=3, max_query=24, device="cpu")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A tiny bundle of networks."""
    folder = tmp_path_factory.mktemp("networks")
    config = DatasetNetworksConfig.preset("tiny", steps=2, width=16, coordinates=4, components=8)
    return train_bundle(write_small_zoo(folder / "zoo", networks=8), config, folder / "tiny-networks", device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """An array file of four classes."""
    images, labels = pictures(20, 0, 4)
    path = tmp_path_factory.mktemp("data") / "four.npz"
    np.savez(path, x=images.numpy()[:, 0], y=labels.numpy(), class_names=np.array(["ant", "bee", "fly", "moth"]))
    return path


@pytest.fixture(scope="module")
def found(bundle, data):
    made = dict(tasks=2, classes=3, num_samples=8, num_trained=4)
    return explore(load_images(data), bundle=bundle, **made, **SETTINGS)


@pytest.fixture(scope="module")
def view(found):
    return look(found, perplexity=3)


def test_what_is_compared(found, bundle):
    heads, space = found.heads, found.space
    assert len(heads.of(ZOO)) == len(space.zoo_trunks) > 2 and set(heads.counts) == {0}
    for i, task in enumerate(found.tasks):
        again = generate_network(task.images, bundle=bundle, num_samples=4, **SETTINGS)
        assert task.generation.report.samples == again.report.samples
        assert [len(heads.of(origin, i)) for origin in (SAMPLE, MADE, TRAINED)] == [4, 1, 2]
        reported = [sample.nearest_zoo_distance for sample in again.report.samples]
        assert found.distance[heads.of(SAMPLE, i)] == pytest.approx(reported, rel=1e-3), "as Generate has it"
        assert found.distance[heads.of(MADE, i)] == pytest.approx([again.report.distance], rel=1e-3)
    zoo = heads.vectors[heads.of(ZOO)]
    assert np.allclose(zoo, space.zoo_trunks.numpy()) and np.isfinite(heads.accuracy[heads.of(ZOO)]).all()
    gaps = torch.cdist(torch.from_numpy(zoo).double(), torch.from_numpy(zoo).double()).fill_diagonal_(torch.inf)
    assert spacing(heads, heads.vectors)[0] == pytest.approx(float(gaps.min(1).values.median()), rel=1e-4)


def test_every_network_can_be_taken_and_is_as_good_as_is_said(found):
    for origin in (ZOO, SAMPLE, TRAINED, MADE):
        index = int(found.heads.of(origin)[-1])
        network, task = found.head(index), found.scored_by(index)
        right = float((task.predicted(network) == task.labels).mean())
        assert (
            right == pytest.approx(network.info["query_accuracy"], abs=1e-6) and network.classes == task.images.classes
        )
        if origin != ZOO:  # of which the bundle says how good they were on their own tasks
            assert right == pytest.approx(found.heads.accuracy[index], abs=1e-6)


def test_baselines_get_a_last_layer_on_the_shown_images(found):
    zoo = found.heads.of(ZOO)
    assert found.baselines[ZOO].accuracy.shape == (2 * len(zoo),)
    own = found.tasks[1].score(found.space, found.heads.vectors[zoo])
    assert found.baselines[ZOO].accuracy[found.baselines[ZOO].task == 1] == pytest.approx(own)
    assert len(found.baselines[NOISE].accuracy) == len(found.baselines[AVERAGE].accuracy) == 8
    assert np.isnan(found.baselines[RANDOM].distance).all()
    vectors = found.heads.vectors[found.heads.of(SAMPLE, 0)]
    if found.tasks[0].generation.report.head == "closed-form":  # then that is how samples are completed too
        assert found.tasks[0].score(found.space, vectors) == pytest.approx(
            found.heads.accuracy[found.heads.of(SAMPLE, 0)], abs=0.1
        )


def test_views_parts_and_words(found, view):
    said = verdict(found, view)
    assert "zoo networks are" in said[0] and "distances between zoo neighbours" in said[1] and "head" not in said[0]
    assert "networks trained on the same images" in said[3]
    assert "The map shows networks by all layers but the last" in said[-1] and "of 8 zoo networks" in said[-1]
    assert found.parts() == ["all", *found.space.layout.spans] and found.parts("latent") == ["all"]
    name = found.parts()[1]
    span = found.space.layout.spans[name]
    assert look(found, part=name, perplexity=3).points.shape[1] == span.stop - span.start
    latent = look(found, where="latent", perplexity=3)
    assert latent.points.shape[1] == found.space.config.coordinates
    assert "in the zoo's principal coordinates" in verdict(found, latent)[1]
    with pytest.raises(UserError, match="There is no part row 1"):
        look(found, part="row 1")
    about = details(found, view, int(found.heads.of(MADE, 1)[0]))
    assert about["head"] == "generated network" and about["classes"] == 3 and len(about["neighbours"]) == 5
    assert about["task"] == found.tasks[1].name
    numbers = json.loads(json.dumps(summary(found, view)))
    assert numbers["makes"] == "network" and numbers["points"]["made"] == 2 and numbers["network"] == "mlp"


def test_the_figures_speak_of_networks(found, view):
    figures = all_figures(found, view)
    assert set(figures) == set(QUESTIONS)
    for name in ("map", "novelty", "similarity"):
        called = {trace.name for trace in figures[name].data}
        assert "generated network" in called and not any("head" in (each or "") for each in called)
    panels = [key for key in figures["densities"].to_dict()["layout"] if key.startswith("xaxis")]
    assert len(panels) == len(found.densities) == len(found.space.layout.spans)
    assert "zoo network, in distances" in figures["novelty"].layout.xaxis.title.text.replace("<br>", " ")


def test_the_verb(bundle, data, tmp_path, capsys):
    asked = f"explore --bundle {bundle} --data {data} --num-samples 3 --num-trained 2 --shots 2 --max-query 12"
    asked += f" --perplexity 3 --device cpu --out {tmp_path / 'out'}"
    assert cli.main(asked.split()) == 0
    assert "3 samples for 1 task with" in capsys.readouterr().out
    with (tmp_path / "out" / "projection.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["network"] for row in rows if row["origin"] == "made"} == {"generated network"}
    assert all(row["distance_to_nearest_zoo_network"] for row in rows)
    assert cli.main([*asked.split()[:-1], str(tmp_path / "other"), "--sampler", "ancestral"]) == 2
    assert "have one sampler" in capsys.readouterr().err and not (tmp_path / "other").exists()
