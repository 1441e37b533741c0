"""``zoo build --network NAME``: small networks, trained whole on data sets and random classes of them."""

import argparse
import os
import sys

from d2nwg.cli import zoo_adapters
from d2nwg.cli.common import positive
from d2nwg.utils.errors import UserError

OWN = ("size", "variants", "updates", "batch", "starts")


def add_options(build: argparse.ArgumentParser, what) -> None:
    """Add what ``--network`` needs to the action ``build``; ``what`` is the group of options of which only one can be
    given."""
    what.add_argument(
        "--network",
        metavar="NAME",
        help="train small networks instead of probes: cnn, cnn-wide, mlp or resnet",
    )
    group = build.add_argument_group("with --network")
    group.add_argument("--size", type=positive, metavar="PX", help="images' height and width, in pixels (28)")
    group.add_argument(
        "--variants",
        nargs="+",
        metavar="V",
        help="of the images, beside the plain ones: negative, turned-90, turned-180, turned-270; tasks of random "
        "classes take them in turn, whole data sets take each",
    )
    group.add_argument("--updates", type=positive, metavar="N", help="training steps of each network (400)")
    group.add_argument("--batch", type=positive, metavar="N", help="images a step (64)")
    group.add_argument(
        "--starts", type=positive, metavar="N", help="initial weights, which the networks take in turn (1)"
    )


def refuse_options(args: argparse.Namespace) -> None:
    """Raises UserError where an option is given that only small networks have a use for."""
    if given := [name for name in OWN if getattr(args, name) is not None]:
        raise UserError(f"--{given[0]} is for small networks: add --network NAME.")


def run_build(args: argparse.Namespace) -> None:
    """Build the zoo, name the networks that were left out, and print its summary."""
    from d2nwg.cli.checkpoints import print_info
    from d2nwg.data.arrays import load_arrays
    from d2nwg.utils.outputs import claimed_alone
    from d2nwg.utils.progress import TerminalProgress
    from d2nwg.utils.text import number, some
    from d2nwg.weights.build_networks import NetworkZooConfig, build_networks
    from d2nwg.weights.small_networks import small_network

    config = NetworkZooConfig(**_settings(args), seed=args.seed)
    small_network(config.network).build(1, config.classes or 2, config.size)  # refused before an image is read
    progress = TerminalProgress()
    with claimed_alone(args.out):
        sets = [
            load_arrays(source, size=config.size, rows=args.rows or 6_000, seed=args.seed, progress=progress)
            for source in args.data
        ]
        zoo = build_networks(sets, config, args.out, resume=bool(args.resume), device=args.device, progress=progress)
    if os.environ.get("RANK", "0") == "0":  # of several processes the first one prints
        for note in dict.fromkeys(note for one in sets for note in one.notes):
            print(note, file=sys.stderr)
        if zoo.networks and (left := zoo.networks.left_out):
            print(f"{number(len(left), 'network')} diverged and left out: {some(left, 20)}.", file=sys.stderr)
        print_info(args.out)


def _settings(args: argparse.Namespace) -> dict:
    others = {*zoo_adapters.TUNED, *zoo_adapters.OF_ENCODERS, *zoo_adapters.OF_MODELS} - {*zoo_adapters.SHARED}
    if unused := sorted(name for name in others if getattr(args, name) is not None):
        raise UserError(f"--{unused[0].replace('_', '-')} is for adapters: leave out --network.")
    if args.lr is not None and args.lr <= 0:
        raise UserError(f"The learning rate {args.lr:g} is none: give a number above 0.")
    if args.epochs and args.updates:
        raise UserError("--epochs and --updates both say how long to train: give one of them.")
    if args.classes and args.classes[0] != args.classes[1]:
        raise UserError("The networks of a zoo tell equally many classes apart: give one number, such as --classes 10.")
    names = ("network", "size", "subsets", "epochs", "updates", "batch", "lr", "keep", "starts", "seeds")
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    if args.classes:
        given["classes"] = args.classes[0]
    if args.variants:
        given["variants"] = tuple(dict.fromkeys(args.variants))
    return given
