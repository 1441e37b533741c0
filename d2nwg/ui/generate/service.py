"""What the Generate tab does, without gradio: each action is a library call and the files it leaves."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from d2nwg.data.deep import PixelScale
from d2nwg.evaluation.report import Report
from d2nwg.ui.gpu import on_gpu
from d2nwg.ui.html import examples
from d2nwg.ui.libraries import import_libraries
from d2nwg.ui.uploads import named, own_file, read_data
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent

TOP = 5
ALONE = "For a head without images, choose “No images” as the example."


class Result(NamedTuple):
    """What one press of the button has made."""

    images: Any  # the `ImageSet` or `TextSet` it was made from; None for names alone
    generation: Any  # the `Generation`; a `NamedGeneration` for names alone
    files: dict[str, Path]  # head, samples, report
    figures: tuple  # samples, confusion; None for names alone, of which nothing is measured

    def head(self, picked: int | None):
        """A sample, or the chosen head."""
        return self.generation.head if picked is None else self.generation.sample_head(picked)


def read_and_show(progress: Progress = silent, **source) -> tuple[Any, str]:
    """`read_data`, and some of it as HTML."""
    data = read_data(progress=progress, **source)
    return data, examples(data, progress)


@on_gpu
def generate(
    images,
    settings: dict,
    folder: Path,
    free: list[str] | None = None,
    typed: str | None = None,
    progress: Progress = silent,
) -> tuple[Any, dict[str, Path]]:
    """Generate heads and save them below `folder`: the `Generation`, and its files as head, samples and report.

    Args:
        images: the labelled images or texts; None to make heads from class names alone, a `NamedGeneration`.
        settings: see `check_settings`.
        free: uploaded images or texts without labels, or archives of them, which are unpacked below `folder`.
        typed: class names as somebody typed them. Beside images they are new names of all classes, or of some.
    """
    import_libraries()
    from d2nwg.conditions.class_names import split_names
    from d2nwg.data.sources import load_free
    from d2nwg.from_names import generate_from_names
    from d2nwg.generate import generate_heads

    generation: Any
    folder.mkdir(parents=True, exist_ok=True)
    typed = (typed or "").strip()
    if images is None:
        if free or settings["task"]:
            raise UserError(
                f"{'Images without labels need' if free else 'A task needs'} labelled images beside "
                f"{'them' if free else 'it'}: take {'them' if free else 'it'} away, or give some of each class."
            )
        run = {key: settings[key] for key in ("bundle", "num_samples", "seed")}
        generation = generate_from_names(split_names(typed), **run, progress=progress)
    else:
        names = _new_names(images, typed) if typed else ()
        more = [own_file(file) for file in free or ()]
        unlabelled = load_free(more, images, into=folder, progress=progress) if more else ()
        generation = generate_heads(images, unlabelled=unlabelled, names=names, progress=progress, **settings)
    saved = generation.save(folder)
    return generation, {
        "head": saved / "head.safetensors",
        "samples": saved / "samples.safetensors",
        "report": saved / "report.json",
    }


def _new_names(images, typed: str) -> list[str]:
    """Typed names for the classes of images.

    Raises:
        UserError: they do not fit them.
    """
    from d2nwg.conditions.class_names import rename, split_names

    names = split_names(typed)
    try:
        rename(images.classes, names)
    except UserError as reason:
        raise UserError(f"{reason} {ALONE}") from reason
    return names


def make_result(
    images,
    settings: dict,
    folder: Path,
    free: list[str] | None = None,
    typed: str | None = None,
    progress: Progress = silent,
) -> Result:
    """`generate` for a visitor, with what the page shows of it."""
    generation, files = generate(images, settings, folder, free, typed, progress=progress)
    if images is None:
        return Result(None, generation, files, (None, None))
    from d2nwg.figures.generate import confusion_figure

    figures = strip(generation.report), confusion_figure(generation.confusion, generation.head.classes)
    return Result(images, generation, files, figures)


def strip(report: Report, picked: int | None = None):
    """The figure of the samples' accuracies, with one of them ringed."""
    from d2nwg.figures.generate import samples_figure

    return samples_figure(report, picked)


@on_gpu
def look(head, item: Any) -> dict[str, float]:
    """The `TOP` likeliest classes of an image, a text or a pair of texts, and their probabilities.

    Raises:
        UserError: it cannot be read.
    """
    from d2nwg.data.decode import open_image

    probabilities, readable = head.probabilities([item])
    if not readable[0] and head.noun != "image":
        raise UserError("There is nothing to read: write a text." if head.noun == "text" else "Write both texts.")
    if not readable[0]:
        open_image(item)  # says why
        raise UserError("The picture cannot be read; choose another one.")
    best = probabilities[0].argsort(descending=True)[:TOP]
    return {head.classes[i]: float(probabilities[0, i]) for i in best.tolist()}


def predict(
    head: str | None, image: str | None = None, text: str | None = None, second: str | None = None
) -> dict[str, float]:
    """`look` with uploaded files, or with texts for a head of texts: one, or two for a head of pairs.

    Raises:
        UserError: a file is missing, or not what it should be, or the head is for an encoder no bundle here uses.
    """
    from d2nwg.heads import Head

    if not head or not (image or text):
        raise UserError("Give a head file, and a picture or a text.")
    file = own_file(head)
    with named(file):
        loaded = Head.load(file)
    _check_encoder(loaded.encoder)
    given = "image" if image else "pair" if second else "text"
    if given != loaded.noun:
        wanted = {"image": "a picture", "text": "a text", "pair": "two texts"}
        raise UserError(f"This head takes {wanted[loaded.noun]}, not {wanted[given]}.")
    return look(loaded, own_file(image) if image else (text, second) if second else text)


def take_sample(head: str | None, samples: str | None, number: int, folder: Path) -> Path:
    """Sample `number`, from 0, of an uploaded samples.safetensors, as a head file in `folder`. `head` is the file
    of the chosen head, which knows the classes and the encoder.

    Raises:
        UserError: there is no such sample, or the files are not what they should be.
    """
    from safetensors import SafetensorError, safe_open

    from d2nwg.heads import Head

    if not head or not samples:
        raise UserError("Give the head file and the samples file that /generate returned.")
    file, source = own_file(samples), own_file(head)
    with named(source):
        chosen = Head.load(source)
    try:
        with safe_open(file, "pt") as stored:
            slices = {name: stored.get_slice(name) for name in stored.keys()}  # noqa: SIM118 (no mapping)
            count = min((part.get_shape()[0] for part in slices.values()), default=0)
            if number != int(number) or not 0 <= number < count:
                raise UserError(f"There are samples 0 to {count - 1}, not {number}.")
            state = {name: part[int(number)] for name, part in slices.items()}
    except (SafetensorError, IndexError) as reason:
        raise UserError(f"{file.name} is not the samples file that /generate returned.") from reason
    info = {**chosen.info, "selection": f"sample {int(number)}"}
    info.pop("query_accuracy", None)  # that of the chosen head
    taken = Head(state, chosen.encoder, chosen.classes, chosen.preprocessing, info)
    return taken.save(folder / f"head-sample-{int(number)}.safetensors")


def _check_encoder(name: str) -> None:
    """A head names its encoder, and a stranger's must not make the server fetch or open whatever it says."""
    from d2nwg.bundles import bundle_encoder, list_bundles
    from d2nwg.encoders.sentences import PAIRS, TEXTS
    from d2nwg.encoders.texts import DEFAULT_TEXT_ENCODER

    known = {bundle_encoder(path) for path in list_bundles().values()}
    known |= {f"{kind}{DEFAULT_TEXT_ENCODER}" for kind in (TEXTS, PAIRS)}
    if name not in known:
        raise UserError(f"This head is for {name[:100]}; heads for {', '.join(sorted(known))} can be tried here.")


def draw(result: Result) -> tuple[Any, str]:
    """One of the held-out images or texts, another one each time, and its class, as the head calls it."""
    images = result.images
    index = np.random.default_rng().choice(result.generation.data.query_index)
    return images.items[index], result.generation.head.classes[images.labels[index]]


def preview(item: Path | bytes, folder: Path, scale: PixelScale | None = None) -> str | None:
    """A copy of a picture, of a size to look at, as a file in `folder`, on the pixel scale of its data set;
    None if it is unreadable."""
    from d2nwg.data.decode import open_image

    try:
        picture = open_image(item, min_side=512, scale=scale)
    except UserError:
        return None
    scale = min(1024 / max(picture.size), max(1, 192 // max(picture.size)))  # small ones are shown larger
    picture = picture.resize([max(1, round(side * scale)) for side in picture.size])
    picture.save(folder / "picture.webp", quality=90)
    return str(folder / "picture.webp")
