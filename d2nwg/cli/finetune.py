"""``finetune START DATA``: a generated head or network trained further, beside other starts."""

import argparse
from typing import Any

from d2nwg.cli.common import add_columns, finite, positive


def add_parser(subparsers, parent: argparse.ArgumentParser) -> None:
    """Add ``finetune`` to the command line."""
    parser = subparsers.add_parser(
        "finetune",
        parents=[parent],
        help="train a generated head or network further",
        description="Train what generate made further on labelled data, and other starts beside it on the same "
        "batches: random initialisation; beside a head the class mean, and ridge regression on the images that "
        "generation saw and on all training images; beside a network, with --bundle, what its zoo has to offer. Prints "
        "accuracy over epochs, mean and standard deviation over seeds, and how many epochs the generated start "
        "saves. The test split scores, or else a part of what generation did not see. Writes the head or the network, "
        "finetune.json (the curves) and README.md.",
        epilog="example: python -m d2nwg finetune flowers-head flowers/ --epochs 25 --out flowers-tuned",
    )
    parser.add_argument(
        "start", metavar="START", help="what generate wrote: the folder of a head or a network, or a head file"
    )
    parser.add_argument(
        "data", metavar="DATA", help="a folder of class folders, an archive of one, a table of texts, or a data set"
    )
    add_columns(parser)
    parser.add_argument("--epochs", type=positive, default=25, metavar="E", help="passes over the training part (25)")
    parser.add_argument(
        "--seeds", type=positive, default=3, metavar="S", help="runs of each start, in other orders (3)"
    )
    parser.add_argument("--lr", type=finite, metavar="X", help="learning rate of all starts (each its own, tuned)")
    parser.add_argument("--batch-size", type=positive, default=64, metavar="B", help="images or texts a step (64)")
    parser.add_argument(
        "--max-images",
        type=positive,
        default=3000,
        metavar="N",
        help="most images or texts to train and score on (3000)",
    )
    parser.add_argument(
        "--bundle",
        metavar="BUNDLE",
        help="of a network: adds the average of its zoo, the nearest member with its classes matched, that with "
        "noise, and a kernel density of the 30 best (SKDE30) to the starts",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was interrupted")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Fine-tune, write the files, and print the table and what it means."""
    import shutil

    from d2nwg.data.columns import Columns
    from d2nwg.data.sources import load_data
    from d2nwg.evaluation.finetune_report import measured_on, sentences, text_table
    from d2nwg.finetuning.heads import FineTuning, finetune_head
    from d2nwg.finetuning.networks import NetworkTuning, finetune_network
    from d2nwg.finetuning.plan import open_start
    from d2nwg.heads import Head
    from d2nwg.utils.errors import UserError
    from d2nwg.utils.outputs import claimed, explained, new_folder, resolved
    from d2nwg.utils.progress import TerminalProgress

    progress, out = TerminalProgress(), resolved(args.out)
    work = out.with_name(out.name + ".finetuning")
    run: dict[str, Any] = {
        name: getattr(args, name) for name in ("epochs", "seeds", "lr", "batch_size", "seed", "device")
    }
    run |= {"progress": progress, "folder": work, "resume": args.resume}
    if args.max_images is not None:
        run["max_images"] = args.max_images
    made: FineTuning | NetworkTuning
    with claimed(out, empty=True), explained(out, "make room and go on with --resume"):
        start = open_start(args.start)
        if isinstance(start, Head):
            if args.bundle:
                raise UserError("--bundle is for networks; a head is compared with closed-form starts: leave it out.")
            columns = Columns(tuple(args.text_column), args.label_column)
            made = finetune_head(start, load_data(args.data, columns=columns, progress=progress), **run)
        else:
            made = finetune_network(start, args.data, bundle=args.bundle, **run)
        with new_folder(out, empty=True) as folder:
            made.save(folder, out.name)
        shutil.rmtree(work, ignore_errors=True)
    print("\n".join([*made.report.notes, measured_on(made.report), "", *text_table(made.report), ""]))
    print("\n".join(sentences(made.report)))
    print(f"The fine-tuned {made.report.kind} is in {args.out}.")
