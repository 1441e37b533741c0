"""``evaluate HEAD DATA``: how good a head is on labelled images or texts."""

import argparse
import json

from d2nwg.cli.common import add_columns


def add_parser(subparsers, parent: argparse.ArgumentParser) -> None:
    """Add ``evaluate`` to the command line."""
    parser = subparsers.add_parser(
        "evaluate",
        parents=[parent],
        help="score a head on labelled data",
        description="Score a head on labelled images or texts, on their test split when they have one, and print JSON "
        "with accuracy, per_class, num_images (or num_texts, num_pairs), classes, confusion, skipped and notes.",
        epilog="example: python -m d2nwg evaluate out/head.safetensors photos/",
    )
    parser.add_argument("head", metavar="HEAD", help="a head file, such as OUT/head.safetensors of generate")
    parser.add_argument(
        "data", metavar="DATA", help="a folder of class folders, an archive of one, a table of texts, or a data set"
    )
    add_columns(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Print the scores as JSON on stdout."""
    from d2nwg.data.columns import Columns
    from d2nwg.data.sources import load_data
    from d2nwg.heads import Head, evaluate_head
    from d2nwg.utils.progress import TerminalProgress

    head, progress = Head.load(args.head), TerminalProgress()
    data = load_data(args.data, columns=Columns(tuple(args.text_column), args.label_column), progress=progress)
    scores = evaluate_head(head, data, device=args.device, progress=progress)
    print(json.dumps(scores, indent=2, ensure_ascii=False))
