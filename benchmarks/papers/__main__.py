"""The papers' tables and figures, measured here one by one; and the page that sets them side by side.

    python -m benchmarks.papers table4 --data sets/ --seeds 3 --out papers
    python -m benchmarks.papers all --quick
    python -m benchmarks.papers all --data sets/ --resume --write-page

DATA holds data sets under the names that benchmarks/README.md uses (folders of class folders, archives, .npz files).
--quick takes a few samples and seeds of each table and, where data are missing, the example of handwritten digits: it
shows that everything runs. The default size has a budget a table; --full has none. --resume goes on with what OUT
holds.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.papers.markdown import markdown
from benchmarks.papers.page import PAGE, found_for, page, verdict_of
from benchmarks.papers.run import DEFAULT, FULL, MINUTES, QUICK, Run, measure
from benchmarks.papers.spec import Entry
from benchmarks.papers.tables import ENTRIES
from d2nwg.training.cards import command_line
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import write_whole

RESULTS = Path(__file__).with_name("results")


def chosen(names: Sequence[str]) -> list[Entry]:
    """The entries of some ids, or ``all``. Raises UserError for an unknown one."""
    if "all" in names:
        return list(ENTRIES.values())
    for name in names:
        if name not in ENTRIES:
            raise UserError(f"There is no {name}: choose all, or some of {', '.join(ENTRIES)}.")
    return [ENTRIES[name] for name in dict.fromkeys(names)]


def show(entry: Entry, results: Path) -> None:
    """Print what is known of an entry."""
    found, said = found_for(entry, results)
    verdict = verdict_of(entry, found)
    print(f"\n# {entry.id}: {entry.title}\n{entry.claim}\n{verdict.status}. {verdict.why}".rstrip())
    for one, source in said:
        print(f"\n{markdown(one)}\n{source}")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write the page where asked."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help="table1, figure6, scenario2, …; or all")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the folder of data sets")
    parser.add_argument("--out", type=Path, metavar="DIR", help="of results (papers; with --write-page the committed)")
    parser.add_argument("--seeds", type=int, default=3, help="where a table repeats over seeds (3)")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_const", dest="size", const=QUICK, default=DEFAULT)
    size.add_argument("--full", action="store_const", dest="size", const=FULL, help="without a budget, and Conv4")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"a table's budget ({MINUTES:g})")
    parser.add_argument("--resume", action="store_true", help="go on with what OUT holds")
    parser.add_argument("--write-page", action="store_true", help="write benchmarks/PAPERS.md from OUT")
    args = parser.parse_args(argv)
    if not args.tables and not args.write_page:
        parser.error("name a table, or all")
    out = args.out or (RESULTS if args.write_page else Path("papers"))
    left_out = []
    try:
        for entry in chosen(args.tables):
            seeds, minutes = (1, None) if args.size == QUICK else (args.seeds, args.minutes)
            run = Run(entry, args.size, seeds, args.data, out, None if args.size == FULL else minutes)
            if entry.can_run:
                try:
                    grids = measure(run, command_line(argv, "benchmarks.papers"), args.resume)
                except UserError as reason:  # a missing data set leaves the other tables to be measured
                    if len(args.tables) == 1 and args.tables != ["all"]:
                        raise
                    left_out.append(f"{entry.id}: {reason}")
                else:
                    where = ", on handwritten digits: it runs, and says no more" if run.on_example else ""
                    print(f"\n# {entry.id}: {entry.title} ({run.seconds:.0f} s{where})")
                    print("\n\n".join(map(markdown, grids)), flush=True)
                    continue
            show(entry, out)
    except UserError as reason:
        parser.exit(1, f"{reason}\n")
    if left_out:
        print("\nNot measured:", *left_out, sep="\n- ")
    if args.write_page:
        write_whole(PAGE, page(out))
        print(f"{PAGE} is written.")


if __name__ == "__main__":
    main()
