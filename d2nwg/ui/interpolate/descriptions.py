"""The Interpolate tab's paths between two descriptions: the result, a point of it, and the address."""

from typing import Any

import gradio as gr

from d2nwg.ui.events import PRIVATE
from d2nwg.ui.frame import Frame
from d2nwg.ui.interpolate import by_description as own
from d2nwg.ui.interpolate import html
from d2nwg.ui.interpolate.by_description import DescribedPath
from d2nwg.ui.interpolate.layout import Choices, DescriptionResults
from d2nwg.ui.interpolate.settings import descriptions_from_link
from d2nwg.ui.interpolate.state import InterpolateState
from d2nwg.ui.link import keep_in_address
from d2nwg.ui.session import Session
from d2nwg.ui.settings import adapter_bundles
from d2nwg.ui.visitor import visitor


def show_descriptions(results: DescriptionResults, made: DescribedPath, method: str, share: float) -> dict:
    """The update that shows a path between descriptions."""
    share = float(made.found.share[made.found.nearest_point(share)])
    step = 1 / (len(made.found.share) - 1)
    return {
        results.places: gr.update(visible=False),
        results.sentence: html.description_answer(made),
        results.alpha: gr.update(step=step, value=share),
        **_point(results, made, method, share),
        **_drawn(results, made, share),
        **{
            results.cards[f"scores-{end.letter.lower()}"]: gr.update(visible=bool(end.texts)) for end in made.found.ends
        },
        results.everything: str(own.everything(made)),
    }


def _point(results: DescriptionResults, made: DescribedPath, method: str, share: float) -> dict:
    return {
        results.where: html.description_point(made, method, share),
        results.adapter: str(own.adapter_file(made, method, share)),
    }


def _drawn(results: DescriptionResults, made: DescribedPath, share: float) -> dict:
    return {results.plot[name]: figure for name, figure in own.figures(made, share).items()}


def wire_descriptions(frame: Frame, left: Choices, results: DescriptionResults) -> None:
    """The bundles that there are, moving along a path, and the address."""
    linked = {"task_a": left.task["a"], "task_b": left.task["b"]}

    def preset(request: gr.Request, token) -> dict:
        values = descriptions_from_link(dict(request.query_params))
        names = adapter_bundles(visitor(request, token))
        return {
            **{linked[key]: value for key, value in values.items()},
            left.adapters: gr.update(choices=names, value=names[0] if names else None, visible=bool(names)),
            left.no_adapters: gr.update(visible=not names),
        }

    def made_by(visit: Session | None) -> DescribedPath | None:
        return visit.state(InterpolateState).described if visit else None

    def move(visit: Session | None, method: str, share: float):
        made = made_by(visit)
        return gr.skip() if made is None else _point(results, made, method, share)

    def mark(visit: Session | None, share: float):
        made = made_by(visit)
        return gr.skip() if made is None else _drawn(results, made, share)

    latest: dict[str, Any] = dict(queue=False, trigger_mode="always_last", **PRIVATE)
    frame.demo.load(preset, frame.token, [*linked.values(), left.adapters, left.no_adapters], **PRIVATE)
    gr.on(
        [results.alpha.change, results.method.change],
        move,
        [frame.session, results.method, results.alpha],
        [results.where, results.adapter],
        **latest,
    )
    results.alpha.release(mark, [frame.session, results.alpha], list(results.plot.values()), **latest)
    keep_in_address(linked, shown_in="#interpolate")
