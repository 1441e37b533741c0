"""The Interpolate tab: heads between one task and another."""

import logging
from functools import partial
from pathlib import Path

import gradio as gr

from d2nwg.jobs.owner import Viewer
from d2nwg.ui import html as views
from d2nwg.ui.events import PRIVATE, bundle_update
from d2nwg.ui.frame import Frame, Receiver
from d2nwg.ui.interpolate import html, service
from d2nwg.ui.interpolate.api import add_endpoint
from d2nwg.ui.interpolate.layout import OWN_LABEL, Choices, Results
from d2nwg.ui.interpolate.path import show_path, wire_path
from d2nwg.ui.interpolate.service import Interpolated
from d2nwg.ui.interpolate.settings import LETTERS, NONE, check, choices, default_bundle, from_link
from d2nwg.ui.interpolate.state import InterpolateState
from d2nwg.ui.link import keep_in_address
from d2nwg.ui.run import Run
from d2nwg.ui.session import Session
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
            results = Results()
    _wire_link(frame, left, results)
    _wire_endpoints(frame, left)
    _wire_run(frame, left, results)
    wire_path(frame, results)
    add_endpoint()
    frame.receivers[KEY] = Receiver(partial(_receive, left), [left.choose["a"], left.drop["a"], left.strip["a"]])


def _receive(left: Choices, visit: Session, file: Path) -> dict:
    """A head that another tab sends becomes the first endpoint."""
    return {
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


def _wire_run(frame: Frame, left: Choices, results: Results) -> None:
    """Making the heads between the endpoints."""

    def ask(visit: Session, bundle, points, seeds, samples, shots, seed, *endpoints):
        settings = check(bundle, points, seeds, samples, shots, seed, visit.viewer)
        chosen = [(kind, files) for kind, files in zip(endpoints[:3], endpoints[3:], strict=True) if kind != NONE[1]]
        return partial(service.interpolate, chosen, settings, visit.subfolder())

    def show(visit: Session, made: Interpolated, method: str | None, alpha: float, of: str) -> dict:
        visit.state(InterpolateState).made = made
        done = views.notice(f"Done in {made.found.seconds:.1f} s.", "good")
        return {**show_path(results, made, method, alpha, of), left.status: done}

    def kept(visit: Session) -> str:
        return "The path you had is still here." if visit.state(InterpolateState).made else ""

    numbers = [left.points, left.seeds, left.samples, left.shots, left.seed]
    Run(frame.session, KEY, left.go, left.stop, left.status).on(
        left.go.click,
        ask,
        [left.bundle, *numbers, *left.choose.values(), *left.drop.values()],
        show,
        results.components,
        looks=[results.method, results.alpha, results.map_of],
        kept=kept,
    )
