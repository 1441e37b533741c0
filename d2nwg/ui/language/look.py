"""The Language tab's first step: load a model, measure its matrices, and rank them."""

from functools import partial

import gradio as gr

from d2nwg.ui import html as views
from d2nwg.ui.events import MINUTES, PRIVATE
from d2nwg.ui.frame import Frame
from d2nwg.ui.language import html
from d2nwg.ui.language import service as own
from d2nwg.ui.language.layout import LookChoices, LookResults
from d2nwg.ui.language.models import DEFAULT, UPLOAD, check_model, model_choices, model_hint
from d2nwg.ui.language.state import LanguageState
from d2nwg.ui.run import Run
from d2nwg.ui.session import Session
from d2nwg.ui.visitor import visitor
from d2nwg.utils.errors import UserError


def wire_look(frame: Frame, choices: LookChoices, results: LookResults) -> None:
    """Loading, measuring, ranking anew, and picking a matrix."""
    session = frame.session

    def ask(visit: Session, name, file, mode, percent):
        return partial(own.look, check_model(name, file), **own.check_look(mode, percent))

    def show(visit: Session, looked: own.Looked) -> dict:
        visit.state(LanguageState).looked = looked
        return {**_looked(results, looked), choices.hint: views.hint(model_hint())}

    def take(visit: Session | None, file: str | None, request: gr.Request):
        visit = visit or Session(viewer=visitor(request))
        visit.uploaded([file] if file else [])
        return {session: visit, choices.model: gr.update(choices=model_choices(file), value=UPLOAD)}

    def drop():
        return gr.update(choices=model_choices(), value=DEFAULT)

    def kept(visit: Session) -> str:
        return "What you had is still here." if visit.state(LanguageState).looked else ""

    def current(visit: Session | None) -> own.Looked | None:
        return visit.state(LanguageState).looked if visit else None

    def rerank(visit: Session | None, mode, percent):
        looked = current(visit)
        if looked is None:
            return gr.skip()
        state = visit.state(LanguageState)
        # What else the line says stays: this may answer late, after a look that was asked for later.
        said = {choices.status: ""} if state.misranked else {}
        try:
            state.looked = looked = own.again(looked, **own.check_look(mode, percent))
        except UserError as reason:
            state.misranked = True
            return {choices.status: views.notice(str(reason))}
        state.misranked = False
        return {**_looked(results, looked), **said}

    def on_map(visit: Session | None, event: gr.EventData):
        looked = current(visit)
        name = event._data.get("name") if isinstance(event._data, dict) else None
        if looked is None or not isinstance(name, str):
            return gr.skip()
        return {results.chosen: name, **_matrix(results, looked, name)}

    def from_list(visit: Session | None, name: str | None):
        looked = current(visit)
        return gr.skip() if looked is None or not name else _matrix(results, looked, name)

    ranking = [choices.mode, choices.percent]
    Run(session, "language-look", choices.go, choices.stop, choices.status).on(
        choices.go.click,
        ask,
        [choices.model, choices.file, *ranking],
        show,
        [*results.components, choices.hint],
        kept=kept,
        slot=MINUTES,
    )
    gr.on(
        [choices.mode.input, choices.percent.submit, choices.percent.blur],
        rerank,
        [session, *ranking],
        [*results.components, choices.status],
        queue=False,
        trigger_mode="always_last",
        **PRIVATE,
    )
    choices.file.upload(take, [session, choices.file], [session, choices.model], queue=False, **PRIVATE)
    choices.file.clear(drop, None, choices.model, queue=False, **PRIVATE)
    picked = [results.about, results.spectrum]
    results.events.click(on_map, session, [results.chosen, *picked], queue=False, **PRIVATE)
    results.chosen.input(from_list, [session, results.chosen], picked, queue=False, **PRIVATE)


def _looked(results: LookResults, looked: own.Looked) -> dict:
    """The update that shows all matrices, and one of them."""
    first = own.first_pick(looked)
    listed = [(html.matrix_name(row), row.matrix.name) for row in looked.ranked]
    return {
        results.places: gr.update(visible=False),
        results.made: gr.update(visible=True),
        results.sentence: html.looked_words(looked),
        results.layers: own.layers_chart(looked),
        results.chosen: gr.update(choices=listed, value=first),
        **_matrix(results, looked, first),
    }


def _matrix(results: LookResults, looked: own.Looked, name: str) -> dict:
    """The update that shows one matrix."""
    try:
        return {
            results.about: html.matrix_words(own.find(looked, name)),
            results.spectrum: own.spectrum_chart(looked, name),
        }
    except UserError as reason:
        return {results.about: views.notice(str(reason))}
