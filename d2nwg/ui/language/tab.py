"""The Language tab: look at a language model's layers, refine some of them, and talk with both side by side."""

from contextlib import aclosing
from functools import partial
from types import SimpleNamespace

import gradio as gr

from d2nwg.ui import html as views
from d2nwg.ui.explore.html import tools
from d2nwg.ui.language import html
from d2nwg.ui.language import service as own
from d2nwg.ui.language.api import add_endpoints
from d2nwg.ui.language.chat import build_chat, wire_chat
from d2nwg.ui.language.refine import build_refine, wire_refine
from d2nwg.ui.language.service import DEFAULT, DEFAULTS, MODES
from d2nwg.ui.parts import COMPUTE, PRIVATE
from d2nwg.ui.session import Session
from d2nwg.ui.work import Work, see_through, stop_work
from d2nwg.utils.errors import UserError

KEY, LABEL = "language", "Language"
LOOK = "language-look"  # the visit's tab for this step: each step works on its own
MAP = (
    "Which layers carry the most?",
    "Signal against noise, shaded within each type; the chosen are ringed. Click a cell to see its spectrum.",
)
SPECTRUM = (
    "How much of this matrix is noise?",
    "Bars: its singular values. Curve: a random matrix of its size and noise. Beyond ε it counts as signal.",
)

LINK = """(mode, percent) => {
    const link = new URL(location.href);
    for (const [key, value] of Object.entries({mode, percent}))
        value === null ? link.searchParams.delete(key) : link.searchParams.set(key, value);
    history.replaceState(history.state, "", link);
}"""

# Tells the server which cell of the heat map was clicked. Plotly's handlers stay with its element, which gradio may
# replace.
PICK = """
const hook = () => {
    const plot = document.querySelector('#language-layers .js-plotly-plot');
    if (!plot || !plot.on || plot.dataset.hooked) return;
    plot.dataset.hooked = '1';
    plot.on('plotly_click', event => {
        const names = (event && event.points || []).map(p => p.customdata).filter(n => typeof n === 'string' && n);
        if (names.length) trigger('click', {name: names[0]});
    });
};
setInterval(hook, 300);
"""


def build_tab(frame: SimpleNamespace) -> None:
    """Lay out the tab and wire it. `frame` has what all tabs share."""
    with gr.Column(elem_id="language"):
        with gr.Row(elem_classes="tab"):
            with gr.Column(elem_classes="choose", min_width=320):
                left = _left()
            with gr.Column(elem_classes="get", min_width=320):
                right = _right()
        refine = build_refine()
        chat = build_chat()
    frame.language = SimpleNamespace(left=left, right=right, refine=refine, chat=chat)
    _wire_link(frame, left)
    _wire_look(frame, left, right)
    wire_refine(frame)
    wire_chat(frame)
    add_endpoints()


def current(visit: Session | None) -> own.Looked | None:
    """What the visitor has looked at last."""
    return visit.tab(LOOK, looked=None).looked if visit else None


def _left() -> SimpleNamespace:
    """The model, and how its layers are ranked."""
    with gr.Column(elem_classes="card"):
        gr.HTML(views.title("1 · Look", "Which of the model's layers have learnt the most?"))
        model = gr.Dropdown(
            own.model_choices(),
            value=DEFAULT,
            label="Model",
            elem_id="language-model",
            allow_custom_value=not own.on_a_space(),
        )
        hint = gr.HTML(views.hint(own.model_hint()), elem_id="language-model-hint")
        mode = gr.Radio(
            list(MODES.items()),
            value=DEFAULTS["mode"],
            label="Ratio",
            elem_id="language-mode",
            info="signal to noise, as the paper or as Spectrum takes it",
        )
        percent = gr.Number(
            DEFAULTS["percent"], label="Chosen of each type, %", elem_id="language-percent", minimum=1, maximum=100
        )
    with gr.Row(elem_classes="do"):
        go = gr.Button("Look", elem_id="language-look")
        stop = gr.Button("Cancel", elem_id="language-look-stop", visible=False, min_width=100)
    status = gr.HTML(elem_id="language-look-status")
    return SimpleNamespace(model=model, hint=hint, mode=mode, percent=percent, go=go, stop=stop, status=status)


def _right() -> SimpleNamespace:
    """What a look shows."""
    parts: dict = {"places": gr.HTML(html.looking_places(), elem_id="language-places")}
    with gr.Column(visible=False, elem_id="language-looked", elem_classes="results") as made:
        parts["sentence"] = gr.HTML(elem_id="language-sentence")
        with gr.Column(elem_classes="card"):
            gr.HTML(views.title(*MAP))
            parts["layers"] = gr.Plot(show_label=False, container=False, elem_id="language-layers")
            parts["events"] = gr.HTML(js_on_load=PICK, elem_id="language-events", visible="hidden")
            with gr.Row(elem_classes="saves"):
                gr.HTML(tools("language-layers", MAP[0]))
        with gr.Column(elem_classes="card"):
            gr.HTML(views.title(*SPECTRUM))
            parts["chosen"] = gr.Dropdown([], label="Matrix", elem_id="language-matrix", filterable=True)
            parts["about"] = gr.HTML(elem_id="language-about")
            parts["spectrum"] = gr.Plot(show_label=False, container=False, elem_id="language-spectrum")
            with gr.Row(elem_classes="saves"):
                gr.HTML(tools("language-spectrum", SPECTRUM[0]))
    return SimpleNamespace(made=made, **parts)


def _wire_link(frame: SimpleNamespace, left: SimpleNamespace) -> None:
    """The address holds how layers are ranked, and presets it."""
    controls = {"mode": left.mode, "percent": left.percent}

    def preset(request: gr.Request):
        values = own.from_link(dict(request.query_params))
        return {controls[key]: value for key, value in values.items()} or gr.skip()

    frame.demo.load(preset, None, list(controls.values()), **PRIVATE)
    gr.on(
        [control.change for control in controls.values()],
        None,
        list(controls.values()),
        None,
        js=LINK,
        api_visibility="private",
    )
    # Whether the model has to be fetched is looked up when the page opens, not when the app was built.
    frame.demo.load(
        lambda: (gr.update(choices=own.model_choices()), views.hint(own.model_hint())),
        None,
        [left.model, left.hint],
        **PRIVATE,
    )


def _wire_look(frame: SimpleNamespace, left: SimpleNamespace, right: SimpleNamespace) -> None:
    """Loading, measuring, ranking anew, and picking a matrix."""
    session = frame.session

    def idle(status: str) -> dict:
        return {left.go: gr.update(interactive=True), left.stop: gr.update(visible=False), left.status: status}

    def start(visit: Session | None, name, mode, percent):
        visit = visit or Session()
        tab = visit.tab(LOOK, looked=None)
        if tab.work and tab.work.started:
            return gr.skip()
        try:
            asked = own.check_look(mode, percent)
            tab.work = Work(partial(own.look, own.check_model(name), **asked))
        except UserError as reason:
            return {left.status: views.notice(str(reason))}
        return {
            session: visit,
            left.go: gr.update(interactive=False),
            left.stop: gr.update(visible=True),
            left.status: views.notice("Waiting for a free place …", "note"),
        }

    async def run(visit: Session | None):
        tab = visit.tab(LOOK, looked=None) if visit else None
        if tab is None or (work := tab.work) is None or work.started:
            yield gr.skip()
            return

        def done(looked: own.Looked) -> dict:
            tab.looked = looked
            return {**show(looked), **idle(""), left.hint: views.hint(own.model_hint())}

        kept = "What you had is still here." if tab.looked else ""
        async with aclosing(see_through(tab, work, left.status, kept, idle, done)) as updates:
            async for update in updates:
                yield update

    def cancel(visit: Session | None):
        if stop_work(visit and visit.tab(LOOK, looked=None)):
            return {left.status: views.notice("Stopping …", "note"), left.stop: gr.update(visible=False)}
        return idle(views.notice("Cancelled.", "note"))

    def rerank(visit: Session | None, mode, percent):
        looked = current(visit)
        if looked is None:
            return gr.skip()
        try:
            looked = own.again(looked, **own.check_look(mode, percent))
        except UserError as reason:
            return {left.status: views.notice(str(reason))}
        visit.tab(LOOK, looked=None).looked = looked
        return {**show(looked), left.status: ""}

    def show(looked: own.Looked) -> dict:
        first = own.first_pick(looked)
        listed = [(html.matrix_name(row), row.matrix.name) for row in looked.ranked]
        return {
            right.places: gr.update(visible=False),
            right.made: gr.update(visible=True),
            right.sentence: html.looked_words(looked),
            right.layers: own.layers_chart(looked),
            right.chosen: gr.update(choices=listed, value=first),
            **pick(looked, first),
        }

    def pick(looked: own.Looked, name: str) -> dict:
        try:
            return {
                right.about: html.matrix_words(own.find(looked, name)),
                right.spectrum: own.spectrum_chart(looked, name),
            }
        except UserError as reason:
            return {right.about: views.notice(str(reason))}

    def on_map(visit: Session | None, event: gr.EventData):
        looked = current(visit)
        name = event._data.get("name") if isinstance(event._data, dict) else None
        return gr.skip() if looked is None or not isinstance(name, str) else {right.chosen: name, **pick(looked, name)}

    def from_list(visit: Session | None, name: str | None):
        looked = current(visit)
        return gr.skip() if looked is None or not name else pick(looked, name)

    doing = [left.go, left.stop, left.status]
    picked = [right.about, right.spectrum]
    shown = [right.places, right.made, right.sentence, right.layers, right.chosen, *picked]
    ranking = [left.mode, left.percent]
    left.go.click(start, [session, left.model, *ranking], [session, *doing], queue=False, **PRIVATE).then(
        run, session, [*shown, *doing, left.hint], **COMPUTE, **PRIVATE
    ).failure(
        lambda: idle(views.notice("Too many people are waiting; please try again in a minute.")),
        None,
        doing,
        queue=False,
        **PRIVATE,
    )
    left.stop.click(cancel, session, doing, queue=False, **PRIVATE)
    gr.on(
        [left.mode.input, left.percent.submit, left.percent.blur],
        rerank,
        [session, *ranking],
        [*shown, left.status],
        queue=False,
        trigger_mode="always_last",
        **PRIVATE,
    )
    right.events.click(on_map, session, [right.chosen, *picked], queue=False, **PRIVATE)
    right.chosen.input(from_list, [session, right.chosen], picked, queue=False, **PRIVATE)
