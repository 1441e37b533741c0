"""What README.md and benchmarks/README.md say can be done: every command, at its smallest, and every snippet."""

import csv
import io
import json
import re
import shlex
import shutil
import string
import subprocess
import sys
from glob import glob
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import d2nwg
from d2nwg import cli
from tests.helpers.documented import PAGES, ROOT, documented, snippets
from tests.helpers.images import make_image_folder
from tests.helpers.networks import network
from tests.helpers.text_tasks import opinions, tiny_text_encoder, write_task
from tests.helpers.texts import write_topics
from tests.tiny_llm import WORDS, make_tiny_llm

ELSEWHERE = {  # command: a file that runs it, and what stands there
    "pip install -r requirements.txt && python app.py": ("tests/e2e/conftest.py", 'sys.executable, "app.py"'),
    'pip install -r requirements.txt -e ".[test]" && python -m pytest': (
        ".ci/run",
        '\npip install -r requirements.txt -e ".[test]" && python -m pytest\n',
    ),
    'pip install ".[lm-eval]"': (".ci/run", '".[dev,lm-eval]"'),
    "python -m tests.fuzz --minutes 60": (".ci/run", "\npython -m tests.fuzz --minutes 2 "),
    "python app.py --models DIR": ("tests/e2e/conftest.py", '"--models"'),
}
FEW = "--subsets 24 --classes 2-3 --images 2 --max-per-class 4"
STEPS = "--preset tiny --set vae_steps=2 --set align_steps=2 --set diffusion_steps=2 --set batch_size=4"
DUAL = "--preset tiny --set steps=2 --set validate_every=1 --held-out birds"
REFINE = "--preset tiny --layers 2 --candidates 8 --select-questions 0 --criterion confidence"  # by which one is kept
TASKS = "sst2 cola mpqa trec6 tweet_emotion"
ADAPTERS = "--base text-encoder/encoder --rank 1 --epochs 1 --rows 16 --seeds 2 --keep 1"
SMALLEST = {  # command: options that make it small, in the order in which the commands are run; the last one counts
    "python -m d2nwg generate flowers/ --shots 5 --num-samples 50 --out flowers-head": "--num-samples 3",
    "python -m d2nwg generate flowers/ --shots 1 --unlabelled more-flowers/ --out unlabelled-head": "--num-samples 3",
    'python -m d2nwg generate --names "tabby cat, golden retriever, red fox" --out pets-head': "--num-samples 3",
    "python -m d2nwg generate reviews.csv --out reviews-head": "--num-samples 3",
    "python -m d2nwg generate reviews.csv --text-column text --label-column label --unlabelled more.txt --out "
    "reviews-head": "--num-samples 3",
    'python -m d2nwg predict reviews-head/head.safetensors --text "A lovely film." "A dull one."': "",
    "python -m d2nwg evaluate reviews-head/head.safetensors reviews.csv": "",
    "python -m d2nwg zoo build texts/* --adapter lora --about benchmarks/text_tasks.json --rows 1500 --seeds 2 --out "
    "adapter-zoo": ADAPTERS,
    "python -m d2nwg train --zoo adapter-zoo --out adapters": (
        "--set vae_steps=2 --set align_steps=2 --set diffusion_steps=2"
    ),
    'python -m d2nwg generate --describe "Is this sentence grammatical?" --bundle adapters --out grammar': (
        "--num-samples 2"
    ),
    'python -m d2nwg predict grammar --text "The film was good." "Film the good was."': "",
    'python -m d2nwg generate --describe "Is this film review positive?" --out positive': "--num-samples 2",
    "python -m d2nwg predict flowers-head/head.safetensors more-flowers/ --csv labels.csv": "",
    "python -m d2nwg export flowers-head --out flowers-elsewhere": "",
    "python -m d2nwg export flowers-head --out flowers-space --push-to-space me/flowers": "",
    "python -m d2nwg evaluate flowers-head/head.safetensors flowers/": "",
    "python -m d2nwg explore --data flowers/ --num-samples 200 --out flowers-explored": "--num-samples 6",
    "python -m d2nwg interpolate photos/ sketches/ --out path": "--points 3 --seeds 1 --num-samples 2",
    "python -m d2nwg zoo build birds/ tools.zip --subsets 10000 --classes 2-20 --out zoo": FEW,
    "python -m d2nwg train --zoo zoo --generator dual --out my-bundle": DUAL,
    "python -m d2nwg generate flowers/ --bundle my-bundle --out my-head": "--num-samples 3",
    "python -m d2nwg curve flowers/ --out curve.json": "--shots 1 2 --draws 2 --num-samples 2",
    "python -m d2nwg finetune flowers-head flowers/ --epochs 25 --out flowers-tuned": "--epochs 1 --seeds 1",
    "python -m d2nwg generate gray-mnist.npz --bundle networks-28px --out mnist-network": "",
    "python -m d2nwg interpolate task:digits task:digits-turned-45 --bundle tasks-small-networks --out path": (
        "--points 3 --seeds 1 --num-samples 2 --max-query 20"
    ),
    'python -m d2nwg explore --names "wolf, red fox, T-shirt" --search husky --out names-explored': "",
    'python -m d2nwg interpolate photos/ --names "apple, orange" --out apple-to-orange': "",
    "python -m d2nwg generate example:digits --bundle tasks-small-networks --task digits --out digits-network": (
        "--num-samples 3"
    ),
    "(head -n 400 arc_easy.jsonl; head -n 125 openbookqa.jsonl) > select.jsonl": "",
    "(tail -n +401 arc_easy.jsonl; tail -n +126 openbookqa.jsonl; cat arc_challenge.jsonl piqa.jsonl "
    "winogrande.jsonl) > report.jsonl": "",
    "python -m d2nwg llm refine default --select select.jsonl --report report.jsonl --preset quick --out refined": (
        REFINE
    ),
    "python -m d2nwg llm spectrum default --mode paper --out spectrum.json": "",
    "python -m d2nwg llm evaluate refined report.jsonl": "",
    "python -m d2nwg llm evaluate refined report.jsonl --shots 5 --shots-from select.jsonl": "",
    "python -m d2nwg llm chat default --against refined": "--max-tokens 2",
    "python -m d2nwg llm apply refined/delta.safetensors default --out refined-again": "",
    "python -m d2nwg llm split arc_easy.jsonl piqa.jsonl --parts train=700 select=500 report=400 --out questions": (
        "--parts train=12 select=6 report=8"
    ),
    "python -m d2nwg zoo build questions/train.jsonl --llm default --select questions/select.jsonl --seeds 4 --out "
    "llm-zoo": "--rank 1 --seeds 1",
    "python -m d2nwg llm refine default --zoo llm-zoo --select questions/select.jsonl --report questions/report.jsonl "
    "--select-questions 0 --report-questions 0 --out refined-from-zoo": "--preset tiny --candidates 2",
    "python -m d2nwg llm refine default --zoo smollm2-135m-questions --select questions/select.jsonl --report "
    "questions/report.jsonl --select-questions 240 --report-questions 500 --layers 3 --candidates 3 --normalise "
    "--seed 0 --out refined-zoo-0": "--zoo llm-zoo --preset tiny --candidates 2",
    "python -m d2nwg llm refine default --select questions/select.jsonl --report questions/report.jsonl --preset quick "
    "--criterion confidence --normalise --select-questions 240 --report-questions 500 --seed 0 --out refined-one-0": (
        f"{REFINE} --select-questions 0 --report-questions 0"
    ),
    "python -m d2nwg llm refine default --parts head --select questions/select.jsonl --report questions/report.jsonl "
    "--preset quick --criterion confidence --normalise --select-questions 240 --report-questions 500 --seed 0 --out "
    "refined-head": f"{REFINE} --select-questions 0 --report-questions 0",
    "python -m d2nwg llm refine default --parts all --select questions/select.jsonl --report questions/report.jsonl "
    "--preset quick --criterion confidence --normalise --candidates 1 --select-questions 60 --report-questions 500 "
    "--seed 0 --out refined-all": f"{REFINE} --select-questions 0 --report-questions 0",
    "python -m d2nwg llm split arc_challenge.jsonl arc_easy.jsonl openbookqa.jsonl --parts train=900 select=400 "
    "--seed 0 --out others": "--parts train=8 select=8",
    "python -m d2nwg zoo build others/train.jsonl --select others/select.jsonl --select-questions 120 --llm default "
    "--epochs 2 --keep 2 --rows 320 --seeds 2 --out other-zoo": "--rank 1 --rows 4",
    "python -m d2nwg llm refine default --zoo other-zoo --select others/select.jsonl --report hellaswag.jsonl "
    "piqa.jsonl winogrande.jsonl --select-questions 160 --report-questions 500 --layers 3 --candidates 3 --normalise "
    "--seed 0 --out other-refined": "--preset tiny --candidates 2",
    "python -m d2nwg zoo build gray-mnist.npz gray-notmnist.npz --network cnn --classes 10 --subsets 100 --variants "
    "negative turned-90 --out small-networks": "--subsets 3 --updates 2",
    "python -m d2nwg train --zoo small-networks --generator dataset-networks --out my-networks": "--set steps=1",
    "python -m d2nwg generate gray-mnist.npz --bundle my-networks --out my-network": "",
    "python -m d2nwg finetune mnist-network gray-mnist.npz --epochs 5 --bundle networks-28px --out mnist-tuned": (
        "--epochs 1 --seeds 1"
    ),
    "python -m d2nwg predict mnist-network picture.jpg": "",
    "python -m d2nwg explore --data gray-mnist.npz --bundle networks-28px --dimensions 3 --out networks-explored": (
        "--num-samples 4 --num-trained 2"
    ),
    "python -m d2nwg zoo import checkpoints/ --preview": "",
    "python -m d2nwg zoo import checkpoints.zip --table scores.csv --out model-zoo": "",
    "python -m d2nwg zoo import more/ --append --out model-zoo": "",
    "python -m d2nwg zoo info model-zoo": "",
    "python -m d2nwg zoo export model-zoo --out checkpoints-again": "",
    "python -m d2nwg train --zoo model-zoo --out my-models": STEPS,
    "python -m d2nwg sample my-models --architecture 0 --task mnist --num-samples 10 --out networks": "--steps 2",
    "python -m d2nwg train --zoo zoo --preset tiny --set vae_steps=400 --out my-bundle --job first": STEPS,
    "python -m d2nwg jobs list": "",
    "python -m d2nwg jobs show first": "",
    "python -m d2nwg train --zoo zoo --out my-bundle --push-to-hub me/my-bundle": STEPS,
    "python -m d2nwg train --zoo zoo --preset paper --out bundle": STEPS,
    "python -m d2nwg train --zoo zoo --preset paper --set vae_channels=8,16,32 --set vae_layers=1 --set "
    "unet_channels=32,64,96 --set unet_layers=1 --set encoder_width=256 --set vae_steps=400 --set align_steps=100 "
    "--set diffusion_steps=800 --set batch_size=64 --set mixed_precision=no --set ema=0.999 --out paper-reduced": (
        "--set vae_steps=1 --set align_steps=1 --set diffusion_steps=1 --set batch_size=2"
    ),
    'SETS="train-caltech101 train-clothing10 train-fruits3var train-grocery train-gtsrb train-pacs '
    'train-tiny_imagenet"': "",
    "python -m d2nwg zoo build $SETS --subsets 16384 --out zoo": FEW,
    "python -m d2nwg zoo build $SETS --max-per-class 20 --subsets 16384 --out zoo-few": FEW,
    "python -m d2nwg zoo build $SETS --classes 2-100 --images 15 --max-per-class 20 --subsets 4096 --out zoo-wide": FEW,
    "python -m d2nwg train --zoo zoo-few zoo-wide --generator dual --held-out train-pacs train-clothing10 "
    "--set max_images=100 --set tasks=6 --set steps=1500 --set validate_every=500 --out heads-dual": (
        "--preset tiny --set steps=2 --set validate_every=1"
    ),
    "python -m d2nwg train --zoo zoo --generator unet --out heads-efficientnet-lite0": STEPS,
}
TOGETHER = [  # whose arguments are read; tests/training/test_scale.py has two processes train and build together
    "accelerate launch --multi_gpu --num_processes 8 -m d2nwg train --zoo zoo --preset paper --out bundle",
    "accelerate launch --multi_gpu --num_machines 2 --num_processes 16 --machine_rank 0 --main_process_ip node0 "
    "--main_process_port 29500 -m d2nwg train --zoo zoo --preset paper --out bundle",
    "accelerate launch --multi_gpu --num_processes 8 -m d2nwg zoo build birds/ tools.zip --subsets 1000000 --out zoo",
    "torchrun --nproc_per_node 2 -m d2nwg train --zoo zoo --preset paper --out bundle",
]


def test_every_documented_command_is_run():
    """Benchmarks: by tests/test_benchmarks.py."""
    others = [command for command in documented() if not command.startswith("python -m benchmarks.")]
    assert sorted([*ELSEWHERE, *SMALLEST, *TOGETHER]) == sorted(others)


@pytest.mark.parametrize("command", ELSEWHERE)
def test_what_runs_elsewhere(command):
    file, text = ELSEWHERE[command]
    assert text in (ROOT / file).read_text()


def questions(count: int, seed: int) -> str:
    """JSON lines."""
    rng, words = np.random.default_rng(seed), WORDS.split()
    rows = []
    for _ in range(count):
        choices = [str(word) for word in rng.choice(words, 4, replace=False)]
        rows.append({"question": " ".join(rng.choice(words, 6)) + "?", "choices": choices, "answer": 1})
    return "".join(json.dumps(row) + "\n" for row in rows)


def fill(folder: Path) -> None:
    """The files that the commands name, small."""
    for seed, name in enumerate(("flowers", "photos", "sketches", "birds", "tools")):
        make_image_folder(folder / name, per_class=8, seed=seed)
    shutil.make_archive(str(folder / "tools"), "zip", folder, "tools")
    tiny_text_encoder(folder / "text-encoder")
    for name in TASKS.split():
        write_task(folder / "texts" / name, {"train": opinions(40), "test": opinions(20, 1)})
    (folder / "benchmarks").mkdir()
    shutil.copy(ROOT / "benchmarks" / "text_tasks.json", folder / "benchmarks")
    for name in ("mnist", "notmnist"):
        grey = np.random.default_rng(0).integers(0, 256, (60, 28, 28), np.uint8)
        np.savez(folder / f"gray-{name}.npz", x=grey, y=np.arange(60) % 10)
    (folder / "more-flowers").mkdir()
    for file in (folder / "photos").rglob("*.png"):
        shutil.copy(file, folder / "more-flowers" / f"{file.parent.name}-{file.name}")
    shutil.copy(folder / "flowers" / "red" / "00.png", folder / "picture.jpg")
    write_topics(folder / "reviews.csv")
    (folder / "more.txt").write_text("The pie needs salt.\nThe referee was late.\n")
    (folder / "names.txt").write_text("bluebell\ngreen carnation\nred rose\n")
    for name in ("caltech101", "clothing10", "fruits3var", "grocery", "gtsrb", "pacs", "tiny_imagenet"):
        shutil.copytree(folder / "birds", folder / f"train-{name}")
    counts = {"arc_easy": 404, "openbookqa": 128, "arc_challenge": 2, "hellaswag": 2, "piqa": 2, "winogrande": 2}
    for seed, (name, count) in enumerate(counts.items()):
        (folder / f"{name}.jsonl").write_text(questions(count, seed))
    for seed, name in enumerate(("select", "report"), len(counts)):
        (folder / f"{name}.jsonl").write_text(questions(8, seed))
    for name, seeds in (("checkpoints", range(6)), ("more", range(6, 8))):
        (folder / name).mkdir()
        for seed in seeds:
            save_file(network(seed=seed).state_dict(), folder / name / f"{seed}.safetensors")
        with (folder / name / "scores.csv").open("w") as file:
            rows = [[f"{seed}.safetensors", "mnist", 0.9, 1] for seed in seeds]
            csv.writer(file).writerows([["file", "task", "accuracy", "epoch"], *rows])
    shutil.make_archive(str(folder / "checkpoints"), "zip", folder / "checkpoints")
    shutil.copy(folder / "checkpoints" / "scores.csv", folder / "scores.csv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the commands run, one after another."""
    folder = tmp_path_factory.mktemp("readme")
    fill(folder)
    make_tiny_llm(folder / "default")
    (folder / "variables.json").write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture
def outside(monkeypatch):
    """What leaves this machine or asks a person, replaced."""
    monkeypatch.setattr("d2nwg.bundles.push_bundle", lambda path, name: f"https://hub/{name}")
    monkeypatch.setattr("d2nwg.exports.push_head", lambda folder, name, space: f"https://hub/{name}")
    monkeypatch.setattr(sys, "stdin", io.StringIO("hot?\n"))


@pytest.mark.parametrize("command", SMALLEST)
def test_command(command, folder, outside, capsys):
    variables = json.loads((folder / "variables.json").read_text())
    if command.startswith("SETS="):
        (folder / "variables.json").write_text(json.dumps({"SETS": shlex.split(command)[0].removeprefix("SETS=")}))
        return
    if command.startswith("("):
        subprocess.run(["bash", "-euc", command], cwd=folder, check=True)
        return
    words = shlex.split(string.Template(command).substitute(variables)) + shlex.split(SMALLEST[command])
    words = [name for word in words for name in (sorted(glob(word)) if "*" in word else [word])]
    if "--out" in words and "--append" not in words:
        shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
    assert words[:3] == ["python", "-m", "d2nwg"]
    # The embedded language model is fetched: a folder of its name stands for it.
    words = ["./default" if word == "default" else word for word in words[3:]]
    code = cli.main(words + (["--device", "cpu"] if words[0] != "jobs" else []))
    said = capsys.readouterr()
    assert code == 0 and said.out, said.err
    if "--job" in words:
        from d2nwg.jobs.job import get_job
        from tests.helpers.jobs import wait

        wait(get_job("first"), "finished", seconds=300)


@pytest.mark.parametrize("command", TOGETHER)
def test_launchers_take_the_arguments(command):
    """Of launcher and verb."""
    from accelerate.commands.launch import launch_command_parser
    from torch.distributed.run import get_args_parser

    launcher, *words = shlex.split(command)
    parser = get_args_parser() if launcher == "torchrun" else launch_command_parser()
    read = parser.parse_args(words if launcher == "torchrun" else words[1:])
    assert read.module and read.training_script == "d2nwg"
    assert cli.build_parser().parse_args(read.training_script_args).run


@pytest.mark.parametrize(("page", "code"), [(page, code) for page in PAGES for code in snippets(page)])
def test_snippet(page, code, folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    files = {
        "roses": sorted((folder / "flowers/red").iterdir()),
        "daisies": sorted((folder / "flowers/blue").iterdir()),
    }
    exec(code, names := dict(files))
    assert names["samples"].state["weight"].shape == (50, 2, 1280)
    assert isinstance(names["samples"].modules[0], torch.nn.Linear)


def test_calls_in_the_text(folder):
    """What stands in the README's text as a call of the library."""
    calls = re.findall(r"`(d2nwg\.[^`]+\(.+\))`", PAGES[0].read_text())
    made = [eval(call, {"d2nwg": d2nwg, "load_images": d2nwg.load_images}) for call in calls]
    assert [type(one).__name__ for one in made] == ["Generation", "NamedGeneration"]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_are_there(page):
    """What a page links to or names with its folder."""
    text = page.read_text()
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
    named = re.findall(r"`((?:d2nwg|assets|tests|benchmarks|pretrained|\.ci)/[\w./-]*)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_readme_is_read_in_one_sitting():
    assert len(PAGES[0].read_text().splitlines()) <= 150
