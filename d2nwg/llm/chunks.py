"""Chosen matrices of a language model as chunks of one length (paper appendix A.4).

Every matrix is laid out so that its rows are vectors of the residual stream: query, key, value, up and gate read from
it, row by row; output and down write to it, column by column, and are transposed. A chunk is some whole rows, so
matrices of different shapes share one vector length and one VAE. Each matrix is standardised on its own. With a hidden
size of 2048, the paper's chunk of 2,097,152 numbers is 1024 such rows.

Chunks are read from a file when they are asked for: memory is bounded by the batch and not by the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from d2nwg.llm.spectrum import place
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import whole_file

WRITERS = ("o", "down")  # write to the residual stream: their columns are its vectors


@dataclass(frozen=True)
class Piece:
    """The place of one chunk: rows ``start`` to ``stop`` (exclusive) of matrix number ``matrix``, laid out."""

    matrix: int
    start: int
    stop: int


class MatrixChunks:
    """Chunks of the matrices in a safetensors file.

    Args:
        file: a safetensors file with the matrices, by their names in the model.
        names: of the matrices, in order.
        chunk: numbers in a chunk, rounded down to whole rows; at least one row, at most the largest matrix.
        row_multiple: the rows in a chunk are a multiple of this (the denoiser halves the resolution some times).

    Raises:
        UserError: the matrices do not all read from or write to vectors of one length.
    """

    def __init__(self, file: Path, names: Sequence[str], chunk: int, row_multiple: int = 4):
        self.file, self.names = Path(file), list(names)
        self.shapes, self.mean, self.std = [], [], []
        for name in self.names:
            rows = self.rows(name)
            self.shapes.append(tuple(rows.shape))
            self.mean.append(float(rows.mean()))
            self.std.append(float(rows.std(correction=0)) or 1.0)
        widths = {shape[1] for shape in self.shapes}
        if len(widths) != 1:
            raise UserError(
                f"The chosen matrices do not share one residual stream (widths {sorted(widths)}): this kind of model "
                "cannot be refined."
            )
        self.width = widths.pop()
        longest = max(shape[0] for shape in self.shapes)
        whole = max(1, min(chunk // self.width, longest))
        self.rows_a_chunk = -(-whole // row_multiple) * row_multiple
        self.pieces = [
            Piece(matrix, start, min(start + self.rows_a_chunk, shape[0]))
            for matrix, shape in enumerate(self.shapes)
            for start in range(0, shape[0], self.rows_a_chunk)
        ]

    def __len__(self) -> int:
        return len(self.pieces)

    @property
    def size(self) -> int:
        """Numbers in a chunk."""
        return self.rows_a_chunk * self.width

    def tensor(self, name: str) -> Tensor:
        """A matrix as it is stored."""
        from safetensors import safe_open

        with safe_open(self.file, "pt") as file:
            return file.get_tensor(name)

    def rows(self, name: str) -> Tensor:
        """A matrix laid out, float32 (rows, width of the residual stream)."""
        return lay_out(name, self.tensor(name).float())

    def read(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Chunks by number: standardised values (B, size), zero where padded, and a mask (B, size), True where they are
        not."""
        chunks = torch.zeros(len(numbers), self.rows_a_chunk, self.width)
        used = torch.zeros(len(numbers), self.rows_a_chunk, 1, dtype=torch.bool)
        held: tuple[str, Tensor] | None = None
        for i, number in enumerate(numbers):
            piece = self.pieces[number]
            name = self.names[piece.matrix]
            if held is None or held[0] != name:
                held = name, self.rows(name)
            part = held[1][piece.start : piece.stop]
            chunks[i, : len(part)] = (part - self.mean[piece.matrix]) / self.std[piece.matrix]
            used[i, : len(part)] = True
        return chunks.flatten(1), used.expand(-1, -1, self.width).flatten(1)

    def of_matrix(self, matrix: int) -> list[int]:
        """The numbers of the chunks of one matrix, in order."""
        return [number for number, piece in enumerate(self.pieces) if piece.matrix == matrix]

    def assemble(self, matrix: int, chunks: Tensor) -> Tensor:
        """The matrix of all its chunks (n, size), float32, in its own shape: the inverse of `read`."""
        rows = chunks.reshape(-1, self.width)[: self.shapes[matrix][0]]
        return lay_out(self.names[matrix], rows * self.std[matrix] + self.mean[matrix]).contiguous()


def lay_out(name: str, matrix: Tensor) -> Tensor:
    """A matrix with the vectors of the residual stream as rows: transposed, or as it is. Its own inverse."""
    return matrix.T if place(name)[1] in WRITERS else matrix


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
