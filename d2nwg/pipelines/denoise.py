"""The sampling loop that all pipelines share."""

import inspect
from collections.abc import Callable

import torch
from torch import Tensor

from d2nwg.models.padding import Padding
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import whole
from d2nwg.utils.progress import Progress, silent


def check_numbers(samples: int, steps: int, scheduler, guidance: float = 1.0) -> None:
    """Refuse numbers that no sampling can have.

    Raises:
        UserError: naming the one at fault.
    """
    whole(samples, "The number of samples", 1)
    whole(steps, "The number of denoising steps", 1, scheduler.config.num_train_timesteps)
    if not isinstance(guidance, (int, float)) or not abs(guidance) <= 1000:
        raise UserError("The guidance scale should be a number from -1,000 to 1,000.")


@torch.no_grad()
def denoise(
    scheduler,
    predict: Callable[[Tensor, Tensor], Tensor],
    noise: Tensor,
    steps: int,
    *,
    generator: torch.Generator | None = None,
    start: Tensor | None = None,
    strength: float = 1.0,
    padding: Padding | None = None,
    stage: str = "Sampling",
    progress: Progress = silent,
) -> Tensor:
    """Denoise latents with any diffusers scheduler for discrete time steps.

    The same ``noise`` and a generator in the same state give the same latents with every scheduler, also with those
    that draw noise at each step.

    Args:
        scheduler: its ``prediction_type`` says what ``predict`` returns.
        predict: scaled latents (B, ...) and the time step → the denoiser's output (B, ...).
        noise: (B, ...) standard Gaussian.
        steps: number of denoising steps.
        generator: of the noise that ancestral and SDE schedulers add at each step.
        start: clean latents (B, ...) to begin with instead of noise alone.
        strength: the share of the steps that is run from ``start``, whose noise level follows from it: 0 returns
            ``start``, 1 runs all steps.
        padding: held at its value while the rest is denoised. The denoiser has not learnt to predict padding (training
            masks it), and its output there would reach the weights in use through the convolutions.
        stage: reported to ``progress``, with the step of steps.
    Returns:
        (B, ...) denoised latents.
    Raises:
        UserError: the scheduler does not support the prediction type, or what comes out is not finite.
    """
    scheduler.set_timesteps(steps, device=noise.device)
    times, latents = scheduler.timesteps, noise * scheduler.init_noise_sigma
    if start is not None:
        times = times[len(times) - round(strength * len(times)) :]
        latents = scheduler.add_noise(start, noise, times[:1].expand(len(noise))) if len(times) else start
    if hasattr(scheduler, "set_begin_index"):  # else it looks for the first time step, which may be there twice
        scheduler.set_begin_index(len(scheduler.timesteps) - len(times))
    # As diffusers' own pipelines do: pass what this scheduler's `step` takes.
    extra = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for number, time in enumerate(times):
        progress(stage, number, len(times))
        given = scheduler.scale_model_input(latents, time)
        predicted = predict(given, time)
        if padding is not None:
            predicted = torch.where(padding.mask, _output_for(scheduler, padding.value, given, time), predicted)
        try:
            latents = scheduler.step(predicted, time, latents, **extra).prev_sample
        except (NotImplementedError, ValueError) as reason:
            if "prediction_type" not in str(reason):
                raise
            raise _unsupported(scheduler) from reason
    progress(stage, len(times), len(times))
    if not latents.isfinite().all():
        raise UserError("Sampling ended in numbers that are not finite: the settings of the scheduler do not fit.")
    return latents if padding is None else torch.where(padding.mask, padding.value, latents)


def _output_for(scheduler, clean: Tensor, given: Tensor, time: Tensor) -> Tensor:
    """What a denoiser would return for noisy latents ``given`` = α x₀ + σ ε if it knew that x₀ is ``clean``."""
    kind = scheduler.config.prediction_type
    if kind == "sample":
        return clean.expand_as(given)
    if kind not in ("epsilon", "v_prediction"):
        raise _unsupported(scheduler)
    # Some schedulers have time steps between those of training.
    kept = scheduler.alphas_cumprod.to(given.device)
    low = time.float().floor().long().clamp(0, len(kept) - 1)
    high = (low + 1).clamp_max(len(kept) - 1)
    kept = torch.lerp(kept[low].double(), kept[high].double(), (time - low).double().clamp(0, 1)).to(given)
    alpha, sigma = kept.sqrt(), (1 - kept).sqrt()
    epsilon = (given - alpha * clean) / sigma
    return epsilon if kind == "epsilon" else alpha * epsilon - sigma * clean


def _unsupported(scheduler) -> UserError:
    return UserError(
        f"{type(scheduler).__name__} cannot sample a denoiser that predicts {scheduler.config.prediction_type}: "
        "choose another scheduler, such as DPMSolverMultistepScheduler."
    )
