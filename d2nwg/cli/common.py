"""What the verbs share: the parser class, the options every verb has, and argument types."""

import argparse
import math
import re
from typing import NoReturn

from d2nwg.pipelines import DEFAULT, DEFAULT_STEPS, SAMPLERS
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import MANY, MOST_SEED
from d2nwg.utils.text import printable, shown

MAY_BE_EMPTY = ("system",)


class Parser(argparse.ArgumentParser):
    """An argument parser that answers a mistake with one sentence and exit code 2, without a usage block."""

    def __init__(self, **kwargs):
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(**kwargs)

    def error(self, message: str) -> NoReturn:
        message = shown(" ".join(printable(message).split()), 500)
        self.exit(2, f"{message[0].upper()}{message[1:]} (see {self.prog} --help).\n")


def parent_parser() -> argparse.ArgumentParser:
    """The options every verb has: ``--device`` and ``--seed``."""
    parent = argparse.ArgumentParser(add_help=False)
    shared = parent.add_argument_group("shared options")
    shared.add_argument("--device", type=device_name, help="cpu, cuda, cuda:N or mps (the fastest there is)")
    shared.add_argument("--seed", type=whole_number, default=0, help="the same seed gives the same result (0)")
    return parent


def add_sampler(parser: argparse.ArgumentParser) -> None:
    """The options of how a bundle of heads is sampled: ``--sampler`` and ``--steps``."""
    parser.add_argument(
        "--sampler",
        choices=SAMPLERS,
        default=DEFAULT,
        help="the bundle's own, which needs few steps, or the paper's ancestral one (default)",
    )
    parser.add_argument(
        "--steps", type=positive, metavar="T", help=f"denoising steps ({DEFAULT_STEPS}; 1024 with --sampler ancestral)"
    )


def add_columns(parser: argparse.ArgumentParser) -> None:
    """The options of a table of texts: ``--text-column`` and ``--label-column``."""
    parser.add_argument(
        "--text-column",
        nargs="+",
        default=[],
        metavar="NAME",
        help="the column of texts in a table, or the two of pairs of texts (found by name)",
    )
    parser.add_argument("--label-column", metavar="NAME", help="the column of labels (found by name)")


def device_name(text: str) -> str:
    """An argument type: the name of a torch device; whether it is there is for torch to say, later."""
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]{1,4})?", text):
        raise argparse.ArgumentTypeError(f"{shown(text)!r} is not a device such as cpu or cuda")
    return text


def whole_number(text: str, most: int = MOST_SEED, least: int = 0) -> int:
    """An argument type: an integer from ``least`` to ``most``; by default any that random generators take as a seed."""
    number = int(text) if re.fullmatch(r"-?[0-9]{1,20}", text) else None
    if number is None or not least <= number <= most:
        raise argparse.ArgumentTypeError(f"it must be a whole number from {least:,} to {most:,}, not {shown(text, 40)}")
    return number


def count(text: str) -> int:
    """An argument type: an integer from 0 to a thousand millions."""
    return whole_number(text, MANY)


def positive(text: str) -> int:
    """An argument type: an integer from 1 to a thousand millions."""
    return whole_number(text, MANY, least=1)


def finite(text: str) -> float:
    """An argument type: a number that is neither infinite nor NaN."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{shown(text, 40)!r} is not a number")
    return number


def check_texts(args: argparse.Namespace) -> None:
    """Refuse names and paths that are empty or hold a NUL byte: an empty path would be the current folder.

    Raises:
        UserError: naming the argument.
    """
    for name, value in vars(args).items():
        for text in value if isinstance(value, list) else [value]:
            if not isinstance(text, str):
                continue
            if "\0" in text:
                raise UserError(f"{shown(text)} holds a NUL byte, which no name and no path can: leave it out.")
            if not text.strip() and name not in MAY_BE_EMPTY:
                raise UserError(f"The argument {name.replace('_', '-')} is empty: give a name, or leave it out.")
