"""Texts of files and visitors in HTML: whatever stands in them, they change no element of the page."""

import inspect
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from d2nwg.adapter_scores import FREQUENT, GENERATED, LOOK_UP, WITHOUT, Comparison, Targets
from d2nwg.data.image_set import ImageSet
from d2nwg.data.labelled import labelled_set
from d2nwg.data.sorting import Picture, Sorting
from d2nwg.data.text_set import TextSet
from d2nwg.figures import name_path
from d2nwg.jobs import queue as jobs
from d2nwg.jobs.owner import EVERYTHING
from d2nwg.llm.chat import Answer, ChatSettings
from d2nwg.llm.conversation import Conversation, Turn
from d2nwg.models.adapter_space import KnownTask
from d2nwg.predictions import Predictions
from d2nwg.ui import html as views
from d2nwg.ui import job_html
from d2nwg.ui.describe import html as describe
from d2nwg.ui.describe.service import Looked as Said
from d2nwg.ui.explore import html as explore
from d2nwg.ui.generate import html as generate
from d2nwg.ui.generate import items_html, loose_html, network_html
from d2nwg.ui.interpolate import html as interpolate
from d2nwg.ui.jobs import newest
from d2nwg.ui.language import html as language
from d2nwg.ui.language import refine_html
from d2nwg.ui.language.service import Looked, Talk
from d2nwg.ui.train import html as train
from d2nwg.ui.train import service as training
from d2nwg.ui.train.service import Checkpoints, ImportedZoo
from d2nwg.ui.work import Stage
from tests.helpers.images import make_image_folder
from tests.helpers.reports import (
    make_curve,
    make_name_map,
    make_name_path,
    make_named,
    make_network_report,
    make_report,
    make_tuned,
)

HOSTILE = [
    '<img src=x onerror="alert(1)">',
    '"><script>alert(1)</script>',
    "' onmouseover='alert(1)' x='",
    "</div></li></td></p><a href='javascript:alert(1)'>here</a>",
    "&lt;b&gt;&amp;&quot;",
    "<!-- <style>*{display:none}</style>",
    "${alert(1)}{{alert(1)}}%{x}<br>",
    "<svg/onload=alert(1)>",
]
MODULES = (views, job_html, describe, explore, generate, interpolate, language, refine_html, train, name_path)
MODULES += (network_html, items_html, loose_html)
NO_HTML = {  # words and numbers, which something else escapes
    views: {"percent", "count"},
    job_html: {"base_words"},
    describe: {"how"},
    generate: {"result_sentences", "named_sentences", "kept", "table", "baseline", "picked_by"},
    network_html: {"sentences"},
    loose_html: {"added"},
    language: {"hidden", "matrix_name", "prompts", "telling_words", "voted"},
    name_path: {"nearest_figure", "classes_figure", "save_figures"},
}
NO_NAMES = {  # nothing of files or visitors comes in
    describe: {"places", "no_bundle"},
    explore: {"nothing_picked", "places", "name_places", "task_places", "tools"},
    generate: {"places", "no_images", "words"},
    interpolate: {"places", "name_places", "description_places", "strip_title"},
    language: {"looking_places", "matrix_words", "telling_prompts"},
    refine_html: {"refining_places", "so_far", "reported_title"},
}


class Structure(HTMLParser):
    """The elements of some HTML with the names of their attributes, and the texts."""

    def __init__(self, markup: str):
        super().__init__()
        self.elements: list = []
        self.texts: list[str] = []
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, *(name for name, _ in attrs)))
        self.texts += [value for _, value in attrs if value]

    def handle_endtag(self, tag):
        self.elements.append(f"/{tag}")

    def handle_data(self, data):
        if data.strip():
            self.texts.append(data)

    def handle_comment(self, data):
        self.elements.append("comment")

    handle_decl = handle_pi = unknown_decl = handle_comment


def images(name: str, folder):
    items = sorted(make_image_folder(folder).rglob("*.png"))[:4]
    return labelled_set(ImageSet, name, items, [name, name, "other", "other"], [False] * 4, [name])


def written(name: str) -> TextSet:
    """Texts, and classes, of that name."""
    return labelled_set(TextSet, name, [name, f"{name} b", "c"], [name, name, "other"], [False] * 3, [name])


def talk(name: str) -> Talk:
    said = [Answer(f"{name} one", 3, 1.0, name, name), Answer(f"two {name}", 3, 1.0, "length", None)]
    made = Talk("m", Conversation((name, "refined"), [Turn(name, said, ChatSettings(), vote=1)]))
    made.writing, made.answers, made.pair = name, [Answer(name), Answer(name)], "known"
    return made


def interpolated(name: str):
    """What the fragments need of a path."""
    member = SimpleNamespace(name=name, query=torch.zeros(1, 2), labels=torch.tensor([0]), task=None)
    paths = SimpleNamespace(accuracy=torch.ones(2, 1, 1), outside=None)
    found = SimpleNamespace(
        endpoints=SimpleNamespace(members=[member] * 3, classes=(name, "b"), notes=[name]),
        missing={"x": name},
        bundle=name,
        paths={"weights": paths},
        scored=[name, name],
        alpha=torch.zeros(1),
        settings={"seeds": [0], "shots": 5, "num_samples": 2},
        seconds=1.0,
        sentences=lambda: [name, name],
        mixer=SimpleNamespace(noun="head", probabilities=lambda state, query: torch.tensor([[0.9, 0.1]])),
    )
    return SimpleNamespace(found=found, pictures={0: ([0], ["data:image/webp;base64,"])})


def row():
    matrix = SimpleNamespace(layer=0, type="q", shape=(2, 2), values=[1.0], name="n")
    return SimpleNamespace(matrix=matrix, chosen=True, snr=None, rank=None, threshold=0.5)


def job(kind: str, name: str, state: str) -> None:
    parameters = {"zoos": [], "generator": "dual", "zoo": f"/zoos/{name}", "model": name, "config": {}, "device": None}
    made = jobs.submit(kind, f"a-{state}", parameters)
    spec = json.loads((made.folder / "job.json").read_text())
    (made.folder / "job.json").write_text(json.dumps({**spec, "name": name}))
    made.write(state=state, message=name, stage=name, done=1, total=2)


def zoo(name: str, patch, kind):
    heads = {"records": 3, "probe": name, "min_classes": 2, "max_classes": 3, "num_images": 4, "encoder": name}
    heads["datasets"] = [{"name": name, "classes": 2}]
    architecture = {"checkpoints": 1, "parameters": 2, "first": name, "batchnorm": True}
    networks = {"checkpoints": 1, "architectures": [architecture], "tasks": {name: 1}, "accuracy": {}}
    made = object.__new__(kind)
    patch.setattr(kind, "summary", lambda self: heads if kind.__name__ == "Zoo" else networks)
    patch.setattr(kind, "accuracies", lambda self: torch.ones(2), raising=False)
    patch.setattr("d2nwg.weights.open.open_zoo", lambda path: made)
    patch.setattr(train, "zoo_path", lambda name, viewer: name)


class Samples:
    """Two of them."""

    def __init__(self, distance):
        self.distance = distance

    def __len__(self) -> int:
        return len(self.distance)


def described_task(name: str) -> SimpleNamespace:
    """What a `DescribedAdapter` and a map of tasks have for their pages."""
    known = KnownTask(name, (name,), (name, "b"), "accuracy", False, 0.5, 0.6)
    return SimpleNamespace(
        notes=[f"A task, {name}.", name],
        nearest=[(name, 0.9)],
        near_tasks=[known],
        seen=True,
        adapter=SimpleNamespace(info={"description": name}),
        samples=Samples(torch.ones(2)),
        seconds=1.0,
        effect=2.0,
        look_up_effect=3.0,
        tasks=[known],
        owners=np.zeros(2),
    )


def scored(name: str) -> Comparison:
    scores = {GENERATED: 0.5, LOOK_UP: 0.5, WITHOUT: 0.5, FREQUENT: 0.5}
    targets = Targets([name], np.zeros(1, np.int64), (name,))
    return Comparison("accuracy", scores, dict.fromkeys(scores, (0.4, 0.6)), torch.ones(1, 2), targets, None)


def described_path(name: str) -> SimpleNamespace:
    """What a `DescriptionPath` has for its page."""
    stretch = SimpleNamespace(far=torch.ones(3, 2), owners=[name, name], degrees=torch.ones(2))
    return SimpleNamespace(
        sentences=lambda: [name, name],
        notes=[name],
        ends=[SimpleNamespace(description=name, letter=letter) for letter in "AB"],
        share=torch.tensor([0.0, 1.0]),
        bundle=name,
        seconds=1.0,
        nearest_point=lambda share: 0,
        stretches={"weights": stretch},
        scored=[0],
        scored_as=lambda end, method, number: name,
    )


def predicted(name: str, truth: int) -> Predictions:
    """Of one item of that name, which is taken for a class of that name."""
    return Predictions((name,), (name,), (name, "b"), np.array([[0.9, 0.1]], np.float32), np.array([truth]), (name,))


PICTURE = "data:image/webp;base64,"


def loose(name: str) -> Sorting:
    """A picture of that name in a class of that name, and one that is not sorted."""
    made = Sorting()
    made.classes, made.pictures = (
        [name],
        {key: Picture(Path(), name, label, "") for key, label in enumerate((name, ""))},
    )
    return made


@pytest.fixture
def cases(tmp_path, monkeypatch):
    """``cases(name)``: module and function → its HTML, with this name in every place for a text."""
    monkeypatch.setattr(jobs, "_start", lambda job: None)

    def make(name: str) -> dict:
        from d2nwg.weights.model_zoo import ModelZoo
        from d2nwg.weights.zoo import Zoo

        place = tmp_path / str(len(list(tmp_path.iterdir())))
        monkeypatch.setenv("D2NWG_CACHE", str(place / "cache"))
        for kind in ("train", "refine", "finetunes"):
            for state in ("running", "failed"):
                job(kind, name, state)
        seen, chosen = images(name, place / "images"), "train-a-failed"
        report = make_report(data=name, classes=[name, "b"], notes=[name], selection=name, task=name)
        about = dict(head=name, task=name, origin="zoo", classes=name, accuracy=0.5, neighbours=[(name, 1.0, 0.5)])
        about |= dict(noun="head", unit="lengths of a zoo head")
        recognised = SimpleNamespace(task=name, of=9, correct=5, right=[(0, name)], wrong=[(1, name, name)])
        layer = dict(layer=name, shapes={name: (2, 3)}, numbers=6, chunks=1, padding=0, std=0.1)
        group = dict(checkpoints=1, parameters=6, difference=name, layers=[layer])
        line = dict(
            arm="noise", layer=name, type=name, before=0.5, accepted=True, candidates=[{"score": 1}], best=0, seconds=1
        )
        made = SimpleNamespace(name=name, report={**REFINED, "words": [name, name]})
        described = []
        for kind in (Zoo, ModelZoo):
            with monkeypatch.context() as patch:
                zoo(name, patch, kind)
                described.append(train.describe_zoo("x", EVERYTHING))
        tuned = make_tuned([0.7, 0.8, 0.85, 0.9], [0.1, 0.5, 0.75, 0.8])
        task, path = described_task(name), described_path(name)
        said = talk(name)
        panes = [language.pane(said, side, blind, True) for side in (0, 1) for blind in (True, False)]
        return {
            (views, "title"): [views.title(name, name)],
            (views, "score_table"): [views.score_table(name, [name], [(True, [name, name])])],
            (views, "notice"): [views.notice(name)],
            (views, "hint"): [views.hint(name)],
            (views, "progress"): [views.progress(Stage(name, 1, 2, 3.0))],
            (views, "thumbnails"): [views.thumbnails(seen)],
            (views, "examples"): [views.examples(written(name)), views.examples(seen)],
            (generate, "result"): [generate.result(report), generate.result(replace(report, task=None))],
            (network_html, "result"): [
                network_html.result(make_network_report(data=name, classes=[name, "b"], notes=[name], bundle=name))
            ],
            (items_html, "predictions"): [
                items_html.predictions(name, predicted(name, truth), "image", {0: PICTURE}) for truth in (-1, 0, 1)
            ],
            (items_html, "cell"): [
                items_html.cell("image", name, "b", 1, 2, [("image", PICTURE)]),
                items_html.cell("text", name, name, 1, 2, [("text", name)]),
            ],
            (loose_html, "boxes"): [loose_html.boxes(loose(name), {0: PICTURE}, picked) for picked in ("", name)],
            (generate, "named_result"): [
                generate.named_result(make_named([name, "b"], variance=0.99, nearest=(name, "b")))
            ],
            (generate, "finetuned"): [generate.finetuned(replace(tuned, notes=[name]))],
            (generate, "learning"): [generate.learning(make_curve(notes=[name]))],
            (generate, "seen"): [generate.seen(name, {name: 0.9, "b": 0.1}, name)],
            (generate, "likeliest"): [generate.likeliest({name: 0.9, "b": 0.1})],
            (describe, "answer"): [describe.answer(SimpleNamespace(made=task))],
            (describe, "nearest"): [describe.nearest(task)],
            (describe, "effect"): [describe.effect(task)],
            (describe, "said"): [describe.said(Said({name: 0.9, "b": 0.1}, {name: 0.6, "b": 0.4}))],
            (describe, "scores"): [describe.scores(SimpleNamespace(found=scored(name)), name)],
            (explore, "known_tasks"): [
                explore.known_tasks(SimpleNamespace(found=SimpleNamespace(**{**vars(task), "nearest": [(0, 0.9)]})))
            ],
            (explore, "answer"): [explore.answer([name] * 4)],
            (explore, "point"): [explore.point(about)],
            (explore, "recognised"): [explore.recognised(recognised, {0: "data:,", 1: "data:,"})],
            (explore, "beside"): [explore.beside(SimpleNamespace(found=make_name_map(name)))],
            (explore, "found_names"): [explore.found_names(SimpleNamespace(found=make_name_map(name)))],
            (interpolate, "endpoint_strip"): [interpolate.endpoint_strip(f"task:{name}")],
            (interpolate, "strip"): [interpolate.strip(seen)],
            (interpolate, "looked"): [interpolate.looked(interpolated(name), HEAD)],
            (interpolate, "point"): [interpolate.point(interpolated(name), "weights", 0)],
            (interpolate, "mixed"): [interpolate.mixed(None, SimpleNamespace(info={"data": name}), {name: 0.5})],
            (interpolate, "answer"): [interpolate.answer(interpolated(name))],
            (interpolate, "description_answer"): [interpolate.description_answer(SimpleNamespace(found=path))],
            (interpolate, "description_point"): [
                interpolate.description_point(SimpleNamespace(found=path), "weights", 0)
            ],
            (interpolate, "name_answer"): [interpolate.name_answer(SimpleNamespace(found=make_name_path(name, seen)))],
            (name_path, "strip"): [name_path.strip(make_name_path(name, seen)), name_path.strip(make_name_path(name))],
            (language, "looked_words"): [language.looked_words(Looked(name, name, 5, [], [row()], "paper"))],
            (language, "pane"): panes,
            (language, "votes"): [language.votes(said, False), language.votes(said, True)],
            (refine_html, "zoo_words"): [
                refine_html.zoo_words(name, 0.5, [{"name": name, "epoch": 1, "accuracy": 0.5}], done) for done in (0, 1)
            ],
            (refine_html, "log_table"): [refine_html.log_table([line], "accuracy")],
            (refine_html, "refined_words"): [refine_html.refined_words(made)],
            (train, "checkpoints"): [train.checkpoints(Checkpoints(1, [group], name, [name] * 30))],
            (train, "imported"): [train.imported(ImportedZoo(name, name, name, [name] * 30))],
            (train, "describe_zoo"): described,
            (job_html, "jobs_html"): [
                job_html.jobs_html(newest(EVERYTHING, (kind,)), chosen, name)
                for kind in ("train", "refine", "finetunes", "zoo")
            ],
        }

    return make


HEAD = {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}
REFINED = {
    "accepted": 1,
    "tried": 2,
    "config": {"seed": 0, "candidates": 1},
    "select_questions": 1,
    "report_questions": 1,
}


def test_every_function_that_writes_html_is_tested(cases):
    tested = cases("cat")
    for module in MODULES:
        own = {name for name, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == module.__name__}
        left = {name for name in own if not name.startswith("_")}
        left -= {name for known, name in tested if known is module}
        assert left == NO_HTML.get(module, set()) | NO_NAMES.get(module, set()), module.__name__


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_only_text(cases, name):
    harmless, hostile = cases("cat"), cases(name)
    for (module, function), pieces in hostile.items():
        which = f"{module.__name__}.{function}"
        for plain, piece in zip(harmless[module, function], pieces, strict=True):
            assert Structure(piece).elements == Structure(plain).elements, which
        shown = "".join("".join(Structure(piece).texts) for piece in pieces)
        spaceless = "".join(shown.split())
        if function not in ("votes", "endpoint_strip"):
            assert any("".join(text.split()) in spaceless for text in (name, name.capitalize())), which


def test_a_look_at_archives_escapes_their_names(tmp_path, monkeypatch):
    seen = images(HOSTILE[0], tmp_path / "x")
    monkeypatch.setattr(training, "own_file", lambda file: file)
    monkeypatch.setattr("d2nwg.data.images.load_images", lambda *args, **kwargs: seen)
    assert "<img src=x" not in training.describe_sets(["x"], tmp_path)


def test_tools_and_places_are_constants():
    for piece in (
        explore.tools("a", "b"),
        explore.places(),
        explore.name_places(),
        interpolate.name_places(),
        generate.places(),
        generate.no_images(),
        interpolate.places(),
    ):
        assert "<script" not in piece and "javascript:" not in piece
    assert np.isfinite(len(language.looking_places() + refine_html.refining_places()))
