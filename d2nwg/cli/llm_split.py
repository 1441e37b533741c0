"""``llm split``: questions cut into disjoint parts."""

import argparse


def add_actions(actions, parent: argparse.ArgumentParser) -> None:
    """Add it to the actions of ``llm``."""
    parser = actions.add_parser(
        "split",
        parents=[parent],
        help="cut questions into parts to train, to choose and to report on",
        description="Cut sets of questions into disjoint parts by the seed, each with every set in proportion, and "
        "write each as a JSONL file. Questions that are equal but for capitals, spaces or the order of their choices "
        "come into one part. The parts are of one distribution; to report on another one, give llm refine --report a "
        "file that is in none of the sets.",
        epilog="example: python -m d2nwg llm split arc_easy.jsonl piqa.jsonl --parts train=700 select=500 report=400 "
        "--out questions",
    )
    parser.add_argument("file", metavar="QUESTIONS", nargs="+", help="JSONL files, built-in, or lm-eval:TASK")
    parser.add_argument(
        "--parts",
        nargs="+",
        metavar="NAME=N",
        default=["train", "select", "report"],
        help="a name and a number of questions; those without a number share the rest (train select report)",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Cut, write, and say how many of each set came into each part."""
    from d2nwg.llm.questions import load_questions
    from d2nwg.llm.split import parse_parts, split, write_parts
    from d2nwg.utils.outputs import claimed
    from d2nwg.utils.text import number, shown

    parts = parse_parts(args.parts)
    with claimed(args.out):
        sources = [load_questions(file) for file in args.file]
        made = split(sources, parts, seed=args.seed)
        write_parts(made, args.out)
    owners = {question.key: file for file, questions in zip(args.file, sources, strict=True) for question in questions}
    for name, questions in made.items():
        counts = {file: sum(owners[question.key] == file for question in questions) for file in args.file}
        of = ", ".join(f"{count:,} of {shown(file)}" for file, count in counts.items())
        print(f"{name}: {number(len(questions), 'question')} ({of})")
