"""What a path between two names gives: rows, what lies beside them, images and scores, as sentences and files."""

import json
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from d2nwg.conditions.class_names import class_of
from d2nwg.data.image_set import ImageSet
from d2nwg.data.labelled import item_name
from d2nwg.data.tables import write_csv
from d2nwg.heads import Head
from d2nwg.pipelines.names import KnownName, Near, nearest
from d2nwg.utils.text import number, shown

NEAREST = 5  # known names beside a point
SAID = 3  # names in a sentence


@dataclass
class NamePath:
    """P points from one name to another, and what each likes of m images of C classes.

    Attributes:
        names: the two, as they were given.
        bundle: its name.
        share: (P,) shares of the second name, from 0 to 1.
        head: a row a point, which are its classes: the direction of a text that far between the names, of unit length
            in the bundle's whitened space, as weights and a bias on the encoder's features.
        known: the N names that the bundle has rows of; none where it reads names by a text tower.
        cosines: (P, N) of each point's direction with these rows.
        images: what is scored; None where no images were given.
        index: (m,) numbers of the scored images.
        scores: (P, m) what each row gives each image: the logit, weight · feature + bias.
        best: (P, k) the columns of ``scores`` with the highest ones, best first.
        notes: sentences for the user.
        seconds: wall time.
    """

    names: tuple[str, str]
    bundle: str
    share: Tensor
    head: Head
    known: tuple[KnownName, ...]
    cosines: Tensor
    images: ImageSet | None
    index: np.ndarray
    scores: Tensor
    best: Tensor
    notes: tuple[str, ...]
    seconds: float

    @property
    def ends(self) -> tuple[str, str]:
        """The two names without descriptions."""
        return class_of(self.names[0]), class_of(self.names[1])

    @property
    def labels(self) -> np.ndarray:
        """(m,) classes of the scored images."""
        return np.zeros(0, np.int64) if self.images is None else self.images.labels[self.index]

    @property
    def of_class(self) -> Tensor:
        """(P, C) mean score of the images of each class; NaN for a class of which none was scored."""
        if self.images is None:
            return torch.zeros(len(self.share), 0)
        own = torch.nn.functional.one_hot(torch.from_numpy(self.labels), len(self.images.classes)).to(self.scores)
        return self.scores @ own / own.sum(0).where(own.sum(0) > 0, torch.nan)

    def nearest(self, most: int = NEAREST) -> list[list[Near]]:
        """(P,) the known rows that have the largest cosines with each point's direction, largest first."""
        return nearest(self.cosines, most)

    def between(self) -> list[Near]:
        """Known rows that are among the nearest at a point between the names and nearer there than at both of them,
        with that cosine: those that gain most come first."""
        inner = self.cosines[1:-1]
        if not inner.numel():
            return []
        near = sorted({one.number for row in nearest(inner, NEAREST) for one in row})
        peak, gain = inner.amax(0), inner.amax(0) - self.cosines[[0, -1]].amax(0)
        gaining = [number for number in near if gain[number] > 0.005]
        return [Near(number, float(peak[number])) for number in sorted(gaining, key=lambda one: -float(gain[one]))]

    def likes(self, point: int) -> list[tuple[int, str, float]]:
        """The images that a point likes best: number in ``images``, class, score."""
        if self.images is None:
            return []
        chosen = self.best[point].tolist()
        numbers = [int(self.index[column]) for column in chosen]
        classes = [self.images.classes[self.images.labels[number]] for number in numbers]
        return list(zip(numbers, classes, self.scores[point, chosen].tolist(), strict=True))

    def sentences(self) -> list[str]:
        """The result in sentences, the answer first."""
        first, last = (shown(name, 40) for name in self.ends)
        said = []
        if self.known:
            middle = self.nearest(SAID)[len(self.share) // 2]
            said.append(f"Halfway from {first} to {last} the nearest known rows are {self._listed(middle)}.")
            if passed := self.between()[:SAID]:
                said.append(f"Nearer between the two than at either of them: {self._listed(passed)}.")
        if self.images is None:
            return [*said, "Give images to see which of them each point likes best."]
        order = [shown(self.images.classes[c], 40) for c in self._highest()]
        runs = [(name, len(list(group))) for name, group in groupby(order)]
        points, parts = 0, []
        for name, length in runs[:6]:
            points += length
            parts.append(f"{name} up to {float(self.share[points - 1]):.2f}")
        if len(runs) == 1:
            said.append(f"Of the images' classes, {runs[0][0]} has the highest mean score all along the path.")
        else:
            more = "" if len(runs) <= 6 else ", …"
            said.append(f"The images' class with the highest mean score is {', then '.join(parts)}{more}.")
        said.append(f"Scored on {number(len(self.index), 'image')} of {shown(self.images.name, 60)}.")
        return said

    def _highest(self) -> list[int]:
        """(P,) the class with the highest mean score."""
        return self.of_class.nan_to_num(-torch.inf).argmax(-1).tolist()

    def _listed(self, near: list[Near]) -> str:
        words = ["cosine ", *[""] * len(near)]
        return ", ".join(f"{self.known[n].name} ({word}{x:.2f})" for word, (n, x) in zip(words, near, strict=False))

    def report(self) -> dict:
        """The content of ``path.json``: for each point the nearest known rows with cosines, and the images that it
        likes best with scores."""
        points = [
            {
                "share": round(share, 6),
                "nearest": [{"name": self.known[n].label, "cosine": round(cosine, 6)} for n, cosine in near],
                "images": [
                    {"image": item_name(self.images, n), "class": label, "score": round(score, 6)}
                    for n, label, score in self.likes(i)
                ],
            }
            for i, (share, near) in enumerate(zip(self.share.tolist(), self.nearest(), strict=True))
        ]
        between = [{"name": self.known[n].label, "cosine": round(cosine, 6)} for n, cosine in self.between()]
        return {
            "names": list(self.names),
            "bundle": self.bundle,
            "encoder": self.head.encoder,
            "images": None if self.images is None else {"name": self.images.name, "scored": len(self.index)},
            "points": points,
            "between": between,
            "words": self.sentences(),
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
        }

    def save(self, folder: str | Path) -> Path:
        """Write ``path.json``, ``rows.safetensors`` (the head), ``nearest.csv`` (share, rank, known name, cosine) and,
        with images, ``images.csv`` (share, rank, image, class, score) and ``classes.csv`` (share, class, mean score).
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "path.json").write_text(json.dumps(self.report(), indent=1, ensure_ascii=False), encoding="utf-8")
        self.head.save(folder / "rows.safetensors")
        shares = [round(share, 6) for share in self.share.tolist()]
        near = [
            [share, rank, self.known[one.number].label, one.cosine]
            for share, row in zip(shares, self.nearest(), strict=True)
            for rank, one in enumerate(row, 1)
        ]
        write_csv(folder / "nearest.csv", [["share", "rank", "name", "cosine"], *near])
        if self.images is not None:
            liked = [
                [share, rank, item_name(self.images, one), label, score]
                for i, share in enumerate(shares)
                for rank, (one, label, score) in enumerate(self.likes(i), 1)
            ]
            write_csv(folder / "images.csv", [["share", "rank", "image", "class", "score"], *liked])
            means = [
                [share, label, score]
                for share, row in zip(shares, self.of_class.tolist(), strict=True)
                for label, score in zip(self.images.classes, row, strict=True)
            ]
            write_csv(folder / "classes.csv", [["share", "class", "mean_score"], *means])
        return folder
