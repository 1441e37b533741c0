"""Zoos of adapters of a text encoder: a LoRA adapter and a head for each task of texts and seed
(``python -m d2nwg zoo build --adapter lora``; `d2nwg.weights.tuning` builds them).

A zoo of adapters is a zoo of checkpoints (`d2nwg.weights.model_zoo`) whose ``zoo.json`` says in ``adapters`` what they
are adapters of, and of which tasks. A checkpoint holds the adapter's matrices under peft's names, and ``head.weight``
(C, d) and ``head.bias`` (C,).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from d2nwg.data.text_tasks import DEV, TEST, TRAIN, TextTask
from d2nwg.encoders.lora import AdaptedEncoder, LoraShape
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import whole_file
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import shown
from d2nwg.weights.building import build
from d2nwg.weights.finetune import Examples, TuneConfig, finetune, predictions, probe_head, score
from d2nwg.weights.model_zoo import ModelZoo
from d2nwg.weights.networks import State
from d2nwg.weights.tuning import Tuning


@dataclass(frozen=True)
class AdapterZooConfig:
    """How a zoo of adapters is built.

    Attributes:
        shape: which matrices of which encoder.
        tune: how each adapter is trained.
        seeds: adapters a task; they differ by the order of the texts and by dropout, and start from one initialisation.
        rows: most training texts of a task.
        scored: most texts that choose, and most that score.
        seed: the first one; also of the rows that are drawn.
    """

    shape: LoraShape = field(default_factory=LoraShape)
    tune: TuneConfig = field(default_factory=TuneConfig)
    seeds: int = 3
    rows: int = 3_000
    scored: int = 500
    seed: int = 0


def build_adapters(
    tasks: Sequence[TextTask],
    config: AdapterZooConfig,
    out: str | Path,
    *,
    resume: bool = False,
    device: str | None = None,
    progress: Progress = silent,
) -> ModelZoo:
    """Fine-tune ``config.seeds`` adapters of a text encoder for each task and write the zoo to ``out`` (`build`).

    Raises:
        UserError: as `build`; two tasks have one name, or a task lacks a part; no such encoder.
    """
    _check_tasks(tasks)
    return build(EncoderTuning(tasks, config), out, resume=resume, device=device, progress=progress)


class EncoderTuning(Tuning):
    """Adapters of a text encoder, each with a head, on tasks of texts."""

    encoder: AdaptedEncoder

    def __init__(self, tasks: Sequence[TextTask], config: AdapterZooConfig):
        self.tasks, self.config = tasks, config
        self.names = [task.name for task in tasks]
        self.seeds, self.seed, self.keep = config.seeds, config.seed, config.tune.keep

    @property
    def about(self) -> dict[str, Any]:
        return {"config": asdict(self.config), "tasks": _prints(self.tasks)}

    def open(self, device: str) -> AdaptedEncoder:
        self.encoder = AdaptedEncoder(self.config.shape, device, self.config.tune.dropout)
        return self.encoder

    def units(self, task: int) -> int:
        tune, size = self.config.tune, min(self.config.rows, len(self.tasks[task].numbers(TRAIN)))
        return tune.epochs * tune.steps(size)

    def frozen(self, task: int, work: Path) -> dict[str, float]:
        return self._scores(task, self._head(task, work))

    def tune(self, task, seed, work, name, progress):
        head = self._head(task, work)
        tune = self.config.tune
        for step, state in finetune(self.encoder, self._texts(task), head, tune, seed, progress, name=name):
            scores = self._scores(task, {part: state[part] for part in head})
            said = {"score": scores["test"], "dev_score": scores["dev"]}
            if self.tasks[task].metric == "accuracy":
                said["accuracy"] = scores["test"]
            yield step, state, said

    def facts(self, frozen: Sequence[dict[str, float]]) -> dict[str, Any]:
        return {
            "shape": asdict(self.config.shape),
            "encoder_key": self.encoder.key,
            "build": {key: value for key, value in asdict(self.config).items() if key != "shape"},
            "tasks": [
                {
                    "name": task.name,
                    "descriptions": list(task.descriptions),
                    "aside": list(task.aside),
                    "classes": list(task.classes),
                    "metric": task.metric,
                    "pairs": isinstance(task.texts[0], tuple),
                    "parts": [len(task.numbers(part)) for part in (TRAIN, DEV, TEST)],
                    "cut": task.cut,
                    "frozen": scores,
                }
                for task, scores in zip(self.tasks, frozen, strict=True)
            ],
        }

    def _texts(self, task: int) -> Examples:
        return examples_of(self.tasks[task], TRAIN, self.config.rows, self.config.seed)

    def _head(self, task: int, work: Path) -> State:
        """Of the encoder without an adapter, which is in this state when the head is first asked for."""
        file = work / f"head-{task:05d}.safetensors"
        if not file.exists():
            self.encoder.reset()
            train = self._texts(task)
            with whole_file(file) as part:
                save_file(probe_head(self.encoder.embed(train.texts), train), part)
        return load_file(file)

    def _scores(self, task: int, head: State) -> dict[str, float]:
        """By the task's metric, on the texts that choose (``dev``) and on those that score (``test``)."""
        found = {}
        for name, part in (("dev", DEV), ("test", TEST)):
            examples = examples_of(self.tasks[task], part, self.config.scored, self.config.seed)
            said = predictions(self.encoder, head, examples.texts)
            found[name] = round(score(self.tasks[task].metric, said, examples.targets), 6)
        return found


def _check_tasks(tasks: Sequence[TextTask]) -> None:
    if not tasks:
        raise UserError("There is no task to build adapters for: name at least one.")
    names = [task.name for task in tasks]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"Two tasks are called {shown(twice[0])}: rename one.")
    for task in tasks:
        if any(not len(task.numbers(part)) for part in (TRAIN, DEV, TEST)):
            raise UserError(f"The task {shown(task.name)} has no text to train, to choose or to score with.")


def _prints(tasks: Sequence[TextTask]) -> list[list[str]]:
    """Name and fingerprint of each task."""
    prints = []
    for task in tasks:
        content = hashlib.sha256(
            repr((task.classes, task.metric, task.descriptions, task.aside)).encode("utf-8", "replace")
        )
        for text in task.texts:
            content.update(repr(text).encode("utf-8", "replace"))
        content.update(task.targets.tobytes() + task.part.tobytes())
        prints.append([task.name, content.hexdigest()[:32]])
    return prints


def examples_of(task: TextTask, part: int, most: int, seed: int) -> Examples:
    """Texts of a part of a task, at most so many, drawn by the seed: as a zoo's adapters are trained and scored on."""
    chosen = task.numbers(part, most, seed)
    return Examples([task.texts[int(i)] for i in chosen], task.targets[chosen], len(task.classes))
