"""What the paper's ablations vary: every choice trains, is saved, loaded and sampled, and does what it says."""

import json
from dataclasses import replace

import pytest
import torch

from d2nwg.bundles import load_bundle
from d2nwg.cli import main
from d2nwg.training import stages
from d2nwg.training.config import NetworksConfig, UNetConfig
from d2nwg.training.data import ZooBatches, training_records
from d2nwg.training.loop import step_rng
from d2nwg.training.run import train_bundle
from d2nwg.training.space import fit_layout
from d2nwg.training.stages import make_denoiser, make_vae
from d2nwg.training.trial import unreal, weights
from d2nwg.utils.errors import UserError
from tests.helpers.training import quick_config

FEW = dict(vae_steps=2, align_steps=2, diffusion_steps=2, batch_size=4, predictor_steps=2)


def trained(zoo, folder, steps=FEW, **changes):
    """The pipeline of a bundle that was trained for a step or two, saved and loaded; and its folder."""
    bundle = train_bundle(zoo, quick_config(**steps | changes), folder / "bundle", device="cpu")
    return load_bundle(bundle), bundle


def support(seed: int = 0, classes: int = 3) -> torch.Tensor:
    return torch.rand(classes, 2, 48, generator=torch.Generator().manual_seed(seed))


def sample(pipe, given, count: int = 2):
    return pipe(given, num_samples=count, num_inference_steps=2, generator=torch.Generator().manual_seed(0))


def stages_of(bundle) -> list[str]:
    lines = [json.loads(line) for line in (bundle / "metrics.jsonl").read_text().splitlines()]
    return list(dict.fromkeys(line["stage"] for line in lines if "loss" in line))


def test_without_a_condition_the_support_says_how_many_classes_alone(tiny_zoo, tmp_path):
    pipe, bundle = trained(tiny_zoo, tmp_path, condition="none")
    first, other = sample(pipe, support(0)), sample(pipe, support(1))
    assert torch.equal(first.state["weight"], other.state["weight"]) and first.state["weight"].shape == (2, 3, 48)
    assert sample(pipe, support(0, 4)).state["weight"].shape == (2, 4, 48)
    assert stages_of(bundle) == ["vae", "denoiser"], "there is nothing to align"
    assert "from nothing (any head of the zoo)" in (bundle / "README.md").read_text()


def test_without_a_vae_the_latents_are_the_standardised_weights(tiny_zoo, tmp_path):
    pipe, bundle = trained(tiny_zoo, tmp_path, vae=False)
    vectors = pipe.weight_space.zoo_vectors[:5]
    latents = pipe.vae.encode(vectors).sample()
    assert torch.equal(pipe.vae.decode(latents), vectors), "nothing is lost"
    # A class's row of 17 numbers lies in its row of the picture, and zeros behind it.
    rows = latents.unflatten(2, (6, -1)).movedim(2, 1).flatten(2)
    assert torch.equal(rows[..., :17], vectors.unflatten(1, (6, 17))) and not rows[..., 17:].any()
    samples = sample(pipe, support())
    used = pipe.padding(3).mask
    assert samples.vectors.shape == (2, 6 * 17) and used.sum() == used.numel() - 3 * 17
    assert not samples.vectors.unflatten(1, (6, 17))[:, 3:].any(), "rows of no class stay at zero"
    assert not torch.equal(samples.state["weight"], sample(pipe, support(1)).state["weight"])
    assert stages_of(bundle) == ["condition", "denoiser"]
    assert 0.8 < pipe.vae.config.latent_scale < 1.2, "they are standardised already"


@pytest.mark.parametrize("alignment", ["aligned", "joint"])
@pytest.mark.parametrize("encoder", ["set", "mlp"])
def test_the_condition_is_trained_with_the_denoiser_or_before_it(encoder, alignment, tiny_zoo, tmp_path, monkeypatch):
    before, train = {}, stages.Stages.train_denoiser

    def watched(self, denoiser, condition, vae, scheduler):
        before.update({name: value.clone() for name, value in condition.state_dict().items()})
        return train(self, denoiser, condition, vae, scheduler)

    monkeypatch.setattr(stages.Stages, "train_denoiser", watched)
    pipe, bundle = trained(tiny_zoo, tmp_path, dataset_encoder=encoder, alignment=alignment)
    after = pipe.condition_encoder.state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    mine = {"inward", "within", "across"} if encoder == "set" else {"mix", "outward"}
    assert moved == (mine if alignment == "joint" else set())
    assert stages_of(bundle) == ["vae", *["condition"] * (alignment == "aligned"), "denoiser"]
    assert type(pipe.condition_encoder).__name__ == ("DatasetEncoder" if encoder == "set" else "MLPEncoder")
    # The classes' order permutes the rows of heads, and changes nothing else.
    given, order = support(), [2, 0, 1]
    first, other = sample(pipe, given), sample(pipe, given[order])
    torch.testing.assert_close(other.state["weight"], first.state["weight"][:, order])
    assert not torch.equal(sample(pipe, support(1)).state["weight"], first.state["weight"])


def test_a_joint_run_that_is_killed_ends_the_same(tiny_zoo, tmp_path):
    from d2nwg.training.config_base import STAGES
    from d2nwg.utils.errors import Cancelled
    from tests.helpers.training import SHORT, stop_at, tensors

    config = quick_config(**SHORT, alignment="joint", vae=False)
    whole = train_bundle(tiny_zoo, config, tmp_path / "whole", device="cpu")
    with pytest.raises(Cancelled):
        train_bundle(tiny_zoo, config, tmp_path / "cut", device="cpu", progress=stop_at(STAGES["denoiser"], 3))
    cut = train_bundle(tiny_zoo, config, tmp_path / "cut", resume=True, device="cpu")
    first, second = tensors(whole), tensors(cut)
    assert all(torch.equal(first[name], second[name]) for name in first) and list(first) == list(second)


def test_a_part_of_the_zoo(tiny_zoo, tmp_path, monkeypatch):
    drawn = set()
    records = type(tiny_zoo).records
    monkeypatch.setattr(
        type(tiny_zoo), "records", lambda zoo, rows, *steps: drawn.update(map(int, rows)) or records(zoo, rows, *steps)
    )
    pipe, _ = trained(tiny_zoo, tmp_path, zoo_records=12)
    kept = set(training_records(tiny_zoo, 12, 0).tolist())
    assert len(kept) == 12 and drawn - set(range(240, 300)) == kept, "and the held-out ones measure"
    assert len(pipe.weight_space.zoo_vectors) == 12
    # Another seed takes others, spread over the zoo; more than there are is all.
    assert kept != set(training_records(tiny_zoo, 12, 1).tolist()) and max(kept) > 120
    assert training_records(tiny_zoo, 10**6, 0).tolist() == list(range(240))


def test_the_whole_head_is_a_picture(tiny_zoo, tmp_path):
    pipe, _ = trained(tiny_zoo, tmp_path, token="head", patch=(1, 16, 16), vae_channels=(8, 8, 8), latent_channels=4)
    assert pipe.vae.config.tokens == 1 and pipe.vae.latent_shape == (4, 4, 4)
    assert sample(pipe, support()).state["weight"].shape == (2, 3, 48)


def test_the_papers_preset_is_the_papers():
    """Heads of 2,580 numbers on 20 classes: a latent of 1,024 (table 8), and networks of the sizes that it has."""
    config = UNetConfig.preset("paper")
    with unreal("the preset"):
        vae = make_vae(config, 2580, 1)
        from d2nwg.conditions.dataset import DatasetEncoder

        encoder = DatasetEncoder(128, config.encoder_width, depth=config.encoder_depth, latent_size=1024)
        denoiser = make_denoiser(config, vae, encoder, 20)
    assert vae.latent_shape == (4, 16, 16) and vae.inward.out_features == 64 * 64
    assert len(encoder.within.blocks) == len(encoder.across.blocks) == 2 and encoder.config.width == 1024
    assert config.prediction == "epsilon" and config.shots == (5,) and config.kl_weight == 1e-6
    assert (config.vae_lr, config.align_lr, config.diffusion_lr) == (1e-3, 1e-4, 1e-4)
    assert denoiser.dataset_map.out_features == 1024, "z_D lies beside the latent as a picture of its size"
    assert 80e6 < weights(denoiser) < 130e6, "102 M in table 24"


def test_the_papers_preset_trains_at_a_reduction(tiny_zoo, tmp_path):
    small = dict(vae_channels=(8, 16, 16), unet_channels=(32, 32, 32), encoder_width=32, mixed_precision="no")
    config = UNetConfig.preset("paper", **FEW, **small)
    bundle = train_bundle(tiny_zoo, config, tmp_path / "bundle", device="cpu")
    pipe = load_bundle(bundle)
    assert pipe.vae.latent_shape == (4, 16, 16) and pipe.scheduler.config.prediction_type == "epsilon"
    assert sample(pipe, support()).state["weight"].isfinite().all()
    # The parameters of each part, as table 24 has them, are in the card and beside it.
    parts = json.loads((bundle / "training.json").read_text())["networks"]
    assert set(parts) == {"vae", "condition_encoder", "denoiser"}
    for name, part in parts.items():
        assert part["parameters"] == sum(one.numel() for one in getattr(pipe, name).parameters())
        assert f"| {name} | {part['type']} | {part['parameters']:,} |" in (bundle / "README.md").read_text()


@pytest.mark.parametrize("changes", [dict(vae=False), dict(alignment="joint"), dict(predictor="weights")])
def test_networks_have_the_same_choices(changes, tmp_path, capsys):
    from tests.helpers.small_zoo import write_small_zoo

    zoo = write_small_zoo(tmp_path / "zoo", 12)
    config = NetworksConfig.preset("tiny", **FEW, **changes)
    pipe = load_bundle(train_bundle(zoo, config, tmp_path / "bundle", device="cpu"))
    samples = pipe(0, "task-1", num_samples=3, num_inference_steps=2, generator=torch.Generator().manual_seed(0))
    assert all(value.isfinite().all() for value in samples.state.values())
    if "predictor" in changes:
        assert samples.expected.shape == (3,) and samples.ranked()[0] == int(samples.expected.argmax())
        options = ["--task", "task-1", "--num-samples", "3", "--steps", "2", "--seed", "0", "--device", "cpu"]
        assert main(["sample", str(tmp_path / "bundle"), *options, "--out", str(tmp_path / "made")]) == 0
        best = samples.ranked()[0]
        assert f"expects these to be best: {best:03} on {samples.expected[best]:.1%}, " in capsys.readouterr().out
    else:
        assert samples.expected is None and samples.ranked() == [0, 1, 2]


def test_networks_without_a_known_accuracy_have_no_predictor(tmp_path):
    from d2nwg.weights.model_zoo import ModelZoo
    from tests.helpers.small_zoo import write_small_zoo

    folder = write_small_zoo(tmp_path / "zoo", 5).path
    about = json.loads((folder / "zoo.json").read_text())
    for record in about["records"]:
        del record["accuracy"]
    (folder / "zoo.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="No network of the zoo .* has an accuracy: leave out the predictor"):
        train_bundle(
            ModelZoo(folder), NetworksConfig.preset("tiny", **FEW, predictor="weights"), tmp_path / "b", device="cpu"
        )


def test_a_predictor_of_images_is_refused_where_none_are_shown(tiny_zoo, tmp_path):
    with pytest.raises(UserError, match="sees no images: choose predictor=weights"):
        train_bundle(tiny_zoo, quick_config(**FEW, condition="task", predictor="dataset"), tmp_path / "b", device="cpu")


def test_the_stages_are_those_that_run():
    config = UNetConfig()
    assert list(config.stages()) == ["vae", "condition", "denoiser"]
    assert next(iter(replace(config, predictor="weights").stages())) == "predictor"
    assert list(replace(config, vae=False, alignment="joint").stages()) == ["denoiser"]
    assert list(replace(config, condition="none").stages()) == ["vae", "denoiser"]


def test_spoilt_heads_are_measured_and_the_others_as_recorded(tiny_zoo):
    import numpy as np

    data = ZooBatches(tiny_zoo, fit_layout(tiny_zoo), (2,), torch.device("cpu"))
    records = tiny_zoo.records(range(30))
    rng, _ = step_rng(0, "test", 0)
    judged = data.judged(records, np.arange(30) % 3, rng)
    same = torch.arange(30) % 3 == 0
    assert torch.equal(judged.accuracy[same], records.accuracy[same])
    assert torch.equal(judged.state["weight"][same], records.state["weight"][same])
    assert not torch.equal(judged.state["weight"][~same], records.state["weight"][~same])
    torch.testing.assert_close(judged.accuracy, data.query_accuracy(judged.state, records))
    assert judged.accuracy[~same].mean() < records.accuracy[~same].mean() - 0.02
