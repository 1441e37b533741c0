"""``llm spectrum``, ``llm refine`` and ``llm evaluate``: which layers carry the most, and better ones for them."""

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from d2nwg.cli.common import count, finite, positive
from d2nwg.llm.presets import CRITERIA

MODEL = "a Hub id, a folder, a GGUF file, or default for the embedded one"
FILES = "JSONL files, built-in, or lm-eval:TASK"


def add_actions(actions, parent: argparse.ArgumentParser) -> None:
    """Add the three to the actions of ``llm``."""
    spectrum = actions.add_parser(
        "spectrum",
        parents=[parent],
        help="rank a model's matrices by how much of them is signal",
        description="Compare the singular values of every projection with those of a random matrix, rank the "
        "projections within their type, and choose the top ones.",
        epilog="example: python -m d2nwg llm spectrum default --mode paper --out spectrum.json",
    )
    spectrum.add_argument("model", metavar="MODEL", help=MODEL)
    spectrum.add_argument("--mode", choices=("paper", "spectrum"), default="paper", help="of the ratio (paper)")
    spectrum.add_argument("--percent", type=finite, default=25.0, metavar="P", help="top share of each type (25)")
    spectrum.add_argument("--out", required=True, metavar="F.json", help="the file to write")
    spectrum.set_defaults(run=run_spectrum)

    refine = actions.add_parser(
        "refine",
        parents=[parent],
        help="sample better weights for the most informative matrices",
        description="Learn the chunks of a model's most informative matrices, sample candidates for one after another, "
        "keep those that answer the selection questions better, and compare base, refined and noise on the report "
        "questions. Writes a folder for transformers with report.json, log.jsonl and delta.safetensors; until it is "
        "finished everything lies in DIR.refining.",
        epilog="example: python -m d2nwg llm refine default --select a.jsonl --report b.jsonl --out refined",
    )
    refine.add_argument("model", metavar="MODEL", help=MODEL)
    refine.add_argument("--select", nargs="+", required=True, metavar="FILE", help=f"questions to choose by: {FILES}")
    refine.add_argument("--report", nargs="+", required=True, metavar="FILE", help="other questions, to judge by")
    refine.add_argument("--preset", default="quick", metavar="P", help="tiny, quick, standard or paper (quick)")
    refine.add_argument("--candidates", type=positive, metavar="K", help="for each matrix (the preset's)")
    refine.add_argument("--layers", type=positive, metavar="N", help="matrices to refine (the preset's)")
    refine.add_argument("--mode", choices=("paper", "spectrum"), default="paper", help="what ranks them (paper)")
    refine.add_argument("--criterion", choices=CRITERIA, help="what must get better (accuracy)")
    refine.add_argument("--normalise", action="store_true", help="score choices per character")
    refine.add_argument("--select-questions", type=count, metavar="N", help="most of them; 0 for all (the preset's)")
    refine.add_argument("--report-questions", type=count, metavar="N", help="most of them; 0 for all (the preset's)")
    refine.add_argument("--resume", action="store_true", help="go on with a run that was stopped or killed")
    refine.add_argument("--out", required=True, metavar="DIR", help="the folder to write")
    refine.set_defaults(run=run_refine)

    evaluate = actions.add_parser(
        "evaluate",
        parents=[parent],
        help="score a model on multiple-choice questions",
        description="The share of questions whose right choice is the likeliest, as lm-evaluation-harness counts it: "
        "acc, and acc_norm per character of the choice.",
        epilog="example: python -m d2nwg llm evaluate default arc_easy.jsonl",
    )
    evaluate.add_argument("model", metavar="MODEL", help=MODEL)
    evaluate.add_argument("file", metavar="FILE", nargs="+", help=FILES)
    evaluate.add_argument("--out", metavar="F.json", help="every question's likelihoods as well")
    evaluate.set_defaults(run=run_evaluate)


def run_spectrum(args: argparse.Namespace) -> None:
    """Measure, rank, write, and name the chosen ones."""
    import json

    from d2nwg.llm.models import load_language_model
    from d2nwg.llm.spectrum import TYPES, check_choice, measure, rank
    from d2nwg.utils.outputs import claimed
    from d2nwg.utils.paths import write_whole
    from d2nwg.utils.progress import TerminalProgress

    check_choice(args.mode, args.percent)
    progress = TerminalProgress()
    with claimed(args.out) as out:
        model = load_language_model(args.model, device=args.device, progress=progress)
        ranked = rank(measure(model, progress=progress), args.mode, args.percent)
        facts = {"model": model.name, "mode": args.mode, "percent": args.percent}
        write_whole(out, json.dumps({**facts, "matrices": [row.to_json() for row in ranked]}, indent=1) + "\n")
    for kind in TYPES:
        layers = [row.matrix.layer for row in sorted(ranked, key=lambda r: r.rank or 0) if row.chosen]
        mine = {row.matrix.layer for row in ranked if row.chosen and row.matrix.type == kind}
        print(f"{kind:>5}: layers {', '.join(str(layer) for layer in dict.fromkeys(layers) if layer in mine)}")


def run_refine(args: argparse.Namespace) -> int:
    """Refine, save, and print the comparison with base and noise."""
    from d2nwg.llm.export import THERE
    from d2nwg.utils.outputs import claimed

    with claimed(args.out, empty=True, there=THERE, advice="make room and go on with --resume") as out:
        return _refine(args, out)


def _refine(args: argparse.Namespace, out: Path) -> int:
    import shutil
    from functools import partial

    from d2nwg.llm.presets import RefineConfig
    from d2nwg.llm.questions import load_questions
    from d2nwg.llm.refine import refine, save_refined
    from d2nwg.utils.progress import TerminalProgress

    chosen = ("candidates", "layers", "criterion", "select_questions", "report_questions")
    changes = {key: getattr(args, key) for key in chosen if getattr(args, key) is not None}
    config = RefineConfig.of(args.preset, seed=args.seed, mode=args.mode, normalise=args.normalise, **changes)
    select, report = ([q for file in files for q in load_questions(file)] for files in (args.select, args.report))
    work = out.with_name(out.name + ".refining")
    try:
        made = refine(
            args.model,
            select,
            report,
            config,
            folder=work,
            resume=args.resume,
            device=args.device,
            progress=TerminalProgress(),
            on_event=partial(_print_decision, config.criterion),
        )
    except KeyboardInterrupt:
        print(f"Stopped. What was accepted is kept in {work}: the same command with --resume goes on.")
        return 130
    save_refined(made, out, model=args.model)
    shutil.rmtree(work, ignore_errors=True)
    rows = made.report["rows"]
    for name, row in rows.items():
        low, high = row["interval"]
        print(f"{name:>8}: {row['accuracy']:.1%} right ({low:.1%} to {high:.1%})")
    print(" ".join(made.report["words"]), f"It is in {args.out}.")
    return 0


def _print_decision(criterion: str, line: dict) -> None:
    what = "noise" if line["arm"] == "noise" else "sample"
    best = max(candidate["score"] for candidate in line["candidates"])
    before, after = (f"{v:.1%}" if criterion == "accuracy" else f"{v:.4f}" for v in (line["before"], best))
    print(
        f"{line['name']}: {criterion} {before}, best {what} of {len(line['candidates'])} {after}: "
        f"{'accepted' if line['accepted'] else 'rejected'}, {line['seconds']:.0f} s",
        flush=True,
    )


def run_evaluate(args: argparse.Namespace) -> None:
    """Score every file, and print acc and acc_norm with their intervals."""
    import json

    from d2nwg.llm.models import load_language_model
    from d2nwg.llm.questions import load_questions
    from d2nwg.llm.report import accuracy_interval
    from d2nwg.llm.score import score_questions
    from d2nwg.utils.outputs import claimed
    from d2nwg.utils.paths import write_whole
    from d2nwg.utils.progress import TerminalProgress
    from d2nwg.utils.text import shown

    progress = TerminalProgress()
    with claimed(args.out) if args.out else nullcontext() as out:
        sets = {file: load_questions(file) for file in args.file}
        model = load_language_model(args.model, device=args.device, progress=progress)
        result: dict[str, Any] = {"model": model.name, "sets": {}}
        for file, questions in sets.items():
            scores = score_questions(model, questions, progress=progress)
            facts: dict[str, Any] = {"questions": len(questions)}
            for key, normalise in (("acc", False), ("acc_norm", True)):
                right = scores.correct(normalise)
                facts[key], facts[f"{key}_interval"] = float(right.mean()), accuracy_interval(right)
            low, high = facts["acc_interval"]
            print(
                f"{shown(file, None)}: {len(questions)} questions, acc {facts['acc']:.1%} ({low:.1%} to {high:.1%}), "
                f"acc_norm {facts['acc_norm']:.1%}",
                flush=True,
            )
            items = [
                {"likelihoods": v.tolist(), "answer": int(a)}
                for v, a in zip(scores.choices, scores.answers, strict=True)
            ]
            result["sets"][file] = {**facts, "items": items}
        if out:
            write_whole(out, json.dumps(result, indent=1) + "\n")
