"""One training stage: steps, checkpoints that survive a kill, a JSONL log, progress."""

import contextlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from d2nwg.training.config_base import STAGES
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import whole_file, write_whole
from d2nwg.utils.progress import Progress, silent

# step number, part of the batch -> loss, and other numbers to log
StepFunction = Callable[[int, int], tuple[Tensor, dict[str, float]]]


def step_rng(seed: int, stage: str, step: int, rank: int = 0) -> tuple[np.random.Generator, torch.Generator]:
    """The random numbers of one step, from the step's own name: a resumed run draws what an undisturbed one would."""
    entropy = [seed, *stage.encode(), step, rank]
    rng = np.random.default_rng(entropy)
    return rng, torch.Generator().manual_seed(int(rng.integers(2**62)))


class MetricsLog:
    """A JSONL file of metrics, one line a record, written by the main process alone."""

    def __init__(self, path: Path, accelerator: Accelerator):
        self.path, self.enabled = path, accelerator.is_main_process

    def __call__(self, **values) -> None:
        if self.enabled:
            with self.path.open("a") as log:
                log.write(json.dumps({**values, "time": round(time.time(), 3)}) + "\n")

    def rewind(self, stage: str, step: int) -> None:
        """Take back what a killed run logged of a stage after its last checkpoint, and a line it left torn. Of the
        checkpoint's own step what was measured between two steps (without ``steps``) is measured again."""
        if not self.enabled or not self.path.is_file():
            return
        kept = []
        for text in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, RecursionError, AttributeError, TypeError):  # no line of this log
                line = json.loads(text)
                if line.get("stage") != stage or line.get("step", step + 1) < step + ("steps" in line):
                    kept.append(text + "\n")
        write_whole(self.path, "".join(kept))


@dataclass
class Run:
    """What one training has: where it keeps what a resumed one needs, on which devices it is, and who hears of it."""

    folder: Path
    accelerator: Accelerator
    log: MetricsLog
    progress: Progress = silent


def run_stage(
    stage: str,
    step: StepFunction,
    *,
    modules: dict[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    steps: int,
    checkpoint_every: int,
    run: Run,
    ema=None,
    log_every: int = 20,
    measure: Callable[[], dict[str, float]] | None = None,
) -> None:
    """Run ``steps`` optimiser steps, going on from the stage's last checkpoint if there is one.

    Args:
        stage: its id, one of `d2nwg.training.config_base.STAGES`: names the checkpoint's folder, and seeds `step_rng`.
        step: computes the loss of one part of a step's batch: of so many as the accelerator accumulates gradients over.
            It must depend on the two numbers and `step_rng` alone.
        modules: what is trained, already prepared by the accelerator; saved under these names.
        optimiser: prepared as well. The learning rate falls linearly to zero over ``steps``.
        run: its ``progress`` may raise ``Cancelled``; the last checkpoint stays.
        ema: a diffusers ``EMAModel`` of the only module, or None.
        measure: called at each checkpoint but the last for numbers to log; must leave the run as it is.
    """
    accelerator, log, label = run.accelerator, run.log, STAGES[stage]
    checkpoint = run.folder / stage / "checkpoint"
    start = _restore(checkpoint, modules, optimiser, ema, steps) if checkpoint.exists() else 0
    log.rewind(stage, start)
    peak = [group.setdefault("initial_lr", group["lr"]) for group in optimiser.param_groups]
    parameters = [p for module in modules.values() for p in module.parameters()]
    for number in range(start, steps):
        run.progress(label, number, steps)
        for group, rate in zip(optimiser.param_groups, peak, strict=True):
            warm = min(1.0, (number + 1) / max(1, min(100, steps // 10)))
            group["lr"] = rate * warm * (1 - number / steps)
        parts = []
        for part in range(accelerator.gradient_accumulation_steps):
            with accelerator.accumulate(*modules.values()):  # the optimiser steps at the last part
                loss, numbers = step(number, part)
                parts.append(loss.detach())
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(parameters, 1.0)
                optimiser.step()
                optimiser.zero_grad()
        if ema is not None:
            ema.step(parameters)
        if number % log_every == 0 or number + 1 == steps:
            mean = accelerator.reduce(torch.stack(parts).mean(), "mean")  # over the processes
            log(stage=stage, step=number + 1, steps=steps, loss=round(float(mean), 6), **numbers)
        if (number + 1) % checkpoint_every == 0 or number + 1 == steps:
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                if measure is not None and number + 1 < steps:  # before the checkpoint: after it, a kill could lose it
                    log(stage=stage, step=number + 1, steps=steps, **measure())
                _save(checkpoint, number + 1, modules, optimiser, ema, accelerator)
    run.progress(label, steps, steps)


def _save(checkpoint: Path, step: int, modules, optimiser, ema, accelerator) -> None:
    """Write beside the last checkpoint, then rename: a kill while writing loses nothing."""
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "step": step,
        "modules": {name: accelerator.unwrap_model(m).state_dict() for name, m in modules.items()},
        "optimiser": optimiser.state_dict(),
        "ema": ema.state_dict() if ema is not None else None,
    }
    try:
        with whole_file(checkpoint) as part, part.open("wb") as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as reason:  # torch's writer turns the one into the other
        free = shutil.disk_usage(checkpoint.parent).free / 2**20
        raise UserError(
            f"The checkpoint of step {step} could not be written to {checkpoint.parent}, where {free:,.0f} MB are "
            "free: make room and resume; the checkpoint before it is kept."
        ) from reason


def _restore(checkpoint: Path, modules, optimiser, ema, steps: int) -> int:
    try:
        if not checkpoint.is_file():  # a FIFO would block
            raise ValueError("no regular file")
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        for name, module in modules.items():
            getattr(module, "module", module).load_state_dict(state["modules"][name])
        optimiser.load_state_dict(state["optimiser"])
        if ema is not None:
            ema.load_state_dict(state["ema"])
        if not isinstance(state["step"], int) or not 0 <= state["step"] <= steps:
            raise ValueError("a step that the stage does not have")
        return state["step"]
    except Exception as reason:  # a damaged pickle can fail in any way, and states of others in many
        raise UserError(
            f"The checkpoint {checkpoint} is damaged, or of other settings: remove it to begin this stage again."
        ) from reason


def clear_checkpoints(folder: Path) -> None:
    """Remove what only a resumed run would need."""
    shutil.rmtree(folder, ignore_errors=True)
