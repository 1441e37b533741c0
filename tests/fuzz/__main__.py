"""``python -m tests.fuzz``: run cases for some minutes and kill writers, or repeat one case."""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ[name] = "1"  # a process that forks should have one thread
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
}


def main() -> int:
    """Run what the command line asks for; 1 where something was found."""
    from tests.fuzz.kinds import KINDS

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, metavar="N", help="of hostile cases (2)")
    parser.add_argument("--kills", type=int, default=0, metavar="N", help="of each writer (0)")
    parser.add_argument("--seed", default="0", metavar="S", help="of all cases (0)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of {', '.join(KINDS)}, or of the writers")
    parser.add_argument("--case", metavar="NAME:SEED", help="repeat one case, and keep its folder")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where what was found is kept (a temporary folder)")
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="d2nwg-fuzz-") as folder:
        # Where libraries look when they are imported; a case's own folders are set later.
        os.environ |= {"HF_HOME": str(Path(folder) / "hub"), "GRADIO_TEMP_DIR": str(Path(folder) / "gradio")}
        from tests.fuzz.run import repeat, run

        kept = args.keep or Path(tempfile.mkdtemp(prefix="d2nwg-fuzz-found-"))
        if args.case:
            return repeat(args.case, Path(folder), kept)
        found = run(Path(folder), kept, args.minutes, args.kills, args.seed, args.only)
    print(f"{found} found in {time.monotonic() - began:.0f} s." + (f" They are kept in {kept}." if found else ""))
    if not found and not args.keep:
        kept.rmdir()
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
