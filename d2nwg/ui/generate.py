"""The Generate tab: images in, classifier heads out."""

import logging
from contextlib import aclosing
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import gradio as gr

from d2nwg.errors import Cancelled, UserError
from d2nwg.ui import actions, views
from d2nwg.ui.endpoints import COMPUTE, add_endpoints
from d2nwg.ui.parts import Picture, Upload
from d2nwg.ui.session import Session
from d2nwg.ui.settings import DEFAULTS, check_settings, example_names, from_link
from d2nwg.ui.work import UNEXPECTED, Work

log = logging.getLogger("d2nwg.ui")

KEY, LABEL = "generate", "Generate"
PRIVATE = dict(api_visibility="private", show_progress="hidden")

SNIPPET = '''from d2nwg import Head

head = Head.load("{file}")
probabilities, readable = head.probabilities(["picture.jpg"])
for name, p in zip(head.classes, probabilities[0]):
    print(f"{{name:20}} {{p:.1%}}")

layer = head.module()  # a plain torch.nn.Linear on {encoder} features'''

# Keeps the address in step with the controls, so that it can be sent to somebody.
LINK = """(bundle, example, shots, samples, seed) => {
    const link = new URL(location.href), set = {tab: "generate", bundle, example, shots, samples, seed};
    for (const [key, value] of Object.entries(set))
        value === null || value === "" ? link.searchParams.delete(key) : link.searchParams.set(key, value);
    history.replaceState(history.state, "", link);
}"""


def build_tab(frame: SimpleNamespace) -> None:
    """Lay out the tab and wire it. `frame` has what all tabs share: ``demo``, ``session`` and ``bundle``."""
    with gr.Row(elem_id="generate", elem_classes="tab"):
        with gr.Column(elem_classes="choose", min_width=320):
            left = _left()
        with gr.Column(elem_classes="get", min_width=320):
            right = _right()
    _wire(frame, left, right)
    add_endpoints()


def _left() -> SimpleNamespace:
    """What a person chooses."""
    with gr.Column(elem_classes="card images-card"):
        gr.HTML(views.title("Images"))
        example = gr.Dropdown(example_names(), value=DEFAULTS["example"], label="Example", elem_id="example")
        files = Upload(label="or your own", file_count="multiple", height=84, elem_id="files")
        gr.HTML(views.hint("A zip or tar with one folder a class, or pictures named by class: cat_1.jpg, dog_1.jpg …"))
        shown = gr.HTML(elem_id="images")
    with gr.Column(elem_classes="card"):
        with gr.Row(elem_classes="pair"):
            shots = gr.Number(DEFAULTS["shots"], precision=0, label="Images per class", min_width=120, elem_id="shots",
                              info="the generator may see")
            samples = gr.Number(DEFAULTS["samples"], precision=0, label="Samples", min_width=120, elem_id="samples",
                                info="heads to generate")
        with gr.Accordion("Settings", open=False):
            with gr.Row(elem_classes="pair"):
                seed = gr.Number(DEFAULTS["seed"], precision=0, label="Seed", min_width=120, elem_id="seed",
                                 info="same seed, same heads")
                steps = gr.Number(None, precision=0, label="Steps", min_width=120, elem_id="steps",
                                  info="empty: the bundle's own")
            most = gr.Number(DEFAULTS["max_query"], precision=0, label="Most images to measure on", elem_id="most",
                             info="the others are left out, in equal parts from each class")
    with gr.Row(elem_classes="do"):
        go = gr.Button("Generate", variant="primary", elem_id="go", interactive=False)
        stop = gr.Button("Cancel", elem_id="stop", visible=False, min_width=100)
    status = gr.HTML(elem_id="status")
    return SimpleNamespace(example=example, files=files, shown=shown, shots=shots, samples=samples, seed=seed,
                           steps=steps, most=most, go=go, stop=stop, status=status)


def _right() -> SimpleNamespace:
    """What a person gets."""
    places = gr.HTML(views.PLACES, elem_id="places")
    with gr.Column(visible=False, elem_id="result") as made:
        sentence = gr.HTML(elem_id="sentence")
        with gr.Column(elem_classes="card figure"):
            gr.HTML(views.title("How good are the samples?", "A dot a head. Lines: the chosen head, and heads fitted "
                                "the usual way to the same images."))
            strip = gr.Plot(show_label=False, container=False, elem_id="strip")
        with gr.Row(elem_classes="two"):
            with gr.Column(elem_classes="card figure"):
                gr.HTML(views.title("Where does it err?", "The chosen head on the held-out images."))
                confusion = gr.Plot(show_label=False, container=False, elem_id="confusion")
            with gr.Column(elem_classes="card"):
                gr.HTML(views.title("Try it on a picture"))
                picture = Picture(show_label=False, sources=["upload", "clipboard"], height=190, buttons=[],
                                  elem_id="picture", placeholder="Drop a picture here, or click to choose one")
                another = gr.Button("Show a held-out picture", size="sm", elem_id="another")
                seen = gr.HTML(elem_id="seen")
        with gr.Column(elem_classes="card"):
            gr.HTML(views.title("Pick a head", "Click a row: “Try it” and the first download then use that head. "
                                "Click a column's name to sort."))
            table = gr.Dataframe(interactive=False, datatype=["str", "number", "number"], type="array", max_height=270,
                                 show_label=False, buttons=[], elem_id="table")
            picked = gr.HTML(elem_id="picked")
        with gr.Column(elem_classes="card"):
            gr.HTML(views.title("Take it away"))
            with gr.Row(elem_classes="downloads"):
                head = gr.DownloadButton("Chosen head", variant="primary", elem_id="download-head")
                everything = gr.DownloadButton("All samples", elem_id="download-samples")
                report = gr.DownloadButton("Report", elem_id="download-report")
            snippet = gr.Code(language="python", label="Use it in Python", interactive=False, buttons=["copy"],
                              show_line_numbers=False, wrap_lines=True, elem_id="snippet")
    return SimpleNamespace(places=places, made=made, sentence=sentence, strip=strip, confusion=confusion,
                           picture=picture, another=another, seen=seen, table=table, picked=picked,
                           head=head, everything=everything, report=report, snippet=snippet)


def _wire(frame: SimpleNamespace, left: SimpleNamespace, right: SimpleNamespace) -> None:
    session, demo = frame.session, frame.demo
    controls = [frame.bundle, left.example, left.shots, left.samples, left.seed]

    def busy(text: str = "") -> dict:
        return {left.go: gr.update(interactive=False), left.stop: gr.update(visible=True), left.status: text}

    def idle(text: str | None = None) -> dict:
        return {left.go: gr.update(interactive=True), left.stop: gr.update(visible=False),
                **({} if text is None else {left.status: text})}

    # ------------------------------------------------------------------------------------------ images
    async def load(kind: str, visit: Session | None, example: str | None, files: list[str] | None):
        """Load the example, the files, or (when they were taken away) the first example again; what was there
        before stays when it fails."""
        visit = visit or Session()
        if kind == "files":
            visit.uploads.update(map(Path, files or ()))
            source, good = dict(files=files, into=visit.subfolder()), {left.example: None}
        else:
            example = DEFAULTS["example"] if kind == "none" or example is None else example
            source, good = dict(example=example), {left.example: example, left.files: None}
        if visit.work:
            visit.work.cancel()
        work = visit.work = Work(partial(actions.read_and_show, **source))
        yield {session: visit, **busy()}
        try:
            async with aclosing(work.watch()) as stages:
                async for stage in stages:
                    yield {left.status: views.progress(stage)}
            loaded, shown = work.result()
            update = {left.shown: shown, **good, **idle("")}
        except Cancelled:
            loaded = visit.images
            update = idle(views.notice("Stopped. " + views.kept(images=visit.images), "note"))
        except UserError as reason:
            loaded = visit.images
            update = {left.files: None, **idle(views.notice(f"{reason} {views.kept(images=visit.images)}".strip()))}
        if visit.work is work:  # otherwise something newer has taken over
            visit.images, visit.work = loaded, None
            yield update

    images = [session, left.shown, left.status, left.go, left.stop, left.files, left.example]
    def open_page(request: gr.Request):
        values, missing = from_link(dict(request.query_params))
        named = dict(bundle=frame.bundle, example=left.example, shots=left.shots, samples=left.samples, seed=left.seed)
        return {session: Session(), left.status: views.notice(missing, "note") if missing else "",
                **{named[key]: value for key, value in values.items()}}

    opened = demo.load(open_page, None, [session, left.status, *controls], **PRIVATE)
    source = [session, left.example, left.files]
    opened.then(partial(load, "example"), source, images, **PRIVATE)
    left.example.input(partial(load, "example"), source, images, **PRIVATE)
    left.files.upload(partial(load, "files"), source, images, **PRIVATE)
    left.files.clear(partial(load, "none"), source, images, **PRIVATE)
    gr.on([c.change for c in controls], None, controls, None, js=LINK, api_visibility="private")

    # ---------------------------------------------------------------------------------------- generate
    def start(visit: Session | None, bundle, *numbers):
        if visit is None or visit.images is None:
            return {left.status: views.notice("This page has been left alone for long; please choose the images again.")}
        if visit.work and visit.work.started:
            return gr.skip()
        try:
            settings = check_settings(bundle, *numbers)
        except UserError as reason:
            return {left.status: views.notice(str(reason))}
        visit.work = Work(partial(actions.make_result, visit.images, settings, visit.subfolder()))
        return busy(views.notice("Waiting for a free place …", "note"))

    async def run(visit: Session | None):
        if visit is None or (work := visit.work) is None or work.started:
            yield gr.skip()
            return
        try:
            async with aclosing(work.watch()) as stages:
                async for stage in stages:
                    yield {left.status: views.progress(stage)}
            visit.result, visit.picked = work.result(), None
            update = {**show(visit), **idle(views.notice(
                f"Done in {visit.result.generation.report['seconds']['total']:.1f} s.", "good"))}
        except Cancelled:
            update = idle(views.notice(f"Cancelled. {views.kept(result=visit.result)}".strip(), "note"))
        except UserError as reason:
            update = idle(views.notice(f"{reason} {views.kept(result=visit.result)}".strip()))
        if visit.work is work:
            visit.work = None
            yield update

    def cancel(visit: Session | None):
        if visit and visit.work and visit.work.started:
            visit.work.cancel()
            return {left.status: views.notice("Stopping …", "note"), left.stop: gr.update(visible=False)}
        if visit:
            visit.work = None
        return idle(views.notice("Cancelled.", "note"))

    def show(visit: Session) -> dict:
        """The whole result."""
        result = visit.result
        report, files = result.generation.report, result.files
        visit.picture = actions.draw(visit)
        return {
            right.places: gr.update(visible=False), right.made: gr.update(visible=True),
            right.sentence: views.result(report),
            right.strip: result.figures[0], right.confusion: result.figures[1], right.table: views.table(report),
            right.everything: str(files["samples"]), right.report: str(files["report"]),
            **use(visit, str(files["head"])), **try_it(visit, with_picture=True)}

    def use(visit: Session, file: str) -> dict:
        """The downloads and the words for the head in use."""
        name, report = file.replace("\\", "/").rsplit("/", 1)[-1], visit.result.generation.report
        chosen = visit.picked is None
        words = f"In use: the chosen head ({report['selection']})." if chosen else \
            f"In use: sample {visit.picked}, right on {views.percent(report['samples'][visit.picked]['accuracy'])}."
        return {right.head: gr.update(value=file, label="Chosen head" if chosen else f"Sample {visit.picked}"),
                right.picked: views.notice(words, "note"),
                right.snippet: SNIPPET.format(file=name, encoder=visit.result.generation.head.encoder.split("/")[-1])}

    rest = [right.places, right.made, right.sentence, right.strip, right.confusion, right.table, right.everything,
            right.report, right.head, right.picked, right.snippet, right.picture, right.seen]
    ready = left.go.click(start, [session, frame.bundle, left.shots, left.samples, left.seed, left.steps, left.most],
                          [left.go, left.stop, left.status], queue=False, **PRIVATE)
    done = ready.then(run, session, [left.go, left.stop, left.status, *rest], **COMPUTE, **PRIVATE)
    done.failure(lambda: idle(views.notice("The queue is full; please try again in a minute.")), None,
                 [left.go, left.stop, left.status], queue=False, **PRIVATE)
    left.stop.click(cancel, session, [left.go, left.stop, left.status], queue=False, **PRIVATE)

    # ------------------------------------------------------------------------------------- pick and try
    def pick(visit: Session | None, event: gr.SelectData):
        if visit is None or visit.result is None:
            return gr.skip()
        name = str(event.row_value[0])
        visit.picked = int(name.split()[-1]) if name.startswith("sample ") else None
        file = visit.subfolder() / ("head.safetensors" if visit.picked is None else
                                    f"head-sample-{visit.picked}.safetensors")
        visit.result.head(visit.picked).save(file)
        return {right.strip: actions.strip(visit.result.generation.report, visit.picked), **use(visit, str(file)), **try_it(visit)}

    def try_it(visit: Session, with_picture: bool = False) -> dict:
        """What the head in use sees in the picture at hand."""
        item, truth = visit.picture or (None, None)
        if item is None:
            return {right.seen: views.hint("The five likeliest classes will stand here.")}
        which = "The chosen head" if visit.picked is None else f"Sample {visit.picked}"
        try:
            seen = views.seen(which, actions.look(visit.result.head(visit.picked), item), truth)
        except UserError as reason:
            seen = views.notice(str(reason))
        except Exception:
            log.exception("Unforeseen")
            seen = views.notice(UNEXPECTED)
        return {right.seen: seen, **({right.picture: actions.preview(item, visit.subfolder())} if with_picture else {})}

    def try_upload(visit: Session | None, path: str | None):
        if visit is None or visit.result is None:
            return gr.skip()
        if path:
            visit.uploads.add(Path(path))
        visit.picture = (Path(path), None) if path else None
        return try_it(visit)

    def try_another(visit: Session | None):
        if visit is None or visit.result is None:
            return gr.skip()
        visit.picture = actions.draw(visit)
        return try_it(visit, with_picture=True)

    right.table.select(pick, session, [right.strip, right.head, right.picked, right.snippet, right.seen],
                       **COMPUTE, **PRIVATE)
    right.picture.input(try_upload, [session, right.picture], right.seen, **COMPUTE, **PRIVATE)
    right.another.click(try_another, session, [right.picture, right.seen], **COMPUTE, **PRIVATE)
