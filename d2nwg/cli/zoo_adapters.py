"""``zoo build --adapter lora``: adapters of a language encoder, fine-tuned on tasks of texts."""

import argparse
import os

from d2nwg.cli.common import positive
from d2nwg.utils.errors import UserError

DEFAULT_BASE = "sentence-transformers/all-MiniLM-L6-v2"
TUNED = ("base", "about", "rank", "alpha", "targets", "epochs", "rows", "seeds", "keep", "resume")


def add_options(build: argparse.ArgumentParser) -> None:
    """Add what ``--adapter`` needs to the action ``build``."""
    build.add_argument("--adapter", choices=("lora",), help="fine-tune adapters on tasks of texts, instead of probes")
    group = build.add_argument_group("with --adapter")
    group.add_argument("--base", metavar="NAME", help=f"the text encoder ({DEFAULT_BASE})")
    group.add_argument("--about", metavar="FILE", help="JSON with descriptions, labels and metric of tasks by name")
    group.add_argument("--rank", type=positive, metavar="R", help="of the adapters (8)")
    group.add_argument("--alpha", type=positive, metavar="A", help="the adapters' scale is A / R (16)")
    group.add_argument("--targets", nargs="+", metavar="LAYER", help="layers that are adapted (query and value)")
    group.add_argument("--epochs", type=positive, metavar="N", help="passes over the texts (2)")
    group.add_argument("--rows", type=positive, metavar="N", help="most training texts of a task (3000)")
    group.add_argument("--seeds", type=positive, metavar="N", help="adapters a task (3)")
    group.add_argument("--keep", type=positive, metavar="N", help="checkpoints of each that are kept (3)")
    group.add_argument("--resume", action="store_true", default=None, help="go on with an interrupted build")


def refuse_options(args: argparse.Namespace) -> None:
    """Raises UserError where an option is given that only ``--adapter`` has a use for."""
    if given := [name for name in TUNED if getattr(args, name) is not None]:
        raise UserError(f"--{given[0]} is for adapters: add --adapter lora.")


def run_build(args: argparse.Namespace) -> None:
    """Build the zoo and print its summary."""
    from d2nwg.cli.checkpoints import print_info
    from d2nwg.data.text_tasks import load_text_task, read_about
    from d2nwg.encoders.lora import LoraShape
    from d2nwg.utils.outputs import claimed_alone
    from d2nwg.utils.progress import TerminalProgress
    from d2nwg.weights.build_adapters import AdapterZooConfig, build_adapters
    from d2nwg.weights.finetune import TuneConfig

    def given(**names) -> dict:
        return {field: value for field, name in names.items() if (value := getattr(args, name)) is not None}

    shape = LoraShape(**given(base="base", rank="rank", alpha="alpha"), targets=tuple(args.targets or ()))
    tune = TuneConfig(**given(epochs="epochs", keep="keep"))
    config = AdapterZooConfig(shape, tune, **given(seeds="seeds", rows="rows"), seed=args.seed)
    with claimed_alone(args.out):
        said = read_about(args.about) if args.about else None
        tasks = [load_text_task(source, seed=args.seed, said=said) for source in args.data]
        options = {"resume": bool(args.resume), "device": args.device, "progress": TerminalProgress()}
        build_adapters(tasks, config, args.out, **options)
    if os.environ.get("RANK", "0") == "0":  # of several processes the first one prints
        print_info(args.out)
