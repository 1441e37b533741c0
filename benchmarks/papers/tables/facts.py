"""Settings, sizes, data and drawings: tables 8, 12, 24 and 25, figures 1 and 5. Nothing to reproduce, ours beside."""

import json
from math import prod

from benchmarks.papers.run import Run
from benchmarks.papers.spec import FACT, Entry, Grid, always, grid
from d2nwg.bundles import load_bundle
from d2nwg.models.adapter_space import AdapterSpace
from d2nwg.models.network_space import SmallNetworkSpace
from d2nwg.training.config import UNetConfig
from d2nwg.utils.paths import shipped

UNET = "heads-efficientnet-lite0"
PARTS = ("vae", "condition_encoder", "denoiser", "hypernetwork")
SHIPPED = ("heads-dual", UNET, "tasks-small-networks", "networks-28px", "adapters")
MEANT = {  # a setting of the UNet's generator → what it is
    "patch": "channels, height and width of a token's part of the VAE's picture",
    "latent_channels": "channels of a latent",
    "vae_lr": "learning rate of the VAE",
    "kl_weight": "KL-divergence weight",
    "encoder_width": "width of the data-set encoder",
    "encoder_depth": "depth of its Set Transformers",
    "align_lr": "learning rate of the data-set encoder",
    "diffusion_lr": "learning rate of the denoiser",
    "vae_steps": "steps of the VAE",
    "align_steps": "steps of the data-set encoder",
    "diffusion_steps": "steps of the denoiser",
    "batch_size": "weights a step",
    "prediction": "what the denoiser predicts",
    "shots": "images a class that condition",
}


def training_of(bundle: str) -> dict:
    """How a shipped bundle was trained."""
    return json.loads((shipped("pretrained") / bundle / "training.json").read_text(encoding="utf-8"))


def settings(run: Run) -> list[Grid]:
    """The preset that follows the paper, and the shipped bundle's own settings."""
    preset, made = UNetConfig.preset("paper").to_config(), training_of(UNET)["config"]
    rows = {label: [_said(preset[name]), _said(made[name])] for name, label in MEANT.items()}
    return [grid("settings", f"preset `paper` | shipped `{UNET}`", rows)]


def _said(value) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def parameters(run: Run) -> list[Grid]:
    """Parameters of each part of the shipped bundles."""
    return [grid("parameters", PARTS, {name: [_count(name, part) for part in PARTS] for name in SHIPPED})]


def _count(bundle: str, part: str) -> int | None:
    from safetensors import safe_open

    total = 0
    for path in (shipped("pretrained") / bundle / part).glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            total += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return total or None


def experiments(run: Run) -> list[Grid]:
    """What each shipped bundle generates, and what it was trained on."""

    rows = {}
    for name in SHIPPED:
        made, space = training_of(name), load_bundle(shipped("pretrained") / name).weight_space
        zoos = made.get("zoos") or [made["zoo"]]
        size = sum(zoo.get("records") or zoo["checkpoints"] for zoo in zoos)
        sets = sum(len(zoo.get("datasets") or zoo["tasks"]) for zoo in zoos[:1])
        rows[name] = [sets, _numbers(space), size, CONDITIONS[name]]
    return [grid("what is generated", "data sets | numbers | zoo | conditioned on", rows)]


def _numbers(space) -> int:
    """That a sample has at most, as the generator makes it."""
    if isinstance(space, SmallNetworkSpace):  # a trunk, and a row a class
        return space.numel + space.config.classes * (space.num_features + 1)
    return space.size if isinstance(space, AdapterSpace) else space.layout.size


CONDITIONS = {
    "heads-dual": "images, with and without labels, and names of classes",
    UNET: "images",
    "tasks-small-networks": "identity of a task",
    "networks-28px": "images",
    "adapters": "description of a task",
}


def data_sets(run: Run) -> list[Grid]:
    """The image sets that the shipped generators of heads learnt from."""
    zoo = training_of(UNET)["zoo"]
    rows = {one["name"]: [one["classes"]] for one in zoo["datasets"]}
    sizes = f"{zoo['min_classes']} to {zoo['max_classes']} classes"
    note = f"{zoo['num_images']:,} images, {zoo['records']:,} heads of {sizes}."
    return [grid(f"training sets of `{UNET}`", "classes", rows, note)]


ENTRIES = (
    Entry(
        "table8",
        "Settings",
        "latent of 1,024 numbers, KL weight 1e-6, Set Transformer of depth 2, 1,024 time steps",
        always(FACT, "the preset `paper`, and smaller ones", "the preset takes a GPU; what is shipped is smaller"),
        paper=(
            grid(
                "settings",
                "value",
                {
                    "epochs": ["50 to 2,000"],
                    "VAE: optimiser, learning rate": ["Adam, 1e-3 (the text says 1e-4)"],
                    "latent": ["1,024"],
                    "KL-divergence weight": ["1e-6"],
                    "data-set encoder": ["Set Transformer of depth 2, input c × n × 512, output 1,024"],
                    "diffusion: optimiser, learning rate": ["AdamW, 1e-4, linear"],
                    "time steps": ["1,024"],
                    "UNet's input": ["c × 32 × 32"],
                },
            ),
        ),
        measure=settings,
    ),
    Entry(
        "table12",
        "The data of the retrieval experiment",
        "Meta-Album: thirty data sets of 19 to 706 classes in ten domains",
        always(FACT, "seven image sets of 10 to 173 classes", "Meta-Album is not at hand"),
        measure=data_sets,
    ),
    Entry(
        "table24",
        "Parameters of the generator for a quarter of Llama-3.2-1B",
        "diffusion 102 million, VAE 553 million",
        always(FACT, "0.1 to 6 million in all", "counted from the files of the shipped bundles"),
        paper=(grid("parameters", "diffusion | VAE", {"D2NWG": ["102 M", "553 M"]}),),
        measure=parameters,
    ),
    Entry(
        "table25",
        "The experiments: data sets, classes, parameters, zoo, condition",
        "2,048 to 872 million numbers generated; zoos of 2 to 50,000",
        always(
            FACT,
            "2,580 to some ten thousand numbers generated; zoos of 120 to 16,384",
            "counted from the shipped bundles",
        ),
        paper=(
            grid(
                "what is generated",
                "data sets | numbers | zoo | conditioned on",
                {
                    "table 1": ["10", "2565/8005", "50k", "data set"],
                    "table 2": ["5", "25600", "20k", "data set"],
                    "table 3": ["30", "3 M", "30", "data set"],
                    "table 4": ["4", "10853", "4", "data set"],
                    "table 5": ["6", "0.6M", "6", "text"],
                    "table 6": ["–", "872M", "–", "chunk indices"],
                    "table 9": ["2", "0.7M", "2", "data set"],
                    "table 11": ["2", "2048", "2", "data set"],
                    "table 15": ["3", "1.4M", "3", "data set"],
                    "table 16": ["3", "11M", "2", "data set"],
                    "table 17": ["–", "96M", "–", "chunk indices"],
                    "table 18": ["–", "164M", "–", "chunk indices"],
                    "figure 3": ["10", "136468", "140", "data set"],
                    "figure 6": ["2", "5310", "2", "data set"],
                },
            ),
        ),
        measure=experiments,
    ),
    Entry(
        "figure1",
        "The three stages: VAE, data-set encoder, diffusion",
        "a drawing",
        always(FACT, "`d2nwg/training/stages.py` trains these three, in this order", "nothing is measured in it"),
    ),
    Entry(
        "figure5",
        "The data-set encoder",
        "a drawing: Set Transformers within a class, then across classes",
        always(
            FACT, "`d2nwg/conditions/dataset.py`: the same, with class slots beside z_D", "nothing is measured in it"
        ),
    ),
)
