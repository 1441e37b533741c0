"""``curve DATA``: how good heads are with ever more labelled images or texts."""

import argparse

from d2nwg.cli.common import add_columns, add_sampler, positive
from d2nwg.pipelines import DEFAULT


def add_parser(subparsers, parent: argparse.ArgumentParser) -> None:
    """Add ``curve`` to the command line."""
    parser = subparsers.add_parser(
        "curve",
        parents=[parent],
        help="how good heads are with 1, 2, 5, 10 and 20 labelled images a class",
        description="Generate heads with each number of labelled images or texts a class, several times from other "
        "ones, and fit the baselines to the same: prints the mean and the standard deviation of the accuracy on those "
        "that were left out, and what the figures say, and writes them all as JSON.",
        epilog="example: python -m d2nwg curve flowers/ --out curve.json",
    )
    parser.add_argument("data", metavar="DATA", help="labelled images or texts, as generate takes them")
    add_columns(parser)
    parser.add_argument("--bundle", metavar="BUNDLE", help="name or folder of a bundle of heads (the shipped one)")
    parser.add_argument(
        "--shots", type=positive, nargs="+", metavar="K", help="numbers of images or texts a class (1 2 5 10 20)"
    )
    parser.add_argument("--draws", type=positive, metavar="N", help="draws of those, by --seed and on (5)")
    parser.add_argument("--num-samples", type=positive, default=50, metavar="N", help="heads to sample (50)")
    add_sampler(parser)
    parser.add_argument(
        "--max-query", type=positive, default=1000, metavar="N", help="most held-out images or texts to score on (1000)"
    )
    parser.add_argument("--names", metavar="NAMES", help="new names of the classes, as generate takes them")
    parser.add_argument("--encoder", metavar="NAME", help="another encoder than the bundle's")
    parser.add_argument("--out", required=True, metavar="FILE", help="the JSON file to write")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Measure, write the file, and print the table and what it means."""
    import json

    from d2nwg.conditions.class_names import read_names
    from d2nwg.data.columns import Columns
    from d2nwg.data.sources import load_data
    from d2nwg.learning_curve import DRAWS, SHOTS, learning_curve, rows, sentences
    from d2nwg.utils.outputs import claimed
    from d2nwg.utils.paths import write_whole
    from d2nwg.utils.progress import TerminalProgress
    from d2nwg.utils.text import aligned

    progress = TerminalProgress()
    names = read_names(args.names) if args.names is not None else []
    with claimed(args.out) as out:
        data = load_data(args.data, columns=Columns(tuple(args.text_column), args.label_column), progress=progress)
        curve = learning_curve(
            data,
            bundle=args.bundle,
            shots=args.shots or SHOTS,
            draws=args.draws or DRAWS,
            num_samples=args.num_samples,
            seed=args.seed,
            steps=args.steps,
            sampler=args.sampler or DEFAULT,
            max_query=args.max_query,
            encoder=args.encoder,
            names=names,
            device=args.device,
            progress=progress,
        )
        write_whole(out, json.dumps(curve.to_json(), indent=1, ensure_ascii=False) + "\n")
    print("\n".join([*curve.notes, *aligned(rows(curve)), "", *sentences(curve)]))
    print(f"Every figure is in {args.out}.")
