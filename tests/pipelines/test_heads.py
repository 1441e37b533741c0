"""The pipeline: seeds, the law of permuted classes, what is refused, and other samplers."""

import json

import diffusers
import pytest
import torch

from d2nwg.models.padding import Padding
from d2nwg.pipelines.denoise import denoise
from d2nwg.pipelines.heads import LatentHeadPipeline, WeightGenerationPipeline
from d2nwg.utils.errors import Cancelled, UserError
from d2nwg.weights.networks import logits

WIDTH = 48  # of the cheap encoder's features


@pytest.fixture(scope="module")
def pipe(tiny_bundle) -> WeightGenerationPipeline:
    made = WeightGenerationPipeline.from_pretrained(tiny_bundle)
    made.set_progress_bar_config(disable=True)
    return made


def support(classes: int = 4, seed: int = 0) -> list[torch.Tensor]:
    """One to three images a class, of features as wide as the cheap encoder's."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(1 + c % 3, WIDTH, generator=generator) for c in range(classes)]


def sample(pipe, images, seed: int = 0, **kwargs):
    kwargs = dict(num_samples=3, num_inference_steps=4) | kwargs
    return pipe(images, generator=torch.Generator().manual_seed(seed), **kwargs)


def test_the_same_generator_gives_the_same_heads(pipe):
    first, again, other = (sample(pipe, support(), seed) for seed in (1, 1, 2))
    assert all(torch.equal(first.state[name], again.state[name]) for name in first.state)
    assert not torch.equal(first.state["weight"], other.state["weight"])
    assert len(first) == 3 and first.state["weight"].shape == (3, 4, WIDTH) and first.state["bias"].shape == (3, 4)
    assert not torch.equal(first.state["weight"][0], first.state["weight"][1])


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_permuting_the_classes_permutes_the_rows_and_changes_nothing_else(pipe, guidance):
    images = support(6)
    first = sample(pipe, images, guidance_scale=guidance)
    for order in ([5, 4, 3, 2, 1, 0], [2, 0, 5, 1, 4, 3]):
        other = sample(pipe, [images[i] for i in order], guidance_scale=guidance)
        for name in first.state:
            torch.testing.assert_close(other.state[name], first.state[name][:, order], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(other.vectors, first.vectors, rtol=1e-4, atol=1e-5)


def test_guidance_goes_from_no_condition_past_the_condition(pipe, monkeypatch):
    """In one step the latents are linear in the scale: at 0 the images do not matter, at 2 they matter twice."""
    found = []
    decode = pipe.vae.decode
    monkeypatch.setattr(pipe.vae, "decode", lambda latents: found.append(latents) or decode(latents))
    for scale in (0.0, 1.0, 2.0):
        sample(pipe, support(seed=1), guidance_scale=scale, num_inference_steps=1)
    without, plain, twice = found
    assert not torch.allclose(plain, without, atol=1e-3)
    torch.testing.assert_close(twice, 2 * plain - without, rtol=1e-4, atol=1e-4)
    sample(pipe, support(seed=2), guidance_scale=0.0, num_inference_steps=1)
    torch.testing.assert_close(found[-1], without)
    first, guided = (sample(pipe, support(), guidance_scale=scale).state["weight"] for scale in (1.0, 2.0))
    assert not torch.allclose(first, guided, atol=1e-3)


def test_the_order_of_the_images_does_not_matter(pipe):
    images = support()
    first, other = sample(pipe, images), sample(pipe, [x.flip(0) for x in images])
    torch.testing.assert_close(other.state["weight"], first.state["weight"], rtol=1e-4, atol=1e-5)


def test_modules_equal_the_batched_tensor(pipe):
    samples, x = sample(pipe, support()), torch.rand(7, WIDTH)
    together = logits(samples.state, x)
    assert len(samples.modules) == 3
    for i, module in enumerate(samples.modules):
        assert isinstance(module, torch.nn.Linear) and (module.in_features, module.out_features) == (WIDTH, 4)
        assert torch.equal(module.weight, samples.state["weight"][i])
        torch.testing.assert_close(module(x), together[i])


def test_vectors_and_heads_are_the_same_numbers(pipe):
    samples, space, x = sample(pipe, support(3)), pipe.weight_space, torch.rand(7, WIDTH)
    images = torch.stack([space.project(x).mean(0) for x in support(3)])
    order = space.canonical_order(images)
    on_projected = logits(space.layout.unflatten(samples.vectors), space.project(x))
    torch.testing.assert_close(logits(samples.state, x)[..., order], on_projected[..., :3], rtol=1e-3, atol=1e-4)


def test_a_tensor_is_a_support_as_well(pipe):
    images = torch.rand(3, 2, WIDTH)
    first, other = sample(pipe, images), sample(pipe, list(images))
    assert torch.equal(first.state["weight"], other.state["weight"])


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([torch.rand(2, WIDTH)] * 7, "heads for 2 to 6 classes, and the data set has 7"),
        ([torch.rand(2, WIDTH)], "2 to 6 classes, and the data set has 1"),
        ([], "the data set has 0"),
        (
            [torch.rand(2, WIDTH), torch.rand(2, 1280)],
            "features are 1280 wide, and this bundle takes 48: use its encoder",
        ),
        ([torch.rand(2, WIDTH), torch.rand(0, WIDTH)], "Class number 2 has no support image"),
    ],
)
def test_what_it_cannot_do_is_refused(pipe, images, words):
    with pytest.raises(UserError, match=words):
        sample(pipe, images)


def test_a_saved_pipeline_samples_the_same(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    again = WeightGenerationPipeline.from_pretrained(tmp_path)
    first, other = sample(pipe, support()), sample(again, support())
    assert all(torch.equal(first.state[name], other.state[name]) for name in first.state)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == "LatentHeadPipeline" and index["_format"] == 2
    assert index["scheduler"] == ["diffusers", "DPMSolverMultistepScheduler"]
    assert sorted(path.suffix for path in tmp_path.rglob("*") if path.is_file()) == [".json"] * 6 + [".safetensors"] * 4


def test_sampling_is_what_training_saw(tiny_bundle, tiny_zoo, pipe):
    """The bundle's layout reads zoo heads as the zoo wrote them, also after a trip through JSON."""
    records = tiny_zoo.records(range(10))
    space, x = pipe.weight_space, tiny_zoo.images["features"][:20].float()
    heads = space.to_heads(space.layout.flatten(records.state), torch.arange(6))
    expected = logits(records.state, tiny_zoo.projected[:20])
    torch.testing.assert_close(logits(heads, x), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_progress_counts_the_steps(pipe, steps):
    seen = []
    sample(pipe, support(), num_inference_steps=steps, progress=lambda *step: seen.append(step))
    assert seen == [("Sampling heads", i, steps) for i in range(steps + 1)]


def test_sampling_can_be_stopped(pipe):
    def stop(stage, done, total):
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        sample(pipe, support(), progress=stop)
    first, other = sample(pipe, support()), sample(pipe, support())
    assert torch.equal(first.state["weight"], other.state["weight"]), "a stopped run leaves no trace"


SCHEDULERS = {
    "ddim": (diffusers.DDIMScheduler, {"clip_sample": False}),
    "ddpm": (diffusers.DDPMScheduler, {"clip_sample": False}),
    "dpm++": (diffusers.DPMSolverMultistepScheduler, {}),
    "sde-dpm++": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "euler-ancestral": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "unipc": (diffusers.UniPCMultistepScheduler, {}),
    "heun": (diffusers.HeunDiscreteScheduler, {}),
}
UNSUPPORTED = {("euler-ancestral", "sample")}


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_same_generator_gives_the_same_heads_with_any_scheduler(pipe, name, prediction):
    kind, settings = SCHEDULERS[name]
    other = LatentHeadPipeline(**pipe.components)
    other.scheduler = kind.from_config(pipe.scheduler.config, prediction_type=prediction, **settings)
    if (name, prediction) in UNSUPPORTED:
        with pytest.raises(UserError, match=f"{kind.__name__} cannot sample a denoiser that predicts {prediction}"):
            sample(other, support())
        return
    first, again, different = (sample(other, support(), seed).state["weight"] for seed in (1, 1, 2))
    assert first.isfinite().all()
    assert torch.equal(first, again)
    assert not torch.allclose(first, different)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", ["ddim", "sde-dpm++", "euler", "unipc"])
def test_what_the_denoiser_returns_for_padding_changes_nothing(pipe, monkeypatch, name, prediction):
    kind, settings = SCHEDULERS[name]
    other = LatentHeadPipeline(**pipe.components)
    other.scheduler = kind.from_config(pipe.scheduler.config, prediction_type=prediction, **settings)
    expected = sample(other, support(), guidance_scale=1.5)
    plain, padding = pipe.denoiser.denoise, pipe.padding(len(support()))
    assert padding.mask.any() and not padding.mask.all()
    monkeypatch.setattr(pipe.denoiser, "denoise", lambda *args: plain(*args) + 100 * padding.mask)
    disturbed = sample(other, support(), guidance_scale=1.5)
    for tensor in expected.state:
        torch.testing.assert_close(disturbed.state[tensor], expected.state[tensor])


def test_padding_ends_at_its_value_with_any_prediction(pipe):
    """The denoiser's output for padding is worked out from the noise level: it must lead to the value by itself."""
    padding, noise = pipe.padding(4), torch.randn(2, *pipe.vae.latent_shape, generator=torch.Generator().manual_seed(0))
    everywhere = Padding(torch.ones_like(padding.mask), padding.value)
    last = {}

    class Watched(diffusers.DDIMScheduler):
        def step(self, *args, **kwargs):
            last["latents"] = super().step(*args, **kwargs)
            return last["latents"]

    for prediction in ("epsilon", "v_prediction", "sample"):
        scheduler = Watched.from_config(pipe.scheduler.config, prediction_type=prediction, clip_sample=False)
        denoise(scheduler, lambda latents, time: torch.zeros_like(latents), noise, 6, padding=everywhere)
        expected = padding.value.expand_as(noise)
        torch.testing.assert_close(last["latents"].pred_original_sample, expected, rtol=1e-3, atol=1e-3)


def test_settings_that_make_no_schedule_are_told(pipe):
    """As somebody's bundle may have them: this one has two time steps twice, and its latents do not stay finite."""
    other, kind = LatentHeadPipeline(**pipe.components), diffusers.DPMSolverMultistepScheduler
    other.scheduler = kind.from_config(pipe.scheduler.config, lambda_min_clipped=float("inf"))
    with pytest.raises(UserError, match="not finite: the settings of the scheduler do not fit"):
        sample(other, support())


def test_the_ancestral_sampler_of_the_paper(tiny_bundle):
    pipe = WeightGenerationPipeline.from_pretrained(tiny_bundle)
    pipe = pipe.ancestral()
    assert pipe.scheduler.config.num_train_timesteps == 1024
    assert pipe.scheduler.config.clip_sample is False, "weights are no pixels in [-1, 1]"
    images = support(6)
    first = sample(pipe, images, num_inference_steps=30)
    assert first.state["weight"].isfinite().all() and len(pipe.scheduler.timesteps) == 30
    again, other = sample(pipe, images, num_inference_steps=30), sample(pipe, images[::-1], num_inference_steps=30)
    assert torch.equal(first.state["weight"], again.state["weight"])
    torch.testing.assert_close(other.state["weight"], first.state["weight"].flip(1), rtol=1e-3, atol=1e-4)
