"""Training: steps per second of each stage and peak memory, per preset, with one process and with two.

    python -m benchmarks.training --zoo zoo --presets tiny small --processes 1 2 --out training.json

Every row is measured in fresh processes by a few steps of each stage (`d2nwg.training.estimate`); with several
processes the global batch is the same, and memory is that of the largest process.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

from d2nwg.generators import GENERATORS, get_generator

REPO = Path(__file__).resolve().parents[1]


def measure(zoo: str, generator: str, preset: str, processes: int, device: str | None, seconds: float) -> dict:
    """Steps per second of each stage (median of all but the first step) and peak memory in MiB; empty where not one
    step ended in time."""
    config = get_generator(generator).config_class.preset(preset).to_config()
    spec = json.dumps({"zoos": [str(Path(zoo).resolve())], "generator": generator, "config": config, "device": device})
    command = [sys.executable, "-m", "d2nwg.training.estimate", spec]
    if processes > 1:
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            str(processes),
            "-m",
            *command[2:],
        ]
    threads = max(1, (os.cpu_count() or 1) // processes)
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command,
            cwd=REPO,
            stdout=output,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
        output.seek(0)
        lines = [json.loads(line) for line in output if line.startswith("{")]
    times: dict[tuple, list[float]] = {}
    for line in lines:
        if "stage" in line:
            times.setdefault((line["stage"], line.get("rank", 0)), []).append(line["time"])
    rates = {}
    for (stage, rank), stamps in times.items():
        gaps = [after - before for before, after in pairwise(stamps)][1:]
        if rank == 0 and gaps:
            rates[stage] = round(1 / max(median(gaps), 1e-9), 3)
    peak = max((line.get("peak", 0) for line in lines), default=0)
    return {
        "steps_per_second": rates,
        "peak_mib": round(peak / 2**20),
        "device": next((line["device"] for line in lines if "device" in line), device),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zoo", required=True, help="a zoo of heads")
    parser.add_argument("--generator", default="unet", choices=tuple(GENERATORS))
    parser.add_argument("--presets", nargs="+", help="which ones (all)")
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--device")
    parser.add_argument("--seconds", type=float, default=600, help="limit of one measurement")
    parser.add_argument("--repeat", type=int, default=1, help="measure each so often, keep the fastest (1)")
    parser.add_argument("--out", help="JSON to write")
    args = parser.parse_args(argv)
    rows = []
    for preset in args.presets or get_generator(args.generator).config_class.PRESETS:
        for processes in args.processes:
            turns = [measure(args.zoo, args.generator, preset, processes, args.device, args.seconds)
                     for _ in range(args.repeat)]  # fmt: skip
            best = {stage: max(turn["steps_per_second"].get(stage, 0) for turn in turns)
                    for turn in turns for stage in turn["steps_per_second"]}  # fmt: skip
            row = {"preset": preset, "processes": processes, "steps_per_second": best,
                   "peak_mib": max(turn["peak_mib"] for turn in turns), "device": turns[0]["device"]}  # fmt: skip
            rows.append(row)
            rates = ", ".join(f"{stage}: {rate:g}/s" for stage, rate in row["steps_per_second"].items())
            print(
                f"{preset:9} {processes} × {row['device']}  {row['peak_mib']:6} MiB  {rates or 'no step in time'}",
                flush=True,
            )
    if args.out:
        machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        Path(args.out).write_text(json.dumps({"machine": machine, "generator": args.generator, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
