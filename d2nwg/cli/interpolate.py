"""``interpolate``: heads between two data sets, several ways, scored on both."""

import argparse

from d2nwg.cli.common import positive


def add_parser(subparsers, parent: argparse.ArgumentParser) -> None:
    """Add ``interpolate`` to the command line."""
    parser = subparsers.add_parser(
        "interpolate",
        parents=[parent],
        help="walk from one task to another",
        description="Make heads on the way from A to B, score each on held-out images of both, and write path.json, "
        "figures (HTML) and the heads. Classes are matched by name. The straight line between the two ends' weights "
        "is always walked too: it is what the other ways have to beat.",
        epilog="example: python -m d2nwg interpolate photos/ sketches/ --way condition latent --out path",
    )
    ends = (
        "a folder of class folders, an archive of one, a Hugging Face data set, example:NAME, a saved head "
        "(.safetensors), or task:NAME[=DATA], a task that the bundle is told by name, with images to score it on"
    )
    parser.add_argument("a", metavar="A", help=ends)
    parser.add_argument("b", metavar="B", help="the same")
    parser.add_argument("--bundle", metavar="BUNDLE", help="name or folder of a bundle (heads-efficientnet-lite0)")
    parser.add_argument(
        "--way",
        nargs="+",
        choices=("condition", "condition-spherical", "latent", "weights"),
        help="what is mixed: conditions (straight, or on the sphere), clean latents, weights (all that can be)",
    )
    parser.add_argument("--points", type=positive, default=21, metavar="P", help="of the path, both ends included (21)")
    # Until --points was there, --steps was the number of points: what was done is therefore said at the end.
    parser.add_argument("--steps", type=positive, metavar="T", help="denoising steps (5)")
    parser.add_argument("--seeds", type=positive, default=3, metavar="S", help="paths, each from its own noise (3)")
    parser.add_argument("--shots", type=positive, default=5, metavar="K", help="images a class it may see (5)")
    parser.add_argument(
        "--num-samples", type=positive, default=16, metavar="N", help="heads sampled and averaged at a point (16)"
    )
    parser.add_argument(
        "--max-query", type=positive, default=200, metavar="N", help="most held-out images to score on, an end (200)"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Walk, write, and say in a few sentences what lies between."""
    from d2nwg.figures.interpolate import save_figures
    from d2nwg.interpolation.endpoints import read_source
    from d2nwg.interpolation.path import walk
    from d2nwg.utils.progress import TerminalProgress
    from d2nwg.utils.text import number

    progress = TerminalProgress()
    made = walk(
        [read_source(args.a, progress), read_source(args.b, progress)],
        ways=args.way,
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
    folder = made.save(args.out)
    save_figures(made, folder)
    for note in (*made.ends.notes, *made.missing.values()):
        print(note)
    sampled = f"{number(args.points, 'point')} of the path, {number(made.mixer.steps, 'denoising step')}"
    print(" ".join(made.sentences()), f"All of it ({sampled}) is in {folder}.")
