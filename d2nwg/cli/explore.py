"""``explore``: samples compared with a bundle's zoo, as figures, tables and numbers."""

import argparse

from d2nwg.cli.common import add_sampler, count, positive


def add_parser(subparsers, parent: argparse.ArgumentParser) -> None:
    """Add ``explore`` to the command line."""
    parser = subparsers.add_parser(
        "explore",
        parents=[parent],
        help="compare generated heads with the zoo",
        description="Generate heads for one task or several, compare them with the zoo heads that a bundle keeps, and "
        "write figures (HTML; their tool bar saves PNG), projection.csv, baselines.csv, densities.csv, summary.json "
        "and files for the TensorBoard Embedding Projector.",
        epilog="example: python -m d2nwg explore --data flowers/ --num-samples 200 --out flowers-explored",
    )
    parser.add_argument("--bundle", metavar="BUNDLE", help="name or folder of a bundle (the shipped one)")
    parser.add_argument(
        "--data",
        metavar="DIR",
        nargs="+",
        default=["example:digits"],
        help="data sets, each a task: folders of class folders, archives, Hugging Face data sets (example:digits)",
    )
    parser.add_argument("--num-samples", type=positive, default=200, metavar="N", help="heads to sample in all (200)")
    parser.add_argument(
        "--num-trained", type=count, default=50, metavar="N", help="heads to train on the same images (50)"
    )
    parser.add_argument("--tasks", type=positive, default=1, metavar="N", help="tasks to draw from one set (1: all)")
    parser.add_argument("--classes", type=positive, metavar="C", help="classes of a drawn task (half of all)")
    parser.add_argument("--shots", type=positive, default=5, metavar="K", help="support images a class (5)")
    add_sampler(parser)
    parser.add_argument(
        "--max-query", type=positive, default=150, metavar="N", help="most held-out images to score on (150)"
    )
    parser.add_argument("--space", choices=("weights", "latent"), default="weights", help="where to compare (weights)")
    parser.add_argument(
        "--part", default="all", metavar="PART", help="all, a tensor such as weight, or a class's 'row 1' (all)"
    )
    parser.add_argument("--perplexity", type=positive, default=30, metavar="P", help="of t-SNE (30)")
    parser.add_argument("--all-counts", action="store_true", help="show zoo heads with other numbers of classes too")
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Explore, write the files, and print how close samples are to the zoo."""
    from d2nwg.data.images import load_images
    from d2nwg.exploration.explore import explore
    from d2nwg.exploration.look import look
    from d2nwg.exploration.words import save, verdict
    from d2nwg.figures.explore import all_figures, write_html
    from d2nwg.figures.explore_map import map_figure
    from d2nwg.utils.errors import UserError
    from d2nwg.utils.outputs import new_folder
    from d2nwg.utils.progress import TerminalProgress

    if args.tasks > 1 and len(args.data) > 1:
        raise UserError("--tasks draws tasks from one data set: give one with --data, or leave out --tasks.")
    progress = TerminalProgress()
    with new_folder(args.out, empty=True) as folder:
        found = explore(
            [load_images(data, progress=progress) for data in args.data],
            bundle=args.bundle,
            tasks=args.tasks,
            classes=args.classes,
            shots=args.shots,
            num_samples=args.num_samples,
            num_trained=args.num_trained,
            seed=args.seed,
            steps=args.steps,
            sampler=args.sampler,
            max_query=args.max_query,
            device=args.device,
            progress=progress,
        )
        view = look(
            found,
            where=args.space,
            part=args.part,
            perplexity=args.perplexity,
            seed=args.seed,
            all_counts=args.all_counts,
            progress=progress,
        )
        save(found, view, folder)
        words = verdict(found, view)
        figures = all_figures(found, view)
        figures["map-pca"] = map_figure(found, view, "pca")
        for name, figure in figures.items():
            write_html(figure, folder / f"{name}.html", name.removesuffix("-pca"), words[0], script="directory")
    print("\n".join([*found.notes, *words]))
    print(f"The figures and tables are in {args.out}.")
