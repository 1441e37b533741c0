"""The model card of a bundle: what it is, how it was made, what training measured."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from d2nwg.conditions import get_conditioner
from d2nwg.generators import Generator
from d2nwg.training.config import (
    AdaptersConfig,
    DatasetNetworksConfig,
    DualConfig,
    NetworksConfig,
    PredictedConfig,
    StagesConfig,
    UNetConfig,
)
from d2nwg.training.config_base import Config
from d2nwg.utils.text import markdown, number
from d2nwg.weights.model_zoo import ModelZoo
from d2nwg.weights.zoo import Zoo

FEW = 4  # networks of which none can be held out


@dataclass
class CardText:
    """What a generator's own card function writes; all Markdown.

    Attributes:
        what: what the bundle generates, and from what.
        use: lines of Python that sample, after ``pipe`` was loaded.
        zoo: what it was trained on.
        training: how, and what was measured.
    """

    what: str
    use: str
    zoo: str
    training: str


def model_card(
    name: str, generator: Generator, zoos: list, config: Config, measured: dict, parts: dict, command: str | None
) -> str:
    """The bundle's README.

    Args:
        parts: the bundle's networks (`networks_of`).
        command: the command line that makes it; by default that of this process.
    """
    text: CardText = generator.part("card")(zoos, config, measured)
    commands = [zoo.command() for zoo in zoos if isinstance(zoo, Zoo)]
    commands = "\n".join(dict.fromkeys([*commands, command or this_command()]))
    return f"""---
library_name: d2nwg
license: mit
tags: [weight-generation, d2nwg, diffusion]
---
# {name}

{text.what}

```python
from d2nwg import load_bundle
pipe = load_bundle("{name}")
{text.use}
```

## Training

```
{commands}
```

{text.zoo}

{text.training}

{networks_table(parts)}
"""


def networks_of(pipe) -> dict[str, dict]:
    """The networks of a pipeline that learn: name → ``type`` and number of ``parameters`` (the paper's table 24)."""
    return {
        name: {"type": type(part).__name__, "parameters": sum(one.numel() for one in part.parameters())}
        for name, part in pipe.components.items()
        if isinstance(part, nn.Module) and name != "weight_space"  # which holds a sample of the zoo
    }


def networks_table(parts: dict[str, dict], line: str = "| {} | {} | {} |") -> str:
    """What `networks_of` found, as Markdown."""
    rows = [line.format(name, part["type"], f"{part['parameters']:,}") for name, part in parts.items()]
    return "\n".join([line.format("network", "type", "parameters"), line.format("---", "---", "---"), *rows])


def this_command() -> str:
    """The command line of this process, without the folders of what it names."""
    program = Path(sys.argv[0])
    module = "d2nwg" if program.stem == "__main__" else f"{program.parent.name}.{program.stem}"
    return command_line(sys.argv[1:], module)


def command_line(arguments: Sequence[str], module: str = "d2nwg") -> str:
    """``python -m d2nwg train …`` for these arguments, without the folders of what they name, and without ``--resume``:
    the command makes the bundle anew."""
    arguments = [argument for argument in arguments if argument != "--resume"]
    return " ".join([f"python -m {module}", *(Path(a).name if a.startswith("/") else a for a in arguments)])


def sizes(zoo: Zoo, to: str = " to ") -> str:
    """``2 to 20``, or ``10``: classes of a zoo's heads."""
    return to.join(dict.fromkeys(map(str, (zoo.config.min_classes, zoo.config.max_classes))))


def _heads(zoos: list[Zoo]) -> str:
    """What zoos of heads hold."""
    sentences = []
    for zoo in zoos:
        about = zoo.summary()
        sentences.append(
            f"Zoo: {about['records']} {about['probe']} probes of {sizes(zoo, '–')} classes on {about['num_images']} "
            f"images, features of `{about['encoder']}`, learnt on {zoo.config.width} principal components."
        )
    names = list(dict.fromkeys((d["name"], len(d["classes"])) for zoo in zoos for d in zoo.datasets))
    rows = "\n".join(f"| {markdown(data)} | {classes} |" for data, classes in names)
    return f"{' '.join(sentences)}\n\n| data set | classes |\n|---|---|\n{rows}"


def unet_card(zoos: list[Zoo], config: UNetConfig, measured: dict) -> CardText:
    """The card of the paper's generator of heads."""
    zoo, conditioner = zoos[0], get_conditioner(config.condition)
    made = f"classifier heads ({sizes(zoo)} classes) for the frozen image encoder `{zoo.encoder}`"
    if zoo.encoder.startswith("pixels/"):
        made = f"whole two-layer networks ({sizes(zoo)} classes) on the pixels (`{zoo.encoder}`)"
    encoded = conditioner.described + " (a two-layer MLP)" * (config.dataset_encoder == "mlp")
    if config.condition != "none":
        encoded += " trained together with the denoiser" if config.alignment == "joint" else " aligned with its latents"
    compressed = "VAE" if config.vae else "no VAE (diffusion of the standardised weights)"
    what = f"""Generates {made}
from {conditioner.given}: D2NWG (Soro et al., ICLR 2025), `whole` layout, {compressed}, {encoded},
UNet denoiser."""
    rebuilt = f""" and their reconstructions by the VAE on
{measured["reconstructed_accuracy"]:.1%}"""
    training = f"""{_stages(config)} of {config.batch_size} heads; {measured["seconds"]} s in all. On images outside
their support, held-out zoo heads are right on {measured["zoo_accuracy"]:.1%}{rebuilt * config.vae}.{
        _predictor(config, measured)
    }"""
    return CardText(what, conditioner.example(zoo), _heads(zoos), training)


def _and(parts: list[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(parts[:-1])] * (len(parts) > 1) + parts[-1:])


def _stages(config: StagesConfig) -> str:
    """How many steps each stage was trained."""
    nouns = {"predictor": "predictor", "vae": "VAE", "condition": "alignment", "denoiser": "diffusion"}
    return f"Stages: {_and([f'{steps} {nouns[stage]}' for stage, steps in config.stages().items()])} steps"


def _predictor(config: PredictedConfig, measured: dict) -> str:
    """How good the accuracy predictor is, if there is one, and whether it guided the VAE."""
    if not config.predicts:
        return ""
    known = {"zoo": "held-out members of the zoo", "spoilt": "such heads with noise or mixed with others"}
    ranks = [
        f"{measured[f'predictor_{name}']:.2f} for {words}"
        for name, words in known.items()
        if f"predictor_{name}" in measured
    ]
    guided = f"; it guided the VAE with weight {config.predictor_weight:g}" * bool(config.predictor_weight)
    said = f": its rank correlation with measured accuracy is {_and(ranks)}" if ranks else ""
    return f"""
An accuracy predictor ranks samples where there are no labels{said}{guided}."""


def dual_card(zoos: list[Zoo], config: DualConfig, measured: dict) -> CardText:
    """The card of the dual-coordinate generator."""
    encoders = ", ".join(f"`{name}`" for name in dict.fromkeys(zoo.encoder for zoo in zoos))
    what = f"""Generates linear classifier heads for any number of classes, any number of images a class and any frozen
image encoder, from inner products of the images' features: a closed-form head, and corrections of its coefficients on
the support images drawn by diffusion (`d2nwg.models.dual`). Trained on features of {encoders}; images of the same task
without labels help (`unlabelled=`)."""
    use = get_conditioner("dataset").example(zoos[0])
    named = "names_alone" in measured
    if named:
        what += """
The names of the classes are a condition beside the images, and enough without any: they become directions in the
whitened feature space by kernel regression, on the classes of the training sets and the rows of the encoder's own
classifier (`d2nwg.models.names`). Of another encoder its own classifier's rows, or its text tower, take their place."""
        use += """

from d2nwg.conditions.base import Task
samples = pipe(Task(support=support, names=["tabby cat", "golden retriever"]))  # or names alone"""
    training = f"""{config.steps} steps of {config.tasks} tasks, {measured["seconds"]} s."""
    if named:
        training += f""" Names alone, each data set as if it were new: right on
{measured["names_alone"]:.1%} of images of 2 to 50 classes; the accuracy that is to be expected of such a head is given
{measured["expectation_error"]:.1%} wrong on average."""
    if config.held_out:
        kinds = "5, 10 and 20 ways, 1 and 5 shots, with and without 15 unlabelled images a class"
        kinds += ", with true and with permuted names" * named
        training += f""" {", ".join(map(markdown, config.held_out))} took no part in training: of the moving averages
every {config.validate_every} steps the one is kept that is best on them (step {measured["step"]}, right on
{measured["accuracy"]:.1%} over {kinds}). The corrections that diffusion draws add
{100 * (measured["accuracy"] - measured["start"]):+.2f} points to the closed-form head there."""
    return CardText(what, use, _heads(zoos), training)


def networks_card(zoos: list[ModelZoo], config: NetworksConfig, measured: dict) -> CardText:
    """The card of a generator of networks."""
    about = zoos[0].summary()
    rows = "\n".join(
        f"| {number} | {markdown(a['first'])} | {a['checkpoints']} | {a['parameters']:,} | "
        f"{'yes' * a['batchnorm'] or 'no'} |"
        for number, a in enumerate(about["architectures"])
    )
    statistics = "travel with the weights" if config.batchnorm == "travel" else "are to be recalibrated on data"
    right = about["accuracy"].get("mean")
    what = f"""Generates whole networks of {len(about["architectures"])} architectures for the tasks {
        ", ".join(map(markdown, about["tasks"]))
    }, as a
zoo of {about["checkpoints"]} checkpoints holds them{f", right on {right:.1%} on average" if right else ""}. D2NWG (Soro
et al., ICLR 2025), `{config.layout}` layout; BatchNorm statistics {statistics}."""
    use = f"""samples = pipe(architecture=0, task={json.dumps(next(iter(about["tasks"])))}, num_samples=10)
network.load_state_dict(samples.states()[0])"""
    held_out = f" and {measured['lost_aside']:.2%} of held-out ones" if "lost_aside" in measured else ""
    lost = f""" Reconstruction by the VAE loses
{measured["lost_trained"]:.2%} of the variance of networks it was trained on{held_out}."""
    items = "chunks" if config.layout == "independent" else "networks"
    training = f"""{_stages(config)} of {config.batch_size} {items}; {measured["seconds"]} s in all.{lost * config.vae}{
        _predictor(config, measured)
    }{_few(about["checkpoints"])}"""
    table = f"| architecture | first checkpoint | checkpoints | numbers | BatchNorm |\n|---|---|---|---|---|\n{rows}"
    return CardText(what, use, table, training)


def adapters_card(zoos: list[ModelZoo], config: AdaptersConfig, measured: dict) -> CardText:
    """The card of a generator of adapters."""
    zoo = zoos[0]
    about = zoo.adapters
    assert about is not None  # a generator of adapters has no other zoo
    shape, held = about.shape, set(config.held_out)
    what = f"""Generates LoRA adapters (rank {shape["rank"]}) of the text encoder `{shape["base"]}`, each with a head on
its vectors, for a task that is described in a sentence: D2NWG (Soro et al., ICLR 2025, section 4.3), `{config.layout}`
layout on {config.coordinates} principal coordinates, conditioned on vectors of `{config.text_encoder}`. For tasks like
those below this is retrieval: the samples lie where their adapters lie."""
    first = next(task for task in about.tasks if task.name not in held)
    use = f"""samples = pipe({json.dumps(first.descriptions[0])}, num_samples=10)
matrices, head = samples.one(samples.central())"""
    rows = []
    for task in about.tasks:
        scores = [record["score"] for record in zoo.records if record.get("task") == task.name and "score" in record]
        mean = f"{sum(scores) / len(scores):.3f}" if scores else ""
        name = markdown(task.name) + " (held out)" * (task.name in held)
        rows.append(f"| {name} | {task.metric} | {task.frozen.get('test', float('nan')):.3f} | {mean} |")
    table = "\n".join(["| task | measured by | head alone | adapters of the zoo, mean |", "|---|---|---|---|", *rows])
    lost = f" Reconstruction by the VAE loses\n{measured['lost']:.2%} of the coordinates' variance." * config.vae
    training = f"{_stages(config)} of {config.batch_size} adapters; {measured['seconds']} s in all.{lost}"
    return CardText(what, use, table, training)


def _few(networks: int) -> str:
    """What it can mean to learn from so few networks."""
    if networks > FEW:
        return ""
    return f"""
{"One network is" if networks == 1 else f"{networks} networks are"} no distribution: samples are at
best reconstructions of what was shown, with noise, and nothing that is said of them can be said of new networks."""


# What is measured of networks for a data set → what it is called in the card, in its order.
MADE = {
    "random": "random network",
    "zoo_average": "average of the zoo's networks",
    "nearest_member": "nearest network of the zoo, its classes matched",
    "average_closed_form": "average trunk + closed-form head",
    "gradient_steps": "gradient steps on the shown images, from random, for as long as generation takes",
    "gradient_50": "50 gradient steps on the shown images, from random",
    "made_generated": "**generated**, deterministic",
    "sample_generated": "generated, one sample of the diffusion",
    "made_closed_form": "**generated trunk + closed-form head**",
    "sample_closed_form": "one sample's trunk + closed-form head",
    "common_closed_form": "without the condition: one trunk, the mean of generated ones, + closed-form head",
}


def dataset_networks_card(zoos: list[ModelZoo], config: DatasetNetworksConfig, measured: dict) -> CardText:
    """The card of a generator of networks for a data set."""
    about, networks = zoos[0].summary(), zoos[0].networks
    assert networks is not None  # the generator has no other zoo
    size = f"{networks.size} × {networks.size} pixels, {'grey' if networks.channels == 1 else 'in colour'}"
    numbers = about["architectures"][0]["parameters"]
    what = f"""Generates small networks (`{networks.network}`, {numbers:,} numbers for {networks.classes} classes)
for a data set of images of {size}, from a few images a class, for any number of classes: a hypernetwork on class slots,
trained by the loss of random tasks through the networks that it makes, and diffusion of the trunk's
{config.coordinates} principal coordinates. The deterministic network is handed out; samples of the diffusion stand
beside it."""
    use = """made = pipe(images, labels, num_samples=3)  # bytes (n, channels, size, size), numbers of their classes
network.load_state_dict(made.states()[0])  # the deterministic one; the others are samples"""
    rows = "\n".join(f"| {said} | {measured[name]:.1%} |" for name, said in MADE.items() if name in measured)
    held = measured["held_out"]
    tasks = "tasks of the zoo that it was trained on (none could be held out)"
    if held:
        tasks = f"{number(held, 'task')} of the zoo, whose networks were left out and whose classes no random task had"
    adds = 100 * (measured["sample_closed_form"] - measured["made_closed_form"])
    condition = 100 * (measured["made_closed_form"] - measured["common_closed_form"])
    training = f"""{config.steps} steps of {config.tasks} random tasks and {config.members} networks of the zoo;
{measured["seconds"]} s. Right without a step of fine-tuning, five images a class shown, on images of the test parts of
{tasks}:

| | |
|---|---|
{rows}

That the trunk is made for the task, and is not the same for all, is worth {condition:+.1f} points; one sample of the
diffusion instead of the deterministic network {adds:+.1f} points (both with a closed-form head). Gradient steps:
{measured["steps"]:.0f} on average.{_few(measured["members"])}"""
    zoo = f"""Zoo: {about["checkpoints"]} networks of {len(about["tasks"])} tasks, right on
{about["accuracy"].get("mean", float("nan")):.1%} of their own test images on average; {measured["members"]} of them
were learnt from."""
    return CardText(what, use, zoo, training)
