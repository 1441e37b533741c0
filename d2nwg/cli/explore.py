"""``explore``: samples compared with a bundle's zoo, of heads or of networks, or names or a description of a task among
what it knows."""

import argparse

from d2nwg.cli.common import add_sampler, count, positive


def add_parser(subparsers, parent: argparse.ArgumentParser) -> None:
    """Add ``explore`` to the command line."""
    parser = subparsers.add_parser(
        "explore",
        parents=[parent],
        help="compare generated heads or networks with the zoo",
        description="Generate heads for one task or several, compare them with the zoo heads that a bundle keeps, and "
        "write figures (HTML; their tool bar saves PNG), projection.csv, baselines.csv, densities.csv, summary.json "
        "and files for the TensorBoard Embedding Projector; with a bundle of networks made for a data set, the same of "
        "networks. With --names or --search instead: map the rows that a "
        "bundle knows by name, with your names among them, and write map.html, map-pca.html, names.csv and names.json. "
        "With --describe: map the adapters that a bundle of adapters knows, by task, with samples for a description "
        "among them, and write map.html, map-pca.html, tasks.csv and tasks.json.",
        epilog="example: python -m d2nwg explore --data flowers/ --num-samples 200 --out flowers-explored; by name: "
        'python -m d2nwg explore --names "wolf, red fox, T-shirt" --search husky --out names-explored; by task: '
        'python -m d2nwg explore --describe "Is this film review positive?" --bundle my-adapters --out tasks-explored',
    )
    parser.add_argument("--bundle", metavar="BUNDLE", help="name or folder of a bundle (the shipped one)")
    parser.add_argument(
        "--data",
        metavar="DIR",
        nargs="+",
        help="data sets, each a task: folders of class folders, archives, Hugging Face data sets (example:digits)",
    )
    parser.add_argument(
        "--names",
        metavar="NAMES",
        help="class names, in English, separated by commas, or a text file with one a line (also 'name: description')",
    )
    parser.add_argument("--search", metavar="TEXT", help="mark the known names that it is part of, or near in meaning")
    parser.add_argument(
        "--describe",
        nargs="?",
        const=True,
        metavar="TEXT",
        help="a task in words: its samples among the adapters that the bundle knows; without TEXT those alone",
    )
    parser.add_argument(
        "--num-samples",
        type=positive,
        metavar="N",
        help="heads or networks to sample in all (200; with --describe 30 adapters)",
    )
    parser.add_argument(
        "--num-trained", type=count, default=50, metavar="N", help="heads or networks to train on the same images (50)"
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
    parser.add_argument(
        "--dimensions",
        type=int,
        choices=(2, 3),
        default=2,
        help="of the maps of heads or networks: 2, or 3 to turn (2)",
    )
    parser.add_argument("--perplexity", type=positive, default=30, metavar="P", help="of t-SNE (30)")
    parser.add_argument("--all-counts", action="store_true", help="show zoo heads with other numbers of classes too")
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Explore, write the files, and print how close samples are to the zoo, or names to those that it knows."""
    from d2nwg.utils.errors import UserError

    if args.describe is not None:
        if args.data or args.names is not None or args.search is not None:
            raise UserError("--describe maps tasks of texts: leave out --data, --names and --search.")
        _tasks(args)
        return
    if args.names is not None or args.search is not None:
        if args.data:
            raise UserError("--names and --search map the rows that a bundle knows by name: leave out --data.")
        _names(args)
        return
    _samples(args)


def _names(args: argparse.Namespace) -> None:
    from d2nwg.conditions.class_names import read_names
    from d2nwg.exploration.names import map_names
    from d2nwg.exploration.names_words import save, sentences
    from d2nwg.figures.base import write_page
    from d2nwg.figures.name_map import name_map_figure, question
    from d2nwg.utils.outputs import new_folder
    from d2nwg.utils.progress import TerminalProgress

    names = [] if args.names is None else read_names(args.names)
    with new_folder(args.out, empty=True) as folder:
        made = map_names(
            names,
            args.search or "",
            bundle=args.bundle,
            perplexity=args.perplexity,
            seed=args.seed,
            device=args.device,
            progress=TerminalProgress(),
        )
        save(made, folder)
        words = sentences(made)
        for method, name in (("tsne", "map"), ("pca", "map-pca")):
            figure = name_map_figure(made, method)
            write_page(figure, folder / f"{name}.html", question(made), words[0], script="directory")
    print("\n".join(words))
    print(f"The map and its numbers are in {args.out}.")


def _tasks(args: argparse.Namespace) -> None:
    from d2nwg.exploration.task_map import SAMPLES, map_tasks
    from d2nwg.exploration.task_words import save, sentences
    from d2nwg.figures.base import write_page
    from d2nwg.figures.task_map import question, task_map_figure
    from d2nwg.pipelines.adapters import STEPS
    from d2nwg.utils.outputs import new_folder
    from d2nwg.utils.progress import TerminalProgress

    with new_folder(args.out, empty=True) as folder:
        made = map_tasks(
            "" if args.describe is True else args.describe,
            bundle=args.bundle,
            num_samples=args.num_samples or SAMPLES,
            perplexity=args.perplexity,
            seed=args.seed,
            steps=args.steps or STEPS,
            device=args.device,
            progress=TerminalProgress(),
        )
        save(made, folder)
        words = sentences(made)
        for method, name in (("tsne", "map"), ("pca", "map-pca")):
            figure = task_map_figure(made, method)
            write_page(figure, folder / f"{name}.html", question(made), " ".join(words), script="directory")
    print("\n".join(words))
    print(f"The map and its numbers are in {args.out}.")


def _samples(args: argparse.Namespace) -> None:
    from d2nwg.data.images import load_images
    from d2nwg.exploration.explore import explore
    from d2nwg.exploration.look import look
    from d2nwg.exploration.words import save, verdict
    from d2nwg.figures.explore import all_figures, write_html
    from d2nwg.figures.explore_map import map_figure
    from d2nwg.utils.errors import UserError
    from d2nwg.utils.outputs import new_folder
    from d2nwg.utils.progress import TerminalProgress

    if args.tasks > 1 and len(args.data or ()) > 1:
        raise UserError("--tasks draws tasks from one data set: give one with --data, or leave out --tasks.")
    progress = TerminalProgress()
    with new_folder(args.out, empty=True) as folder:
        found = explore(
            [load_images(data, progress=progress) for data in args.data or ["example:digits"]],
            bundle=args.bundle,
            tasks=args.tasks,
            classes=args.classes,
            shots=args.shots,
            num_samples=args.num_samples or 200,
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
            dimensions=args.dimensions,
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
