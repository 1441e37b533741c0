"""The map of tasks of texts: places, distances, words, files, the verb, and what is refused."""

import csv
import json

import numpy as np
import pytest
import torch

from d2nwg.bundles import load_adapter_pipeline
from d2nwg.cli import main
from d2nwg.exploration.task_map import map_tasks
from d2nwg.exploration.task_words import save, sentences, summary
from d2nwg.utils.errors import UserError
from tests.helpers.text_tasks import DESCRIBED

TONE = "Did the reviewer enjoy the film?"


@pytest.fixture(scope="module")
def made(adapters):
    return map_tasks(TONE, bundle=adapters, num_samples=5)


def test_points_are_the_zoos_and_the_samples(made, adapters):
    _, pipe = load_adapter_pipeline(adapters)
    space = pipe.weight_space
    assert [task.name for task in made.tasks] == list(DESCRIBED) and len(made.vectors) == len(space.zoo_vectors) > 4
    assert np.array_equal(made.owners, space.zoo_tasks.numpy())
    samples = pipe(TONE, 5, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(made.samples, samples.vectors.numpy(), atol=1e-5)
    np.testing.assert_allclose(made.distance, samples.distance.numpy(), rtol=1e-4)
    state = space.to_states(samples.vectors, samples.task.rows)
    name = next(iter(samples.state))
    torch.testing.assert_close(state[name], samples.state[name])
    for plane in (made.projection.tsne, made.projection.pca):
        assert plane.shape == (len(made.vectors) + 5, 2)


def test_distances_are_in_the_median_one_within_a_task(made):
    far = np.linalg.norm(made.vectors[:, None] - made.vectors[None], axis=-1)
    same = made.owners[:, None] == made.owners[None]
    own = np.where(same & ~np.eye(len(far), dtype=bool), far, np.inf).min(1)
    unit = float(torch.from_numpy(own).median())
    np.testing.assert_allclose(made.apart, own / unit, rtol=1e-3)
    np.testing.assert_allclose(made.between, np.where(same, np.inf, far).min(1) / unit, rtol=1e-3)
    to_zoo = np.linalg.norm(made.samples[:, None] - made.vectors[None], axis=-1)
    np.testing.assert_allclose(made.distance, to_zoo.min(1) / unit, rtol=1e-3)
    assert np.array_equal(made.beside, to_zoo.argmin(1)) and made.copies == int((to_zoo.min(1) / unit < 0.5).sum())


def test_sentences(made, adapters):
    first, samples, keeps, within = sentences(made)
    assert first.startswith("This is a task that the generator knows, tone. Nearest by description (cosine): tone (0.")
    assert samples.startswith(f"5 samples lie {np.median(made.distance):.2f} from the nearest zoo adapter")
    assert keeps.startswith(f"The bundle adapters keeps {len(made.vectors)} adapters of 2 tasks (tone, contrary)")
    assert "median 1, the unit" in within
    new = map_tasks("How hot is this soup?", bundle=adapters, num_samples=1)
    assert sentences(new)[0].startswith("The generator knows no such task, so expect little")
    alone = map_tasks(bundle=adapters)
    assert len(alone.samples) == 0 and not alone.nearest and sentences(alone)[0].startswith("The bundle adapters keeps")


def test_files(made, tmp_path):
    saved = save(made, tmp_path)
    with open(tmp_path / "tasks.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["origin"] for row in rows] == ["zoo"] * len(made.vectors) + ["sample"] * 5
    assert rows[0]["task"] == "tone" and rows[0]["description"] == DESCRIBED["tone"][0]
    assert rows[-1]["description"] == TONE and float(rows[-1]["distance"]) == pytest.approx(made.distance[-1], abs=1e-4)
    report = json.loads((tmp_path / "tasks.json").read_text())
    assert report == summary(made) and report["nearest"][0]["task"] == "tone" and len(saved["projector"]) == 3
    assert report["tasks"][1]["classes"] == ["no", "yes"] and report["seen"] is True


@pytest.mark.parametrize(
    ("description", "options", "words"),
    [
        ("x" * 5_001, {}, "5,001 characters"),
        (TONE, {"num_samples": 0}, "number of samples"),
        (TONE, {"perplexity": 0}, "perplexity"),
        (TONE, {"seed": -1}, "seed"),
        (TONE, {"bundle": "heads-dual"}, "There is no bundle heads-dual"),
    ],
)
def test_what_cannot_be_mapped_is_refused_in_a_sentence(description, options, words, adapters):
    with pytest.raises(UserError, match=words):
        map_tasks(description, **{"bundle": adapters, **options})


def test_without_a_bundle_it_says_how_to_make_one(tmp_path, monkeypatch):
    monkeypatch.setattr("d2nwg.bundles.list_bundles", lambda makes="head": {})
    with pytest.raises(UserError, match=r"No bundle of adapters is at hand: .* zoo build TASK… --adapter lora"):
        map_tasks(TONE)


def test_the_command_line(adapters, tmp_path, capsys):
    line, out = ["explore", "--bundle", str(adapters), "--out"], tmp_path / "out"
    assert main([*line, str(out), "--describe", TONE, "--num-samples", "3"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("This is a task that the generator knows, tone.") and "3 samples lie" in said
    assert {"map.html", "map-pca.html", "tasks.csv", "tasks.json", "projector"} <= {path.name for path in out.iterdir()}
    assert "Where do samples for your description lie?" in (out / "map.html").read_text()
    assert main([*line, str(tmp_path / "alone"), "--describe"]) == 0
    assert capsys.readouterr().out.startswith("The bundle adapters keeps")
    for given, words in (
        (["--describe", TONE, "--names", "a, b"], "leave out --data, --names and --search"),
        (["--describe", ""], "The argument describe is empty"),
    ):
        assert main([*line, str(tmp_path / "none"), *given]) == 2
        assert words in capsys.readouterr().err and not (tmp_path / "none").exists()
