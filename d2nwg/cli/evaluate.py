"""``evaluate HEAD DATA``: how good a head is on labelled images."""

import argparse
import json


def add_parser(subparsers, parent: argparse.ArgumentParser) -> None:
    """Add ``evaluate`` to the command line."""
    parser = subparsers.add_parser(
        "evaluate",
        parents=[parent],
        help="score a head on labelled images",
        description="Score a head on labelled images, on their test folder when they have one, and print JSON "
        "with accuracy, per_class, num_images, classes, confusion, skipped and notes.",
        epilog="example: python -m d2nwg evaluate out/head.safetensors photos/",
    )
    parser.add_argument("head", metavar="HEAD", help="a head file, such as OUT/head.safetensors of generate")
    parser.add_argument("data", metavar="DATA", help="a folder of class folders, an archive of one, or a data set")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Print the scores as JSON on stdout."""
    from d2nwg.data.images import load_images
    from d2nwg.heads import Head, evaluate_head
    from d2nwg.utils.progress import TerminalProgress

    head, progress = Head.load(args.head), TerminalProgress()
    scores = evaluate_head(head, load_images(args.data, progress=progress), device=args.device, progress=progress)
    print(json.dumps(scores, indent=2, ensure_ascii=False))
