"""What all pipelines share: bundles with a format number, and components from trusted packages alone."""

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from torch import Tensor
from typing_extensions import Self

from d2nwg.conditions.base import Condition
from d2nwg.models.predictor import AccuracyPredictor
from d2nwg.models.unet import ConditionalUNet
from d2nwg.models.vae import Latents
from d2nwg.pipelines.components import load_component
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import out_of_memory
from d2nwg.utils.paths import read_json
from d2nwg.utils.text import shown

SHARD = "8MB"  # most of a weight file: model hubs and code hosts ask for more care from 10 MB on
FORMAT = 2  # of bundles. 1: before modules moved into rooms, without a number


class BundlePipeline(DiffusionPipeline):
    """A `DiffusionPipeline` whose folder is a bundle: components, and a format number in ``model_index.json``."""

    def _register(self, **components) -> None:
        self.register_modules(**components)
        self.register_to_config(_format=FORMAT)

    @classmethod
    def from_pretrained(cls, path: str | Path, **download) -> Self:
        """Load a bundle.

        Components are loaded here and not by diffusers, which would need its own base classes to be names of each
        component's module.

        Args:
            path: a folder, or a repository of the Hugging Face Hub.
            download: for a repository, what `huggingface_hub.snapshot_download` takes, such as ``local_files_only``.
        Raises:
            UserError: it is no bundle, was made by a newer version of this program, or names components from elsewhere.
        """
        folder = find_folder(path, **download)
        index = read_index(folder)
        number = index.get("_format", 1)
        if number not in (1, FORMAT):
            raise UserError(
                f"The bundle {path} has format {shown(number)}, and this version reads up to {FORMAT}: update d2nwg, "
                "or train the bundle anew with the command in its README."
            )
        parts = {}
        for name in cls._get_signature_keys(cls)[0]:
            missing = name in cls._optional_components and not (index.get(name) or [None])[0]
            parts[name] = None if missing else load_component(folder, name, index.get(name))
        made = cls(**parts)
        try:
            made.attempt()
        except Exception as reason:  # parts of other sizes fail in many ways
            if out_of_memory(reason):
                raise
            raise UserError(f"The parts of the bundle {path} do not fit together: get or train it again.") from reason
        return made

    def save_pretrained(self, save_directory: str | Path, *args, max_shard_size: int | str = SHARD, **options) -> None:
        """Write the bundle, as diffusers does; weights of more than ``max_shard_size`` in several files."""
        super().save_pretrained(save_directory, *args, max_shard_size=max_shard_size, **options)

    def attempt(self) -> None:
        """Sample once, in one step, to see whether the components fit together."""


class LatentPipeline(BundlePipeline):
    """A pipeline of the paper's parts: a VAE, a conditioner, a denoiser of the VAE's latents, and, where it was trained
    with one, an accuracy predictor."""

    vae: Latents
    denoiser: ConditionalUNet
    predictor: AccuracyPredictor | None

    _optional_components = ["predictor"]  # noqa: RUF012 (diffusers')

    def __init__(self, vae, condition_encoder, denoiser, scheduler, weight_space, predictor=None):
        super().__init__()
        self._register(
            vae=vae,
            condition_encoder=condition_encoder,
            denoiser=denoiser,
            scheduler=scheduler,
            weight_space=weight_space,
            predictor=predictor,
        )

    def _predictor(self, condition: Condition, guidance_scale: float = 1.0) -> Callable[[Tensor, Tensor], Tensor]:
        """What `denoise` calls: noisy latents and the time step → the denoiser's output, for one task's condition, with
        classifier-free guidance where the scale is not 1."""
        beside = self.denoiser.lay_out(condition)
        empty = None
        if guidance_scale != 1.0:
            empty = self.denoiser.lay_out(condition.dropped(torch.tensor([True], device=beside.device)))

        def predict(latents: Tensor, time: Tensor) -> Tensor:
            with_condition = self.denoiser.denoise(latents, time, beside)
            if empty is None:
                return with_condition
            without = self.denoiser.denoise(latents, time, empty)
            return without + guidance_scale * (with_condition - without)

        return predict


def find_folder(path: str | Path, **download) -> Path:
    """The folder of a bundle: ``path`` itself, or where the repository of that name was downloaded to.

    Raises:
        UserError: there is no such folder, and no such repository within reach.
    """
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(path), allow_patterns=["*.json", "*.safetensors"], **download))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as reason:
        raise UserError(f"There is no bundle {shown(path)} here, and none can be had from the Hub.") from reason


def read_index(path: str | Path) -> dict:
    """``model_index.json`` of a folder.

    Raises:
        UserError: there is none, or it is damaged.
    """
    index = read_json(Path(path) / "model_index.json")
    if not isinstance(index, dict):
        raise UserError(f"{path} is no bundle: its model_index.json cannot be read.")
    return index
