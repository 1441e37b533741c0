"""``zoo import`` and ``zoo export``: checkpoints that were trained elsewhere, to a zoo and back to files."""

import argparse
import json


def add_actions(actions, parent: argparse.ArgumentParser) -> None:
    """Add ``import`` and ``export`` to the actions of ``zoo``."""
    take = actions.add_parser(
        "import",
        parents=[parent],
        help="import checkpoints to a zoo",
        description="Import checkpoints (.safetensors; .pt, .pth, .th that need no code; save_pretrained folders) to a "
        "zoo, tensors bit for bit. Those that cannot be imported are named with the reason.",
        epilog="example: python -m d2nwg zoo import checkpoints/ --table scores.csv --out model-zoo",
    )
    take.add_argument("checkpoints", metavar="CKPTS", nargs="+", help="a folder, an archive of one, or a file")
    take.add_argument(
        "--table", metavar="FILE", help="CSV or JSONL with file, task, accuracy, epoch (tables among CKPTS)"
    )
    where = take.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", metavar="ZOO", help="the folder to write")
    where.add_argument(
        "--preview", action="store_true", help="write nothing; print layers, shapes and what is left out"
    )
    take.add_argument("--append", action="store_true", help="add to an existing zoo")
    take.set_defaults(run=run_import)
    give = actions.add_parser(
        "export",
        parents=[parent],
        help="export imported checkpoints",
        description="Write a zoo's checkpoints to a folder under the names they were imported by, and zoo.csv.",
        epilog="example: python -m d2nwg zoo export model-zoo --out checkpoints",
    )
    give.add_argument("zoo", metavar="ZOO", help="a folder that zoo import wrote")
    give.add_argument("--out", required=True, metavar="DIR", help="the folder to write")
    give.add_argument(
        "--format", choices=("safetensors", "pt"), default="safetensors", help="of the files (safetensors)"
    )
    give.set_defaults(run=run_export)


def run_import(args: argparse.Namespace) -> None:
    """Import, print what was left out and why, and print what the zoo contains."""
    from d2nwg.utils.progress import TerminalProgress
    from d2nwg.weights.imports import import_checkpoints
    from d2nwg.weights.model_zoo import ModelZoo
    from d2nwg.weights.preview import preview

    made = import_checkpoints(
        args.checkpoints, args.out, table=args.table, append=args.append, progress=TerminalProgress()
    )
    for _, reason in made.refused:
        print(f"Left out: {reason}")
    for note in (*made.notes, made.account):
        print(note)
    if args.preview:
        for group in preview(made):
            print_architecture(group)
        return
    print(json.dumps(ModelZoo(args.out).summary(), indent=1, ensure_ascii=False))


def print_architecture(group: dict) -> None:
    """A table of one architecture's layers."""
    from d2nwg.utils.text import number, shown, some

    print(f"\n{number(group['checkpoints'], 'checkpoint')} of {group['parameters']:,} numbers: {some(group['names'])}")
    if group["difference"]:
        print(group["difference"])
    print(f"{'layer':32} {'numbers':>10} {'chunks':>6} {'padding':>7} {'mean':>9} {'std':>9}  shapes")
    for row in group["layers"]:
        shapes = ", ".join(f"{shown(name)} {'×'.join(map(str, shape)) or '1'}" for name, shape in row["shapes"].items())
        print(
            f"{shown(row['layer'])[-32:]:32} {row['numbers']:10,} {row['chunks']:6} {row['padding']:7} "
            f"{row['mean']:9.4f} {row['std']:9.4f}  {shapes}"
        )


def print_info(zoo: str) -> None:
    """Print the summary of a zoo of checkpoints."""
    from d2nwg.weights.model_zoo import ModelZoo

    print(json.dumps(ModelZoo(zoo).summary(), indent=1, ensure_ascii=False))


def run_export(args: argparse.Namespace) -> None:
    """Export, and print the folder."""
    from d2nwg.utils.outputs import claimed
    from d2nwg.utils.progress import TerminalProgress
    from d2nwg.utils.text import number
    from d2nwg.weights.model_zoo import ModelZoo, export_zoo

    with claimed(args.out):
        zoo = ModelZoo(args.zoo)
        export_zoo(zoo, args.out, format=args.format, progress=TerminalProgress())
    print(f"{number(len(zoo), 'checkpoint')} in {args.out}.")
