"""Fine-tuning of a generated network on a data set, beside random weights and, where the bundle is given, what its zoo
has to offer (`d2nwg.evaluation.network_baselines`)."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from d2nwg.bundles import data_bundle, load_pipeline
from d2nwg.data.arrays import ImageArrays, load_arrays, to_channels
from d2nwg.data.labelled import LabelledSet
from d2nwg.evaluation import network_baselines as baselines
from d2nwg.evaluation.finetune import TRAINING, TUNING, Items
from d2nwg.evaluation.finetune_report import Curve, FineTuneReport, measured_on, sentences, text_table
from d2nwg.evaluation.finetune_starts import GENERATED, RANDOM, validation_part
from d2nwg.finetuning.heads import LR, VALIDATION
from d2nwg.finetuning.plan import Work, check_plan, is_count
from d2nwg.network_generation import ROWS, support_rows
from d2nwg.pipelines.dataset_networks import DatasetNetworkPipeline
from d2nwg.utils.devices import resolve_device
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import whole_file
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import markdown, number, some
from d2nwg.weights.network_files import NetworkFile
from d2nwg.weights.networks import State, pick
from d2nwg.weights.populations import accuracy_of, stack_states, train_networks
from d2nwg.weights.small_networks import initial_state

LRS = (3e-4, 1e-3, 3e-3, 1e-2)  # that are tried, by the first seed
MAX_IMAGES, MAX_TEST = 6000, 2000


@dataclass
class NetworkTuning:
    """A network that was trained further: from the generated start, by the first seed, after the last epoch.

    Attributes:
        report: what ``finetune.json`` holds.
    """

    network: NetworkFile
    report: FineTuneReport

    def save(self, part: Path, name: str) -> None:
        """Write the network's files and ``finetune.json`` into a folder that is there; ``name`` is what the card calls
        it."""
        report, table = self.report, "\n".join(text_table(self.report))
        words = "\n\n".join([*sentences(report), *map(markdown, report.notes)])
        about = f"Trained for {number(report.epochs, 'epoch')} on {markdown(report.data)} from generated weights."
        self.network.write(part, name, f"{about} {measured_on(report)}\n\n```\n{table}\n```\n\n{words}")
        report.write(part)


def finetune_network(
    start: NetworkFile,
    source: str | Path | LabelledSet,
    *,
    bundle: str | Path | None = None,
    epochs: int = 25,
    seeds: int = 3,
    checkpoints: Sequence[int] | None = None,
    lr: float | None = None,
    batch_size: int = 64,
    max_images: int = MAX_IMAGES,
    seed: int = 0,
    device: str | None = None,
    progress: Progress = silent,
    folder: Path | None = None,
    resume: bool = False,
) -> NetworkTuning:
    """As `d2nwg.finetuning.heads.finetune_head`, of a whole network, with Adam.

    Args:
        source: the data set, as `d2nwg.data.arrays.load_arrays` takes it. Its test part scores: of a set without one
            the fifth that generation held out too.
        bundle: of networks for a data set: with it the average of its zoo, the nearest member with its classes matched,
            that with noise as large as the generated network is far from it, and a kernel density of the best members
            are starts, too.
        max_images: most images to train on.
        folder: keeps what is finished: the tuning of each start and its training.
    """
    began, plan = time.monotonic(), check_plan(epochs, seeds, checkpoints, lr, (), batch_size, max_images, seed)
    work, device = Work.open(folder, resume), resolve_device(device)
    parts = read_network_parts(start, source, max_images, plan["seeds"][0], progress)
    arms = _starts(start, bundle, parts, plan["seeds"])
    digest = sha256(b"".join(t.contiguous().numpy().tobytes() for s in arms.values() for t in s.values()))
    for items in (parts.train, parts.test):
        digest.update(items.features.numpy().tobytes() + items.labels.numpy().tobytes())
    work.begin(plan | {"arms": list(arms), "digest": digest.hexdigest()})
    run = _Run(start, plan, device, work.folder, progress)
    aside = validation_part(parts.train.labels, parts.shown, VALIDATION, plan["seeds"][0])
    tune = lr is None and bool(aside.any())
    lrs = dict.fromkeys(arms, lr or LR)
    if tune:
        lrs = run.tune(arms, parts.train.at(~aside), parts.train.at(aside))
    curves, state = run.train(arms, lrs, parts.train, parts.test)
    if not all(tensor.isfinite().all() for tensor in state.values()):
        raise UserError("Training diverged: its weights are no numbers; give a lower --lr.")
    report = FineTuneReport(
        kind="network",
        data=parts.data.name,
        classes=list(start.classes),
        encoder=start.network,
        epochs=epochs,
        checkpoints=plan["checkpoints"],
        seeds=plan["seeds"],
        batch_size=batch_size,
        tuned=tune,
        num_train=len(parts.train.labels),
        num_validation=int(aside.sum()) if tune else 0,
        num_test=len(parts.test.labels),
        num_shown=int(parts.shown.sum()),
        curves=curves,
        seconds=round(time.monotonic() - began, 3),
        device=device,
        notes=[*parts.data.notes, *parts.notes],
    )
    info = {
        **start.info,
        "query_accuracy": curves[0].accuracy[-1][0],
        "finetuned": {"epochs": epochs, "lr": curves[0].lr},
    }
    shape = start.network, start.channels, start.classes, start.size, start.mean, start.std, start.bundle
    return NetworkTuning(NetworkFile(state, *shape, info), report)


@dataclass(frozen=True)
class NetworkParts:
    """Images, as bytes (n, c, s, s), that train and that score; ``shown`` (n,) those that generation saw."""

    data: ImageArrays
    train: Items
    test: Items
    shown: Tensor
    notes: tuple[str, ...]


def read_network_parts(
    start: NetworkFile, source: str | Path | LabelledSet, max_images: int, seed: int, progress: Progress = silent
) -> NetworkParts:
    """Images of the network's classes. The split is that of `d2nwg.network_generation`: its ``info`` has the seed and
    the shots.

    Raises:
        UserError: other classes than the network's, or unreadable data.
    """
    shots, own_seed = start.info.get("shots"), start.info.get("seed")
    split = own_seed if is_count(own_seed, 0) else 0
    data = load_arrays(source, size=start.size, rows=ROWS, seed=split, progress=progress)
    if set(data.classes) != set(start.classes):
        other = sorted(set(data.classes) ^ set(start.classes))
        raise UserError(
            f"{data.name} and the network do not have the same classes ({some(other)}): give data with the network's "
            f"own ({some(start.classes, 8)})."
        )
    shown, rng, notes = np.zeros(len(data.train_labels), bool), np.random.default_rng(seed), []
    if is_count(shots, 1) and is_count(own_seed, 0):
        with suppress(UserError):  # a class has fewer than were shown
            shown[support_rows(data, shots, np.random.default_rng(own_seed))] = True
    if not shown.any() or start.info.get("data") != data.name:
        notes.append("Which images the network was made from is not known: some may be among those that score it.")
    order = rng.permutation(len(shown))
    order = np.concatenate([order[shown[order]], order[~shown[order]]])[:max_images]
    test = rng.permutation(len(data.test_labels))[:MAX_TEST]
    rows = torch.tensor([start.classes.index(name) for name in data.classes])
    parts = []
    for images, labels, kept in ((data.train, data.train_labels, order), (data.test, data.test_labels, test)):
        pixels = to_channels(torch.from_numpy(np.ascontiguousarray(images[kept])), start.channels)
        parts.append(Items(pixels, rows[torch.from_numpy(labels[kept])]))
    return NetworkParts(data, parts[0], parts[1], torch.from_numpy(shown[order]), tuple(notes))


def _starts(
    start: NetworkFile, bundle: str | Path | None, parts: NetworkParts, seeds: Sequence[int]
) -> dict[str, State]:
    """Arm → networks (S, …): one a seed where they are drawn, otherwise the same for all."""
    shape, classes = (start.network, start.channels), len(start.classes)
    random = stack_states([initial_state(*shape, classes, start.size, seed) for seed in seeds])
    arms: dict[str, State] = {GENERATED: _one(start.state), RANDOM: random}
    if bundle is not None:
        arms |= _of_zoo(start, bundle, parts, seeds)
    return {name: _for_each(state, len(seeds)) for name, state in arms.items()}


def _of_zoo(start: NetworkFile, bundle: str | Path, parts: NetworkParts, seeds: Sequence[int]) -> dict[str, State]:
    pipe = load_pipeline(data_bundle(bundle), "cpu")
    assert isinstance(pipe, DatasetNetworkPipeline)
    space, classes = deepcopy(pipe.weight_space), len(start.classes)
    config = space.config
    if (config.network, config.channels, config.size) != (start.network, start.channels, start.size):
        raise UserError("This bundle makes networks of another architecture: give the one that made this network.")
    images = parts.train.at(parts.shown) if parts.shown.any() else parts.train
    nearest = baselines.nearest_member(space, *images)
    drawn = [baselines.density_samples(space, classes, 1, torch.Generator().manual_seed(seed)) for seed in seeds]
    found: dict[str, State | None] = {"average": baselines.average_network(space, classes), "nearest": nearest}
    if nearest is not None:
        apart = [space.standardised(space.split(state)[0]) for state in (_one(start.state), nearest)]
        far = float((apart[0] - apart[1]).norm())
        noisy = [baselines.with_noise(space, nearest, far, torch.Generator().manual_seed(seed)) for seed in seeds]
        found["noise"] = stack_states([pick(state, 0) for state in noisy])
    whole = [pick(state, 0) for state in drawn if state is not None]
    found["density"] = stack_states(whole) if whole else None
    return {name: state for name, state in found.items() if state is not None}


def _one(state: State) -> State:
    return {name: value.unsqueeze(0) for name, value in state.items()}


def _for_each(state: State, seeds: int) -> State:
    return {n: (t if len(t) == seeds else t.expand(seeds, *t.shape[1:])).contiguous() for n, t in state.items()}


class _Run:
    """Trains starts one after another, and keeps what is finished."""

    def __init__(
        self, start: NetworkFile, plan: Mapping[str, Any], device: str, folder: Path | None, progress: Progress
    ):
        self.start, self.plan, self.device, self.folder, self.progress = start, plan, device, folder, progress
        self.module = start.module()

    def tune(self, arms: Mapping[str, State], train: Items, held: Items) -> dict[str, float]:
        """Each start's learning rate: the best on ``held``, on average over the checkpoints after 0."""
        chosen, epochs = {}, [epoch for epoch in self.plan["checkpoints"] if epoch]
        for place, (arm, states) in enumerate(arms.items()):
            several = _for_each(_one(pick(states, 0)), len(LRS))
            seeds = [self.plan["seeds"][0]] * len(LRS)
            right, _ = self._one(f"tuning-{arm}", several, LRS, seeds, train, held, epochs, (TUNING, place, len(arms)))
            chosen[arm] = LRS[int(np.mean(right[1:], 0).argmax())]
        return chosen

    def train(self, arms: Mapping[str, State], lrs: Mapping[str, float], train: Items, test: Items):
        """All curves, and the network of the generated start and the first seed."""
        curves, epochs, made = [], list(range(1, self.plan["epochs"] + 1)), {}
        for place, (arm, states) in enumerate(arms.items()):
            seeds, rates = self.plan["seeds"], [lrs[arm]] * len(self.plan["seeds"])
            parts = (TRAINING, place, len(arms))
            right, done = self._one(f"training-{arm}", states, rates, seeds, train, test, epochs, parts)
            curves.append(Curve(arm, lrs[arm], [0, *epochs], right))
            if arm == GENERATED:
                made = pick(done, 0)
        return curves, made

    def _one(self, name, states: State, rates, seeds, train: Items, held: Items, epochs, part: tuple[str, int, int]):
        """Accuracies of networks before training and after each of some epochs, and the networks at the end."""
        path = self.folder and self.folder / f"{name}.safetensors"
        if path and path.exists():
            return _kept(path, states)
        images, x = self.start.normalised(held.features)[None], self.start.normalised(train.features)[None]
        batch = min(self.plan["batch_size"], len(train.labels))
        steps = [round(epoch * len(train.labels) / batch) for epoch in epochs]
        states = {key: tensor.to(self.device) for key, tensor in states.items()}
        right: dict[int, list[float]] = {}

        def look(step: int, found: State) -> None:
            values = accuracy_of(self.module, found, images, held.labels[None]).tolist()
            right[step] = [round(value, 6) for value in values]

        stage, place, of = part
        look(0, states)
        done = train_networks(
            self.module,
            states,
            x,
            train.labels[None],
            steps=steps[-1],
            batch_size=batch,
            lr=list(rates),
            seeds=list(seeds),
            at=steps,
            on_step=look,
            progress=lambda _, now, total: self.progress(stage, place * total + now, of * total),
        )
        done, curve = {key: tensor.cpu() for key, tensor in done.items()}, [right[step] for step in (0, *steps)]
        if path:
            with whole_file(path) as file:
                save_file({key: t.contiguous() for key, t in done.items()}, file, {"accuracy": json.dumps(curve)})
        return curve, done


def _kept(path: Path, like: State) -> tuple[list[list[float]], State]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            return json.loads(file.metadata()["accuracy"]), {key: file.get_tensor(key) for key in like}
    except Exception as reason:  # a damaged file can fail in any way
        raise UserError(f"{path} is damaged: remove it to train that start again.") from reason
