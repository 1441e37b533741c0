"""Training and zoo building by two processes together: what one process does, in half the steps' work each."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from d2nwg.training.run import train_bundle
from tests.helpers.training import quick_config, tensors

pytestmark = pytest.mark.scale
REPO = Path(__file__).resolve().parents[2]

# Both verbs' library calls in one go: two processes are slow to start.
TOGETHER = """
import sys
from pathlib import Path
from tests.helpers.encoder import CheapEncoder
from tests.helpers.training import quick_config
from d2nwg.utils.errors import UserError
from d2nwg.data.images import load_images
from d2nwg.weights import build
from d2nwg.weights.zoo import Zoo, ZooConfig
from d2nwg.training.run import train_bundle
patterns, folder, zoo = sys.argv[1:]
build.BATCH, build.SHARD = 20, 40
config = ZooConfig(subsets=200, min_classes=2, max_classes=6, images=8, width=16)
build.build_zoo([load_images(patterns)], CheapEncoder(), config, Path(folder) / "zoo", device="cpu")
config = quick_config(vae_steps=25, align_steps=5, diffusion_steps=25, batch_size=16)
out = Path(folder) / "bundle"
train_bundle(Zoo(zoo), config, out, device="cpu")
try:
    train_bundle(Zoo(zoo), config, out, device="cpu")
except UserError as reason:
    print("refused:", reason)
"""


def test_two_processes_do_what_one_does(tiny_zoo, patterns, cheap_encoder, tmp_path, monkeypatch):
    (tmp_path / "together.py").write_text(TOGETHER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": "1",
    }
    # as for several GPUs: with --cpu it would want MPI
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_machines",
        "1",
        "--num_processes",
        "2",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--main_process_port",
        str(port),
        str(tmp_path / "together.py"),
        str(patterns),
        str(tmp_path),
        str(tiny_zoo.path),
    ]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("refused:") == 2 and done.stdout.count("bundle exists already") == 2

    # The zoo: shards disjoint and complete, and the same as one process builds.
    from d2nwg.data.images import load_images
    from d2nwg.weights import build
    from d2nwg.weights.zoo import Zoo, ZooConfig

    monkeypatch.setattr(build, "BATCH", 20)
    monkeypatch.setattr(build, "SHARD", 40)
    config = ZooConfig(subsets=200, min_classes=2, max_classes=6, images=8, width=16)
    build.build_zoo([load_images(patterns)], cheap_encoder, config, tmp_path / "alone", device="cpu")
    names = sorted(path.name for path in (tmp_path / "alone").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "zoo").iterdir()) and len(names) == 5 + 2
    for name in names:
        if name.endswith(".safetensors"):
            one, two = load_file(tmp_path / "alone" / name), load_file(tmp_path / "zoo" / name)
            assert all(torch.allclose(one[key], two[key], atol=1e-4) for key in one), name
    assert len(Zoo(tmp_path / "zoo").accuracies()) == 200
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".zoo")]

    # The training: the same losses at the same global batch, one log, one bundle.
    config = quick_config(vae_steps=25, align_steps=5, diffusion_steps=25, batch_size=16)
    single = train_bundle(tiny_zoo, config, tmp_path / "single", device="cpu")
    curves = []
    for bundle in (single, tmp_path / "bundle"):
        lines = [json.loads(line) for line in (bundle / "metrics.jsonl").open()]
        curves.append({(line["stage"], line["step"]): line["loss"] for line in lines if "loss" in line})
    assert curves[0].keys() == curves[1].keys()
    for (stage, step), loss in curves[0].items():
        if stage != "condition":  # whose loss compares the members of a process's part of the batch
            assert curves[1][stage, step] == pytest.approx(loss, rel=0.15), (stage, step)
    assert tensors(single).keys() == tensors(tmp_path / "bundle").keys()
