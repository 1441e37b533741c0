"""Refining a language model: what is accepted, kept, resumed, compared and said."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from d2nwg.llm import refine as refining
from d2nwg.llm.architectures import Part, Unit
from d2nwg.llm.chunks import Chunks, joined, load_matrices, save_matrices, split
from d2nwg.llm.delta import apply_delta
from d2nwg.llm.generator import ChunkGenerator
from d2nwg.llm.models import load_language_model
from d2nwg.llm.presets import PRESETS, RefineConfig, smaller
from d2nwg.llm.questions import ask
from d2nwg.llm.refine import refine, save_refined
from d2nwg.llm.report import ONE_MODEL, compare, summary
from d2nwg.llm.score import fit_temperature, score_questions
from d2nwg.llm.search import ARMS, tries
from d2nwg.utils.errors import Cancelled, UserError
from tests.tiny_llm import WORDS, make_tiny_llm

TINY = dict(
    layers=4, candidates=4, criterion="confidence", seed=8, chunk=512, vae_channels=8, unet_channels=(8,), vae_steps=6,
    diffusion_steps=8, sampling_steps=2, checkpoint_every=4,
)  # fmt: skip


def questions(count: int, seed: int):
    """Questions of random words: a random model is right by chance, so changed weights change the score."""
    rng, words = np.random.default_rng(seed), WORDS.split()
    return [
        ask(" ".join(rng.choice(words, 6)) + "?", list(rng.choice(words, 4, replace=False)), int(rng.integers(4)))
        for _ in range(count)
    ]


SELECT, REPORT = questions(40, 1), questions(30, 2)


def config(**changes) -> RefineConfig:
    return RefineConfig.of("tiny", **{**TINY, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = make_tiny_llm(tmp_path_factory.mktemp("tiny") / "tiny")
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(folder).to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    events, stages = [], []
    made = refine(
        folder, SELECT, REPORT, config(), folder=tmp_path_factory.mktemp("work") / "work", on_event=events.append,
        progress=lambda *event: stages.append(event),
    )  # fmt: skip
    return made, events, stages


def one(part: Part) -> Unit:
    return Unit(part.name, 0, "q", (part,))


def test_chunks_lie_along_the_residual_stream(tmp_path):
    rng = torch.Generator().manual_seed(0)
    held = {
        "q": torch.randn(16, 8, generator=rng),
        "down": 3 + torch.randn(8, 21, generator=rng),
        "fused": torch.cat([torch.randn(8, 6, generator=rng), 50 + 9 * torch.randn(8, 6, generator=rng)], 1),
        "norm": 1 + torch.randn(8, generator=rng),
        "of a head": torch.randn(3, generator=rng),
    }
    units = [
        one(Part("q", (16, 8))),
        one(Part("down", (8, 21), turned=True)),
        one(Part("fused", (8, 12), turned=True, cuts=(6, 6))),
        Unit("norms", 0, "norms", (Part("norm", (8,)), Part("of a head", (3,)))),
    ]
    chunks = Chunks(save_matrices(held, tmp_path / "m.safetensors"), units, 8, 8 * 6, 4)
    assert chunks.rows_a_chunk == 8 and chunks.rows_a_unit == [16, 21, 12, 2] and len(chunks) == 2 + 3 + 2 + 1
    for number, unit in enumerate(units):
        read, used = chunks.read(chunks.of_unit(number))
        again = chunks.assemble(number, read)
        tensors = {part.name: held[part.name] for part in unit.parts}
        for name, tensor in tensors.items():
            assert torch.allclose(again[name], tensor, atol=1e-5)
        assert all(torch.equal(value, tensors[name]) for name, value in split(unit, joined(unit, tensors)).items())
        assert int(used.sum()) == sum(map(torch.numel, tensors.values())) and float(read[~used].abs().sum()) == 0
        assert abs(float(read[used].mean())) < 1e-5
        assert float(read[used].std(correction=0)) == pytest.approx(1, abs=1e-5)
    # Rows of a chunk are vectors of the residual stream; matrices that are fused are each standardised by themselves.
    first = chunks.rows(units[1])[0][0]
    assert torch.allclose(first, (held["down"][:, 0] - held["down"].mean()) / held["down"].std(correction=0))
    both, _ = chunks.rows(units[2])
    assert all(abs(float(part.mean())) < 1e-5 for part in both.split(6))


def test_accepts_only_what_is_better(folder, made):
    made, events, stages = made
    lines = [line for line in events if line["arm"] == "refined"]
    assert len(lines) == 4 and [line["layer"] for line in lines] == sorted(line["layer"] for line in lines)
    score = lines[0]["before"]
    for line in lines:
        best = line["candidates"][line["best"]]
        assert line["before"] == pytest.approx(score, abs=1e-6) and len(line["candidates"]) == 4
        assert line["accepted"] == (line["lower"] is not None and line["lower"] > 0)
        assert best["questions"] == 40 or not line["accepted"]
        score = best["score"] if line["accepted"] else line["before"]
        assert line["after"] == score
    assert any(line["accepted"] for line in lines) and not all(line["accepted"] for line in lines)
    assert set(made.tensors) == {line["name"] for line in lines if line["accepted"]}
    # The selection score in the log is that of the model with just these weights.
    own = load_language_model(folder, fresh=True)
    base, temperature = score_questions(own, SELECT), made.report["temperature"]
    assert temperature == pytest.approx(fit_temperature(base), rel=1e-3), "fitted on the base alone"
    assert base.confidence(temperature=temperature) == pytest.approx(lines[0]["before"], abs=1e-6)
    with torch.no_grad():
        for name, weights in made.tensors.items():
            assert weights.dtype == torch.bfloat16
            own.model.get_parameter(name).copy_(weights)
    assert score_questions(own, SELECT).confidence(temperature=temperature) == pytest.approx(score, abs=1e-6)
    assert score > lines[0]["before"]
    right = score_questions(own, REPORT).correct()
    assert [int(value) for value in right] == made.report["right"]["refined"]
    # The noise lies exactly as far away, and has as many tries.
    noise = [line for line in events if line["arm"] == "noise"]
    assert len(noise) == 4
    for a, b in zip(lines[0]["candidates"], noise[0]["candidates"], strict=True):
        assert a["distance"] == pytest.approx(b["distance"], rel=0.02) and a["score"] is not None
    assert {name for name, *_ in stages} >= {"Refining", *ARMS.values(), "Reporting: base"}
    # The others have no more tries, and the same rule.
    for arm in ("rank", "rebuilt"):
        mine = [line for line in events if line["arm"] == arm]
        assert [line["name"] for line in mine] == [line["name"] for line in lines]
        assert all(len(line["candidates"]) == tries(arm, config()) <= 4 for line in mine)
        assert all(line["accepted"] == (line["after"] > line["before"]) for line in mine)
    assert 0 < made.report["tokens"] < made.report["tokens_full"]
    assert list(made.report["rows"]) == ["base", "refined", "noise", "rank", "rebuilt"]
    assert made.report["words"][-1] == ONE_MODEL
    rebuilt = made.report["reconstruction"]  # random weights: half the latents keep half of them
    assert rebuilt["compression"]["latents"] == 2 and 0.3 < rebuilt["error"] < 0.8 and made.report["reuses_activations"]


def test_what_the_other_arms_accepted_is_to_be_had(folder, made, tmp_path):
    made = made[0]
    assert made.noise == "noise" and replace(made, cancelled=True).noise is None and replace(made, log=[]).noise is None
    mine = made.accepted("refined")
    assert mine.keys() == made.tensors.keys() and all(torch.equal(mine[name], made.tensors[name]) for name in mine)
    own = load_language_model(folder, fresh=True)
    noise = made.accepted("noise")
    assert bool(noise) == any(line["accepted"] for line in made.log if line["arm"] == "noise")
    with torch.no_grad():
        for name, weights in noise.items():
            own.model.get_parameter(name).copy_(weights)
    assert [int(value) for value in score_questions(own, REPORT).correct()] == made.report["right"]["noise"]
    with pytest.raises(UserError, match="is damaged"):
        replace(made, folder=tmp_path).accepted("refined")


def test_the_report_set_is_looked_at_once_at_the_end(folder, tmp_path, monkeypatch):
    seen = []
    real = refining.Scorer

    def spy(model, asked, **options):
        seen.append("report" if list(asked) == REPORT else "selection")
        return real(model, asked, **options)

    monkeypatch.setattr(refining, "Scorer", spy)
    refine(folder, SELECT, REPORT, config(layers=1), folder=tmp_path / "work")
    assert seen.count("report") == 1 and seen[-1] == "report"


def test_without_reuse_every_candidate_runs_the_whole_model(folder, made, tmp_path, monkeypatch):
    monkeypatch.setattr(refining, "same_when_reused", lambda model, asked: False)
    monkeypatch.setattr(refining.Scorer, "advance", lambda self, depth: pytest.fail("it must not be asked to"))
    slow = refine(folder, SELECT, REPORT, config(layers=1), folder=tmp_path / "work")
    assert not slow.report["reuses_activations"] and len(slow.log) == 4
    assert slow.log[0]["before"] == made[1][0]["before"] and len(slow.log[0]["candidates"]) == 4


def test_saved_it_gives_the_same_scores_and_the_delta_the_same_bits(folder, made, tmp_path):
    made = made[0]
    out = save_refined(made, tmp_path / "refined", model=folder)
    code = (
        "import sys, torch\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "m = AutoModelForCausalLM.from_pretrained(sys.argv[1]); t = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "torch.save({k: v for k, v in m.state_dict().items()}, sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, str(out), str(tmp_path / "state.pt")], check=True)
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    again = load_language_model(out)
    assert [int(v) for v in score_questions(again, REPORT).correct()] == made.report["right"]["refined"]
    base = load_language_model(folder, fresh=True, dtype="auto")
    apply_delta(out / "delta.safetensors", base.model)
    for name, weights in base.model.state_dict().items():
        assert torch.equal(weights, loaded[name].to(weights.dtype)), name
    assert json.loads((out / "report.json").read_text())["rows"]["refined"]
    assert len((out / "log.jsonl").read_text().splitlines()) == 4 * 4


def test_cancelled_it_keeps_what_was_accepted_and_goes_on(folder, made, tmp_path):
    whole = made[0]
    work = tmp_path / "work"
    seen = []

    def stop(stage, done, total):
        if len(seen) == 3:
            raise Cancelled

    part = refine(folder, SELECT, REPORT, config(), folder=work, progress=stop, on_event=seen.append)
    assert part.cancelled and "rows" not in part.report and part.report["tried"] == 3
    expected = {line["name"] for line in seen if line["accepted"]}
    assert set(part.tensors) == expected and (part.delta is None) == (not expected)
    with pytest.raises(UserError, match="holds a refinement already"):
        refine(folder, SELECT, REPORT, config(), folder=work)
    with pytest.raises(UserError, match="another refinement"):
        refine(folder, SELECT[:-1], REPORT, config(), folder=work, resume=True)
    note = work / "run.json"
    begun = note.read_text()
    note.write_text(begun.replace('"format": 4', '"format": 3'))
    with pytest.raises(UserError, match="another version of this program began"):
        refine(folder, SELECT, REPORT, config(), folder=work, resume=True)
    note.write_text(begun)
    kept = (work / "base.safetensors").read_bytes()
    name = whole.report["matrices"][0]["name"]
    weights = load_matrices(work / "base.safetensors")
    save_matrices({**weights, name: weights[name] + 1}, work / "base.safetensors")
    with pytest.raises(UserError, match="not those that this refinement began with"):
        refine(folder, SELECT, REPORT, config(), folder=work, resume=True)
    (work / "base.safetensors").write_bytes(kept)
    # A kill can leave half a line: it does not count.
    with (work / "log.jsonl").open("a") as log:
        log.write('{"arm": "refined", "numb')
    rest = refine(folder, SELECT, REPORT, config(), folder=work, resume=True)
    assert not rest.cancelled and rest.report["rows"] == whole.report["rows"]
    assert set(rest.tensors) == set(whole.tensors)
    assert all(torch.equal(rest.tensors[name], whole.tensors[name]) for name in rest.tensors)


def test_killed_it_goes_on(folder, made, tmp_path):
    select, report = tmp_path / "select.jsonl", tmp_path / "report.jsonl"
    for path, asked in ((select, SELECT), (report, REPORT)):
        path.write_text(
            "".join(
                json.dumps(
                    {
                        "question": q.contexts[0].removeprefix("Question: ").removesuffix("\nAnswer:"),
                        "choices": [text.strip() for text in q.continuations],
                        "answer": q.answer,
                    }
                )
                + "\n"
                for q in asked
            )
        )
    code = (
        "import sys\nfrom pathlib import Path\nfrom d2nwg.llm.questions import read_questions\n"
        "from d2nwg.llm.presets import RefineConfig\nfrom d2nwg.llm.refine import refine\n"
        f"config = RefineConfig.of('tiny', **{TINY!r})\n"
        "a, b, model, work = sys.argv[1:]\n"
        "refine(model, read_questions(a), read_questions(b), config, folder=work,\n"
        "       on_event=lambda line: print(line['number'], flush=True))"
    )
    work = tmp_path / "work"
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(select), str(report), str(folder), str(work)],
        cwd=root, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert process.stdout.readline()  # one decision is made
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = (work / "log.jsonl").read_text()
    rest = refine(folder, SELECT, REPORT, config(), folder=work, resume=True)
    assert (work / "log.jsonl").read_text().startswith(kept[: kept.rfind("\n") + 1])
    assert rest.report["rows"] == made[0].report["rows"]
    assert set(rest.tensors) == set(made[0].tensors)
    for name, tensor in made[0].tensors.items():  # two processes may round differently
        torch.testing.assert_close(rest.tensors[name], tensor, rtol=1e-4, atol=1e-6)


def test_stopped_in_a_second_pass_it_goes_on(folder, tmp_path):
    twice = config(layers=2, passes=2)
    whole = refine(folder, SELECT, REPORT, twice, folder=tmp_path / "whole")
    for arm in ARMS:
        mine = [line for line in whole.log if line["arm"] == arm]
        assert len(mine) == (4 if any(line["accepted"] for line in mine[:2]) else 2)
        assert [line["name"] for line in mine[2:]] == [line["name"] for line in mine[:2]][: len(mine) - 2]
    long = next(arm for arm in ARMS if sum(line["arm"] == arm for line in whole.log) == 4)
    seen = []

    def stop(line):
        seen.append(line)
        if line["arm"] == long and line["number"] == 2:
            raise Cancelled

    part = refine(folder, SELECT, REPORT, twice, folder=tmp_path / "work", on_event=stop)
    assert part.cancelled and len(part.log) < len(whole.log)
    rest = refine(folder, SELECT, REPORT, twice, folder=tmp_path / "work", resume=True)
    assert rest.report["rows"] == whole.report["rows"] and rest.report["temperature"] == whole.report["temperature"]
    assert [(line["best"], line["accepted"]) for line in rest.log] == [
        (line["best"], line["accepted"]) for line in whole.log
    ]
    assert rest.tensors.keys() == whole.tensors.keys()
    assert all(torch.equal(rest.tensors[name], whole.tensors[name]) for name in whole.tensors)


def test_a_broken_reconstruction_stops_it(folder, tmp_path, monkeypatch):
    def far(generator, unit):
        return {part.name: 30 * torch.randn(part.shape) for part in generator.chunks.units[unit].parts}

    monkeypatch.setattr(ChunkGenerator, "reconstruct", far)
    with pytest.raises(UserError, match="does not give the layers back"):
        refine(folder, SELECT, REPORT, config(), folder=tmp_path / "work")
    assert not (tmp_path / "work" / "log.jsonl").exists()


def test_out_of_memory_offers_a_smaller_preset(folder, tmp_path, monkeypatch):
    def full(self, *args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(ChunkGenerator, "fit", full)
    with pytest.raises(UserError, match=r"Memory ran out with the preset standard: take the preset quick\."):
        refine(folder, SELECT, REPORT, RefineConfig.of("standard", **TINY), folder=tmp_path / "work")
    assert [smaller(name) for name in PRESETS] == ["tiny", "tiny", "quick", "standard"]
    assert RefineConfig.of("paper").chunk == 2_097_152


def test_overlapping_sets_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match="in common"):
        refine(folder, SELECT, [*REPORT, SELECT[3]], config(), folder=tmp_path / "work")
    with pytest.raises(UserError, match="questions to select"):
        refine(folder, [], REPORT, config(), folder=tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_the_comparison_is_paired_and_says_when_it_is_noise():
    rng = np.random.default_rng(0)
    base = rng.random(400) < 0.5
    better = base.copy()
    better[np.flatnonzero(~base)[:40]] = True
    found = compare(base, better)
    assert found["gained"] == 40 and found["lost"] == 0 and found["difference"] == pytest.approx(0.1)
    assert found["interval"][0] < 0.1 < found["interval"][1] and 0.06 < found["interval"][0]
    assert found["mcnemar"] == pytest.approx(2 * 0.5**40)
    made = summary({"base": base, "refined": better, "noise": base})
    assert "more than chance" in made["words"][1] and "is better than Gaussian noise" in made["words"][2]

    mixed = base.copy()
    mixed[:20] = ~mixed[:20]
    made = summary({"base": base, "refined": mixed, "noise": better})
    assert "within noise" in made["words"][1] and "is worse than Gaussian noise" in made["words"][2]
    made = summary({"base": base, "refined": mixed, "noise": base})
    assert "cannot be distinguished from Gaussian noise" in made["words"][2]
    made = summary({"base": base, "refined": better, "noise": base, "rank": better, "rebuilt": better})
    assert "is better than Gaussian noise of the same size (+10.0 points" in made["words"][2]
    assert "distinguished from cutting ranks (+0.0 points" in made["words"][3] and "reconstruction" in made["words"][3]
    assert set(made["refined_versus"]) == {"noise", "rank", "rebuilt"}
    assert "Not one answer changed" in summary({"base": base, "refined": base})["words"][1]
    worse = base.copy()
    worse[np.flatnonzero(base)[:40]] = False
    assert "worse" in summary({"base": base, "refined": worse})["words"][1]
    # A single accuracy: all right on 400 questions is not certainty, whatever the seed.
    rows = summary({"base": np.ones(400, bool), "refined": base})["rows"]
    assert rows["base"]["interval"] == pytest.approx([0.9905, 1], abs=1e-3)
    assert rows["refined"]["interval"][0] < base.mean() < rows["refined"]["interval"][1]
    # Against the exact variance of a paired difference.
    flips = np.zeros(400)
    flips[:20] = np.where(base[:20], -1, 1)
    spread = flips.std() / 20
    low, high = compare(base, mixed)["interval"]
    assert (high - low) / 2 == pytest.approx(1.96 * spread, rel=0.1)


def test_the_command_line(folder, tmp_path, capsys):
    from d2nwg.cli import main

    select, report = tmp_path / "select.jsonl", tmp_path / "report.jsonl"
    rng = np.random.default_rng(3)
    for path, count in ((select, 12), (report, 12)):
        rows = [
            {"question": " ".join(rng.choice(WORDS.split(), 5)), "choices": ["hot", "water", "one"], "answer": i % 3}
            for i in range(count)
        ]
        path.write_text("\n".join(map(json.dumps, rows)))
    assert main(["llm", "spectrum", str(folder), "--mode", "paper", "--out", str(tmp_path / "s.json")]) == 0
    found = json.loads((tmp_path / "s.json").read_text())
    assert len(found["matrices"]) == 21 and sum(row["chosen"] for row in found["matrices"]) == 7
    assert main(["llm", "evaluate", str(folder), str(report), "--out", str(tmp_path / "e.json")]) == 0
    assert "12 questions, acc" in capsys.readouterr().out
    items = json.loads((tmp_path / "e.json").read_text())["sets"][str(report)]["items"]
    assert len(items) == 12 and len(items[0]["likelihoods"]) == 3
    out = tmp_path / "out"
    command = ["llm", "refine", str(folder), "--select", str(select), "--report", str(report), "--preset", "tiny"]
    command += ["--candidates", "2", "--layers", "1", "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert all(f"{name}:" in printed for name in ("base", "refined", "noise", "rank cut", "rebuilt"))
    assert "McNemar" in printed and "perfect generator" in printed
    assert (out / "config.json").exists() and not out.with_name("out.refining").exists()
    assert main(command) == 2 and "is there already" in capsys.readouterr().err
    report.write_text('{"question": "a", "choices": ["b", "c"], "answer": 0}\n{"question": \n')
    assert main(["llm", "evaluate", str(folder), str(report)]) == 2
    assert "Line 2 of report.jsonl" in capsys.readouterr().err
