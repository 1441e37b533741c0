"""``sample BUNDLE``: whole networks from a bundle that was trained on a zoo of checkpoints."""

import argparse
import re

from d2nwg.cli.common import finite, positive

BEST = 5  # samples at most whose expected accuracy is said


def add_parser(subparsers, parent: argparse.ArgumentParser) -> None:
    """Add ``sample`` to the command line."""
    parser = subparsers.add_parser(
        "sample",
        parents=[parent],
        help="sample whole networks from a bundle of networks",
        description="Sample networks of an architecture and a task of the zoo that the bundle was trained on, and "
        "write each as a .safetensors state dict.",
        epilog="example: python -m d2nwg sample my-models --task mnist --num-samples 10 --out networks",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="a folder that train wrote from a zoo of checkpoints")
    parser.add_argument(
        "--architecture", default="0", metavar="A", help="its number, the zoo's commonest first, or its first file (0)"
    )
    parser.add_argument("--task", metavar="NAME", help="a task of the zoo; not needed where it has one")
    parser.add_argument("--num-samples", type=positive, default=10, metavar="N", help="networks (10)")
    parser.add_argument("--steps", type=positive, default=50, metavar="N", help="denoising steps (50)")
    parser.add_argument(
        "--around",
        type=finite,
        metavar="SHARE",
        help="begin with members of the zoo, noised to this share of the steps; 0: their reconstructions",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Sample, write, and say how near the zoo the samples are."""
    import torch

    from d2nwg.bundles import find_network_bundle, load_bundle
    from d2nwg.utils.devices import resolve_device
    from d2nwg.utils.outputs import claimed
    from d2nwg.utils.progress import TerminalProgress
    from d2nwg.utils.text import number

    with claimed(args.out):
        pipe = load_bundle(find_network_bundle(args.bundle)).to(resolve_device(args.device))
        samples = pipe(
            int(args.architecture) if re.fullmatch("[0-9]{1,9}", args.architecture) else args.architecture,
            args.task,
            args.num_samples,
            generator=torch.Generator().manual_seed(args.seed),
            num_inference_steps=args.steps,
            around=args.around,
            progress=TerminalProgress(),
        )
        out = samples.save(args.out)
        near = float(samples.distance.median())
    print(f"{number(len(samples), 'network')} in {out}.")
    if samples.expected is not None:
        best = ", ".join(f"{one:03} on {float(samples.expected[one]):.1%}" for one in samples.ranked()[:BEST])
        print(f"The accuracy predictor expects these to be best: {best}.")
    if near == near:
        print(f"Half of them are within {near:.2f} of the distance between neighbours in the zoo; 0 would be a copy.")
