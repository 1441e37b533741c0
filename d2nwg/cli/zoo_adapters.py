"""``zoo build --adapter lora`` and ``zoo build --llm``: adapters of a text encoder, fine-tuned on tasks of texts, and
of a language model, fine-tuned on questions."""

import argparse
import os

from d2nwg.cli.common import count, finite, positive
from d2nwg.utils.errors import UserError

DEFAULT_BASE = "sentence-transformers/all-MiniLM-L6-v2"
SHARED = ("epochs", "lr", "rows", "seeds", "keep", "resume")  # with small networks
TUNED = ("rank", "alpha", "targets", "max_tokens", *SHARED)
OF_ENCODERS, OF_MODELS = ("base", "about"), ("select", "select_questions", "loss", "job")


def add_options(build: argparse.ArgumentParser):
    """Add what ``--adapter`` and ``--llm`` need to the action ``build``; returns the group of options of which only one
    can be given."""
    what = build.add_mutually_exclusive_group()
    what.add_argument("--adapter", choices=("lora",), help="fine-tune adapters on tasks of texts, instead of probes")
    what.add_argument(
        "--llm",
        metavar="MODEL",
        help="fine-tune LoRA adapters of a language model on questions: a Hub id, a folder, a GGUF file, or default "
        "for the embedded one",
    )
    group = build.add_argument_group("with --adapter or --llm")
    group.add_argument("--base", metavar="NAME", help=f"with --adapter, the text encoder ({DEFAULT_BASE})")
    group.add_argument(
        "--about", metavar="FILE", help="with --adapter, JSON with descriptions, labels and metric of tasks"
    )
    group.add_argument(
        "--select",
        nargs="+",
        metavar="FILE",
        help="with --llm, questions that every checkpoint is scored on (a fifth of the others, kept aside by the seed)",
    )
    group.add_argument(
        "--select-questions",
        type=count,
        metavar="N",
        help="with --llm, most of them, drawn by the seed; 0 for all (500)",
    )
    group.add_argument(
        "--loss",
        choices=("answer", "choices"),
        help="with --llm, what is made likely: the right choice by itself, or among its question's choices (answer)",
    )
    group.add_argument(
        "--job", metavar="NAME", help="with --llm, run in the background as a job of this name (see jobs)"
    )
    group.add_argument("--rank", type=positive, metavar="R", help="of the adapters (8)")
    group.add_argument("--alpha", type=positive, metavar="A", help="the adapters' scale is A / R (16)")
    group.add_argument("--targets", nargs="+", metavar="LAYER", help="layers that are adapted (query and value)")
    group.add_argument(
        "--max-tokens", type=positive, metavar="N", help="of a text, the rest is cut (128; 256 with --llm)"
    )
    group = build.add_argument_group("with --adapter, --llm or --network")
    group.add_argument(
        "--epochs",
        type=positive,
        metavar="N",
        help="passes over the texts (2; 3 with --llm), or over a task's images, in place of --updates",
    )
    group.add_argument(
        "--lr", type=finite, metavar="X", help="learning rate, of adapters at its peak (0.002; 0.001 with --llm; 0.005)"
    )
    group.add_argument(
        "--rows",
        type=positive,
        metavar="N",
        help="most training texts of a task (3000), questions in all (all), or training images of a data set (6000)",
    )
    group.add_argument(
        "--seeds", type=positive, metavar="N", help="adapters (3; 4 with --llm) or networks (1) of a task"
    )
    group.add_argument(
        "--keep",
        type=positive,
        metavar="N",
        help="checkpoints of each that are kept (3; 1 with --network); with --llm the last N epochs (2)",
    )
    group.add_argument("--resume", action="store_true", default=None, help="go on with an interrupted build")
    return what


def refuse_options(args: argparse.Namespace) -> None:
    """Raises UserError where an option is given that only the other kinds of zoo have a use for."""
    unused = OF_ENCODERS if args.llm else OF_MODELS if args.adapter else (*TUNED, *OF_ENCODERS, *OF_MODELS)
    if given := [name for name in unused if getattr(args, name) is not None]:
        option = f"--{given[0].replace('_', '-')}"
        if given[0] in OF_MODELS:
            raise UserError(f"{option} is for adapters of language models: add --llm MODEL.")
        more = " (or --network NAME, for small networks)" * (given[0] in SHARED)
        raise UserError(f"{option} is for adapters{' of text encoders' * bool(args.llm)}: add --adapter lora{more}.")


def run_build(args: argparse.Namespace) -> None:
    """Build the zoo and print its summary."""
    from d2nwg.cli.checkpoints import print_info
    from d2nwg.utils.outputs import claimed_alone
    from d2nwg.utils.progress import TerminalProgress

    if args.lr is not None and not 0 < args.lr <= 1:
        raise UserError(f"The learning rate {args.lr:g} is none: give a number above 0, and at most 1.")
    if args.job:
        return _submit(args)
    options = {"resume": bool(args.resume), "device": args.device, "progress": TerminalProgress()}
    with claimed_alone(args.out):
        (_language if args.llm else _encoder)(args, options)
    if os.environ.get("RANK", "0") == "0":  # of several processes the first one prints
        print_info(args.out)


def _given(args: argparse.Namespace, *names: str) -> dict:
    return {name: value for name in names if (value := getattr(args, name)) is not None}


def _encoder(args: argparse.Namespace, options: dict) -> None:
    from d2nwg.data.text_tasks import load_text_task, read_about
    from d2nwg.encoders.lora import LoraShape
    from d2nwg.weights.build_adapters import AdapterZooConfig, build_adapters
    from d2nwg.weights.finetune import TuneConfig

    shape = LoraShape(**_given(args, "base", "rank", "alpha", "max_tokens"), targets=tuple(args.targets or ()))
    tune = TuneConfig(**_given(args, "epochs", "keep", "lr"))
    config = AdapterZooConfig(shape, tune, **_given(args, "seeds", "rows"), seed=args.seed)
    said = read_about(args.about) if args.about else None
    tasks = [load_text_task(source, seed=args.seed, said=said) for source in args.data]
    build_adapters(tasks, config, args.out, **options)


def _language(args: argparse.Namespace, options: dict) -> None:
    from d2nwg.llm.adapter_zoo import build_llm_adapters

    config, sources, select = _language_asked(args)
    build_llm_adapters(sources, config, args.out, select=select, **options)


def _language_asked(args: argparse.Namespace):
    """The configuration, the questions of each source, and those to score by."""
    from dataclasses import replace

    from d2nwg.llm.adapter_zoo import LlmZooConfig
    from d2nwg.llm.questions import load_questions
    from d2nwg.llm.refinement import questions_of

    plain = LlmZooConfig()
    chosen = _given(args, "rank", "alpha", "max_tokens")
    shape = replace(plain.shape, base=args.llm, targets=tuple(args.targets or ()), **chosen)
    tune = replace(plain.tune, **_given(args, "epochs", "keep", "lr"))
    most = {} if args.select_questions is None else {"scored": args.select_questions}
    config = LlmZooConfig(shape, tune, **_given(args, "seeds", "rows", "loss"), **most, seed=args.seed)
    return config, [load_questions(source) for source in args.data], questions_of(args.select or ())


def _submit(args: argparse.Namespace) -> None:
    """Put the build in the queue, once its questions are known to do, and say how to follow it."""
    from dataclasses import replace

    from d2nwg.jobs.queue import absolute, submit_finetunes
    from d2nwg.llm.adapter_zoo import LlmTuning

    if args.resume:
        raise UserError(f"A job goes on with `python -m d2nwg jobs resume {args.job}`: leave out --resume.")
    config, sources, select = _language_asked(args)
    LlmTuning(sources, config, select)
    config = replace(config, shape=replace(config.shape, base=absolute(args.llm)))
    job = submit_finetunes(args.job, config, args.data, args.select or (), out=args.out, device=args.device)
    where = f"`python -m d2nwg jobs show {job.id}` says how far it is"
    print(f"The job {job.id} is {job.state()['state']}; {where}.")
