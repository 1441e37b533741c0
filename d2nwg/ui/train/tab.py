"""The Train tab: a zoo, a training, and jobs that go on when the page is closed."""

import gradio as gr

from d2nwg.ui import html as views
from d2nwg.ui.frame import Frame
from d2nwg.ui.train import service
from d2nwg.ui.train.jobs import JobsCard, wire_jobs
from d2nwg.ui.train.training import TrainingCard, wire_training
from d2nwg.ui.train.zoo import ZooCard, wire_zoo

KEY, LABEL = "train", "Train"


def build_tab(frame: Frame) -> None:
    """Lay out the tab and wire it."""
    if reason := service.why_off():
        gr.HTML(views.notice(reason, "note"), elem_id="train-off")
        return
    with gr.Row(elem_id="train", elem_classes="tab"):
        with gr.Column(elem_classes="choose wide", min_width=320):
            zoo, training = ZooCard(), TrainingCard()
        with gr.Column(elem_classes="get", min_width=320):
            jobs = JobsCard()
    wire_zoo(frame, zoo, jobs.list.pick)
    wire_training(frame, zoo.chosen, training, jobs.list.pick)
    wire_jobs(frame, zoo.chosen, [zoo.status, training.status], jobs)
