"""How long a training will take on this machine, and how much memory: a few steps of each stage, measured.

The steps run in a process of their own, whose peak memory is then theirs alone.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent

STEPS = 4  # a stage; the first one warms up and does not count
LIMIT = 240.0  # seconds the measurement may take


def estimate(
    zoos: Sequence[str | Path], config, *, device: str | None = None, limit: float = LIMIT, progress: Progress = silent
) -> dict:
    """Measure a few steps of each stage.

    Returns:
        ``seconds`` in all, ``stages`` (name → seconds), ``memory`` (peak, in bytes), ``device``, and ``whole``: False
        if the limit ended the measurement early, so that it will take at least as long.
    Raises:
        UserError: what `train_bundle` refuses, or not one step ended within the limit.
    """
    from d2nwg.generators import generator_of
    from d2nwg.training.config_base import STAGES

    spec = {
        "zoos": [str(zoo) for zoo in zoos],
        "generator": generator_of(config).name,
        "config": config.to_config(),
        "device": device,
    }
    package = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-m", "d2nwg.training.estimate", json.dumps(spec)],
        cwd=package,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    times: dict[str, list[float]] = {}
    ended, stages = {}, {STAGES[stage]: steps for stage, steps in config.stages().items()}
    deadline = time.monotonic() + limit
    try:
        for text in process.stdout:
            line = json.loads(text)
            if "refused" in line:
                raise UserError(line["refused"])
            if "memory" in line:
                ended = line
            if "stage" in line:
                times.setdefault(line["stage"], []).append(line["time"])
                progress(
                    "Measuring",
                    min(sum(map(len, times.values())), len(stages) * (STEPS + 1)),
                    len(stages) * (STEPS + 1),
                )
            if time.monotonic() > deadline:
                break
    finally:
        process.kill()
        process.wait()
    took = {}
    for stage, steps in stages.items():
        gaps = [after - before for before, after in zip(times.get(stage, []), times.get(stage, [])[1:], strict=False)]
        if gaps:
            took[stage] = median(gaps[1:] or gaps) * steps
    if not took:
        raise UserError("Not one step of this training could be measured in time: it is too large for this machine.")
    return {
        "seconds": sum(took.values()),
        "stages": took,
        "memory": ended.get("peak", 0),
        "whole": bool(ended),
        "device": ended.get("device", ""),
    }


def _measure(spec: dict) -> None:
    """In the process of its own: train a few steps, saying when each begins."""
    import resource

    import torch

    from d2nwg.generators import get_generator
    from d2nwg.training.run import train_bundle
    from d2nwg.weights.open import open_zoo

    rank = int(os.environ.get("RANK", "0"))  # of several processes, for `benchmarks.training`

    def tell(**values) -> None:
        line = json.dumps(values | ({"rank": rank} if rank else {}))
        os.write(sys.stdout.fileno(), f"{line}\n".encode())  # whole: several processes write to one file

    config = get_generator(spec["generator"]).config_class.from_config(spec["config"]).shortened(STEPS)
    with tempfile.TemporaryDirectory() as folder:
        try:
            train_bundle(
                [open_zoo(zoo) for zoo in spec["zoos"]],
                config,
                Path(folder) / "bundle",
                device=spec["device"],
                progress=lambda stage, done, total: tell(stage=stage, time=time.monotonic()),
            )
        except UserError as reason:
            tell(refused=str(reason))
            return
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    on_gpu = torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0
    tell(memory=True, peak=torch.cuda.max_memory_allocated() if on_gpu else peak, device="GPU" if on_gpu else "CPU")


if __name__ == "__main__":
    _measure(json.loads(sys.argv[1]))
