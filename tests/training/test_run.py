"""Training: the three stages, runs that are killed and taken up again, and what is refused."""

import json
from dataclasses import replace

import pytest
import torch

from d2nwg.training.config import UNetConfig
from d2nwg.training.config_base import STAGES
from d2nwg.training.data import ZooBatches, shuffle_classes
from d2nwg.training.loop import step_rng
from d2nwg.training.run import train_bundle
from d2nwg.utils.errors import Cancelled, UserError
from d2nwg.weights.build import build_zoo
from d2nwg.weights.layouts import WholeLayout
from d2nwg.weights.networks import head_shapes, logits
from d2nwg.weights.zoo import Zoo, ZooConfig
from tests.helpers.training import SHORT, quick_config, stop_at, tensors

IDS = ("vae", "condition", "denoiser")


@pytest.fixture(scope="module")
def undisturbed(tiny_zoo, tmp_path_factory):
    return train_bundle(tiny_zoo, quick_config(**SHORT), tmp_path_factory.mktemp("runs") / "bundle", device="cpu")


def test_a_run_killed_in_every_stage_ends_the_same(undisturbed, tiny_zoo, tmp_path):
    config, out = quick_config(**SHORT), tmp_path / "bundle"
    for i, stage in enumerate(map(STAGES.get, IDS)):  # after a checkpoint and one step more
        with pytest.raises(Cancelled):
            train_bundle(tiny_zoo, config, out, resume=i > 0, device="cpu", progress=stop_at(stage, 3))
        assert not out.exists() and [p.name for p in tmp_path.iterdir()] == ["bundle.training"]
        torch.rand(i + 1)  # whatever else the process did meanwhile
    # The settings of the run are the ones it was started with.
    seen = []
    train_bundle(
        tiny_zoo, quick_config(vae_steps=999), out, resume=True, device="cpu", progress=lambda *step: seen.append(step)
    )
    assert (STAGES["denoiser"], 2, 6) in seen and (STAGES["denoiser"], 1, 6) not in seen, "goes on from the checkpoint"
    first, second = tensors(undisturbed), tensors(out)
    assert len(first) > 100 and list(first) == list(second)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    configs = [sorted(p.read_text() for p in bundle.rglob("config.json")) for bundle in (undisturbed, out)]
    assert configs[0] == configs[1]
    assert not (tmp_path / "bundle.training").exists()


def test_a_run_killed_before_its_first_checkpoint(undisturbed, tiny_zoo, tmp_path):
    out = tmp_path / "bundle"
    with pytest.raises(Cancelled):
        train_bundle(tiny_zoo, quick_config(**SHORT), out, device="cpu", progress=stop_at(STAGES["vae"], 1))
    train_bundle(tiny_zoo, quick_config(**SHORT), out, resume=True, device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(tensors(undisturbed).values(), tensors(out).values(), strict=True))


def test_what_a_bundle_holds(tiny_bundle, tiny_zoo):
    names = {path.name for path in tiny_bundle.iterdir()}
    assert names == {
        "model_index.json",
        "README.md",
        "metrics.jsonl",
        "training.json",
        "vae",
        "condition_encoder",
        "denoiser",
        "scheduler",
        "weight_space",
    }
    made = json.loads((tiny_bundle / "training.json").read_text())
    assert UNetConfig.from_config(made["config"]) == quick_config() and made["zoos"] == [tiny_zoo.summary()]
    assert set(made["measured"]) == {"zoo_accuracy", "reconstructed_accuracy", "seconds"}
    card = (tiny_bundle / "README.md").read_text()
    assert "| patterns | 24 |" in card and "heads (2 to 6 classes)" in card and "`fake/colours`" in card


def test_the_log_has_the_three_stages(tiny_bundle):
    log = [json.loads(line) for line in (tiny_bundle / "metrics.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(line["stage"] for line in log)) == [*IDS, "finished"]
    for stage, steps in zip(IDS, (30, 20, 30), strict=True):
        lines = [line for line in log if line["stage"] == stage and "loss" in line]
        assert [lines[0]["step"], lines[-1]["step"], lines[0]["steps"]] == [1, steps, steps]
        assert all(line["loss"] == line["loss"] and line["loss"] < 1e3 for line in lines)
    measured = next(line for line in log if "reconstructed_accuracy" in line)
    assert measured["stage"] == "vae" and 0.5 < measured["zoo_accuracy"] <= 1
    assert [log[0]["stage"], log[-1]["stage"]] == ["vae", "finished"]


def test_an_existing_bundle_is_refused(tiny_zoo, tmp_path):
    (tmp_path / "bundle").mkdir()
    for resume in (False, True):
        with pytest.raises(UserError, match="bundle exists already"):
            train_bundle(tiny_zoo, quick_config(), tmp_path / "bundle", resume=resume, device="cpu")
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_nothing_to_resume(tiny_zoo, tmp_path):
    with pytest.raises(UserError, match="no unfinished run"):
        train_bundle(tiny_zoo, quick_config(), tmp_path / "bundle", resume=True, device="cpu")
    assert not list(tmp_path.iterdir())


def test_an_unfinished_run_is_not_overwritten(tiny_zoo, cheap_encoder, patterns, tmp_path):
    from d2nwg.data.images import load_images

    out = tmp_path / "bundle"
    with pytest.raises(Cancelled):
        train_bundle(tiny_zoo, quick_config(**SHORT), out, device="cpu", progress=stop_at(STAGES["vae"], 3))
    with pytest.raises(UserError, match="unfinished run lies in .*--resume"):
        train_bundle(tiny_zoo, quick_config(**SHORT), out, device="cpu")
    other = build_zoo([load_images(patterns)], cheap_encoder, ZooConfig(subsets=5, width=16), tmp_path / "other")
    with pytest.raises(UserError, match=f"was started on the zoo {tiny_zoo.path}"):
        train_bundle(other, quick_config(**SHORT), out, resume=True, device="cpu")


def test_a_device_that_is_not_there(tiny_zoo, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device cuda:3"):
        train_bundle(tiny_zoo, quick_config(), tmp_path / "bundle", device="cuda:3")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("subsets", [1, 4])
def test_a_zoo_too_small_to_learn_from(subsets, cheap_encoder, patterns, tmp_path):
    from d2nwg.data.images import load_images

    zoo = build_zoo([load_images(patterns)], cheap_encoder, ZooConfig(subsets=subsets, width=16), tmp_path / "zoo")
    with pytest.raises(UserError, match=f"has only {subsets} records"):
        train_bundle(zoo, quick_config(**SHORT), tmp_path / "bundle", device="cpu")


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_any_prediction_target_trains(prediction, tiny_zoo, tmp_path):
    from d2nwg.pipelines.heads import WeightGenerationPipeline

    config = quick_config(**SHORT | dict(vae_steps=2, align_steps=1, diffusion_steps=2), prediction=prediction)
    bundle = train_bundle(tiny_zoo, config, tmp_path / "bundle", device="cpu")
    pipe = WeightGenerationPipeline.from_pretrained(bundle)
    assert pipe.scheduler.config.prediction_type == prediction
    pipe.set_progress_bar_config(disable=True)
    samples = pipe(torch.rand(3, 2, 48), num_samples=2, num_inference_steps=3)
    assert all(tensor.isfinite().all() for tensor in samples.state.values())


def test_two_layer_heads_train_and_sample(tiny_mlp_bundle):
    from d2nwg.pipelines.heads import WeightGenerationPipeline

    pipe = WeightGenerationPipeline.from_pretrained(tiny_mlp_bundle)
    samples = pipe(torch.rand(3, 2, 48), num_samples=2, num_inference_steps=2)
    assert {n: tuple(t.shape) for n, t in samples.state.items()} == {
        "0.weight": (2, 6, 48),
        "0.bias": (2, 6),
        "2.weight": (2, 3, 6),
        "2.bias": (2, 3),
    }
    x = torch.rand(5, 48)
    torch.testing.assert_close(samples.modules[1](x), logits(samples.state, x)[1], rtol=1e-4, atol=1e-3)


def test_presets():
    for name in UNetConfig.PRESETS:
        config = UNetConfig.preset(name, seed=5)
        assert UNetConfig.from_config(json.loads(json.dumps(config.to_config()))) == config and config.seed == 5
    with pytest.raises(UserError, match="no preset 'huge': choose one of tiny, small, standard, paper"):
        UNetConfig.preset("huge")


def test_the_random_numbers_of_a_step_are_its_own():
    def draw(*name):
        rng, generator = step_rng(*name)
        return float(rng.random()), float(torch.rand((), generator=generator))

    assert draw(0, "a", 1) == draw(0, "a", 1)
    assert len({draw(*n) for n in [(0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2), (0, "a", 1, 1)]}) == 5


@pytest.fixture
def batches(tiny_zoo) -> ZooBatches:
    layout = WholeLayout(head_shapes("linear", 16, 6), num_classes=6, tokens=6)
    return ZooBatches(Zoo(tiny_zoo.path), layout, (2,), torch.device("cpu"))


def test_shuffled_classes_keep_head_and_support_together(batches):
    records = batches.zoo.records(range(20))
    rng, _ = step_rng(0, "test", 0)
    state, support = shuffle_classes(records, rng)
    assert not torch.equal(support, records.support)
    labels = batches.zoo.images["label"]
    for i in range(20):
        count = int(records.counts[i])
        slots = support[i, :count, 0]
        assert (slots >= 0).all() and (support[i, count:] == -1).all(), "used slots stay first"
        place = [records.classes[i].tolist().index(int(labels[n])) for n in slots]
        assert torch.equal(state["weight"][i, :count], records.state["weight"][i, place])
        assert torch.equal(state["bias"][i, :count], records.state["bias"][i, place])


def test_a_batch_is_zero_where_nothing_counts(batches):
    rng, _ = step_rng(0, "test", 0)
    batch = batches.draw(10, rng)
    assert batch.vectors.shape == batch.mask.shape == (10, 6 * 17)
    assert not batch.vectors[~batch.mask].any() and torch.equal(batch.mask, batches.layout.mask(batch.counts))
    features, mask = batches.condition_input(batch.support, rng)
    assert features.shape == (10, 6, 2, 16) and torch.equal(mask.any(-1).sum(1), batch.counts)
    assert mask.sum(-1).max() == 2 and not features[~mask].any()


def test_records_kept_aside_are_never_drawn(batches):
    aside = set(batches.aside)
    assert len(aside) == 60 and max(aside) == 299
    drawn = []
    batches.zoo.records = lambda numbers, steps: drawn.extend(numbers) or Zoo.records(batches.zoo, numbers, steps)
    for step in range(20):
        batches.draw(32, step_rng(0, "test", step)[0])
    assert len(drawn) == 640 and not aside & set(drawn)


def test_the_held_aside_score_is_the_zoos_own_measure(batches):
    records = batches.zoo.records(list(batches.aside))
    measured = batches.query_accuracy(records.state, records)
    # 12 images a class: 8 support, 4 held out, all of them scored here and there.
    torch.testing.assert_close(measured, records.accuracy)
    wrong = replace(records, support=records.support)
    flipped = {name: -tensor for name, tensor in records.state.items()}
    assert float(batches.query_accuracy(flipped, wrong).mean()) < 0.2


def test_a_batch_in_parts_gives_the_same_losses(tiny_zoo, tmp_path):
    """Gradients accumulated over four parts of a batch: the losses of the whole batch, in as many steps."""
    curves = []
    for parts in (1, 4):
        config = quick_config(vae_steps=20, align_steps=2, diffusion_steps=20, batch_size=16, accumulate=parts)
        bundle = train_bundle(tiny_zoo, config, tmp_path / f"in-{parts}", device="cpu")
        lines = [json.loads(line) for line in (bundle / "metrics.jsonl").open()]
        curves.append({(line["stage"], line["step"]): line["loss"] for line in lines if "loss" in line})
    assert curves[0].keys() == curves[1].keys()
    for (stage, step), loss in curves[0].items():
        if stage != "condition":  # whose loss compares the members of a part
            assert curves[1][stage, step] == pytest.approx(loss, rel=0.15), (stage, step)
    with pytest.raises(UserError, match="at least one record for each process"):
        train_bundle(tiny_zoo, quick_config(batch_size=2, accumulate=3), tmp_path / "none", device="cpu")


def test_parts_of_a_batch_are_all_of_it(tiny_zoo, tmp_path, monkeypatch):
    """Each record of a batch is in exactly one part, and the optimiser steps once."""
    from d2nwg.training import loop

    drawn, stepped = [], []
    batch = ZooBatches.batch

    def watched(self, records, rng):
        drawn.append(len(records.counts))
        return batch(self, records, rng)

    monkeypatch.setattr(ZooBatches, "batch", watched)
    monkeypatch.setattr(
        loop,
        "_save",
        lambda checkpoint, step, modules, optimiser, *rest: stepped.append(
            next(iter(optimiser.state_dict()["state"].values()))["step"].item()
        ),
    )
    config = quick_config(**SHORT | dict(batch_size=7, checkpoint_every=6), accumulate=3)
    train_bundle(tiny_zoo, config, tmp_path / "out", device="cpu")
    assert drawn[: 3 * 6] == [3, 2, 2] * 6 and stepped == [6, 6, 6]


def test_an_unfinished_run_of_another_version_is_refused(tiny_zoo, tmp_path):
    """Its stages had other names, and so other checkpoints and other random numbers."""
    out = tmp_path / "bundle"
    with pytest.raises(Cancelled):
        train_bundle(tiny_zoo, quick_config(**SHORT), out, device="cpu", progress=stop_at(STAGES["vae"], 3))
    saved = tmp_path / "bundle.training" / "config.json"
    run = json.loads(saved.read_text())
    assert run.pop("format") == 2
    saved.write_text(json.dumps(run))
    with pytest.raises(UserError, match="begun by another version: remove that folder and train anew"):
        train_bundle(tiny_zoo, quick_config(**SHORT), out, resume=True, device="cpu")


def test_a_reworded_stage_goes_on(tiny_zoo, tmp_path, monkeypatch):
    """Ids name the checkpoints and seed the random numbers; what a person reads may change between two sittings."""
    whole = train_bundle(tiny_zoo, quick_config(**SHORT), tmp_path / "whole", device="cpu")
    out = tmp_path / "bundle"
    with pytest.raises(Cancelled):
        train_bundle(tiny_zoo, quick_config(**SHORT), out, device="cpu", progress=stop_at(STAGES["condition"], 3))
    for stage in list(STAGES):
        monkeypatch.setitem(STAGES, stage, f"Now called {stage}")
    seen = []
    train_bundle(tiny_zoo, quick_config(**SHORT), out, resume=True, device="cpu", progress=lambda *at: seen.append(at))
    assert ("Now called condition", 2, 6) in seen and ("Now called condition", 1, 6) not in seen
    first, again = tensors(whole), tensors(out)
    assert all(torch.equal(first[name], again[name]) for name in first)
