"""Fine-tuning an adapter and a head on one task of texts."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from d2nwg.data.text_set import Text
from d2nwg.encoders.lora import AdaptedEncoder, length
from d2nwg.utils.progress import Progress, silent

HEAD = ("head.weight", "head.bias")
WINDOW = 32  # batches that are sorted by length together: less padding, and still a random order
WARMUP = 0.06  # share of the steps


@dataclass(frozen=True)
class TuneConfig:
    """How one adapter is trained (AdamW; the learning rate rises in the first 6 % of the steps and then falls to zero).

    Attributes:
        epochs: passes over the texts.
        batch: texts a step.
        lr: peak learning rate of the adapter.
        head_lr: of the head.
        dropout: of the adapter's input.
        keep: checkpoints that are kept: the last one, and others at equal distances in the last third.
    """

    epochs: int = 2
    batch: int = 16
    lr: float = 2e-3
    head_lr: float = 1e-2
    dropout: float = 0.05
    keep: int = 3


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
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Train the encoder's adapter, from where it is, and a head, from ``head``.

    Args:
        seed: of the order of the texts and of dropout.
        steps: so many, instead of the configuration's epochs.
    Yields:
        ``(step, state)``, with the adapter's matrices and the head's two tensors, at the steps that are kept.
    """
    rng = np.random.default_rng(seed)
    an_epoch = math.ceil(len(examples) / config.batch)
    steps = steps or config.epochs * an_epoch
    parts = {name: tensor.clone().to(encoder.device).requires_grad_() for name, tensor in head.items()}
    matrices = list(encoder.parameters.values())
    groups = [{"params": matrices, "lr": config.lr}, {"params": list(parts.values()), "lr": config.head_lr}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _shape(steps))
    loss_of: Callable = cross_entropy if examples.num_classes else mse_loss
    kept = {round(steps * (1 - i / (3 * config.keep))) for i in range(config.keep)}
    batches = _batches(examples.texts, config.batch, rng)
    with torch.random.fork_rng(devices=[encoder.device] if encoder.device.type == "cuda" else []):
        torch.manual_seed(seed)
        encoder.network.train()
        for matrix in matrices:
            matrix.requires_grad_(True)
        try:
            for step in range(1, steps + 1):
                chosen = next(batches)
                features = encoder.forward(encoder.tokens([examples.texts[i] for i in chosen]))
                target = torch.from_numpy(examples.targets[chosen]).to(encoder.device)
                said = features @ parts["head.weight"].T + parts["head.bias"]
                loss = loss_of(said if examples.num_classes else said[:, 0], target)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(matrices, 1.0)
                optimizer.step()
                schedule.step()
                progress("Training adapters", step, steps)
                if step in kept:
                    encoder.network.eval()  # whoever gets it may score it
                    yield step, {**encoder.state(), **{name: v.detach().cpu().clone() for name, v in parts.items()}}
                    encoder.network.train()
        finally:
            encoder.network.eval()
            for matrix in matrices:
                matrix.requires_grad_(False)


def predictions(encoder: AdaptedEncoder, head: dict[str, Tensor], texts: Sequence[Text]) -> Tensor:
    """(n, C) logits, or values (n, 1), by the adapter that is loaded and a head."""
    return encoder.embed(texts) @ head["head.weight"].T + head["head.bias"]


def _batches(texts: Sequence[Text], size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Numbers of the texts of each step, without end: every epoch in a new random order, with texts of similar length
    together."""
    lengths = np.array([length(text) for text in texts])
    while True:
        order = rng.permutation(len(texts))
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
