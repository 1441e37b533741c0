"""Signal-to-noise ratios of a language model's matrices: singular values against the Marchenko-Pastur law.

Two modes (paper appendix A.3; Hartford et al., *Spectrum*, 2024), both with β = q = smaller / larger side, S the
singular values, and SNR = ΣS>ε / ΣS≤ε:

* ``paper``: the noise level σ is the standard deviation of the entries. On values normalised as S/n, n the larger side,
  the bound is ε₊ = σ(1+√q)/√n, which on S itself is σ√n·(1+√q), the largest singular value of a random matrix.
* ``spectrum``: σ = IQR(S)/1.349, ε = σ(1+√β), and the result is divided by the largest singular value.

Where no value lies below ε (or only zeros), the ratio is undefined (None), and the matrix is not chosen.
"""

import contextlib
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from d2nwg.llm.architectures import TYPES, matrices
from d2nwg.utils.devices import workers
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import cache_dir, whole_file
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import shown

if TYPE_CHECKING:
    from torch import Tensor

    from d2nwg.llm.models import LanguageModel

MODES = ("paper", "spectrum")
BATCH_BYTES = 2**27  # of matrices whose singular values are computed together


@dataclass(frozen=True)
class Matrix:
    """One 2-D weight and its singular values.

    Attributes:
        name: in the model's state dict.
        layer: number of its layer, from 0.
        type: one of `d2nwg.llm.architectures.TYPES`.
        shape: (rows, columns).
        std: standard deviation of its entries.
        values: singular values, float32, largest first.
    """

    name: str
    layer: int
    type: str
    shape: tuple[int, int]
    std: float
    values: np.ndarray


@dataclass(frozen=True)
class Ranked:
    """A matrix's place among those of its type.

    Attributes:
        snr: signal-to-noise ratio, None where the noise set is empty.
        threshold: ε on the scale of the singular values.
        rank: from 1, within the type; None where there is no ratio.
        chosen: whether it is among the top ones.
    """

    matrix: Matrix
    snr: float | None
    threshold: float
    rank: int | None
    chosen: bool

    def to_json(self) -> dict:
        """As JSON: the matrix's facts, without its singular values."""
        matrix = self.matrix
        largest = float(matrix.values[0]) if len(matrix.values) else 0.0
        return {
            "name": matrix.name,
            "layer": matrix.layer,
            "type": matrix.type,
            "shape": list(matrix.shape),
            "snr": self.snr,
            "threshold": self.threshold,
            "largest": largest,
            "rank": self.rank,
            "chosen": self.chosen,
        }


def bulk_scale(values: np.ndarray, shape: tuple[int, int], std: float, mode: str) -> float:
    """The σ of the noise on the scale of the singular values: a random matrix's values lie between this times 1-√β
    and this times 1+√β."""
    if mode == "paper":
        return std * math.sqrt(max(shape))
    if mode == "spectrum":
        high, low = np.quantile(np.asarray(values, np.float64), [0.75, 0.25])
        return float(high - low) / 1.349
    raise UserError(f"There is no mode {mode}: choose {' or '.join(MODES)}.")


def threshold(values: np.ndarray, shape: tuple[int, int], std: float, mode: str) -> float:
    """ε of a mode on the scale of the singular values."""
    return bulk_scale(values, shape, std, mode) * (1 + math.sqrt(min(shape) / max(shape)))


def signal_to_noise(values: np.ndarray, shape: tuple[int, int], std: float, mode: str) -> float | None:
    """ΣS>ε / ΣS≤ε, in mode ``spectrum`` divided by the largest value; None where there is no noise to compare with."""
    exact = np.asarray(values, np.float64)
    above = exact > threshold(exact, shape, std, mode)
    noise = float(exact[~above].sum())
    if noise <= 0:
        return None
    ratio = float(exact[above].sum()) / noise
    return ratio / float(exact.max()) if mode == "spectrum" else ratio


def check_choice(mode: str, percent: float) -> None:
    """Raises UserError where the mode is not known, or `percent` is not in (0, 100]."""
    if mode not in MODES:
        raise UserError(f"There is no mode {shown(mode)}: choose {' or '.join(MODES)}.")
    if isinstance(percent, bool) or not isinstance(percent, (int, float)) or not 0 < percent <= 100:
        raise UserError(
            f"The share of layers to choose should be above 0 and at most 100 percent, not {shown(percent, 40)}."
        )


def rank(matrices: Sequence[Matrix], mode: str = "paper", percent: float = 25.0) -> list[Ranked]:
    """Rank matrices within their type and choose the top `percent` of each type: as many as fit into it, but one.

    Of equal ratios the earlier layer comes first. The result is in the order of `matrices`.

    Raises:
        UserError: the mode is not known, or `percent` is not in (0, 100].
    """
    check_choice(mode, percent)
    ratios = [signal_to_noise(m.values, m.shape, m.std, mode) for m in matrices]
    places: dict[int, int] = {}
    chosen: set[int] = set()
    for kind in TYPES:
        mine = [i for i, matrix in enumerate(matrices) if matrix.type == kind]
        ranked = sorted((i for i in mine if ratios[i] is not None), key=lambda i: (-ratios[i], matrices[i].layer))
        places.update({i: place for place, i in enumerate(ranked, 1)})
        chosen.update(ranked[: max(1, math.floor(len(mine) * percent / 100 + 1e-9))])
    return [
        Ranked(m, ratios[i], threshold(m.values, m.shape, m.std, mode), places.get(i), i in chosen)
        for i, m in enumerate(matrices)
    ]


def density(matrix: Matrix, mode: str, points: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """The Marchenko-Pastur law of a random matrix of this shape and noise, as a density over singular values.

    Returns:
        (P,) singular values across the bulk, and (P,) densities, whose integral is 1. Empty for a matrix without noise.
    """
    beta = min(matrix.shape) / max(matrix.shape)
    scale = bulk_scale(matrix.values, matrix.shape, matrix.std, mode)
    if scale <= 0:
        return np.empty(0), np.empty(0)
    low, high = 1 - math.sqrt(beta), 1 + math.sqrt(beta)
    # Points lie densest at the edges, where the density is steepest.
    x = low + (high - low) * (1 - np.cos(np.linspace(0, np.pi, points))) / 2
    inside = np.maximum((high**2 - x**2) * (x**2 - low**2), 0)
    # At aspect 1 the law is a quarter circle: its limit at 0 is finite.
    law = np.sqrt(inside) / (np.pi * beta * np.maximum(x, 1e-12))
    if beta == 1:
        law = np.sqrt(np.maximum(4 - x**2, 0)) / np.pi
    return x * scale, law / scale


def measure(model: "LanguageModel", *, progress: Progress = silent) -> list[Matrix]:
    """The singular values of every matrix of the blocks, in the order of the layers; of fused ones as they are stored.

    Computed in float32 on the model's device, matrices of one shape together, and kept on the disk by the content of
    the weights, so that the same weights are measured once.

    Raises:
        UserError: the model is of no known family.
    """
    units, parameters = matrices(model.model, model.name), dict(model.model.named_parameters())
    found = {unit.name: parameters[unit.name] for unit in units}
    keep = cache_dir() / "spectra" / f"{_content(found, progress)}.npz"
    known = _read(keep, found)
    values, stds = known or _decompose(found, progress)
    if known is None:
        _write(keep, values, stds)
    return [Matrix(u.name, u.layer, u.type, u.parts[0].shape, stds[u.name], values[u.name]) for u in units]


def _decompose(found: "Mapping[str, Tensor]", progress: Progress) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Batches of one shape; on a CPU, where LAPACK takes one matrix after another anyhow, a matrix a core."""
    import torch

    device = next(iter(found.values())).device.type
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, tensor in found.items():
        groups.setdefault(tuple(tensor.shape), []).append(name)
    parts = []
    for (rows, columns), names in groups.items():
        together = 1 if device == "cpu" else max(1, BATCH_BYTES // (4 * rows * columns))
        parts += [names[first : first + together] for first in range(0, len(names), together)]

    @torch.inference_mode()
    def decompose(names: list[str]) -> tuple[np.ndarray, list[float]]:
        batch = torch.stack([found[name].detach().float() for name in names])
        singular = torch.linalg.svdvals(batch).cpu().numpy()
        return singular, batch.std(dim=(1, 2), correction=0).cpu().tolist()

    values: dict[str, np.ndarray] = {}
    stds: dict[str, float] = {}
    stage = "Computing the singular values"
    progress(stage, 0, len(found))
    with workers(device) as pool:
        for names, (singular, spread) in zip(parts, pool.map(decompose, parts), strict=True):
            values.update(zip(names, singular, strict=True))
            stds.update(zip(names, spread, strict=True))
            progress(stage, len(values), len(found))
    return values, stds


def _content(found: "Mapping[str, Tensor]", progress: Progress) -> str:
    """What the cached result is called: names and numbers of the weights, whatever format they are held in."""
    digest = hashlib.sha256()
    for done, (name, tensor) in enumerate(found.items()):
        if done % 16 == 0:
            progress("Reading the weights", done, len(found))
        digest.update(f"{name} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:32]


def _read(keep: Path, found) -> tuple[dict[str, np.ndarray], dict[str, float]] | None:
    """What was measured before; None where there is nothing that can be read."""
    try:
        with np.load(keep, allow_pickle=False) as file:
            stds = json.loads(str(file["std"]))
            values = {name: file[name] for name in found}
        if not all(np.isfinite(values[name]).all() and len(values[name]) == min(found[name].shape) for name in found):
            return None
        return values, {name: float(stds[name]) for name in found}
    except Exception:  # a damaged file can fail in any way
        return None


def _write(keep: Path, values: Mapping[str, np.ndarray], stds: Mapping[str, float]) -> None:
    with contextlib.suppress(OSError):  # a full disk: it will be measured again
        keep.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(keep) as part, part.open("wb") as file:
            np.savez(file, std=np.array(json.dumps(stds)), **values)
