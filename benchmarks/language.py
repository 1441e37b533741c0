"""Refining a language model: how much faster candidates are scored, what racing saves, how much memory it takes.

    python -m benchmarks.language --questions select.jsonl --out language.json
    python -m benchmarks.language --questions select.jsonl --most 256 --only racing --out racing.json

Scoring: every matrix that a preset refines is changed a little, and the questions are scored with it in two ways, in
turns: by one full pass over every choice, in batches (what a harness does), and as `refine` does it, with prefixes
shared and the blocks below run once a matrix; the time for these is spread over the candidates. Racing: every matrix
gets candidates (noise of a fifth of its norm, at the strengths of a search), which are scored on all questions and race
over these scores in many orders of the questions: the tokens that a race takes, and whether what it chooses (one of the
candidates, or the weights in hand where all are dropped) is within one paired standard error of what is best on all
questions. Memory: a whole `refine` in a process of its own, its peak beside the model's bytes and beside what the
libraries take before that.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from d2nwg.llm.choice import choose
from d2nwg.llm.models import LanguageModel, load_language_model
from d2nwg.llm.pack import pair
from d2nwg.llm.presets import RefineConfig
from d2nwg.llm.questions import Question, load_questions
from d2nwg.llm.racing import lower_bound, race, rungs
from d2nwg.llm.refine import draw
from d2nwg.llm.score import Scorer, Scores, fit_temperature
from d2nwg.llm.search import STRENGTHS
from d2nwg.utils.progress import TerminalProgress

NOISE = 0.2  # of a matrix's norm: how far candidates lie away in a race
ORDERS = 100  # of the questions, in which candidates race
REPO = Path(__file__).resolve().parents[1]
PEAK = """
import json, resource, sys
import accelerate, diffusers, numpy, torch, transformers
from transformers import AutoModelForCausalLM, LlamaForCausalLM
from d2nwg.llm import refine as refining
from d2nwg.llm.presets import RefineConfig
from d2nwg.llm.questions import load_questions
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
name, select, folder, config = sys.argv[1:]
questions = load_questions(select)
refining.refine(name, questions[::2], questions[1::2], RefineConfig.from_config(json.loads(config)), folder=folder)
print(json.dumps([before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


@torch.inference_mode()
def full_passes(model: LanguageModel, questions: list[Question], batch: int = 16) -> list[np.ndarray]:
    """Log-likelihoods of all choices, a full pass over each: sorted by length, padded behind."""
    rows = []
    for number, question in enumerate(questions):
        for choice, texts in enumerate(zip(question.contexts, question.continuations, strict=True)):
            before, after = pair(model, *texts)
            rows.append((number, choice, before + after, len(after)))
    rows.sort(key=lambda row: -len(row[2]))
    found = [np.zeros(len(question.continuations)) for question in questions]
    for first in range(0, len(rows), batch):
        part = rows[first : first + batch]
        width = max(len(tokens) for _, _, tokens, _ in part)
        fed = torch.zeros(len(part), width, dtype=torch.long)
        seen = torch.zeros(len(part), width, dtype=torch.long)
        for i, (_, _, tokens, _) in enumerate(part):
            fed[i, : len(tokens)], seen[i, : len(tokens)] = torch.tensor(tokens), 1
        logits = model.model(fed.to(model.device), attention_mask=seen.to(model.device)).logits
        for i, (number, choice, tokens, count) in enumerate(part):
            places = torch.arange(len(tokens) - count, len(tokens))
            # In float64, or the sum's rounding would be most of the difference between the two ways.
            values = logits[i, places - 1].double().log_softmax(-1).cpu()
            found[number][choice] = float(values.gather(1, torch.tensor(tokens)[places, None]).sum())
    return found


def scoring(name: str, questions: list[Question], config: RefineConfig, device: str | None) -> dict:
    """Seconds a candidate in both ways, over the matrices of a run, and how far the scores differ."""
    model = load_language_model(name, device=device, fresh=True, progress=TerminalProgress())
    matrices = [row.matrix for row in choose(model, config)]
    scorer = Scorer(model, questions)
    rows = []
    for number, matrix in enumerate(matrices):
        started = time.perf_counter()
        scorer.advance(matrix.layer)
        below = time.perf_counter() - started
        weights = model.model.get_parameter(matrix.name)
        kept = weights.detach().clone()
        with torch.no_grad():
            noise = torch.randn(weights.shape, generator=torch.Generator().manual_seed(number)).to(weights)
            weights.add_(0.2 * noise * weights.norm() / noise.norm())
        started = time.perf_counter()
        ours = scorer.score()
        above = time.perf_counter() - started
        started = time.perf_counter()
        full = full_passes(model, questions)
        whole = time.perf_counter() - started
        with torch.no_grad():
            weights.copy_(kept)
        off = max(float(np.abs(a - b).max()) for a, b in zip(ours.choices, full, strict=True))
        rows.append({"matrix": matrix.name, "below": below, "above": above, "full": whole, "difference": off})
        print(
            f"{matrix.name}: {above:.2f} s (+ {below:.2f} s once), full passes {whole:.2f} s, {off:.1e} apart",
            flush=True,
        )
    ours = sum(row["above"] + row["below"] / config.candidates for row in rows)
    return {
        "rows": rows,
        "times_faster": sum(row["full"] for row in rows) / ours,
        "largest_difference": max(row["difference"] for row in rows),
        "tokens_packed": scorer.pass_tokens,
    }


def racing(name: str, questions: list[Question], config: RefineConfig, device: str | None) -> dict:
    """Tokens that a race computes beside full scoring, and how good its choice is, over the matrices of a run and
    `ORDERS` orders of the questions. Candidates of a matrix run the same blocks, so that their tokens count alike."""
    model = load_language_model(name, device=device, fresh=True, progress=TerminalProgress())
    scorer, rows = Scorer(model, questions), []
    base = scorer.score(progress=TerminalProgress())
    temperature, tokens = fit_temperature(base, config.normalise), np.array([len(row.tokens) for row in scorer.rows])

    def measure(scores: Scores) -> np.ndarray:
        return np.stack([scores.log_probability(config.normalise, temperature), scores.correct(config.normalise)])

    current = measure(base)
    for number, matrix in enumerate(row.matrix for row in choose(model, config)):
        weights = model.model.get_parameter(matrix.name)
        kept, full = weights.detach().clone(), []
        scorer.advance(matrix.layer)
        for candidate in range(config.candidates):
            draw = torch.Generator().manual_seed(1000 * number + candidate)
            noise = torch.randn(kept.shape, generator=draw).to(kept)
            size = NOISE * STRENGTHS[candidate % len(STRENGTHS)] * kept.norm() / noise.norm()
            with torch.no_grad():
                weights.copy_(kept + size * noise)
            full.append(measure(scorer.score()))
        with torch.no_grad():
            weights.copy_(kept)
        races = [raced(np.stack(full), current, tokens, seed) for seed in range(ORDERS)]
        row = {key: float(np.mean([race[key] for race in races])) for key in races[0]}
        rows.append({"matrix": matrix.name, **row})
        print(f"{matrix.name}: {row['tokens']:.0%} of the tokens, near the best in {row['near']:.0%}", flush=True)
    means = {key: float(np.mean([row[key] for row in rows])) for key in ("tokens", "near", "same")}
    return {"rows": rows, "candidates": config.candidates, "orders": ORDERS, "temperature": temperature, **means}


def raced(full: np.ndarray, current: np.ndarray, tokens: np.ndarray, seed: int) -> dict[str, float]:
    """A race over scores (K, 2, Q) that are known: the share of the ``tokens`` (Q,) that it takes; whether what it
    chooses (a candidate, or the weights in hand where it drops all) is ``near`` the best of all these on all questions,
    within one paired standard error; and whether it comes to the ``same`` as full scoring: nothing is accepted, or one
    within a standard error of the best candidate."""
    parts = rungs(len(tokens), seed)
    found, best = race(parts, len(full), lambda candidate, rung: full[candidate][:, parts[rung]], current)
    seen = ~np.isnan(found[:, 0])
    chosen = full[best, 0] if seen[best].all() else current[0]
    every = np.concatenate([full[:, 0], current[:1]])
    winner = full[full[:, 0].mean(1).argmax(), 0]
    wanted, had = (lower_bound(values - current[0]) > 0 for values in (winner, chosen))
    return {
        "tokens": float((seen * tokens).sum() / (len(full) * tokens.sum())),
        "near": float(near(chosen, every[every.mean(1).argmax()])),
        "same": float(wanted == had and (not wanted or near(chosen, winner))),
    }


def near(chosen: np.ndarray, best: np.ndarray) -> bool:
    """Whether the mean is within one paired standard error of the best."""
    behind = best - chosen
    return bool(behind.mean() <= behind.std(ddof=1) / len(behind) ** 0.5)


def memory(name: str, questions: str, config: RefineConfig) -> dict:
    """Peak resident memory of a refinement in a process of its own, in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(text).resolve()) if Path(text).exists() else text for text in (name, questions)]
        command = [sys.executable, "-c", PEAK, *paths, f"{folder}/run", json.dumps(config.to_config())]
        done = subprocess.run(command, cwd=REPO, check=True, capture_output=True, text=True)
    before, peak = json.loads(done.stdout.splitlines()[-1])
    model = load_language_model(name, fresh=True)
    size = sum(p.numel() * p.element_size() for p in model.model.parameters()) / 2**20
    libraries, peak = before / 1024, peak / 1024
    return {
        "model": size,
        "libraries": libraries,
        "peak": peak,
        "times_model": peak / size,
        "times_model_at_least": (libraries + size) / size,  # to hold the model at all
        "times_model_without_libraries": (peak - libraries) / size,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is asked for, print it, write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--questions", required=True, help="JSONL, built-in, or lm-eval:TASK")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--most", type=int, default=80, help="questions to score")
    parser.add_argument("--only", choices=("scoring", "racing", "memory"))
    parser.add_argument("--device")
    parser.add_argument("--out", required=True)
    args = parser.parse_args(argv)
    config = RefineConfig.of(args.preset)
    machine = {"cpu": platform.processor(), "threads": torch.get_num_threads(), "cores": os.cpu_count()}
    result = {"model": args.model, "preset": args.preset, "questions": args.most, "machine": machine}
    questions = draw(load_questions(args.questions), args.most, 0)
    if args.only in (None, "scoring"):
        result["scoring"] = scoring(args.model, questions, config, args.device)
        print(f"{result['scoring']['times_faster']:.1f} times faster than full passes.")
    if args.only in (None, "racing"):
        result["racing"] = found = racing(args.model, questions, config, args.device)
        print(
            f"Racing computes {found['tokens']:.0%} of the tokens; its choice is within one paired standard error of "
            f"the best in {found['near']:.0%} of the races, and that of full scoring in {found['same']:.0%}."
        )
    if args.only in (None, "memory"):
        small = RefineConfig.of(
            args.preset, layers=2, candidates=2, report_questions=20, vae_steps=4, diffusion_steps=4
        )
        result["memory_mib"] = memory(args.model, args.questions, small)
        print(result["memory_mib"])
    Path(args.out).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
