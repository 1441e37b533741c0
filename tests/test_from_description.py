"""A description in, an adapter out: it does what the zoo's adapters do, plain peft reads it, and new tasks are said to
be new."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from d2nwg.adapters import Adapter
from d2nwg.bundles import list_bundles, load_bundle
from d2nwg.cli import main
from d2nwg.data.text_tasks import TEST
from d2nwg.encoders.lora import AdaptedEncoder
from d2nwg.from_description import generate_from_description
from d2nwg.training.config import AdaptersConfig
from d2nwg.training.run import train_bundle
from d2nwg.utils.errors import UserError
from tests.helpers.text_tasks import DESCRIBED


@pytest.fixture(scope="module")
def made(described):
    """The folder of the bundle, the tasks, and the zoo that it was trained on."""
    folder, tasks, zoo = described
    return folder / "bundles", tasks, zoo


def right(adapter, task) -> float:
    chosen = task.numbers(TEST)
    said = adapter.predict([task.texts[int(i)] for i in chosen])
    return float((said.argmax(1).numpy() == task.targets[chosen]).mean())


@pytest.mark.parametrize("number", [0, 1])
def test_a_paraphrase_gives_an_adapter_of_its_task(made, number):
    folder, tasks, zoo = made
    task = tasks[number]
    words = ("Did the reviewer enjoy the film?", "Tell whether a legal agreement is invalid.")[number]
    found = generate_from_description(words, bundle=folder / "adapters", num_samples=4)
    best = max(record["score"] for record in zoo.records if record["task"] == task.name)
    assert found.seen and found.nearest[0][0] == task.name and found.adapter.classes == ("no", "yes")
    assert right(found.adapter, task) > best - 0.1 and right(found.adapter, tasks[1 - number]) < 0.3
    assert found.effect > 1 and "This is a task that the generator knows" in found.notes[0]
    again = generate_from_description(words, bundle=folder / "adapters", num_samples=4)
    assert all(torch.equal(value, again.adapter.state[name]) for name, value in found.adapter.state.items())


def test_plain_peft_reads_it_in_a_process_of_its_own(made, tmp_path):
    folder, tasks, _ = made
    found = generate_from_description(DESCRIBED["tone"][0], bundle=folder / "adapters", num_samples=2)
    out = found.save(tmp_path / "mine")
    assert {path.name for path in out.iterdir()} == {
        *("adapter_config.json", "adapter_model.safetensors", "head.safetensors", "README.md", "report.json"),
    }
    texts = [tasks[0].texts[int(i)] for i in tasks[0].numbers(TEST)[:8]]
    program = f"""
import sys, torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
encoder = SentenceTransformer({found.adapter.shape.base!r}, device="cpu")
encoder[0].auto_model = PeftModel.from_pretrained(encoder[0].auto_model, {str(out)!r}).eval()
head = load_file({str(out / "head.safetensors")!r})
features = encoder.encode({texts!r}, convert_to_tensor=True)
save_file({{"said": (features @ head["weight"].T + head["bias"]).softmax(1)}}, {str(tmp_path / "said")!r})
assert "d2nwg" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
    wanted = Adapter.load(out).predict(texts)
    torch.testing.assert_close(load_file(tmp_path / "said")["said"], wanted, atol=1e-5, rtol=1e-4)
    plain = AdaptedEncoder(found.adapter.shape)
    assert not torch.allclose(plain.embed(texts), found.adapter.encoder().embed(texts), atol=1e-2)


def test_the_card_of_an_adapter_runs(made, tmp_path):
    folder, *_ = made
    out = generate_from_description(DESCRIBED["tone"][0], bundle=folder / "adapters", num_samples=2).save(
        tmp_path / "a"
    )
    code = (out / "README.md").read_text().split("```python\n")[1].split("```")[0]
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0 and "tensor([[" in ran.stdout, ran.stderr


def test_half_a_character_is_no_obstacle(made, tmp_path):
    options = {"labels": ["no", "yes"], "bundle": made[0] / "adapters", "num_samples": 2}
    found = generate_from_description("Is it \udcff good?", **options)
    assert Adapter.load(found.save(tmp_path / "a")).info["description"] == "Is it ? good?"


def test_labels(made):
    folder, *_ = made
    words, options = DESCRIBED["tone"][0], {"bundle": folder / "adapters", "num_samples": 2}
    plain = generate_from_description(words, **options).adapter
    turned = generate_from_description(words, labels=["Yes", "no"], **options).adapter
    assert turned.classes == ("Yes", "no")
    torch.testing.assert_close(turned.head["weight"], plain.head["weight"][[1, 0]], atol=1e-3, rtol=1e-3)
    new = generate_from_description("How hot is this soup?", labels=["cold", "warm", "hot"], **options)
    assert not new.seen and "knows no such task" in new.notes[0] and "vectors of their names" in new.notes[1]
    assert new.adapter.head["weight"].shape == (3, 16) and new.adapter.info["head_from_names"]


def test_labels_help_to_recognise_a_task(made):
    pipe = load_bundle(made[0] / "adapters")
    vague = "What is it?"
    plain, labelled = (pipe.recognise(vague, labels)[1] for labels in ((), ("no", "yes")))
    torch.testing.assert_close(plain, labelled, atol=1e-4, rtol=1e-3)  # both tasks have these labels
    with pytest.raises(UserError, match="Describe the task"):
        pipe.recognise(" ")
    run = {"num_samples": 2, "num_inference_steps": 4}
    to = DESCRIBED["contrary"][0]
    there, reached = (
        pipe(text, generator=torch.Generator().manual_seed(0), **run, **more)
        for text, more in ((to, {}), (DESCRIBED["tone"][0], {"to": to, "share": 1.0}))
    )
    assert dict(reached.nearest) == pytest.approx(dict(there.nearest), abs=1e-4)
    torch.testing.assert_close(reached.vectors, there.vectors, atol=1e-4, rtol=1e-3)


def test_between_two_descriptions(made):
    folder, *_ = made
    pipe = load_bundle(folder / "adapters")

    def at(share, **more):
        generator = torch.Generator().manual_seed(0)
        return pipe(DESCRIBED["tone"][0], 2, generator, to=DESCRIBED["contrary"][0], share=share, **more)

    ends = at(0.0), at(1.0)
    assert [samples.task.name for samples in ends] == ["tone", "contrary"]
    half = at(0.5).vectors
    assert all(float((half - samples.vectors).norm()) > 0.1 for samples in ends)
    guided = at(0.0, guidance_scale=2.0)
    assert not torch.equal(next(iter(guided.state.values())), next(iter(ends[0].state.values())))


@pytest.mark.parametrize(
    ("description", "more", "why"),
    [
        ("", {}, "Describe the task in a sentence"),
        ("  ", {}, "Describe the task in a sentence"),
        ("word " * 1_001, {}, "5,005 characters"),
        ("How hot is this soup?", {}, "knows no such task .* name its labels"),
        ("How hot?", {"labels": ["hot"]}, "at least two"),
        ("How hot?", {"labels": ["hot", "hot"]}, "twice"),
        ("How hot?", {"num_samples": 0}, "number of samples"),
    ],
)
def test_what_cannot_be_described_is_refused(made, description, more, why):
    with pytest.raises(UserError, match=why):
        generate_from_description(description, bundle=made[0] / "adapters", **{"num_samples": 2, **more})


def test_bundles_of_other_kinds_are_refused(made):
    with pytest.raises(UserError, match="makes heads, not adapters: use it with"):
        generate_from_description("Positive?", bundle=list_bundles()["heads-dual"])
    assert main(["generate", "example:digits", "--bundle", str(made[0] / "adapters"), "--out", "/tmp/none"]) == 2


def test_on_the_command_line(made, tmp_path, capsys):
    folder, *_ = made
    line = ["generate", "--describe", "Is the film any good?", "--bundle", str(folder / "adapters")]
    assert main([*line, "--num-samples", "2", "--out", str(tmp_path / "mine")]) == 0
    said = capsys.readouterr().out
    assert "This is a task that the generator knows, tone" in said and "An adapter for 2 classes" in said
    report = json.loads((tmp_path / "mine" / "report.json").read_text())
    assert report["nearest"][0]["task"] == "tone" and report["seen"] and report["effect_degrees"] > 1
    assert "# tone" in (tmp_path / "mine" / "README.md").read_text()
    assert main([*line, "--out", str(tmp_path / "mine")]) == 2 and "exists already" in capsys.readouterr().err
    assert main([*line, "--names", "a, b", "--out", str(tmp_path / "x")]) == 2
    assert "--names is for heads on images" in capsys.readouterr().err
    assert main(["generate", "--labels", "a, b", "--out", str(tmp_path / "x")]) == 2 and not (tmp_path / "x").exists()


def test_layers_apart_and_a_task_held_out(made, tmp_path):
    folder, _, zoo = made
    for preset in AdaptersConfig.PRESETS:
        train_bundle(zoo, AdaptersConfig.preset(preset).shortened(2), tmp_path / preset, device="cpu")
    config = AdaptersConfig.preset("tiny", layout="layers").shortened(4)
    out = train_bundle(zoo, config, tmp_path / "layers", device="cpu")
    pipe = load_bundle(out)
    assert pipe.weight_space.config.parts == 2 * 2 + 1  # query and value of two layers, and the head
    assert pipe("Is the film any good?", 3).state.keys() == pipe("Is the film any good?", 3).state.keys()
    with pytest.raises(UserError, match="two tasks or more"):
        train_bundle(zoo, AdaptersConfig.preset("tiny", held_out=("tone",)), tmp_path / "x", device="cpu")
    assert not (tmp_path / "x.training").exists()
    with pytest.raises(UserError, match="no task nothing to hold out"):
        train_bundle(zoo, AdaptersConfig.preset("tiny", held_out=("nothing",)), tmp_path / "x", device="cpu")
    card = (folder / "adapters" / "README.md").read_text()
    assert "| tone | accuracy |" in card and "this is retrieval" in card


def test_damaged_adapters_are_refused(made, tmp_path):
    folder, *_ = made
    out = generate_from_description(DESCRIBED["tone"][0], bundle=folder / "adapters", num_samples=2).save(
        tmp_path / "a"
    )
    (out / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        Adapter.load(out)
    (out / "adapter_config.json").unlink()
    with pytest.raises(UserError, match="is no adapter"):
        Adapter.load(out)
