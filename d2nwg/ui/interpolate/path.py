"""The right side of the Interpolate tab: a path, the head at a point of it, and mixes of three endpoints."""

from typing import Any

import gradio as gr

from d2nwg.interpolation.methods import BASELINE, LABELS
from d2nwg.ui import html as views
from d2nwg.ui.events import COMPUTE, PRIVATE
from d2nwg.ui.frame import Frame
from d2nwg.ui.interpolate import html, service
from d2nwg.ui.interpolate.layout import THE_ONE, Results
from d2nwg.ui.interpolate.service import Interpolated
from d2nwg.ui.interpolate.settings import LETTERS
from d2nwg.ui.interpolate.state import InterpolateState
from d2nwg.ui.session import Session
from d2nwg.utils.errors import UserError


def show_path(results: Results, made: Interpolated, method: str | None, alpha: float, of: str) -> dict:
    """The update that shows a whole path.

    Args:
        results: the components.
        made: the path.
        method: the method to show the heads of; the path's first where it is none of the path's.
        alpha: the share of B to show the head at.
        of: what the map is of, ``conditions`` or ``weights``.
    """
    found, figures = made.found, made.figures
    shown = method if method in found.paths else next(iter(found.paths))
    number = service.nearest(made, alpha)
    three = len(found.endpoints.members) > 2
    return {
        results.places: gr.update(visible=False),
        results.made: gr.update(visible=True),
        results.sentence: html.answer(made),
        results.method: gr.update(choices=[(LABELS[key].capitalize(), key) for key in found.paths], value=shown),
        results.alpha: gr.update(step=1 / (len(found.alpha) - 1), value=float(found.alpha[number])),
        **_point(results, made, shown, number),
        **_curves(results, figures),
        results.curve_cards[1]: gr.update(visible=len(figures.curves) > 1),
        results.barrier: figures.barrier,
        results.distance: figures.distance,
        results.distance_card: gr.update(visible=figures.distance is not None),
        results.map: service.figures(found, None, of).map,
        results.map_card: gr.update(visible=figures.map is not None),
        results.map_of: gr.update(visible=found.mixer.noun == "head"),  # of networks there is one map
        results.everything: str(service.everything(made)),
        results.mix_card: gr.update(visible=three),
        **{results.share[letter]: 1 for letter in LETTERS},
        results.mixed: views.hint("Move a share.") if three else "",
        results.mixed_pictures: "",
    }


def _point(results: Results, made: Interpolated, method: str, number: int) -> dict:
    """The update that shows one point of the path."""
    return {
        results.where: html.point(made, method, number),
        results.pictures: html.looked(made, made.found.state(method, number)),
        results.head: gr.update(
            value=str(service.head_file(made, method, number)), label=THE_ONE.format(made.found.mixer.noun)
        ),
    }


def _curves(results: Results, figures: service.Figures) -> dict:
    return dict(zip(results.curves, [*figures.curves, None], strict=False))


def wire_path(frame: Frame, results: Results) -> None:
    """Moving through what was made."""

    def made_by(visit: Session | None) -> Interpolated | None:
        return visit.state(InterpolateState).made if visit else None

    def move(visit: Session | None, method: str | None, alpha: float):
        made = made_by(visit)
        if made is None or method not in made.found.paths:
            return gr.skip()
        return _point(results, made, method, service.nearest(made, alpha))

    def mark(visit: Session | None, alpha: float, of: str):
        made = made_by(visit)
        if made is None:
            return gr.skip()
        drawn = service.figures(made.found, float(made.found.alpha[service.nearest(made, alpha)]), of)
        return {**_curves(results, drawn), results.map: drawn.map}

    def mix(visit: Session | None, method: str | None, *shares: float):
        made = made_by(visit)
        if made is None or len(made.found.endpoints.members) < 3:
            return gr.skip()
        try:
            head, accuracies = made.found.mixed(shares, method if method in made.found.paths else BASELINE)
        except UserError as reason:
            return {results.mixed: views.notice(str(reason))}
        return {
            results.mixed: html.mixed(made, head, accuracies),
            results.mixed_pictures: html.looked(made, head.state),
            results.mixed_head: str(head.save(made.folder / "head-mix.safetensors")),
        }

    latest: dict[str, Any] = dict(trigger_mode="always_last", **PRIVATE)
    gr.on(
        [results.alpha.change, results.method.change],
        move,
        [frame.session, results.method, results.alpha],
        [results.where, results.pictures, results.head],
        queue=False,
        **latest,
    )
    gr.on(
        [results.alpha.release, results.map_of.input],
        mark,
        [frame.session, results.alpha, results.map_of],
        [*results.curves, results.map],
        queue=False,
        **latest,
    )
    gr.on(
        [*(share.release for share in results.share.values()), results.method.input],
        mix,
        [frame.session, results.method, *results.share.values()],
        [results.mixed, results.mixed_pictures, results.mixed_head],
        **COMPUTE,
        **latest,
    )
