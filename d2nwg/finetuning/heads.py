"""Fine-tuning from generated weights: a head and labelled data in, the head trained further out, with curves that show
what the generated start is worth beside others."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import Tensor

from d2nwg.data.labelled import LabelledSet
from d2nwg.evaluation import finetune_starts as starts
from d2nwg.evaluation.finetune import BATCH, LRS, TRAINING, TUNING, Items, Standard, Training, choose_lrs, train_heads
from d2nwg.evaluation.finetune_report import Curve, FineTuneReport, measured_on, sentences, text_table
from d2nwg.finetuning.parts import Parts, read_parts
from d2nwg.finetuning.plan import Work, check_plan
from d2nwg.heads import Head
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import check_memory
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import markdown, number
from d2nwg.weights.networks import State, pick

VALIDATION = 0.2  # of each class's training images
LR = 1e-3  # where nothing can choose one
MAX_IMAGES = 3000
STATES = 8  # copies of the heads in memory: weights, two moments, gradients, and what a step needs


@dataclass
class FineTuning:
    """A head that was trained further.

    Attributes:
        head: from the generated start, by the first seed, after the last epoch.
        report: what ``finetune.json`` holds.
    """

    head: Head
    report: FineTuneReport

    def save(self, folder: str | Path, name: str = "") -> Path:
        """Write ``head.safetensors``, ``finetune.json`` and ``README.md``; the page needs no ``name``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.head.save(folder / "head.safetensors")
        self.report.write(folder)
        (folder / "README.md").write_text(readme(self.report), encoding="utf-8", errors="backslashreplace")
        return folder


def finetune_head(
    start: Head,
    data: LabelledSet,
    *,
    epochs: int = 25,
    seeds: int = 3,
    checkpoints: Sequence[int] | None = None,
    lr: float | None = None,
    arms: Sequence[str] = starts.ARMS,
    batch_size: int = BATCH,
    max_images: int = MAX_IMAGES,
    seed: int = 0,
    device: str | None = None,
    progress: Progress = silent,
    folder: Path | None = None,
    resume: bool = False,
) -> FineTuning:
    """Train a head further on a data set, and other starts beside it on the same batches.

    The test split scores, or else a third of the images that the head was not made from. Each start's learning rate
    is chosen on a fifth of the training images (`d2nwg.evaluation.finetune.LRS`), which then train with the others.

    Args:
        start: the head; its ``info`` says which images it was made from.
        data: with the head's classes.
        epochs: passes over the training images.
        seeds: runs of each start, which differ by the order of the images and by random weights.
        checkpoints: epochs of the table; by default 0, 1, 5, 25, 50 …, and the last one.
        lr: one learning rate for all starts; by default each has its own.
        arms: the starts, of `d2nwg.evaluation.finetune_starts.ARMS`; the generated one is always there.
        batch_size: images a step.
        max_images: most images to train and score on.
        seed: the first one; also of what trains and what scores.
        progress: stages "Reading images" (or "texts"), "Tuning learning rates" and "Fine-tuning".
        folder: keeps the state, so that a killed run can be gone on with.
        resume: go on with the run in ``folder``.
    Raises:
        UserError: other classes than the head's, too few images, a number out of its limits, or another run in
            ``folder``.
    """
    began = time.monotonic()
    plan = check_plan(epochs, seeds, checkpoints, lr, arms, batch_size, max_images, seed)
    work = Work.open(folder, resume)
    encoder = start.open_encoder(device)
    parts = read_parts(start, data, encoder, max_images, seed, progress)
    work.begin(plan | {"head": _digest(start.state), "parts": parts.digest()})
    made = _train(start, parts, plan, str(encoder.device), work.folder, progress)
    report = FineTuneReport(
        kind="head",
        data=data.name,
        classes=list(start.classes),
        encoder=start.encoder,
        epochs=epochs,
        checkpoints=plan["checkpoints"],
        seeds=plan["seeds"],
        batch_size=batch_size,
        tuned=made.tuned,
        num_train=len(parts.train.labels),
        num_validation=made.num_validation,
        num_test=len(parts.test.labels),
        num_shown=int(parts.shown.sum()),
        curves=made.curves,
        seconds=round(time.monotonic() - began, 3),
        device=str(encoder.device),
        notes=[*data.notes, *parts.notes, *made.notes],
        noun=data.noun,
    )
    right = made.curves[0].accuracy[-1][0]
    info = {**start.info, "query_accuracy": right, "num_query": report.num_test}
    info["selection"] = f"trained for {number(epochs, 'epoch')} from: {start.info.get('selection', 'a head')}"
    info["finetuned"] = {"epochs": epochs, "lr": made.curves[0].lr, "seed": parts.seed, "max_images": parts.max_images}
    return FineTuning(Head(made.state, start.encoder, start.classes, start.preprocessing, info), report)


@dataclass
class _Made:
    """Trained heads: the generated start's state after the last epoch, by the first seed, and all curves."""

    state: State
    curves: list[Curve]
    tuned: bool
    num_validation: int
    notes: list[str]


def _train(head: Head, parts: Parts, plan: Mapping[str, Any], device: str, folder: Path | None, progress: Progress):
    """Tune each start's learning rate, and then train all of them."""
    standard = Standard.of(parts.train.features)
    train, test = standard.place(parts.train), standard.place(parts.test)
    aside = starts.validation_part(train.labels, parts.shown, VALIDATION, plan["seeds"][0])
    held = train.at(aside)
    given, seeds = standard.take(head.state), plan["seeds"]
    tune, notes = plan["lr"] is None and bool(aside.any()), []
    if plan["lr"] is None and not tune:
        notes = [f"There are too few {head.noun}s to choose learning rates on: all starts have {LR:g}."]
    fitted, factors = _starts(plan["arms"], given, train.at(~aside), parts.shown[~aside], held, seeds, {})
    lrs = dict.fromkeys(fitted, plan["lr"] or LR)
    size = sum(tensor.numel() for state in fitted.values() for tensor in state.values()) * 4 * STATES
    check_memory(size * (len(LRS) if tune else 1), "Fine-tuning", "ask for fewer seeds, or give a --lr", device)
    run: dict[str, Any] = {key: plan[key] for key in ("epochs", "seeds", "batch_size", "checkpoints")} | {
        "device": device
    }
    groups = _groups(fitted)
    for i, names in enumerate(groups if tune else ()):
        tuning = partial(
            train_heads,
            train=train.at(~aside),
            held=held,
            **run,
            keep=folder and folder / f"tuning-{i}.safetensors",
            progress=_part(progress, i, len(groups)),
            stage=TUNING,
        )
        lrs |= choose_lrs({name: fitted[name] for name in names}, tuning, plan["checkpoints"])
    fitted, _ = _starts(plan["arms"], given, train, parts.shown, held, seeds, factors)
    curves: dict[str, Curve] = {}
    state: State = {}
    for i, names in enumerate(groups):
        done = train_heads(
            [fitted[name] for name in names],
            [lrs[name] for name in names],
            train,
            test,
            **run,
            keep=folder and folder / f"training-{i}.safetensors",
            progress=_part(progress, i, len(groups)),
            stage=TRAINING,
        )
        curves |= _curves(done, names, lrs)
        if starts.GENERATED in names:
            state = pick(pick(done.state, 0), names.index(starts.GENERATED))
    if not all(tensor.isfinite().all() for tensor in state.values()):
        raise UserError("Training diverged: its weights are no numbers; give a lower --lr.")
    ordered = [curves[arm] for arm in plan["arms"] if arm in curves]
    return _Made(standard.give_back(state), ordered, tune, int(aside.sum()) if tune else 0, notes)


def _starts(arms, given: State, train: Items, shown: Tensor, held: Items, seeds, factors: dict[str, float]):
    """Arm → heads (S, …) in the units of `Standard`, and the factors of the closed-form ones' logits: those given, or
    the likeliest on held-out images. Without shown images the closed-form heads are fitted to all training images."""
    made, classes = {}, len(given.get("bias", given.get("2.bias")))  # type: ignore[arg-type]
    probe = "linear" if "weight" in given else "mlp"
    hidden, width = (0, given["weight"].shape[1]) if probe == "linear" else given["0.weight"].shape
    for arm in arms:
        if arm == starts.GENERATED:
            one = given
        elif arm == starts.RANDOM:
            made[arm] = starts.random_heads(probe, width, classes, hidden, seeds)
            continue
        elif arm == starts.RIDGE_ALL and not shown.any():
            continue  # the same as ridge
        else:
            images = train if arm == starts.RIDGE_ALL or not shown.any() else train.at(shown)
            one = starts.closed_form(starts.RIDGE if arm == starts.RIDGE_ALL else arm, images, classes, seeds[0])
            factors = factors | ({} if arm in factors else {arm: starts.likeliest_scale(one, held)})
            one = starts.scaled(one, factors[arm])
        made[arm] = {name: tensor.expand(len(seeds), *tensor.shape).clone() for name, tensor in one.items()}
    return made, factors


def _groups(fitted: Mapping[str, State]) -> list[list[str]]:
    """The starts of each architecture, which are trained as one batch."""
    kinds: dict[tuple, list[str]] = {}
    for name, state in fitted.items():
        kinds.setdefault(tuple(state), []).append(name)
    return list(kinds.values())


def _part(progress: Progress, number: int, of: int) -> Progress:
    """Progress of one of several equal parts, as progress of all."""
    return lambda stage, done, total: progress(stage, number * total + done, of * total)


def _curves(done: Training, names: Sequence[str], lrs: Mapping[str, float]) -> dict[str, Curve]:
    epochs = list(range(len(done.accuracy)))
    right = [[[round(value, 6) for value in row[k]] for row in done.accuracy] for k in range(len(names))]
    return {name: Curve(name, lrs[name], epochs, right[k]) for k, name in enumerate(names)}


def _digest(state: State) -> str:
    found = sha256()
    for name in sorted(state):
        found.update(name.encode() + state[name].contiguous().numpy().tobytes())
    return found.hexdigest()


README = """# A head for {data}, trained further from generated weights

`head.safetensors` was trained for {epochs} from a generated head, on the features of {encoder}. {measured}

```
{table}
```

{words}

```
python -m d2nwg predict head.safetensors {example}
```

`finetune.json` holds the curves of every start and seed.
"""


def readme(report: FineTuneReport) -> str:
    """The README.md that is saved with a fine-tuned head."""
    examples = {"image": "picture.jpg", "text": '--text "A text."', "pair": '--text "One text." "The other."'}
    return README.format(
        data=markdown(report.data),
        epochs=number(report.epochs, "epoch"),
        encoder=markdown(report.encoder),
        measured=measured_on(report),
        table="\n".join(text_table(report)),
        words="\n\n".join([*sentences(report), *map(markdown, report.notes)]),
        example=examples[report.noun],
    )
