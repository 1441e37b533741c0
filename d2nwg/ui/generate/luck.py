"""How much luck is in a result: the same with other labelled items, drawn from those that were read for it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import gradio as gr
import numpy as np

from d2nwg.ui.frame import Frame
from d2nwg.ui.generate import curve
from d2nwg.ui.generate.made import Result
from d2nwg.ui.generate.state import GenerateState
from d2nwg.ui.run import Run
from d2nwg.ui.session import Session
from d2nwg.utils.progress import Progress, silent

KEY = "luck"
MOST = 300  # labelled items: with more, drawing takes long, for what nobody has asked, and there is less luck


def wire(frame: Frame, sentence: gr.HTML) -> None:
    """Draw once a new result stands there, without a word, and say in its sentence what came out."""
    hidden = (gr.Button(visible=False), gr.Button(visible=False), gr.HTML(visible=False))
    run = Run(frame.session, KEY, *hidden)

    def ask(visit: Session) -> Callable | None:
        result = visit.state(GenerateState).result
        return partial(draw, result) if result and result.draws is None and repeats(result) else None

    def show(visit: Session, drawn: Result) -> dict:
        return {sentence: drawn.sentence()} if visit.state(GenerateState).result is drawn else {}

    run.on(sentence.change, ask, [], show, [sentence], takes_over=True)


def repeats(result: Result) -> bool:
    """Whether a result depends on a draw of its labelled items alone, and of few of them. A test split stands
    apart from what is drawn: few labelled items were read beside it."""
    if not result.learns:
        return False
    report = result.generation.report
    return not report.num_unlabelled and not result.images.is_test.any() and report.num_support <= MOST


def draw(result: Result, progress: Progress = silent) -> Result:
    """The result, with a sentence on its draws."""
    result.draws = sentence_of_draws(result, progress)
    return result


def sentence_of_draws(result: Result, progress: Progress = silent) -> str:
    """What `DRAWS` draws of as many labelled items a class come to; the first is the result's own."""
    data, read = result.images, result.generation.data
    kept = np.sort(np.concatenate([read.support_index, read.query_index]))
    items = [data.items[number] for number in kept]
    pool = replace(data, items=items, labels=data.labels[kept], is_test=data.is_test[kept])
    settings = {**curve.settings_of(result), "draws": curve.DRAWS, "shots": [result.generation.report.shots]}
    found = curve.measure(pool, settings, progress)
    from d2nwg.learning_curve import sentences

    said = sentences(found)[0]
    return f"Drawn {curve.DRAWS} times: {said[0].lower()}{said[1:]}"
