"""``train``: learn the distribution of a zoo, in three stages, and write a bundle."""

import argparse


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
        choices=("unet", "dual", "models"),
        help="unet: the paper's, in three stages (VAE, data-set encoder, diffusion); dual: coefficients on the "
        "support images, for any number of classes and any encoder; models: whole models, from "
        "a zoo of zoo import (what suits the zoo: unet or models)",
    )
    parser.add_argument(
        "--condition",
        choices=("dataset", "task"),
        help="unet: what the generator is told of a task: a few images of it, or the names of its classes (dataset)",
    )
    parser.add_argument(
        "--held-out",
        nargs="+",
        default=[],
        metavar="NAME",
        help="dual: data sets of the zoo to keep out of training; the weights that do best on them are kept",
    )
    parser.add_argument(
        "--preset",
        default="small",
        choices=("tiny", "small", "standard", "paper"),
        help="tiny: seconds, for trying out; small: under an hour on two cores; standard: hours on two cores, minutes "
        "on a GPU; paper: a GPU; dual and models have the first two (small)",
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
    from d2nwg.training.config import GENERATORS, changed, split_setting
    from d2nwg.training.run import train_bundle
    from d2nwg.utils.errors import UserError
    from d2nwg.utils.progress import TerminalProgress
    from d2nwg.weights.info import CHECKPOINTS, zoo_kind
    from d2nwg.weights.open import open_zoo

    generator = args.generator or ("models" if zoo_kind(args.zoo[0]) == CHECKPOINTS else "unet")
    if args.condition and generator != "unet":
        raise UserError("Only heads of the UNet generator have a choice: --condition is for --generator unet.")
    extra = {
        "unet": {"condition": args.condition or "dataset"},
        "dual": {"held_out": tuple(args.held_out)},
        "models": {},
    }[generator]
    config = GENERATORS[generator].preset(args.preset, seed=args.seed, **extra)
    config = changed(config, dict(split_setting(text) for text in args.set))
    if args.job:
        from d2nwg.jobs.queue import submit_training

        job = submit_training(args.job, args.zoo, config, args.out, args.device)
        print(f"The job {job.id} is {job.state()['state']}; `python -m d2nwg jobs show {job.id}` says how far it is.")
        return
    bundle = train_bundle(
        [open_zoo(path) for path in args.zoo],
        config,
        args.out,
        resume=args.resume,
        device=args.device,
        progress=TerminalProgress(),
    )
    import os

    if os.environ.get("RANK", "0") != "0":  # of several processes one speaks
        return
    print(f"The bundle is in {bundle}.")
    if args.push_to_hub:
        from d2nwg.bundles import push_bundle

        print(f"It is at {push_bundle(bundle, args.push_to_hub)}.")
