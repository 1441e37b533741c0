"""The model card of a bundle: what it is, how it was made, what training measured."""

import sys
from pathlib import Path

from d2nwg.training.config import DualConfig, ModelsConfig, TrainConfig
from d2nwg.weights.zoo import Zoo


def model_card(name: str, zoos: list, config: TrainConfig | DualConfig | ModelsConfig, measured: dict) -> str:
    """The bundle's README."""
    if isinstance(config, ModelsConfig):
        return _whole(name, zoos[0], config, measured)
    words = _dual(zoos, config, measured) if isinstance(config, DualConfig) else _unet(zoos[0], config, measured)
    commands = "\n".join(dict.fromkeys([*(zoo.command() for zoo in zoos), this_command()]))
    names = list(dict.fromkeys((d["name"], len(d["classes"])) for zoo in zoos for d in zoo.datasets))
    sets = "\n".join(f"| {data} | {classes} |" for data, classes in names)
    return f"""---
library_name: d2nwg
license: mit
tags: [weight-generation, d2nwg, diffusion]
---
# {name}

{words["what"]}

```python
from d2nwg import WeightGenerationPipeline
pipe = WeightGenerationPipeline.from_pretrained("{name}")
{_use(zoos[0], config)}
```

## Training

```
{commands}
```

{" ".join(_zoo(zoo) for zoo in zoos)}

| data set | classes |
|---|---|
{sets}

{words["training"]}
"""


def this_command() -> str:
    """The command line of this process, without the folders of what it names."""
    program = Path(sys.argv[0])
    module = "d2nwg" if program.stem == "__main__" else f"{program.parent.name}.{program.stem}"
    return " ".join([f"python -m {module}", *(Path(a).name if a.startswith("/") else a for a in sys.argv[1:])])


def _use(zoo: Zoo, config: TrainConfig | DualConfig) -> str:
    if getattr(config, "condition", "") == "task":
        first = zoo.datasets[0]
        names = [f"{first['name']}/{c}" for c in first["classes"][: zoo.config.max_classes]]
        return f"samples = pipe.for_tasks([{names}], num_samples=50)  # one list of names a task; more are mixed"
    return "samples = pipe(support, num_samples=50)  # support: one (images, features) tensor a class"


def sizes(zoo: Zoo, to: str = " to ") -> str:
    """``2 to 20``, or ``10``: classes of a zoo's heads."""
    return to.join(dict.fromkeys(map(str, (zoo.config.min_classes, zoo.config.max_classes))))


def _zoo(zoo: Zoo) -> str:
    s = zoo.summary()
    return (
        f"Zoo: {s['records']} {s['probe']} probes of {sizes(zoo, '–')} classes on "
        f"{s['num_images']} images seen by `{s['encoder']}`, learnt on {zoo.config.width} principal components."
    )


def _unet(zoo: Zoo, config: TrainConfig, measured: dict) -> dict[str, str]:
    told, encoder = "a few images a class", "data-set encoder"
    if config.condition == "task":
        told, encoder = "the names of its classes (`pipe.for_tasks`), not shown any image", "learned class embeddings"
    made = f"classifier heads ({sizes(zoo)} classes) for the frozen image encoder `{zoo.encoder}`"
    if zoo.encoder.startswith("pixels/"):
        made = f"whole two-layer networks ({sizes(zoo)} classes) on the pixels (`{zoo.encoder}`)"
    what = f"""Generates {made}
from {told}: D2NWG (Soro et al., ICLR 2025), `whole` layout, VAE, {encoder} aligned with its latents, UNet
denoiser."""
    training = f"""Stages: {config.vae_steps} VAE, {config.align_steps} alignment and {config.diffusion_steps} diffusion
steps of {config.batch_size} heads; {measured["seconds"]} s in all. On images outside their support, zoo heads kept
aside are right on {measured["zoo_accuracy"]:.1%} and their reconstructions by the VAE on
{measured["reconstructed_accuracy"]:.1%}."""
    return {"what": what, "training": training}


def _dual(zoos: list[Zoo], config: DualConfig, measured: dict) -> dict[str, str]:
    encoders = ", ".join(f"`{name}`" for name in dict.fromkeys(zoo.encoder for zoo in zoos))
    what = f"""Generates linear classifier heads for any number of classes, any number of images a class and any frozen
image encoder, from inner products of the images' features: a closed-form head, and corrections of its coefficients on
the support images drawn by diffusion (`d2nwg.models.dual`). Trained on features of {encoders}; images of the same task
without labels help (`unlabelled=`)."""
    training = f"""{config.steps} steps of {config.tasks} tasks, {measured["seconds"]} s."""
    if config.held_out:
        training += f""" {", ".join(config.held_out)} took no part in training: of the moving averages every
{config.validate_every} steps the one is kept that is best on them (step {measured["step"]}, right on
{measured["accuracy"]:.1%} over 5, 10 and 20 ways, 1 and 5 shots, with and without 15 unlabelled images a class)."""
    return {"what": what, "training": training}


def _whole(name: str, zoo, config: ModelsConfig, measured: dict) -> str:
    told = zoo.summary()
    rows = "\n".join(
        f"| {number} | `{a['first']}` | {a['checkpoints']} | {a['parameters']:,} | {'yes' * a['batchnorm'] or 'no'} |"
        for number, a in enumerate(told["architectures"])
    )
    statistics = "travel with the weights" if config.batchnorm == "travel" else "are to be recalibrated on data"
    right = told["accuracy"].get("mean")
    return f"""---
library_name: d2nwg
license: mit
tags: [weight-generation, d2nwg, diffusion]
---
# {name}

Generates whole networks of {len(told["architectures"])} architectures for the tasks {", ".join(told["tasks"])}, as a
zoo of {told["checkpoints"]} checkpoints holds them{f", right on {right:.1%} on average" if right else ""}. D2NWG (Soro
et al., ICLR 2025), `{config.layout}` layout; BatchNorm statistics {statistics}.

```python
from d2nwg.pipelines.networks import ModelGenerationPipeline
pipe = ModelGenerationPipeline.from_pretrained("{name}")
samples = pipe(architecture=0, task="{next(iter(told["tasks"]))}", num_samples=10)
network.load_state_dict(samples.states()[0])
```

| architecture | first checkpoint | checkpoints | numbers | BatchNorm |
|---|---|---|---|---|
{rows}

## Training

```
{this_command()}
```

Stages: {config.vae_steps} VAE, {config.align_steps} alignment and {config.diffusion_steps} diffusion steps of
{config.batch_size} networks; {measured["seconds"]} s in all. Reconstruction by the VAE loses
{measured["lost_trained"]:.2%} of the variance of networks it was trained on{
        f" and {measured['lost_aside']:.2%} of those kept aside" if "lost_aside" in measured else ""
    }.
"""
