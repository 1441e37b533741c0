"""``llm spectrum``, ``llm refine`` and ``llm evaluate``: which layers carry the most, and better ones for them."""

import argparse
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d2nwg.cli.common import count, finite, positive, whole_number
from d2nwg.llm.architectures import PARTS
from d2nwg.llm.presets import CRITERIA

if TYPE_CHECKING:
    from d2nwg.llm.questions import Question

MODEL = "a Hub id, a folder, a GGUF file, or default for the embedded one"
CHOICE = ("parts", "group", "compression", "mode")  # of what is generated, where no zoo says it
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
        "keep those that answer the selection questions better (the one-sided 90 % "
        "interval of the paired difference lies above zero), and compare the base, the refined model and the same "
        "search with noise, cut ranks and the VAE's reconstruction on the report questions. With --zoo, learn how "
        "fine-tunes of the model differ in each layer, begin with their average, sample all layers and then one group "
        "after another, and compare with the base, the best fine-tune, the average, and that fine-tune with noise. "
        "Writes a folder for transformers with report.json, log.jsonl and delta.safetensors; until it is finished "
        "everything lies in DIR.refining.",
        epilog="example: python -m d2nwg llm refine default --select a.jsonl --report b.jsonl --out refined",
    )
    refine.add_argument("model", metavar="MODEL", help=MODEL)
    refine.add_argument("--select", nargs="+", required=True, metavar="FILE", help=f"questions to choose by: {FILES}")
    refine.add_argument(
        "--report",
        nargs="+",
        required=True,
        metavar="FILE",
        help="other questions, to judge by: of llm split for the distribution of those to choose by, other files for "
        "another one; lm-eval tasks in which the model writes are judged as well, once for the base and the result",
    )
    refine.add_argument(
        "--zoo",
        metavar="ZOO",
        help="of fine-tunes of MODEL (zoo build --llm), by path or by the name of one in pretrained/ or in the cache: "
        "sample from their distribution, layer by layer",
    )
    refine.add_argument("--preset", default="quick", metavar="P", help="tiny, quick, standard or paper (quick)")
    refine.add_argument(
        "--candidates",
        type=positive,
        metavar="K",
        help="for each matrix or group, at strengths 1, 0.5 and 0.25 "
        "in turn; they race over growing parts of the questions (the preset's)",
    )
    refine.add_argument(
        "--layers",
        type=count,
        metavar="N",
        help="matrices to refine; 0: all that rank high. With --zoo: groups of adjacent blocks sampled as one; "
        "0: each block by itself (the preset's)",
    )
    refine.add_argument(
        "--passes", type=positive, metavar="N", help="over all of them; one that accepts nothing is the last (1)"
    )
    refine.add_argument(
        "--parts",
        choices=PARTS,
        help="matrices of the blocks, norms, the output head, or all parameters (matrices); not with --zoo",
    )
    refine.add_argument(
        "--group",
        type=count,
        metavar="N",
        help="matrices of each type that share a generator; 0: one for all (0); not with --zoo",
    )
    refine.add_argument(
        "--compression", type=finite, metavar="F", help="numbers for each latent (the preset's); not with --zoo"
    )
    refine.add_argument("--mode", choices=("paper", "spectrum"), help="what ranks them (paper); not with --zoo")
    refine.add_argument(
        "--criterion",
        choices=CRITERIA,
        help="what must get better (accuracy; confidence, the "
        "log-probability of the right choice under a temperature fitted on the base model, with --zoo)",
    )
    refine.add_argument("--normalise", action="store_true", help="score choices per character")
    refine.add_argument("--select-questions", type=count, metavar="N", help="most of them; 0 for all (the preset's)")
    refine.add_argument("--report-questions", type=count, metavar="N", help="most of them; 0 for all (the preset's)")
    _add_shots(refine, "the selection questions")
    refine.add_argument("--resume", action="store_true", help="go on with a run that was stopped or killed")
    refine.add_argument("--out", required=True, metavar="DIR", help="the folder to write")
    refine.set_defaults(run=run_refine)

    evaluate = actions.add_parser(
        "evaluate",
        parents=[parent],
        help="score a model on multiple-choice questions",
        description="The share of questions whose right choice is the likeliest, as lm-evaluation-harness counts it: "
        "acc, and acc_norm per character of the choice. Tasks of the harness in which the model writes its answer are "
        "run by the harness, and print the task's own metrics with their standard errors.",
        epilog="example: python -m d2nwg llm evaluate default arc_easy.jsonl --shots 5",
    )
    evaluate.add_argument("model", metavar="MODEL", help=MODEL)
    evaluate.add_argument("file", metavar="FILE", nargs="+", help=FILES)
    _add_shots(evaluate, "the rest of each file")
    evaluate.add_argument("--out", metavar="F.json", help="every question's likelihoods as well")
    evaluate.set_defaults(run=run_evaluate)


def _add_shots(parser: argparse.ArgumentParser, pool: str) -> None:
    parser.add_argument(
        "--shots",
        type=partial(whole_number, most=100),
        metavar="K",
        help="solved questions before each one, drawn by --seed, the foremost left out where the model cannot read "
        "them all (0). Tasks of lm-eval draw their own, as lm_eval --num_fewshot K does (0; where the model writes, "
        "the task's number)",
    )
    parser.add_argument(
        "--shots-from",
        nargs="+",
        metavar="FILE",
        help=f"questions to draw them from, none of which is reported on ({pool})",
    )


def _pool(args: argparse.Namespace, *asked: "list[Question]") -> "list[Question]":
    """The questions of ``--shots-from``, none of which is asked."""
    from d2nwg.llm.questions import check_disjoint, load_questions
    from d2nwg.utils.errors import UserError

    if args.shots_from and not args.shots:
        raise UserError("Say with --shots K how many of the questions of --shots-from stand before each one.")
    pool = [question for file in args.shots_from or () for question in load_questions(file)]
    for questions in asked:
        check_disjoint(
            pool, questions, "The examples of --shots-from and the questions", "an example would give its answer away"
        )
    return pool


def run_spectrum(args: argparse.Namespace) -> None:
    """Measure, rank, write, and name the chosen ones."""
    import json

    from d2nwg.llm.architectures import TYPES
    from d2nwg.llm.models import load_language_model
    from d2nwg.llm.spectrum import check_choice, measure, rank
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
        mine = [row for row in ranked if row.chosen and row.matrix.type == kind]
        if mine:
            layers = [str(row.matrix.layer) for row in sorted(mine, key=lambda row: row.rank or 0)]
            print(f"{kind:>7}: layers {', '.join(layers)}")


def run_refine(args: argparse.Namespace) -> int:
    """Refine, save, and print the comparison with the base and the baselines."""
    from d2nwg.llm.export import THERE
    from d2nwg.utils.errors import UserError
    from d2nwg.utils.outputs import claimed

    if args.zoo is not None and (useless := [f"--{key}" for key in CHOICE if getattr(args, key) is not None]):
        raise UserError(
            f"With --zoo every layer is sampled that its checkpoints change: leave out {', '.join(useless)}."
        )
    with claimed(args.out, empty=True, there=THERE, advice="make room and go on with --resume") as out:
        return _refine(args, out)


def _refine(args: argparse.Namespace, out: Path) -> int:
    import shutil

    from d2nwg.llm.generative import judge_refined, load_source, words
    from d2nwg.llm.presets import RefineConfig
    from d2nwg.llm.questions import load_questions
    from d2nwg.llm.refine import save_refined
    from d2nwg.llm.refinement import decision_words, refine_by
    from d2nwg.llm.report import NAMES
    from d2nwg.llm.shots import shot_words, with_shots
    from d2nwg.utils.progress import TerminalProgress
    from d2nwg.utils.text import shown

    chosen = ("layers", "candidates", "passes", "criterion", "select_questions", "report_questions", *CHOICE)
    changes = {key: getattr(args, key) for key in chosen if getattr(args, key) is not None}
    zoo = args.zoo is not None
    config = RefineConfig.of(args.preset, zoo=zoo, seed=args.seed, normalise=args.normalise, **changes)
    select = [q for file in args.select for q in load_questions(file, args.shots or 0)]
    sources = {file: load_source(file, args.shots) for file in args.report}
    report = [q for questions in sources.values() if isinstance(questions, list) for q in questions]
    written = {file: task for file, task in sources.items() if not isinstance(task, list)}
    pool = _pool(args, report) or select
    select, report = (with_shots(asked, pool, args.shots or 0, seed=args.seed) for asked in (select, report))
    work = out.with_name(out.name + ".refining")
    try:
        made = refine_by(
            args.model,
            select,
            report,
            config,
            zoo=args.zoo,
            folder=work,
            resume=args.resume,
            device=args.device,
            progress=TerminalProgress(),
            on_event=lambda line: print(decision_words(line, config.criterion), flush=True),
        )
        if written:
            made.report["generative"] = judge_refined(args.model, made.tensors, written, args.device)
    except KeyboardInterrupt:
        print(f"Stopped. What was accepted is kept in {work}: the same command with --resume goes on.")
        return 130
    save_refined(made, out, model=args.model)
    shutil.rmtree(work, ignore_errors=True)
    rows = made.report["rows"]
    width = max(len(NAMES[name]) for name in rows)
    for name, row in rows.items():
        low, high = row["interval"]
        print(f"{NAMES[name]:>{width}}: {row['accuracy']:.1%} right ({low:.1%} to {high:.1%})")
    for file, facts in made.report.get("generative", {}).items():
        for name, found in facts.items():
            print(f"{shown(file)}, {NAMES[name]}: {words(found)}")
    if "shots" in made.report:
        print(f"The report questions: {shot_words(made.report, 'report')}.")
    print(" ".join(made.report["words"]), f"It is in {args.out}.")
    return 0


def run_evaluate(args: argparse.Namespace) -> None:
    """Score every file, and print acc and acc_norm with their intervals, or what the harness finds."""
    import json

    from d2nwg.llm.generative import judge_task, load_source, words
    from d2nwg.llm.models import load_language_model
    from d2nwg.llm.report import accuracy_interval
    from d2nwg.llm.score import score_questions
    from d2nwg.llm.shots import shot_facts, shot_words, with_shots
    from d2nwg.utils.outputs import claimed
    from d2nwg.utils.paths import write_whole
    from d2nwg.utils.progress import TerminalProgress
    from d2nwg.utils.text import number, shown

    progress = TerminalProgress()
    with claimed(args.out) if args.out else nullcontext() as out:
        sets = {file: load_source(file, args.shots) for file in args.file}
        pool = _pool(args, *(questions for questions in sets.values() if isinstance(questions, list)))
        for file, asked in sets.items():
            if isinstance(asked, list):
                sets[file] = with_shots(asked, pool or asked, args.shots or 0, seed=args.seed)
        model = load_language_model(args.model, device=args.device, progress=progress)
        result: dict[str, Any] = {"model": model.name, "sets": {}}
        for file, questions in sets.items():
            if not isinstance(questions, list):
                result["sets"][file] = found = judge_task(model, questions)
                print(f"{shown(file, None)}: {number(found['questions'], 'question')}, {words(found)}", flush=True)
                continue
            scores = score_questions(model, questions, progress=progress)
            facts: dict[str, Any] = {"questions": len(questions), **shot_facts(model, questions=questions)}
            for key, normalise in (("acc", False), ("acc_norm", True)):
                right = scores.correct(normalise)
                facts[key], facts[f"{key}_interval"] = float(right.mean()), accuracy_interval(right)
            low, high = facts["acc_interval"]
            print(
                f"{shown(file, None)}: {len(questions)} questions, acc {facts['acc']:.1%} ({low:.1%} to {high:.1%}), "
                f"acc_norm {facts['acc_norm']:.1%}"
                + (f", {shot_words(facts, 'questions')}" if "shots" in facts else ""),
                flush=True,
            )
            items = [
                {"likelihoods": v.tolist(), "answer": int(a)}
                for v, a in zip(scores.choices, scores.answers, strict=True)
            ]
            result["sets"][file] = {**facts, "items": items}
        if out:
            write_whole(out, json.dumps(result, indent=1) + "\n")
