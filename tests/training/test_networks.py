"""Whole models: a generator on a zoo of checkpoints of two architectures, its bundle, and networks from it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from d2nwg.bundles import list_bundles, resolve_bundle
from d2nwg.cli import main
from d2nwg.pipelines.networks import NetworkGenerationPipeline
from d2nwg.training.config import NetworksConfig
from d2nwg.training.config_base import STAGES
from d2nwg.training.networks import NetworkBatches, network_space
from d2nwg.training.run import train_bundle
from d2nwg.utils.errors import Cancelled, UserError
from d2nwg.weights.imports import import_checkpoints
from d2nwg.weights.layer_types import copy_matching
from d2nwg.weights.model_zoo import ModelZoo
from d2nwg.weights.open import open_zoo
from tests.helpers.networks import network, staged
from tests.helpers.training import quick_config, stop_at, tensors

CHUNKED = dict(layout="chunked", patch=(16, 1, 2), vae_channels=(16,), latent_channels=16)
INDEPENDENT = dict(
    chunk=36,
    patch=(16, 2, 2),
    vae_channels=(16,),
    latent_channels=8,
    unet_channels=(32,),
    encoder_width=64,
    batch_size=16,
)
SHORT = dict(vae_steps=4, align_steps=2, diffusion_steps=4, batch_size=4, checkpoint_every=2)


@pytest.fixture(scope="module")
def model_zoo(tmp_path_factory) -> ModelZoo:
    """Twelve networks: six of four with BatchNorm, six of six channels without; two tasks."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "checkpoints").mkdir()
    rows = ["file,task,accuracy"]
    for i in range(12):
        name = f"{'norm' if i % 2 else 'plain'}-{i:02}.safetensors"
        state = network(norm=i % 2 == 1, width=4 if i % 2 else 6, seed=i).state_dict()
        save_file({f"module.{n}" if i == 0 else n: t.clone() for n, t in state.items()}, folder / "checkpoints" / name)
        rows.append(f"{name},{'dots' if i % 4 < 2 else 'stripes'},{50 + i}")
    (folder / "checkpoints" / "scores.csv").write_text("\n".join(rows))
    import_checkpoints(folder / "checkpoints", folder / "zoo")
    return open_zoo(folder / "zoo")


@pytest.fixture(scope="module")
def bundle(model_zoo, tmp_path_factory):
    config = NetworksConfig.preset("tiny", vae_steps=150, diffusion_steps=20)
    return train_bundle(model_zoo, config, tmp_path_factory.mktemp("bundles") / "whole", device="cpu")


@pytest.mark.parametrize("batchnorm", ["travel", "recalibrate"])
@pytest.mark.parametrize("layout", ["whole", "chunked"])
def test_a_space_of_two_architectures(model_zoo, layout, batchnorm):
    space = network_space(model_zoo, NetworksConfig(layout=layout, batchnorm=batchnorm, chunk=16))
    data = NetworkBatches(model_zoo, space, torch.device("cpu"))
    batch = data.batch(list(range(12)))
    assert batch.vectors.shape == batch.mask.shape == (12, space.size)
    assert not batch.vectors[~batch.mask].any(), "padding is zero"
    assert sorted([*data.aside, *data.train.tolist()]) == list(range(12)) and len(data.aside) == 1
    told, plain = set(), 0
    for number in range(12):
        architecture = int(data.members[number, 0])
        state = space.to_states(batch.vectors[number : number + 1], architecture)
        original = model_zoo.plain_state(number)
        assert list(state) == list(original)
        for name, tensor in original.items():
            if batchnorm == "travel" or "running" not in name:
                expected = tensor if tensor.is_floating_point() else torch.zeros_like(tensor)
                torch.testing.assert_close(state[name][0], expected, rtol=1e-3, atol=1e-5)
            else:
                assert set(state[name].flatten().tolist()) == {float(name.endswith("var"))}
        told.add(tuple(batch.ids[number].tolist()))
        plain += "1.running_mean" not in original
    assert len(told) == 4 and plain == 6, "two architectures × two tasks"
    assert max(max(row) for row in told) == len(space.names) - 1
    tokens = batch.mask.reshape(12, space.config.tokens, -1).any(-1)
    assert torch.equal(tokens, batch.ids.reshape(12, -1, 2)[..., 0] >= 0), "ids where there are numbers"


def test_networks_of_a_bundle(bundle, model_zoo):
    pipe = NetworkGenerationPipeline.from_pretrained(bundle)
    assert {tuple(row) for row in pipe.weight_space.zoo_members.tolist()} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    for number, told in enumerate(pipe.weight_space.config.architectures):
        norm = told["name"].startswith("norm")
        net = network(norm=norm, width=4 if norm else 6)
        samples = pipe(told["name"], "dots", num_samples=3, generator=torch.Generator().manual_seed(0))
        again = pipe(number, "dots", num_samples=3, generator=torch.Generator().manual_seed(0))
        assert len(samples.states()) == len(samples) == 3 and samples.distance.shape == (3,)
        for state, other in zip(samples.states(), again.states(), strict=True):
            net.load_state_dict(state)
            assert net(torch.randn(2, 1, 4, 4)).isfinite().all()
            assert all(torch.equal(state[name], other[name]) for name in state)
        kept = pipe(number, "dots", num_samples=2, around=0.0)
        assert kept.distance.tolist() == [0, 0] or kept.distance.isnan().all()
        mine = [
            i for i, r in enumerate(model_zoo.records) if r["task"] == "dots" and r["name"].startswith(told["name"][:4])
        ]
        last = "4.weight"
        originals = torch.stack([model_zoo.plain_state(i)[last] for i in mine]).flatten(1)
        near = torch.cdist(kept.state[last].flatten(1), originals).min(1).values
        apart = torch.cdist(originals, originals).fill_diagonal_(torch.inf).min()
        assert (near < apart / 2).all(), "reconstructions of members"
    with pytest.raises(UserError, match="Say which task: the bundle knows dots, stripes"):
        pipe(0)
    with pytest.raises(UserError, match="has not seen the task cats"):
        pipe(0, "cats")
    with pytest.raises(UserError, match="2 architectures, counted from 0"):
        pipe(2, "dots")
    with pytest.raises(UserError, match="a share from 0 to 1"):
        pipe(0, "dots", around=2.0)


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> ModelZoo:
    """One checkpoint of a network of three blocks a stage."""
    folder = tmp_path_factory.mktemp("one")
    save_file(staged(3).state_dict(), folder / "three.safetensors")
    import_checkpoints(folder / "three.safetensors", folder / "zoo")
    return open_zoo(folder / "zoo")


@pytest.fixture(scope="module")
def layers(one, tmp_path_factory):
    """A bundle of its chunks."""
    config = NetworksConfig.preset("large", **INDEPENDENT, vae_steps=300, align_steps=20, diffusion_steps=300)
    out = train_bundle(one, config, tmp_path_factory.mktemp("bundles") / "layers", device="cpu")
    assert "One network is no distribution" in (out / "README.md").read_text()
    return NetworkGenerationPipeline.from_pretrained(out)


def test_every_chunk_is_an_item(model_zoo):
    space = network_space(model_zoo, NetworksConfig(layout="independent", chunk=16))
    data = NetworkBatches(model_zoo, space, torch.device("cpu"))
    told = set()
    for number in range(12):
        batch, architecture = data.batch([number]), int(data.members[number, 0])
        assert batch.vectors.shape == batch.mask.shape == (space.lengths[architecture], 16)
        assert not batch.vectors[~batch.mask].any(), "padding is zero"
        told |= {tuple(row) for row in batch.ids.tolist()}
        vectors = batch.vectors.flatten().unsqueeze(0)
        vectors = torch.nn.functional.pad(vectors, (0, space.size - vectors.shape[1]))
        for name, tensor in space.to_states(vectors, architecture).items():
            if tensor.is_floating_point():
                torch.testing.assert_close(tensor[0], model_zoo.plain_state(number)[name], rtol=1e-3, atol=1e-5)
    assert len(told) == 2 * sum(space.lengths) == len(space.latent_centres), "an id for each place, with each task"
    assert max(max(row) for row in told) == len(space.names) - 1
    drawn = data.draw(200, np.random.default_rng(0))
    assert drawn.vectors.shape == (200, 16) and len(drawn.group.unique()) > 20


def test_one_checkpoint_is_rebuilt_chunk_by_chunk(layers, one):
    original, samples = one.plain_state(0), layers(num_samples=3, generator=torch.Generator().manual_seed(0))
    staged(3).load_state_dict(samples.states()[2])
    assert list(samples.state) == list(original) and samples.distance.isnan().all(), "one network has no neighbours"
    near = ("layer1.0.conv1.weight", "layer1.1.conv1.weight", "layer1.2.conv1.weight")
    for name in near:  # each is conditioned on its own place
        errors = {other: float((samples.state[name] - original[other]).norm()) for other in near}
        assert min(errors, key=errors.__getitem__) == name, errors
    rebuilt = layers(num_samples=1, around=0.0).state
    assert float((rebuilt[near[0]][0] - original[near[0]]).norm() / original[near[0]].norm()) < 0.2


def test_a_chunk_does_not_depend_on_the_others(layers):
    items = layers.weight_space.items(torch.tensor([0, 0]))
    whole, _ = layers._sample(items[:5], 2, torch.Generator().manual_seed(0), 4)
    swapped = items[[0, 6, 7, 8, 9]]  # the same noise: what is sampled beside the first does not matter to it
    other, _ = layers._sample(swapped, 2, torch.Generator().manual_seed(0), 4)
    torch.testing.assert_close(whole[:, 0], other[:, 0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(whole[:, 1], other[:, 1], atol=1e-2)


def test_layers_for_another_architecture(layers, bundle, one):
    like = staged(5, seed=9)
    made = layers.assemble(like.state_dict(), num_samples=2, generator=torch.Generator().manual_seed(1))
    again = layers.assemble(like.state_dict(), num_samples=2, generator=torch.Generator().manual_seed(1))
    assert list(made) == list(like.state_dict()) and all(torch.equal(made[name], again[name]) for name in made)
    copied = copy_matching(one.plain_state(0), like.state_dict())
    for number in range(2):
        like.load_state_dict({name: value[number] for name, value in made.items()})
        assert like(torch.randn(2, 1, 4, 4)).isfinite().all()
    away = (made["layer1.3.conv1.weight"] - copied["layer1.3.conv1.weight"]).flatten(1).norm(dim=1)
    assert (away < copied["layer1.3.conv1.weight"].norm()).all(), "nearer to the layer that matches than nothing is"
    assert not torch.equal(made["layer1.3.conv1.weight"][0], made["layer1.4.conv1.weight"][0])
    with pytest.raises(UserError, match="Nothing matches 0.weight"):
        layers.assemble(network().state_dict())
    with pytest.raises(UserError, match="layers are had from one of the layout independent"):
        NetworkGenerationPipeline.from_pretrained(bundle).assemble(network().state_dict())


@pytest.mark.parametrize("layout", [CHUNKED, {**INDEPENDENT, "layout": "independent"}])
def test_a_run_killed_in_every_stage_ends_the_same(model_zoo, tmp_path, layout):
    config = NetworksConfig.preset("tiny", **{**layout, **SHORT})
    whole = train_bundle(model_zoo, config, tmp_path / "whole", device="cpu")
    for i, stage in enumerate(map(STAGES.get, NetworksConfig().stages())):
        with pytest.raises(Cancelled):
            train_bundle(
                model_zoo,
                config,
                tmp_path / "killed",
                resume=i > 0,
                device="cpu",
                progress=stop_at(stage, min(3, SHORT["align_steps"] - 1) if i == 1 else 3),
            )
    killed = train_bundle(model_zoo, config, tmp_path / "killed", resume=True, device="cpu")
    one, two = tensors(whole), tensors(killed)
    assert one.keys() == two.keys() and all(torch.equal(one[name].nan_to_num(), two[name].nan_to_num()) for name in one)
    assert len(NetworkGenerationPipeline.from_pretrained(killed)(1, "stripes", 2)) == 2


def test_zoos_and_generators_must_match(model_zoo, tiny_zoo, tmp_path):
    with pytest.raises(UserError, match="zoo of checkpoints: train on it with --generator networks"):
        train_bundle(model_zoo, quick_config(), tmp_path / "out", device="cpu")
    with pytest.raises(UserError, match="zoo of heads: train on it with --generator unet or dual"):
        train_bundle(tiny_zoo, NetworksConfig.preset("tiny"), tmp_path / "out", device="cpu")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="no preset 'paper'"):
        NetworksConfig.preset("paper")
    assert replace(NetworksConfig(), seed=3).to_config()["seed"] == 3


def test_verbs(model_zoo, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "cache" / "bundles" / "mine"
    out.parent.mkdir(parents=True)
    sets = [text for name, value in SHORT.items() for text in ("--set", f"{name}={value}")]
    assert main(["train", "--zoo", str(model_zoo.path), "--preset", "tiny", *sets, "--out", str(out)]) == 0
    card = (out / "README.md").read_text()
    assert "whole networks of 2 architectures for the tasks dots, stripes" in card and "\n| 1 | " in card
    assert "lost_aside" in json.loads((out / "training.json").read_text())["measured"]
    assert "mine" not in list_bundles(), "the tabs' bundles make heads"
    with pytest.raises(UserError, match="whole networks, not heads"):
        resolve_bundle(out)
    command = ["sample", "mine", "--architecture", "1", "--num-samples", "2", "--out", str(tmp_path / "nets")]
    assert main([*command, "--steps", "3"]) == 2 and "Say which task" in capsys.readouterr().err
    assert main([*command, "--steps", "3", "--task", "dots", "--around", "0.5"]) == 0
    assert "2 networks in" in capsys.readouterr().out
    made = sorted((tmp_path / "nets").iterdir())
    assert [path.name for path in made] == ["000.safetensors", "001.safetensors"]
    norm = "1.running_mean" in load_file(made[0])
    network(norm=norm, width=4 if norm else 6).load_state_dict(load_file(made[0]))
    assert main([*command, "--task", "dots"]) == 2 and "exists already" in capsys.readouterr().err
    assert main(["sample", "heads-dual", "--out", str(tmp_path / "x")]) == 2
    assert main(["generate", "example:digits", "--bundle", str(out), "--out", str(tmp_path / "y")]) == 2
    assert "use it with `python -m d2nwg sample`" in capsys.readouterr().err


def test_what_networks_share_is_taken_away(bundle, model_zoo):
    """Vectors about the mean of their architecture, in units of their own; latents about that of their task."""
    space = network_space(model_zoo, NetworksConfig(chunk=16))
    data = NetworkBatches(model_zoo, space, torch.device("cpu"))
    for number, layout in enumerate(space.layouts):
        mine = [int(i) for i in data.train if data.members[i, 0] == number]
        vectors = data.batch(mine).vectors
        torch.testing.assert_close(vectors.mean(0), torch.zeros(space.size), atol=1e-3, rtol=0)
        for name, span in layout.spans.items():
            square = float(vectors[:, span].square().mean())
            assert square == pytest.approx(1, abs=0.01) or not vectors[:, span].any(), name  # a constant stays one
    pipe = NetworkGenerationPipeline.from_pretrained(bundle)
    space = pipe.weight_space
    latents = (space.zoo_latents - space.latent_centres[space.group(space.zoo_members)]) * pipe.vae.config.latent_scale
    torch.testing.assert_close(latents.square().mean(), torch.tensor(1.0), atol=1e-2, rtol=0)
    for group in space.group(space.zoo_members).unique():
        kept = latents[space.group(space.zoo_members) == group]
        torch.testing.assert_close(kept.mean(0), torch.zeros(latents.shape[1:]), atol=1e-3, rtol=0)


def test_a_bundle_knows_the_tasks_that_its_card_names(model_zoo, monkeypatch):
    """Also where the table of the checkpoints has none."""
    bare = [{key: value for key, value in record.items() if key != "task"} for record in model_zoo.records]
    monkeypatch.setattr(model_zoo, "records", bare)
    assert network_space(model_zoo, NetworksConfig(chunk=16)).config.tasks == list(model_zoo.summary()["tasks"])
