# ruff: noqa: RUF009 (`setting` returns a field)
"""What the configurations of all generators share: the stages' ids, fields with their meaning, presets, JSON.

Light on purpose: the command line's ``--help`` reads these.
"""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le, MaxLen, MinLen
from typing_extensions import Self

from d2nwg.utils.errors import UserError
from d2nwg.utils.fields import Count, Seed, check_fields
from d2nwg.utils.text import shown

# Ids of the stages of training → what a person reads. Ids name checkpoint folders and seed the random numbers.
STAGES = {
    "predictor": "Training the accuracy predictor",
    "vae": "Training the VAE",
    "condition": "Aligning the condition",
    "denoiser": "Training the denoiser",
    "generator": "Training the generator",
    "finished": "Finished",
}

Batch = Annotated[int, Ge(1), Le(10**6)]  # at a time
Counts = Annotated[tuple[Count, ...], MinLen(1), MaxLen(1_000)]
Positive = Annotated[float, Ge(0), Le(10**6)]
Share = Annotated[float, Ge(0), Le(1)]
Precision = Literal["no", "fp16", "bf16"]


def setting(default: Any, meaning: str, choices=None) -> Any:
    """A field of a configuration: its default, what it means, and, where its type does not say so, a function that
    returns what it can be."""
    return field(default=default, metadata={"help": meaning, "choices": choices})


class JsonConfig:
    """A frozen dataclass of settings, to JSON and back.

    Raises:
        UserError: a field is not of its type, or out of its limits.
    """

    def __post_init__(self) -> None:
        check_fields(self)

    def to_config(self) -> dict:
        """As JSON; `from_config` reads it back."""
        return asdict(self)  # type: ignore[call-overload]  # its subclasses are dataclasses

    @classmethod
    def from_config(cls, config: dict) -> Self:
        """JSON turns tuples into lists; this turns them back.

        Raises:
            UserError: the JSON holds other settings, or values that they cannot have.
        """
        if not isinstance(config, dict) or config.keys() - cls.__dataclass_fields__.keys():  # type: ignore[attr-defined]
            raise UserError(f"The settings of a {cls.__name__} are damaged: begin anew.")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.items()})


@dataclass(frozen=True)
class Config(JsonConfig):
    """What the generators' configurations share.

    Attributes:
        PRESETS: name → the fields whose values differ from the defaults.
        STEPS: id of a stage (`STAGES`) → the field with its number of optimiser steps, in order.
    """

    PRESETS: ClassVar[dict[str, dict]] = {"small": {}}
    STEPS: ClassVar[dict[str, str]] = {}

    ema: Share = setting(0.999, "decay of the denoiser's moving average, the weights that are sampled")
    accumulate: Batch = setting(1, "parts that a step's batch is computed in, one after another: less memory")
    mixed_precision: Precision = setting("no", "accelerate's setting")
    checkpoint_every: Count = setting(250, "optimiser steps between checkpoints")
    seed: Seed = setting(0, "of initial weights, batches and noise")

    def __post_init__(self) -> None:
        super().__post_init__()
        for one in fields(self):
            listed = one.metadata["choices"]
            if listed and getattr(self, one.name) not in listed():
                value = shown(getattr(self, one.name), 40)
                raise UserError(f"The setting {one.name} cannot be {value}: choose one of {', '.join(listed())}.")

    @classmethod
    def preset(cls, name: str, **changes) -> Self:
        """The configuration of a preset, with some fields changed.

        Raises:
            UserError: this generator has no such preset.
        """
        if name not in cls.PRESETS:
            raise UserError(f"This generator has no preset {name!r}: choose one of {', '.join(cls.PRESETS)}.")
        return replace(cls(**cls.PRESETS[name]), **changes)

    def stages(self) -> dict[str, int]:
        """The stages by id, with their optimiser steps."""
        return {stage: getattr(self, name) for stage, name in self.STEPS.items()}

    def shortened(self, steps: int) -> Self:
        """The same work at each step, but so few steps a stage and no checkpoint: to measure time and memory."""
        few: dict[str, Any] = dict.fromkeys(self.STEPS.values(), steps)
        return replace(self, **few, checkpoint_every=10**6)
