"""The Interpolate tab: what lies between two tasks, two names, or two descriptions."""

import logging
from functools import partial
from pathlib import Path

import gradio as gr

from d2nwg.jobs.owner import Viewer
from d2nwg.ui import html as views
from d2nwg.ui.events import MINUTES, PRIVATE, bundle_update
from d2nwg.ui.frame import Frame, Receiver
from d2nwg.ui.interpolate import by_description, by_name, html, service
from d2nwg.ui.interpolate.api import add_endpoints
from d2nwg.ui.interpolate.descriptions import show_descriptions, wire_descriptions
from d2nwg.ui.interpolate.layout import OWN_LABEL, Choices, DescriptionResults, NameResults, Results
from d2nwg.ui.interpolate.names import show_names, wire_names
from d2nwg.ui.interpolate.path import show_path, wire_path
from d2nwg.ui.interpolate.settings import (
    LETTERS,
    NONE,
    check,
    check_descriptions,
    check_names,
    choices,
    default_bundle,
    from_link,
)
from d2nwg.ui.interpolate.state import InterpolateState
from d2nwg.ui.link import keep_in_address
from d2nwg.ui.run import Run
from d2nwg.ui.session import Session
from d2nwg.ui.views import View, wire_views
from d2nwg.ui.visitor import visitor
from d2nwg.ui.work import UNEXPECTED
from d2nwg.utils.errors import UserError

log = logging.getLogger("d2nwg.ui")

KEY, LABEL = "interpolate", "Interpolate"


def build_tab(frame: Frame) -> None:
    """Lay out the tab and wire it."""
    with gr.Row(elem_id="interpolate", elem_classes="tab"):
        with gr.Column(elem_classes="choose", min_width=320):
            left = Choices()
        with gr.Column(elem_classes="get", min_width=320):
            results, of_names, of_descriptions = Results(), NameResults(), DescriptionResults()
    _wire_link(frame, left, results)
    _wire_endpoints(frame, left)
    _wire_run(frame, left, results, of_names, of_descriptions)
    wire_path(frame, results)
    wire_names(frame, left)
    wire_descriptions(frame, left, of_descriptions)
    views_of = {
        "tasks": View(left.of_tasks, results.places, results.made, "made"),
        "names": View([left.of_names], of_names.places, of_names.made, "named"),
        "descriptions": View(left.of_descriptions, of_descriptions.places, of_descriptions.made, "described"),
    }
    wire_views(frame, left.by, views_of, left.status, InterpolateState)
    add_endpoints()
    frame.receivers[KEY] = Receiver(
        partial(_receive, left), [left.by, left.choose["a"], left.drop["a"], left.strip["a"]]
    )


def _receive(left: Choices, visit: Session, file: Path) -> dict:
    """A head that another tab sends becomes the first endpoint."""
    return {
        left.by: "tasks",
        left.choose["a"]: "own",
        left.drop["a"]: gr.update(value=[str(file)], visible=True),
        left.strip["a"]: views.notice("A head from Explore. The other endpoint needs the same classes.", "note"),
    }


def _wire_link(frame: Frame, left: Choices, results: Results) -> None:
    """The address holds the controls, and presets them."""
    linked = {
        "from": left.choose["a"],
        "to": left.choose["b"],
        "third": left.choose["c"],
        "mix": results.method,
        "alpha": results.alpha,
        "with": left.bundle,
    }

    def open_page(request: gr.Request, token):
        viewer = visitor(request, token)
        values = from_link(dict(request.query_params), viewer)
        return {
            **{
                part: values[key]
                for key, part in (("method", results.method), ("alpha", results.alpha))
                if key in values
            },
            left.bundle: bundle_update(viewer, values.get("bundle")),
            **_endpoints(left, values.get("bundle", default_bundle()), values, viewer),
        }

    shown = [*left.strip.values(), *left.drop.values()]

    def choose(request: gr.Request, token, bundle: str | None):
        return _endpoints(left, bundle, {}, visitor(request, token))

    frame.demo.load(open_page, frame.token, [*shown, *linked.values()], **PRIVATE)
    left.bundle.input(choose, [frame.token, left.bundle], [*shown, *left.choose.values()], **PRIVATE)
    keep_in_address(linked, shown_in="#interpolate")


def _endpoints(left: Choices, bundle: str | None, values: dict, viewer: Viewer) -> dict:
    """The update to the endpoints that a bundle can have, as a link asks for them or as they are at first."""
    names, first = choices(bundle, viewer)
    by_name = names[0][1].startswith("task:")
    update: dict = {}
    for letter in LETTERS:
        value = values.get(letter, first[letter])
        update[left.choose[letter]] = gr.update(choices=[NONE, *names] if letter == "c" else names, value=value)
        update[left.drop[letter]] = gr.update(
            value=None, visible=by_name and value != NONE[1], label="Images to score on" if by_name else OWN_LABEL
        )
        update[left.strip[letter]] = html.endpoint_strip(value)
    return update


def _wire_endpoints(frame: Frame, left: Choices) -> None:
    """Choosing the endpoints."""

    def look(letter: str, visit: Session | None, name: str, files: list[str] | None):
        visit = visit or Session()
        visit.uploaded(files)
        return {
            frame.session: visit,
            left.strip[letter]: _shown(visit, name, files),
            left.status: "",
            left.drop[letter]: gr.update(visible=name == "own" or name.startswith("task:")),
        }

    for letter in LETTERS:
        chosen, files = left.choose[letter], left.drop[letter]
        gr.on(
            [chosen.input, files.upload, files.clear],
            partial(look, letter),
            [frame.session, chosen, files],
            [frame.session, left.strip[letter], files, left.status],
            **PRIVATE,
        )


def _shown(visit: Session, name: str, files: list[str] | None) -> str:
    """What an endpoint is, as HTML."""
    if not files or not (name == "own" or name.startswith("task:")):
        return html.endpoint_strip(name)
    try:
        endpoint = service.read_endpoint(name, files, visit.subfolder())
    except UserError as reason:
        return views.notice(str(reason))
    except Exception:
        log.exception("Unforeseen")
        return views.notice(UNEXPECTED)
    images = endpoint.images if name.startswith("task:") else endpoint
    if hasattr(images, "items"):
        return html.strip(images)
    return views.notice(f"A head for {views.count(len(images.classes), 'class')}.", "note")


def _wire_run(
    frame: Frame, left: Choices, results: Results, of_names: NameResults, of_descriptions: DescriptionResults
) -> None:
    """Making the heads or adapters between the endpoints."""
    named = [left.first, left.last, left.liked, left.liked_files, left.name_points, left.name_bundle]

    described = [*left.task.values(), *left.texts.values(), *left.labels.values(), left.adapters]
    described += left.task_numbers

    def ask(visit: Session, by: str, *values):
        values, of_tasks = values[: -len(described)], values[-len(described) :]
        if by == "descriptions":
            files, settings = of_tasks[2:4], check_descriptions(*of_tasks[6:], viewer=visit.viewer)
            for given in files:
                visit.uploaded(given)
            return partial(by_description.make, of_tasks[:2], files, of_tasks[4:6], settings, visit.subfolder())
        names, (bundle, points, seeds, samples, shots, seed, *endpoints) = values[: len(named)], values[len(named) :]
        if by == "names":
            *typed, liked, files, name_points, name_bundle = names
            visit.uploaded(files)
            settings = check_names(name_bundle, name_points, visit.viewer)
            return partial(by_name.make, typed, liked, files, settings, visit.subfolder())
        settings = check(bundle, points, seeds, samples, shots, seed, visit.viewer)
        chosen = [(kind, files) for kind, files in zip(endpoints[:3], endpoints[3:], strict=True) if kind != NONE[1]]
        return partial(service.interpolate, chosen, settings, visit.subfolder())

    def show(visit: Session, made, method: str | None, alpha: float, of: str, mixed: str, share: float, by: str):
        state = visit.state(InterpolateState)
        done = views.notice(f"Done in {made.found.seconds:.1f} s.", "good")
        if isinstance(made, by_description.DescribedPath):
            state.described = made
            update = show_descriptions(of_descriptions, made, mixed, share)
            return {**update, of_descriptions.made: gr.update(visible=by == "descriptions"), left.status: done}
        if isinstance(made, by_name.NamedPath):
            state.named = made
            update = show_names(of_names, made)
            return {**update, of_names.made: gr.update(visible=by == "names"), left.status: done}
        state.made = made
        update = show_path(results, made, method, alpha, of)
        return {**update, results.made: gr.update(visible=by == "tasks"), left.status: done}

    def kept(visit: Session) -> str:
        state = visit.state(InterpolateState)
        return "The path you had is still here." if state.made or state.named or state.described else ""

    looks = [results.method, results.alpha, results.map_of]
    numbers = [left.points, left.seeds, left.samples, left.shots, left.seed]
    Run(frame.session, KEY, left.go, left.stop, left.status).on(
        left.go.click,
        ask,
        [left.by, *named, left.bundle, *numbers, *left.choose.values(), *left.drop.values(), *described],
        show,
        [*results.components, *of_names.components, *of_descriptions.components],
        looks=[*looks, of_descriptions.method, of_descriptions.alpha, left.by],
        kept=kept,
        slot=MINUTES,
    )
