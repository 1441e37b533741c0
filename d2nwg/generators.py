"""The registry of generators. The command line, the Train tab, model cards and bundles read it.

A generator is an entry here, and whichever of configuration, trainer, pipeline and card it does not share with another
one. The entry names its parts as ``"module:name"``; they are imported when they are used, so that reading the registry
costs nothing.
"""

from dataclasses import dataclass
from functools import cached_property
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Literal

from d2nwg.utils.errors import UserError

if TYPE_CHECKING:
    from d2nwg.training.config_base import Config


@dataclass(frozen=True)
class Generator:
    """One kind of generator.

    Attributes:
        name: its id, on the command line and in files.
        label: what a person reads.
        about: one phrase, for the command line's help.
        makes: what a sample is.
        zoo: what it learns from: a zoo of heads (`d2nwg.weights.zoo`), of checkpoints (`d2nwg.weights.model_zoo`), of
            adapters (`d2nwg.weights.build_adapters`) or of networks with their images (`d2nwg.weights.build_networks`).
        config: a `d2nwg.training.config_base.Config`.
        trainer: a function ``(zoos, config, run) -> (pipeline, measured)``, with ``run`` a
            `d2nwg.training.run.Run`; ``measured`` is a JSON dictionary.
        pipeline: a `d2nwg.pipelines.base.BundlePipeline`.
        card: a function ``(zoos, config, measured) -> CardText`` (`d2nwg.training.cards`).
        several_zoos: whether it learns from more than one zoo.
        from_data: of whole networks: whether they are made for a data set that is shown, and not for a name.
        aliases: earlier ids.
    """

    name: str
    label: str
    about: str
    makes: Literal["head", "network", "adapter"]
    zoo: tuple[Literal["heads", "checkpoints", "adapters", "networks"], ...]
    config: str
    trainer: str
    pipeline: str
    card: str
    several_zoos: bool = False
    from_data: bool = False
    aliases: tuple[str, ...] = ()

    @cached_property
    def config_class(self) -> "type[Config]":
        """The class of its configuration."""
        return resolve_name(self.config)

    def part(self, name: str):
        """Its ``trainer``, ``pipeline`` or ``card``, imported."""
        return resolve_name(getattr(self, name))


GENERATORS: dict[str, Generator] = {}


def register(generator: Generator) -> Generator:
    """Add a generator. Raises ValueError if its name is taken."""
    if taken := {generator.name, *generator.aliases} & {n for g in GENERATORS.values() for n in (g.name, *g.aliases)}:
        raise ValueError(f"There is a generator {taken.pop()} already.")
    GENERATORS[generator.name] = generator
    return generator


register(
    Generator(
        name="unet",
        label="UNet (the paper's)",
        about="the paper's, in three stages (VAE, condition, diffusion)",
        makes="head",
        zoo=("heads",),
        config="d2nwg.training.config:UNetConfig",
        trainer="d2nwg.training.heads_unet:train",
        pipeline="d2nwg.pipelines.heads:LatentHeadPipeline",
        card="d2nwg.training.cards:unet_card",
    )
)
register(
    Generator(
        name="dual",
        label="Dual (any classes, any encoder)",
        about="coefficients on the support images, for any number of classes and any encoder; takes several zoos",
        makes="head",
        zoo=("heads",),
        config="d2nwg.training.config:DualConfig",
        trainer="d2nwg.training.heads_dual:train",
        pipeline="d2nwg.pipelines.heads_dual:DualHeadPipeline",
        card="d2nwg.training.cards:dual_card",
        several_zoos=True,
    )
)
register(
    Generator(
        name="dataset-networks",
        label="Networks for a data set",
        about="whole small networks for a data set that is shown, from a zoo of zoo build --network",
        makes="network",
        zoo=("networks",),
        config="d2nwg.training.config:DatasetNetworksConfig",
        trainer="d2nwg.training.dataset_networks:train",
        pipeline="d2nwg.pipelines.dataset_networks:DatasetNetworkPipeline",
        card="d2nwg.training.cards:dataset_networks_card",
        from_data=True,
    )
)
register(
    Generator(
        name="networks",
        label="Networks (imported)",
        about="whole networks, from a zoo of zoo import",
        makes="network",
        zoo=("checkpoints", "networks"),
        config="d2nwg.training.config:NetworksConfig",
        trainer="d2nwg.training.networks:train",
        pipeline="d2nwg.pipelines.networks:NetworkGenerationPipeline",
        card="d2nwg.training.cards:networks_card",
        aliases=("models",),
    )
)
register(
    Generator(
        name="adapters",
        label="Adapters (from descriptions)",
        about="adapters of a text encoder with their heads, for described tasks, from a zoo of zoo build --adapter",
        makes="adapter",
        zoo=("adapters",),
        config="d2nwg.training.config:AdaptersConfig",
        trainer="d2nwg.training.adapters:train",
        pipeline="d2nwg.pipelines.adapters:AdapterGenerationPipeline",
        card="d2nwg.training.cards:adapters_card",
    )
)


def get_generator(name: str) -> Generator:
    """A generator by its id, or by an earlier one.

    Raises:
        UserError: there is none.
    """
    for generator in GENERATORS.values():
        if name in (generator.name, *generator.aliases):
            return generator
    raise UserError(f"There is no generator {name}: choose one of {', '.join(GENERATORS)}.")


def generator_of(config) -> Generator:
    """The generator that a configuration is of. Raises ValueError if it is of none."""
    for generator in GENERATORS.values():
        if type(config) is generator.config_class:
            return generator
    raise ValueError(f"{type(config).__name__} is the configuration of no generator.")


def for_zoo(kind: str | None) -> list[Generator]:
    """The generators that learn from a zoo of this kind (`d2nwg.weights.info.zoo_kind`; heads for None), the default
    first."""
    return [generator for generator in GENERATORS.values() if (kind or "heads") in generator.zoo]


def presets() -> dict[str, list[str]]:
    """Each preset, with the ids of the generators that have it."""
    found: dict[str, list[str]] = {}
    for generator in GENERATORS.values():
        for name in generator.config_class.PRESETS:
            found.setdefault(name, []).append(generator.name)
    return found
