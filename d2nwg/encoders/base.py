"""A frozen network with its preprocessing: images in, feature vectors out, through the cache."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from d2nwg.data.decode import open_image
from d2nwg.data.deep import PixelScale
from d2nwg.data.pixels import measure
from d2nwg.encoders.cache import FeatureCache, content_hash
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent

READ_AHEAD = 128  # images decoded before they are encoded, in batches; a multiple of a CPU's batch


class Encoder:
    """A frozen network that turns images into feature vectors.

    Attributes:
        name: what `load_encoder` was called with.
        num_features: width of a feature vector.
        preprocessing: ``size`` (pixels a side), ``crop_pct``, ``interpolation``, ``mean`` and ``std`` (three numbers
            each, for pixels in [0, 1]).
        device: that it computes on.
        batch_size: images a forward pass.
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
        self._key = f"{json.dumps([name, preprocessing])}\n{fingerprint(network)}".encode()

    def preprocess(self, item: Path | bytes | Image.Image, scale: PixelScale | None = None) -> np.ndarray:
        """One image → (size, size, 3) uint8: shorter side resized to ``size / crop_pct``, then the central square."""
        size = self.preprocessing["size"]
        side = round(size / self.preprocessing["crop_pct"])
        image = item if isinstance(item, Image.Image) else open_image(item, min_side=side, scale=scale)
        scale = side / min(image.size)
        width, height = (max(size, round(edge * scale)) for edge in image.size)
        left, top = (width - size) / 2, (height - size) / 2
        # Resizing only the box that the crop keeps gives the same pixels for less work.
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
        self,
        items: Sequence[Path | bytes],
        *,
        progress: Progress = silent,
        cache: bool = True,
        scale: PixelScale | None = None,
    ) -> tuple[torch.Tensor, np.ndarray]:
        """Features of images, read from the cache where they are known.

        Args:
            items: files or encoded bytes.
            progress: called with the stage ``"Reading images"``.
            cache: keep and reuse features on disk, by image content, encoder weights and preprocessing.
            scale: of the data set, for images of more than 8 bits a channel; those of kinds that it lacks are scaled
                by the largest value among ``items``.
        Returns:
            features (n, num_features) float32, and a bool array (n,) that is False where an image could not be read
            (its row is zero).
        """
        features = torch.zeros(len(items), self.num_features)
        readable = np.ones(len(items), bool)
        scale = scale or PixelScale()
        scale |= measure(items, progress, known=scale.ranges)
        store = FeatureCache(self._key) if cache else None
        keys: list[bytes | None] = [None] * len(items)
        if store:
            with ThreadPoolExecutor() as pool:
                keys = list(pool.map(lambda item: content_hash(item, scale.key if scale else b""), items))
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
        for indices, pixels in self._batches(items, missing, scale):
            good = [i for i, p in zip(indices, pixels, strict=True) if p is not None]
            readable[[i for i, p in zip(indices, pixels, strict=True) if p is None]] = False
            if good:
                features[good] = self.forward(torch.from_numpy(np.stack([p for p in pixels if p is not None])))
                if store:
                    store.put({keys[i]: features[i].numpy() for i in good})
            done += len(indices)
            progress("Reading images", done, len(items))
        return features, readable

    def _batches(self, items, missing, scale) -> Iterator[tuple[list[int], list[np.ndarray | None]]]:
        """Batches in order, decoded and resized by threads, `READ_AHEAD` images at a time.

        With a GPU the next images are decoded while it encodes these. On a CPU both need the same cores, and decoding
        threads delay those of the network, which wait for each other: one after the other is a fifth faster.
        """

        def read(i: int) -> np.ndarray | None:
            try:
                return self.preprocess(items[i], scale)
            except UserError:
                return None

        blocks = [missing[i : i + READ_AHEAD] for i in range(0, len(missing), READ_AHEAD)]
        with ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 2))) as pool:
            try:
                ahead: deque[list[Future]] = deque()
                for number, block in enumerate(blocks):
                    reach = number + (1 if self.device.type == "cpu" else 2)
                    for wanted in blocks[number + len(ahead) : reach]:
                        ahead.append([pool.submit(read, i) for i in wanted])
                    pixels = [future.result() for future in ahead.popleft()]
                    for start in range(0, len(block), self.batch_size):
                        part = slice(start, start + self.batch_size)
                        yield block[part], pixels[part]
            finally:  # a cancelled run does not wait for the images that are left
                pool.shutdown(wait=False, cancel_futures=True)


def fingerprint(network: torch.nn.Module) -> str:
    """A digest of each parameter's sum of bit patterns: it differs for other weights of the same name (a local
    checkpoint that was changed), and not between machines, as a sum of floats does with the number of threads."""
    patterns = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    sums = [int(p.detach().view(patterns[p.element_size()]).sum(dtype=torch.int64)) for p in network.parameters()]
    return hashlib.sha256(np.asarray(sums, np.int64).tobytes()).hexdigest()  # none for bare pixels: an empty digest
