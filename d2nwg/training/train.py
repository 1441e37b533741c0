"""A zoo in, a bundle out."""

import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import DPMSolverMultistepScheduler

from d2nwg.conditions.dataset import DatasetEncoder
from d2nwg.devices import resolve_device
from d2nwg.errors import UserError
from d2nwg.models.space import WeightSpace
from d2nwg.models.unet import ConditionalUNet
from d2nwg.models.vae import WeightVAE
from d2nwg.pipeline import WeightGenerationPipeline
from d2nwg.progress import Progress, silent
from d2nwg.training.config import TrainConfig
from d2nwg.training.data import ZooBatches
from d2nwg.training.loop import MetricsLog, clear_checkpoints
from d2nwg.training.stages import Stages
from d2nwg.weights.layout import WholeLayout
from d2nwg.weights.networks import head_shapes, select_classes
from d2nwg.weights.zoo import Zoo

ZOO_SAMPLE = 256  # zoo heads that a bundle keeps, for plots and for the distance to the nearest


def train_bundle(
    zoo: Zoo,
    config: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    device: str | None = None,
    progress: Progress = silent,
) -> Path:
    """Run the three stages and write the bundle to ``out``.

    Until it is finished everything lies in ``out`` + ``.training``: the configuration, ``metrics.jsonl`` and a
    checkpoint a stage, from which ``resume=True`` goes on. A resumed run ends with the same bundle as an undisturbed
    one.

    Raises:
        UserError: ``out`` exists, or an unfinished run lies there and ``resume`` is False, or the reverse; or there is
            no such device.
    """
    device = resolve_device(device)
    if len(zoo) < 5:  # a fifth of the records scores what the others train
        raise UserError(f"The zoo {zoo.path} has only {len(zoo)} records: build one of thousands.")
    if ":" in device:  # accelerate takes the current one
        torch.cuda.set_device(device)
    out = Path(out)
    work = out.with_name(out.name + ".training")
    config = _open_run(out, work, zoo, config, resume)
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=config.mixed_precision)
    torch.manual_seed(config.seed)
    started = time.monotonic()
    log = MetricsLog(work / "metrics.jsonl", accelerator)

    layout = _fit_layout(zoo)
    if layout.tokens == 1:  # no rows: one square picture for the whole vector and a latent of 4 × 16 × 16, as the paper
        levels = (config.vae_channels * 3)[:3]
        config = replace(config, patch=(1, 64, 64), vae_channels=levels, latent_channels=4, condition_channels=8)
    data = ZooBatches(zoo, layout, config.shots, accelerator.device)
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
    encoder = DatasetEncoder(
        num_features=width, width=config.encoder_width, depth=config.encoder_depth, latent_size=latent_size
    ).to(accelerator.device)
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
    scheduler = DPMSolverMultistepScheduler(
        num_train_timesteps=1024,
        beta_start=0.0015,
        beta_end=0.0155,
        beta_schedule="scaled_linear",
        prediction_type=config.prediction,
    )
    stages.train_denoiser(denoiser, encoder, vae, scheduler)
    measured |= {"seconds": round(time.monotonic() - started)}
    log(stage="Finished", **measured)
    if accelerator.is_main_process:
        pipe = WeightGenerationPipeline(vae, encoder, denoiser, scheduler, _weight_space(zoo, layout))
        _write_bundle(pipe.to("cpu"), out, work, zoo, config, measured)
    accelerator.wait_for_everyone()
    return out


def _open_run(out: Path, work: Path, zoo: Zoo, config: TrainConfig, resume: bool) -> TrainConfig:
    if out.exists():
        raise UserError(f"{out} exists already: choose another name for the bundle, or remove it.")
    saved = work / "config.json"
    if saved.exists():
        if not resume:
            raise UserError(f"An unfinished run lies in {work}: go on with --resume, or remove that folder.")
        run = json.loads(saved.read_text())
        if run["zoo"] != str(zoo.path.resolve()):
            raise UserError(f"The run in {work} was started on the zoo {run['zoo']}: use that one.")
        return TrainConfig.from_config(run["config"])
    if resume:
        raise UserError(f"There is no unfinished run in {work} to resume: leave out --resume to start one.")
    work.mkdir(parents=True, exist_ok=True)
    saved.write_text(json.dumps({"zoo": str(zoo.path.resolve()), "config": config.to_config()}, indent=1))
    return config


def _fit_layout(zoo: Zoo) -> WholeLayout:
    probe, most = zoo.config.probe, zoo.config.max_classes
    shapes = head_shapes(probe, zoo.images["projection"].shape[0], most, zoo.config.hidden)
    # A linear head is one row a class: a token each. A two-layer head has a shared layer: one token, as in the paper.
    layout = WholeLayout(shapes, num_classes=most, tokens=most if probe == "linear" else 1)
    some = zoo.records(range(min(len(zoo), 2048)))
    layout.fit(some.state, some.counts)
    return layout


def _weight_space(zoo: Zoo, layout: WholeLayout) -> WeightSpace:
    size = min(ZOO_SAMPLE, len(zoo))
    some = zoo.records(torch.linspace(0, len(zoo) - 1, size).long().tolist())
    projection = zoo.images["projection"]
    space = WeightSpace(
        encoder=zoo.encoder,
        preprocessing=zoo.preprocessing,
        layout=layout.to_config(),
        num_features=projection.shape[1],
        projected=projection.shape[0],
        zoo_size=size,
    )
    support = some.support.unsqueeze(-1)  # class means in canonical order, as at sampling
    mask = support >= 0
    means = (zoo.projected[some.support.clamp_min(0)] * mask).sum(2) / mask.sum(2).clamp_min(1)
    keys = means[..., 0].masked_fill(some.classes < 0, torch.inf)
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
    space.load_state_dict(state)
    return space


def _write_bundle(pipe, out: Path, work: Path, zoo: Zoo, config: TrainConfig, measured: dict) -> None:
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        pipe.save_pretrained(part)
        shutil.copy(work / "metrics.jsonl", part / "metrics.jsonl")
        (part / "training.json").write_text(
            json.dumps({"config": config.to_config(), "zoo": zoo.summary(), "measured": measured}, indent=1)
        )
        (part / "README.md").write_text(model_card(out.name, zoo, config, measured))
        os.chmod(part, 0o755)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    clear_checkpoints(work)


def model_card(name: str, zoo: Zoo, config: TrainConfig, measured: dict) -> str:
    """The bundle's README: what it is, how it was made, what its VAE keeps."""
    summary = zoo.summary()
    sets = "\n".join(f"| {d['name']} | {d['classes']} |" for d in summary["datasets"])
    return f"""---
library_name: d2nwg
license: mit
tags: [weight-generation, d2nwg, diffusion]
---
# {name}

Generates classifier heads (2 to {zoo.config.max_classes} classes) for the frozen image encoder `{zoo.encoder}` from a
few images a class: D2NWG (Soro et al., ICLR 2025), `whole` layout, VAE, data-set encoder aligned with its latents,
UNet denoiser.

```python
from d2nwg import WeightGenerationPipeline
pipe = WeightGenerationPipeline.from_pretrained("{name}")
samples = pipe(support, num_samples=50)  # support: one (images, features) tensor a class
```

## Training

```
{zoo.command()}
{" ".join(["python -m d2nwg", *sys.argv[1:]])}
```

Zoo: {summary["records"]} {summary["probe"]} probes of {summary["min_classes"]}–{summary["max_classes"]} classes on
{summary["num_images"]} images, learnt on {zoo.config.width} principal components.

| data set | classes |
|---|---|
{sets}

Stages: {config.vae_steps} VAE, {config.align_steps} alignment and {config.diffusion_steps} diffusion steps of
{config.batch_size} heads; {measured["seconds"]} s in all. On images outside their support, zoo heads kept aside are
right on {measured["zoo_accuracy"]:.1%} and their reconstructions by the VAE on
{measured["reconstructed_accuracy"]:.1%}.
"""
