"""Time and memory of Explore's map for a large zoo: synthetic heads, no bundle.

    python -m benchmarks.explore [--heads 10000] [--numbers 12810] [--samples 200] [--threads 2] [--out explore.json]

10,000 heads of 12,810 numbers are linear heads for 10 classes on 1,280 features. They are drawn around a few hundred
centres in a space of 200 dimensions, with noise in all: neither one blob nor plain noise.
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Sequence

import numpy as np


def synthetic(number: int, size: int, seed: int = 0) -> np.ndarray:
    """(number, size) float32, made in blocks so that nothing larger than the result is held."""
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((200, size), dtype=np.float32)
    centres = rng.standard_normal((300, 200), dtype=np.float32)
    points = np.empty((number, size), np.float32)
    for first in range(0, number, 1000):
        rows = slice(first, min(first + 1000, number))
        codes = centres[rng.integers(300, size=rows.stop - rows.start)]
        codes = codes + 0.3 * rng.standard_normal(codes.shape, dtype=np.float32)
        points[rows] = codes @ basis
        points[rows] += rng.standard_normal(points[rows].shape, dtype=np.float32)
    return points


def main(argv: Sequence[str] | None = None) -> None:
    """Make the heads, then time each step of what the tab does with them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, default=10_000)
    parser.add_argument("--numbers", type=int, default=12_810)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out")
    args = parser.parse_args(argv)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(args.threads)

    from d2nwg.analysis.compare import energy_test, to_zoo
    from d2nwg.analysis.populations import SAMPLE, ZOO, Population
    from d2nwg.analysis.projections import project

    n = args.heads + args.samples
    points = synthetic(n, args.numbers)
    origin = np.array([ZOO] * args.heads + [SAMPLE] * args.samples)
    heads = Population(points, np.full(n, 10), origin, np.full(n, -1), np.arange(n), np.zeros(n))
    steps = {
        "map": lambda: project(points).words,
        "neighbours": lambda: str(to_zoo(heads, points).distance[-1, 0]),
        "test": lambda: str(energy_test(points[args.heads :], points[: args.heads])),
    }
    result = {
        "heads": args.heads,
        "numbers": args.numbers,
        "samples": args.samples,
        "threads": args.threads,
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "seconds": {},
        "cpu_seconds": {},
    }
    for name, step in steps.items():
        started, used = time.perf_counter(), time.process_time()
        said = step()
        result["seconds"][name] = round(time.perf_counter() - started, 1)
        result["cpu_seconds"][name] = round(time.process_time() - used, 1)
        print(f"{name}: {result['seconds'][name]} s ({result['cpu_seconds'][name]} s of processor time). {said}")
    result["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
    print(f"Most memory held: {result['peak_gb']} GB, of which the heads take {points.nbytes / 1e9:.2f}.")
    if args.out:
        with open(args.out, "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
