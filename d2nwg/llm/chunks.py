"""Chosen parts of a language model as chunks of one length (paper appendix A.4).

Every tensor is laid out as vectors of the residual stream, one a row: a matrix that reads from the stream row by row,
one that writes to it column by column; what has another length, such as biases and norms of heads, is put end to end
and filled up. A chunk is some whole rows, so tensors of different shapes share one vector length and one VAE. Each
matrix is standardised on its own, also those that are fused in one tensor. With a hidden size of 2048, the paper's
chunk of 2,097,152 numbers is 1024 such rows.

Chunks are read from a file when they are asked for: memory is bounded by the batch and not by the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from d2nwg.llm.architectures import Part, Unit, pieces
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import whole_file
from d2nwg.utils.text import shown


@dataclass(frozen=True)
class Piece:
    """The place of one chunk: rows ``start`` to ``stop`` (exclusive) of unit number ``unit``, laid out."""

    unit: int
    start: int
    stop: int


class Stored:
    """Units whose tensors are in a safetensors file.

    Args:
        file: it, with the tensors by their names in the model.
        units: in order.
    """

    def __init__(self, file: Path, units: Sequence[Unit]):
        self.file, self.units = Path(file), list(units)

    def tensors(self, unit: Unit, file: Path | None = None) -> dict[str, Tensor]:
        """The tensors of a unit as they are stored in a file, by default in their own.

        Raises:
            UserError: the file is damaged, or of another model.
        """
        from safetensors import SafetensorError, safe_open

        file = file or self.file
        try:
            with safe_open(file, "pt") as held:
                found = {part.name: held.get_tensor(part.name) for part in unit.parts}
        except (SafetensorError, OSError) as reason:
            raise UserError(f"{shown(file)} is no checkpoint of this model, or damaged: save it again.") from reason
        for part in unit.parts:
            if tuple(found[part.name].shape) != part.shape:
                raise UserError(f"{shown(part.name)} has another shape in {shown(file)}: it is another model's.")
        return found


class Chunks(Stored):
    """Chunks of units whose tensors are in a safetensors file.

    Args:
        file: a safetensors file with the tensors, by their names in the model.
        units: what is generated, in order.
        width: of the residual stream.
        chunk: numbers in a chunk, rounded down to whole rows; at least one row, at most the largest unit.
        row_multiple: the rows in a chunk are a multiple of this (the denoiser halves the resolution some times).
    """

    _centre: Path | None

    def __init__(self, file: Path, units: Sequence[Unit], width: int, chunk: int, row_multiple: int = 4):
        super().__init__(file, units)
        self.width = width
        self._cut = chunk, row_multiple
        lengths = []
        self.scales: dict[str, Tensor] = {}  # tensor -> (rows, 2): mean and standard deviation of each row's matrix
        for unit in self.units:
            tensors, length = self.tensors(unit), 0
            for part in unit.parts:
                rows = self.lay_out(part, tensors[part.name])
                matrices = [(one, len(one)) for one in pieces(part, rows)]
                if rows.numel() > part.numbers:  # what is filled up is none of its numbers
                    matrices = [(tensors[part.name].float(), len(rows))]
                self.scales[part.name] = torch.cat([_scale(*one) for one in matrices])
                length += len(rows)
            lengths.append(length)
        self.rows_a_unit, self._centre = lengths, None
        self._held: tuple | None = None  # what was read last, and where: a unit may be many chunks
        whole = max(1, min(chunk // width, max(lengths)))
        self.rows_a_chunk = -(-whole // row_multiple) * row_multiple
        self.pieces = [
            Piece(unit, start, min(start + self.rows_a_chunk, length))
            for unit, length in enumerate(lengths)
            for start in range(0, length, self.rows_a_chunk)
        ]

    def __len__(self) -> int:
        return len(self.pieces)

    @property
    def size(self) -> int:
        """Numbers in a chunk."""
        return self.rows_a_chunk * self.width

    def centre(self, files: Sequence[Path], average: Path) -> None:
        """Take chunks about the average of several checkpoints from now on, in units of their standard deviation from
        it. The average is written to the file `average`.

        Raises:
            UserError: as `tensors`.
        """
        means: dict[str, Tensor] = {}
        for unit in self.units:
            held = [self.tensors(unit, file) for file in files]
            for part in unit.parts:
                rows = torch.stack([self.lay_out(part, tensors[part.name]) for tensors in held])
                apart = (rows - rows.mean(0)).square().sum((0, 2))  # (R,)
                means[part.name] = self.take_back(part, rows.mean(0))
                scales, start = [], 0
                for length in part.cuts or (rows.shape[1],):
                    numbers = part.numbers * length / rows.shape[1] * max(1, len(files) - 1)
                    scale = float(apart[start : start + length].sum() / numbers) ** 0.5
                    scales += [[0.0, scale or 1.0]] * length
                    start += length
                self.scales[part.name] = torch.tensor(scales)
        self._centre, self._held = save_matrices(means, average), None

    def only(self, numbers: Sequence[int]) -> "Chunks":
        """Chunks of some of the units."""
        return Chunks(self.file, [self.units[number] for number in numbers], self.width, *self._cut)

    def rows_of(self, part: Part) -> int:
        """How many rows a tensor is laid out as."""
        return len(self.scales[part.name])

    def lay_out(self, part: Part, tensor: Tensor) -> Tensor:
        """A tensor as float32 rows of the residual stream's width (R, width): its rows or columns, where they are such
        vectors, and otherwise its numbers one after another, filled up with zeros."""
        tensor = tensor.float()
        if tensor.ndim == 2 and tensor.shape[0 if part.turned else 1] == self.width:
            return tensor.T if part.turned else tensor
        flat = tensor.flatten()
        rows = flat.new_zeros(-(-len(flat) // self.width) * self.width)
        rows[: len(flat)] = flat
        return rows.reshape(-1, self.width)

    def take_back(self, part: Part, rows: Tensor) -> Tensor:
        """A tensor of its rows: the inverse of `lay_out`."""
        if len(part.shape) == 2 and part.shape[0 if part.turned else 1] == self.width:
            return (rows.T if part.turned else rows).contiguous()
        return rows.flatten()[: part.numbers].reshape(part.shape).contiguous()

    def rows(self, unit: Unit, file: Path | None = None) -> tuple[Tensor, Tensor]:
        """The standardised rows of a unit (R, width), zero where filled up, and a mask (R, width), True where not."""
        tensors, found, masks = self.tensors(unit, file), [], []
        average = self.tensors(unit, self._centre) if self._centre else {}
        for part in unit.parts:
            rows, (mean, std) = self.lay_out(part, tensors[part.name]), self.scales[part.name].T[..., None]
            if average:
                mean = self.lay_out(part, average[part.name])
            used = (torch.arange(rows.numel()) < part.numbers).reshape(rows.shape)
            found.append(torch.where(used, (rows - mean) / std, 0.0))
            masks.append(used)
        return torch.cat(found), torch.cat(masks)

    def read(self, numbers: Sequence[int], file: Path | None = None) -> tuple[Tensor, Tensor]:
        """Chunks by number: standardised values (B, size), zero where padded, and a mask (B, size), True where they are
        not."""
        chunks = torch.zeros(len(numbers), self.rows_a_chunk, self.width)
        used = torch.zeros(len(numbers), self.rows_a_chunk, self.width, dtype=torch.bool)
        for i, number in enumerate(numbers):
            piece = self.pieces[number]
            if self._held is None or self._held[0] != (piece.unit, file):
                self._held = (piece.unit, file), self.rows(self.units[piece.unit], file)
            rows, mask = self._held[1]
            length = piece.stop - piece.start
            chunks[i, :length] = rows[piece.start : piece.stop]
            used[i, :length] = mask[piece.start : piece.stop]
        return chunks.flatten(1), used.flatten(1)

    def of_unit(self, unit: int) -> list[int]:
        """The numbers of the chunks of one unit, in order."""
        return [number for number, piece in enumerate(self.pieces) if piece.unit == unit]

    def assemble(self, unit: int, chunks: Tensor) -> dict[str, Tensor]:
        """The tensors of a unit of all its chunks (n, size), float32, in their own shapes: the inverse of `read`."""
        rows, found, start = chunks.reshape(-1, self.width), {}, 0
        average = self.tensors(self.units[unit], self._centre) if self._centre else {}
        for part in self.units[unit].parts:
            mean, std = self.scales[part.name].T[..., None]
            made = self.take_back(part, rows[start : start + len(mean)] * std + mean)
            found[part.name] = made + average[part.name] if average else made
            start += len(mean)
        return found


def _scale(matrix: Tensor, rows: int) -> Tensor:
    """(R, 2): mean and standard deviation of a matrix, for each of its `rows`."""
    mean, std = float(matrix.mean()), float(matrix.std(correction=0)) or 1.0
    return torch.tensor([[mean, std]]).expand(rows, 2)


def joined(unit: Unit, tensors: Mapping[str, Tensor]) -> Tensor:
    """The tensors of a unit as one, float32: a single one in its own shape, several one after another (N,)."""
    if len(unit.parts) == 1:
        return tensors[unit.parts[0].name].float()
    return torch.cat([tensors[part.name].float().flatten() for part in unit.parts])


def split(unit: Unit, values: Tensor) -> dict[str, Tensor]:
    """The inverse of `joined`."""
    lengths = [part.numbers for part in unit.parts]
    shares = values.flatten().split(lengths)
    return {part.name: share.reshape(part.shape) for part, share in zip(unit.parts, shares, strict=True)}


def save_matrices(tensors: Mapping[str, Tensor], path: Path) -> Path:
    """Write matrices as one safetensors file, whole or not at all."""
    from safetensors.torch import save_file

    with whole_file(path) as part:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part)
    return path


def load_matrices(path: Path) -> dict[str, Tensor]:
    """What `save_matrices` wrote.

    Raises:
        UserError: it is damaged, or no regular file.
    """
    from safetensors.torch import load_file

    try:
        if not path.is_file():  # a FIFO would block
            raise ValueError("no regular file")
        return load_file(path)
    except Exception as reason:  # a damaged file can fail in any way
        raise UserError(f"{path} is damaged: delete the folder of this refinement, and begin it again.") from reason
