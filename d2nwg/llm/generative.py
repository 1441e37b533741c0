"""Tasks of lm-evaluation-harness in which a model writes an answer: run by the harness itself, for reports."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from d2nwg.llm.questions import HARNESS, HARNESS_SEED, Question, from_harness, harness_task, load_questions, set_shots
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import out_of_memory
from d2nwg.utils.text import shown

if TYPE_CHECKING:
    from d2nwg.llm.models import LanguageModel

BATCH = {"cuda": 16}  # answers written at once; elsewhere one


def load_source(source: str | Path, shots: int | None = None) -> "list[Question] | Any":
    """The questions of a source (`load_questions`), or the task object of a task of the harness in which the model
    writes: it goes to `judge_task`.

    Args:
        shots: examples of the harness's own; None: none before choices, and as many as the task itself says before
            what is written.
    """
    name = str(source)
    if not name.startswith(HARNESS):
        return load_questions(source)
    task, said = harness_task(name.removeprefix(HARNESS)), shown(name.removeprefix(HARNESS))
    if getattr(task, "OUTPUT_TYPE", None) != "generate_until":
        return from_harness(task, said, shots=shots or 0)
    set_shots(task, said, (task.config.num_fewshot or 0) if shots is None else shots)
    return task


def judge_task(model: "LanguageModel", task) -> dict:
    """What the harness finds of a model on a task from `load_source`.

    Returns:
        ``questions``, ``shots``, and ``metrics``: name → ``value`` and ``stderr`` (None where the harness gives none),
        in the task's own units.
    Raises:
        UserError: the harness cannot run it.
    """
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    name = task.task_name
    try:
        wrapped = HFLM(
            pretrained=model.model,
            tokenizer=model.tokenizer,
            batch_size=BATCH.get(model.device.type, 1),
            max_length=model.context,
        )
        task.set_fewshot_seed(HARNESS_SEED)
        with torch.random.fork_rng():
            torch.manual_seed(HARNESS_SEED)  # some tasks sample
            made: Any = evaluate(wrapped, {name: task}, log_samples=False)
        found = made["results"][name]
    except Exception as reason:  # the harness, its metrics and their data raise all kinds
        if out_of_memory(reason):
            raise
        why = " ".join(f"{type(reason).__name__} {reason}".split())
        raise UserError(
            f"lm-evaluation-harness cannot run {shown(name)} ({shown(why, 200)}): give another task."
        ) from reason
    metrics = {}
    for key, value in found.items():
        metric, comma, chosen = key.partition(",")
        if comma and not metric.endswith("_stderr") and isinstance(value, (int, float)):
            spread = found.get(f"{metric}_stderr,{chosen}")
            metrics[metric if chosen == "none" else f"{metric} ({chosen})"] = {
                "value": float(value),
                "stderr": float(spread) if isinstance(spread, (int, float)) else None,
            }
    return {"questions": len(task.eval_docs), "shots": task.config.num_fewshot, "metrics": metrics}


def judge_refined(model: str, tensors: Mapping[str, Tensor], tasks: Mapping[str, Any], device: str | None) -> dict:
    """The base and the refined model on each task: name → ``base`` and ``refined``, each as `judge_task` says."""
    from d2nwg.llm.models import load_language_model

    own = load_language_model(model, device=device, fresh=True)
    parameters = dict(own.model.named_parameters())
    found = {name: {"base": judge_task(own, task)} for name, task in tasks.items()}
    with torch.no_grad():
        for name, weights in tensors.items():
            parameters[name].copy_(weights)
    for name, task in tasks.items():
        found[name]["refined"] = judge_task(own, task)
    return found


def words(facts: dict) -> str:
    """The metrics of `judge_task` in a line."""
    return ", ".join(
        f"{name} {metric['value']:.4g}" + (f" ± {metric['stderr']:.2g}" if metric["stderr"] is not None else "")
        for name, metric in facts["metrics"].items()
    )
