"""``llm``: language models."""

import argparse

from d2nwg.cli import llm_refine, llm_split, llm_talk


def add_parser(subparsers, parent: argparse.ArgumentParser) -> None:
    """Add ``llm`` and its actions to the command line."""
    parser = subparsers.add_parser(
        "llm",
        help="refine language models layer by layer, and talk with them",
        description="Look at a language model's layers, refine some of them, and talk with base and refinement.",
        epilog="example: python -m d2nwg llm chat default",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    llm_refine.add_actions(actions, parent)
    llm_split.add_actions(actions, parent)
    llm_talk.add_actions(actions, parent)
