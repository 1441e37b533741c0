"""The Generate tab: images or texts in, classifier heads out."""

from functools import partial

import gradio as gr

from d2nwg.jobs.owner import STRANGER, owner_of
from d2nwg.ui import html as views
from d2nwg.ui.events import PRIVATE, bundle_update
from d2nwg.ui.frame import Frame, Receiver
from d2nwg.ui.generate import html, service
from d2nwg.ui.generate.api import add_endpoints
from d2nwg.ui.generate.layout import Choices, Results
from d2nwg.ui.generate.result import ResultView
from d2nwg.ui.generate.settings import DEFAULTS, NAMES, check_settings, from_link, steps_of
from d2nwg.ui.generate.state import GenerateState
from d2nwg.ui.link import keep_in_address
from d2nwg.ui.run import Run
from d2nwg.ui.session import Session
from d2nwg.ui.settings import task_names
from d2nwg.ui.visitor import new_token, visitor
from d2nwg.utils.errors import UserError

KEY, LABEL = "generate", "Generate"


def build_tab(frame: Frame) -> None:
    """Lay out the tab and wire it."""
    with gr.Row(elem_id="generate", elem_classes="tab"):
        with gr.Column(elem_classes="choose", min_width=320):
            choices = Choices()
        with gr.Column(elem_classes="get", min_width=320):
            results = Results()
    view = ResultView(frame, results)
    run = Run(frame.session, KEY, choices.go, choices.stop, choices.status)
    _wire_images(frame, choices, run)
    _wire_generate(frame, choices, view, run)
    frame.receivers[KEY] = Receiver(view.show_picked, results.components)
    add_endpoints()


def _wire_images(frame: Frame, choices: Choices, run: Run) -> None:
    """Opening the page, and choosing images."""
    linked = {
        "bundle": frame.bundle,
        "example": choices.example,
        "shots": choices.shots,
        "samples": choices.samples,
        "seed": choices.seed,
        "names": choices.names,
    }

    def open_page(request: gr.Request, token):
        token = token if owner_of(token) else new_token()
        visit = Session(request.session_hash, visitor(request, token))
        values, visit.state(GenerateState).news = from_link(dict(request.query_params), visit.viewer)
        values["bundle"] = bundle_update(visit.viewer, values.get("bundle"))
        return {frame.session: visit, frame.token: token, **{linked[key]: value for key, value in values.items()}}

    def read_example(visit: Session, example: str):
        if example == "own":
            raise UserError("Drop your images, or a table of texts, in the box below.")
        if example == NAMES:
            return _no_images
        return partial(_read, example, example=example)

    def read_files(visit: Session, files: list[str] | None):
        visit.uploaded(files)
        return partial(_read, "own", files=files, into=visit.subfolder())

    def read_first(visit: Session):
        return partial(_read, DEFAULTS["example"], example=DEFAULTS["example"])

    def show(visit: Session, read) -> dict:
        state = visit.state(GenerateState)
        state.example, state.images, shown = read
        news, state.news = state.news, ""
        return {
            choices.shown: shown,
            choices.example: state.example,
            choices.status: views.notice(news, "note") if news else "",
            **({} if state.example == "own" else {choices.files: None}),
            **{part: gr.update(visible=state.example != NAMES) for part in choices.beside_images},
        }

    def failed(visit: Session, reason: Exception) -> dict:
        return {choices.files: None, choices.example: visit.state(GenerateState).example}

    def kept(visit: Session) -> str:
        return html.kept(images=visit.state(GenerateState).images)

    opened = frame.demo.load(open_page, frame.token, [frame.session, frame.token, *linked.values()], **PRIVATE)
    for trigger, ask, inputs in (
        (opened.then, read_example, [choices.example]),
        (choices.example.input, read_example, [choices.example]),
        (choices.files.upload, read_files, [choices.files]),
        (choices.files.clear, read_first, []),
    ):
        run.on(
            trigger,
            ask,
            inputs,
            show,
            [choices.shown, choices.files, choices.example, *choices.beside_images],
            failed=failed,
            kept=kept,
            slot={},
            takes_over=True,
        )
    frame.bundle.change(_tasks, [frame.session, frame.bundle], choices.task, **PRIVATE)
    choices.sampler.input(steps_of, choices.sampler, choices.steps, queue=False, **PRIVATE)
    keep_in_address(linked)


def _read(key: str, progress, **source) -> tuple:
    """The key of what was read, the labelled set, and some of it."""
    return key, *service.read_and_show(progress=progress, **source)


def _no_images(progress) -> tuple:
    """What `_read` gives where there are none."""
    return NAMES, None, html.no_images()


def _tasks(visit: Session | None, bundle: str | None):
    """The tasks to choose from, where the bundle knows them by name."""
    names = task_names(bundle, visit.viewer if visit else STRANGER)
    return gr.update(choices=names, value=None, visible=bool(names))


def _wire_generate(frame: Frame, choices: Choices, view: ResultView, run: Run) -> None:
    """Generating, and showing what came out."""

    def ask(visit: Session, example: str, typed: str, free: list[str] | None, bundle: str | None, *numbers):
        images = None if example == NAMES else visit.state(GenerateState).images
        if images is None and example != NAMES:
            raise UserError("This page was left alone for long; choose the data again.")
        settings = check_settings(bundle, *numbers, viewer=visit.viewer)
        visit.uploaded(free)
        return partial(service.make_result, images, settings, visit.subfolder(), free, typed)

    def show(visit: Session, result: service.Result) -> dict:
        state = visit.state(GenerateState)
        state.result, state.picked = result, None
        made = result.generation
        seconds = made.seconds if result.images is None else made.report.seconds.total
        return {**view.show(visit), choices.status: views.notice(f"Done in {seconds:.1f} s.", "good")}

    def kept(visit: Session) -> str:
        return html.kept(result=visit.state(GenerateState).result)

    numbers = [choices.shots, choices.samples, choices.seed, choices.steps, choices.most]
    numbers += [choices.task, choices.sampler]
    given = [choices.example, choices.names, choices.free, frame.bundle]
    run.on(choices.go.click, ask, [*given, *numbers], show, view.results.components, kept=kept)
