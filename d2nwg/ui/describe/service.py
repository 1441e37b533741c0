"""What the Describe tab does, without gradio: each action is a library call and the files it leaves."""

import csv
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from d2nwg.ui.gpu import on_gpu
from d2nwg.ui.libraries import import_libraries
from d2nwg.ui.uploads import own_file, read_data
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent

TOP = 5


class Result(NamedTuple):
    """What one press of the button has made."""

    made: Any  # the `DescribedAdapter`
    files: dict[str, Path]  # adapter (a zip), report


class Scored(NamedTuple):
    """An adapter on a visitor's table."""

    found: Any  # the `Comparison`
    name: str  # of the table
    file: Path  # a table of what it says of each text


class Looked(NamedTuple):
    """What is said of one text: the likeliest classes with their probabilities, or a value."""

    adapter: dict[str, float] | float
    without: dict[str, float] | None  # by the encoder without an adapter; None for values


@on_gpu
def describe(
    description: str | None, labels: str | None, settings: dict, folder: Path, progress: Progress = silent
) -> Result:
    """Generate an adapter for a task in words, and save it below `folder`.

    Args:
        labels: names of the classes as somebody typed them, if any.
        settings: see `d2nwg.ui.describe.settings.check`.
    """
    import_libraries()
    from d2nwg.conditions.class_names import split_names
    from d2nwg.from_description import generate_from_description

    names = split_names(labels) if (labels or "").strip() else []
    made = generate_from_description((description or "").strip(), labels=names, progress=progress, **settings)
    folder.mkdir(parents=True, exist_ok=True)
    saved = made.save(folder / "adapter")
    packed = Path(shutil.make_archive(str(folder / "adapter"), "zip", folder, "adapter"))
    return Result(made, {"adapter": packed, "report": saved / "report.json"})


@on_gpu
def look(made, text: str | None, second: str | None = None) -> Looked:
    """What an adapter says of a text, or of a pair of texts, beside the encoder without one.

    Raises:
        UserError: a text is missing.
    """
    from d2nwg.adapter_scores import without
    from d2nwg.adapters import predict_texts
    from d2nwg.encoders.lora import adapted_encoder

    adapter = made.adapter
    if not (text or "").strip() or (adapter.pairs and not (second or "").strip()):
        raise UserError("Write both texts." if adapter.pairs else "There is nothing to read: write a text.")
    item: Any = (text, second) if adapter.pairs else text
    with adapted_encoder(adapter.shape) as encoder:
        plain = predict_texts(without(adapter, encoder), [item], top=TOP, encoder=encoder) if adapter.classes else None
        encoder.load(adapter.state)
        [said] = predict_texts(adapter, [item], top=TOP, encoder=encoder)
    return Looked(dict(said["top"]) if adapter.classes else said["value"], plain and dict(plain[0]["top"]))


@on_gpu
def score(made, files: list[str] | None, folder: Path, progress: Progress = silent) -> Scored:
    """Score an adapter and its baselines on an uploaded table of texts and labels.

    Raises:
        UserError: there is none, or its texts or labels are not those of the adapter.
    """
    from d2nwg.adapter_scores import compare

    if not files:
        raise UserError("Drop a table with a column of texts and one of labels.")
    data: Any = read_data(files=[str(own_file(file)) for file in files], into=folder / "unpacked", progress=progress)
    found = compare(made, data, progress=progress)
    return Scored(found, data.name, _write(made.adapter, found, folder / "predictions.csv"))


def _write(adapter, found, path: Path) -> Path:
    """A row a text: the text or both, what is right, and what the adapter says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts, right = found.targets.texts, found.targets.values
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        rows = csv.writer(file)
        said = ["predicted", "probability"] if adapter.classes else ["predicted"]
        rows.writerow([*(["text", "second"] if adapter.pairs else ["text"]), "label", *said])
        for text, value, row in zip(texts, right, found.said, strict=True):
            own = list(text) if adapter.pairs else [text]
            if adapter.classes:
                best = int(row.argmax())
                rows.writerow([*own, adapter.classes[int(value)], adapter.classes[best], f"{float(row[best]):.4f}"])
            else:
                rows.writerow([*own, f"{float(value):g}", f"{float(row):.4f}"])
    return path


def confusion(scored: Scored, adapter):
    """The figure of a table's true classes against those that the adapter predicts; None for values."""
    from d2nwg.figures.generate import confusion_figure

    return None if scored.found.confusion is None else confusion_figure(scored.found.confusion, adapter.classes)
