"""A map of names as sentences, as a dictionary and as files."""

import json
from pathlib import Path

import numpy as np
import torch

from d2nwg.analysis.projections import write_projector
from d2nwg.conditions.class_names import class_of
from d2nwg.exploration.names import Found, NamedRowsMap
from d2nwg.exploration.words import write_csv
from d2nwg.pipelines.names import FAR, KnownName, Near, nearest
from d2nwg.utils.text import number, shown, some

NAMED = 4  # names in a sentence


def sentences(made: NamedRowsMap) -> list[str]:
    """What the map says, the answer first."""
    said = []
    if made.names:
        beside = [
            f"{shown(class_of(name), 40)}{'' if i else ' lies nearest'} to {made.known[near[0].number].name} "
            f"({'' if i else 'cosine '}{near[0].cosine:.2f})"
            for i, (name, near) in enumerate(zip(made.names[:NAMED], made.nearest, strict=False))
        ]
        more = f", and so on for {len(made.names) - NAMED:,} more" if len(made.names) > NAMED else ""
        said.append(f"{', '.join(beside)}{more}.")
        if far := far_names(made):
            said.append(
                f"Far from all that the zoo knows: {some(far, NAMED)}. A head from such names is little better than a "
                "guess; describe the class after a colon, or give images."
            )
    if made.found:
        said += search_sentences(made.known, made.found)
    own = sum(not known.source for known in made.known)
    parts = [number(own, "class", "classes") + " of the encoder's own classifier"] * bool(own)
    parts += [number(len(made.known) - own, "class", "classes") + " of training sets"] * (own < len(made.known))
    said.append(f"The bundle {made.bundle} knows {number(len(made.known), 'row')} by name: {' and '.join(parts)}.")
    return said


def far_names(made: NamedRowsMap) -> list[str]:
    """One's own names that say little: their predictive variance is that of names far from all that is known."""
    return [class_of(name) for name, variance in zip(made.names, made.variance, strict=True) if variance > FAR]


def search_sentences(known: tuple[KnownName, ...], found: Found) -> list[str]:
    """What a search found."""
    text = shown(found.text, 60)
    labels = [known[i].name if known[i].name == lemma else f"{lemma} ({known[i].name})" for i, lemma in found.spelled]
    spelled = f"“{text}” is part of {number(len(labels), 'known name')}"
    spelled = f"{spelled}: {some(labels, NAMED)}." if labels else f"“{text}” is part of no known name."
    meant = ", ".join(f"{known[near.number].name} ({near.cosine:.2f})" for near in found.meant[:NAMED])
    return [spelled, f"Nearest to it in meaning: {meant}."]


def summary(made: NamedRowsMap) -> dict:
    """The result without the points, as JSON. Cosines of ``nearest`` are between directions, those of ``meant`` between
    texts."""
    names = [
        {"name": name, "variance": round(float(variance), 6), "nearest": _near(made.known, near)}
        for name, variance, near in zip(made.names, made.variance, made.nearest, strict=True)
    ]
    search = None
    if made.found:
        spelled = [made.known[i].label for i, _ in made.found.spelled]
        search = {"text": made.found.text, "spelled": spelled, "meant": _near(made.known, made.found.meant)}
    return {
        "bundle": made.bundle,
        "encoder": made.encoder,
        "known": len(made.known),
        "names": names,
        "search": search,
        "map": made.projection.words,
        "seed": made.seed,
        "words": sentences(made),
        "seconds": round(made.seconds, 3),
    }


def table(made: NamedRowsMap) -> dict[str, list]:
    """Column name → values, a row a point: the known names, then one's own."""
    rows = torch.from_numpy(made.rows)
    near = nearest(rows @ rows.mT, 2)  # the nearest is the row itself
    others = [[pair for pair in pairs if pair.number != i][:1] for i, pairs in enumerate(near)]
    said = [(known.label, known.name, known.source or "classifier") for known in made.known]
    said += [(name, class_of(name), "yours") for name in made.names]
    first = [*others, *(pairs[:1] for pairs in made.nearest)]
    maps = {"tsne": (made.projection.tsne, made.tsne), "pca": (made.projection.pca, made.pca)}
    return {
        "label": [row[0] for row in said],
        "name": [row[1] for row in said],
        "source": [row[2] for row in said],
        "nearest": [made.known[pairs[0].number].label if pairs else "" for pairs in first],
        "cosine": [pairs[0].cosine if pairs else float("nan") for pairs in first],
        **{
            f"{name}_{axis + 1}": [float(point[axis]) for part in both for point in part]
            for name, both in maps.items()
            for axis in (0, 1)
        },
    }


def save(made: NamedRowsMap, folder: str | Path) -> dict[str, list[Path]]:
    """Write ``names.json``, ``names.csv`` and ``projector/``.

    Returns:
        name → files: ``data``, ``projector``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "names.json").write_text(json.dumps(summary(made), indent=1, ensure_ascii=False), encoding="utf-8")
    columns = table(made)
    listing = write_csv(folder / "names.csv", columns)
    metadata = {name: columns[name] for name in ("name", "label", "source", "nearest", "cosine")}
    points = np.concatenate([made.rows, made.directions])
    projector = write_projector(folder / "projector", points, metadata, f"{made.bundle} (named rows)")
    return {"data": [folder / "names.json", listing], "projector": projector}


def _near(known: tuple[KnownName, ...], near: list[Near] | tuple[Near, ...]) -> list[dict]:
    return [{"name": known[one.number].label, "cosine": round(one.cosine, 6)} for one in near]
