"""A result under a link of its own: it lies in the cache, and the link opens it again, here or for somebody else."""

import json
import logging
import os
import re
import secrets
import shutil
from pathlib import Path

import gradio as gr
import numpy as np
from gradio.blocks import Block

from d2nwg.data.examples import EXAMPLES
from d2nwg.ui import html as views
from d2nwg.ui.generate.made import FILES, Result
from d2nwg.ui.generate.networks import FILES as NETWORK_FILES
from d2nwg.ui.generate.networks import NetworkResult
from d2nwg.ui.libraries import import_libraries
from d2nwg.ui.uploads import read_data
from d2nwg.ui.work import UNEXPECTED
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import size
from d2nwg.utils.paths import cache_dir, whole_folder

log = logging.getLogger("d2nwg.ui")
LARGEST, ALL = 256 * 2**20, 2 * 2**30  # bytes of one result, and of all that are kept
GONE = "The result of this link is not kept here, or no longer: it has to be generated anew."
SPLIT = ("support", "labels", "query", "query_labels")  # of `SplitFeatures`
OF_NETWORKS = ("confusion", "query_index", "query", "truth", "shown", "labels")  # of `NetworkGeneration`
NUMBERS = ("confusion", "query_index", "truth")  # of these, as NumPy's arrays
HINT = "Kept with its images or texts, for whoever has the link:"


def controls() -> dict[str, Block]:
    """The components."""
    with gr.Column(visible=False, elem_id="keep") as card:
        go = gr.Button("Keep it under a link", size="sm", elem_id="keep-go")
        said = gr.HTML(elem_id="kept")
    return {"card": card, "go": go, "said": said}


def of(parts: dict[str, Block], result: Result) -> dict:
    """The update for a new result: what was computed beforehand, or comes from names alone, the page's own link shows
    anyway."""
    mine = type(result) in (Result, NetworkResult) and result.images is not None
    return {parts["card"]: gr.update(visible=mine), parts["said"]: ""}


def said(result: Result | None) -> str:
    """Keep a result; the link, or what was wrong, as HTML."""
    if result is None:
        return views.notice(UNEXPECTED)
    try:
        key = keep(result)
    except UserError as reason:
        return views.notice(str(reason))
    except Exception:
        log.exception("Unforeseen")
        return views.notice(UNEXPECTED)
    link = f'<a href="?tab=generate&amp;result={key}" target="_blank">open it again</a>'
    return f'<div class="notice good">{HINT} {link}</div>'


def results_dir() -> Path:
    """Where they lie."""
    return cache_dir() / "results"


def keep(result: Result) -> str:
    """Write a result to the cache; the key that opens it, which nobody can guess. The oldest make room for it.

    Raises:
        UserError: its images are too large, one of them is gone, or the disk is full.
    """
    from safetensors.torch import save_file

    key = secrets.token_urlsafe(16)
    target = results_dir() / key
    try:
        # Texts are words, and an example is here anyway.
        example = _example(result.images.items) if result.noun == "image" else None
        files: list[Path | bytes] = [] if result.noun != "image" or example else list(result.images.items)
        total = sum(item.stat().st_size if isinstance(item, Path) else len(item) for item in files)
        if total > LARGEST:
            raise UserError(
                f"The images take {size(total)}, and {size(LARGEST)} of a result can be kept: take its files away."
            )
        _make_room(total)
        with whole_folder(target) as part:
            part.chmod(0o700)
            if result.kind == "network":
                result.generation.save(part, result.generation.report.data)
            else:
                result.generation.save(part)
            save_file(_tensors(result), part / "more.safetensors")
            (part / "items").mkdir()
            for number, item in enumerate(files):
                _copy(item, part / "items" / _name(number, item))
            (part / "data.json").write_text(json.dumps(_about(result, example)), encoding="utf-8")
    except OSError as reason:
        raise UserError(f"The result could not be kept: {(reason.strerror or str(reason)).lower()}.") from reason
    return key


def open_kept(key: str, into: Path) -> Result:
    """A result that `keep` wrote; the files that the page offers are copied into a folder of the visitor's.

    Raises:
        UserError: there is none of this key.
    """
    folder = results_dir() / key
    if not re.fullmatch(r"[A-Za-z0-9_-]{22}", key) or not (folder / "data.json").is_file():
        raise UserError(GONE)
    import_libraries()
    from d2nwg.figures.generate import confusion_figure

    os.utime(folder)  # what is looked at is not among the oldest
    about = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    network = about.get("kind") == "network"
    generation = (_network_generation if network else _generation)(folder, about)
    names = {key: name for key, name in (NETWORK_FILES if network else FILES).items() if (folder / name).is_file()}
    files = {key: Path(shutil.copy(folder / name, into / name)) for key, name in names.items()}
    kind = NetworkResult if network else Result
    made = kind(_images(folder, about), generation, files, (None, None), draws=about.get("draws", ""))
    made.figures = made.strip(), confusion_figure(generation.confusion, made.head(None).classes)
    return made


def _make_room(wanted: int) -> None:
    """Remove the oldest results until another one of this size fits."""
    kept = [path for path in results_dir().glob("*") if path.is_dir()] if results_dir().is_dir() else []
    sizes = {path: sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) for path in kept}
    for path in sorted(kept, key=lambda path: path.stat().st_mtime):
        if sum(sizes.values()) + wanted <= ALL:
            return
        shutil.rmtree(path, ignore_errors=True)
        del sizes[path]


def _example(items) -> str | None:
    """The example that items are of; None for one's own."""
    first = items[0] if len(items) and isinstance(items[0], Path) else None
    return next((key for key, one in EXAMPLES.items() if first and first.is_relative_to(one.folder())), None)


def _name(number: int, item: Path | bytes) -> str:
    return f"{number:06}{item.suffix[:8].lower() if isinstance(item, Path) else ''}"


def _copy(item: Path | bytes, to: Path) -> None:
    if isinstance(item, Path):
        shutil.copyfile(item, to)
    else:
        to.write_bytes(item)


def _about(result: Result, example: str | None) -> dict:
    """What ``data.json`` holds."""
    images = result.images
    network = result.kind == "network"
    return {
        "kind": result.kind,
        "example": example,
        "name": images.name,
        "classes": list(images.classes),
        "labels": images.labels.tolist(),
        "is_test": images.is_test.tolist(),
        "notes": list(images.notes),
        "texts": None if result.noun == "image" else list(images.items),
        "split_notes": [] if network else list(result.generation.data.notes),
        "baselines": [] if network else list(result.generation.baselines),
        "draws": result.draws or "",
    }


def _images(folder: Path, about: dict):
    """The labelled set that a result was made from."""
    from d2nwg.data.image_set import ImageSet
    from d2nwg.data.text_set import TextSet

    if about["example"]:
        return read_data(example=about["example"])
    known = about["name"], tuple(about["classes"])
    labels, is_test = np.array(about["labels"], np.int64), np.array(about["is_test"], bool)
    if about["texts"] is None:
        return ImageSet(*known, sorted((folder / "items").iterdir()), labels, is_test, tuple(about["notes"]))
    texts = [text if isinstance(text, str) else tuple(text) for text in about["texts"]]
    return TextSet(*known, texts, labels, is_test, tuple(about["notes"]))


def _tensors(result: Result) -> dict:
    """What a `Generation` or `NetworkGeneration` holds beside its head or network, samples and report."""
    import torch

    generation = result.generation
    if result.kind == "network":
        return {name: torch.as_tensor(getattr(generation, name)).contiguous() for name in OF_NETWORKS}
    data = generation.data
    numbers = {"confusion": generation.confusion, "right": generation.sample_accuracy}
    numbers |= {"support_index": data.support_index, "query_index": data.query_index}
    found = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in numbers.items()}
    found |= {name: getattr(data, name).contiguous() for name in SPLIT}
    for baseline, state in generation.baselines.items():
        found |= {f"baselines.{baseline}.{name}": tensor.contiguous() for name, tensor in state.items()}
    return found


def _generation(folder: Path, about: dict):
    """The `Generation`, without its standardised vectors."""
    from safetensors.torch import load_file

    from d2nwg.encoders.split import SplitFeatures
    from d2nwg.evaluation.report import Report
    from d2nwg.generate import Generation
    from d2nwg.heads import Head

    more = load_file(folder / "more.safetensors")
    baselines = {
        baseline: {name: more[f"baselines.{baseline}.{name}"] for name in ("weight", "bias")}
        for baseline in about["baselines"]
    }
    index = {name: more[name].numpy() for name in ("support_index", "query_index")}
    data = SplitFeatures(**{name: more[name] for name in SPLIT}, **index, notes=tuple(about["split_notes"]))
    return Generation(
        Head.load(folder / FILES["head"]),
        load_file(folder / FILES["samples"]),
        Report.from_json(json.loads((folder / FILES["report"]).read_text(encoding="utf-8"))),
        more["confusion"].numpy(),
        more["right"].numpy(),
        data,
        baselines,
    )


def _network_generation(folder: Path, about: dict):
    """The `NetworkGeneration`."""
    from safetensors.torch import load_file

    from d2nwg.evaluation.network_report import NetworkReport
    from d2nwg.network_generation import NetworkGeneration
    from d2nwg.weights.network_files import read_network

    more, samples = load_file(folder / "more.safetensors"), folder / NETWORK_FILES["samples"]
    return NetworkGeneration(
        read_network(folder / NETWORK_FILES["head"]),
        load_file(samples) if samples.is_file() else {},
        NetworkReport.from_json(json.loads((folder / NETWORK_FILES["report"]).read_text(encoding="utf-8"))),
        **{name: more[name].numpy() if name in NUMBERS else more[name] for name in OF_NETWORKS},
    )
