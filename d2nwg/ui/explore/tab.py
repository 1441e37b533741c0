"""The Explore tab: a bundle's zoo beside generated heads, as a map and in numbers."""

from contextlib import aclosing
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import gradio as gr

from d2nwg.ui import html as views
from d2nwg.ui.explore import html
from d2nwg.ui.explore import service as own
from d2nwg.ui.explore.api import add_endpoints
from d2nwg.ui.explore.picking import wire_picking
from d2nwg.ui.explore.service import CHOICES, DEFAULTS
from d2nwg.ui.generate.settings import SAMPLER_CHOICES, STEPS_INFO
from d2nwg.ui.parts import COMPUTE, PRIVATE, Upload
from d2nwg.ui.session import Session
from d2nwg.ui.settings import example_names
from d2nwg.ui.work import Work, see_through, stop_work
from d2nwg.utils.errors import UserError

KEY, LABEL = "explore", "Explore"
FROM_GENERATE = ("The images chosen in Generate", "generate")
OWN = ("Your own images", "own")
QUESTIONS = {  # as in d2nwg.figures.explore, which is not imported before it is needed
    "map": (
        "Do samples fall where trained weights lie?",
        "A point for each head; similar ones are near each other. Click one to see which it is; draw around many.",
    ),
    "densities": ("Are weight values distributed alike?", "On the bundle's principal components, layer by layer."),
    "novelty": (
        "Do samples copy the zoo?",
        "Copies lie at the left. Baselines: heads made from the zoo without a generator, some at the same distance.",
    ),
    "accuracies": ("How good are zoo, samples and random heads?", "A dot for each head, a line for the median."),
    "similarity": ("Which heads are similar?", "Cosine of the angle between heads, in the order of a clustering."),
}

LINK = """(data, tasks, classes, explored, method, colour) => {
    const link = new URL(location.href), set = {data, tasks, classes, explored, method, colour};
    for (const [key, value] of Object.entries(set))
        value === null || value === "own" || value === "generate" ? link.searchParams.delete(key)
            : link.searchParams.set(key, value);
    history.replaceState(history.state, "", link);
}"""


def build_tab(frame: SimpleNamespace) -> None:
    """Lay out the tab and wire it. `frame` has what all tabs share, and is told what `connect` needs."""
    with gr.Row(elem_id="explore", elem_classes="tab"):
        with gr.Column(elem_classes="choose", min_width=320):
            left = _left()
        with gr.Column(elem_classes="get", min_width=320):
            right = _right()
    frame.explore = SimpleNamespace(left=left, right=right)
    _wire_link(frame, left, right)
    _wire_result(frame, left, right)
    wire_picking(frame, left, right)
    add_endpoints()


def connect(frame: SimpleNamespace) -> None:
    """Show the buttons that send a head to other tabs, where those receive one."""
    from d2nwg.ui.explore.picking import wire_sending

    wire_sending(frame, frame.explore.right)


def _left() -> SimpleNamespace:
    """What a person chooses."""
    number = partial(gr.Number, precision=0, min_width=110)
    with gr.Column(elem_classes="card"):
        gr.HTML(views.title("What is compared", "Heads generated for these images, with the bundle's zoo."))
        data = gr.Dropdown(
            [*example_names(), FROM_GENERATE, OWN], value=DEFAULTS["data"], label="Images", elem_id="explore-data"
        )
        files = Upload(
            label="Your own images",
            file_count="multiple",
            height=84,
            elem_id="explore-files",
            elem_classes="drop",
            visible=False,
        )
        with gr.Row(elem_classes="pair"):
            tasks = number(DEFAULTS["tasks"], label="Tasks", info="1: all classes at once", elem_id="explore-tasks")
            classes = number(
                DEFAULTS["classes"], label="Classes a task", info="drawn at random", elem_id="explore-classes"
            )
        explored = number(
            DEFAULTS["explored"], label="Samples", info="heads to generate in all", elem_id="explore-samples"
        )
        with gr.Accordion("Settings", open=False):
            with gr.Row(elem_classes="pair"):
                shots = number(
                    DEFAULTS["shots"], label="Images a class", info="the generator may see", elem_id="explore-shots"
                )
                trained = number(
                    DEFAULTS["trained"], label="Trained heads", info="on the same images", elem_id="explore-trained"
                )
            with gr.Row(elem_classes="pair"):
                seed = number(DEFAULTS["seed"], label="Seed", info="same seed, same heads", elem_id="explore-seed")
                steps = number(DEFAULTS["steps"], label="Steps", info=STEPS_INFO, elem_id="explore-steps")
            sampler = gr.Radio(
                list(SAMPLER_CHOICES.items()), value=DEFAULTS["sampler"], label="Sampler", elem_id="explore-sampler"
            )
            most = number(DEFAULTS["most"], label="Most images to measure on", elem_id="explore-most")
    with gr.Row(elem_classes="do"):
        go = gr.Button("Explore", variant="primary", elem_id="explore-go")
        stop = gr.Button("Cancel", elem_id="explore-stop", visible=False, min_width=100)
    status = gr.HTML(elem_id="explore-status")
    with gr.Column(elem_classes="card"):
        gr.HTML(views.title("How it is seen", "Changes at once; nothing is generated again."))
        where = gr.Radio(
            list(CHOICES["where"].items()),
            value=DEFAULTS["where"],
            label="Space",
            elem_id="explore-where",
            info="numbers of the heads, or of their codes in the VAE",
        )
        no_latent = gr.HTML(
            views.hint("This bundle's generator has no VAE, so there is no latent space to look at."),
            visible=False,
            elem_id="explore-no-latent",
        )
        part = gr.Dropdown(
            [("whole heads", "all")],
            value="all",
            label="Part",
            elem_id="explore-part",
            info="one layer, or one class's row",
        )
        with gr.Row(elem_classes="pair"):
            perplexity = number(
                DEFAULTS["perplexity"], label="Perplexity", info="of t-SNE", elem_id="explore-perplexity"
            )
            map_seed = number(
                DEFAULTS["map_seed"], label="Seed of the map", info="of t-SNE", elem_id="explore-map-seed"
            )
        all_counts = gr.Checkbox(
            False,
            label="Zoo heads of other class counts too",
            elem_id="explore-all-counts",
            info="padded with zeros: the map then shows mostly how many classes each has",
        )
    return SimpleNamespace(
        data=data,
        files=files,
        tasks=tasks,
        classes=classes,
        explored=explored,
        shots=shots,
        trained=trained,
        seed=seed,
        steps=steps,
        sampler=sampler,
        most=most,
        go=go,
        stop=stop,
        status=status,
        where=where,
        no_latent=no_latent,
        part=part,
        perplexity=perplexity,
        map_seed=map_seed,
        all_counts=all_counts,
    )


def _right() -> SimpleNamespace:
    """What a person gets."""
    parts: dict = {"places": gr.HTML(html.places(), elem_id="explore-places")}
    with gr.Column(visible=False, elem_id="explore-result", elem_classes="results") as made:
        parts["made"] = made
        parts["sentence"] = gr.HTML(elem_id="explore-sentence")
        with gr.Column(elem_classes="card"):
            with gr.Row(elem_classes="pair", elem_id="explore-map-controls"):
                parts["colour"] = gr.Radio(
                    list(CHOICES["colour"].items()), value=DEFAULTS["colour"], label="Colour", elem_id="explore-colour"
                )
                parts["method"] = gr.Radio(
                    list(CHOICES["method"].items()), value=DEFAULTS["method"], label="Map", elem_id="explore-method"
                )
            _figure(parts, "map", inside=False)
            parts["events"] = gr.HTML(js_on_load=PICK, elem_id="explore-events", visible="hidden")
        with gr.Column(elem_classes="card", elem_id="explore-picked"):
            gr.HTML(views.title("Which head is it?"))
            parts["chosen"] = gr.Dropdown([], label="Head", elem_id="explore-head", filterable=True)
            parts["about"] = gr.HTML(html.nothing_picked(), elem_id="explore-about")
            with gr.Row(elem_classes="downloads", visible=False) as offers:
                parts["send"] = gr.Button("Try a picture in Generate", elem_id="explore-send", visible=False)
                parts["end"] = gr.Button("Use as an end", elem_id="explore-end", visible=False)
                parts["head"] = gr.DownloadButton("Download head", elem_id="explore-download-head")
            parts["offers"] = offers
            with gr.Accordion("Evaluate on my images", open=False, visible=False) as judge:
                parts["judged"] = Upload(
                    label="Labelled images with the same class names",
                    file_count="multiple",
                    height=84,
                    elem_id="explore-judge",
                    elem_classes="drop",
                )
                parts["score"] = gr.HTML(
                    views.hint("A zip of class folders named as the head's classes."), elem_id="explore-score"
                )
            parts["judge"] = judge
        with gr.Column(elem_classes="card", visible=False, elem_id="explore-brushed") as many:
            parts["count"] = gr.HTML(elem_id="explore-count")
            parts["table"] = gr.Dataframe(
                headers=["head", "task", "right, %", "distance, lengths"],
                datatype=["str", "str", "number", "number"],
                type="array",
                interactive=False,
                show_label=False,
                max_height=240,
                buttons=[],
                elem_id="explore-table",
            )
            parts["several"] = gr.DownloadButton("Selected heads", elem_id="explore-download-selected")
        parts["many"] = many
        _figure(parts, "novelty")
        with gr.Row(elem_classes="two"):
            _figure(parts, "densities")
            _figure(parts, "accuracies")
        _figure(parts, "similarity")
        with gr.Column(elem_classes="card"):
            gr.HTML(
                views.title(
                    "Take it away",
                    "Figures as pages that need no network, numbers as CSV and JSON, and "
                    "files for the TensorBoard Embedding Projector.",
                )
            )
            with gr.Row(elem_classes="downloads"):
                parts["figures"] = gr.DownloadButton("All figures", elem_id="explore-download-figures")
                parts["tables"] = gr.DownloadButton("Data (CSV)", elem_id="explore-download-data")
                parts["projector"] = gr.DownloadButton("Projector files", elem_id="explore-download-projector")
    return SimpleNamespace(**parts)


def _figure(parts: dict, name: str, inside: bool = True) -> None:
    """A figure under its question, with a button for a picture of it and one for a page."""
    with gr.Column(elem_classes="card" if inside else ""):
        gr.HTML(views.title(*QUESTIONS[name]))
        parts[f"plot_{name}"] = gr.Plot(show_label=False, container=False, elem_id=f"explore-{name}")
        with gr.Row(elem_classes="saves"):
            gr.HTML(html.tools(f"explore-{name}", QUESTIONS[name][0]))
            parts[f"page_{name}"] = gr.DownloadButton("HTML", size="sm", elem_id=f"explore-{name}-html", min_width=60)


# Tells the server which points of the map were clicked, or drawn around. Plotly's handlers stay with its element, which
# gradio may replace.
PICK = """
const hook = () => {
    const plot = document.querySelector('#explore-map .js-plotly-plot');
    if (!plot || !plot.on || plot.dataset.hooked) return;
    plot.dataset.hooked = '1';
    const numbers = event => (event && event.points || []).map(p => p.customdata).filter(n => n !== undefined);
    plot.on('plotly_click', event => trigger('click', {kind: 'one', points: numbers(event).slice(0, 1)}));
    plot.on('plotly_selected', event => event && trigger('click', {kind: 'many', points: numbers(event)}));
    plot.on('plotly_deselect', () => trigger('click', {kind: 'many', points: []}));
};
setInterval(hook, 300);
"""


def _wire_link(frame: SimpleNamespace, left: SimpleNamespace, right: SimpleNamespace) -> None:
    """The address holds the controls, and presets them."""
    controls = {key: getattr(left, key, None) or getattr(right, key) for key in own.LINKED}

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
    left.data.change(lambda data: gr.update(visible=data == "own"), left.data, left.files, queue=False, **PRIVATE)


def _wire_result(frame: SimpleNamespace, left: SimpleNamespace, right: SimpleNamespace) -> None:
    """Exploring, stopping, and looking at it otherwise."""
    session = frame.session
    view_controls = [left.where, left.part, left.perplexity, left.map_seed, left.all_counts]

    def idle(status: str) -> dict:
        return {left.go: gr.update(interactive=True), left.stop: gr.update(visible=False), left.status: status}

    def start(visit: Session | None, bundle, data, files, *numbers):
        visit = visit or Session()
        tab = visit.tab(KEY, made=None)
        if tab.work and tab.work.started:
            return gr.skip()
        try:
            settings, view = own.check(bundle, *numbers[:9]), own.check_view(*numbers[9:])
            source = _source(visit, data, files)
        except UserError as reason:
            return {left.status: views.notice(str(reason))}
        tab.asked = view
        tab.work = Work(partial(own.make, source, settings, view, visit.subfolder()))
        return {
            session: visit,
            left.go: gr.update(interactive=False),
            left.stop: gr.update(visible=True),
            left.status: views.notice("Waiting for a free place …", "note"),
        }

    def start_again(visit: Session | None, *controls):
        tab = visit.tab(KEY, made=None) if visit else None
        if tab is None or tab.made is None or (tab.work and tab.work.started):
            return gr.skip()
        try:
            view = own.check_view(*controls)
        except UserError as reason:
            return {left.status: views.notice(str(reason))}
        if view == tab.asked:  # a field was left as it was
            return gr.skip()
        tab.asked = view
        tab.work = Work(partial(own.again, tab.made, view, visit.subfolder()))
        return {left.go: gr.update(interactive=False), left.stop: gr.update(visible=True)}

    async def run(visit: Session | None, colour: str, method: str):
        tab = visit.tab(KEY, made=None) if visit else None
        if tab is None or (work := tab.work) is None or work.started:
            yield gr.skip()
            return
        had = tab.made

        def done(made) -> dict:
            tab.made = made
            news = (
                "" if had and had.found is made.found else views.notice(f"Done in {made.found.seconds:.1f} s.", "good")
            )
            return {**show(tab, colour, method), **idle(news)}

        kept = "What you had is still here." if had else ""
        async with aclosing(see_through(tab, work, left.status, kept, idle, done)) as updates:
            async for update in updates:
                yield update

    def cancel(visit: Session | None):
        if stop_work(visit and visit.tab(KEY, made=None)):
            return {left.status: views.notice("Stopping …", "note"), left.stop: gr.update(visible=False)}
        return idle(views.notice("Cancelled.", "note"))

    def show(tab: SimpleNamespace, colour: str, method: str) -> dict:
        """The whole result."""
        made = tab.made
        tab.picked = None
        drawn = own.figures(made, colour, method)
        kept = own.files(made, drawn)
        found, view = made.found, made.view
        spaces = [(name, key) for name, key in CHOICES["where"].items() if key in found.spaces]
        parts = [("whole heads" if part == "all" else part, part) for part in found.parts(view.where)]
        return {
            right.places: gr.update(visible=False),
            right.made: gr.update(visible=True),
            right.sentence: html.answer(own.words(made)),
            **{getattr(right, f"plot_{name}"): figure for name, figure in drawn.items()},
            **{getattr(right, f"page_{name}"): str(kept[name]) for name in drawn},
            right.figures: str(kept["figures"]),
            right.tables: str(kept["data"]),
            right.projector: str(kept["projector"]),
            left.where: gr.update(choices=spaces, value=view.where),
            left.no_latent: gr.update(visible="latent" not in found.spaces),
            left.part: gr.update(choices=parts, value=view.part),
            right.chosen: gr.update(choices=own.listed(made), value=None),
            right.about: html.nothing_picked(),
            right.offers: gr.update(visible=False),
            right.judge: gr.update(visible=False),
            right.many: gr.update(visible=False),
        }

    def recolour(visit: Session | None, colour: str, method: str):
        tab = visit.tab(KEY, made=None) if visit else None
        if tab is None or tab.made is None:
            return gr.skip()
        picked = [] if tab.picked is None else [tab.picked]
        chart = own.chart(tab.made, colour, method, picked)
        return {right.plot_map: chart, right.page_map: str(own.page(tab.made, chart, "map"))}

    doing = [left.go, left.stop, left.status]
    shown = [*vars(right).values(), left.where, left.no_latent, left.part, *doing]
    chosen = [
        frame.bundle,
        left.data,
        left.files,
        left.tasks,
        left.classes,
        left.explored,
        left.trained,
        left.shots,
        left.seed,
        left.steps,
        left.most,
        left.sampler,
        *view_controls,
    ]
    asked = left.go.click(start, [session, *chosen], [session, *doing], queue=False, **PRIVATE)
    changed = gr.on(
        [
            left.where.input,
            left.part.input,
            left.perplexity.submit,
            left.perplexity.blur,
            left.map_seed.submit,
            left.map_seed.blur,
            left.all_counts.input,
        ],
        start_again,
        [session, *view_controls],
        doing,
        queue=False,
        **PRIVATE,
    )
    for event in (asked, changed):
        done = event.then(run, [session, right.colour, right.method], shown, **COMPUTE, **PRIVATE)
        done.failure(
            lambda: idle(views.notice("Too many people are waiting; please try again in a minute.")),
            None,
            doing,
            queue=False,
            **PRIVATE,
        )
    left.stop.click(cancel, session, doing, queue=False, **PRIVATE)
    gr.on(
        [right.colour.input, right.method.input],
        recolour,
        [session, right.colour, right.method],
        [right.plot_map, right.page_map],
        queue=False,
        trigger_mode="always_last",
        **PRIVATE,
    )


def _source(visit: Session, data: str, files: list[str] | None) -> dict:
    """Where the images come from. Raises UserError where there are none."""
    if data == "generate":
        if visit.images is None:
            raise UserError("No images are chosen in Generate yet: choose some there, or an example here.")
        return {"images": visit.images}
    if data == "own":
        if not files:
            raise UserError("Drop your images in the box under “Images”, or choose an example.")
        visit.uploads.update(map(Path, files))
        return {"files": files, "into": visit.subfolder()}
    return {"example": data}
