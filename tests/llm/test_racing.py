"""Racing: what is dropped, what wins, and that it never changes a score."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from d2nwg.llm.architectures import Part, Unit
from d2nwg.llm.chunks import Stored, save_matrices
from d2nwg.llm.models import load_language_model
from d2nwg.llm.presets import RefineConfig
from d2nwg.llm.racing import ACCEPTED, lower_bound, out_of_reach, places, race, rungs
from d2nwg.llm.score import Scorer, fit_temperature, score_questions, scores_of
from d2nwg.llm.search import STRENGTHS, Log, Search
from tests.llm.test_refine import questions
from tests.tiny_llm import make_tiny_llm

QUESTIONS = 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_llm(tmp_path_factory.mktemp("tiny") / "tiny", width=16, layers=2)


def raced(full: np.ndarray, current: np.ndarray, parts, **how) -> tuple[np.ndarray, int]:
    """A race whose scores (K, 2, Q) are known beforehand."""
    return race(parts, len(full), lambda one, rung: full[one][:, parts[rung]], current, **how)


def test_rungs_are_disjoint_and_grow():
    parts = rungs(QUESTIONS, 0)
    assert np.cumsum([len(part) for part in parts]).tolist() == [40, 80, 160, 280, 400]
    assert sorted(index for part in parts for index in part) == list(range(QUESTIONS))
    assert parts == rungs(QUESTIONS, 0) != rungs(QUESTIONS, 1) and len(rungs(QUESTIONS, 0, False)) == 1
    assert [len(part) for part in rungs(24, 0)] == [10, 7, 7] and [len(part) for part in rungs(3, 0)] == [3]


def test_how_many_may_stay():
    assert [places(6, to_come) for to_come in (4, 3, 2, 1)] == [6, 4, 3, 1]
    assert [places(25, to_come) for to_come in (4, 3, 2, 1)] == [25, 17, 13, 1] and places(1, 4) == 1


def test_what_is_better_on_every_question_survives_and_wins():
    rng = np.random.default_rng(0)
    current = rng.normal(size=(2, QUESTIONS))
    full = current + rng.normal(size=(8, 2, QUESTIONS))
    full[5] = full.max(0) + 0.01
    found, best = raced(full, current, rungs(QUESTIONS, 0))
    assert best == 5 and np.array_equal(found[5], full[5]) and lower_bound(found[5, 0] - current[0]) > 0
    scored = ~np.isnan(found)
    assert np.array_equal(found[scored], full[scored])
    assert scored.mean() < 0.4


def test_what_only_loses_is_dropped_at_once_unless_somebody_has_to_win():
    rng = np.random.default_rng(0)
    current = rng.normal(size=(2, QUESTIONS))
    full = current - 1 + 0.1 * rng.normal(size=(5, 2, QUESTIONS))
    full[:, 0] += 0.01 * np.arange(5)[:, None]
    found, _ = raced(full, current, rungs(QUESTIONS, 0))
    assert (~np.isnan(found[:, 0])).sum(1).tolist() == [40] * 5
    found, best = raced(full, current, rungs(QUESTIONS, 0), any_wins=True)
    assert best == 4 and not np.isnan(found[4]).any() and np.isnan(found[0]).any()


def test_a_race_saves_tokens_and_ends_near_the_best():
    """Of six candidates that differ by chance alone, the hardest to tell apart."""
    rng, shares, near = np.random.default_rng(0), [], []
    for seed in range(200):
        current = np.zeros((2, QUESTIONS))
        full = rng.normal(size=(6, 2, QUESTIONS)) * 1e-3
        found, best = raced(full, current, rungs(QUESTIONS, seed), any_wins=True)
        count = (~np.isnan(found[:, 0])).sum(1)
        shares.append(count.sum() / (6 * QUESTIONS))
        assert sum(count > 80) <= 4 and sum(count > 160) <= 3 and sum(count > 280) == 1
        assert count[best] == QUESTIONS
        behind = full[full[:, 0].mean(1).argmax(), 0] - full[best, 0]
        near.append(behind.mean() <= behind.std(ddof=1) / QUESTIONS**0.5)
    assert np.mean(shares) < 0.5 and np.mean(near) > 0.85


def test_the_tests_keep_their_levels():
    """Of candidates that are no better by construction, and that have everything before them."""
    rng = np.random.default_rng(0)
    passed = np.mean([lower_bound(rng.normal(size=30)) > 0 for _ in range(4000)])
    assert passed == pytest.approx(1 - ACCEPTED, abs=0.02)
    # Who will be above in the end is dropped on the way one time in twenty at most.
    wrong = []
    for _ in range(4000):
        values = rng.normal(size=160) + 0.02
        if values.mean() > 0:
            wrong.append(out_of_reach(values[:20], 160))
    assert 0 < np.mean(wrong) < 0.05
    assert not out_of_reach(np.zeros(20), 160) and not out_of_reach(np.zeros(20), 160, accepted=True)
    assert out_of_reach(np.full(20, -0.1), 160) and lower_bound(np.zeros(20)) == 0 > lower_bound(np.ones(1))


def test_a_part_has_the_scores_of_the_whole_and_runs_alone(folder):
    asked = questions(40, 4)
    own = load_language_model(folder, fresh=True)
    whole = score_questions(own, asked)
    scorer = Scorer(own, asked, parts=rungs(40, 0), batch_tokens=200)
    assert len(scorer.parts) == 4 and len(scorer.batches) > 6
    for number, part in enumerate(scorer.parts):
        before = scorer.tokens
        found = scorer.score(number)
        assert scorer.tokens - before == sum(len(scorer.rows[index].tokens) for index in part)
        for index, values in zip(part, found.choices, strict=True):
            np.testing.assert_allclose(values, whole.choices[index], atol=1e-5)
        assert found.answers.tolist() == [asked[index].answer for index in part]
    assert scorer.tokens == scorer.pass_tokens
    # Kept activations too: half the blocks of one part are run once, then only those above.
    share = sum(len(scorer.rows[index].tokens) for index in scorer.parts[1]) / 2
    scorer.advance(1, 1)
    assert scorer.tokens == scorer.pass_tokens + share
    for values, index in zip(scorer.score(1).choices, scorer.parts[1], strict=True):
        np.testing.assert_allclose(values, whole.choices[index], atol=1e-5)
    assert scorer.tokens == scorer.pass_tokens + 2 * share
    for mine, theirs in zip(scorer.score().choices, whole.choices, strict=True):  # parts at different depths
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert scorer.tokens == 2 * scorer.pass_tokens + share


def search(folder, work, asked, propose, **changes):
    """A search through two matrices, and its log."""
    own = load_language_model(folder, fresh=True)
    config = RefineConfig.of("tiny", candidates=6, criterion="confidence", **changes)
    names = [f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)]
    units = [
        Unit(name, n, "q", (Part(name, tuple(own.model.get_parameter(name).shape)),)) for n, name in enumerate(names)
    ]
    work.mkdir()
    stored = Stored(
        save_matrices({name: own.model.get_parameter(name) for name in names}, work / "m.safetensors"), units
    )
    scorer = Scorer(own, asked, parts=rungs(len(asked), config.seed, config.racing))
    log = Log(work / "log.jsonl")
    Search("refined", scorer, stored, config, work, log).run(propose, lambda *_: None, lambda line: None)
    scorer.close()
    return log.lines


def noisy(number, candidate, now):
    draw = torch.Generator().manual_seed(10 * number + candidate)
    return now + 0.5 * torch.randn(now.shape, generator=draw) * now.std()


def test_with_all_rungs_the_scores_are_those_without_racing(folder, tmp_path, monkeypatch):
    asked = questions(64, 5)
    plain = search(folder, tmp_path / "plain", asked, noisy, racing=False)
    saving = search(folder, tmp_path / "racing", asked, noisy)
    monkeypatch.setattr("d2nwg.llm.racing.out_of_reach", lambda *_, **__: False)
    monkeypatch.setattr("d2nwg.llm.racing.places", lambda count, _: count)
    raced = search(folder, tmp_path / "all", asked, noisy)
    for one, other in zip(plain, raced, strict=True):
        assert one["best"] == other["best"] and one["accepted"] == other["accepted"]
        for a, b in zip(one["candidates"], other["candidates"], strict=True):
            assert a["questions"] == b["questions"] == 64 and a["strength"] == b["strength"]
            assert a["score"] == pytest.approx(b["score"], abs=1e-6)
    assert [one["strength"] for one in plain[0]["candidates"]] == [*STRENGTHS, *STRENGTHS]
    assert plain[0]["tokens"] == raced[0]["tokens"] > saving[0]["tokens"]
    counts = [one["questions"] for one in saving[0]["candidates"]]
    assert min(counts) < 64 and set(counts) <= {13, 26, 45, 64}
    for one, other in zip(plain[0]["candidates"], saving[0]["candidates"], strict=True):
        if other["questions"] == 64:
            assert other["score"] == pytest.approx(one["score"], abs=1e-6)
    far, half = (plain[0]["candidates"][k]["distance"] for k in (0, 1))
    assert half == pytest.approx(far / 2, rel=0.2)  # two draws of noise


def test_equal_candidates_are_never_accepted(folder, tmp_path):
    for criterion in ("accuracy", "confidence"):
        lines = search(folder, tmp_path / criterion, questions(40, 6), lambda number, candidate, now: now)
        assert len(lines) == 2 and not any(line["accepted"] for line in lines)
        assert all(one["score"] == line["before"] for line in lines for one in line["candidates"])


def test_a_second_pass_begins_again_with_fresh_candidates_and_a_fruitless_one_is_the_last(folder, tmp_path):
    asked, seen = questions(48, 7), []

    def propose(number, candidate, now):
        seen.append((number, candidate, now.clone()))
        return noisy(number, candidate, now)

    lines = search(folder, tmp_path / "two", asked, propose, passes=2)
    assert any(line["accepted"] for line in lines[:2]), "another seed of the questions"
    assert [line["number"] for line in lines] == [0, 1, 2, 3] and lines[0]["name"] == lines[2]["name"]
    for line, after in pairwise(lines):
        assert after["before"] == pytest.approx(line["after"], abs=1e-6)
    assert {candidate for number, candidate, _ in seen} == set(range(12))
    first = next(line["number"] for line in lines if line["accepted"])
    starts = {candidate: now for number, candidate, now in seen if number == first}
    assert not torch.equal(starts[0], starts[6]), "the second pass begins with what the first accepted"
    seen.clear()
    lines = search(folder, tmp_path / "none", asked, lambda number, candidate, now: now, passes=3)
    assert len(lines) == 2


def test_the_temperature_makes_the_right_choices_most_probable():
    rng = np.random.default_rng(0)
    asked = questions(300, 8)
    logits = rng.normal(size=(300, 4))
    sure = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    answers = np.array([rng.choice(4, p=row) for row in sure])
    true = scores_of(asked, list(logits))
    true = type(true)(true.choices, true.lengths, answers)
    sharp = type(true)(tuple(7 * values for values in logits), true.lengths, answers)
    assert fit_temperature(true) == pytest.approx(1, abs=0.2)
    assert fit_temperature(sharp) == pytest.approx(7 * fit_temperature(true), rel=0.01)
    temperature = fit_temperature(sharp)
    each = sharp.log_probability(temperature=temperature)
    assert each.shape == (300,) and each.mean() == sharp.confidence(temperature=temperature)
    np.testing.assert_allclose(each, true.log_probability(temperature=temperature / 7))
    assert sharp.confidence() < -np.log(4) < sharp.confidence(temperature=temperature), "raw sums are over-confident"
    for other in (temperature / 1.5, 1.5 * temperature):
        assert sharp.confidence(temperature=other) < each.mean()
