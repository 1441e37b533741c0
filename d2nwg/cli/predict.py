"""``predict HEAD ITEM...``: what a head sees in images or texts."""

import argparse


def add_parser(subparsers, parent: argparse.ArgumentParser) -> None:
    """Add ``predict`` to the command line."""
    parser = subparsers.add_parser(
        "predict",
        parents=[parent],
        help="label images or texts with a head",
        description="Label images or texts with a head: image or text, label and probability, a line each, separated "
        "by tabs.",
        epilog="example: python -m d2nwg predict out/head.safetensors cat.jpg dog.png; "
        'python -m d2nwg predict out/head.safetensors --text "A lovely film."',
    )
    parser.add_argument("head", metavar="HEAD", help="a head file, such as OUT/head.safetensors of generate")
    parser.add_argument(
        "items",
        metavar="FILE",
        nargs="*",
        help="an image file; for a head of texts a CSV or JSONL, or a text file with a text a line",
    )
    parser.add_argument(
        "--text",
        nargs="+",
        action="append",
        default=[],
        metavar="TEXT",
        help="a text, or several; for a head of pairs two texts (may be given several times)",
    )
    parser.add_argument("--text-column", nargs="+", default=[], metavar="NAME", help="of a table (found by name)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Print a line an image or a text."""
    from d2nwg.heads import Head, predict_images, predict_texts
    from d2nwg.utils.errors import UserError
    from d2nwg.utils.text import shown

    if not args.items and not args.text:
        raise UserError("Nothing to label: give image files; or, for a head of texts, a file or --text.")
    head = Head.load(args.head)
    if head.noun == "image":
        if args.text:
            raise UserError("This head takes images, not texts: give image files.")
        rows = predict_images(head, args.items, top=1, device=args.device)
        named = [row["image"] for row in rows]
    else:
        rows = predict_texts(head, _texts(head, args), top=1, device=args.device)
        named = [" | ".join((row["text"],) if isinstance(row["text"], str) else row["text"]) for row in rows]
    for name, row in zip(named, rows, strict=True):
        print(shown(name, None), shown(row["label"], None), f"{row['probability']:.4f}", sep="\t")


def _texts(head, args: argparse.Namespace) -> list:
    """The texts, or pairs of texts, that are given one by one and in files."""
    from pathlib import Path

    from d2nwg.data.columns import Columns
    from d2nwg.data.texts import load_free_texts
    from d2nwg.utils.errors import UserError

    found: list = []
    for given in args.text:
        if head.noun == "text":
            found += given
        elif len(given) == 2:
            found.append(tuple(given))
        else:
            raise UserError(f'This head takes two texts a row: give --text "one" "other", not {len(given)}.')
    if args.items:
        columns = Columns(tuple(args.text_column))
        found += load_free_texts([Path(item) for item in args.items], pairs=head.noun == "pair", columns=columns)
    return found
