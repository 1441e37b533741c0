"""The right side of the Generate tab: a result, the head that is in use, and what that says about a picture."""

import logging
from pathlib import Path

import gradio as gr

from d2nwg.ui import html as views
from d2nwg.ui.events import COMPUTE, PRIVATE
from d2nwg.ui.frame import Frame
from d2nwg.ui.generate import cells, curve, elsewhere, finetune, history, html, kept, many, service
from d2nwg.ui.generate.layout import Results
from d2nwg.ui.generate.state import GenerateState
from d2nwg.ui.session import Session
from d2nwg.ui.work import UNEXPECTED
from d2nwg.utils.errors import UserError

log = logging.getLogger("d2nwg.ui")


class ResultView:
    """Shows a visitor's result, and wires picking a head and trying it on a picture or a text."""

    def __init__(self, frame: Frame, results: Results):
        self.results = results
        session = frame.session
        follows = [results.strip, results.confusion, results.seen, *self._in_use]
        results.table.select(self._pick, session, follows, **COMPUTE, **PRIVATE)
        results.take.click(self._take, session, follows, **COMPUTE, **PRIVATE)
        # not .input, which fires on clearing too, still with the picture that was there
        results.picture.upload(self._try_upload, [session, results.picture], results.seen, **COMPUTE, **PRIVATE)
        results.picture.clear(self._try_nothing, session, results.seen, **PRIVATE)
        shown = [results.picture, results.text, results.second]
        results.another.click(self._try_another, session, [*shown, results.seen], **COMPUTE, **PRIVATE)
        earlier = results.history
        earlier["again"].input(self._show_again, [session, earlier["again"]], results.components, **COMPUTE, **PRIVATE)
        earlier["beside"].input(self._compare, [session, earlier["beside"]], earlier["said"], **COMPUTE, **PRIVATE)
        results.keep["go"].click(self._keep, session, results.keep["said"], **COMPUTE, **PRIVATE)
        texts = [session, results.text, results.second]
        for trigger in (results.try_text.click, results.text.submit, results.second.submit):
            trigger(self._try_text, texts, results.seen, **COMPUTE, **PRIVATE)

    @property
    def _in_use(self) -> list:
        """What `_use` updates."""
        results = self.results
        own = [results.head, results.onnx, results.snippet, results.picked, results.take, results.cells["cell"]]
        return [*own, results.many["stale"], *(results.elsewhere[name] for name in ("card", "hint", "status", "file"))]

    def show_new(self, visit: Session, result: service.Result) -> dict:
        """The update that shows a result as the visitor's new one."""
        state = visit.state(GenerateState)
        state.result, state.picked = result, None
        return self.show(visit)

    def show(self, visit: Session) -> dict:
        """The update that shows the visitor's new result."""
        state, results = visit.state(GenerateState), self.results
        state.predicted = None
        result = state.result
        history.keep(state.history, result)
        measured = result.images is not None
        measures = [
            results.strip_card,
            results.confusion_card,
            results.table_card,
            results.another,
            results.finetune_card,
        ]
        if measured:
            state.picture = result.draw()
        else:  # a picture that the visitor gave is looked at again
            given = state.picture and state.picture[1] is None and isinstance(state.picture[0], Path)
            state.picture = state.picture if given else None
        return {
            results.places: gr.update(visible=False),
            results.made: gr.update(visible=True),
            **{part: gr.update(visible=measured) for part in measures},
            **{part: views.title(*html.TITLES[result.kind][card]) for card, part in results.titles.items()},
            results.try_text: gr.update(visible=result.noun != "image"),
            results.sentence: result.sentence(),
            results.table: result.table(),
            results.strip: result.figures[0],
            results.confusion: result.figures[1],
            results.everything: str(result.files["samples"]),
            results.report: str(result.files["report"]),
            **finetune.nothing_yet(results.finetune),
            **curve.nothing_yet(results.curve),
            **history.of(results.history, state.history, result),
            **kept.of(results.keep, result),
            results.curve_card: gr.update(visible=result.learns),
            **many.nothing_yet(results.many),
            **self._use(state, result.files),
            **self._try_it(visit, with_item=True),
        }

    def show_picked(self, visit: Session) -> dict:
        """The update that shows the visitor's result with the sample that is picked in use."""
        state = visit.state(GenerateState)
        update = self.show(visit)
        if state.picked is None:
            return update
        figure = state.result.confusion(state.picked)
        return {**update, self.results.confusion: figure, **self._use(state, _save_picked(visit))}

    def _use(self, state: GenerateState, files: dict[str, Path]) -> dict:
        """The update of the downloads and the words for what is in use."""
        result, picked = state.result, state.picked
        name, onnx, better = result.name(picked), files.get("onnx"), result.recommended
        words = (better or "").replace("_", " ").replace("class mean", "the class mean")
        return {
            self.results.head: gr.update(value=str(files["head"]), label=name.capitalize()),
            self.results.onnx: gr.update(value=onnx and str(onnx), visible=onnx is not None),
            self.results.snippet: result.snippet(files["head"]),
            self.results.picked: views.notice(f"In use: {name}, {result.about(picked)}.", "note"),
            self.results.take: gr.update(
                visible=better is not None and better != picked, value=f"Take {words} instead"
            ),
            **cells.nothing_yet(self.results.cells),
            **many.follow(self.results.many, state),
            **elsewhere.of(self.results.elsewhere, result),
        }

    def _try_it(self, visit: Session, with_item: bool = False) -> dict:
        """The update that shows what the head in use sees in the picture or the text at hand, and that itself."""
        state = visit.state(GenerateState)
        shown = self._item(visit, state) if with_item else {}
        if state.picture is None:
            return {self.results.seen: views.hint("The five likeliest classes will stand here."), **shown}
        item, truth = state.picture
        result, picked = state.result, state.picked
        noun = "picture" if result.noun == "image" else "text"
        which = f"{'The ' if picked is None else ''}{result.name(picked)}"
        which = which[:1].upper() + which[1:]
        try:
            likeliest = result.known.get((picked, item)) or service.look(result.head(picked), item)
            seen = html.seen(which, likeliest, truth, noun)
        except UserError as reason:
            seen = views.notice(str(reason))
        except Exception:
            log.exception("Unforeseen")
            seen = views.notice(UNEXPECTED)
        return {self.results.seen: seen, **shown}

    def _item(self, visit: Session, state: GenerateState) -> dict:
        """The update of the picture, or of the text or texts, at hand."""
        item = state.picture and state.picture[0]
        noun, scale = state.result.noun, state.result.scale
        picture = service.preview(item, visit.subfolder(), scale) if noun == "image" and item is not None else None
        texts = ((item,) if isinstance(item, str) else item or ()) if noun != "image" else ()
        first, second = (*texts, "", "")[:2]
        return {
            self.results.picture: gr.update(value=picture, visible=noun == "image"),
            self.results.text: gr.update(value=first, visible=noun != "image"),
            self.results.second: gr.update(value=second, visible=noun == "pair"),
        }

    def _pick(self, visit: Session | None, event: gr.SelectData):
        if (state := _measured(visit)) is None:
            return gr.skip()
        state.picked = html.picked_by(str(event.row_value[0]))
        return self._follow(visit, state)

    def _take(self, visit: Session | None):
        if (state := _measured(visit)) is None or state.result.recommended is None:
            return gr.skip()
        state.picked = state.result.recommended
        return self._follow(visit, state)

    def _follow(self, visit: Session, state: GenerateState) -> dict:
        """The update where another head of the result is in use."""
        return {
            self.results.strip: state.result.strip(state.picked),
            self.results.confusion: state.result.confusion(state.picked),
            **self._use(state, _save_picked(visit)),
            **self._try_it(visit),
        }

    def _show_again(self, visit: Session | None, key):
        state = _with_result(visit)
        result = state and history.found(state.history, key)
        return self.show_new(visit, result) if visit and result else gr.skip()

    def _compare(self, visit: Session | None, key):
        state = _with_result(visit)
        other = state and history.found(state.history, key)
        return history.compare(state.result, other) if state and state.result and other else ""

    def _keep(self, visit: Session | None):
        state = _with_result(visit)
        return kept.said(state and state.result)

    def _try_upload(self, visit: Session | None, path: str | None):
        if (state := _with_result(visit)) is None or path is None:
            return gr.skip()
        visit.uploaded([path])
        state.picture = (Path(path), None)
        return self._try_it(visit)

    def _try_text(self, visit: Session | None, text: str, second: str):
        if (state := _with_result(visit)) is None or (noun := state.result.noun) == "image":
            return gr.skip()
        state.picture = ((text or "", second or "") if noun == "pair" else text or "", None)
        return self._try_it(visit)

    def _try_nothing(self, visit: Session | None):
        if (state := _with_result(visit)) is None:
            return gr.skip()
        state.picture = None
        return self._try_it(visit)

    def _try_another(self, visit: Session | None):
        if (state := _measured(visit)) is None:
            return gr.skip()
        state.picture = state.result.draw()
        return self._try_it(visit, with_item=True)


def _with_result(visit: Session | None) -> GenerateState | None:
    """What the tab keeps, once there is a result."""
    state = visit.state(GenerateState) if visit else None
    return state if state and state.result else None


def _measured(visit: Session | None) -> GenerateState | None:
    """`_with_result`, where the result was made from images."""
    state = _with_result(visit)
    return state if state and state.result.images is not None else None


def _save_picked(visit: Session) -> dict[str, Path]:
    """What is in use, as files."""
    state = visit.state(GenerateState)
    return state.result.save(state.picked, visit.subfolder())
