"""The Explore tab: a bundle's zoo beside what it generates, as a map and in numbers."""

from functools import partial

import gradio as gr

from d2nwg.ui import html as views
from d2nwg.ui.events import MINUTES, PRIVATE
from d2nwg.ui.explore import by_name as naming
from d2nwg.ui.explore import by_task as tasking
from d2nwg.ui.explore import html
from d2nwg.ui.explore import service as own
from d2nwg.ui.explore.api import add_endpoints
from d2nwg.ui.explore.finding import drawn, wire_finding
from d2nwg.ui.explore.layout import KINDS, Choices, Results
from d2nwg.ui.explore.layout_by import NameResults, TaskResults
from d2nwg.ui.explore.names import show_names, wire_names
from d2nwg.ui.explore.picking import wire_picking, wire_sending
from d2nwg.ui.explore.service import CHOICES, Explored
from d2nwg.ui.explore.state import ExploreState
from d2nwg.ui.explore.tasks import show_tasks, wire_tasks
from d2nwg.ui.frame import Frame
from d2nwg.ui.generate.settings import steps_of
from d2nwg.ui.generate.state import GenerateState
from d2nwg.ui.link import keep_in_address
from d2nwg.ui.run import Run
from d2nwg.ui.session import Session
from d2nwg.ui.settings import check_bundle
from d2nwg.ui.views import View, wire_views
from d2nwg.utils.errors import UserError

KEY, LABEL = "explore", "Explore"


def build_tab(frame: Frame) -> None:
    """Lay out the tab and wire it."""
    with gr.Row(elem_id="explore", elem_classes="tab"):
        with gr.Column(elem_classes="choose", min_width=320):
            choices = Choices()
        with gr.Column(elem_classes="get", min_width=320):
            results, by_name, by_task = Results(), NameResults(), TaskResults()
    _wire_link(frame, choices, results)
    _wire_run(frame, choices, results, by_name, by_task)
    _wire_colours(frame, results)
    wire_picking(frame, results)
    wire_finding(frame, results)
    wire_names(frame, choices, by_name)
    wire_tasks(frame, choices, by_task)
    views_of = {
        "heads": View(choices.of_heads, results.places, results.made, "made"),
        "names": View([choices.of_names], by_name.places, by_name.made, "mapped"),
        "tasks": View([choices.of_tasks], by_task.places, by_task.made, "tasks"),
    }
    wire_views(frame, choices.by, views_of, choices.status, ExploreState)
    frame.when_built.append(partial(wire_sending, frame, results))
    add_endpoints()


def _wire_link(frame: Frame, choices: Choices, results: Results) -> None:
    """The address holds the controls, and presets them."""
    controls = {key: getattr(choices, key, None) or getattr(results, key) for key in own.LINKED}

    def preset(request: gr.Request):
        values = own.from_link(dict(request.query_params))
        return {controls[key]: value for key, value in values.items()} or gr.skip()

    frame.demo.load(preset, None, list(controls.values()), **PRIVATE)
    keep_in_address(controls)
    choices.sampler.input(steps_of, choices.sampler, choices.steps, queue=False, **PRIVATE)
    choices.data.change(
        lambda data: gr.update(visible=data == "own"), choices.data, choices.files, queue=False, **PRIVATE
    )


def _wire_run(frame: Frame, choices: Choices, results: Results, by_name: NameResults, by_task: TaskResults) -> None:
    """Exploring heads, names or tasks, and looking at the heads that were explored otherwise."""
    run = Run(frame.session, KEY, choices.go, choices.stop, choices.status)

    of_task = [choices.described, choices.task_bundle, choices.task_samples, choices.task_seed]

    def ask(visit: Session, bundle: str | None, by: str, named: str, search: str, data: str, files, *numbers):
        if by == "tasks":
            described, *task_settings = numbers[-len(of_task) :]
            settings = tasking.check(*task_settings, viewer=visit.viewer)
            return partial(tasking.make, described, settings, visit.subfolder())
        numbers = numbers[: -len(of_task)]
        if by == "names":
            return partial(naming.make, check_bundle(bundle, visit.viewer), named, search, visit.subfolder())
        settings, view = own.check(bundle, *numbers[:9], viewer=visit.viewer), own.check_view(*numbers[9:])
        source = _source(visit, data, files)
        visit.state(ExploreState).asked = view
        return partial(own.make, source, settings, view, visit.subfolder())

    def ask_view(visit: Session, *controls):
        state = visit.state(ExploreState)
        if state.made is None:
            return None
        view = own.check_view(*controls)
        if view == state.asked:  # a field was left as it was
            return None
        before, state.asked = state.asked, view
        return partial(own.again, state.made, view, visit.subfolder(), before)

    def show(visit: Session, made, colour: str, method: str, of_names: str, of_tasks: str, by: str):
        state = visit.state(ExploreState)
        done = views.notice(f"Done in {made.found.seconds:.1f} s.", "good")
        if isinstance(made, tasking.MappedTasks):
            state.tasks = made
            update = show_tasks(by_task, made, of_tasks)
            return {**update, by_task.made: gr.update(visible=by == "tasks"), choices.status: done}
        if isinstance(made, naming.Mapped):
            state.mapped = made
            update = show_names(by_name, made, of_names)
            return {**update, by_name.made: gr.update(visible=by == "names"), choices.status: done}
        again = state.made is not None and state.made.found is made.found
        state.made, state.picked, state.matching, state.listed = made, None, None, []
        news = "" if again else done
        update = _results(choices, results, made, colour, method)
        return {**update, results.made: gr.update(visible=by == "heads"), choices.status: news}

    def kept(visit: Session) -> str:
        state = visit.state(ExploreState)
        return "What you had is still here." if state.made or state.mapped or state.tasks else ""

    view = [choices.where, choices.part, choices.perplexity, choices.map_seed, choices.all_counts]
    view.append(results.dimensions)
    source = [frame.bundle, choices.by, choices.named, by_name.search, choices.data, choices.files]
    numbers = [choices.tasks, choices.classes, choices.explored, choices.trained]
    numbers += [choices.shots, choices.seed, choices.steps, choices.most, choices.sampler]
    changed = [choices.where.input, choices.part.input, choices.all_counts.input, results.dimensions.input]
    for number in (choices.perplexity, choices.map_seed):
        changed += [number.submit, number.blur]
    shown = [
        *results.components,
        *by_name.components,
        *by_task.components,
        choices.where,
        choices.no_latent,
        choices.part,
        choices.all_counts,
    ]
    looks = [results.colour, results.method, by_name.method, by_task.method, choices.by]
    for trigger, asks, inputs in (
        (choices.go.click, ask, [*source, *numbers, *view, *of_task]),
        (partial(gr.on, changed), ask_view, view),
    ):
        run.on(trigger, asks, inputs, show, shown, looks=looks, kept=kept, slot=MINUTES)


def _source(visit: Session, data: str, files: list[str] | None) -> dict:
    """Where the images come from. Raises UserError where there are none."""
    if data == "generate":
        images = visit.state(GenerateState).images
        if images is None:
            raise UserError("No images are chosen in Generate yet: choose some there, or an example here.")
        return {"images": images}
    if data == "own":
        if not files:
            raise UserError("Drop your images in the box under “Images”, or choose an example.")
        visit.uploaded(files)
        return {"files": files, "into": visit.subfolder()}
    return {"example": data}


def _results(choices: Choices, results: Results, made: Explored, colour: str, method: str) -> dict:
    """The update that shows the whole result."""
    drawn = own.figures(made, colour, method)
    files = own.files(made, drawn)
    found, view = made.found, made.view
    spaces = [(name, key) for name, key in CHOICES["where"].items() if key in found.spaces]
    parts = [(found.whole if part == "all" else part, part) for part in found.parts(view.where)]
    there = set(found.heads.origin.tolist())
    kinds = [(name, key) for name, key in KINDS.items() if key in there]
    return {
        results.places: gr.update(visible=False),
        results.made: gr.update(visible=True),
        results.sentence: html.answer(own.words(made)),
        **{results.plot[name]: figure for name, figure in drawn.items()},
        **{results.page[name]: str(files[name]) for name in drawn},
        results.figures: str(files["figures"]),
        results.tables: str(files["data"]),
        results.projector: str(files["projector"]),
        choices.where: gr.update(choices=spaces, value=view.where),
        choices.no_latent: gr.update(visible="latent" not in found.spaces),
        choices.part: gr.update(choices=parts, value=view.part),
        choices.all_counts: gr.update(visible=found.noun == "head"),
        results.search: "",
        results.kinds: gr.update(choices=kinds, value=[key for _, key in kinds]),
        results.nothing: "",
        results.right: "",
        results.chosen: gr.update(choices=own.listed(made), value=None),
        results.about: html.nothing_picked(),
        results.offers: gr.update(visible=False),
        results.judge: gr.update(visible=False),
        results.many: gr.update(visible=False),
    }


def _wire_colours(frame: Frame, results: Results) -> None:
    """Drawing the map anew."""

    def recolour(visit: Session | None, colour: str, method: str, brush: str):
        state = visit.state(ExploreState) if visit else None
        if state is None or state.made is None:
            return gr.skip()
        chart = drawn(state, colour, method, brush)
        return {results.plot["map"]: chart, results.page["map"]: str(own.page(state.made, chart, "map"))}

    gr.on(
        [results.colour.input, results.method.input, results.brush.input],
        recolour,
        [frame.session, results.colour, results.method, results.brush],
        [results.plot["map"], results.page["map"]],
        queue=False,
        trigger_mode="always_last",
        **PRIVATE,
    )
