"""The Generate tab: images or texts in, classifier heads or whole networks out."""

from functools import partial

import gradio as gr

from d2nwg.jobs.owner import STRANGER, owner_of
from d2nwg.ui import html as views
from d2nwg.ui.events import PRIVATE, bundle_update
from d2nwg.ui.frame import Frame, Receiver
from d2nwg.ui.generate import cards, cells, curve, elsewhere, finetune, html, loose, luck, many, service, sorting
from d2nwg.ui.generate.api import add_endpoints
from d2nwg.ui.generate.first import first_result
from d2nwg.ui.generate.kept import open_kept
from d2nwg.ui.generate.layout import Choices, Results
from d2nwg.ui.generate.result import ResultView
from d2nwg.ui.generate.settings import DEFAULTS, NAMES, SORTED, as_at_first, check_settings, from_link, steps_of
from d2nwg.ui.generate.sorting import LooseState
from d2nwg.ui.generate.state import GenerateState
from d2nwg.ui.link import keep_in_address
from d2nwg.ui.parts import DROPPED, RELATIVE
from d2nwg.ui.run import Run
from d2nwg.ui.session import Session
from d2nwg.ui.settings import network_bundles, task_names
from d2nwg.ui.visitor import new_token, visitor
from d2nwg.utils.errors import Cancelled, UserError

KEY, LABEL = "generate", "Generate"
# Scroll to where an answer begins, if it is not all in view: once one is there, after which the address names no kept
# result any more, and once a kept one is opened.
_SCROLL = """() => setTimeout(() => {
    const link = new URL(location.href);
    const answer = %s && document.querySelector("#sentence");
    if (!answer?.offsetParent) return;
    const {top, bottom} = answer.getBoundingClientRect();
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (top < 0 || bottom > innerHeight) answer.scrollIntoView({behavior: still ? "auto" : "smooth"});
    if (%s) link.searchParams.delete("result");
    history.replaceState(history.state, "", link);
}, 200)"""
SCROLL = _SCROLL % ('document.querySelector("#status .good")', "true")
SCROLL_KEPT = _SCROLL % ('link.searchParams.has("result")', "false")


def build_tab(frame: Frame) -> None:
    """Lay out the tab and wire it."""
    started_by = cards.build_cards()
    gr.HTML(html.words())
    with gr.Row(elem_id="generate", elem_classes="tab"):
        with gr.Column(elem_classes="choose", min_width=320):
            choices = Choices()
        with gr.Column(elem_classes="get", min_width=320):
            results = Results()
    view = ResultView(frame, results)
    run = Run(frame.session, KEY, choices.go, choices.stop, choices.status)
    _wire_images(frame, choices, view, run)
    _wire_generate(frame, choices, view, run)
    cards.wire(frame, started_by, choices, view, run, SCROLL)
    luck.wire(frame, view.results.sentence)
    finetune.wire(frame, results.finetune)
    curve.wire(frame, results.curve)
    cells.wire(frame, results.cells)
    many.wire(frame, results.many)
    elsewhere.wire(frame, results.elsewhere)
    frame.receivers[KEY] = Receiver(partial(_receive, choices, view), [*results.components, choices.status])
    add_endpoints()


def _receive(choices: Choices, view: ResultView, visit: Session) -> dict:
    """A result that another tab sends. It is not of what is chosen here, and the line under the choices says so."""
    report = visit.state(GenerateState).result.generation.report
    said = f"The result is Explore's, of {report.data}; what is chosen above had no part in it."
    return {**view.show_picked(visit), choices.status: views.notice(said, "note")}


def _wire_images(frame: Frame, choices: Choices, view: ResultView, run: Run) -> None:
    """Opening the page, and choosing images."""
    results = view.results
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
        state = visit.state(GenerateState)
        values, state.news = from_link(dict(request.query_params), visit.viewer)
        state.asked = str(request.query_params.get("result", ""))
        state.opens_with_first = as_at_first(values) and not state.asked
        values["bundle"] = bundle_update(visit.viewer, values.get("bundle"))
        return {frame.session: visit, frame.token: token, **{linked[key]: value for key, value in values.items()}}

    def read_example(visit: Session, example: str):
        if example == "own" and visit.state(GenerateState).example == SORTED:
            return lambda progress: ("own", None, "")
        if example == "own":
            raise UserError("Drop your images, or a table of texts, in the box below.")
        return partial(service.read_choice, example)

    def read_files(visit: Session, files: list[str] | None):
        visit.uploaded(files)
        return partial(sorting.read_own, visit.state(LooseState), files or [], visit.subfolder())

    def read_folder(visit: Session, files: list[tuple[str, str]] | None):
        visit.uploaded(file for _, file in files or ())
        return partial(sorting.read_folder, visit.state(LooseState), files, visit.subfolder()) if files else None

    def read_to_sort(visit: Session):
        state = visit.state(GenerateState)
        return partial(sorting.sort, visit.state(LooseState), state.images if state.example == "own" else None)

    def read_first(visit: Session):
        return partial(service.read_choice, DEFAULTS["example"])

    def show(visit: Session, read, bundle: str | None) -> dict:
        state = visit.state(GenerateState)
        news, state.news = state.news, ""
        boxes = {}
        if read[0] == SORTED:
            boxes, read = loose.update(choices.loose, visit, read[2]), (SORTED, None, "")
        return {
            **boxes,
            **choices.show_data(state, read, bundle in network_bundles(visit.viewer)),
            choices.status: views.notice(news, "note") if news else "",
        }

    def begun(visit: Session) -> dict:
        return {choices.files_said: ""}

    def failed(visit: Session, reason: Exception, bundle: str | None) -> dict:
        visit.state(LooseState).waiting.clear()
        update = {choices.files: None, choices.folder: None, choices.example: visit.state(GenerateState).example}
        if isinstance(reason, Cancelled):
            return update
        said = views.notice(f"{reason} {kept(visit)}")  # where the files were dropped
        return {**update, choices.files_said: said, choices.status: ""}

    def kept(visit: Session) -> str:
        return html.kept(images=visit.state(GenerateState).images)

    def show_first(visit: Session):
        state = visit.state(GenerateState)
        if state.asked:
            return show_kept(visit, state)
        if not state.opens_with_first or state.result is not None:
            return gr.skip()
        return view.show_new(visit, first_result())

    def show_kept(visit: Session, state: GenerateState) -> dict:
        try:
            result = open_kept(state.asked, visit.subfolder())
        except UserError as reason:
            state.news = str(reason)  # where the data that are chosen are read later
            return {choices.status: views.notice(state.news)}
        state.news = f"A kept result, of {result.generation.report.data}; what is chosen above had no part in it."
        return {**view.show_new(visit, result), choices.status: views.notice(state.news, "note")}

    boxes = [choices.loose[name] for name in ("boxes", "said", "zip")]
    shown = [choices.shown, choices.files, choices.folder, choices.files_said, choices.example]
    shown += [*choices.of_bundle, *boxes]
    loose.wire(frame, choices.loose, run)
    for script in (RELATIVE, DROPPED):
        frame.demo.load(None, js=script, api_visibility="private")
    opened = frame.demo.load(open_page, frame.token, [frame.session, frame.token, *linked.values()], **PRIVATE)
    first = opened.then(show_first, frame.session, [*results.components, choices.status], queue=False, **PRIVATE)
    first.then(None, None, None, js=SCROLL_KEPT, **PRIVATE)
    for trigger, ask, inputs in (
        (opened.then, read_example, [choices.example]),
        (choices.example.input, read_example, [choices.example]),
        (choices.files.upload, read_files, [choices.files]),
        (choices.folder.upload, read_folder, [choices.folder]),
        (choices.sort.click, read_to_sort, []),
        (choices.files.clear, read_first, []),
    ):
        run.on(
            trigger,
            ask,
            inputs,
            show,
            shown,
            looks=[frame.bundle],
            begun=begun,
            failed=failed,
            kept=kept,
            slot={},
            takes_over=True,
        )

    def fit(visit: Session | None, bundle: str | None, example: str) -> dict:
        viewer = visit.viewer if visit else STRANGER
        names, networks = task_names(bundle, viewer), bundle in network_bundles(viewer)
        return {
            choices.task: gr.update(choices=names, value=None, visible=bool(names)),
            **choices.fitting(example, networks),
            **choices.examples(example, networks),
            results.places: html.places("network" if networks else "head"),
        }

    fitted = [choices.task, choices.example, results.places, *choices.of_bundle]
    frame.bundle.change(fit, [frame.session, frame.bundle, choices.example], fitted, **PRIVATE)
    choices.sampler.input(steps_of, choices.sampler, choices.steps, queue=False, **PRIVATE)
    keep_in_address(linked)


def _wire_generate(frame: Frame, choices: Choices, view: ResultView, run: Run) -> None:
    """Generating, and showing what came out."""

    def ask(visit: Session, example: str, typed: str, free: list[str] | None, bundle: str | None, *numbers):
        images = None if example in (NAMES, SORTED) else visit.state(GenerateState).images
        if images is None and visit.state(GenerateState).example == example == "own":
            raise UserError("Drop your images, or a table of texts, in the box first.")
        if images is None and example not in (NAMES, SORTED):
            raise UserError("This page was left alone for long; choose the data again.")
        if example == SORTED:
            visit.state(LooseState).sorting.check()
        settings = check_settings(bundle, *numbers, viewer=visit.viewer)
        if bundle in network_bundles(visit.viewer):
            typed, free = "", None  # of boxes that are hidden
        visit.uploaded(free)
        if example == SORTED:
            return partial(sorting.make_result, visit.state(LooseState), settings, visit.subfolder(), free, typed)
        return partial(service.make_result, images, settings, visit.subfolder(), free, typed)

    def show(visit: Session, result: service.Result) -> dict:
        if (state := visit.state(GenerateState)).example == SORTED:
            state.images = result.images
        return {
            **view.show_new(visit, result),
            choices.status: views.notice(f"Done in {result.seconds:.1f} s.", "good"),
        }

    def kept(visit: Session) -> str:
        return html.kept(result=visit.state(GenerateState).result)

    numbers = [choices.shots, choices.samples, choices.seed, choices.steps, choices.most]
    numbers += [choices.task, choices.sampler]
    given = [choices.example, choices.names, choices.free, frame.bundle]
    ended = run.on(choices.go.click, ask, [*given, *numbers], show, view.results.components, kept=kept)
    ended.then(None, None, None, js=SCROLL, **PRIVATE)
