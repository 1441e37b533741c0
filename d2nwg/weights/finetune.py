"""Fine-tuning an adapter: by any loss (`descend`), and with a head on one task of texts (`finetune`)."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from d2nwg.data.text_set import Text
from d2nwg.encoders.lora import Adapted, AdaptedEncoder, length
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import shown

HEAD = ("head.weight", "head.bias")
WINDOW = 32  # batches that are sorted by length together: less padding, and still a random order
STAGE = "Training adapters"  # of progress
WARMUP = 0.06  # share of the steps


@dataclass(frozen=True)
class TuneConfig:
    """How one adapter is trained (AdamW; the learning rate rises in the first 6 % of the steps and then falls to zero).

    Attributes:
        epochs: passes over the texts.
        batch: texts a step.
        lr: peak learning rate of the adapter.
        head_lr: of the head, where there is one.
        dropout: of the adapter's input.
        keep: checkpoints that are kept.
    """

    epochs: int = 2
    batch: int = 16
    lr: float = 2e-3
    head_lr: float = 1e-2
    dropout: float = 0.05
    keep: int = 3

    def steps(self, count: int) -> int:
        """Steps of an epoch of so many texts."""
        return math.ceil(count / self.batch)


@dataclass(frozen=True)
class Examples:
    """Texts of a task and what is to be said about them.

    Attributes:
        texts: n texts, or pairs of texts.
        targets: (n,) int64 class numbers, or float32 values.
        num_classes: C; 0 for a task of values (regression).
    """

    texts: Sequence[Text]
    targets: np.ndarray
    num_classes: int

    def __len__(self) -> int:
        return len(self.texts)

    def part(self, numbers: Sequence[int] | np.ndarray) -> "Examples":
        """Those of these numbers."""
        return Examples([self.texts[int(i)] for i in numbers], self.targets[numbers], self.num_classes)


def probe_head(features: Tensor, examples: Examples) -> dict[str, Tensor]:
    """The head that is best on the frozen features: logistic regression, or ridge regression for values. Training
    starts from it: ``head.weight`` (C, d) and ``head.bias`` (C,), C = 1 for values."""
    from sklearn.linear_model import LogisticRegression, Ridge

    if not examples.num_classes:
        fitted = Ridge(alpha=1.0).fit(features.numpy(), examples.targets)
        weight, bias = fitted.coef_[None], np.array([fitted.intercept_])
    else:
        fitted = LogisticRegression(C=10.0, max_iter=1_000).fit(features.numpy(), examples.targets)
        weight, bias = np.zeros((examples.num_classes, features.shape[1])), np.full(examples.num_classes, -20.0)
        if len(fitted.classes_) == 2:  # one row, of the second class against the first
            weight[fitted.classes_] = np.concatenate([-fitted.coef_, fitted.coef_]) / 2
            bias[fitted.classes_] = np.concatenate([-fitted.intercept_, fitted.intercept_]) / 2
        else:
            weight[fitted.classes_], bias[fitted.classes_] = fitted.coef_, fitted.intercept_
    return {"head.weight": torch.from_numpy(weight).float(), "head.bias": torch.from_numpy(bias).float()}


def finetune(
    encoder: AdaptedEncoder,
    examples: Examples,
    head: dict[str, Tensor],
    config: TuneConfig,
    seed: int,
    progress: Progress = silent,
    steps: int | None = None,
    name: str = "",
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Train the encoder's adapter, from where it is, and a head, from ``head``.

    Args:
        seed: of the order of the texts and of dropout.
        steps: so many, instead of the configuration's epochs.
        name: of the adapter, in sentences.
    Yields:
        ``(step, state)``, with the adapter's matrices and the head's two tensors, at the steps that are kept: the last
        one, and others at equal distances in the last third.
    Raises:
        UserError: the training diverged.
    """
    parts = {name: tensor.clone().to(encoder.device).requires_grad_() for name, tensor in head.items()}
    loss_of: Callable = cross_entropy if examples.num_classes else mse_loss
    steps = steps or config.epochs * config.steps(len(examples))
    kept = {round(steps * (1 - i / (3 * config.keep))) for i in range(config.keep)}

    def loss(chosen: np.ndarray) -> Tensor:
        features = encoder.forward(encoder.tokens([examples.texts[i] for i in chosen]))
        target = torch.from_numpy(examples.targets[chosen]).to(encoder.device)
        said = features @ parts["head.weight"].T + parts["head.bias"]
        return loss_of(said if examples.num_classes else said[:, 0], target)

    more = {"params": list(parts.values()), "lr": config.head_lr}
    lengths = [length(text) for text in examples.texts]
    for step in descend(encoder, loss, lengths, config, seed, steps, kept, name, more, progress=progress):
        yield step, {**encoder.state(), **{name: v.detach().cpu().clone() for name, v in parts.items()}}


def descend(
    adapted: Adapted,
    loss_of: Callable[[np.ndarray], Tensor],
    lengths: Sequence[int],
    config: TuneConfig,
    seed: int,
    steps: int,
    kept: Collection[int],
    name: str,
    *more: dict,
    progress: Progress = silent,
) -> Iterator[int]:
    """Descend a loss from where the adapter is.

    Args:
        loss_of: numbers of the examples of a batch → their mean loss, with gradients.
        lengths: of the examples, in any unit: those of similar length come together.
        seed: of the order of the examples and of dropout.
        steps: how many.
        kept: those at which the adapter may be read and scored, and then goes on from there.
        name: of the adapter, in sentences.
        more: further groups of parameters, as optimisers of torch take them.
    Yields:
        The steps in ``kept``, counted from 1, with the network in evaluation mode.
    Raises:
        UserError: the training diverged.
    """
    rng = np.random.default_rng(seed)
    matrices = list(adapted.parameters.values())
    optimizer = torch.optim.AdamW([{"params": matrices, "lr": config.lr}, *more], weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _shape(steps))
    batches = _batches(np.array(lengths), config.batch, rng)
    with torch.random.fork_rng(devices=[adapted.device] if adapted.device.type == "cuda" else []):
        torch.manual_seed(seed)
        adapted.network.train()
        for matrix in matrices:
            matrix.requires_grad_(True)
        try:
            for step in range(1, steps + 1):
                loss = loss_of(next(batches))
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(matrices, 1.0)
                optimizer.step()
                schedule.step()
                whole = bool(loss.isfinite()) and (step not in kept or all(bool(m.isfinite().all()) for m in matrices))
                if not whole:
                    raise UserError(
                        f"The adapter {shown(name)} diverged at step {step:,}: its loss or its weights are no numbers; "
                        "build the zoo with a lower learning rate (--lr)."
                    )
                progress(STAGE, step, steps)
                if step in kept:
                    adapted.network.eval()  # whoever gets it may score it
                    yield step
                    adapted.network.train()
        finally:
            adapted.network.eval()
            for matrix in matrices:
                matrix.requires_grad_(False)


def predictions(encoder: AdaptedEncoder, head: dict[str, Tensor], texts: Sequence[Text]) -> Tensor:
    """(n, C) logits, or values (n, 1), by the adapter that is loaded and a head."""
    return encoder.embed(texts) @ head["head.weight"].T + head["head.bias"]


def _batches(lengths: np.ndarray, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Numbers of the examples of each step, without end: every epoch in a new random order, with those of similar
    length together."""
    while True:
        order = rng.permutation(len(lengths))
        batches = []
        for start in range(0, len(order), WINDOW * size):
            window = order[start : start + WINDOW * size]
            window = window[lengths[window].argsort(kind="stable")]
            batches += [window[i : i + size] for i in range(0, len(window), size)]
        for number in rng.permutation(len(batches)):
            yield batches[number]


def _shape(steps: int) -> Callable[[int], float]:
    warm = max(1, round(WARMUP * steps))
    return lambda step: min(1.0, (step + 1) / warm) * max(0.0, 1 - step / steps)


def score(metric: str, said: Tensor, targets: np.ndarray) -> float:
    """What a task measures, as GLUE does: ``accuracy``, ``matthews`` (Matthews' correlation, both from logits (n, C)),
    or ``pearson`` (from values (n, 1)); 0 where a correlation is not defined."""
    if metric == "pearson":
        values = said[:, 0].numpy().astype(float)
        return float(np.corrcoef(values, targets)[0, 1]) if values.std() and np.std(targets) else 0.0
    best = said.argmax(1).numpy()
    if metric == "matthews":
        from sklearn.metrics import matthews_corrcoef

        return float(matthews_corrcoef(targets, best))
    return float((best == targets).mean())
