"""How long a zoo of fine-tunes of a language model takes on this machine: a few steps, measured."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from d2nwg.llm.adapter_zoo import LlmTuning
from d2nwg.llm.score import Scorer
from d2nwg.utils.devices import resolve_device
from d2nwg.utils.progress import Progress, silent
from d2nwg.weights.finetune import descend

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

STEPS = 3  # of training; the first one warms up and does not count
SCORED = 8  # questions
STAGE = "Measuring"


def estimate(
    tuning: LlmTuning,
    device: str | None = None,
    *,
    progress: Progress = silent,
    clock: Callable[[], float] = time.monotonic,
) -> float:
    """Seconds that all fine-tunes of a zoo and the scoring of their checkpoints take here, without loading the model:
    the seconds for each token of some steps, and of some questions, times the tokens of all.

    Args:
        tuning: is opened, and can then build no zoo: its adapter has been trained.
        progress: may raise ``Cancelled``.
    Raises:
        UserError: no such model or device, or the training diverges at once.
    """
    config, tune = tuning.config, tuning.config.tune
    adapted = tuning.open(resolve_device(device))
    adapted.reset()
    lengths, read, times = [len(row.tokens) for row in tuning.rows], [], [clock()]

    def loss(chosen: "np.ndarray") -> "Tensor":
        read.append(sum(lengths[int(i)] for i in chosen))
        return tuning.loss(chosen)

    def stepped(stage: str, step: int, steps: int) -> None:
        times.append(clock())
        progress(STAGE, step, STEPS + 1)

    progress(STAGE, 0, STEPS + 1)
    for _ in descend(adapted, loss, lengths, tune, config.seed, STEPS, (), "measured", progress=stepped):
        pass  # none is kept
    a_token = (times[-1] - times[1]) / sum(read[1:])
    few, began = Scorer(adapted.model, tuning.select[:SCORED]), clock()
    few.score()
    a_score = (clock() - began) / few.pass_tokens * tuning.scorer.pass_tokens
    progress(STAGE, STEPS + 1, STEPS + 1)
    return config.seeds * (tune.epochs * sum(lengths) * a_token + tune.keep * a_score) + a_score
