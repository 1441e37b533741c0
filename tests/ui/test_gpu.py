"""Functions that a Space lends its GPU to by the call, with a stand-in for the package ``spaces``."""

import asyncio
import os
import pickle
import subprocess
import sys
import threading
import time
from contextlib import closing
from contextvars import ContextVar
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
import torch

from d2nwg.llm.chat import ChatSettings
from d2nwg.ui import gpu
from d2nwg.ui.generate import service as actions
from d2nwg.ui.language import service as language_actions
from d2nwg.ui.work import call
from d2nwg.utils.errors import Cancelled, UserError
from tests.tiny_llm import make_tiny_llm

REPO = Path(__file__).resolve().parents[2]

# As the real one does: arguments and what is yielded are pickled, and an error arrives as another.
STAND_IN = """
import pickle
lent = []

def GPU(duration):
    def decorate(task):
        def run(*args):
            lent.append(duration)
            try:
                for value in task(*pickle.loads(pickle.dumps(args))):
                    yield pickle.loads(pickle.dumps(value))
            except Exception as error:
                raise RuntimeError("ZeroGPU worker error") from error
        run.zerogpu = task
        return run
    return decorate
"""


@pytest.fixture
def spaces(monkeypatch):
    made = SimpleNamespace()
    exec(STAND_IN, vars(made))
    monkeypatch.setitem(sys.modules, "spaces", made)
    return made


def test_without_the_package_nothing_changes(monkeypatch):
    monkeypatch.setitem(sys.modules, "spaces", None)  # not to be imported
    assert gpu.on_gpu(print) is print


def test_results_progress_and_errors_come_home(spaces):
    unpicklable = lambda value: value  # noqa: E731

    def work(numbers, progress, times=1):
        for done in range(3):
            progress("Working", done, 3)
        if not len(numbers):
            raise UserError("Give numbers.")
        if times > 9:
            raise unpicklable(ZeroDivisionError("secret"))
        return {"sum": numbers.sum() * times, "head": torch.nn.Linear(2, 2)}

    lent, stages = gpu.on_gpu(work), []
    made = lent(torch.ones(4), times=2, progress=lambda *stage: stages.append(stage))
    assert made["sum"] == 8 and made["head"].weight.requires_grad
    assert stages == [("Working", done, 3) for done in range(3)] and spaces.lent == [gpu.SECONDS]
    with pytest.raises(UserError, match="Give numbers"):
        lent(torch.ones(0), progress=lambda *stage: None)
    with pytest.raises(RuntimeError, match="ZeroGPU worker error"):
        lent(torch.ones(1), times=10, progress=lambda *stage: None)
    assert gpu.on_gpu(lambda number: number + 1)(1) == 2, "without progress"


def test_a_visitor_who_leaves_stops_the_work(spaces):
    stopped = threading.Event()

    def work(progress):
        try:
            for done in range(100_000):
                progress("Working", done, 100_000)
                time.sleep(0.001)
        except Cancelled:
            stopped.set()
            raise

    def leave(stage, done, total):
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        gpu.on_gpu(work)(progress=leave)
    assert stopped.wait(600)


@pytest.mark.parametrize(
    "title, message, error, told",
    [
        ("ZeroGPU quota exceeded", "You have exceeded your free ZeroGPU quota.", UserError, "You have exceeded"),
        ("ZeroGPU worker error", "GPU task aborted", UserError, "taken back before the end"),
        ("ZeroGPU worker error", "ValueError", gr.Error, "ValueError"),
    ],
)
def test_what_the_lender_says_is_told(spaces, monkeypatch, title, message, error, told):
    def refuse(duration):
        def run(*args):
            raise gr.Error(message, title=title)
            yield

        return lambda task: run

    monkeypatch.setattr(spaces, "GPU", refuse)
    with pytest.raises(error, match=told):
        gpu.on_gpu(lambda: 1)()


def test_the_work_knows_whose_request_it_is():
    request = ContextVar("request", default=None)

    async def visit():
        request.set("a visitor's")
        return await call(lambda progress: request.get())

    assert asyncio.run(visit()) == "a visitor's"


def test_what_a_generator_yields_comes_home_as_it_is_made(spaces):
    made, threads = [], []

    def work(count, progress):
        threads.append(threading.current_thread())
        progress("Working", 0, count)
        for number in range(count):
            made.append(number)
            yield torch.full((2,), number)
            time.sleep(0.001)
        if count == 3:
            raise UserError("No more than that.")

    lent, stages, seen = gpu.on_gpu(work), [], []
    with pytest.raises(UserError, match="No more than that"):
        for value in lent(3, progress=lambda *stage: stages.append(stage)):
            seen.append(value.tolist())
    assert seen == [[0, 0], [1, 1], [2, 2]] and stages == [("Working", 0, 3)]
    assert [len(list(lent(count, progress=print))) for count in (0, 2)] == [0, 2]
    with closing(lent(100_000, progress=print)) as values:
        made.clear()
        assert next(values).tolist() == [0, 0]
    threads[-1].join(600)
    assert len(made) < 100_000 and not threads[-1].is_alive(), "nobody listens any more"


def test_tensors_come_home_to_the_cpu():
    kept = pickle.loads(gpu._packed({"a": torch.ones(2), "b": [torch.arange(3)]}))
    assert kept["a"].tolist() == [1, 1] and kept["b"][0].tolist() == [0, 1, 2]
    with pytest.raises(NotImplementedError):  # a tensor elsewhere is moved: this device holds nothing to move
        gpu._packed(torch.ones(2, device="meta"))


def test_a_head_is_generated_on_a_lent_gpu(spaces, image_folder, tmp_path):
    from d2nwg.data.images import load_images

    stages = []
    settings = dict(bundle=None, shots=3, num_samples=5, seed=0)
    lent = gpu.on_gpu(actions.generate)
    generation, files = lent(
        load_images(image_folder), settings, tmp_path / "made", progress=lambda *stage: stages.append(stage[0])
    )
    assert "Sampling heads" in stages and files["head"].is_file()
    assert gpu.on_gpu(actions.look)(generation.head, image_folder / "red" / "00.png").keys() == {"blue", "green", "red"}


def test_language_models_look_and_talk_on_a_lent_gpu(spaces, tmp_path, monkeypatch):
    tiny = str(make_tiny_llm(tmp_path / "tiny"))
    brief, stages = ChatSettings(max_tokens=6), []
    here = language_actions.look(tiny, "paper", 25)
    weights = language_actions.load(tiny).model.state_dict()
    changed = {key: value + 0.3 for key, value in weights.items() if key.endswith("1.mlp.up_proj.weight")}
    both = [language_actions.new_talk(tiny, ("base", "refined")) for _ in range(2)]
    turn = language_actions.answer(both[0], "is it hot?", brief, changed)
    for name in ("_measured", "_written"):
        monkeypatch.setattr(language_actions, name, gpu.on_gpu(getattr(language_actions, name)))
    there = language_actions.look(tiny, "paper", 25, lambda *stage: stages.append(stage[0]))
    assert [row.to_json() for row in there.ranked] == [row.to_json() for row in here.ranked] and stages
    again = language_actions.answer(both[1], "is it hot?", brief, changed)
    assert [one.text for one in again.answers] == [one.text for one in turn.answers]
    assert again.answers[0].text != again.answers[1].text and len(spaces.lent) == 2


def test_what_computes_carries_the_decorator(tmp_path):
    """In a process of its own, where the package is there from the start."""
    (tmp_path / "spaces.py").write_text(STAND_IN)
    code = (
        "from d2nwg.ui.generate import service as actions\n"
        "from d2nwg.ui.explore import service as explore_actions\n"
        "from d2nwg.ui.interpolate import service as paths\n"
        "from d2nwg.ui.language import service as words\n"
        "found = [actions.generate, actions.look, explore_actions.make, explore_actions.score, paths.interpolate,\n"
        "         words._measured, words._written, words.variant_from_file, words.find_prompts]\n"
        "print(all(hasattr(one, '__wrapped__') for one in found), hasattr(actions.read_choice, '__wrapped__'))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPO)])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=900)
    assert done.stdout.split() == ["True", "False"], done.stderr
