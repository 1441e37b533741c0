"""The right side of the Generate tab: a result, the head that is in use, and what that says about a picture."""

import logging
from pathlib import Path

import gradio as gr

from d2nwg.ui import html as views
from d2nwg.ui.events import COMPUTE, PRIVATE
from d2nwg.ui.frame import Frame
from d2nwg.ui.generate import html, service
from d2nwg.ui.generate.layout import Results
from d2nwg.ui.generate.state import GenerateState
from d2nwg.ui.session import Session
from d2nwg.ui.work import UNEXPECTED
from d2nwg.utils.errors import UserError

log = logging.getLogger("d2nwg.ui")

SNIPPET = """from d2nwg import Head

head = Head.load("{file}")
probabilities, readable = head.probabilities([{item}])
for name, p in zip(head.classes, probabilities[0]):
    print(f"{{name:20}} {{p:.1%}}")

layer = head.module()  # a plain torch module, on {encoder} features"""


ITEMS = {"image": '"picture.jpg"', "text": '"A text."', "pair": '("One text.", "The other.")'}  # in the snippet


class ResultView:
    """Shows a visitor's result, and wires picking a head and trying it on a picture or a text."""

    def __init__(self, frame: Frame, results: Results):
        self.results = results
        session, in_use = frame.session, [results.head, results.snippet, results.picked]
        results.table.select(self._pick, session, [results.strip, *in_use, results.seen], **COMPUTE, **PRIVATE)
        # not .input, which fires on clearing too, still with the picture that was there
        results.picture.upload(self._try_upload, [session, results.picture], results.seen, **COMPUTE, **PRIVATE)
        results.picture.clear(self._try_nothing, session, results.seen, **PRIVATE)
        shown = [results.picture, results.text, results.second]
        results.another.click(self._try_another, session, [*shown, results.seen], **COMPUTE, **PRIVATE)
        texts = [session, results.text, results.second]
        for trigger in (results.try_text.click, results.text.submit, results.second.submit):
            trigger(self._try_text, texts, results.seen, **COMPUTE, **PRIVATE)

    def show(self, visit: Session) -> dict:
        """The update that shows the visitor's new result."""
        state, results = visit.state(GenerateState), self.results
        result = state.result
        measured = result.images is not None
        measures = [results.strip_card, results.confusion_card, results.table_card, results.another]
        if measured:
            state.picture = service.draw(result)
            sentence, table = html.result(result.generation.report), html.table(result.generation.report)
        else:  # a picture that the visitor gave is looked at again
            kept = state.picture and state.picture[1] is None and isinstance(state.picture[0], Path)
            state.picture = state.picture if kept else None
            sentence, table = html.named_result(result.generation), None
        return {
            results.places: gr.update(visible=False),
            results.made: gr.update(visible=True),
            **{part: gr.update(visible=measured) for part in measures},
            results.try_text: gr.update(visible=result.generation.head.noun != "image"),
            results.sentence: sentence,
            results.table: table,
            results.strip: result.figures[0],
            results.confusion: result.figures[1],
            results.everything: str(result.files["samples"]),
            results.report: str(result.files["report"]),
            **self._use(state, result.files["head"]),
            **self._try_it(visit, with_item=True),
        }

    def show_picked(self, visit: Session) -> dict:
        """The update that shows the visitor's result with the sample that is picked in use."""
        state = visit.state(GenerateState)
        return {**self.show(visit), **({} if state.picked is None else self._use(state, _save_picked(visit)))}

    def _use(self, state: GenerateState, file: Path) -> dict:
        """The update of the download and the words for the head in use."""
        generation, picked = state.result.generation, state.picked
        if picked is None:
            name, about = _head_name(state), generation.head.info["selection"]
        else:
            name = f"sample {picked}"
            about = f"right on {views.percent(generation.report.samples[picked].accuracy)}"
        return {
            self.results.head: gr.update(value=str(file), label=name.capitalize()),
            self.results.snippet: SNIPPET.format(
                file=file.name, encoder=generation.head.encoder, item=ITEMS[generation.head.noun]
            ),
            self.results.picked: views.notice(f"In use: {name} ({about}).", "note"),
        }

    def _try_it(self, visit: Session, with_item: bool = False) -> dict:
        """The update that shows what the head in use sees in the picture or the text at hand, and that itself."""
        state = visit.state(GenerateState)
        shown = self._item(visit, state) if with_item else {}
        if state.picture is None:
            return {self.results.seen: views.hint("The five likeliest classes will stand here."), **shown}
        item, truth = state.picture
        noun = "picture" if state.result.generation.head.noun == "image" else "text"
        which = f"The {_head_name(state)}" if state.picked is None else f"Sample {state.picked}"
        try:
            seen = html.seen(which, service.look(state.result.head(state.picked), item), truth, noun)
        except UserError as reason:
            seen = views.notice(str(reason))
        except Exception:
            log.exception("Unforeseen")
            seen = views.notice(UNEXPECTED)
        return {self.results.seen: seen, **shown}

    def _item(self, visit: Session, state: GenerateState) -> dict:
        """The update of the picture, or of the text or texts, at hand."""
        noun, item = state.result.generation.head.noun, state.picture and state.picture[0]
        scale = state.result.generation.head.scale
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
        name = str(event.row_value[0])
        state.picked = int(name.split()[-1]) if name.startswith("sample ") else None
        figure = service.strip(state.result.generation.report, state.picked)
        return {self.results.strip: figure, **self._use(state, _save_picked(visit)), **self._try_it(visit)}

    def _try_upload(self, visit: Session | None, path: str | None):
        if (state := _with_result(visit)) is None or path is None:
            return gr.skip()
        visit.uploaded([path])
        state.picture = (Path(path), None)
        return self._try_it(visit)

    def _try_text(self, visit: Session | None, text: str, second: str):
        if (state := _with_result(visit)) is None or (noun := state.result.generation.head.noun) == "image":
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
        state.picture = service.draw(state.result)
        return self._try_it(visit, with_item=True)


def _with_result(visit: Session | None) -> GenerateState | None:
    """What the tab keeps, once there is a result."""
    state = visit.state(GenerateState) if visit else None
    return state if state and state.result else None


def _measured(visit: Session | None) -> GenerateState | None:
    """`_with_result`, where the result was made from images."""
    state = _with_result(visit)
    return state if state and state.result.images is not None else None


def _head_name(state: GenerateState) -> str:
    """Of the one that comes first: without images there was nothing to choose by."""
    return "head" if state.result.images is None else "chosen head"


def _save_picked(visit: Session) -> Path:
    """The head in use, as a file."""
    state = visit.state(GenerateState)
    name = "head.safetensors" if state.picked is None else f"head-sample-{state.picked}.safetensors"
    return state.result.head(state.picked).save(visit.subfolder() / name)
