"""``export HEAD --out D``: a head for other programs."""

import argparse


def add_parser(subparsers, parent: argparse.ArgumentParser) -> None:
    """Add ``export`` to the command line."""
    parser = subparsers.add_parser(
        "export",
        parents=[parent],
        help="write a head for other programs: ONNX, scikit-learn, a script",
        description="Write a head for other programs: model.onnx (encoder and head in one, for a head of images), "
        "classifier.skops (a scikit-learn estimator on the encoder's features), predict.py, which needs nothing of "
        "this project, and app.py, a page: the folder is a Hugging Face Space. Whole networks have their ONNX file "
        "and script already, where generate wrote them.",
        epilog="example: python -m d2nwg export flowers-head --out flowers-elsewhere",
    )
    parser.add_argument("head", metavar="HEAD", help="a head file, or the folder that generate wrote")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="the folder to make")
    parser.add_argument("--push-to-hub", metavar="NAME", help="then upload the files as this Hugging Face repository")
    parser.add_argument("--push-to-space", metavar="NAME", help="then upload them as this Space, which runs the head")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write the files."""
    from pathlib import Path

    from d2nwg import exports
    from d2nwg.finetuning.plan import open_start
    from d2nwg.heads import Head
    from d2nwg.utils.errors import UserError
    from d2nwg.utils.outputs import new_folder

    head = open_start(args.head)
    if not isinstance(head, Head):
        raise UserError("This is a whole network: its folder holds model.onnx and a script already.")
    with new_folder(args.out, empty=True) as folder:
        files = [path.name for path in exports.export_head(head, folder)]
    print(f"{', '.join(files[:-1])} and {files[-1]} are in {args.out}.")
    for name, space in ((args.push_to_hub, False), (args.push_to_space, True)):
        if name:
            print(f"It is at {exports.push_head(Path(args.out), name, space)}.")
