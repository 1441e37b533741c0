"""A zoo, or several, in; a bundle out."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from d2nwg.conditions.dataset import DatasetEncoder
from d2nwg.conditions.task_id import TaskIndex
from d2nwg.models.schedulers import make_scheduler
from d2nwg.models.spaces import WeightSpace
from d2nwg.models.unet import ConditionalUNet
from d2nwg.models.vae import WeightVAE
from d2nwg.pipelines.heads import WeightGenerationPipeline
from d2nwg.pipelines.networks import ModelGenerationPipeline
from d2nwg.training.cards import model_card
from d2nwg.training.config import GENERATORS, DualConfig, ModelsConfig, TrainConfig, generator_of
from d2nwg.training.data import ZooBatches
from d2nwg.training.episodes import ZooEpisodes
from d2nwg.training.heads_dual import train_dual
from d2nwg.training.loop import MetricsLog, clear_checkpoints
from d2nwg.training.networks import train_whole
from d2nwg.training.stages import Stages
from d2nwg.utils.devices import leave_group_at_exit, resolve_device
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import write_whole
from d2nwg.utils.progress import Progress, silent
from d2nwg.weights.layouts import WholeLayout
from d2nwg.weights.model_zoo import ModelZoo
from d2nwg.weights.networks import head_shapes, select_classes
from d2nwg.weights.zoo import Zoo

ZOO_SAMPLE = 256  # zoo heads that a bundle keeps, for plots and for the distance to the nearest
ZOO_CONDITIONS = 1024  # zoo tasks whose z_D it keeps, to tell where a condition is unlike any that was seen


def train_bundle(
    zoo: Zoo | ModelZoo | Sequence[Zoo],
    config: TrainConfig | DualConfig | ModelsConfig,
    out: str | Path,
    *,
    resume: bool = False,
    device: str | None = None,
    progress: Progress = silent,
) -> Path:
    """Train a generator and write the bundle to ``out``: the paper's three stages on heads or on whole models, or the
    dual-coordinate generator.

    Until it is finished everything lies in ``out`` + ``.training``: the configuration, ``metrics.jsonl`` and a
    checkpoint a stage, from which ``resume=True`` goes on. A resumed run ends with the same bundle as an undisturbed
    one.

    Args:
        zoo: the dual generator takes several, of different encoders; the first one's encoder is the bundle's default.
        config: its type says which generator.
    Raises:
        UserError: ``out`` exists, or an unfinished run lies there and ``resume`` is False, or the reverse; or the zoos
            do not suit the generator; or there is no such device.
    """
    zoos = [zoo] if isinstance(zoo, (Zoo, ModelZoo)) else list(zoo)
    device = resolve_device(device)
    for one in zoos:
        if len(one) < 5:  # a fifth of the records scores what the others train
            raise UserError(f"The zoo {one.path} has only {len(one)} records: build one of thousands.")
        if isinstance(one, ModelZoo) != isinstance(config, ModelsConfig):
            kind, other = ("whole models", "models") if isinstance(one, ModelZoo) else ("heads", "unet or dual")
            raise UserError(f"{one.path} is a zoo of {kind}: train on it with --generator {other}.")
    if not isinstance(config, DualConfig) and len(zoos) > 1:
        raise UserError("This generator is trained on one zoo: give one, or choose --generator dual.")
    if ":" in device:  # accelerate takes the current one
        torch.cuda.set_device(device)
    out = Path(out)
    work = out.with_name(out.name + ".training")
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if config.accumulate < 1 or getattr(config, "batch_size", 10**9) < config.accumulate * processes:
        raise UserError("A batch can be worked on in 1 part or more, of at least one record for each process.")
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=config.mixed_precision)
    leave_group_at_exit()
    config = _open_together(accelerator, out, work, zoos, config, resume)
    accelerator.gradient_accumulation_steps = config.accumulate  # a resumed run's own
    torch.manual_seed(config.seed)
    started = time.monotonic()
    log = MetricsLog(work / "metrics.jsonl", accelerator)
    run = (work, accelerator, log, progress)
    layout = None if isinstance(config, ModelsConfig) else _fit_layout(zoos[0])
    if isinstance(config, DualConfig):
        scheduler = make_scheduler("sample")
        episodes = ZooEpisodes(zoos, config, accelerator.device)
        denoiser, measured = train_dual(config, episodes, scheduler, *run)
        parts = (None, None, denoiser, scheduler)
    elif isinstance(config, ModelsConfig):
        parts, measured = train_whole(zoos[0], config, *run)
    else:
        parts, measured = _train_unet(zoos[0], layout, config, *run)
    measured |= {"seconds": round(time.monotonic() - started)}
    log(stage="Finished", **measured)
    if accelerator.is_main_process:
        if layout is None:
            pipe = ModelGenerationPipeline(*parts)
        else:
            pipe = WeightGenerationPipeline(*parts, _weight_space(zoos[0], layout, parts[1]))
        _write_bundle(pipe.to("cpu"), out, work, zoos, config, measured)
    accelerator.wait_for_everyone()
    return out


def _train_unet(zoo, layout, config, work, accelerator, log, progress) -> tuple[tuple, dict]:
    """The paper's three stages: (VAE, data-set encoder, denoiser, scheduler), and what was measured."""
    if layout.tokens == 1 and config.patch == TrainConfig.patch:
        # No rows: one square picture for the whole vector and a latent of 4 × 16 × 16, as in the paper.
        levels = (config.vae_channels * 3)[:3]
        config = replace(config, patch=(1, 64, 64), vae_channels=levels, latent_channels=4, condition_channels=8)
    by_name = config.condition == "task"
    data = ZooBatches(zoo, layout, config.shots, accelerator.device, by_name)
    width = zoo.images["projection"].shape[0]
    vae = WeightVAE(
        size=layout.size,
        tokens=layout.tokens,
        patch=config.patch,
        channels=config.vae_channels,
        latent_channels=config.latent_channels,
        skip=config.vae_skip,
    ).to(accelerator.device)
    stages = Stages(config, data, work, accelerator, log, progress)
    measured = stages.train_vae(vae)
    latent_size = torch.Size(vae.latent_shape).numel()
    if by_name:
        encoder = TaskIndex([f"{data}/{name}" for data, name in zoo.class_names], config.encoder_width, latent_size)
    else:
        encoder = DatasetEncoder(width, config.encoder_width, depth=config.encoder_depth, latent_size=latent_size)
    encoder = encoder.to(accelerator.device)
    stages.train_encoder(encoder, vae)
    denoiser = ConditionalUNet(
        latent_shape=vae.latent_shape,
        tokens=layout.tokens,
        num_classes=layout.num_classes,
        slot_size=encoder.slot_size,
        dataset_size=config.encoder_width,
        condition_channels=config.condition_channels,
        channels=config.unet_channels,
        layers=config.unet_layers,
        skip=config.unet_skip,
    ).to(accelerator.device)
    scheduler = make_scheduler(config.prediction)
    stages.train_denoiser(denoiser, encoder, vae, scheduler)
    return (vae, encoder, denoiser, scheduler), measured


def _open_together(accelerator: Accelerator, out, work, zoos, config, resume):
    """`_open_run` in the first of several processes; all of them get its answer, or its refusal."""
    answer: list = [None]
    if accelerator.is_main_process:
        try:
            answer = [_open_run(out, work, zoos, config, resume)]
        except UserError as reason:
            answer = [reason]
    if accelerator.num_processes > 1:
        answer = broadcast_object_list(answer)
    if isinstance(answer[0], UserError):
        raise answer[0]
    return answer[0]


def _open_run(out: Path, work: Path, zoos: list[Zoo], config, resume: bool) -> TrainConfig | DualConfig | ModelsConfig:
    if out.exists():
        raise UserError(f"{out} exists already: choose another name for the bundle, or remove it.")
    saved, paths = work / "config.json", [str(zoo.path.resolve()) for zoo in zoos]
    if saved.exists():
        if not resume:
            raise UserError(f"An unfinished run lies in {work}: go on with --resume, or remove that folder.")
        run = json.loads(saved.read_text())
        if run["zoos"] != paths:
            raise UserError(f"The run in {work} was started on the zoo {' '.join(run['zoos'])}: use that one.")
        return GENERATORS[run["generator"]].from_config(run["config"])
    if resume:
        raise UserError(f"There is no unfinished run in {work} to resume: leave out --resume to start one.")
    work.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"zoos": paths, "generator": generator_of(config), "config": config.to_config()}, indent=1)
    write_whole(saved, text)
    return config


def _fit_layout(zoo: Zoo) -> WholeLayout:
    probe, most = zoo.config.probe, zoo.config.max_classes
    shapes = head_shapes(probe, zoo.images["projection"].shape[0], most, zoo.config.hidden)
    # A linear head is one row a class: a token each. A two-layer head has a shared layer: one token, as in the paper.
    layout = WholeLayout(shapes, num_classes=most, tokens=most if probe == "linear" else 1)
    some = zoo.records(range(min(len(zoo), 2048)))
    layout.fit(some.state, some.counts)
    return layout


@torch.inference_mode()
def seen_conditions(zoo: Zoo, encoder: DatasetEncoder | TaskIndex, most=ZOO_CONDITIONS, shots: int = 5) -> torch.Tensor:
    """z_D (n, E) of tasks spread over the zoo, from ``shots`` images a class: what the generator has seen."""
    device = next(encoder.parameters()).device
    rows = torch.linspace(0, len(zoo) - 1, min(most, len(zoo))).long().tolist()
    made = []
    for first in range(0, len(rows), 128):
        records = zoo.records(rows[first : first + 128])
        if isinstance(encoder, TaskIndex):
            made.append(encoder(records.classes.to(device)).dataset.float().cpu())
            continue
        support = records.support[..., :shots]
        mask = support >= 0
        features = zoo.projected[support.clamp_min(0)] * mask.unsqueeze(-1)
        made.append(encoder(features.to(device), mask.to(device)).dataset.float().cpu())
    return torch.cat(made)


def _weight_space(zoo: Zoo, layout: WholeLayout, encoder: DatasetEncoder | TaskIndex | None) -> WeightSpace:
    size = min(ZOO_SAMPLE, len(zoo))
    some = zoo.records(torch.linspace(0, len(zoo) - 1, size).long().tolist())
    projection = zoo.images["projection"]
    conditions = seen_conditions(zoo, encoder) if encoder else None
    space = WeightSpace(
        encoder=zoo.encoder,
        preprocessing=zoo.preprocessing,
        layout=layout.to_config(),
        num_features=projection.shape[1],
        projected=projection.shape[0],
        zoo_size=size,
        conditions=None if conditions is None else tuple(conditions.shape),
    )
    support = some.support.unsqueeze(-1)  # class means in canonical order, as at sampling
    mask = support >= 0
    means = (zoo.projected[some.support.clamp_min(0)] * mask).sum(2) / mask.sum(2).clamp_min(1)
    told = isinstance(encoder, TaskIndex)  # then the order is that of the classes' numbers
    keys = (some.classes.float() if told else means[..., 0]).masked_fill(some.classes < 0, torch.inf)
    order = keys.argsort(dim=-1, stable=True)
    rows = [select_classes({n: v[i] for n, v in some.state.items()}, order[i]) for i in range(size)]
    vectors = layout.flatten({name: torch.stack([row[name] for row in rows]) for name in some.state})
    vectors = vectors * layout.mask(some.counts)
    state = {
        "mean": zoo.images["mean"],
        "projection": projection,
        "zoo_vectors": vectors,
        "zoo_counts": some.counts.float(),
        "zoo_accuracy": some.accuracy,
    }
    if conditions is not None:
        state["zoo_conditions"] = conditions
    space.load_state_dict(state)
    return space


def _write_bundle(pipe, out: Path, work: Path, zoos: list[Zoo], config, measured: dict) -> None:
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        pipe.save_pretrained(part)
        shutil.copy(work / "metrics.jsonl", part / "metrics.jsonl")
        (part / "training.json").write_text(
            json.dumps(
                {"config": config.to_config(), "zoos": [zoo.summary() for zoo in zoos], "measured": measured}, indent=1
            )
        )
        (part / "README.md").write_text(model_card(out.name, zoos, config, measured))
        os.chmod(part, 0o755)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    clear_checkpoints(work)
