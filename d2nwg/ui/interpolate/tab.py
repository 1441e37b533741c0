"""The Interpolate tab: heads on the way from one task to another."""

import logging
from contextlib import aclosing
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import gradio as gr

from d2nwg.interpolation.methods import LABELS, METHODS
from d2nwg.ui import html as views
from d2nwg.ui.interpolate import html as own
from d2nwg.ui.interpolate.api import add_endpoint
from d2nwg.ui.interpolate.html import DEFAULTS, NONE
from d2nwg.ui.parts import COMPUTE, PRIVATE, Upload
from d2nwg.ui.session import Session
from d2nwg.ui.settings import bundle_names
from d2nwg.ui.work import UNEXPECTED, Work, see_through, stop_work
from d2nwg.utils.errors import UserError

log = logging.getLogger("d2nwg.ui")

KEY, LABEL = "interpolate", "Interpolate"
LETTERS = ("a", "b", "c")
OWN_LABEL = "Your own images, or a saved head"

LINK = """(from, to, third, way, alpha, bundle) => {
    if (!document.querySelector("#interpolate")?.offsetParent) return;
    const link = new URL(location.href), set = {tab: "interpolate", from, to, third, way, alpha, with: bundle};
    for (const [key, value] of Object.entries(set))
        value === null || value === "own" || value === "none" ? link.searchParams.delete(key)
            : link.searchParams.set(key, value);
    history.replaceState(history.state, "", link);
}"""


def build_tab(frame: SimpleNamespace) -> None:
    """Lay out the tab and wire it. `frame` has what all tabs share: ``demo`` and ``session``."""
    with gr.Row(elem_id="interpolate", elem_classes="tab"):
        with gr.Column(elem_classes="choose", min_width=320):
            left = _left()
        with gr.Column(elem_classes="get", min_width=320):
            right = _right()
    _wire_ends(frame, left, right)
    _wire_walk(frame, left, right)
    _wire_slider(frame, right)
    add_endpoint()
    frame.receivers[KEY] = partial(_receive, left), [part["a"] for part in (left.choose, left.drop, left.strip)]


def _receive(left: SimpleNamespace, visit: Session, file: Path) -> dict:
    """A head that another tab sends becomes the first end."""
    return {
        left.choose["a"]: "own",
        left.drop["a"]: gr.update(value=[str(file)], visible=True),
        left.strip["a"]: views.notice("A head from Explore. The other end needs the same classes.", "note"),
    }


def _left() -> SimpleNamespace:
    """What a person chooses."""
    number = partial(gr.Number, precision=0, min_width=110)
    choose, drop, strip = {}, {}, {}
    for letter, title in zip("ab", ("From A", "To B"), strict=True):
        with gr.Column(elem_classes="card"):
            gr.HTML(views.title(title))
            _end(letter, title, choose, drop, strip)
    with gr.Column(elem_classes="card"):
        gr.HTML(
            views.hint(
                "Both ends need the same classes, named alike. Your own: a zip of class folders, or a head "
                "file from Generate at one end."
            )
        )
        bundle = gr.Dropdown(
            bundle_names(),
            value=own.default_bundle(),
            label="Bundle",
            elem_id="path-bundle",
            info="with tasks-…, the ends are tasks that the bundle is told by name",
        )
        with gr.Accordion("Add a third end", open=False):
            _end("c", "A third end, C", choose, drop, strip)
        with gr.Accordion("Settings", open=False):
            with gr.Row(elem_classes="pair"):
                points = number(DEFAULTS["points"], label="Points", info="of the path", elem_id="points")
                seeds = number(DEFAULTS["seeds"], label="Paths", info="each from its own noise", elem_id="paths")
            with gr.Row(elem_classes="pair"):
                samples = number(DEFAULTS["samples"], label="Heads a point", info="averaged", elem_id="path-samples")
                shots = number(DEFAULTS["shots"], label="Images a class", info="it may see", elem_id="path-shots")
            seed = number(DEFAULTS["seed"], label="Seed", info="same seed, same path", elem_id="path-seed")
    with gr.Row(elem_classes="do"):
        go = gr.Button("Walk", variant="primary", elem_id="walk")
        stop = gr.Button("Cancel", elem_id="stop-walk", visible=False, min_width=100)
    status = gr.HTML(elem_id="walk-status", elem_classes="status")
    return SimpleNamespace(
        choose=choose,
        drop=drop,
        strip=strip,
        bundle=bundle,
        points=points,
        seeds=seeds,
        samples=samples,
        shots=shots,
        seed=seed,
        go=go,
        stop=stop,
        status=status,
    )


def _end(letter: str, title: str, choose: dict, drop: dict, strip: dict) -> None:
    """The controls of one end."""
    names, _ = own.choices(own.default_bundle())
    choose[letter] = gr.Dropdown(
        [NONE, *names] if letter == "c" else names,
        value=DEFAULTS[letter],
        label=title,
        show_label=letter == "c",
        elem_id=f"end-{letter}",
    )
    drop[letter] = Upload(
        label=OWN_LABEL, file_count="multiple", height=84, visible=False, elem_id=f"files-{letter}", elem_classes="drop"
    )
    strip[letter] = gr.HTML(elem_id=f"strip-{letter}")


def _right() -> SimpleNamespace:
    """What a person gets."""
    places = gr.HTML(own.places(), elem_id="walk-places")
    plot = partial(gr.Plot, show_label=False, container=False)
    with gr.Column(visible=False, elem_id="walked", elem_classes="results") as made:
        sentence = gr.HTML(elem_id="walk-sentence")
        with gr.Column(elem_classes="card"):
            gr.HTML(views.title("Walk along the path", "Every stop of the slider is a head that was measured."))
            way = gr.Radio(METHODS, label="Mixed", elem_id="way")
            alpha = gr.Slider(0, 1, DEFAULTS["alpha"], step=0.05, label="Share of B", elem_id="alpha", buttons=[])
            where = gr.HTML(elem_id="where")
            pictures = gr.HTML(elem_id="looked")
            with gr.Row(elem_classes="downloads"):
                head = gr.DownloadButton("The head at this point", variant="primary", elem_id="download-point")
                everything = gr.DownloadButton("Path, figures and all heads", elem_id="download-path")
        with gr.Row(elem_classes="two"):
            curves, titles = [], []
            for letter in "AB":
                with gr.Column(elem_classes="card") as card:
                    gr.HTML(
                        views.title(
                            f"What happens between? On the images of {letter}",
                            "A line a way, a band of one standard deviation over paths. Shaded: the "
                            "condition is outside of what was seen.",
                        )
                    )
                    curves.append(plot(elem_id=f"curve-{letter.lower()}"))
                titles.append(card)
        with gr.Row(elem_classes="two"):
            with gr.Column(elem_classes="card"):
                gr.HTML(
                    views.title(
                        "How deep is the valley?",
                        "The worst drop under the straight line between the ends. Lower is better.",
                    )
                )
                barrier = plot(elem_id="barrier")
            with gr.Column(elem_classes="card") as distance_card:
                gr.HTML(
                    views.title(
                        "Is the way outside of what was seen?",
                        "Distance of each mixed condition to the nearest task of the zoo.",
                    )
                )
                distance = plot(elem_id="distance")
        with gr.Column(elem_classes="card") as map_card:
            gr.HTML(views.title("Where does the path run?", "A dot a task or a head of the zoo; principal components."))
            map_of = gr.Radio(own.MAPS, value=own.MAPS[0][1], show_label=False, container=False, elem_id="map-of")
            chart = plot(elem_id="path-map")
        with gr.Column(elem_classes="card", visible=False, elem_id="mix-card") as mix_card:
            gr.HTML(views.title("Mix all three", "Heads for any shares of the three ends, made as you ask."))
            with gr.Row():
                shares = [
                    gr.Slider(
                        0, 1, 1, step=0.05, label=f"Share of {letter.upper()}", buttons=[], elem_id=f"share-{letter}"
                    )
                    for letter in LETTERS
                ]
            mixed = gr.HTML(elem_id="mixed")
            mixed_pictures = gr.HTML(elem_id="mixed-looked")
            mixed_head = gr.DownloadButton("This mix", elem_id="download-mix")
    return SimpleNamespace(
        places=places,
        made=made,
        sentence=sentence,
        way=way,
        alpha=alpha,
        where=where,
        pictures=pictures,
        head=head,
        everything=everything,
        curve_a=curves[0],
        curve_b=curves[1],
        card_a=titles[0],
        card_b=titles[1],
        barrier=barrier,
        distance=distance,
        distance_card=distance_card,
        map=chart,
        map_of=map_of,
        map_card=map_card,
        mix_card=mix_card,
        share_a=shares[0],
        share_b=shares[1],
        share_c=shares[2],
        mixed=mixed,
        mixed_pictures=mixed_pictures,
        mixed_head=mixed_head,
    )


def _wire_ends(frame: SimpleNamespace, left: SimpleNamespace, right: SimpleNamespace) -> None:
    """Opening the page, and choosing the ends."""
    linked = {**left.choose, "way": right.way, "alpha": right.alpha, "bundle": left.bundle}

    def open_page(request: gr.Request):
        values = own.from_link(dict(request.query_params))
        others = {linked[key]: value for key, value in values.items() if key not in LETTERS}
        known = {"choices": bundle_names()}  # trained since the app was started, perhaps
        others[left.bundle] = gr.update(**known, **({"value": values["bundle"]} if "bundle" in values else {}))
        return {**others, **ends(values.get("bundle", own.default_bundle()), values)}

    def ends(bundle: str | None, values: dict) -> dict:
        """The ends that a bundle can have, as a link asks for them or as they are at first."""
        names, first = own.choices(bundle)
        told, update = names[0][1].startswith("task:"), {}
        for letter in LETTERS:
            value = values.get(letter, first[letter])
            update[left.choose[letter]] = gr.update(choices=[NONE, *names] if letter == "c" else names, value=value)
            update[left.drop[letter]] = gr.update(
                value=None, visible=told and value != NONE[1], label="Images to score on" if told else OWN_LABEL
            )
            update[left.strip[letter]] = own.end_strip(value)
        return update

    def look(letter: str, visit: Session | None, name: str, files: list[str] | None):
        visit = visit or Session()
        visit.uploads.update(map(Path, files or ()))
        shown, words = "", left.status
        if name == "own" and files:
            try:
                end = own.read_end(name, files, visit.subfolder())
                shown = (
                    own.strip(end)
                    if hasattr(end, "items")
                    else views.notice(f"A head for {views.count(len(end.classes), 'class')}.", "note")
                )
            except UserError as reason:
                shown = views.notice(str(reason))
            except Exception:
                log.exception("Unforeseen")
                shown = views.notice(UNEXPECTED)
        elif name.startswith("task:") and files:
            try:
                shown = own.strip(own.read_end(name, files, visit.subfolder()).images)
            except UserError as reason:
                shown = views.notice(str(reason))
        else:
            shown = own.end_strip(name)
        return {
            frame.session: visit,
            left.strip[letter]: shown,
            words: "",
            left.drop[letter]: gr.update(visible=name == "own" or name.startswith("task:")),
        }

    shown = [*left.strip.values(), *left.drop.values()]
    frame.demo.load(open_page, None, [*shown, *linked.values()], **PRIVATE)
    left.bundle.input(lambda bundle: ends(bundle, {}), left.bundle, [*shown, *left.choose.values()], **PRIVATE)
    for letter in LETTERS:
        chosen, files = left.choose[letter], left.drop[letter]
        changed = [frame.session, left.strip[letter], files, left.status]
        gr.on(
            [chosen.input, files.upload, files.clear],
            partial(look, letter),
            [frame.session, chosen, files],
            changed,
            **PRIVATE,
        )
    gr.on(
        [control.change for control in linked.values()],
        None,
        list(linked.values()),
        None,
        js=LINK,
        api_visibility="private",
    )


def _wire_walk(frame: SimpleNamespace, left: SimpleNamespace, right: SimpleNamespace) -> None:
    """Walking, stopping, and showing what lies between."""
    session = frame.session

    def idle(status: str = "") -> dict:
        return {left.go: gr.update(interactive=True), left.stop: gr.update(visible=False), left.status: status}

    def start(visit: Session | None, bundle, points, seeds, samples, shots, seed, *ends):
        visit = visit or Session()
        tab = visit.tab(KEY, made=None)
        if tab.work and tab.work.started:
            return gr.skip()
        try:
            settings = own.check(bundle, points, seeds, samples, shots, seed)
        except UserError as reason:
            return {left.status: views.notice(str(reason))}
        chosen = [(kind, files) for kind, files in zip(ends[:3], ends[3:], strict=True) if kind != "none"]
        tab.work = Work(partial(own.make_walk, chosen, settings, visit.subfolder()))
        return {
            session: visit,
            left.go: gr.update(interactive=False),
            left.stop: gr.update(visible=True),
            left.status: views.notice("Waiting for a free place …", "note"),
        }

    async def run(visit: Session | None, way: str | None, alpha: float, of: str):
        tab = visit.tab(KEY, made=None) if visit else None
        if tab is None or (work := tab.work) is None or work.started:
            yield gr.skip()
            return

        def done(made: SimpleNamespace) -> dict:
            tab.made = made
            return {**show(made, way, alpha, of), **idle(views.notice(f"Done in {made.walk.seconds:.1f} s.", "good"))}

        kept = "The path you had is still here." if tab.made else ""
        async with aclosing(see_through(tab, work, left.status, kept, idle, done)) as updates:
            async for update in updates:
                yield update

    def cancel(visit: Session | None):
        if stop_work(visit and visit.tab(KEY, made=None)):
            return {left.status: views.notice("Stopping …", "note"), left.stop: gr.update(visible=False)}
        return idle(views.notice("Cancelled.", "note"))

    def show(made: SimpleNamespace, way: str | None, alpha: float, of: str) -> dict:
        """The whole result."""
        walk = made.walk
        way = way if way in walk.paths else next(iter(walk.paths))
        number = own.nearest(made, alpha)
        curves = [*made.curves, None][:2]
        three = len(walk.endpoints.members) > 2
        return {
            right.places: gr.update(visible=False),
            right.made: gr.update(visible=True),
            right.sentence: own.answer(made),
            right.way: gr.update(choices=[(LABELS[key].capitalize(), key) for key in walk.paths], value=way),
            right.alpha: gr.update(step=1 / (len(walk.alpha) - 1), value=float(walk.alpha[number])),
            **stand(right, made, way, number),
            right.curve_a: curves[0],
            right.curve_b: curves[1],
            right.card_b: gr.update(visible=len(made.curves) > 1),
            right.barrier: made.barrier,
            right.distance: made.distance,
            right.distance_card: gr.update(visible=made.distance is not None),
            right.map: own.figures(walk, None, of).map,
            right.map_card: gr.update(visible=made.map is not None),
            right.everything: str(own.everything(made)),
            right.mix_card: gr.update(visible=three),
            **{getattr(right, f"share_{letter}"): 1 for letter in LETTERS},
            right.mixed: views.hint("Move a share.") if three else "",
            right.mixed_pictures: "",
        }

    doing = [left.go, left.stop, left.status]
    chosen = [
        left.bundle,
        left.points,
        left.seeds,
        left.samples,
        left.shots,
        left.seed,
        *left.choose.values(),
        *left.drop.values(),
    ]
    ready = left.go.click(start, [session, *chosen], [session, *doing], queue=False, **PRIVATE)
    how = [right.way, right.alpha, right.map_of]
    done = ready.then(run, [session, *how], [*doing, *vars(right).values()], **COMPUTE, **PRIVATE)
    done.failure(
        lambda: idle(views.notice("Too many people are waiting; please try again in a minute.")),
        None,
        doing,
        queue=False,
        **PRIVATE,
    )
    left.stop.click(cancel, session, doing, queue=False, **PRIVATE)


def stand(right: SimpleNamespace, made: SimpleNamespace, way: str, number: int) -> dict:
    """What is seen from one point of the path."""
    return {
        right.where: own.point(made, way, number),
        right.pictures: own.looked(made, made.walk.state(way, number)),
        right.head: str(own.head_file(made, way, number)),
    }


def _wire_slider(frame: SimpleNamespace, right: SimpleNamespace) -> None:
    """Moving through what was made."""

    def made_by(visit: Session | None) -> SimpleNamespace | None:
        return visit.tab(KEY, made=None).made if visit else None

    def move(visit: Session | None, way: str | None, alpha: float):
        made = made_by(visit)
        if made is None or way not in made.walk.paths:
            return gr.skip()
        return stand(right, made, way, own.nearest(made, alpha))

    def mark(visit: Session | None, alpha: float, of: str):
        made = made_by(visit)
        if made is None:
            return gr.skip()
        drawn = own.figures(made.walk, float(made.walk.alpha[own.nearest(made, alpha)]), of)
        curves = [*drawn.curves, None][:2]
        return {right.curve_a: curves[0], right.curve_b: curves[1], right.map: drawn.map}

    def mix(visit: Session | None, way: str | None, *shares: float):
        made = made_by(visit)
        if made is None or len(made.walk.endpoints.members) < 3:
            return gr.skip()
        try:
            head, accuracies = made.walk.mixed(shares, way if way in made.walk.paths else "weights")
        except UserError as reason:
            return {right.mixed: views.notice(str(reason))}
        return {
            right.mixed: own.mixed(made, head, accuracies),
            right.mixed_pictures: own.looked(made, head.state),
            right.mixed_head: str(head.save(made.folder / "head-mix.safetensors")),
        }

    seen = [right.where, right.pictures, right.head]
    gr.on(
        [right.alpha.change, right.way.change],
        move,
        [frame.session, right.way, right.alpha],
        seen,
        queue=False,
        trigger_mode="always_last",
        **PRIVATE,
    )
    gr.on(
        [right.alpha.release, right.map_of.input],
        mark,
        [frame.session, right.alpha, right.map_of],
        [right.curve_a, right.curve_b, right.map],
        queue=False,
        trigger_mode="always_last",
        **PRIVATE,
    )
    shares = [right.share_a, right.share_b, right.share_c]
    gr.on(
        [*(share.release for share in shares), right.way.input],
        mix,
        [frame.session, right.way, *shares],
        [right.mixed, right.mixed_pictures, right.mixed_head],
        trigger_mode="always_last",
        **COMPUTE,
        **PRIVATE,
    )
