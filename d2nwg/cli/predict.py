"""``predict HEAD ITEM...``: what a head, or an adapter, sees in images or texts."""

import argparse
import sys
from contextlib import nullcontext
from typing import Any


def add_parser(subparsers, parent: argparse.ArgumentParser) -> None:
    """Add ``predict`` to the command line."""
    parser = subparsers.add_parser(
        "predict",
        parents=[parent],
        help="label images or texts with a head, a network or an adapter",
        description="Label images or texts with a head, a network or an adapter: image or text, label and probability "
        "(or the value of an adapter that says one), a line each, separated by tabs.",
        epilog="example: python -m d2nwg predict out/head.safetensors cat.jpg dog.png; "
        'python -m d2nwg predict out/head.safetensors --text "A lovely film."',
    )
    parser.add_argument(
        "head",
        metavar="HEAD",
        help="a head file, such as OUT/head.safetensors of generate, or the folder that generate wrote of a network "
        "or, with --describe, of an adapter",
    )
    parser.add_argument(
        "items",
        metavar="FILE",
        nargs="*",
        help="an image file, or a folder or archive of them; for a head of texts a CSV or JSONL, or a text file with a "
        "text a line",
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
    parser.add_argument("--csv", metavar="FILE", help="also write a table with the probability of every class")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Print a line an image or a text."""
    from d2nwg.adapters import is_adapter
    from d2nwg.data.text_set import in_words
    from d2nwg.heads import Head, predict_images, predict_texts
    from d2nwg.utils.errors import UserError
    from d2nwg.utils.text import shown
    from d2nwg.weights.network_files import is_network, load_network

    if not args.items and not args.text:
        raise UserError("Nothing to label: give image files; or, for a head of texts, a file or --text.")
    if is_adapter(args.head):
        _by_adapter(args)
        return
    head: Any = load_network(args.head) if is_network(args.head) else Head.load(args.head)
    if head.noun == "image" and args.text:
        raise UserError("This head takes images, not texts: give image files.")
    if args.csv or (head.noun == "image" and not all(map(_is_picture, args.items))):
        _many(head, args)
        return
    if head.noun == "image":
        rows = predict_images(head, args.items, top=1, device=args.device)
        named = [row["image"] for row in rows]
    else:
        rows = predict_texts(head, _texts(head, args), top=1, device=args.device)
        named = [in_words(row["text"]) for row in rows]
    for name, row in zip(named, rows, strict=True):
        print(shown(name, None), shown(row["label"], None), f"{row['probability']:.4f}", sep="\t")


def _is_picture(name: str) -> bool:
    """Whether a name is that of one image, there or not."""
    from pathlib import Path

    from d2nwg.data.image_set import SUFFIXES

    path = Path(name)
    return path.suffix.lower() in SUFFIXES or not path.exists()


def _many(head, args: argparse.Namespace) -> None:
    """Predict for all that folders, archives and tables hold."""
    from pathlib import Path

    from d2nwg.data.columns import Columns
    from d2nwg.predictions import predict_many
    from d2nwg.utils.errors import UserError
    from d2nwg.utils.outputs import claimed
    from d2nwg.utils.paths import whole_file
    from d2nwg.utils.progress import TerminalProgress
    from d2nwg.utils.text import number, shown

    if args.text:
        raise UserError("--csv is for files: put the texts into one, a text a line.")
    run = {"columns": Columns(tuple(args.text_column)), "device": args.device, "progress": TerminalProgress()}
    with claimed(args.csv) if args.csv else nullcontext() as target:
        found = predict_many(head, [Path(item) for item in args.items], **run)
        if target:
            with whole_file(target) as part:
                found.save(part)
    for name, best, chances in zip(found.names, found.predicted, found.probabilities, strict=True):
        print(shown(name, None), shown(found.classes[best], None), f"{chances[best]:.4f}", sep="\t")
    for note in found.notes:
        print(note, file=sys.stderr)
    if found.accuracy is not None:
        known = int((found.truth >= 0).sum())
        print(
            f"Right on {found.accuracy:.1%} of the {number(known, 'image')} in folders named as a class.",
            file=sys.stderr,
        )


def _by_adapter(args: argparse.Namespace) -> None:
    from d2nwg.adapters import Adapter, predict_texts
    from d2nwg.data.text_set import in_words
    from d2nwg.utils.text import shown

    adapter = Adapter.load(args.head)
    texts = _texts(adapter, args)
    for row in predict_texts(adapter, texts, top=1, encoder=adapter.encoder(args.device)):
        said = [shown(row["label"], None), f"{row['probability']:.4f}"] if adapter.classes else [f"{row['value']:.4f}"]
        print(shown(in_words(row["text"]), None), *said, sep="\t")


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
