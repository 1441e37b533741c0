"""A generated network as a person takes it away: a folder with its weights, what it reads, and lines of PyTorch."""

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import safetensors
import torch
from PIL import Image, ImageOps
from pydantic import BaseModel, Field, ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from d2nwg.data.decode import open_image
from d2nwg.data.deep import PixelScale
from d2nwg.utils.errors import UserError
from d2nwg.utils.outputs import new_folder
from d2nwg.utils.paths import leads_out, read_json
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import markdown, shown
from d2nwg.weights import onnx_files, small_networks
from d2nwg.weights.info import Text, place_of
from d2nwg.weights.networks import State

FORMAT = 1
AT_ONCE = 1024  # images that are classified at a time
WEIGHTS, ABOUT, CARD, ONNX = "network.safetensors", "network.json", "README.md", "model.onnx"
KIND = "d2nwg-network"  # in the metadata of a network's one file
TEXT = """# {title}

{about}

The network `{network}` ({numbers:,} numbers) on images of {size} × {size} pixels, {channels}, that tells apart
{said}. With PyTorch and Pillow alone, in this folder:

```python
{use}
```

`{onnx}` is the same network with its normalisation, for ONNX runtimes: from `images`, bytes of the shape
(any number, {count}, {size}, {size}), to `probabilities`; its metadata name the classes.
"""
USE = """from collections import OrderedDict

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional


{code}

network = {build}
network.load_state_dict(load_file("{file}"))
network.eval()


def classify(path):
    image = Image.open(path).convert("RGB")
    image = ImageOps.fit(image, ({size}, {size}), Image.Resampling.BILINEAR).convert("{mode}")
    pixels = torch.from_numpy(np.array(image)).reshape({size}, {size}, {count}).permute(2, 0, 1) / 255
    pixels = (pixels - torch.tensor({mean}).reshape(-1, 1, 1)) / torch.tensor({std}).reshape(-1, 1, 1)
    return network(pixels[None])[0].softmax(0)"""


class _About(BaseModel):
    """``network.json``."""

    format: Literal[1]
    network: Text
    channels: Literal[1, 3]
    classes: Annotated[list[Text], Field(min_length=2, max_length=small_networks.MAX_CLASSES)]
    size: Annotated[int, Field(ge=1, le=small_networks.MAX_SIZE)]
    mean: list[Annotated[float, Field(allow_inf_nan=False)]]
    std: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    bundle: Text = ""
    info: dict[str, Any] = {}


@dataclass
class NetworkFile:
    """One small network.

    Attributes:
        state: of `module`, no batch axis.
        network: its architecture (`d2nwg.weights.small_networks`).
        channels, size: of the images that it takes.
        classes: names, in the order of its outputs.
        mean, std: (channels,) it takes ``(x / 255 - mean) / std`` of bytes.
        bundle: that made it.
        info: where it comes from, as JSON.

    Raises:
        UserError: there is no such architecture, the tensors are others than it has, or a number is not finite.
    """

    state: State
    network: str
    channels: int
    classes: tuple[str, ...]
    size: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    bundle: str = ""
    info: dict = field(default_factory=dict)
    kind = "network"

    def __post_init__(self):
        self.classes = tuple(self.classes)
        self.mean, self.std = tuple(self.mean) or (0.0,) * self.channels, tuple(self.std) or (1.0,) * self.channels
        if not len(self.mean) == len(self.std) == self.channels:
            raise UserError("This network's normalisation does not fit its channels: make it again.")
        if len(set(self.classes)) < len(self.classes):
            raise UserError("Two classes of this network have the same name: make it again.")
        expected = _empty(self.network, self.channels, len(self.classes), self.size)
        if {name: tensor.shape for name, tensor in self.state.items()} != {n: t.shape for n, t in expected.items()}:
            raise UserError(f"These are not the weights of the network {shown(self.network)}: make them again.")
        self.state = {name: self.state[name].detach().cpu().to(expected[name].dtype).contiguous() for name in expected}
        if not all(tensor.isfinite().all() for tensor in self.state.values() if tensor.is_floating_point()):
            raise UserError("This network holds numbers that are not finite: make it again.")

    def module(self) -> nn.Module:
        """The module with these weights, for evaluation: normalised images (B, channels, size, size) → (B, C)."""
        made = small_networks.small_network(self.network).build(self.channels, len(self.classes), self.size)
        made.load_state_dict(self.state)
        return made.eval().requires_grad_(False)

    def normalised(self, pixels: Tensor) -> Tensor:
        """Bytes (…, channels, size, size) → what the module takes."""
        mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (self.mean, self.std))
        return (pixels / 255 - mean) / std

    def keep_scale(self, scale: PixelScale) -> None:
        """As `d2nwg.heads.Head.keep_scale`."""
        if scale:
            self.info["pixel_scale"] = scale.to_json()

    @property
    def noun(self) -> str:
        """What it tells apart."""
        return "image"

    @property
    def scale(self) -> PixelScale:
        """On which images of more than 8 bits a channel become 8 bits, as those that it was made from did."""
        return PixelScale.from_json(self.info.get("pixel_scale"))

    @torch.no_grad()
    def logits(self, pixels: Tensor) -> Tensor:
        """Bytes (n, channels, size, size) → (n, C)."""
        module = self.module()
        return torch.cat([module(self.normalised(part)) for part in pixels.split(AT_ONCE)])

    def probabilities(
        self,
        items: Sequence[Path | bytes],
        *,
        device: str | None = None,
        progress: Progress = silent,
        scale: PixelScale | None = None,
    ) -> tuple[Tensor, np.ndarray]:
        """As `d2nwg.heads.Head.probabilities`, of encoded images; computed on the CPU."""
        scale = self.scale | (scale or PixelScale())
        pixels, readable = torch.zeros(len(items), self.channels, self.size, self.size, dtype=torch.uint8), []
        for number, item in enumerate(items):
            progress("Reading images", number, len(items))
            try:
                pixels[number] = self.read(item, scale)
                readable.append(True)
            except UserError:
                readable.append(False)
        found = np.array(readable, bool)
        chance = self.logits(pixels).softmax(1)
        chance[torch.from_numpy(~found)] = 0
        return chance, found

    def read(self, item: Path | bytes, scale: PixelScale) -> Tensor:
        """An encoded image → bytes (channels, size, size): its middle square. Raises UserError as `open_image`."""
        image = open_image(item, min_side=self.size, scale=scale)
        image = ImageOps.fit(image, (self.size, self.size), Image.Resampling.BILINEAR)
        pixels = np.array(image.convert("L") if self.channels == 1 else image)
        return torch.from_numpy(pixels).reshape(self.size, self.size, self.channels).permute(2, 0, 1)

    def use(self, file: str = WEIGHTS) -> str:
        """Lines of Python that load its weights from a file and classify a picture, with PyTorch and Pillow alone."""
        code, build = plain_code(self.network, self.channels, len(self.classes), self.size)
        return USE.format(
            code=code,
            build=build,
            file=file,
            size=self.size,
            mode="L" if self.channels == 1 else "RGB",
            count=self.channels,
            mean=list(self.mean),
            std=list(self.std),
        )

    def facts(self) -> dict[str, Any]:
        """All but the weights, as JSON."""
        facts = {"format": FORMAT, "network": self.network, "channels": self.channels, "classes": list(self.classes)}
        facts |= {"size": self.size, "mean": list(self.mean), "std": list(self.std), "bundle": self.bundle}
        return facts | {"info": self.info}

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, whose metadata hold the rest."""
        state = {key: value.clone() for key, value in self.state.items()}
        save_file(state, path, {"kind": KIND, "about": json.dumps(self.facts(), ensure_ascii=False)})
        return Path(path)

    def save_onnx(self, path: str | Path) -> Path:
        """Write it as one ONNX file: bytes (B, channels, size, size) → probabilities (B, C)."""
        classifier = onnx_files.Classifier(self.module(), self.mean, self.std)
        about = {"classes": list(self.classes), "network": self.network, "bundle": self.bundle}
        return onnx_files.write_onnx(classifier, (self.channels, self.size, self.size), Path(path), about)

    def write(self, part: Path, name: str, about: str = "") -> None:
        """The files, into a folder that is there; ``name`` is what the card calls it."""
        self.save(part / WEIGHTS)
        self.save_onnx(part / ONNX)
        (part / ABOUT).write_text(json.dumps(self.facts(), indent=1, ensure_ascii=False), encoding="utf-8")
        card = TEXT.format(
            title=markdown(name),
            about=about,
            network=self.network,
            numbers=sum(t.numel() for t in self.state.values()),
            size=self.size,
            channels="grey" if self.channels == 1 else "in colour",
            said=shown(", ".join(map(markdown, self.classes)), 300),
            use=self.use(),
            onnx=ONNX,
            count=self.channels,
        )
        (part / CARD).write_text(card, encoding="utf-8", errors="backslashreplace")


def save_network(network: NetworkFile, out: str | Path, about: str = "") -> Path:
    """Write the files of `NetworkFile.write` in the new folder ``out``. Raises UserError as `new_folder`."""
    with new_folder(out, empty=True) as part:
        network.write(part, Path(out).name, about)
    return Path(out)


def load_network(folder: str | Path) -> NetworkFile:
    """Read what `save_network` wrote.

    Raises:
        UserError: it is no such folder, or damaged.
    """
    folder = Path(folder)
    if not is_network(folder):
        raise UserError(f"{shown(folder)} is no generated network: give a folder that generate wrote.")
    about = _checked(read_json(folder / ABOUT), folder)
    path = folder / WEIGHTS
    try:
        if not path.is_file() or leads_out(path):
            raise FileNotFoundError(path)
        with safetensors.safe_open(path, "pt") as file:
            state = _state(file, about)
    except UserError:
        raise
    except Exception as reason:  # a damaged file can fail in any way
        raise UserError(f"The network {shown(folder)} is damaged at {WEIGHTS}: make it again.") from reason
    return NetworkFile(state, **about.model_dump(exclude={"format"}))


def read_network(path: str | Path) -> NetworkFile | None:
    """Read the one file that `NetworkFile.save` wrote; None where it is another one.

    Raises:
        UserError: it is one, and damaged.
    """
    path = Path(path)
    try:
        if not path.is_file():
            return None
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("kind") != KIND:
                return None
            about = _checked(json.loads(metadata["about"]), path)
            state = _state(file, about)
    except UserError:
        raise
    except safetensors.SafetensorError:
        return None
    except Exception as reason:  # a damaged file can fail in any way
        raise UserError(f"The network {shown(path)} is damaged: make it again.") from reason
    return NetworkFile(state, **about.model_dump(exclude={"format"}))


def _checked(facts: object, path: Path) -> _About:
    try:
        return _About.model_validate(facts)
    except ValidationError as reason:
        raise UserError(f"The network {shown(path)} is damaged at {place_of(reason)}: make it again.") from reason


def _state(file, about: _About) -> State:
    """The tensors of an open file, once their shapes are those of the architecture."""
    expected = _empty(about.network, about.channels, len(about.classes), about.size)
    shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    if shapes != {name: tuple(tensor.shape) for name, tensor in expected.items()}:
        raise ValueError("other tensors")
    return {name: file.get_tensor(name) for name in expected}


def is_network(path: str | Path) -> bool:
    """Whether a path is a folder of a generated network, damaged or not."""
    return (Path(path) / ABOUT).is_file()


def plain_code(network: str, channels: int, classes: int, size: int) -> tuple[str, str]:
    """Python that defines an architecture with PyTorch alone, and the expression that makes it."""
    make = small_networks.small_network(network).layers
    own = inspect.getsource(make)
    code = inspect.getsource(small_networks._named) + "\n\n"
    if "_Block" in own:
        code += inspect.getsource(small_networks._Block) + "\n\n"
    code += own
    return code.rstrip() + "\n", f"{make.__name__}({channels}, {classes}, {size})"


def _empty(network: str, channels: int, classes: int, size: int) -> State:
    """The tensors of an architecture, without numbers. Raises UserError where there is none."""
    with torch.device("meta"):
        return small_networks.small_network(network).build(channels, classes, size).state_dict()
