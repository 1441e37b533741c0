"""One sample of all layers of a zoo's fine-tunes, without a search: seconds, and nothing is known of how good it is."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from d2nwg.llm.lora import shape_of
from d2nwg.llm.models import LanguageModel
from d2nwg.llm.presets import RefineConfig
from d2nwg.llm.zoo_generator import ZooChanges, ZooGenerator
from d2nwg.utils.progress import Progress, silent
from d2nwg.weights.model_zoo import ModelZoo


@torch.no_grad()
def sample_from_zoo(
    model: LanguageModel, zoo: ModelZoo, *, seed: int = 0, progress: Progress = silent
) -> dict[str, Tensor]:
    """Learn how the fine-tunes of a model differ, and sample every layer once: the first of the whole candidates of
    `d2nwg.llm.refine_zoo.refine_from_zoo` with this seed and preset ``quick``. The model stays as it is.

    Returns:
        Name → the matrices that change, in the format that the model is stored in, on the CPU.
    Raises:
        UserError: as `d2nwg.llm.lora.shape_of` and `d2nwg.llm.zoo_generator.ZooChanges`.
    """
    progress("Reading the zoo", 0, 0)
    changes = ZooChanges(zoo, model, shape_of(zoo, model).scale)
    generator = ZooGenerator(changes, RefineConfig.of("quick", zoo=True, seed=seed))
    with tempfile.TemporaryDirectory(prefix="d2nwg-sample-") as folder, torch.enable_grad():
        generator.fit(Path(folder), progress)
    drawn = generator.sample(range(len(changes.units)), "all layers", 0)
    held, made = dict(model.model.named_parameters()), {}
    for number, unit in enumerate(changes.units):
        progress("Sampling all layers", number, len(changes.units))
        for part in unit.parts:
            weights = held[part.name].detach().cpu().float() + changes.change(part.name, drawn[number])
            made[part.name] = weights.to(model.stored_dtype)
    return made
