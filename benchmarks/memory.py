"""A zoo larger than memory: what training holds while the zoo on disk grows.

    python -m benchmarks.memory --zoo zoo --times 1 2 4 8

The records of a built zoo are written again, so many times over, and a generator is trained for a few hundred steps on
records from all over it. *own*: the most memory that is the process's alone (Linux: RssAnon). *mapped*: pages of files
that it has read (RssFile), which the system takes back when it needs them. *limit*: the process's own memory may not
grow beyond (`--limit`, in MiB), or it fails.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]

CHILD = """
import json, resource, sys
from pathlib import Path
from d2nwg.training.config import UNetConfig
from d2nwg.training.run import train_bundle
from d2nwg.weights.zoo import Zoo
zoo, out, few, limit = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_DATA, (int(limit) * 2**20,) * 2)
most = {"RssAnon": 0, "RssFile": 0}
def look(stage, done, total):
    if done % 20 == 0:
        for line in open("/proc/self/status"):
            name, _, value = line.partition(":")
            if name in most:
                most[name] = max(most[name], int(value.split()[0]) // 1024)
train_bundle(Zoo(zoo), UNetConfig.preset("tiny", **json.loads(few)), Path(out), device="cpu", progress=look)
print(json.dumps(most))
"""


def enlarge(zoo: Path, times: int, folder: Path) -> int:
    """Write the zoo with its records so many times over; the bytes of its records."""
    info = json.loads((zoo / "zoo.json").read_text())
    shards = sorted(zoo.glob("records-*.safetensors"))
    folder.mkdir()
    shutil.copyfile(zoo / "features.safetensors", folder / "features.safetensors")
    for number in range(times * len(shards)):
        shutil.copyfile(shards[number % len(shards)], folder / f"records-{number:05d}.safetensors")
    (folder / "zoo.json").write_text(json.dumps({**info, "num_records": times * info["num_records"]}))
    return sum(path.stat().st_size for path in folder.glob("records-*"))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure each size, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zoo", required=True, type=Path, help="a zoo of heads, of whole shards (2,048 records each)")
    parser.add_argument("--times", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--limit", type=int, default=0, help="MiB of own memory allowed (no limit)")
    parser.add_argument("--work", type=Path, help="a folder on the disk to write to")
    parser.add_argument("--smoke", action="store_true", help="a step of everything, to see that it runs")
    args = parser.parse_args(argv)
    few = dict(vae_steps=args.steps, align_steps=2, diffusion_steps=20, batch_size=64, checkpoint_every=10**6)
    if args.smoke:
        few |= dict(vae_steps=1, align_steps=1, diffusion_steps=1, batch_size=2)
    for times in args.times:
        with tempfile.TemporaryDirectory(dir=args.work) as folder:
            size = enlarge(args.zoo, times, Path(folder) / "zoo")
            done = subprocess.run(
                [sys.executable, "-c", CHILD, f"{folder}/zoo", f"{folder}/bundle", json.dumps(few), str(args.limit)],
                cwd=REPO, capture_output=True, text=True,
            )  # fmt: skip
            if done.returncode:
                print(f"{size / 2**20:8,.0f} MiB of records: {done.stderr.strip().splitlines()[-1]}", flush=True)
                continue
            most = json.loads(done.stdout.splitlines()[-1])
            print(f"{size / 2**20:8,.0f} MiB of records: own {most['RssAnon']:,} MiB, mapped {most['RssFile']:,} MiB",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
