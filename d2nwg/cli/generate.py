"""``generate``: labelled images or texts in, or names of classes, and heads and a report out."""

import argparse

from d2nwg.cli.common import add_columns, add_sampler, positive
from d2nwg.pipelines import DEFAULT


def add_parser(subparsers, parent: argparse.ArgumentParser) -> None:
    """Add ``generate`` to the command line."""
    parser = subparsers.add_parser(
        "generate",
        parents=[parent],
        help="generate heads, or whole networks, for a data set",
        description="Generate classifier heads from a few images or texts a class, score them and baselines on those "
        "that generation never saw, and write head.safetensors, samples.safetensors, report.json and README.md; or, "
        "with a bundle of networks, a whole network that plain PyTorch (network.safetensors) and ONNX runtimes "
        "(model.onnx) load.",
        epilog="example: python -m d2nwg generate flowers/ --shots 5 --num-samples 50 --out flowers-head; python -m "
        "d2nwg generate reviews.csv --out reviews-head; without an "
        'image: python -m d2nwg generate --names "tabby cat, golden retriever, red fox" --out pets-head',
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        nargs="?",
        help="images: a folder of class folders (also under train/ and test/), an archive of one, an array file (.npz, "
        "IDX), or example:digits; "
        "texts: a CSV or JSONL with texts and labels, a folder of text files by class, an archive of one; or a Hugging "
        "Face data set of either",
    )
    add_columns(parser)
    parser.add_argument("--bundle", metavar="BUNDLE", help="name or folder of a bundle (the shipped one)")
    parser.add_argument("--shots", type=positive, default=5, metavar="K", help="support images or texts a class (5)")
    parser.add_argument(
        "--num-samples",
        type=positive,
        metavar="N",
        help="heads to sample (50); of a bundle of networks, how many to draw beside the deterministic one (5)",
    )
    add_sampler(parser)
    parser.add_argument(
        "--max-query", type=positive, default=1000, metavar="N", help="most held-out images or texts to score on (1000)"
    )
    parser.add_argument(
        "--unlabelled",
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders, archives or files of images or texts of the same classes without labels: they make the head "
        "better",
    )
    parser.add_argument(
        "--names",
        metavar="NAMES",
        help="names of the classes, in English, separated by commas, or a text file with one a line (also "
        "'name: description'): without DATA a head is made from them alone; with DATA they rename its classes, all in "
        "order, or some as old=new",
    )
    parser.add_argument(
        "--describe",
        metavar="TEXT",
        help="a task of texts in a sentence: makes an adapter of a text encoder and a head for it, instead of a head "
        "on images",
    )
    parser.add_argument(
        "--labels",
        metavar="NAMES",
        help="with --describe: its classes, as with --names: they help to recognise a task, new ones need them",
    )
    parser.add_argument(
        "--encoder",
        metavar="NAME",
        help="another encoder than the bundle's for images, or than the default one for texts (dual bundles)",
    )
    parser.add_argument(
        "--task",
        metavar="TEXT",
        help="for a task-conditioned bundle: the name of a task, or a mix such as "
        "'0.5 digits + 0.5 digits-negative' (the data set's name)",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Generate, write the files, and print how accurate the head is."""
    from d2nwg.bundles import makes_for_data
    from d2nwg.conditions.class_names import read_names
    from d2nwg.utils.errors import UserError
    from d2nwg.utils.progress import TerminalProgress

    if args.describe is not None:
        args.num_samples = args.num_samples or 50
        _from_description(args)
        return
    if args.data and makes_for_data(args.bundle):
        _network(args)
        return
    args.num_samples = args.num_samples or 50
    if args.labels is not None:
        raise UserError("--labels names the classes of a task that --describe describes: give both.")
    if not args.data and args.names is None:
        raise UserError(
            "Nothing to make a head from: give a folder of images, a table of texts, or --names of classes."
        )
    names: list[str] = [] if args.names is None else read_names(args.names)
    if not args.data:
        _from_names(args, names)
        return
    from d2nwg.data.columns import Columns
    from d2nwg.data.sources import load_data, load_free
    from d2nwg.evaluation.report import advice
    from d2nwg.generate import generate_heads
    from d2nwg.utils.outputs import new_folder

    progress = TerminalProgress()
    with new_folder(args.out, empty=True) as folder:
        columns = Columns(tuple(args.text_column), args.label_column)
        data = load_data(args.data, columns=columns, progress=progress)
        free = load_free(args.unlabelled, data, columns=columns, progress=progress) if args.unlabelled else ()
        made = generate_heads(
            data,
            bundle=args.bundle,
            shots=args.shots,
            num_samples=args.num_samples,
            seed=args.seed,
            steps=args.steps,
            sampler=args.sampler,
            max_query=args.max_query,
            encoder=args.encoder,
            unlabelled=free,
            task=args.task,
            names=names,
            device=args.device,
            progress=progress,
        )
        made.save(folder)
    right, better = made.report.query_accuracy, advice(made.report)
    for note in made.report.notes:
        print(note)
    print(
        f"The chosen head is right on {right.chosen:.1%} of {made.report.num_query} {data.noun}s it never saw (class "
        f"mean {right.class_mean:.1%}, ridge {right.ridge:.1%}, logistic regression {right.logistic_regression:.1%}, "
        f"random {right.random:.1%}). It is in {args.out}."
    )
    if better:
        print(f"{better} It is in {args.out}/{made.report.recommended}.safetensors.")


def _network(args: argparse.Namespace) -> None:
    from pathlib import Path

    from d2nwg.network_generation import generate_network
    from d2nwg.utils.errors import UserError
    from d2nwg.utils.outputs import new_folder
    from d2nwg.utils.progress import TerminalProgress

    others = {"--names": args.names, "--unlabelled": args.unlabelled, "--task": args.task, "--encoder": args.encoder}
    others |= {"--labels": args.labels, "--text-column": args.text_column, "--label-column": args.label_column}
    others |= {"--sampler": args.sampler != DEFAULT}
    if given := [name for name, value in others.items() if value]:
        raise UserError(f"{given[0]} is not for bundles of networks: leave it out, or choose a bundle of heads.")
    run = {"shots": args.shots, "seed": args.seed, "steps": args.steps, "max_query": args.max_query}
    run |= {"num_samples": 5 if args.num_samples is None else args.num_samples, "device": args.device}
    with new_folder(args.out, empty=True) as folder:
        made = generate_network(args.data, bundle=args.bundle, **run, progress=TerminalProgress())
        made.save(folder, Path(args.out).name)
    for note in made.report.notes:
        print(note)
    right = made.report.query_accuracy
    print(
        f"The network is right on {right.network:.1%} of {made.report.num_query} images it never saw (random "
        f"{right.random:.1%}, the zoo's average trunk with a closed-form head {right.average_closed_form:.1%}, "
        f"{right.steps} gradient steps on the same images {right.gradient_steps:.1%}). It is in {args.out}."
    )


def _from_names(args: argparse.Namespace, names: list[str]) -> None:
    from d2nwg.from_names import generate_from_names
    from d2nwg.utils.errors import UserError
    from d2nwg.utils.outputs import new_folder
    from d2nwg.utils.progress import TerminalProgress

    if args.unlabelled or args.task:
        given = "--unlabelled" if args.unlabelled else "--task"
        raise UserError(f"{given} needs labelled images: give a folder of some of each class beside --names.")
    run = {"bundle": args.bundle, "num_samples": args.num_samples, "seed": args.seed, "encoder": args.encoder}
    with new_folder(args.out, empty=True) as folder:
        made = generate_from_names(names, **run, device=args.device, progress=TerminalProgress())
        made.save(folder)
    for note in made.notes:
        print(note)
    print(f"A head for {len(names)} classes, made in {made.seconds:.1f} s from their names alone, is in {args.out}.")


def _from_description(args: argparse.Namespace) -> None:
    from pathlib import Path

    from d2nwg.conditions.class_names import read_names
    from d2nwg.from_description import generate_from_description, sentence
    from d2nwg.utils.errors import UserError
    from d2nwg.utils.outputs import new_folder
    from d2nwg.utils.progress import TerminalProgress

    others = {"DATA": args.data, "--names": args.names, "--unlabelled": args.unlabelled, "--task": args.task}
    if given := [name for name, value in others.items() if value]:
        raise UserError(f"{given[0]} is for heads on images: leave it out beside --describe.")
    labels = read_names(args.labels) if args.labels else []
    run = {"bundle": args.bundle, "num_samples": args.num_samples, "seed": args.seed, "device": args.device}
    if args.steps:
        run["steps"] = args.steps
    with new_folder(args.out, empty=True) as folder:
        made = generate_from_description(args.describe, labels=labels, **run, progress=TerminalProgress())
        made.write(folder, Path(args.out).name)
    for note in made.notes:
        print(note)
    print(sentence(made, args.out))
