"""What is done with a visitor's loose photographs: looked at, sorted into classes, read as a data set."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from d2nwg.data.image_set import SUFFIXES, ImageSet
from d2nwg.data.sorting import MOST, STEM, Sorting, check_name, pack_folder
from d2nwg.ui import html as views
from d2nwg.ui.generate import loose_html, service
from d2nwg.ui.generate.made import Result
from d2nwg.ui.generate.settings import SORTED
from d2nwg.ui.uploads import own_file
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import shown


@dataclass
class LooseState:
    """A visitor's loose photographs.

    Attributes:
        picked: the class that new ones go into; empty for none.
        thumbnails: by a picture's number, as data URLs.
        waiting: (upload, its name, the class or empty) of those that are not looked at yet.
        read: the data set that was made of them last, and after how many changes.
        kept: the zip that was made of them last, and after how many changes.
        shots: how many pictures came from the camera or the clipboard.
    """

    sorting: Sorting = field(default_factory=Sorting)
    picked: str = ""
    thumbnails: dict[int, str] = field(default_factory=dict)
    waiting: list[tuple[str, str, str]] = field(default_factory=list)
    read: tuple[int, ImageSet] | None = None
    kept: tuple[int, Path] | None = None
    shots: int = 0


def do(state: LooseState, data: object) -> str:
    """What the boxes ask for: to pick a class, or to move or to drop pictures; a sentence on it.

    Raises:
        UserError: there is no such class.
    """
    data = data if isinstance(data, dict) else {}
    keys = data.get("pictures")
    pictures = [key for key in keys if isinstance(key, int)] if isinstance(keys, list) else []
    to, sorting = data.get("to"), state.sorting
    if data.get("act") == "drop":
        for key in pictures:
            state.thumbnails.pop(key, None)
        return f"{views.count(sorting.drop(pictures), 'picture')} deleted here."
    if not isinstance(to, str) or (to and to not in sorting.classes):
        raise UserError("That class is not there any more.")
    if data.get("act") == "move":
        moved = views.count(sorting.move(pictures, to), "picture")
        return f"{moved} put into {shown(to)}." if to else f"{moved} not sorted any more."
    state.picked = to
    return f"New pictures go into {shown(to)}." if to else "New pictures are not sorted yet."


def add_class(state: LooseState, typed: str) -> str:
    """Add classes; the first one then gets new pictures."""
    names = state.sorting.add_classes(typed or "")
    state.picked = names[0]
    return f"Added: {', '.join(map(shown, names))}. New pictures go into {shown(names[0])}."


def rename(state: LooseState, typed: str) -> str:
    """Rename the class that is picked, or make it part of another one."""
    if not state.picked:
        raise UserError("Tap the name of a class first, then type its new one.")
    old, there = state.picked, list(state.sorting.classes)
    state.picked = state.sorting.rename(old, typed or "")
    if state.picked in there and state.picked != old:
        return f"{shown(old)} is part of {shown(state.picked)} now."
    return f"{shown(old)} is called {shown(state.picked)} now."


def remove(state: LooseState, typed: str) -> str:
    """Remove the class that is picked."""
    if not state.picked:
        raise UserError("Tap the name of a class first.")
    old, state.picked = state.picked, ""
    left = state.sorting.remove_class(old)
    return f"{shown(old)} is removed" + (f"; {views.count(left, 'picture')} not sorted any more." if left else ".")


def add_shot(state: LooseState, file: str) -> str:
    """Add a picture of the camera or the clipboard."""
    state.shots += 1
    state.waiting.append((file, f"picture {state.shots}{Path(file).suffix}", state.picked))
    return add_waiting(state)


def add_waiting(state: LooseState, progress: Progress = silent) -> str:
    """Look at what waits, and add what is a picture; what became of it in sentences. Stopped half-way, it loses none:
    the next call goes on.

    Raises:
        UserError: there are too many.
    """
    from d2nwg.figures.thumbnails import thumbnail

    new, into = 0, set[str]()
    there: list[str] = []
    broken: list[str] = []
    others: list[str] = []
    of = len(state.waiting)
    while state.waiting:
        progress("Looking at the pictures", of - len(state.waiting), of)
        try:
            upload, name, label = state.waiting.pop(0)
        except IndexError:  # another one has just taken the last
            break
        file = own_file(upload)
        if file.suffix.lower() not in SUFFIXES:
            others.append(name)
        elif not (picture := thumbnail(file)):
            broken.append(name)
        elif (key := state.sorting.add(file, label, name)) is None:
            there.append(name)
        else:
            state.thumbnails[key] = picture
            new += 1
            into.add(label)
    only = into.pop() if len(into) == 1 else ""
    return loose_html.added(new, only, there, broken, others)


def load(state: LooseState, folder: Path, progress: Progress = silent) -> ImageSet:
    """The sorted pictures as a data set below a folder; the same one again where nothing was changed.

    Raises:
        UserError: see `Sorting.load`.
    """
    if state.read is None or state.read[0] != state.sorting.changes:
        changes = state.sorting.changes
        state.read = changes, state.sorting.load(folder, progress)
    return state.read[1]


def keep(state: LooseState, folder: Path) -> Path:
    """The sorted pictures as a zip in a folder; the same one again where nothing was changed, else in its place.

    Raises:
        UserError: see `Sorting.pack`.
    """
    changes = state.sorting.changes
    if state.kept is None or state.kept[0] != changes:
        made = state.sorting.pack(folder / f"{STEM}.zip")
        if state.kept:
            state.kept[1].unlink(missing_ok=True)
        state.kept = changes, made
    return state.kept[1]


def make_result(
    state: LooseState, settings: dict, folder: Path, free: list[str] | None, typed: str, progress: Progress = silent
) -> Result:
    """`d2nwg.ui.generate.service.make_result` of the sorted pictures."""
    images = load(state, folder, progress)
    return service.make_result(images, settings, folder, free, typed, progress=progress)


# What is chosen, as `d2nwg.ui.generate.service.read_choice` returns it; in the place of the HTML a sentence where
# pictures are to be sorted.


def read_own(state: LooseState, files: list[str], into: Path, progress: Progress = silent) -> tuple[str, Any, str]:
    """Uploaded files. Pictures whose names say no classes are to be sorted.

    Raises:
        UserError: see `d2nwg.ui.uploads.read_data`.
    """
    try:
        return service.read_choice("own", progress, files=files, into=into)
    except UserError:
        if not files or not all(Path(file).suffix.lower() in SUFFIXES for file in files):
            raise
    state.waiting += [(file, Path(file).name, "") for file in files]
    return SORTED, None, f"{add_waiting(state, progress)} Their names say no two classes: sort them here."


def read_folder(
    state: LooseState, files: list[tuple[str, str]], into: Path, progress: Progress = silent
) -> tuple[str, Any, str]:
    """The files of a folder, given as pairs of a path in it and an upload. Pictures in no class folders are to be
    sorted; anything else is read as a zip of the folder is.

    Raises:
        UserError: see `d2nwg.ui.uploads.read_data`.
    """
    paths, top = [(inside, own_file(file)) for inside, file in files], files[0][0].split("/")[0]
    if all(inside.count("/") < 2 and path.suffix.lower() in SUFFIXES for inside, path in paths):
        state.waiting += [(file, Path(file).name, "") for _, file in files]
        said = f"{add_waiting(state, progress)} {shown(top)} has no folders of classes in it: sort them here."
        return SORTED, None, said
    try:
        name = check_name(top)
    except UserError:
        name = "folder"
    archive = pack_folder(paths, into / f"{name}.zip", progress)
    try:
        return service.read_choice("own", progress, files=[str(archive)], into=into)
    except UserError as reason:
        raise UserError(str(reason).replace(archive.name, name)) from reason
    finally:
        archive.unlink()


def sort(state: LooseState, images: Any, progress: Progress = silent) -> tuple[str, Any, str]:
    """The boxes, with the images of a data set in those of their classes, if there is one.

    Raises:
        UserError: it is none that can be sorted by hand.
    """
    if not isinstance(images, ImageSet) or images is (state.read or (0, None))[1]:
        return SORTED, None, ""
    if images.is_test.any() or len(images) > MOST or not all(isinstance(item, Path) for item in images.items):
        raise UserError(
            f"{images.name} cannot be sorted by hand: that is for up to {MOST:,} images in files, without a test split."
        )
    for item, label in zip(images.items, images.labels, strict=True):
        state.waiting.append((str(item), Path(str(item)).name, images.classes[label]))
    return SORTED, None, add_waiting(state, progress)
