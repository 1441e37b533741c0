"""``zoo build`` and ``zoo info``: build a zoo of heads, and print what a zoo contains. `d2nwg.cli.checkpoints` adds
``import`` and ``export``."""

import argparse
import os

from d2nwg.cli import checkpoints, zoo_adapters, zoo_networks
from d2nwg.cli.common import positive


def add_parser(subparsers, parent: argparse.ArgumentParser) -> None:
    """Add ``zoo`` and its actions to the command line."""
    parser = subparsers.add_parser(
        "zoo",
        help="build, import, inspect or export a zoo of trained weights",
        description="Build a zoo of heads, import one of checkpoints, print what one contains, or export one.",
        epilog="example: python -m d2nwg zoo build flowers/ birds.zip --subsets 2000 --out zoo",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    build = actions.add_parser(
        "build",
        parents=[parent],
        help="train probes on random class subsets, adapters on texts or questions, or small networks",
        description="Train thousands of probes on random class subsets of image data sets, in batches; or, with "
        "--adapter, fine-tune adapters of a text encoder on tasks, each a folder with tables of texts (train.csv, "
        "test.jsonl.gz, …) and perhaps a task.json with its description; or, with --llm, fine-tune adapters of a "
        "language model on multiple-choice questions (JSONL files, built-in, or lm-eval:TASK); or, with --network, "
        "train small networks whole, one and more for each data set or random classes of one.",
        epilog="example: python -m d2nwg zoo build flowers/ birds.zip --subsets 2000 --classes 2-10 --out zoo\n"
        "example: python -m d2nwg zoo build reviews/ grammar/ --adapter lora --out adapter-zoo\n"
        "example: python -m d2nwg zoo build arc_easy.jsonl --llm default --out llm-zoo\n"
        "example: python -m d2nwg zoo build mnist.npz letters/ --network cnn --subsets 100 --classes 10 --out cnns",
    )
    build.add_argument(
        "data",
        metavar="DATA",
        nargs="+",
        help="a folder of class folders, an archive of one, or a Hugging Face data set; with --adapter a task of "
        "texts, with --llm questions; with --network also an .npz file (x_train, y_train, x_test, y_test; or x, y), or "
        "a folder of IDX files (train-images-idx3-ubyte.gz …)",
    )
    build.add_argument(
        "--encoder",
        metavar="NAME",
        default="timm/tf_efficientnet_lite0",
        help="timm/MODEL or open_clip/ARCH:PRETRAINED (timm/tf_efficientnet_lite0)",
    )
    build.add_argument(
        "--subsets",
        type=positive,
        metavar="N",
        help="probes to train (10000); with --network tasks of random classes in random order",
    )
    build.add_argument(
        "--classes",
        type=class_range,
        metavar="A-B",
        help="classes of a subset, drawn from this range (2-20); with --network one number",
    )
    build.add_argument("--images", type=positive, default=20, metavar="M", help="images a class to train on (20)")
    build.add_argument(
        "--max-per-class",
        type=positive,
        default=40,
        metavar="M",
        help="images a class that are read, to train on and to score with (40)",
    )
    build.add_argument("--probe", choices=("linear", "mlp"), default="linear", help="linear, or two layers (linear)")
    build.add_argument("--out", required=True, metavar="ZOO", help="the folder to write")
    zoo_networks.add_options(build, zoo_adapters.add_options(build))
    build.set_defaults(run=run_build)
    info = actions.add_parser(
        "info",
        parents=[parent],
        help="print what a zoo contains",
        description="Print what a zoo contains, as JSON.",
        epilog="example: python -m d2nwg zoo info zoo",
    )
    info.add_argument("zoo", metavar="ZOO", help="a folder that zoo build or zoo import wrote")
    info.set_defaults(run=run_info)
    checkpoints.add_actions(actions, parent)


def class_range(text: str) -> tuple[int, int]:
    """An argument type: ``A-B`` with 2 <= A <= B, or one number for both."""
    low, _, high = text.partition("-")
    try:
        pair = positive(low), positive(high or low)
    except argparse.ArgumentTypeError:
        pair = (0, 0)
    if not 2 <= pair[0] <= pair[1]:
        raise argparse.ArgumentTypeError(f"{text!r} is no range of classes such as 2-20")
    return pair


def run_build(args: argparse.Namespace) -> None:
    """Build the zoo and print its summary."""
    if args.network:
        return zoo_networks.run_build(args)
    zoo_networks.refuse_options(args)
    zoo_adapters.refuse_options(args)
    if args.adapter or args.llm:
        return zoo_adapters.run_build(args)
    from d2nwg.data.images import load_images
    from d2nwg.encoders.images import load_encoder
    from d2nwg.utils.outputs import claimed_alone
    from d2nwg.utils.progress import TerminalProgress
    from d2nwg.weights.build import build_zoo
    from d2nwg.weights.zoo import ZooConfig

    progress = TerminalProgress()
    config = ZooConfig(
        subsets=args.subsets or 10_000,
        min_classes=(args.classes or (2, 20))[0],
        max_classes=(args.classes or (2, 20))[1],
        images=args.images,
        probe=args.probe,
        max_per_class=args.max_per_class,
        seed=args.seed,
    )
    with claimed_alone(args.out):
        sources = [load_images(source, progress=progress) for source in args.data]
        encoder = load_encoder(args.encoder, args.device)
        zoo = build_zoo(sources, encoder, config, args.out, device=args.device, progress=progress)
    if os.environ.get("RANK", "0") == "0":  # of several processes the first one prints
        _print(zoo)


def run_info(args: argparse.Namespace) -> None:
    """Print the summary of a zoo."""
    from d2nwg.weights.info import OF_CHECKPOINTS, zoo_kind
    from d2nwg.weights.zoo import Zoo

    if zoo_kind(args.zoo) in OF_CHECKPOINTS:
        checkpoints.print_info(args.zoo)
    else:
        _print(Zoo(args.zoo))


def _print(zoo) -> None:
    import json

    accuracy = zoo.accuracies()
    quantiles = {f"{q:.0%}": round(float(accuracy.quantile(q)), 4) for q in (0.05, 0.5, 0.95)}
    print(json.dumps({**zoo.summary(), "accuracy": {"mean": round(float(accuracy.mean()), 4), **quantiles}}, indent=1))
