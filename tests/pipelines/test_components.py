"""Components of bundles from strangers: whole, of their types, finite, and such as fit together."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from d2nwg.bundles import bundle_encoder, bundle_generator, bundle_tasks, load_bundle
from d2nwg.pipelines.components import SHARDS
from d2nwg.utils import limits
from tests.helpers.refusals import refusal

DENOISER = "denoiser/diffusion_pytorch_model.safetensors"


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("vae/config.json", {"size": "x"}, "its vae is damaged (its size cannot be x)"),
        ("vae/config.json", {"size": 1.5}, "its size cannot be 1.5"),
        ("vae/config.json", {"patch": [1, 2]}, "its patch cannot be"),
        ("vae/config.json", {"channels": [8] * 17}, "its channels cannot be"),
        ("vae/config.json", {"latent_scale": None}, "its latent_scale cannot be None"),
        ("vae/config.json", {"size": 10**12}, "GB of memory, and "),
        ("denoiser/config.json", {"layers": 10**13}, "its layers cannot be 10000000000000"),
        ("denoiser/config.json", {"channels": [2**21]}, "its channels cannot be"),
        ("weight_space/config.json", {"layout": 5}, "its layout cannot be 5"),
        ("weight_space/config.json", {"layout": {"shapes": 5}}, "its weight_space is damaged"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**12}, "num_train_timesteps is 1000000000000"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": "x"}, "num_train_timesteps cannot be x"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "x"}, "its scheduler is damaged"),
    ],
)
def test_a_configuration_that_cannot_be(name, values, words, bundle):
    change(bundle / name, **values)
    assert words in refusal(load_bundle, bundle)


@pytest.mark.parametrize("text", ["[]", "5", "{", "[" * 100_000, "null", ""])
def test_files_of_any_shape(text, bundle):
    for name in ("training.json", "model_index.json"):
        (bundle / "training.json").write_text(text)
        (bundle / name).write_text(text)
    assert bundle_generator(bundle) is None and refusal(load_bundle, bundle)
    for name in ("weight_space/config.json", "condition_encoder/config.json"):
        (bundle / name).write_text(text)
    assert "is incomplete" in refusal(bundle_encoder, bundle) and bundle_tasks(bundle) == {}


@pytest.mark.parametrize(
    "entry",
    [
        ["d2nwg.cli", "main"],
        ["diffusers", "__version__"],
        ["d2nwg.models.vae", "torch"],
        ["diffusers", "DiffusionPipeline"],
    ],
)
def test_what_is_no_component_is_not_loaded(entry, bundle):
    change(bundle / "model_index.json", vae=entry)
    assert "which is no component: not loaded" in refusal(load_bundle, bundle)


@pytest.mark.parametrize("damage", ["missing", "more", "shape", "nan", "inf"])
def test_tensors_that_are_not_whole(damage, bundle):
    state = load_file(bundle / DENOISER)
    name = next(name for name, tensor in state.items() if tensor.ndim > 1)
    if damage == "missing":
        del state[name]
    elif damage == "more":
        state["more"] = torch.ones(2)
    elif damage == "shape":
        state[name] = state[name][:-1].contiguous()
    else:
        state[name].view(-1)[0] = float(damage)
    save_file(state, bundle / DENOISER, {"format": "pt"})
    assert "because its denoiser is damaged (" in refusal(load_bundle, bundle)


@pytest.fixture
def sharded(bundle, tmp_path):
    """The same bundle, its weights in several files."""
    load_bundle(bundle).save_pretrained(tmp_path / "sharded", max_shard_size="4KB")
    return tmp_path / "sharded"


def test_weights_in_several_files(bundle, sharded):
    assert len(list((sharded / "denoiser").glob("*.safetensors"))) > 1
    states = [load_bundle(path).denoiser.state_dict() for path in (bundle, sharded)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (["x"], f"its {SHARDS} cannot be read"),
        ({"weight_map": 5}, f"its {SHARDS} cannot be read"),
        ({"weight_map": {"x": 5}}, "its shard 5 is not there"),
        ({"weight_map": {"x": "missing.safetensors"}}, "its shard missing.safetensors is not there"),
        ({"weight_map": {"x": "../vae/diffusion_pytorch_model.safetensors"}}, "is not there"),
    ],
)
def test_shards_that_are_not_a_components_own(index, words, sharded):
    path = sharded / "denoiser" / SHARDS
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(whole | index if isinstance(index, dict) else index))
    assert words in refusal(load_bundle, sharded)


def test_a_shard_that_is_missing_or_damaged(sharded):
    shard = next((sharded / "denoiser").glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-7])
    assert "because its denoiser is damaged (" in refusal(load_bundle, sharded)
    shard.unlink()
    assert "because its denoiser is damaged (" in refusal(load_bundle, sharded)


@pytest.mark.parametrize("damage", ["folder", "link", "fifo"])
def test_a_component_that_is_elsewhere(damage, bundle, tmp_path):
    shutil.move(bundle / "vae", tmp_path / "elsewhere")
    if damage == "folder":
        assert "it has no vae" in refusal(load_bundle, bundle)
        return
    if damage == "link":
        (bundle / "vae").symlink_to(tmp_path / "elsewhere")
    else:
        shutil.copytree(tmp_path / "elsewhere", bundle / "vae")
        (bundle / "vae" / "config.json").unlink()
        os.mkfifo(bundle / "vae" / "config.json")
    assert "vae of the bundle" in refusal(load_bundle, bundle)


def test_components_that_do_not_fit_together(bundle, tiny_mlp_bundle):
    shutil.rmtree(bundle / "vae")
    shutil.copytree(tiny_mlp_bundle / "vae", bundle / "vae")
    assert "do not fit together: get or train it again" in refusal(load_bundle, bundle)


def test_a_bundle_that_does_not_fit_into_the_memory(bundle, monkeypatch):
    monkeypatch.setattr(limits, "free_memory", lambda device: 1000.0)
    assert "of memory, and 1 MB are free: choose another bundle" in refusal(load_bundle, bundle)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(num_samples=0), "number of samples should be a whole number from 1"),
        (dict(num_samples=-1), "number of samples"),
        (dict(num_samples=1.5), "number of samples"),
        (dict(num_samples=10**9), "Generating 1,000,000,000 heads for 3 classes at once needs "),
        (dict(num_inference_steps=10**9), "denoising steps should be a whole number from 1 to 1,024"),
        (dict(guidance_scale=float("nan")), "guidance scale should be a number"),
        (dict(guidance_scale=2**64), "guidance scale should be a number"),
    ],
)
def test_numbers_of_a_sampling(options, words, tiny_bundle):
    pipe = load_bundle(tiny_bundle)
    assert words in refusal(pipe, torch.rand(3, 2, 48), **{"num_samples": 2, **options})
