"""``evaluate HEAD DATA``: how good a head, or an adapter, is on labelled images or texts."""

import argparse
import json
from typing import Any

from d2nwg.cli.common import add_columns


def add_parser(subparsers, parent: argparse.ArgumentParser) -> None:
    """Add ``evaluate`` to the command line."""
    parser = subparsers.add_parser(
        "evaluate",
        parents=[parent],
        help="score a head, a network or an adapter on labelled data",
        description="Score a head or a network on labelled images or texts, on their test split when they have one, "
        "and print JSON with accuracy, per_class, num_images (or num_texts, num_pairs), classes, confusion, skipped "
        "and notes. Of an adapter also matthews, or pearson alone where it says a value.",
        epilog="example: python -m d2nwg evaluate out/head.safetensors photos/",
    )
    parser.add_argument(
        "head",
        metavar="HEAD",
        help="a head file, such as OUT/head.safetensors of generate, or the folder that generate wrote of a network "
        "or, with --describe, of an adapter",
    )
    parser.add_argument(
        "data", metavar="DATA", help="a folder of class folders, an archive of one, a table of texts, or a data set"
    )
    add_columns(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Print the scores as JSON on stdout."""
    from d2nwg.adapter_scores import evaluate_adapter
    from d2nwg.adapters import Adapter, is_adapter
    from d2nwg.data.columns import Columns
    from d2nwg.data.sources import load_data
    from d2nwg.heads import Head, evaluate_head
    from d2nwg.network_scores import evaluate_arrays, is_arrays
    from d2nwg.utils.progress import TerminalProgress
    from d2nwg.weights.network_files import NetworkFile, is_network, load_network

    options: dict[str, Any] = {"device": args.device, "progress": TerminalProgress()}
    if is_adapter(args.head):
        scored: Any = Adapter.load(args.head)
    else:
        scored = load_network(args.head) if is_network(args.head) else Head.load(args.head)
    if isinstance(scored, NetworkFile) and is_arrays(args.data):
        print(json.dumps(evaluate_arrays(scored, args.data, options["progress"]), indent=2, ensure_ascii=False))
        return
    columns = Columns(tuple(args.text_column), args.label_column)
    data = load_data(args.data, columns=columns, progress=options["progress"])
    scores = (evaluate_adapter if isinstance(scored, Adapter) else evaluate_head)(scored, data, **options)
    print(json.dumps(scores, indent=2, ensure_ascii=False))
