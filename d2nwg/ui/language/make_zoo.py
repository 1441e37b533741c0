"""The Language tab's second step, folded: a zoo of fine-tunes is made, as a job, to refine from."""

import asyncio
from collections.abc import Sequence
from functools import partial

import gradio as gr

from d2nwg.ui import html as views
from d2nwg.ui.events import PRIVATE, Components
from d2nwg.ui.frame import Frame
from d2nwg.ui.jobs import job_choices, may_submit, newest
from d2nwg.ui.language import making
from d2nwg.ui.language.layout import LookChoices
from d2nwg.ui.language.models import check_model
from d2nwg.ui.parts import Upload
from d2nwg.ui.run import Run
from d2nwg.ui.session import Session
from d2nwg.ui.uploads import zoo_name
from d2nwg.ui.visitor import visitor
from d2nwg.utils.errors import UserError

HINT = (
    "Short fine-tunes (LoRA) of the model above on questions of yours: several seeds, the last two epochs kept. "
    "A refinement can then sample from their distribution; it should choose and report by other questions than these."
)


class MakeZoo(Components):
    """The questions, how long they are learnt, and the name of the zoo."""

    def __init__(self, visible: bool) -> None:
        number = partial(gr.Number, precision=0, min_width=100)
        with gr.Accordion("Make a zoo of fine-tunes", open=False, visible=visible, elem_id="language-make") as self.box:
            gr.HTML(views.hint(HINT))
            self.files = Upload(
                label="Questions to train on (JSONL)",
                file_count="multiple",
                height=110,
                elem_id="language-make-files",
                file_types=[".jsonl", ".gz", ".json"],
            )
            self.found = gr.HTML(elem_id="language-make-found")
            with gr.Row(elem_classes="pair"):
                self.seeds = number(4, label="Fine-tunes", info="one a seed", elem_id="language-make-seeds")
                self.epochs = number(3, label="Epochs", info="of each", elem_id="language-make-epochs")
            with gr.Row(elem_classes="pair"):
                self.rows = number(0, label="Most questions", info="0: all", elem_id="language-make-rows")
                self.seed = number(0, label="First seed", info="the others follow", elem_id="language-make-seed")
            self.name = gr.Textbox(label="Name of the zoo", max_lines=1, elem_id="language-make-name")
            self.time = gr.HTML(
                views.hint("“How long?” runs a few steps on your questions and says."), elem_id="language-make-time"
            )
            with gr.Row(elem_classes="do"):
                self.go = gr.Button("Make the zoo", elem_id="language-make-go")
                self.measure = gr.Button("How long?", elem_id="language-make-measure", min_width=100)
                self.stop = gr.Button("Cancel", elem_id="language-make-stop", visible=False, min_width=100)
            self.status = gr.HTML(elem_id="language-make-status")

    @property
    def numbers(self) -> list[gr.Number]:
        """As `d2nwg.ui.language.making.tuning_of` takes them."""
        return [self.seeds, self.epochs, self.rows, self.seed]


def wire_make(frame: Frame, choices: LookChoices, make: MakeZoo, job: gr.Dropdown, kinds: Sequence[str]) -> None:
    """Reading the questions, measuring, and putting the work in the queue; `job` is the choice of a job of these
    kinds, which then shows the new one."""

    async def read(request: gr.Request, visit: Session | None, files: list[str] | None, name: str) -> dict:
        visit = visit or Session(viewer=visitor(request))
        visit.uploaded(files)
        try:
            found = views.notice(await asyncio.to_thread(making.described, files), "note")
        except UserError as reason:
            found = views.notice(str(reason))
        return {frame.session: visit, make.found: found, make.name: name or zoo_name(files)}

    def ask(visit: Session, name, file, *values):
        return partial(making.measure, check_model(name, file), *values)

    def measured(visit: Session, said: str) -> dict:
        return {make.time: views.notice(said, "note")}

    async def go(request: gr.Request, token, model, file, files: list[str] | None, name: str, *numbers) -> dict:
        viewer = visitor(request, token)
        try:
            may_submit(viewer)
            checked = check_model(model, file)
            made = await asyncio.to_thread(making.submit, checked, files, name, *numbers, viewer=viewer)
        except UserError as reason:
            return {make.status: views.notice(str(reason))}
        said = f"The zoo {made.spec['name']} is being made: see Refinements and zoos."
        return {
            make.status: views.notice(said, "good"),
            job: gr.update(choices=job_choices(newest(viewer, kinds)), value=made.id),
        }

    make.files.upload(read, [frame.session, make.files, make.name], [frame.session, make.found, make.name], **PRIVATE)
    make.files.clear(lambda: "", None, make.found, queue=False, **PRIVATE)
    model = [choices.model, choices.file]
    Run(frame.session, "language-measure", make.measure, make.stop, make.time).on(
        make.measure.click, ask, [*model, make.files, *make.numbers], measured, [], slot=dict(concurrency_limit=1)
    )
    make.go.click(go, [frame.token, *model, make.files, make.name, *make.numbers], [make.status, job], **PRIVATE)
