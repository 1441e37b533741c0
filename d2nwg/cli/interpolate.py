"""``interpolate``: heads between two tasks by several methods, scored on the images of both."""

import argparse

from d2nwg.cli.common import positive
from d2nwg.interpolation.methods import METHODS


def add_parser(subparsers, parent: argparse.ArgumentParser) -> None:
    """Add ``interpolate`` to the command line."""
    parser = subparsers.add_parser(
        "interpolate",
        parents=[parent],
        help="interpolate heads from one task to another",
        description="Make heads along a path from A to B, score each on held-out images of both, and write path.json, "
        "figures (HTML) and the heads. Classes are matched by name. Linear interpolation of the two endpoints' weights "
        "is always done too, as the baseline of the other methods.",
        epilog="example: python -m d2nwg interpolate photos/ sketches/ --method condition latent --out path",
    )
    endpoint = (
        "a folder of class folders, an archive of one, a Hugging Face data set, example:NAME, a saved head "
        "(.safetensors), or task:NAME[=DATA], a task of a task-conditioned bundle, with images to score heads on"
    )
    parser.add_argument("a", metavar="A", help=endpoint)
    parser.add_argument("b", metavar="B", help="the same")
    parser.add_argument("--bundle", metavar="BUNDLE", help="name or folder of a bundle (heads-efficientnet-lite0)")
    method = dict(nargs="+", choices=METHODS)
    parser.add_argument(
        "--method",
        **method,
        help="interpolate conditions (linearly or spherically), clean latents (spherically) or weights (linearly); all "
        "that the bundle allows unless given",
    )
    parser.add_argument("--way", dest="method", **method, help=argparse.SUPPRESS)  # its name in earlier versions
    parser.add_argument("--points", type=positive, default=21, metavar="P", help="of the path, endpoints included (21)")
    # --steps once was the number of points, so the closing line names both.
    parser.add_argument("--steps", type=positive, metavar="T", help="denoising steps (5)")
    parser.add_argument("--seeds", type=positive, default=3, metavar="S", help="paths, each from its own noise (3)")
    parser.add_argument("--shots", type=positive, default=5, metavar="K", help="images a class it may see (5)")
    parser.add_argument(
        "--num-samples", type=positive, default=16, metavar="N", help="heads sampled and averaged at a point (16)"
    )
    parser.add_argument(
        "--max-query",
        type=positive,
        default=200,
        metavar="N",
        help="most held-out images of each endpoint (200)",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Interpolate, write, and print the result in a few sentences."""
    from d2nwg.figures.interpolate import save_figures
    from d2nwg.interpolation.endpoints import read_source
    from d2nwg.interpolation.path import interpolate
    from d2nwg.utils.outputs import new_folder
    from d2nwg.utils.progress import TerminalProgress
    from d2nwg.utils.text import number

    progress = TerminalProgress()
    with new_folder(args.out, empty=True) as folder:
        made = interpolate(
            [read_source(args.a, progress), read_source(args.b, progress)],
            methods=args.method,
            bundle=args.bundle,
            points=args.points,
            seeds=args.seeds,
            shots=args.shots,
            num_samples=args.num_samples,
            seed=args.seed,
            steps=args.steps,
            max_query=args.max_query,
            device=args.device,
            progress=progress,
        )
        made.save(folder)
        save_figures(made, folder)
    for note in (*made.endpoints.notes, *made.missing.values()):
        print(note)
    sampled = f"{number(args.points, 'point')} of the path, {number(made.mixer.steps, 'denoising step')}"
    print(" ".join(made.sentences()), f"All of it ({sampled}) is in {args.out}.")
