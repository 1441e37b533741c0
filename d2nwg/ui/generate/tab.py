"""The Generate tab: images in, classifier heads out."""

import logging
from contextlib import aclosing
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import gradio as gr

from d2nwg.ui import html as views
from d2nwg.ui.generate import html, service
from d2nwg.ui.generate.api import add_endpoints
from d2nwg.ui.generate.settings import DEFAULTS, SAMPLER_CHOICES, STEPS_INFO, check_settings, from_link
from d2nwg.ui.parts import COMPUTE, PRIVATE, Picture, Upload
from d2nwg.ui.session import Session
from d2nwg.ui.settings import bundle_names, example_names, task_names
from d2nwg.ui.work import UNEXPECTED, Work, see_through, stop_work
from d2nwg.utils.errors import Cancelled, UserError

log = logging.getLogger("d2nwg.ui")

KEY, LABEL = "generate", "Generate"
OWN = ("Your own images", "own")

SNIPPET = """from d2nwg import Head

head = Head.load("{file}")
probabilities, readable = head.probabilities(["picture.jpg"])
for name, p in zip(head.classes, probabilities[0]):
    print(f"{{name:20}} {{p:.1%}}")

layer = head.module()  # a plain torch module, on {encoder} features"""

# Keeps the address in step with the controls, so that it can be sent to somebody.
LINK = """(bundle, example, shots, samples, seed) => {
    const link = new URL(location.href), set = {bundle, example, shots, samples, seed};
    for (const [key, value] of Object.entries(set))
        value === null || value === "own" ? link.searchParams.delete(key) : link.searchParams.set(key, value);
    history.replaceState(history.state, "", link);
}"""


def build_tab(frame: SimpleNamespace) -> None:
    """Lay out the tab and wire it. `frame` has what all tabs share: ``demo``, ``session`` and ``bundle``."""
    with gr.Row(elem_id="generate", elem_classes="tab"):
        with gr.Column(elem_classes="choose", min_width=320):
            left = _left()
        with gr.Column(elem_classes="get", min_width=320):
            right = _right()
    _wire_images(frame, left)
    show = _wire_result(frame, left, right)
    frame.receivers[KEY] = show, list(vars(right).values())
    add_endpoints()


def _left() -> SimpleNamespace:
    """What a person chooses."""
    number = partial(gr.Number, precision=0, min_width=120)
    with gr.Column(elem_classes="card images-card"):
        gr.HTML(views.title("Images"))
        example = gr.Dropdown([*example_names(), OWN], value=DEFAULTS["example"], label="Example", elem_id="example")
        files = Upload(label="Your own images", file_count="multiple", height=84, elem_id="files")
        gr.HTML(views.hint("A zip or tar with one folder a class, or pictures named by class: cat_1.jpg, dog_1.jpg …"))
        shown = gr.HTML(elem_id="images")
    with gr.Column(elem_classes="card"):
        with gr.Row(elem_classes="pair"):
            shots = number(DEFAULTS["shots"], label="Images per class", info="the generator may see", elem_id="shots")
            samples = number(DEFAULTS["samples"], label="Samples", info="heads to generate", elem_id="samples")
        task = gr.Dropdown(
            [],
            value=None,
            label="Task",
            elem_id="task",
            allow_custom_value=True,
            visible=False,
            info="its name, or a mix: 0.5 digits + 0.5 digits-negative; empty: the images' name",
        )
        with gr.Accordion("Settings", open=False):
            with gr.Row(elem_classes="pair"):
                seed = number(DEFAULTS["seed"], label="Seed", info="same seed, same heads", elem_id="seed")
                steps = number(DEFAULTS["steps"], label="Steps", info=STEPS_INFO, elem_id="steps")
            sampler = gr.Radio(
                list(SAMPLER_CHOICES.items()), value=DEFAULTS["sampler"], label="Sampler", elem_id="sampler"
            )
            most = number(
                DEFAULTS["max_query"],
                label="Most images to measure on",
                elem_id="most",
                info="the others are left out, in equal parts from each class",
            )
        with gr.Accordion("Unlabelled images (optional)", open=False, elem_id="free-part"):
            free = Upload(label="Images without labels", file_count="multiple", height=84, elem_id="free")
            gr.HTML(
                views.hint(
                    "More pictures of the same classes, unsorted: a zip or loose files. The generator "
                    "learns from them how your images lie; they help most where few are labelled."
                )
            )
    with gr.Row(elem_classes="do"):
        go = gr.Button("Generate", variant="primary", elem_id="go", interactive=False)
        stop = gr.Button("Cancel", elem_id="stop", visible=False, min_width=100)
    status = gr.HTML(elem_id="status")
    return SimpleNamespace(
        example=example,
        files=files,
        shown=shown,
        shots=shots,
        samples=samples,
        seed=seed,
        steps=steps,
        sampler=sampler,
        most=most,
        free=free,
        task=task,
        go=go,
        stop=stop,
        status=status,
    )


def _right() -> SimpleNamespace:
    """What a person gets."""
    places = gr.HTML(html.places(), elem_id="places")
    with gr.Column(visible=False, elem_id="result") as made:
        sentence = gr.HTML(elem_id="sentence")
        with gr.Column(elem_classes="card"):
            gr.HTML(
                views.title(
                    "How good are the samples?",
                    "A dot for each sample. Lines: the chosen head, and baselines fitted to the same images.",
                )
            )
            strip = gr.Plot(show_label=False, container=False, elem_id="strip")
        with gr.Row(elem_classes="two"):
            with gr.Column(elem_classes="card"):
                gr.HTML(views.title("Where does it err?", "The chosen head on the held-out images; more is darker."))
                confusion = gr.Plot(show_label=False, container=False, elem_id="confusion")
            with gr.Column(elem_classes="card"):
                gr.HTML(views.title("Try it on a picture"))
                picture = Picture(
                    show_label=False,
                    sources=["upload", "clipboard"],
                    height=190,
                    buttons=[],
                    alt_text="the picture to try",
                    elem_id="picture",
                    placeholder="Drop a picture here, or click to choose one",
                )
                another = gr.Button("Show a held-out picture", size="sm", elem_id="another")
                seen = gr.HTML(elem_id="seen")
        with gr.Column(elem_classes="card"):
            gr.HTML(views.title("Pick a head", "Click a row: “Try it” and the first download then use that head."))
            table = gr.Dataframe(
                datatype=["str", "number", "number"],
                type="array",
                interactive=False,
                show_label=False,
                max_height=270,
                buttons=[],
                elem_id="table",
            )
            picked = gr.HTML(elem_id="picked")
        with gr.Column(elem_classes="card"):
            gr.HTML(views.title("Take it away"))
            with gr.Row(elem_classes="downloads"):
                head = gr.DownloadButton("Chosen head", variant="primary", elem_id="download-head")
                everything = gr.DownloadButton("All samples", elem_id="download-samples")
                report = gr.DownloadButton("Report", elem_id="download-report")
            snippet = gr.Code(
                language="python",
                label="Use it in Python",
                interactive=False,
                buttons=["copy"],
                show_line_numbers=False,
                wrap_lines=True,
                elem_id="snippet",
            )
    return SimpleNamespace(
        places=places,
        made=made,
        sentence=sentence,
        strip=strip,
        confusion=confusion,
        picture=picture,
        another=another,
        seen=seen,
        table=table,
        picked=picked,
        head=head,
        everything=everything,
        report=report,
        snippet=snippet,
    )


def _busy(left: SimpleNamespace, status: str = "") -> dict:
    return {left.go: gr.update(interactive=False), left.stop: gr.update(visible=True), left.status: status}


def _idle(left: SimpleNamespace, status: str = "") -> dict:
    return {left.go: gr.update(interactive=True), left.stop: gr.update(visible=False), left.status: status}


def _tasks(bundle: str | None):
    """The tasks to choose from, where the bundle is told them by name."""
    names = task_names(bundle)
    return gr.update(choices=names, value=None, visible=bool(names))


def _wire_images(frame: SimpleNamespace, left: SimpleNamespace) -> None:
    """Opening the page, and choosing images."""
    session, demo = frame.session, frame.demo
    linked = {"bundle": frame.bundle, **{key: vars(left)[key] for key in ("example", "shots", "samples", "seed")}}

    def open_page(request: gr.Request):
        visit = Session(request.session_hash)
        values, visit.news = from_link(dict(request.query_params))
        choices = {"choices": bundle_names()}  # trained since the app was started, perhaps
        asked = {"value": values.pop("bundle")} if "bundle" in values else {}
        values["bundle"] = gr.update(**choices, **asked)
        return {session: visit, **{linked[key]: value for key, value in values.items()}}

    async def load(kind: str, visit: Session | None, example: str, files: list[str] | None):
        """Load the example, the files, or (when they were taken away) the first example again. What was there
        before stays when that does not work."""
        visit = visit or Session()
        if kind == "example" and example == "own":
            ask = views.notice("Drop your images in the box below.", "note")
            yield {left.example: visit.example, left.status: ask}
            return
        if kind == "files":
            visit.uploads.update(map(Path, files or ()))
            example, source, other = "own", dict(files=files, into=visit.subfolder()), {}
        else:
            example = DEFAULTS["example"] if kind == "none" else example
            source, other = dict(example=example), {left.files: None}
        if visit.work:
            visit.work.cancel()
        work = visit.work = Work(partial(service.read_and_show, **source))
        yield {session: visit, **_busy(left)}
        images = visit.images
        try:
            async with aclosing(work.watch()) as stages:
                async for stage in stages:
                    yield {left.status: views.progress(stage)}
            images, shown = work.result()
            visit.example = example
            news = views.notice(visit.news, "note") if visit.news else ""
            update = {left.shown: shown, left.example: example, **other, **_idle(left, news)}
            visit.news = ""
        except Cancelled:
            update = _idle(left, views.notice(f"Stopped. {html.kept(images=images)}", "note"))
        except UserError as reason:
            update = {left.files: None, **_idle(left, views.notice(f"{reason} {html.kept(images=images)}"))}
        if visit.work is work:  # otherwise something newer has taken over
            visit.images, visit.work = images, None
            yield update

    source = [session, left.example, left.files]
    changed = [session, left.shown, left.status, left.go, left.stop, left.files, left.example]
    opened = demo.load(open_page, None, [session, *linked.values()], **PRIVATE)
    opened.then(partial(load, "example"), source, changed, **PRIVATE)
    left.example.input(partial(load, "example"), source, changed, **PRIVATE)
    left.files.upload(partial(load, "files"), source, changed, **PRIVATE)
    left.files.clear(partial(load, "none"), source, changed, **PRIVATE)
    frame.bundle.change(_tasks, frame.bundle, left.task, **PRIVATE)
    gr.on(
        [control.change for control in linked.values()],
        None,
        list(linked.values()),
        None,
        js=LINK,
        api_visibility="private",
    )


def _wire_result(frame: SimpleNamespace, left: SimpleNamespace, right: SimpleNamespace):
    """Generating, stopping, and looking at what came out. Returns what shows a visitor's result, whoever made it."""
    session = frame.session

    def start(visit: Session | None, free: list[str] | None, bundle: str | None, *numbers):
        if visit is None or visit.images is None:
            return {left.status: views.notice("This page was left alone for long; choose the images again.")}
        if visit.work and visit.work.started:
            return gr.skip()
        try:
            settings = check_settings(bundle, *numbers)
        except UserError as reason:
            return {left.status: views.notice(str(reason))}
        visit.uploads.update(map(Path, free or ()))
        visit.work = Work(partial(service.make_result, visit.images, settings, visit.subfolder(), free))
        return _busy(left, views.notice("Waiting for a free place …", "note"))

    async def run(visit: Session | None):
        if visit is None or (work := visit.work) is None or work.started:
            yield gr.skip()
            return

        def done(result) -> dict:
            visit.result, visit.picked = result, None
            seconds = result.generation.report.seconds.total
            return {**show(visit), **_idle(left, views.notice(f"Done in {seconds:.1f} s.", "good"))}

        kept, idle = html.kept(result=visit.result), partial(_idle, left)
        async with aclosing(see_through(visit, work, left.status, kept, idle, done)) as updates:
            async for update in updates:
                yield update

    def cancel(visit: Session | None):
        if stop_work(visit):
            return {left.status: views.notice("Stopping …", "note"), left.stop: gr.update(visible=False)}
        return _idle(left, views.notice("Cancelled.", "note"))

    def show(visit: Session) -> dict:
        """The whole result."""
        result, report = visit.result, visit.result.generation.report
        visit.picture = service.draw(visit)
        return {
            right.places: gr.update(visible=False),
            right.made: gr.update(visible=True),
            right.sentence: html.result(report),
            right.table: html.table(report),
            right.strip: result.figures[0],
            right.confusion: result.figures[1],
            right.everything: str(result.files["samples"]),
            right.report: str(result.files["report"]),
            **use(visit, result.files["head"]),
            **try_it(visit, with_picture=True),
        }

    def show_any(visit: Session) -> dict:
        """The whole result, with the visitor's own choice of a sample in use."""
        everything, picked = show(visit), visit.picked
        if picked is None:
            return everything
        saved = visit.result.head(picked).save(visit.subfolder() / f"head-sample-{picked}.safetensors")
        return {**everything, **use(visit, saved)}

    def use(visit: Session, file: Path) -> dict:
        """The download and the words for the head in use."""
        generation, picked = visit.result.generation, visit.picked
        name = "chosen head" if picked is None else f"sample {picked}"
        about = (
            generation.report.selection
            if picked is None
            else f"right on {views.percent(generation.report.samples[picked].accuracy)}"
        )
        code = SNIPPET.format(file=file.name, encoder=generation.head.encoder)
        return {
            right.head: gr.update(value=str(file), label=name.capitalize()),
            right.snippet: code,
            right.picked: views.notice(f"In use: {name} ({about}).", "note"),
        }

    def try_it(visit: Session, with_picture: bool = False) -> dict:
        """What the head in use sees in the picture at hand."""
        item, truth = visit.picture or (None, None)
        if item is None:
            return {right.seen: views.hint("The five likeliest classes will stand here.")}
        which = "The chosen head" if visit.picked is None else f"Sample {visit.picked}"
        try:
            seen = html.seen(which, service.look(visit.result.head(visit.picked), item), truth)
        except UserError as reason:
            seen = views.notice(str(reason))
        except Exception:
            log.exception("Unforeseen")
            seen = views.notice(UNEXPECTED)
        picture = {right.picture: service.preview(item, visit.subfolder())} if with_picture else {}
        return {right.seen: seen, **picture}

    def pick(visit: Session | None, event: gr.SelectData):
        if visit is None or visit.result is None:
            return gr.skip()
        name = str(event.row_value[0])
        visit.picked = int(name.split()[-1]) if name.startswith("sample ") else None
        file = "head.safetensors" if visit.picked is None else f"head-sample-{visit.picked}.safetensors"
        saved = visit.result.head(visit.picked).save(visit.subfolder() / file)
        figure = service.strip(visit.result.generation.report, visit.picked)
        return {right.strip: figure, **use(visit, saved), **try_it(visit)}

    def try_upload(visit: Session | None, path: str | None):
        if visit is None or visit.result is None or path is None:
            return gr.skip()
        visit.uploads.add(Path(path))
        visit.picture = (Path(path), None)
        return try_it(visit)

    def try_nothing(visit: Session | None):
        if visit is None or visit.result is None:
            return gr.skip()
        visit.picture = None
        return try_it(visit)

    def try_another(visit: Session | None):
        if visit is None or visit.result is None:
            return gr.skip()
        visit.picture = service.draw(visit)
        return try_it(visit, with_picture=True)

    doing = [left.go, left.stop, left.status]
    chosen = [frame.bundle, left.shots, left.samples, left.seed, left.steps, left.most, left.task, left.sampler]
    ready = left.go.click(start, [session, left.free, *chosen], doing, queue=False, **PRIVATE)
    done = ready.then(run, session, [*doing, *vars(right).values()], **COMPUTE, **PRIVATE)
    done.failure(
        lambda: _idle(left, views.notice("Too many people are waiting; please try again in a minute.")),
        None,
        doing,
        queue=False,
        **PRIVATE,
    )
    left.stop.click(cancel, session, doing, queue=False, **PRIVATE)
    right.table.select(
        pick, session, [right.strip, right.head, right.snippet, right.picked, right.seen], **COMPUTE, **PRIVATE
    )
    # not .input, which fires on clearing too, still with the picture that was there
    right.picture.upload(try_upload, [session, right.picture], right.seen, **COMPUTE, **PRIVATE)
    right.picture.clear(try_nothing, session, right.seen, **PRIVATE)
    right.another.click(try_another, session, [right.picture, right.seen], **COMPUTE, **PRIVATE)
    return show_any
