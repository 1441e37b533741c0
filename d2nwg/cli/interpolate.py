"""``interpolate``: heads or networks between two tasks by several methods, scored on the images of both, or what lies
between two names, or between two descriptions of tasks."""

import argparse

from d2nwg.cli.common import positive
from d2nwg.interpolation.methods import METHODS, NAME_POINTS, POINTS


def add_parser(subparsers, parent: argparse.ArgumentParser) -> None:
    """Add ``interpolate`` to the command line."""
    parser = subparsers.add_parser(
        "interpolate",
        parents=[parent],
        help="interpolate heads or networks from one task to another",
        description="Make heads, or whole networks, along a path from A to B, score each on held-out images of both, "
        "and write path.json, figures (HTML) and all of them. Classes are matched by name. Linear interpolation of the "
        "two endpoints' weights is always done too, as the baseline of the other methods. With --names instead: go "
        "from one class name to another, and write what the bundle knows near each point, and which images of A, where "
        "it is given, it likes. With --describe: make adapters of a text encoder from one description of a task to "
        "another, by the condition and by the weights, and score each on the texts of A and B, where they are given, "
        "with the heads of the two.",
        epilog="example: python -m d2nwg interpolate photos/ sketches/ --method condition latent --out path; between "
        'names: python -m d2nwg interpolate animals/ --names "wolf, dog" --out wolf-to-dog; between '
        'descriptions: python -m d2nwg interpolate films.csv mail.csv --describe "Is this film review positive?" '
        '"Is this message spam?" --bundle my-adapters --out films-to-mail',
    )
    endpoint = (
        "a folder of class folders, an archive of one, a Hugging Face data set, example:NAME, a saved head "
        "(.safetensors), or task:NAME[=DATA], a task of a task-conditioned bundle, with images to score heads on"
    )
    parser.add_argument(
        "a",
        metavar="A",
        nargs="?",
        help=f"{endpoint}; with --names, images for the points to like; with --describe, labelled texts to score "
        "adapters on, such as a CSV or JSONL, or - for none",
    )
    parser.add_argument("b", metavar="B", nargs="?", help="the same; not with --names")
    parser.add_argument(
        "--names",
        metavar="NAMES",
        help="two class names, in English, separated by a comma, or a text file with one a line (also "
        "'name: description')",
    )
    parser.add_argument("--describe", nargs=2, metavar=("TEXT_A", "TEXT_B"), help="two tasks of texts, in words")
    parser.add_argument(
        "--labels",
        nargs=2,
        metavar=("NAMES_A", "NAMES_B"),
        help="with --describe: names of the classes of both tasks, as with --names, or - for none; needed where a "
        "table's labels are not those of a known task",
    )
    bundle = (
        "name or folder of a bundle (heads-efficientnet-lite0; networks-28px makes whole networks between two data "
        "sets; with --names heads-dual; with --describe adapters)"
    )
    parser.add_argument("--bundle", metavar="BUNDLE", help=bundle)
    method = dict(nargs="+", choices=METHODS)
    parser.add_argument(
        "--method",
        **method,
        help="interpolate conditions (linearly or spherically), clean latents (spherically) or weights (linearly); all "
        "that the bundle allows unless given",
    )
    parser.add_argument("--way", dest="method", **method, help=argparse.SUPPRESS)  # its name in earlier versions
    parser.add_argument(
        "--points",
        type=positive,
        metavar="P",
        help=f"of the path, endpoints included ({POINTS}; with --names or --describe {NAME_POINTS})",
    )
    # --steps once was the number of points, so the closing line names both.
    parser.add_argument("--steps", type=positive, metavar="T", help="denoising steps (5; with --describe 20)")
    parser.add_argument("--seeds", type=positive, default=3, metavar="S", help="paths, each from its own noise (3)")
    parser.add_argument("--shots", type=positive, default=5, metavar="K", help="images a class it may see (5)")
    parser.add_argument(
        "--num-samples",
        type=positive,
        metavar="N",
        help="heads sampled and averaged at a point (16); with --describe adapters, of which one is taken (8)",
    )
    parser.add_argument(
        "--max-query",
        type=positive,
        default=200,
        metavar="N",
        help="most held-out images or texts of each endpoint (200)",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Interpolate, write, and print the result in a few sentences."""
    from d2nwg.utils.errors import UserError

    if args.describe is not None:
        if args.names is not None or args.method:
            raise UserError("--describe goes by the condition and by the weights: leave out --names and --method.")
        _between_descriptions(args)
        return
    if args.labels is not None:
        raise UserError("--labels names the classes of the tasks that --describe describes: give both.")
    if args.names is not None:
        if args.b is not None:
            raise UserError("--names are the two endpoints: give at most one set of images beside them.")
        if args.method:
            raise UserError("--method is for paths between tasks: a path between names is that of their texts.")
        _between_names(args)
        return
    if args.a is None or args.b is None:
        raise UserError("A path needs two endpoints: give A and B, or use --names or --describe.")
    _between_tasks(args)


def _between_names(args: argparse.Namespace) -> None:
    from d2nwg.conditions.class_names import read_names
    from d2nwg.data.images import load_images
    from d2nwg.figures.name_path import save_figures
    from d2nwg.interpolation.names import name_path
    from d2nwg.utils.outputs import new_folder
    from d2nwg.utils.progress import TerminalProgress

    progress, names = TerminalProgress(), read_names(args.names)
    with new_folder(args.out, empty=True) as folder:
        made = name_path(
            names,
            None if args.a is None else load_images(args.a, progress=progress),
            bundle=args.bundle,
            points=args.points or NAME_POINTS,
            max_query=args.max_query,
            seed=args.seed,
            device=args.device,
            progress=progress,
        )
        made.save(folder)
        save_figures(made, folder)
    print("\n".join([*made.notes, *made.sentences()]))
    print(f"The path of {len(made.share)} points is in {args.out}.")


def _between_descriptions(args: argparse.Namespace) -> None:
    from d2nwg.conditions.class_names import read_names
    from d2nwg.figures.description_path import save_figures
    from d2nwg.interpolation.description_ends import read_texts
    from d2nwg.interpolation.descriptions import SAMPLES, description_path
    from d2nwg.pipelines.adapters import STEPS
    from d2nwg.utils.outputs import new_folder
    from d2nwg.utils.progress import TerminalProgress

    progress = TerminalProgress()
    with new_folder(args.out, empty=True) as folder:
        made = description_path(
            args.describe,
            [None if data in (None, "-") else read_texts(data, progress) for data in (args.a, args.b)],
            [[] if names == "-" else read_names(names) for names in args.labels or "--"],
            bundle=args.bundle,
            points=args.points or NAME_POINTS,
            num_samples=args.num_samples or SAMPLES,
            max_query=args.max_query,
            seed=args.seed,
            steps=args.steps or STEPS,
            device=args.device,
            progress=progress,
        )
        made.save(folder)
        save_figures(made, folder)
    print("\n".join([*made.notes, *made.sentences()]))
    print(f"The path of {len(made.share)} points by each method, with all adapters, is in {args.out}.")


def _between_tasks(args: argparse.Namespace) -> None:
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
            points=args.points or POINTS,
            seeds=args.seeds,
            shots=args.shots,
            num_samples=args.num_samples or 16,
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
    steps = f", {number(made.mixer.steps, 'denoising step')}" if made.mixer.steps else ""
    sampled = f"{number(len(made.alpha), 'point')} of the path{steps}"
    print(" ".join(made.sentences()), f"All of it ({sampled}) is in {args.out}.")
