"""``train``: learn the distribution of a zoo, in three stages, and write a bundle."""

import argparse
from contextlib import nullcontext

from d2nwg.conditions import CONDITIONERS
from d2nwg.generators import GENERATORS, for_zoo, get_generator, presets


def add_parser(subparsers, parent: argparse.ArgumentParser) -> None:
    """Add ``train`` to the command line."""
    parser = subparsers.add_parser(
        "train",
        parents=[parent],
        help="train a generator on a zoo",
        description="Train a generator on a zoo and write a bundle. A stopped run is taken up again with --resume.",
        epilog="example: python -m d2nwg train --zoo zoo --preset small --out bundle",
    )
    parser.add_argument(
        "--zoo",
        required=True,
        nargs="+",
        metavar="ZOO",
        help="a folder that zoo build or zoo import wrote; dual takes several, of different encoders",
    )
    parser.add_argument(
        "--generator",
        choices=[name for one in GENERATORS.values() for name in (one.name, *one.aliases)],
        metavar="{" + ",".join(GENERATORS) + "}",
        help=f"{'; '.join(f'{one.name}: {one.about}' for one in GENERATORS.values())} (the first that suits the zoo)",
    )
    parser.add_argument(
        "--condition",
        choices=tuple(CONDITIONERS),
        help="unet: what heads are generated for: a few images of a task, "
        "its id, the names of its classes, or nothing (dataset)",
    )
    parser.add_argument(
        "--held-out",
        nargs="+",
        metavar="NAME",
        help="dual: data sets of the zoo to keep out of training; the weights that do best on them are kept",
    )
    parser.add_argument(
        "--preset",
        default="small",
        choices=list(presets()),
        help="tiny: seconds, for trying out; small: under an hour on two cores; standard: hours on two cores, minutes "
        "on a GPU; paper: a GPU (small). Not every generator has all: "
        + "; ".join(f"{name}: {', '.join(having)}" for name, having in presets().items()),
    )
    parser.add_argument("--out", required=True, metavar="BUNDLE", help="the folder to write")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="another value than the preset's, such as vae_steps=1000; may be given again",
    )
    parser.add_argument("--job", metavar="NAME", help="run in the background as a job of this name (see jobs)")
    parser.add_argument("--push-to-hub", metavar="NAME", help="then upload the bundle as this Hugging Face repository")
    parser.add_argument("--resume", action="store_true", help="go on with the unfinished run of this bundle")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Train, and say where the bundle is."""
    from d2nwg.utils.outputs import claimed_alone
    from d2nwg.weights.info import HEADS, no_zoo, zoo_kind

    with nullcontext() if args.job else claimed_alone(args.out):
        for path in args.zoo:  # before the seconds that the rest takes to be imported
            if zoo_kind(path) is None:
                raise no_zoo(path, HEADS)
        from d2nwg.training.cards import command_line
        from d2nwg.training.run import train_bundle
        from d2nwg.training.settings import changed, split_setting
        from d2nwg.utils.progress import TerminalProgress
        from d2nwg.weights.open import open_zoo

        generator = get_generator(args.generator) if args.generator else for_zoo(zoo_kind(args.zoo[0]))[0]
        given = {"condition": args.condition, "held_out": args.held_out and ", ".join(args.held_out)}
        given = {name: text for name, text in given.items() if text}
        given |= dict(split_setting(text) for text in args.set)
        config = changed(generator.config_class.preset(args.preset, seed=args.seed), given)
        if args.job:
            from d2nwg.jobs.queue import submit_training

            job = submit_training(args.job, args.zoo, config, args.out, args.device)
            where = f"`python -m d2nwg jobs show {job.id}` says how far it is"
            print(f"The job {job.id} is {job.state()['state']}; {where}.")
            return
        bundle = train_bundle(
            [open_zoo(path) for path in args.zoo],
            config,
            args.out,
            resume=args.resume,
            device=args.device,
            command=command_line(args.arguments),
            progress=TerminalProgress(),
        )
    import os

    from d2nwg.utils.paths import read_json

    if os.environ.get("RANK", "0") != "0":  # of several processes one speaks
        return
    for name, part in read_json(bundle / "training.json")["networks"].items():
        print(f"{name}: {part['type']}, {part['parameters']:,} parameters")
    print(f"The bundle is in {bundle}.")
    if args.push_to_hub:
        from d2nwg.bundles import push_bundle

        print(f"It is at {push_bundle(bundle, args.push_to_hub)}.")
