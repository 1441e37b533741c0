"""Loose photographs in the Generate tab: given, sorted by hand, and read as data."""

import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from gradio.data_classes import FileData, ListFiles

from d2nwg.data.images import load_images
from d2nwg.ui import session as sessions
from d2nwg.ui.frame import Frame
from d2nwg.ui.generate import loose, loose_html, sorting, tab
from d2nwg.ui.generate.layout import Choices, Results
from d2nwg.ui.generate.result import ResultView
from d2nwg.ui.generate.settings import DEFAULTS, SORTED
from d2nwg.ui.generate.sorting import LooseState
from d2nwg.ui.generate.state import GenerateState
from d2nwg.ui.parts import Folder
from d2nwg.ui.run import Run
from d2nwg.ui.session import Session, private_root
from d2nwg.utils.errors import UserError
from tests.helpers.images import make_image_folder
from tests.ui.test_run import REQUEST, updates


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The tab, wired."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        patch.setenv("GRADIO_EXAMPLES_CACHE", "")
        private_root.cache_clear()
        with gr.Blocks() as demo:
            frame = Frame(demo, gr.State(None), gr.BrowserState(), gr.Dropdown(["x"], value="x"), gr.Tabs())
            choices, results = Choices(), Results()
            run = Run(frame.session, "generate", choices.go, choices.stop, choices.status)
            view = ResultView(frame, results)
            tab._wire_images(frame, choices, view, run)
            tab._wire_generate(frame, choices, view, run)
        yield SimpleNamespace(demo=demo, choices=choices, parts=choices.loose)
        private_root.cache_clear()


@pytest.fixture
def page(built):
    """The tab with a visit."""
    yield SimpleNamespace(**vars(built), visit=(visit := Session()))
    visit.close()


@pytest.fixture
def pictures(page, tmp_path):
    """Uploads as gradio keeps them: three of each colour, named as cameras do; and one that is damaged."""
    made = sorted(make_image_folder(tmp_path / "source", ("blue", "red"), per_class=3).rglob("*.png"))
    files = [upload(file, f"IMG_{number:04}.png") for number, file in enumerate(made)]
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return [*files, upload(tmp_path / "broken.png", "IMG_0099.png")]


def upload(file: Path, name: str) -> str:
    folder = sessions.new_folder("upload")
    return str(shutil.copy(file, folder / name))


def event(page, name: str, number: int = 0):
    return [fn.fn for fn in page.demo.fns.values() if getattr(fn.fn, "__qualname__", "") == name][number]


def started(page, trigger_of: str, *values) -> dict:
    """Let the event of a component start its work; the update in the end."""
    block = next(part for part in page.demo.blocks.values() if getattr(part, "elem_id", None) == trigger_of)
    fns = page.demo.fns
    [start] = [
        key for key, fn in fns.items() if (block._id, "upload") in fn.targets or (block._id, "click") in fn.targets
    ]
    fns[start].fn(REQUEST, page.visit, *values)
    then = fns[start + 1]
    return updates(then.fn, page.visit, *["x"] * (len(then.inputs) - 1))[-1]


def test_names_without_classes_are_sorted_by_hand(page, pictures):
    end = started(page, "files", pictures)
    state, kept = page.visit.state(LooseState), page.visit.state(GenerateState)
    assert kept.example == SORTED and kept.images is None
    said = end[page.parts["said"]]
    assert "6 pictures added. IMG_0099.png cannot be read and was left out. Their names say no two classes" in said
    assert end[page.choices.own_part]["visible"] is False and end[page.parts["part"]]["visible"] is True
    assert end[page.parts["boxes"]].count("data:image/webp") == 6 and len(state.sorting.of("")) == 6
    assert set(map(Path, pictures)) == set(page.visit.uploads), "gone with the visit"


def test_from_loose_pictures_to_a_data_set(page, pictures):
    started(page, "files", pictures[:-1])
    handle, on_boxes = "wire.<locals>.act.<locals>.handle", event(page, "wire.<locals>.on_boxes")
    refused = event(page, handle)(page.visit, "a/b")
    assert "a/b cannot be the name of a class" in refused[page.parts["said"]] and page.parts["name"] not in refused
    update = event(page, handle)(page.visit, "blue, red")
    assert "Added: blue, red. New pictures go into blue." in update[page.parts["said"]]
    assert update[page.parts["name"]] == ""
    state = page.visit.state(LooseState)
    keys = state.sorting.of("")
    for to, some in (("blue", keys[:3]), ("red", keys[3:])):
        update = on_boxes(page.visit, SimpleNamespace(_data={"act": "move", "pictures": some, "to": to}))
        assert f"3 pictures put into {to}." in update[page.parts["said"]]
    settings = dict(bundle="heads-dual", shots=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorting.service, "make_result", lambda images, *rest, progress: images)
        images = sorting.make_result(state, settings, page.visit.subfolder(), None, "")
        assert sorting.make_result(state, settings, page.visit.subfolder(), None, "") is images, "nothing was changed"
    colours = [item.read_bytes() for item in images.items]
    assert images.classes == ("blue", "red") and colours[:3] == [Path(file).read_bytes() for file in pictures[:3]]
    update = event(page, "wire.<locals>.on_pack")(page.visit)[page.parts["zip"]]
    with zipfile.ZipFile(update["value"]) as archive:
        assert "sorted photographs/red/IMG_0003.png" in archive.namelist() and update["visible"]
    assert event(page, "wire.<locals>.on_pack")(page.visit)[page.parts["zip"]]["value"] == update["value"]
    again = sorting.read_own(LooseState(), [update["value"]], page.visit.subfolder())
    assert again[0] == "own" and again[1].classes == images.classes, "the zip is a data set as any other"


def test_generating_needs_two_classes(page, pictures):
    page.visit.state(GenerateState).example = SORTED
    ask = next(fn for fn in page.demo.fns.values() if (page.choices.go._id, "click") in fn.targets).fn
    rest = ["", None, "x", 1, 4, 0, 50, 100, None, "default"]
    said = ask(REQUEST, page.visit, SORTED, *rest)[page.choices.status]
    assert "There are no pictures to sort yet" in said
    page.visit.state(GenerateState).example = "own"
    said = ask(REQUEST, page.visit, "own", *rest)[page.choices.status]
    assert "Drop your images, or a table of texts, in the box first." in said


def test_a_folder_of_class_folders_is_a_data_set(page, pictures):
    pairs = [(f"pets/{'ab'[number % 2]}/x.png", file) for number, file in enumerate(pictures[:-1])]
    pairs = [(inside.replace("x", str(number)), file) for number, (inside, file) in enumerate(pairs)]
    end = started(page, "folder", pairs)
    kept = page.visit.state(GenerateState)
    assert kept.example == "own" and kept.images.classes == ("a", "b") and kept.images.name == "pets"
    assert end[page.choices.folder] is None and "2 classes · 6 images" in end[page.choices.shown]
    state = page.visit.state(LooseState)
    assert sorting.sort(state, kept.images)[0] == SORTED, "which can be sorted anew"
    assert state.sorting.classes == ["a", "b"] and len(state.sorting.of("a")) == 3
    end = started(page, "folder", [("../../../etc/x.png", pictures[0]), *pairs])
    assert "a path that leads out of it" in end[page.choices.files_said] and kept.images.name == "pets"


def test_a_folder_of_loose_pictures_is_sorted_by_hand(page, pictures):
    end = started(page, "folder", [(f"<b>trip/{Path(file).name}", file) for file in pictures[:4]])
    assert "4 pictures added. &lt;b&gt;trip has no folders of classes in it" in end[page.parts["said"]]


def test_new_pictures_go_into_the_class_that_is_picked(page, pictures):
    state = page.visit.state(LooseState)
    sorting.add_class(state, "cat, dog")
    assert sorting.do(state, {"act": "pick", "to": "dog"}) == "New pictures go into dog."
    others = upload(Path(pictures[-1]), "<b>.png"), upload(Path(__file__), "notes.txt")
    end = started(page, "loose-files", [pictures[0], pictures[0], *others])
    said = end[page.parts["said"]]
    assert "1 picture added to dog. IMG_0000.png is here already, the same file, and not added again." in said
    assert "&lt;b&gt;.png cannot be read" in said and "notes.txt is no image that can be read here." in said
    pairs = [("pets/hen/1.png", pictures[1]), ("pets/2.png", pictures[2])]
    started(page, "loose-folder", pairs)
    assert len(state.sorting.of("hen")) == 1 and len(state.sorting.of("dog")) == 2
    update = event(page, "wire.<locals>.on_camera")(page.visit, pictures[3])
    assert update[page.parts["camera"]] is None and "1 picture added to dog." in update[page.parts["said"]]
    assert [state.sorting.pictures[key].name for key in state.sorting.of("dog")][-1] == "picture 1.png"
    assert event(page, "wire.<locals>.on_camera")(page.visit, None) == gr.skip(), "emptying it is no picture"


def test_classes_by_hand(page):
    state = LooseState()
    for action in (sorting.rename, sorting.remove):
        with pytest.raises(UserError, match="Tap the name of a class first"):
            action(state, "x")
    sorting.add_class(state, "cat, kitten")
    assert sorting.rename(state, "Cats") == "cat is called Cats now."
    assert sorting.rename(state, "kitten") == "Cats is part of kitten now." and state.picked == "kitten"
    assert sorting.remove(state, "") == "kitten is removed." and state.picked == "" and not state.sorting.classes


@pytest.mark.parametrize(
    "data",
    [None, 3, [], {}, {"act": "move", "pictures": [0], "to": "x"}, {"act": "pick", "to": ["cat"]}, {"act": "pick"}],
)
def test_what_the_page_may_not_ask_for(page, data):
    state = LooseState()
    sorting.add_class(state, "cat")
    with pytest.raises(UserError, match="not there any more"):
        sorting.do(state, data)
    assert sorting.do(state, {"act": "drop", "pictures": ["x", None, 5, 1.5]}) == "0 pictures deleted here."
    assert sorting.do(state, {"act": "move", "pictures": "all", "to": "cat"}) == "0 pictures put into cat."


def test_only_uploads_are_looked_at(page, tmp_path):
    outside = tmp_path / "secret.png"
    shutil.copy(next(make_image_folder(tmp_path / "other").rglob("*.png")), outside)
    state = LooseState(waiting=[(str(outside), "secret.png", "")])
    with pytest.raises(UserError, match="no longer here"):
        sorting.add_waiting(state)
    with pytest.raises(UserError, match="no longer here"):
        sorting.read_folder(state, [("a/b/x.png", "/etc/passwd")], tmp_path)
    assert not state.sorting.pictures


def test_a_second_upload_takes_up_what_the_first_left(page, pictures):
    from d2nwg.utils.errors import Cancelled

    def stop_after_two(stage, done, total):
        if done == 2:
            raise Cancelled

    state = LooseState(waiting=[(file, Path(file).name, "") for file in pictures[:5]])
    with pytest.raises(Cancelled):
        sorting.add_waiting(state, stop_after_two)
    assert len(state.sorting.pictures) == 2
    sorting.add_waiting(state)
    assert len(state.sorting.pictures) == 5


def test_paths_in_a_folder_come_beside_the_uploads(page):
    files = [FileData(path="/a/1.png", orig_name="pets/cat/1.png"), FileData(path="/b/2.png")]
    with gr.Blocks():
        folder = Folder(label="A folder", file_count="directory")
    assert folder.preprocess(ListFiles(root=files)) == [("pets/cat/1.png", "/a/1.png"), ("2.png", "/b/2.png")]
    assert folder.preprocess(None) is None


def test_boxes_show_some_and_count_all(page, monkeypatch, pictures):
    monkeypatch.setattr(loose_html, "SHOWN", 2)
    state = LooseState(waiting=[(file, Path(file).name, "cat") for file in pictures[:5]])
    sorting.add_waiting(state)
    said = loose_html.boxes(state.sorting, state.thumbnails, "cat")
    assert (
        said.count('class="tile"') == 2 and "and 3 more" in said and said.count('class="pick" aria-pressed="true"') == 1
    )
    assert loose.update(page.parts, page.visit)[page.parts["said"]] == ""


def test_a_data_set_that_is_not_for_sorting(page, image_folder, monkeypatch):
    images = load_images(image_folder)
    monkeypatch.setattr(sorting, "MOST", 5)
    with pytest.raises(UserError, match="up to 5 images in files"):
        sorting.sort(LooseState(), images)
    assert sorting.sort(LooseState(), None) == (SORTED, None, "")
    assert DEFAULTS["example"] != SORTED
