"""The Train tab: a zoo, a recipe, and jobs that go on when the page is closed."""

import asyncio
from contextlib import aclosing
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import gradio as gr

from d2nwg.generators import GENERATORS, get_generator
from d2nwg.training.settings import as_text, meanings
from d2nwg.ui import html as views
from d2nwg.ui.parts import PRIVATE, Upload
from d2nwg.ui.session import Session
from d2nwg.ui.settings import bundle_names
from d2nwg.ui.train import service
from d2nwg.ui.work import Work
from d2nwg.utils.errors import Cancelled, UserError

KEY, LABEL = "train", "Train"
EVERY = 1.5  # seconds between two looks at the jobs
FINISHED = "Choose it above, at “Bundle”, or press the button: then the Generate tab uses it."
SAMPLED = "It makes whole models: download it, or sample with python -m d2nwg sample."


def build_tab(frame: SimpleNamespace) -> None:
    """Lay out the tab and wire it. `frame` has ``demo``, ``session``, ``bundle``, and where there are several tabs
    ``tabs``."""
    if reason := service.why_off():
        gr.HTML(views.notice(reason, "note"), elem_id="train-off")
        return
    with gr.Row(elem_id="train", elem_classes="tab"):
        with gr.Column(elem_classes="choose wide", min_width=320):
            zoo, recipe = _zoo_card(), _recipe_card()
        with gr.Column(elem_classes="get", min_width=320):
            jobs = _jobs_card()
    timer = gr.Timer(EVERY)  # always: whether the tab is in view is told late, and a look costs milliseconds
    _wire_zoo(frame, zoo, jobs)
    _wire_recipe(zoo, recipe, jobs)
    _wire_jobs(frame, zoo, jobs, timer)


def _zoo_card() -> SimpleNamespace:
    number = partial(gr.Number, precision=0, min_width=110)
    with gr.Column(elem_classes="card"):
        gr.HTML(views.title("1 · Zoo", "Trained weights to learn from."))
        way = gr.Radio(
            [("Build from images", "build"), ("Import checkpoints", "import")],
            value="build",
            show_label=False,
            container=False,
            elem_id="zoo-way",
        )
        files = Upload(label="Your files", file_count="multiple", height=130, elem_id="zoo-files", elem_classes="drop")
        hint = gr.HTML(_way_hint("build"))
        status = gr.HTML(elem_id="zoo-status")
        found = gr.HTML(elem_id="zoo-found")
        figure = gr.Plot(show_label=False, container=False, visible=False, elem_id="zoo-figure")
        name = gr.Textbox(label="Name of the zoo", max_lines=1, elem_id="zoo-name")
        append = gr.Checkbox(
            False, label="Add to it, if there is a zoo of this name", visible=False, elem_id="zoo-append"
        )
        with gr.Accordion("Settings", open=False) as settings:
            with gr.Row(elem_classes="pair"):
                subsets = number(2000, label="Heads", info="each on random classes", elem_id="zoo-subsets")
                images = number(20, label="Images per class", info="a head is trained on", elem_id="zoo-images")
            with gr.Row(elem_classes="pair"):
                low = number(2, label="Fewest classes", elem_id="zoo-low")
                high = number(10, label="Most classes", elem_id="zoo-high")
            seed = number(0, label="Seed", elem_id="zoo-seed")
        go = gr.Button("Build the zoo", elem_id="zoo-go")
        chosen = gr.Dropdown(
            [],
            value=None,
            label="Zoo to train on",
            info="one of these, or the path of a folder",
            allow_custom_value=True,
            elem_id="zoo-chosen",
        )
        told = gr.HTML(service.describe_zoo(None), elem_id="zoo-told")
    return SimpleNamespace(
        way=way,
        files=files,
        hint=hint,
        status=status,
        found=found,
        figure=figure,
        name=name,
        append=append,
        settings=settings,
        numbers=[subsets, low, high, images, seed],
        go=go,
        chosen=chosen,
        told=told,
    )


def _way_hint(way: str) -> str:
    return views.hint(
        {
            "build": "One zip a data set, with one folder a class. Thousands of heads are trained on random classes.",
            "import": "A zip of .safetensors, .pt, .pth or .th files, or save_pretrained folders; with a CSV of file, "
            "task, accuracy, epoch if you have one. Pickles that need code are refused.",
        }[way]
    )


def _recipe_card() -> SimpleNamespace:
    boxes: dict[str, dict[str, gr.Textbox]] = {}
    with gr.Column(elem_classes="card"):
        gr.HTML(views.title("2 · Recipe", "What is trained on it, and how long."))
        generator = gr.Radio(
            [(generator.label, name) for name, generator in GENERATORS.items()],
            value="unet",
            label="Generator",
            elem_id="recipe-generator",
        )
        preset = gr.Dropdown(
            list(GENERATORS["unet"].config_class.PRESETS),
            value="tiny",
            label="Preset",
            elem_id="recipe-preset",
            info="tiny: to try it out; small: a laptop; standard: longer; paper: a GPU",
        )
        with gr.Accordion("All settings", open=False, elem_id="recipe-settings"):
            gr.HTML(views.hint("An empty box is the preset's value, which stands in it in grey."))
            groups = {}
            for key, kind in GENERATORS.items():
                config = kind.config_class
                start = config.preset(next(iter(config.PRESETS))).to_config()
                with gr.Column(visible=key == "unet") as groups[key]:
                    boxes[key] = {
                        field: gr.Textbox(
                            label=field.replace("_", " "), info=meaning, max_lines=1, placeholder=as_text(start[field])
                        )
                        for field, meaning in meanings(config).items()
                    }
        name = gr.Textbox("my-bundle", label="Name of the bundle", max_lines=1, elem_id="recipe-name")
        told = gr.HTML(
            views.hint("How long will it take? “Measure” runs a few steps of each stage and tells."),
            elem_id="recipe-told",
        )
        with gr.Row(elem_classes="do"):
            go = gr.Button("Train", variant="primary", elem_id="train-go")
            ask = gr.Button("Measure", elem_id="train-measure", min_width=100)
        status = gr.HTML(elem_id="train-status")
    return SimpleNamespace(
        generator=generator,
        preset=preset,
        groups=groups,
        boxes=boxes,
        name=name,
        told=told,
        go=go,
        ask=ask,
        status=status,
    )


def _jobs_card() -> SimpleNamespace:
    with gr.Column(elem_classes="card"):
        gr.HTML(views.title("3 · Jobs", "Each is a process of its own; close this page and it goes on."))
        listing = gr.HTML(service.jobs_html(None), elem_id="jobs")
        with gr.Column(visible=False) as one:
            pick = gr.Dropdown([], value=None, label="Job", elem_id="job")
            with gr.Row(elem_classes="do verbs"):
                pause = gr.Button("Pause", elem_id="job-pause", min_width=80, interactive=False)
                resume = gr.Button("Resume", elem_id="job-resume", min_width=80, interactive=False)
                stop = gr.Button("Stop", elem_id="job-stop", min_width=80, interactive=False)
                delete = gr.Button("Delete", elem_id="job-delete", min_width=80, interactive=False)
            said = gr.HTML(elem_id="job-said")
    with gr.Column(elem_classes="card", visible=False, elem_id="job-done") as done:
        ready = gr.HTML(views.title("The bundle is ready", FINISHED))
        with gr.Row(elem_classes="downloads"):
            use = gr.Button("Use it in Generate", variant="primary", elem_id="job-use")
            pack = gr.DownloadButton("Pack it for download", elem_id="job-pack")
    with gr.Column(visible=False) as figures:
        with gr.Column(elem_classes="card"):
            gr.HTML(
                views.title(
                    "Is it still learning?",
                    "The loss of each stage; a long one is smoothed, as measured in grey behind it.",
                )
            )
            losses = gr.Plot(show_label=False, container=False, elem_id="job-losses")
        with gr.Column(elem_classes="card") as good:
            gr.HTML(views.title("How good are the heads?", "Right on images and heads that training never sees."))
            rights = gr.Plot(show_label=False, container=False, elem_id="job-rights")
    with gr.Column(elem_classes="card", visible=False) as logs:
        with gr.Accordion("Log", open=False, elem_id="job-logs"):
            log = gr.Code(
                language=None,
                show_label=False,
                interactive=False,
                lines=4,
                max_lines=16,
                elem_id="job-log",
                show_line_numbers=False,
                wrap_lines=True,
            )
        download = gr.DownloadButton("Download the log", size="sm", elem_id="job-log-download")
    seen = gr.State("")
    return SimpleNamespace(
        listing=listing,
        one=one,
        pick=pick,
        pause=pause,
        resume=resume,
        stop=stop,
        delete=delete,
        said=said,
        done=done,
        ready=ready,
        use=use,
        pack=pack,
        figures=figures,
        losses=losses,
        rights=rights,
        good=good,
        logs=logs,
        log=log,
        download=download,
        seen=seen,
    )


async def _follow(work: Work, status):
    """Yield the updates of a status line while `work` runs; at the end its result as ``(None, result)``."""
    try:
        async with aclosing(work.watch()) as stages:
            async for stage in stages:
                yield {status: views.progress(stage)}, None
        yield None, work.result()
    except Cancelled:
        yield {status: views.notice("Stopped.", "note")}, None
    except UserError as reason:
        yield {status: views.notice(str(reason))}, None


def _wire_zoo(frame: SimpleNamespace, zoo: SimpleNamespace, jobs: SimpleNamespace) -> None:
    session = frame.session

    def turn(way: str):
        build = way == "build"
        return {
            zoo.hint: _way_hint(way),
            zoo.settings: gr.update(visible=build),
            zoo.found: "",
            zoo.status: "",
            zoo.append: gr.update(visible=not build),
            zoo.figure: gr.update(visible=False),
            zoo.files: None,
            zoo.go: "Build the zoo" if build else "Import them",
        }

    async def look(visit: Session | None, way: str, files: list[str] | None, name: str):
        visit = visit or Session()
        visit.uploads.update(map(Path, files or ()))
        function = service.describe_sets if way == "build" else service.look_at_checkpoints
        yield {session: visit, zoo.go: gr.update(interactive=False)}
        update = {}
        async with aclosing(_follow(Work(partial(function, files, visit.subfolder())), zoo.status)) as steps:
            async for update, result in steps:
                if update is not None:
                    yield update
                elif way == "build":
                    update = {zoo.found: result, zoo.status: ""}
                else:
                    from d2nwg.figures.train import weights_figure

                    update = {
                        zoo.found: result[0],
                        zoo.status: "",
                        zoo.figure: gr.update(value=weights_figure(result[1]), visible=True),
                    }
        stem = Path(files[0]).stem if files else ""
        known = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in stem).strip("-._")[:60]
        yield {**update, zoo.go: gr.update(interactive=True), zoo.name: name or known}

    async def go(visit: Session | None, way: str, files: list[str] | None, name: str, append: bool, *numbers):
        visit = visit or Session()
        if way == "build":
            try:
                job = await asyncio.to_thread(service.submit_zoo, files, name, *numbers)
                yield {
                    session: visit,
                    zoo.status: views.notice(f"The zoo {name} is in line: see Jobs.", "good"),
                    jobs.pick: gr.update(choices=service.job_choices(), value=job.id),
                }
            except UserError as reason:
                yield {session: visit, zoo.status: views.notice(str(reason))}
            return
        work = Work(partial(service.import_zoo, files, name, visit.subfolder(), append))
        async with aclosing(_follow(work, zoo.status)) as steps:
            async for update, result in steps:
                yield update or {session: visit, zoo.status: views.notice(result, "good")}

    zoo.way.change(
        turn,
        zoo.way,
        [zoo.hint, zoo.settings, zoo.append, zoo.found, zoo.status, zoo.figure, zoo.files, zoo.go],
        **PRIVATE,
    )
    zoo.files.upload(
        look,
        [session, zoo.way, zoo.files, zoo.name],
        [session, zoo.status, zoo.found, zoo.figure, zoo.go, zoo.name],
        **PRIVATE,
    )
    zoo.files.clear(lambda: ("", "", gr.update(visible=False)), None, [zoo.found, zoo.status, zoo.figure], **PRIVATE)
    zoo.go.click(
        go,
        [session, zoo.way, zoo.files, zoo.name, zoo.append, *zoo.numbers],
        [session, zoo.status, jobs.pick],
        **PRIVATE,
    ).then(service.describe_zoo, zoo.chosen, zoo.told, **PRIVATE)
    zoo.chosen.change(service.describe_zoo, zoo.chosen, zoo.told, **PRIVATE)


def _wire_recipe(zoo: SimpleNamespace, recipe: SimpleNamespace, jobs: SimpleNamespace) -> None:
    flat = [box for group in recipe.boxes.values() for box in group.values()]

    def show(generator: str, preset: str):
        config = GENERATORS[generator].config_class
        preset = preset if preset in config.PRESETS else next(iter(config.PRESETS))
        known = config.preset(preset).to_config()
        return {
            recipe.preset: gr.update(choices=list(config.PRESETS), value=preset),
            recipe.told: "",
            **{column: gr.update(visible=key == generator) for key, column in recipe.groups.items()},
            **{box: gr.update(placeholder=as_text(known[field])) for field, box in recipe.boxes[generator].items()},
        }

    def config(generator: str, preset: str, texts):
        values = dict(zip(((key, field) for key, group in recipe.boxes.items() for field in group), texts, strict=True))
        return service.recipe(
            generator, preset, {field: text for (key, field), text in values.items() if key == generator}
        )

    async def ask(chosen: str | None, generator: str, preset: str, *texts):
        try:
            work = Work(partial(service.measure, chosen, config(generator, preset, texts)))
        except UserError as reason:
            yield {recipe.told: views.notice(str(reason))}
            return
        yield {recipe.ask: gr.update(interactive=False)}
        async with aclosing(_follow(work, recipe.told)) as steps:
            async for update, result in steps:
                yield update or {recipe.told: views.notice(result, "note")}
        yield {recipe.ask: gr.update(interactive=True)}

    async def go(chosen: str | None, name: str, generator: str, preset: str, *texts):
        from d2nwg.jobs.queue import submit_training

        try:
            job = await asyncio.to_thread(
                lambda: submit_training(name, [service.zoo_path(chosen)], config(generator, preset, texts))
            )
        except UserError as reason:
            return {recipe.status: views.notice(str(reason))}
        return {
            recipe.status: views.notice(f"The training {job.spec['name']} is in line: see Jobs.", "good"),
            jobs.pick: gr.update(choices=service.job_choices(), value=job.id),
        }

    gr.on(
        [recipe.generator.change, recipe.preset.input],
        show,
        [recipe.generator, recipe.preset],
        [recipe.preset, recipe.told, *recipe.groups.values(), *flat],
        **PRIVATE,
    )
    zoo.chosen.change(service.suiting, [zoo.chosen, recipe.generator], recipe.generator, **PRIVATE)
    recipe.ask.click(
        ask,
        [zoo.chosen, recipe.generator, recipe.preset, *flat],
        [recipe.told, recipe.ask],
        concurrency_limit=1,
        **PRIVATE,
    )
    recipe.go.click(
        go, [zoo.chosen, recipe.name, recipe.generator, recipe.preset, *flat], [recipe.status, jobs.pick], **PRIVATE
    )


def _wire_jobs(frame: SimpleNamespace, zoo: SimpleNamespace, jobs: SimpleNamespace, timer: gr.Timer) -> None:
    from d2nwg.jobs import queue as library
    from d2nwg.jobs.job import get_job

    def look(picked: str | None, seen: str, chosen: str | None) -> dict:
        """Everything that may have changed since the last look; `seen` tells what was shown then."""
        library.start_next()
        choices, zoos = service.job_choices(), service.zoo_names()
        ids = [key for _, key in choices]
        picked = picked if picked in ids else next(iter(ids), None)
        update = {jobs.listing: service.jobs_html(picked), jobs.one: gr.update(visible=bool(ids))}
        before = dict(part.split("=", 1) for part in seen.split("\n") if part)
        now = {"jobs": repr(choices) + str(picked), "zoos": repr(zoos), "bundles": repr(bundle_names())}
        if now["jobs"] != before.get("jobs"):
            update[jobs.pick] = gr.update(choices=choices, value=picked)
        if now["zoos"] != before.get("zoos"):
            update[zoo.chosen] = gr.update(choices=zoos, value=chosen or next(iter(zoos), None))
        if now["bundles"] != before.get("bundles"):
            update[frame.bundle] = gr.update(choices=bundle_names())
        job = get_job(picked) if picked else None
        state = job.state()["state"] if job else ""
        lines = job.metrics() if job and job.spec["kind"] == "train" else []
        heads = bool(lines) and get_generator(job.spec["parameters"]["generator"]).makes == "head"
        now["state"], now["lines"] = f"{picked} {state}", f"{picked} {len(lines)}"
        now["log"] = f"{picked} {job.log.stat().st_size if job and job.log.is_file() else 0}"
        if now["state"] != before.get("state"):
            update |= {
                jobs.pause: gr.update(interactive=state == "running"),
                jobs.resume: gr.update(interactive=state in library.RESUMABLE),
                jobs.stop: gr.update(interactive=state in library.UNFINISHED),
                jobs.delete: gr.update(interactive=bool(job) and state not in ("running", "paused")),
                jobs.done: gr.update(visible=bool(job) and state == "finished" and job.spec["kind"] == "train"),
                jobs.ready: views.title("The bundle is ready", FINISHED if heads else SAMPLED),
                jobs.use: gr.update(visible=heads),
                jobs.logs: gr.update(visible=bool(job)),
            }
        if now["lines"] != before.get("lines"):
            update[jobs.figures] = gr.update(visible=bool(lines))
            if lines:
                from d2nwg.figures.train import accuracies_figure, losses_figure

                rights = accuracies_figure(lines)
                update |= {
                    jobs.losses: losses_figure(lines),
                    jobs.rights: rights,
                    jobs.good: gr.update(visible=heads or bool(rights.data)),
                }
        if now["log"] != before.get("log"):
            update[jobs.log] = service.log_end(job) if job else ""
        return {**update, jobs.seen: "\n".join(f"{key}={value}" for key, value in now.items())}

    def act(verb: str, picked: str | None) -> str:
        try:
            job = get_job(picked or "")
            getattr(library, verb)(job)
        except UserError as reason:
            return views.notice(str(reason))
        return views.notice(f"{job.spec['name']} is deleted.", "note") if verb == "delete" else ""

    def use(picked: str | None):
        name = get_job(picked or "").out.name
        return gr.update(choices=bundle_names(), value=name), gr.Tabs(selected="generate")

    def pack(visit: Session | None, picked: str | None):
        from d2nwg.bundles import pack_bundle

        visit = visit or Session()
        made = pack_bundle(get_job(picked or "").out, visit.subfolder())
        return visit, gr.update(value=str(made), label=f"Download {made.name}")

    def log(visit: Session | None, picked: str | None):
        visit = visit or Session()
        return visit, str(service.download_log(get_job(picked or ""), visit.subfolder()))

    outputs = [
        jobs.listing,
        jobs.one,
        jobs.pick,
        zoo.chosen,
        frame.bundle,
        jobs.pause,
        jobs.resume,
        jobs.stop,
        jobs.delete,
        jobs.done,
        jobs.ready,
        jobs.use,
        jobs.logs,
        jobs.figures,
        jobs.good,
        jobs.losses,
        jobs.rights,
        jobs.log,
        jobs.seen,
    ]
    inputs = [jobs.pick, jobs.seen, zoo.chosen]
    timer.tick(look, inputs, outputs, concurrency_limit=2, **PRIVATE)
    jobs.pick.change(look, inputs, outputs, **PRIVATE)
    frame.demo.load(look, inputs, outputs, **PRIVATE)
    if tabs := getattr(frame, "tabs", None):
        jobs.use.click(use, jobs.pick, [frame.bundle, tabs], **PRIVATE)
    for verb in ("pause", "resume", "stop", "delete"):
        vars(jobs)[verb].click(partial(act, verb), jobs.pick, jobs.said, **PRIVATE).then(
            look, inputs, outputs, **PRIVATE
        )
    jobs.pack.click(pack, [frame.session, jobs.pick], [frame.session, jobs.pack], **PRIVATE)
    jobs.download.click(log, [frame.session, jobs.pick], [frame.session, jobs.download], **PRIVATE)
