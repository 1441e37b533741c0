"""What the Generate tab does, without gradio: each action is a library call and the files it leaves."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from d2nwg.bundles import makes_for_data
from d2nwg.data.deep import PixelScale
from d2nwg.ui.generate import html, networks
from d2nwg.ui.generate.made import FILES, Result
from d2nwg.ui.generate.settings import NAMES, SORTED
from d2nwg.ui.gpu import on_gpu
from d2nwg.ui.html import examples
from d2nwg.ui.libraries import import_libraries
from d2nwg.ui.uploads import named, own_file, read_data
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent

TOP = 5
ALONE = "For a head without images, choose “No images” as the example."


def read_choice(key: str, progress: Progress = silent, **source) -> tuple[str, Any, str]:
    """What a person chose: its key, the labelled set, and some of it as HTML.

    Args:
        key: of an example; `NAMES` for none at all, or `SORTED` for some that are still sorted, of which the set is
            None; or ``"own"``.
        source: for one's own, what `read_data` takes.
    """
    if key == NAMES:
        return key, None, html.no_images()
    if key == SORTED:
        return key, None, ""
    data = read_data(progress=progress, **(source or {"example": key}))
    return key, data, examples(data, progress)


@on_gpu
def generate(
    images,
    settings: dict,
    folder: Path,
    free: list[str] | None = None,
    typed: str | None = None,
    progress: Progress = silent,
) -> tuple[Any, dict[str, Path]]:
    """Generate heads, or networks where the bundle makes those, and save them below `folder`: the `Generation` (or the
    `NetworkGeneration`), and its files as head, samples and report.

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
    if makes_for_data(settings["bundle"]):
        return networks.generate(images, settings, folder, free, typed, progress)
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
    return generation, {key: saved / name for key, name in FILES.items()}


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

    kind = networks.NetworkResult if makes_for_data(settings["bundle"]) else Result
    made = kind(images, generation, files, (None, None))
    made.figures = made.strip(), confusion_figure(generation.confusion, made.head(None).classes)
    return made


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
    if not head or not (image or text):
        raise UserError("Give a head file, and a picture or a text.")
    loaded = open_made(head)
    given = "image" if image else "pair" if second else "text"
    if given != loaded.noun:
        wanted = {"image": "a picture", "text": "a text", "pair": "two texts"}
        raise UserError(f"This {loaded.kind} takes {wanted[loaded.noun]}, not {wanted[given]}.")
    return look(loaded, own_file(image) if image else (text, second) if second else text)


def take_sample(head: str | None, samples: str | None, number: int, folder: Path) -> Path:
    """Sample `number`, from 0, of an uploaded samples.safetensors, as a head or network file in `folder`.
    `head` is the file of the chosen one, which knows the rest.

    Raises:
        UserError: there is no such sample, or the files are not what they should be.
    """
    from safetensors import SafetensorError, safe_open

    if not head or not samples:
        raise UserError("Give the head file and the samples file that /generate returned.")
    file, chosen = own_file(samples), open_made(head)
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
    return replace(chosen, state=state, info=info).save(folder / f"{chosen.kind}-sample-{int(number)}.safetensors")


def open_made(file: str):
    """An uploaded file of /generate: a `NetworkFile`, or a `Head` for an encoder that a bundle here uses.

    Raises:
        UserError: it is neither.
    """
    from d2nwg.heads import Head
    from d2nwg.weights.network_files import read_network

    source = own_file(file)
    with named(source):
        if network := read_network(source):
            return network
        head = Head.load(source)
    check_encoder(head.encoder)
    return head


def check_encoder(name: str) -> None:
    """A head names its encoder, and a stranger's must not make the server fetch or open whatever it says."""
    from d2nwg.bundles import bundle_encoder, list_bundles
    from d2nwg.encoders.sentences import PAIRS, TEXTS
    from d2nwg.encoders.texts import DEFAULT_TEXT_ENCODER

    known = {bundle_encoder(path) for path in list_bundles().values()}
    known |= {f"{kind}{DEFAULT_TEXT_ENCODER}" for kind in (TEXTS, PAIRS)}
    if name not in known:
        raise UserError(f"This head is for {name[:100]}; heads for {', '.join(sorted(known))} can be tried here.")


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
