"""What cases are made from: small valid inputs of every sort, each made when it is first asked for."""

import json
import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from d2nwg.cli import main
from tests.fuzz.forked import GIB, Limits, run_forked
from tests.fuzz.room import Room
from tests.helpers.images import make_image_folder, make_pattern_folder
from tests.helpers.networks import network
from tests.helpers.small_zoo import write_small_zoo
from tests.helpers.text_tasks import opinions, tiny_text_encoder, write_task
from tests.tiny_llm import make_tiny_llm

ENCODER = "pixels/4"
FEW = [
    "vae_steps=2",
    "align_steps=1",
    "diffusion_steps=2",
    "batch_size=4",
    "vae_channels=8",
    "unet_channels=32",
    "checkpoint_every=1",
]
FEW_STEPS = ["steps=2", "width=16"]
FEW_ADAPTERS = [*FEW, "coordinates=4", "patch=4,1,2", "latent_channels=2"]
TOPICS = ("hot", "cold", "water", "long", "many", "day", "people", "first", "number", "time")


class Stock:
    """Valid inputs in a folder of their own.

    Args:
        folder: theirs.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)

    def _made(self, name: str, make: Callable[[Path], object]) -> Path:
        """The path of that name, made by ``make(path)`` in a process of its own: this one stays without threads."""
        target = self.folder / name
        if not target.exists():
            room = Room.make(self.folder / "room")
            ended = run_forked(
                lambda: _zero(make(target)), room, Limits(wall=600, cpu=600, memory=16 * GIB), watched=False
            )
            if ended.code or not target.exists():
                raise RuntimeError(f"The stock has no {name}: {ended.err}")
        return target

    @cached_property
    def examples(self) -> Path:
        """The example data sets, as the cache holds them."""
        return self._made("examples", _examples)

    @cached_property
    def images(self) -> Path:
        """Four classes of six small pictures."""
        return self._made("images", lambda path: make_image_folder(path, list("abcd"), per_class=6, size=12))

    @cached_property
    def patterns(self) -> Path:
        """Eight classes of six small pictures."""
        return self._made("patterns", lambda path: make_pattern_folder(path, range(8), per_class=6, size=12))

    @cached_property
    def heads_zoo(self) -> Path:
        """A zoo of heads of two to four classes."""
        line = f"zoo build {self.patterns} --encoder {ENCODER} --subsets 40 --classes 2-4 --images 3"
        return self._made("heads-zoo", lambda path: _run(*line.split(), "--out", path))

    @cached_property
    def checkpoints(self) -> Path:
        """Eight networks of one architecture, two of another, and a table."""
        return self._made("checkpoints", _checkpoints)

    @cached_property
    def networks_zoo(self) -> Path:
        """They as a zoo."""
        return self._made("networks-zoo", lambda path: _run("zoo", "import", self.checkpoints, "--out", path))

    @cached_property
    def unet(self) -> Path:
        """A bundle of heads with a VAE and a UNet."""
        return self._made("unet", lambda path: _train(self.heads_zoo, "unet", path, *FEW))

    @cached_property
    def head(self) -> Path:
        """What ``generate`` wrote with it for the images."""
        line = f"generate {self.images} --bundle {self.unet} --shots 2 --num-samples 2"
        return self._made("head", lambda path: _run(*line.split(), "--out", path))

    @cached_property
    def dual(self) -> Path:
        """A dual bundle."""
        few = ("steps=2", "width=8", "depth=1", "heads=2", "tasks=2", "max_images=16", "shots=1,2", "query=2")
        return self._made("dual", lambda path: _train(self.heads_zoo, "dual", path, *few))

    @cached_property
    def networks(self) -> Path:
        """A bundle of networks."""
        return self._made("networks", lambda path: _train(self.networks_zoo, "networks", path, *FEW))

    @cached_property
    def small_zoo(self) -> Path:
        """A zoo of small networks with their images."""
        return self._made("small-zoo", lambda path: write_small_zoo(path).path)

    @cached_property
    def data_networks(self) -> Path:
        """A bundle of networks for a data set."""
        return self._made("data-networks", lambda path: _train(self.small_zoo, "dataset-networks", path, *FEW_STEPS))

    @cached_property
    def network(self) -> Path:
        """What `generate` writes of it."""
        line = f"generate {self.images} --bundle {self.data_networks} --shots 2 --num-samples 2"
        return self._made("network", lambda path: _run(*line.split(), "--out", path))

    @cached_property
    def text_encoder(self) -> Path:
        """A text encoder with random weights."""
        return self._made("texts", tiny_text_encoder) / "encoder"

    @cached_property
    def text_task(self) -> Path:
        """A task of texts with two classes."""

        def make(path: Path) -> Path:
            return write_task(path, {"train": opinions(40), "test": opinions(20, 1)}, description="Good?")

        return self._made("tone", make)

    @cached_property
    def adapters_zoo(self) -> Path:
        """A zoo of adapters of two tasks."""
        build = "zoo build {} {} --adapter lora --base {} --rank 1 --epochs 1 --seeds 3 --keep 2 --rows 16"

        def make(path: Path) -> int:
            other = self.copy(self.text_task, path.with_name("other-tasks")).rename(path.with_name("other"))
            return _run(*build.format(self.text_task, other, self.text_encoder).split(), "--out", path)

        return self._made("adapters-zoo", make)

    @cached_property
    def adapters(self) -> Path:
        """A bundle of adapters."""
        return self._made("adapters", lambda path: _train(self.adapters_zoo, "adapters", path, *FEW_ADAPTERS))

    @cached_property
    def adapter(self) -> Path:
        """What `generate --describe` writes."""
        line = ["generate", "--describe", "Is it good?", "--labels", "no, yes", "--bundle", self.adapters]
        return self._made("adapter", lambda path: _run(*line, "--num-samples", "2", "--out", path))

    @cached_property
    def generated(self) -> Path:
        """What `generate` writes."""
        line = f"generate {self.images} --bundle {self.unet} --shots 2 --num-samples 3"
        return self._made("generated", lambda path: _run(*line.split(), "--out", path))

    @cached_property
    def llm(self) -> Path:
        """A language model."""
        return self._made("llm", lambda path: make_tiny_llm(path, layers=2, width=16))

    @cached_property
    def llm_zoo(self) -> Path:
        """A zoo of adapters of it."""
        build = f"zoo build {self.questions / 'select.jsonl'} --llm {self.llm} --rank 1 --epochs 2 --seeds 2"
        return self._made("llm-zoo", lambda path: _run(*build.split(), "--out", path))

    @cached_property
    def delta(self) -> Path:
        """A delta of it."""
        return self._made("delta.safetensors", self._delta)

    def _delta(self, path: Path) -> None:
        from transformers import AutoModelForCausalLM

        from d2nwg.llm.delta import save_delta

        state = AutoModelForCausalLM.from_pretrained(self.llm).state_dict()
        name = "model.layers.1.mlp.gate_proj.weight"
        save_delta(state, {name: state[name] + 1}, path, name="tiny", facts={"words": ["made"], "config": {}})

    @cached_property
    def questions(self) -> Path:
        """A folder with ``select.jsonl`` and ``report.jsonl``."""
        return self._made("questions", _questions)

    @cached_property
    def unfinished_training(self) -> Path:
        """The folder of a training that was stopped."""
        return self._made("stopped-unet", self._stop_training)

    def _stop_training(self, path: Path) -> None:
        import d2nwg.training.stages as stages
        from d2nwg.utils.errors import UserError

        def stop(*_args):
            raise UserError("Stopped here.")

        stages.Stages.train_denoiser = stop  # type: ignore[method-assign]  # in a process of its own
        out = path.with_name("training")
        line = ["train", "--zoo", self.heads_zoo, "--generator", "unet", "--preset", "tiny", *settings(*FEW)]
        main([*map(str, line), "--out", str(out), "--device", "cpu"])
        out.with_name("training.training").rename(path)

    @cached_property
    def unfinished_refinement(self) -> Path:
        """The folder of a refinement that was stopped."""
        return self._made("stopped-llm", self._stop_refinement)

    def _stop_refinement(self, path: Path) -> None:
        import d2nwg.llm.refine as refine
        from d2nwg.utils.errors import UserError

        def stop(*_args, **_options):
            raise UserError("Stopped here.")

        refine.judge = stop
        sets = ["--select", self.questions / "select.jsonl", "--report", self.questions / "report.jsonl"]
        line = [
            "llm",
            "refine",
            self.llm,
            *sets,
            "--preset",
            "tiny",
            "--layers",
            1,
            "--candidates",
            1,
            "--device",
            "cpu",
        ]
        main([*map(str, line), "--out", str(path.with_name("refined"))])
        path.with_name("refined.refining").rename(path)

    def copy(self, path: Path, into: Path) -> Path:
        """A copy of something of the stock in a folder."""
        target = into / path.name
        if path.is_dir():
            shutil.copytree(path, target, symlinks=True)
        else:
            shutil.copyfile(path, target)
        return target


def _zero(_made: object) -> int:
    return 0


def _examples(folder: Path) -> None:
    from d2nwg.data.examples import example_folder

    example_folder("digits").parent.rename(folder)


def _run(*argv) -> None:
    if code := main([*map(str, argv), "--device", "cpu"]):
        raise SystemExit(code)


def _train(zoo: Path, generator: str, out: Path, *chosen: str) -> None:
    _run("train", "--zoo", zoo, "--generator", generator, "--preset", "tiny", *settings(*chosen), "--out", out)


def settings(*texts: str) -> list[str]:
    return [part for text in texts for part in ("--set", text)]


def _checkpoints(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    part = folder.with_name(f"{folder.name}-part")
    part.mkdir()
    for number in range(8):
        torch.save(network(width=2, seed=number).state_dict(), part / f"small-{number}.pt")
    for number in range(2):
        save_file(network(width=3, seed=number).state_dict(), part / f"large-{number}.safetensors")
    (part / "scores.csv").write_text(
        "file,task,accuracy,epoch\n" + "".join(f"small-{n}.pt,{'xy'[n % 2]},0.{n + 1},{n}\n" for n in range(8))
    )
    part.rename(folder)


def _questions(folder: Path) -> None:
    part = folder.with_name(f"{folder.name}-part")
    part.mkdir()
    for name, ask in (("select", "Is it"), ("report", "Was it")):
        rows = [
            {"question": f"{ask} {topic}", "choices": ["yes", "no", f"{topic}"], "answer": number % 3}
            for number, topic in enumerate(TOPICS)
        ]
        rows.append({"contexts": [f"{ask} a", f"{ask} b"], "continuation": "was the first", "answer": 0})
        (part / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    part.rename(folder)
