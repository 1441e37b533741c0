"""What the verbs share: the parser class, the options every verb has, and argument types."""

import argparse
import re
from typing import NoReturn

from d2nwg.pipelines import DEFAULT, DEFAULT_STEPS, SAMPLERS
from d2nwg.utils.text import printable


class Parser(argparse.ArgumentParser):
    """An argument parser that answers a mistake with one sentence and exit code 2, without a usage block."""

    def __init__(self, **kwargs):
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(**kwargs)

    def error(self, message: str) -> NoReturn:
        message = " ".join(printable(message).split())
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


def device_name(text: str) -> str:
    """An argument type: the name of a torch device; whether it is there is for torch to say, later."""
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a device such as cpu or cuda")
    return text


def whole_number(text: str) -> int:
    """An argument type: an integer from 0 to 2**63 - 1, which every random generator takes as a seed."""
    if not text.isascii() or not text.isdigit() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def positive(text: str) -> int:
    """An argument type: an integer of at least 1."""
    if not (number := whole_number(text)):
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
