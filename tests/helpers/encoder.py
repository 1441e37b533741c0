"""An encoder that costs nothing."""

from itertools import product

import numpy as np
from PIL import Image


class CheapEncoder:
    """Stands in for a network: 48 features, each the share of pixels near one colour of a 4 × 4 × 3 grid."""

    name, num_features, device = "fake/colours", 48, "cpu"
    preprocessing = {"size": 16, "crop_pct": 1.0, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3}
    grid = np.array(list(product((30, 90, 150, 210), (30, 90, 150, 210), (40, 120, 200))))

    def encode(self, items, *, progress=lambda *_: None, cache=True):
        import torch

        features, readable = torch.zeros(len(items), self.num_features), np.ones(len(items), bool)
        for i, item in enumerate(items):
            try:
                with Image.open(item) as image:
                    pixels = np.asarray(image.convert("RGB").resize((16, 16)), np.float32).reshape(-1, 1, 3)
            except OSError:
                readable[i] = False
                continue
            near = np.exp(-((pixels - self.grid) ** 2).sum(-1) / (2 * 40**2))
            features[i] = torch.from_numpy(np.sqrt(near.mean(0)))
            progress("Reading images", i + 1, len(items))
        return features, readable
