"""The generator of chunks: it compresses, it knows a chunk by its index alone, and it learns how checkpoints differ."""

import shutil

import numpy as np
import pytest
import torch

from d2nwg.llm.architectures import Part, Unit
from d2nwg.llm.chunks import Chunks, save_matrices
from d2nwg.llm.generator import ChunkGenerator
from d2nwg.llm.index_gaussian import IndexGaussian
from d2nwg.llm.presets import RefineConfig
from d2nwg.utils.errors import Cancelled, UserError

SHAPES = {"a": (64, 32), "b": (32, 48)}
UNITS = [
    Unit("a", 0, "q", (Part("a", SHAPES["a"]),)),
    Unit("b", 0, "down", (Part("b", SHAPES["b"], turned=True),)),
]
SMALL = dict(
    chunk=512, vae_channels=8, unet_channels=(8,), vae_steps=30, diffusion_steps=60, sampling_steps=8, batch_size=8,
    checkpoint_every=25, compression=4.0, kl_weight=0.02,
)  # fmt: skip


def config(**changes) -> RefineConfig:
    return RefineConfig.of("tiny", **{**SMALL, **changes})


def matrices(seed: int) -> dict[str, torch.Tensor]:
    """Two matrices that write to and read from eight directions of the residual stream, and a little noise."""
    rng = torch.Generator().manual_seed(seed)
    directions = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    a = torch.randn(64, 8, generator=rng) @ directions + 0.1 * torch.randn(64, 32, generator=rng)
    b = torch.randn(48, 8, generator=rng) @ directions + 0.1 * torch.randn(48, 32, generator=rng)
    return {"a": a, "b": b.T.contiguous()}


def off(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A generator of one model, whose file is gone."""
    folder = tmp_path_factory.mktemp("one")
    file = save_matrices(matrices(1), folder / "m.safetensors")
    chunks = Chunks(file, UNITS, 32, SMALL["chunk"])
    generator = ChunkGenerator(chunks, config())
    generator.fit(folder / "generator")
    file.unlink()
    return generator


def test_it_compresses_and_gives_layers_back_without_the_original(one):
    exact = matrices(1)
    assert one.compression["latents"] == pytest.approx(4) and one.compression["with_decoder"] < 4
    for number, name in enumerate(SHAPES):
        rebuilt, first, same, other = (
            one.reconstruct(number)[name], *(one.sample(number, k)[name] for k in (1, 1, 2))
        )  # fmt: skip
        assert off(rebuilt, exact[name]) < 0.15
        assert torch.equal(first, same) and not torch.equal(first, other)
        assert off(first, exact[name]) < 0.4


def test_shuffled_indices_give_other_weights(one):
    """It knows which chunk it makes by its index, and by nothing else."""
    exact, numbers = matrices(1)["a"], one.chunks.of_unit(0)
    shuffled = numbers[1:] + numbers[:1]
    wrong = one.sample(0, 0, shuffled)["a"]
    assert off(one.sample(0, 0)["a"], exact) < 0.4 and off(wrong, exact) > 1
    # With the rows put back in order they are the same weights.
    assert off(torch.cat([wrong[-16:], wrong[:-16]]), exact) < 0.4


def test_samples_of_one_model_are_noise_about_its_reconstruction(one):
    """All that one model has to teach is the VAE's posterior: averages of samples close in on the reconstruction as
    independent noise would."""
    rebuilt = one.reconstruct(0)["a"]
    samples = torch.stack([one.sample(0, number)["a"] for number in range(40)])
    single = float((samples - rebuilt).norm(dim=(1, 2)).mean())
    assert float((samples.mean(0) - rebuilt).norm()) / single == pytest.approx(1 / 40**0.5, abs=0.08)


def test_the_kl_weight_sets_how_far_samples_lie(one, tmp_path):
    chunks = Chunks(save_matrices(matrices(1), tmp_path / "m.safetensors"), UNITS, 32, SMALL["chunk"])
    far = ChunkGenerator(chunks, config(kl_weight=0.2))
    far.fit(tmp_path / "far")
    assert off(one.sample(0, 0)["a"], one.reconstruct(0)["a"]) < 0.6 * off(
        far.sample(0, 0)["a"], far.reconstruct(0)["a"]
    )


def checkpoints(count: int, rng: torch.Generator) -> list[dict[str, torch.Tensor]]:
    """Checkpoints that differ from a common start in three ways for each matrix, each of low rank as adapters are, and
    by a little noise."""
    base, fixed = matrices(1), torch.Generator().manual_seed(9)
    seen = torch.randn(8, 32, generator=fixed)
    ways = {name: 0.1 * torch.randn(3, max(shape), 8, generator=fixed) @ seen for name, shape in SHAPES.items()}
    ways["b"] = ways["b"].mT
    return [
        {
            name: base[name]
            + (torch.randn(3, 1, 1, generator=rng) * ways[name]).sum(0)
            + 0.03 * torch.randn(shape, generator=rng)
            for name, shape in SHAPES.items()
        }
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """A generator of twelve checkpoints, and 24 more that it has never seen."""
    folder, rng = tmp_path_factory.mktemp("zoo"), torch.Generator().manual_seed(3)
    learnt = checkpoints(12, rng)
    files = [save_matrices(made, folder / f"{i}.safetensors") for i, made in enumerate(learnt)]
    spread = {name: float(torch.stack([made[name] for made in learnt]).var(0).sum()) for name in SHAPES}
    generator = ChunkGenerator(Chunks(files[0], UNITS, 32, SMALL["chunk"]), config(compression=2.0))
    generator.fit(folder / "generator", files=files)
    for file in files:
        file.unlink()
    return generator, checkpoints(24, rng), matrices(1), spread


def alike(found: np.ndarray, held_out: np.ndarray) -> float:
    """The cosine of two covariance matrices, of (n, D) points each."""
    a, b = (np.cov(points.T) for points in (found, held_out))
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


def test_samples_of_a_zoo_vary_as_its_checkpoints_do(zoo):
    generator, held_out, base, seen = zoo
    for number, name in enumerate(SHAPES):
        samples = torch.stack([generator.sample(number, k)[name] for k in range(48)])
        others = torch.stack([made[name] for made in held_out])
        apart = samples - samples.mean(0)
        noise = torch.randn(samples.shape, generator=torch.Generator().manual_seed(5))
        noise *= apart.norm(dim=(1, 2), keepdim=True) / noise.norm(dim=(1, 2), keepdim=True)
        assert off(samples.mean(0), base[name]) < 0.2
        # As far from their mean as the checkpoints that were learnt from, and in the directions of those that were not.
        width = float(apart.square().sum((1, 2)).mean() / seen[name])
        assert 0.7 < width < 1.3
        for first in range(0, SHAPES["a"][0] if name == "a" else 48, 16):  # chunks are independent of each other
            rows = [points[:, first : first + 16] if name == "a" else points[:, :, first : first + 16]
                    for points in (apart, noise, others)]  # fmt: skip
            sampled, random, unseen = (points.flatten(1).numpy() for points in rows)
            assert alike(sampled, unseen) > 0.5 > 2 * alike(random, unseen)


def test_checkpoints_of_another_model_are_refused(tmp_path):
    file = save_matrices(matrices(1), tmp_path / "m.safetensors")
    chunks = Chunks(file, UNITS, 32, SMALL["chunk"])
    (tmp_path / "broken.safetensors").write_bytes(file.read_bytes()[:-50])
    other = save_matrices({"a": torch.ones(64, 32), "b": torch.ones(48, 32)}, tmp_path / "other.safetensors")
    few = save_matrices({"a": torch.ones(64, 32)}, tmp_path / "few.safetensors")
    for bad in (other, few, tmp_path / "broken.safetensors", tmp_path / "gone.safetensors"):
        with pytest.raises(UserError, match="another model|no checkpoint of this model"):
            ChunkGenerator(chunks, config()).fit(tmp_path / bad.stem, files=[file, bad])


def test_a_training_that_was_stopped_goes_on_to_the_same_samples(tmp_path):
    rng = torch.Generator().manual_seed(3)
    files = [save_matrices(made, tmp_path / f"{i}.safetensors") for i, made in enumerate(checkpoints(3, rng))]

    def fitted(folder, progress=lambda *_: None):
        generator = ChunkGenerator(Chunks(files[0], UNITS, 32, SMALL["chunk"]), config(vae_steps=6, diffusion_steps=8,
                                                                                       checkpoint_every=3))  # fmt: skip
        generator.fit(tmp_path / folder, progress, files=files)
        return generator

    def stop(stage, done, total):
        if stage == "Training the denoiser" and done == 5:
            raise Cancelled

    whole = fitted("whole")
    with pytest.raises(Cancelled):
        fitted("part", stop)
    assert torch.equal(fitted("part").sample(0, 1)["a"], whole.sample(0, 1)["a"])
    shutil.rmtree(tmp_path / "part")


def test_whitened_latents_of_an_index_are_a_unit_gaussian():
    rng = torch.Generator().manual_seed(0)
    factor = torch.randn(2, 1, 6, generator=rng)
    latents = 5 + factor * torch.randn(2, 40, 1, generator=rng) + 0.05 * torch.randn(2, 40, 6, generator=rng)
    index = IndexGaussian(latents, 1e-4)
    for i in range(2):
        numbers = torch.full((40,), i)
        sampled = latents[i] + 0.01 * torch.randn(40, 6, generator=rng)  # as the posterior draws
        white = index.whiten(sampled, numbers)
        torch.testing.assert_close(torch.cov(white.T), torch.eye(6), atol=0.3, rtol=0)
        torch.testing.assert_close(index.colour(white, numbers), sampled, atol=1e-3, rtol=0)
    # One checkpoint has a mean alone.
    one = IndexGaussian(latents[:, :1], 0.25)
    white = torch.randn(2, 6, generator=rng)
    assert torch.equal(one.colour(white, torch.arange(2)), latents[:, 0] + 0.5 * white)
