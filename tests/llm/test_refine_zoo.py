"""Refining with a zoo of fine-tunes: what samples are, what is kept, resumed, compared and said."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from d2nwg.cli import main
from d2nwg.encoders.lora import LoraShape
from d2nwg.llm.adapter_zoo import LlmZooConfig, build_llm_adapters
from d2nwg.llm.architectures import Part, Unit
from d2nwg.llm.delta import apply_delta
from d2nwg.llm.lora import changes as changes_of
from d2nwg.llm.lora import soup
from d2nwg.llm.models import load_language_model
from d2nwg.llm.presets import RefineConfig
from d2nwg.llm.refine import refine, save_refined
from d2nwg.llm.refine_zoo import grouped, refine_from_zoo
from d2nwg.llm.score import fit_temperature, score_questions
from d2nwg.llm.search import ZOO_ARMS
from d2nwg.llm.zoo_generator import ZooChanges, ZooGenerator
from d2nwg.utils.errors import Cancelled, UserError
from d2nwg.weights.finetune import TuneConfig
from d2nwg.weights.model_zoo import ModelZoo
from tests.helpers.llm_zoo import random_questions
from tests.tiny_llm import make_tiny_llm

SHAPE = dict(rank=2, alpha=6)


SELECT, REPORT, TRAIN = random_questions(16, 1), random_questions(20, 2), random_questions(24, 3)
CONFIG = RefineConfig.of("tiny", candidates=4, diffusion_steps=20, checkpoint_every=7, criterion="confidence")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(make_tiny_llm(tmp_path_factory.mktemp("llm") / "tiny", width=16, layers=2))


def build(base: str, out, seeds: int = 2, targets: tuple[str, ...] = ()) -> ModelZoo:
    shape, tune = LoraShape(base, targets=targets, **SHAPE), TuneConfig(epochs=3, batch=6, lr=2e-2, keep=2)
    config = LlmZooConfig(shape, tune, seeds=seeds)
    return build_llm_adapters([TRAIN], config, out, select=SELECT)


@pytest.fixture(scope="module")
def zoo(base, tmp_path_factory):
    return build(base, tmp_path_factory.mktemp("zoo") / "zoo")


@pytest.fixture(scope="module")
def made(base, zoo, tmp_path_factory):
    return refine_from_zoo(base, zoo.path, SELECT, REPORT, CONFIG, folder=tmp_path_factory.mktemp("work") / "work")


def check_singles(line: dict, base: str, zoo: ModelZoo, temperature: float) -> list[float]:
    """The scores of all checkpoints, which are those in the log where they were scored on all questions."""
    scores, scale = [], SHAPE["alpha"] / SHAPE["rank"]
    for number in range(len(zoo)):
        own = load_language_model(base, fresh=True)
        with torch.no_grad():
            for name, change in changes_of(own, zoo.plain_state(number), scale).items():
                own.model.get_parameter(name).add_(change)
        scores.append(score_questions(own, SELECT).confidence(temperature=temperature))
    whole = {k: one["score"] for k, one in enumerate(line["candidates"]) if one["questions"] == len(SELECT)}
    assert line["best"] in whole and line["best"] == max(whole, key=whole.get)
    assert all(one["strength"] == 1 for one in line["candidates"])
    assert whole == pytest.approx({k: scores[k] for k in whole}, abs=1e-6)
    return scores


def altered(zoo: ModelZoo, out, change) -> ModelZoo:
    """A copy of a zoo with every checkpoint's tensors replaced by ``change(number, state)``."""
    shutil.copytree(zoo.path, out)
    for number, record in enumerate(zoo.records):
        save_file(change(number, zoo.state(number)), out / record["file"])
    return ModelZoo(out)


def test_samples_are_combinations_of_the_changes_with_their_mean_and_covariance(base, zoo, tmp_path):
    model, scale = load_language_model(base), SHAPE["alpha"] / SHAPE["rank"]
    held = ZooChanges(zoo, model, scale)
    generator = ZooGenerator(held, CONFIG)
    generator.fit(tmp_path / "work")
    assert [unit.name for unit in held.units] == ["model.layers.0", "model.layers.1"]
    states = [zoo.plain_state(number) for number in range(len(zoo))]
    each = [changes_of(model, state, scale) for state in states]
    mean, count = soup(model, states, scale), len(zoo)
    even = torch.full((count,), 1 / count)
    for number, unit in enumerate(held.units):
        names = [part.name for part in unit.parts]
        assert len(names) == 2 and int(generator.counts[number]) == count - 1
        away = torch.cat([torch.stack([one[name] - mean[name] for one in each]).flatten(1) for name in names], 1)
        gram = sum(held.gram(name) for name in names)
        torch.testing.assert_close(gram.float(), away @ away.T, rtol=1e-3, atol=1e-6)
        # Whitened, the checkpoints have unit covariance; from their coordinates their changes come back.
        points = generator.points[number]
        torch.testing.assert_close(points.T @ points / (count - 1), torch.eye(count - 1), atol=1e-4, rtol=0)
        for name in names:
            torch.testing.assert_close(held.change(name, even), mean[name])
        drawn = torch.stack([generator.sample([number], "a test", i)[0] for i in range(200)])
        torch.testing.assert_close(drawn.sum(1), torch.ones(200))
        made = torch.cat([held.change(name, drawn[0]).flatten() - mean[name].flatten() for name in names])
        rest = made - torch.linalg.lstsq(away.T, made[:, None]).solution[:, 0] @ away
        assert rest.norm() < 1e-3 * made.norm() and made.norm() > 0.1 * away.norm() / count
        # A denoiser that was trained a little draws about the checkpoints' covariance.
        spread = (drawn - 1 / count).square().sum(1).mean() ** 0.5
        assert 0.5 < float(spread) / (1 - 1 / count) ** 0.5 / (count / (count - 1)) ** 0.5 < 1.5
        assert torch.equal(drawn[:2], torch.stack([generator.sample([number], "a test", i)[0] for i in range(2)]))
    assert set(generator.spread()) == {"dimensions", "samples", "nearest"}


def test_of_equal_checkpoints_every_sample_is_that_checkpoint(base, zoo, tmp_path):
    first = zoo.state(0)
    same = altered(zoo, tmp_path / "same", lambda number, state: first)
    model, scale = load_language_model(base), SHAPE["alpha"] / SHAPE["rank"]
    held = ZooChanges(same, model, scale)
    generator = ZooGenerator(held, CONFIG)
    generator.fit(tmp_path / "generator")
    assert not generator.counts.any() and not any(generator.spread().values())
    wanted = changes_of(model, same.plain_state(0), scale)
    for number, unit in enumerate(held.units):
        for part in unit.parts:
            torch.testing.assert_close(held.change(part.name, generator.sample([number], "x", 0)[0]), wanted[part.name])
            assert held.apart(part.name) < 1e-4
    made = refine_from_zoo(base, same.path, SELECT, REPORT, CONFIG, folder=tmp_path / "work")
    assert made.report["accepted"] == 0 and any("the model is that average" in line for line in made.report["words"])
    assert made.report["right"]["refined"] == made.report["right"]["soup"] == made.report["right"]["single"]


def test_the_search_keeps_what_is_better_beside_its_baselines(base, zoo, made):
    report, lines = made.report, {arm: [line for line in made.log if line["arm"] == arm] for arm in ZOO_ARMS}
    assert [len(found) for found in lines.values()] == [1, 1, 2, 1, 2]
    assert [len(found[0]["candidates"]) for found in lines.values()] == [4, 4, 4, 4, 4]
    for found in lines.values():
        score = found[0]["before"]
        for line in found:
            assert line["before"] == pytest.approx(score, abs=1e-6)
            assert line["accepted"] == (line["lower"] is not None and line["lower"] > 0)
            score = line["candidates"][line["best"]]["score"] if line["accepted"] else line["before"]
            assert line["after"] == score >= line["before"]
    assert lines["whole"][0]["accepted"] or any(line["accepted"] for line in lines["refined"])
    assert lines["refined"][0]["before"] == pytest.approx(lines["whole"][0]["after"], abs=1e-5)
    assert [one["strength"] for one in lines["refined"][0]["candidates"]] == [1, 0.5, 0.25, 1]
    assert report["groups"] == [layer["name"] for layer in report["layers"]]
    assert 0 < report["tokens"] < report["tokens_full"] and report["acceptance_level"] == 0.9
    # The best checkpoint is that of the zoo's own selection, and noise begins with it.
    temperature, best = report["temperature"], lines["single"][0]["best"]
    scores = check_singles(lines["single"][0], base, zoo, temperature)
    assert report["zoo"]["best"] == zoo.records[best]["name"]
    assert lines["noised_whole"][0]["before"] == pytest.approx(scores[best], abs=1e-6)
    # The temperature is that of the base, whatever came after it.
    assert temperature == pytest.approx(fit_temperature(score_questions(load_language_model(base), SELECT)), rel=1e-3)
    assert list(report["rows"]) == ["base", "refined", "single", "soup", "noised"]
    assert set(report["refined_versus"]) == {"single", "soup", "noised"}
    said = " ".join(report["words"])
    for words in ("On the report set the base", "the best single checkpoint (", "the checkpoints' average (",
                  "the best checkpoint with noise (", "no checkpoint was trained on"):  # fmt: skip
        assert words in said
    assert report["zoo"]["name"] == "zoo" and len(report["zoo"]["checkpoints"]) == 4
    # What is reported of the average and of the refined model is what they are.
    own = load_language_model(base, fresh=True)
    with torch.no_grad():
        for name, weights in made.tensors.items():
            own.model.get_parameter(name).copy_(weights)
    scores = score_questions(own, SELECT)
    assert scores.confidence(temperature=temperature) == pytest.approx(lines["refined"][-1]["after"], abs=1e-6)
    assert [int(value) for value in score_questions(own, REPORT).correct()] == report["right"]["refined"]
    assert made.noise == "noised"
    with torch.no_grad():
        for name, weights in made.accepted("noised").items():
            own.model.get_parameter(name).copy_(weights)
    assert [int(value) for value in score_questions(own, REPORT).correct()] == report["right"]["noised"]
    mean = soup(own, (zoo.plain_state(number) for number in range(4)), SHAPE["alpha"] / SHAPE["rank"])
    plain = load_language_model(base, fresh=True)
    with torch.no_grad():
        for name, change in mean.items():
            plain.model.get_parameter(name).add_(change)
    before = score_questions(plain, SELECT).confidence(temperature=temperature)
    assert before == pytest.approx(lines["whole"][0]["before"], abs=1e-6)


@pytest.mark.parametrize(("kind", "targets"), [("GPT2", ()), ("Phi3", ("qkv_proj",))])
def test_models_of_other_builds(kind, targets, tmp_path):
    """GPT-2 holds its matrices transposed, Phi-3 query, key and value in one."""
    base = str(make_tiny_llm(tmp_path / "tiny", kind=kind, width=16, layers=2))
    zoo = build(base, tmp_path / "zoo", seeds=1, targets=targets)
    made = refine_from_zoo(base, zoo.path, SELECT, REPORT, CONFIG, folder=tmp_path / "work")
    single = next(line for line in made.log if line["arm"] == "single")
    check_singles(single, base, zoo, made.report["temperature"])
    assert [layer["matrices"] for layer in made.report["layers"]] == [1, 1]


def test_saved_it_loads_in_plain_transformers(base, made, tmp_path):
    out = save_refined(made, tmp_path / "out", model=base)
    code = (
        "import sys, torch\nfrom transformers import AutoModelForCausalLM\n"
        "m = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "torch.save(m(torch.arange(1, 21)[None]).logits.detach(), sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, str(out), str(tmp_path / "logits.pt")], check=True)
    own = load_language_model(base, fresh=True)
    plain = own.model(torch.arange(1, 21)[None]).logits.detach()
    with torch.no_grad():
        for name, weights in made.tensors.items():
            own.model.get_parameter(name).copy_(weights)
        wanted = own.model(torch.arange(1, 21)[None]).logits
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), wanted)
    assert not torch.allclose(wanted, plain, atol=1e-3)
    card = (out / "README.md").read_text()
    assert "zoo of LoRA fine-tunes" in card and "without fine-tuning" not in card
    assert json.loads((out / "report.json").read_text())["zoo"]["name"] == "zoo"
    again = load_language_model(base, fresh=True)
    apply_delta(out / "delta.safetensors", again.model)
    for name, weights in made.tensors.items():
        assert torch.equal(again.model.get_parameter(name), weights)


@pytest.mark.parametrize("after", [0, 1, 2, 4])
def test_interrupted_it_goes_on_to_the_same_model(after, base, zoo, made, tmp_path):
    seen, work = [], tmp_path / "work"

    def stop(stage, done, total):
        if len(seen) == after and stage in (*ZOO_ARMS.values(), "Training the denoiser") and done:
            raise Cancelled

    with pytest.raises(Cancelled):
        refine_from_zoo(base, zoo.path, SELECT, REPORT, CONFIG, folder=work, progress=stop, on_event=seen.append)
    assert len(seen) == after
    again = refine_from_zoo(base, zoo.path, SELECT, REPORT, CONFIG, folder=work, resume=True)
    assert again.report["right"] == made.report["right"] and again.report["words"] == made.report["words"]
    assert all(torch.equal(value, made.tensors[name]) for name, value in again.tensors.items())

    def timeless(log):
        return [{key: value for key, value in line.items() if key not in ("seconds", "tokens")} for line in log]

    assert timeless(again.log) == timeless(made.log)


def test_blocks_are_searched_in_groups_and_again(base, zoo, tmp_path):
    config = replace(CONFIG, layers=1, passes=2)
    seen, work = [], tmp_path / "work"
    whole = refine_from_zoo(base, zoo.path, SELECT, REPORT, config, folder=tmp_path / "whole")
    lines = [line for line in whole.log if line["arm"] == "noised"]
    assert {line["name"] for line in lines} == {"model.layers.0 to model.layers.1"} == set(whole.report["groups"])
    assert any("of 1 group of layers replaced" in line for line in whole.report["words"])
    assert len(lines) == 1 + lines[0]["accepted"] and len(whole.report["layers"]) == 2
    assert [len([line for line in whole.log if line["arm"] == arm]) for arm in ("single", "whole")] == [1, 1]

    def stop(line):
        seen.append(line)
        if len(seen) == len(whole.log) - 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        refine_from_zoo(base, zoo.path, SELECT, REPORT, config, folder=work, on_event=stop)
    again = refine_from_zoo(base, zoo.path, SELECT, REPORT, config, folder=work, resume=True)
    assert again.report["right"] == whole.report["right"]
    assert [line["after"] for line in again.log] == [line["after"] for line in whole.log]


def test_groups_are_of_adjacent_layers():
    layers = [Unit(f"b.{n}", n, "layer", (Part(f"b.{n}.q", (2, 2)), Part(f"b.{n}.v", (2, 2)))) for n in range(7)]
    found = grouped(layers, 3)
    assert [unit.name for unit in found] == ["b.0 to b.2", "b.3 to b.4", "b.5 to b.6"]
    assert [unit.layer for unit in found] == [0, 3, 5] and len(found[0].parts) == 6
    assert [part for unit in found for part in unit.parts] == [part for unit in layers for part in unit.parts]
    assert grouped(layers, 0) == grouped(layers, 7) == grouped(layers, 30) == layers
    quick = RefineConfig.of("quick", zoo=True)
    assert (quick.layers, quick.candidates, quick.criterion) == (6, 4, "confidence")
    assert RefineConfig.of("quick").criterion == "accuracy" and RefineConfig.of("quick", zoo=True, layers=2).layers == 2


def test_a_folder_of_another_run_is_refused(base, zoo, made, tmp_path):
    work = shutil.copytree(made.folder, tmp_path / "work")
    with pytest.raises(UserError, match="holds a refinement already"):
        refine_from_zoo(base, zoo.path, SELECT, REPORT, CONFIG, folder=work)
    other = altered(zoo, tmp_path / "other", lambda number, state: {name: 2 * v for name, v in state.items()})
    with pytest.raises(UserError, match="holds another refinement"):
        refine_from_zoo(base, other.path, SELECT, REPORT, CONFIG, folder=work, resume=True)
    with pytest.raises(UserError, match="holds another refinement"):
        refine(base, SELECT, REPORT, CONFIG, folder=work, resume=True)
    with pytest.raises(UserError, match="share|in common"):
        refine_from_zoo(base, zoo.path, SELECT, SELECT, CONFIG, folder=tmp_path / "new")


def test_zoos_that_do_not_fit_are_refused(base, zoo, tmp_path):
    def refused(path, words, model=base):
        with pytest.raises(UserError, match=words):
            refine_from_zoo(model, path, SELECT, REPORT, CONFIG, folder=tmp_path / "work")
        assert not (tmp_path / "work" / "run.json").exists()

    refused(zoo.path, "weights are others", make_tiny_llm(tmp_path / "other", seed=1, width=16, layers=2))
    refused(tmp_path / "nowhere", "nowhere")
    keys = sorted(zoo.state(0))
    for name, change, words in (
        ("nan", lambda number, state: {**state, keys[0]: state[keys[0]] * torch.nan}, "is damaged at models/"),
        ("rank", lambda number, state: {k: v[:1] if k == keys[0] else v for k, v in state.items()}, "no adapter"),
    ):
        refused(altered(zoo, tmp_path / name, change).path, words)
    info = json.loads((zoo.path / "zoo.json").read_text())
    for name, damage, words in (
        ("one", {"records": info["records"][:1]}, "two at least"),
        ("kind", {"adapters": None}, "is no zoo of adapters of a language model"),
    ):
        shutil.copytree(zoo.path, tmp_path / name)
        (tmp_path / name / "zoo.json").write_text(json.dumps({**info, **damage}))
        refused(tmp_path / name, words)
    shutil.copytree(zoo.path, tmp_path / "cut")
    (tmp_path / "cut" / info["records"][1]["file"]).write_bytes(b"x")
    refused(tmp_path / "cut", "incomplete at models/")
    shorter = altered(zoo, tmp_path / "shorter", lambda number, state: state)
    state = load_file(shorter.path / info["records"][0]["file"])
    half = {name: (v[:1] if "lora_A" in name else v[:, :1]).contiguous() for name, v in state.items()}
    save_file(half, shorter.path / info["records"][0]["file"])
    refused(shorter.path, "different ranks")


def test_on_the_command_line(base, zoo, tmp_path, capsys):
    files = {}
    for name, asked in (("select", SELECT), ("report", REPORT)):
        files[name] = tmp_path / f"{name}.jsonl"
        rows = [{"question": q.contexts[0], "choices": list(q.continuations), "answer": int(q.answer)} for q in asked]
        files[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = ["llm", "refine", base, "--zoo", str(zoo.path), "--select", str(files["select"])]
    line += ["--report", str(files["report"]), "--preset", "tiny", "--candidates", "2", "--device", "cpu"]
    line += ["--out", str(tmp_path / "out")]
    assert main([*line, "--parts", "norms", "--mode", "paper"]) == 2
    assert "leave out --parts, --mode" in capsys.readouterr().err
    assert main([*line, "--layers", "1", "--passes", "2"]) == 0
    printed = capsys.readouterr().out
    for words in ("best checkpoint:", "average:", "checkpoint + noise:", "refined:", "best checkpoint of 4", "McNemar",
                  "one-sided 90 % interval", "model.layers.0 to model.layers.1:"):  # fmt: skip
        assert words in printed
    assert (tmp_path / "out" / "config.json").exists() and not (tmp_path / "out.refining").exists()
