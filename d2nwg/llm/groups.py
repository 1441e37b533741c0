"""One generator for each group of units (paper appendix A.4: the top 4 of each type, the second top 4, the norms)."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from d2nwg.llm.chunks import Chunks
from d2nwg.llm.generator import ChunkGenerator
from d2nwg.llm.presets import RefineConfig
from d2nwg.utils.progress import Progress, silent


class GroupedGenerator:
    """The generators of all groups, as one.

    Args:
        chunks: of all units.
        groups: the numbers of the units in each; every unit is in one.
    """

    def __init__(
        self,
        chunks: Chunks,
        groups: Sequence[Sequence[int]],
        config: RefineConfig,
        device: str | torch.device = "cpu",
    ):
        self.chunks = chunks
        self.generators = [ChunkGenerator(chunks.only(numbers), config, device) for numbers in groups]
        self._place = {number: (g, i) for g, numbers in enumerate(groups) for i, number in enumerate(numbers)}

    def fit(self, folder: Path, progress: Progress = silent, *, files: Sequence[Path] = ()) -> None:
        """Train them one after another; as `ChunkGenerator.fit`."""
        for number, generator in enumerate(self.generators):
            generator.fit(folder / str(number), progress, files=files)

    def reconstruct(self, unit: int) -> dict[str, Tensor]:
        """As `ChunkGenerator.reconstruct`."""
        group, number = self._place[unit]
        return self.generators[group].reconstruct(number)

    def sample(self, unit: int, number: int) -> dict[str, Tensor]:
        """As `ChunkGenerator.sample`."""
        group, place = self._place[unit]
        return self.generators[group].sample(place, number)

    @property
    def compression(self) -> dict[str, float]:
        """As `ChunkGenerator.compression`, of all groups together."""
        numbers, latents, parameters = (sum(sizes) for sizes in zip(*(g.sizes for g in self.generators), strict=True))
        return {"latents": numbers / latents, "with_decoder": numbers / (latents + parameters)}
