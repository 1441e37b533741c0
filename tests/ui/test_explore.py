"""The Explore tab's handlers: whole networks, searching, picking and what is taken away."""

import csv
import io
import zipfile
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest

from d2nwg.analysis.populations import MADE, SAMPLE, TRAINED, ZOO
from d2nwg.data.images import load_images
from d2nwg.exploration.explore import explore
from d2nwg.exploration.look import look
from d2nwg.ui import session as sessions
from d2nwg.ui.explore import chosen, html
from d2nwg.ui.explore import service as own
from d2nwg.ui.explore.finding import wire_finding
from d2nwg.ui.explore.layout import Results
from d2nwg.ui.explore.picking import wire_picking, wire_sending
from d2nwg.ui.explore.state import ExploreState
from d2nwg.ui.frame import Frame, Receiver
from d2nwg.ui.generate.state import GenerateState
from d2nwg.utils.errors import UserError
from d2nwg.weights.network_files import read_network
from tests.helpers.small_zoo import pictures

BUNDLE = "networks-28px"
LOOKS = ("origin", "pca", "lasso")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two tasks of two classes, of the shipped bundle of networks."""
    folder = tmp_path_factory.mktemp("explored")
    images, labels = pictures(20, 0, 3)
    np.savez(folder / "mine.npz", x=images.numpy()[:, 0], y=labels.numpy(), class_names=np.array(["ant", "bee", "fly"]))
    numbers = dict(tasks=2, classes=2, num_samples=6, num_trained=2, shots=3, max_query=12)
    found = explore(load_images(folder / "mine.npz"), bundle=BUNDLE, **numbers, device="cpu")
    return own.Explored(found, look(found, perplexity=5), folder)


@pytest.fixture
def page(made, tmp_path, monkeypatch):
    """The tab's results, wired, and a visit that has explored; ``call(name, ...)`` runs a handler."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "files"))
    sessions.private_root.cache_clear()
    with gr.Blocks() as demo:
        frame = Frame(demo, gr.State(), gr.BrowserState(), gr.Dropdown(), gr.Tabs())
        results, there = Results(), gr.HTML()
        for key in ("generate", "interpolate"):
            frame.receivers[key] = Receiver(lambda visit, *given: {there: "shown"}, [there])
        wire_picking(frame, results)
        wire_finding(frame, results)
        wire_sending(frame, results)
    visit = sessions.Session()
    state = visit.state(ExploreState)
    state.made = made

    def call(name, *given):
        (handler,) = {id(f.fn): f.fn for f in demo.fns.values() if getattr(f.fn, "__name__", "") == name}.values()
        return handler(visit, *given)

    yield SimpleNamespace(results=results, visit=visit, state=state, call=call)
    visit.close()
    sessions.private_root.cache_clear()


def test_a_bundle_of_networks_is_explored_and_no_other_is_refused():
    assert own.check(BUNDLE, 1, 5, 8, 4, 5, 0, None, 50)["bundle"] == BUNDLE
    with pytest.raises(UserError, match="There is no bundle nothing here"):
        own.check("nothing", 1, 5, 8, 4, 5, 0, None, 50)
    for asked, there in (("3", {"dimensions": 3}), ("2", {"dimensions": 2}), ("4", {}), ("x", {})):
        assert own.from_link({"dimensions": asked}) == there


def test_a_network_that_is_picked_is_told_shown_and_taken_away(page, made, tmp_path):
    heads, results = made.found.heads, page.results
    for origin, name, sent in (
        (MADE, "generated-network", True),
        (SAMPLE, "sample-0", True),
        (ZOO, "zoo-network-0", False),
        (TRAINED, "trained-network-0", False),
    ):
        point = int(heads.of(origin)[0])
        update = page.call("from_list", point, *LOOKS)
        assert "Nearest zoo networks: distance in distances between zoo neighbours" in update[results.about]
        assert update[results.send]["visible"] is sent and update[results.endpoint]["visible"] is False
        network = read_network(update[results.head])
        assert network.bundle == BUNDLE and update[results.head].endswith(f"network-{name}.safetensors")
        right = network.info["query_accuracy"]
        seen, shown = chosen.seen(made, point)
        assert seen.correct / seen.of == pytest.approx(right, abs=1e-6) and seen.of == 8
        assert len(seen.right) == seen.correct and all(shown[number] for number, *_ in seen.right)
        assert update[results.right].count("<img") == len(seen.right) + len(seen.wrong)
        ring = update[results.plot["map"]].data[-1]
        assert ring.x[0] == made.view.projection.pca[made.view.rows == point][0, 0]


def test_networks_go_to_generate(page, made):
    for origin, picked in ((SAMPLE, 0), (MADE, None)):
        page.call("from_list", int(made.found.heads.of(origin, 1)[0]), *LOOKS)
        page.call("send")
        kept = page.visit.state(GenerateState)
        assert kept.result.generation is made.found.tasks[1].generation and kept.picked == picked
        assert kept.result.kind == "network" and all(path.is_file() for path in kept.result.files.values())
    with pytest.raises(UserError, match="pick one of those"):
        chosen.for_generate(made, int(made.found.heads.of(ZOO)[0]), made.folder)


def test_a_search_fades_lists_and_offers_files(page, made, tmp_path):
    heads, results, kinds = made.found.heads, page.results, [ZOO, SAMPLE, TRAINED, MADE]
    task = next(i for i, task in enumerate(made.found.tasks) if "fly" in task.images.classes)
    other = 1 - task
    common = set(made.found.tasks[0].images.classes) & set(made.found.tasks[1].images.classes)
    word = next(name for name in made.found.tasks[task].images.classes if name not in common)
    update = page.call("find", word.upper(), kinds, *LOOKS)
    points = [trace for trace in update[results.plot["map"]].data if trace.customdata is not None]
    bright = {p for trace in points if trace.marker.opacity > 0.5 for p in trace.customdata}
    assert bright == set(np.flatnonzero(heads.task == task)) == set(page.state.matching)
    assert sum(len(trace.customdata) for trace in points) == len(heads), "the others are faint, and there"
    assert "5 networks found" in update[results.count] and update[results.table]["headers"][0] == "network"
    assert len(update[results.table]["data"]) == 5 and update[results.several]["visible"] is False
    rows = list(csv.DictReader(io.StringIO(Path(update[results.listing]).read_text())))
    assert [int(row["point"]) for row in rows] == sorted(bright) and {row["task"] for row in rows} == {
        made.found.tasks[task].name
    }
    with zipfile.ZipFile(chosen.take(made, page.state.listed, tmp_path / "some.zip")) as archive:
        names = archive.namelist()
        assert len(names) == 6 and len(list(csv.DictReader(io.StringIO(archive.read("networks.csv").decode())))) == 5
    update = page.call("find", word, [TRAINED], *LOOKS)
    assert [row[0] for row in update[results.table]["data"]] == ["trained network 0"]
    update = page.call("find", "wombat", kinds, *LOOKS)
    assert "Nothing on the map matches" in update[results.nothing] and update[results.many]["visible"] is False
    update = page.call("find", " ", kinds, *LOOKS)
    assert page.state.matching is None and update[results.many]["visible"] is False
    assert page.call("find", "", kinds, *LOOKS) == gr.skip(), "a field that was left as it was"
    assert page.call("find", "", [], *LOOKS) == gr.skip(), "no kind stands for all"
    assert chosen.find(made, f"sample {made.found.tasks[other].images.classes[0]}", []) != []


def test_drawing_around_lists_what_is_there(page, made):
    event = SimpleNamespace(_data={"kind": "many", "points": [3, 1, 99_999, "x"]})
    update = page.call("on_map", *LOOKS, event)
    assert "2 networks chosen" in update[page.results.count] and page.state.listed == [1, 3]
    event._data["points"] = []
    assert page.call("on_map", *LOOKS, event)[page.results.many]["visible"] is False


def test_only_the_dimensions_change_without_comparing_again(made, monkeypatch):
    before = own.check_view("weights", "all", 5, 0, False)
    view = own.check_view("weights", "all", 5, 0, False, 3)
    monkeypatch.setattr("d2nwg.exploration.look.look", lambda *_, **__: pytest.fail("compared again"))
    turned = own.again(made, view, made.folder, before)
    assert turned.view.projection.dimensions == 3 and turned.view.tests is made.view.tests
    figure = own.chart(turned, "task", "pca", [0], [0])
    assert {trace.type for trace in figure.data} == {"scatter3d"} and figure.layout.scene.zaxis.title.text


def test_what_is_recognised_is_escaped():
    seen = SimpleNamespace(
        task="<b>t", of=3, correct=1, right=[(0, "<i>a")], wrong=[(1, "<i>a", "<b>c"), (2, "<i>a", "b")]
    )
    said = html.recognised(seen, {0: "data:a", 1: "data:b", 2: None})
    assert "Right on 1 of 3 held-out images of &lt;b&gt;t:" in said and "Wrong on 2 of 3" in said
    assert ", 1 of them" in said and said.count("<img") == 2 and "<i>" not in said
    assert 'alt="&lt;i&gt;a, taken for &lt;b&gt;c"' in said
