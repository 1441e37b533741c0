"""The noise schedule of every generator, and the diffusers schedulers that use it."""

from diffusers import DDPMScheduler, DPMSolverMultistepScheduler

# T = 1024 steps, β from 0.0015 to 0.0155 (D2NWG, table 8).
NOISE_SCHEDULE = {
    "num_train_timesteps": 1024,
    "beta_start": 0.0015,
    "beta_end": 0.0155,
    "beta_schedule": "scaled_linear",
}


def make_scheduler(prediction: str) -> DPMSolverMultistepScheduler:
    """The default sampler: DPM-Solver++ of second order, which needs few steps.

    Args:
        prediction: what the denoiser predicts: ``epsilon``, ``v_prediction`` or ``sample``.
    """
    return DPMSolverMultistepScheduler(**NOISE_SCHEDULE, prediction_type=prediction)


def make_noiser(scheduler) -> DDPMScheduler:
    """A scheduler with the same noise levels that can add noise in training; not every sampler can."""
    return DDPMScheduler.from_config(scheduler.config)


def ancestral(scheduler) -> DDPMScheduler:
    """Ancestral sampling (D2NWG, equation 6) with the same noise levels. Weights are not bounded as pixels are, so
    nothing is clipped."""
    return DDPMScheduler.from_config(scheduler.config, clip_sample=False)
