"""The Train tab's second card: what is trained on the zoo, and how long."""

import asyncio
from functools import partial

import gradio as gr

from d2nwg.generators import GENERATORS
from d2nwg.jobs.owner import Viewer
from d2nwg.training.settings import as_text, meanings
from d2nwg.ui import html as views
from d2nwg.ui.events import PRIVATE, Components
from d2nwg.ui.frame import Frame
from d2nwg.ui.jobs import job_choices, may_submit, newest
from d2nwg.ui.run import Run
from d2nwg.ui.session import Session
from d2nwg.ui.train import service
from d2nwg.ui.train.jobs import submitted
from d2nwg.ui.train.service import FIRST
from d2nwg.ui.visitor import visitor
from d2nwg.utils.errors import UserError


class TrainingCard(Components):
    """A generator, its config, and the name of the bundle.

    Attributes:
        groups: by generator, the column with its settings.
        boxes: by generator and field of its config, the box for a value other than the preset's.
    """

    def __init__(self) -> None:
        with gr.Column(elem_classes="card"):
            gr.HTML(views.title("2 · Training", "What is trained on the zoo, and how long."))
            self.generator = gr.Radio(
                [(generator.label, name) for name, generator in GENERATORS.items()],
                value=FIRST,
                label="Generator",
                elem_id="train-generator",
            )
            self.preset = gr.Dropdown(
                list(GENERATORS[FIRST].config_class.PRESETS),
                value="tiny",
                label="Preset",
                elem_id="train-preset",
                info="tiny: to try it out; small: a laptop; standard: longer; paper: a GPU",
            )
            with gr.Accordion("All settings", open=False, elem_id="train-settings"):
                gr.HTML(views.hint("An empty box is the preset's value, which stands in it in grey."))
                self.groups: dict[str, gr.Column] = {}
                self.boxes: dict[str, dict[str, gr.Textbox]] = {}
                for key, generator in GENERATORS.items():
                    config = generator.config_class
                    start = config.preset(next(iter(config.PRESETS))).to_config()
                    with gr.Column(visible=key == FIRST) as self.groups[key]:
                        self.boxes[key] = {
                            field: gr.Textbox(
                                label=field.replace("_", " "),
                                info=meaning,
                                max_lines=1,
                                placeholder=as_text(start[field]),
                            )
                            for field, meaning in meanings(config).items()
                        }
            self.name = gr.Textbox("my-bundle", label="Name of the bundle", max_lines=1, elem_id="train-name")
            self.time = gr.HTML(
                views.hint("How long will it take? “Measure” runs a few steps of each stage and says."),
                elem_id="train-time",
            )
            with gr.Row(elem_classes="do"):
                self.go = gr.Button("Train", variant="primary", elem_id="train-go")
                self.measure = gr.Button("Measure", elem_id="train-measure", min_width=100)
                self.stop = gr.Button("Cancel", elem_id="train-measure-stop", visible=False, min_width=100)
            self.status = gr.HTML(elem_id="train-status")

    @property
    def all_boxes(self) -> list[gr.Textbox]:
        """The boxes of all generators."""
        return [box for group in self.boxes.values() for box in group.values()]

    def config(self, generator: str, preset: str, texts):
        """The config that the boxes ask for; `texts` are the values of `all_boxes`. Raises UserError for a value that
        cannot be one."""
        keys = [(key, field) for key, group in self.boxes.items() for field in group]
        values = {field: text for (key, field), text in zip(keys, texts, strict=True) if key == generator}
        return service.training_config(generator, preset, values)


def wire_training(frame: Frame, chosen: gr.Dropdown, card: TrainingCard, job: gr.Dropdown) -> None:
    """Choosing a config, measuring it, and starting a training on the `chosen` zoo; `job` is the choice of a job, which
    then shows the new one."""

    def show(generator: str, preset: str) -> dict:
        config = GENERATORS[generator].config_class
        preset = preset if preset in config.PRESETS else next(iter(config.PRESETS))
        known = config.preset(preset).to_config()
        return {
            card.preset: gr.update(choices=list(config.PRESETS), value=preset),
            card.time: "",
            **{column: gr.update(visible=key == generator) for key, column in card.groups.items()},
            **{box: gr.update(placeholder=as_text(known[field])) for field, box in card.boxes[generator].items()},
        }

    def ask(visit: Session, zoo: str | None, generator: str, preset: str, *texts):
        return partial(service.measure, service.zoo_path(zoo, visit.viewer), card.config(generator, preset, texts))

    def measured(visit: Session, said: str) -> dict:
        return {card.time: views.notice(said, "note")}

    def submit(viewer: Viewer, zoo: str | None, name: str, generator: str, preset: str, *texts):
        from d2nwg.jobs.queue import submit_training

        may_submit(viewer)
        path, config = service.zoo_path(zoo, viewer), card.config(generator, preset, texts)
        return submit_training(name, [path], config, owner=viewer.owner)

    async def go(request: gr.Request, token, *values) -> dict:
        viewer = visitor(request, token)
        try:
            made = await asyncio.to_thread(submit, viewer, *values)
        except UserError as reason:
            return {card.status: views.notice(str(reason))}
        return {
            card.status: submitted(made),
            job: gr.update(choices=job_choices(newest(viewer, service.KINDS)), value=made.id),
        }

    def suit(request: gr.Request, token, zoo: str | None, generator: str) -> dict | str:
        suited = service.suiting(zoo, generator, visitor(request, token))
        return gr.skip() if suited == generator else suited  # another one may have been chosen since this was asked

    config = [card.generator, card.preset, *card.all_boxes]
    gr.on(
        [card.generator.change, card.preset.input],
        show,
        [card.generator, card.preset],
        [card.preset, card.time, *card.groups.values(), *card.all_boxes],
        **PRIVATE,
    )
    chosen.change(suit, [frame.token, chosen, card.generator], card.generator, **PRIVATE)
    Run(frame.session, "train-measure", card.measure, card.stop, card.time).on(
        card.measure.click, ask, [chosen, *config], measured, [], slot=dict(concurrency_limit=1)
    )
    card.go.click(go, [frame.token, chosen, card.name, *config], [card.status, job], **PRIVATE)
