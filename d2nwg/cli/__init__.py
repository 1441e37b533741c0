"""The command line: ``python -m d2nwg VERB``, one verb a file.

A verb's module has ``add_parser(subparsers, parent)``, which sets ``run=`` with ``set_defaults``, and
``run(args) -> int | None``, the exit code. It imports nothing heavy before ``run``.
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import cast

from d2nwg import __version__
from d2nwg.cli import (
    curve,
    evaluate,
    explore,
    export,
    finetune,
    generate,
    interpolate,
    jobs,
    llm,
    predict,
    sample,
    train,
    zoo,
)
from d2nwg.cli.common import Parser, check_texts, parent_parser
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import free_memory, out_of_memory, size
from d2nwg.utils.outputs import AGAIN, disk_error
from d2nwg.utils.text import Printable, printable

VERBS = (zoo, train, jobs, sample, generate, finetune, curve, explore, interpolate, evaluate, predict, export, llm)


def build_parser() -> argparse.ArgumentParser:
    """The parser of every verb, in the order in which a person meets them."""
    parser = Parser(
        prog="python -m d2nwg",
        description="Generates classifier heads from a few labelled images, and trains the generators that do it.",
        epilog="example: python -m d2nwg evaluate --help",
    )
    parser.add_argument("--version", action="version", version=f"d2nwg {__version__}")
    subparsers = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True)
    parent = parent_parser()
    for verb in VERBS:
        verb.add_parser(subparsers, parent)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code: 0; 2 with one sentence on stderr for what the user can mend; 130
    when stopped from the keyboard."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be valid text
    try:
        try:
            args = build_parser().parse_args(argv)
            check_texts(args)
            args.arguments = list(sys.argv[1:] if argv is None else argv)  # a model card shows them
            with redirect_stdout(cast(io.TextIOBase, Printable(sys.stdout))):  # names and texts come from files
                return args.run(args) or 0
        finally:
            sys.stdout.flush()  # a reader that has gone is noticed here, not while Python shuts down
    except UserError as mistake:
        return _say(str(mistake), 2)
    except KeyboardInterrupt:
        return _say("Stopped.", 130)
    except BrokenPipeError:  # the reader, such as `head`, has gone: leave without a word
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as problem:
        if why := disk_error(problem):
            return _say(f"{why[0].upper()}{why[1:]}: {AGAIN}.", 2)
        if isinstance(problem, OSError) and problem.filename is not None:
            return _say(f"{problem.filename}: {problem.strerror}.", 2)
        if out_of_memory(problem):
            return _say(f"Memory ran out, of which {size(free_memory())} are free: ask for less at a time.", 2)
        raise


def _say(sentence: str, code: int) -> int:
    clear = "\r\033[K" if sys.stderr.isatty() else ""  # over a progress line left standing
    print(clear + printable(" ".join(sentence.split())), file=sys.stderr)
    return code
