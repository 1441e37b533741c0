"""The Describe tab: a task in words, an adapter of a text encoder out."""

from functools import partial

import gradio as gr

from d2nwg.ui import html as views
from d2nwg.ui.describe import html, service
from d2nwg.ui.describe.api import add_endpoints
from d2nwg.ui.describe.layout import Choices, Results
from d2nwg.ui.describe.settings import check, from_link, known_tasks
from d2nwg.ui.describe.state import DescribeState
from d2nwg.ui.events import COMPUTE, PRIVATE
from d2nwg.ui.frame import Frame
from d2nwg.ui.link import keep_in_address
from d2nwg.ui.run import Run
from d2nwg.ui.session import Session
from d2nwg.ui.settings import adapter_bundles
from d2nwg.ui.visitor import visitor
from d2nwg.utils.errors import UserError

KEY, LABEL = "describe", "Describe"
GONE = "This page was left alone for long: generate the adapter again."

SNIPPET = """from d2nwg.adapters import Adapter, predict_texts

adapter = Adapter.load("adapter")  # the folder in the zip
for row in predict_texts(adapter, [{item}]):
    print(row)

# With peft and sentence-transformers alone: see the README.md in the folder."""


def build_tab(frame: Frame) -> None:
    """Lay out the tab and wire it."""
    with gr.Row(elem_id="describe", elem_classes="tab"):
        with gr.Column(elem_classes="choose", min_width=320):
            left = Choices()
        with gr.Column(elem_classes="get", min_width=320):
            results = Results()
    _wire_choices(frame, left)
    _wire_generate(frame, left, results)
    _wire_use(frame, results)
    add_endpoints()


def _wire_choices(frame: Frame, left: Choices) -> None:
    """The bundles and their tasks, a task that is picked, and the address."""
    linked = {"describe": left.description, "labels": left.labels}

    def open_page(request: gr.Request, token) -> dict:
        viewer = visitor(request, token)
        names, values = adapter_bundles(viewer), from_link(dict(request.query_params))
        update = {linked[key]: value for key, value in values.items()}
        if "describe" in values:
            update[left.known] = None
        first = names[0] if names else None
        return {
            **update,
            left.bundle: gr.update(choices=names, value=first, visible=len(names) > 1),
            left.missing: gr.update(visible=not names),
        }

    def offer(request: gr.Request, token, bundle: str | None):
        tasks = list(known_tasks(bundle, visitor(request, token)))
        return gr.update(choices=tasks, visible=bool(tasks))

    def pick(request: gr.Request, token, bundle: str | None, task: str | None) -> dict:
        words = known_tasks(bundle, visitor(request, token)).get(task or "")
        return {left.description: words, left.labels: ""} if words else gr.skip()

    frame.demo.load(open_page, frame.token, [*linked.values(), left.known, left.bundle, left.missing], **PRIVATE)
    left.bundle.change(offer, [frame.token, left.bundle], left.known, **PRIVATE)
    left.known.input(pick, [frame.token, left.bundle, left.known], [left.description, left.labels], **PRIVATE)
    left.description.input(lambda: None, None, left.known, queue=False, **PRIVATE)  # words of one's own
    keep_in_address(linked, shown_in="#describe")


def _wire_generate(frame: Frame, left: Choices, results: Results) -> None:
    """Generating, and showing what came out."""
    run = Run(frame.session, KEY, left.go, left.stop, left.status)

    def ask(visit: Session, description: str, labels: str, *settings):
        checked = check(*settings, viewer=visit.viewer)
        return partial(service.describe, description, labels, checked, visit.subfolder())

    def show(visit: Session, result: service.Result) -> dict:
        state, made = visit.state(DescribeState), result.made
        state.result, state.scored = result, None
        adapter = made.adapter
        return {
            results.places: gr.update(visible=False),
            results.made: gr.update(visible=True),
            results.sentence: html.answer(result),
            results.near: html.nearest(made),
            results.effect: html.effect(made),
            results.second: gr.update(visible=adapter.pairs),
            results.said: views.hint(
                "The likeliest labels will stand here." if adapter.classes else "The value will stand here."
            ),
            results.table: None,
            **_no_scores(results),
            results.adapter: str(result.files["adapter"]),
            results.report: str(result.files["report"]),
            results.snippet: SNIPPET.format(item='("One text.", "The other.")' if adapter.pairs else '"A text."'),
            left.status: views.notice(f"Done in {made.seconds:.1f} s.", "good"),
        }

    def kept(visit: Session) -> str:
        return "The adapter you had is still here." if visit.state(DescribeState).result else ""

    numbers = [left.bundle, left.samples, left.seed, left.steps, left.guidance]
    given = [left.description, left.labels, *numbers]
    run.on(left.go.click, ask, given, show, results.components, kept=kept)


def _no_scores(results: Results) -> dict:
    return {
        results.scores: "",
        results.score_status: "",
        results.confusion: gr.update(value=None, visible=False),
        results.predictions: gr.update(visible=False),
    }


def _wire_use(frame: Frame, results: Results) -> None:
    """Trying the adapter on a text, and scoring it on a table."""

    def try_text(visit: Session | None, text: str, second: str):
        if visit is None or (result := visit.state(DescribeState).result) is None:
            return views.notice(GONE)
        try:
            return html.said(service.look(result.made, text, second))
        except UserError as reason:
            return views.notice(str(reason))

    texts = [frame.session, results.text, results.second]
    gr.on(
        [results.try_text.click, results.text.submit, results.second.submit],
        try_text,
        texts,
        results.said,
        **COMPUTE,
        **PRIVATE,
    )
    run = Run(frame.session, f"{KEY}-score", results.score, results.stop_score, results.score_status)

    def ask(visit: Session, files: str | None):
        if (result := visit.state(DescribeState).result) is None:
            raise UserError(GONE)
        visit.uploaded([files] if files else None)
        return partial(service.score, result.made, [files] if files else None, visit.subfolder())

    def show(visit: Session, scored: service.Scored) -> dict:
        state = visit.state(DescribeState)
        if state.result is None:
            return _no_scores(results)
        state.scored, made = scored, state.result.made
        figure = service.confusion(scored, made.adapter)
        return {
            results.scores: html.scores(scored, made.nearest[0][0]),
            results.confusion: gr.update(value=figure, visible=figure is not None),
            results.predictions: gr.update(value=str(scored.file), visible=True),
        }

    def kept(visit: Session) -> str:
        return "The scores you had are still here." if visit.state(DescribeState).scored else ""

    shown = [results.scores, results.confusion, results.predictions]
    run.on(results.score.click, ask, [results.table], show, shown, kept=kept)
