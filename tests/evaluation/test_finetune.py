"""Heads trained many at once: as a plain loop trains one, whoever else is in the batch, and gone on with exactly."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from d2nwg.evaluation import finetune, finetune_starts
from d2nwg.evaluation.finetune import Items, Standard, train_heads
from d2nwg.evaluation.finetune_report import FineTuneReport, cell, epochs_saved, sentences, table, text_table
from d2nwg.utils.errors import Cancelled, UserError
from d2nwg.weights.networks import build_head, logits, pick
from tests.helpers.reports import make_tuned as report

CLASSES, WIDTH = 3, 5


def draw(count: int, seed: int) -> Items:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    return Items(torch.randn(count, WIDTH, generator=generator) + 2 * torch.eye(CLASSES, WIDTH)[labels], labels)


TRAIN, HELD = draw(23, 0), draw(30, 1)


def heads(probe: str, seeds=(0, 1)):
    return finetune_starts.random_heads(probe, WIDTH, CLASSES, 4, seeds)


def plain(start, lr: float, seed: int, epochs: int, batch: int) -> tuple[torch.nn.Module, list[float]]:
    """What anybody would write."""
    module = build_head(start).requires_grad_(True)
    optimiser, right = torch.optim.Adam(module.parameters(), lr), []
    for epoch in range(1, epochs + 1):
        order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(len(TRAIN.labels)))
        for index in order.split(batch):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(module(TRAIN.features[index]), TRAIN.labels[index]).backward()
            optimiser.step()
        right.append((module(HELD.features).argmax(1) == HELD.labels).float().mean().item())
    return module, right


@pytest.mark.parametrize("probe", ["linear", "mlp"])
def test_as_a_plain_loop(probe):
    starts, lrs, seeds = [heads(probe), heads(probe, (5, 6))], [1e-2, 1e-1], [0, 7]
    done = train_heads(starts, lrs, TRAIN, HELD, epochs=4, seeds=seeds, batch_size=8)
    for member, (start, lr) in enumerate(zip(starts, lrs, strict=True)):
        for place, seed in enumerate(seeds):
            module, right = plain(pick(start, place), lr, seed, 4, 8)
            for name, tensor in module.state_dict().items():
                torch.testing.assert_close(done.state[name][place, member], tensor, rtol=1e-4, atol=1e-5)
            assert [row[member][place] for row in done.accuracy[1:]] == pytest.approx(right)
    assert len(done.accuracy) == 5, "the start is measured too"


def test_an_optimum_stays():
    start = {"weight": 1e4 * torch.eye(CLASSES, WIDTH)[None], "bias": torch.zeros(1, CLASSES)}
    sure = Items(torch.eye(CLASSES, WIDTH).repeat(4, 1), torch.arange(CLASSES).repeat(4))
    done = train_heads([start], [0.1], sure, sure, epochs=3, seeds=[0], batch_size=5)
    assert torch.equal(done.state["weight"][:, 0], start["weight"]) and not done.state["bias"].any()
    assert done.accuracy == [[[1.0]]] * 4


def interrupt_at(epoch: int):
    def progress(stage, done, total):
        if done == epoch:
            raise Cancelled

    return progress


@pytest.mark.parametrize("probe", ["linear", "mlp"])
def test_gone_on_with(probe, tmp_path):
    run = {"epochs": 6, "seeds": [0, 1], "batch_size": 8}
    whole = train_heads([heads(probe)], [0.03], TRAIN, HELD, **run)
    keep = tmp_path / "state.safetensors"
    run |= {"keep": keep, "checkpoints": [1, 3]}
    with pytest.raises(Cancelled):
        train_heads([heads(probe)], [0.03], TRAIN, HELD, **run, progress=interrupt_at(4))
    begun = []
    done = train_heads([heads(probe)], [0.03], TRAIN, HELD, **run, progress=lambda s, done, total: begun.append(done))
    assert begun[0] == 3, "not from the beginning"
    assert done.accuracy == whole.accuracy and done.loss == whole.loss and done.steps == whole.steps
    assert all(torch.equal(done.state[name], tensor) for name, tensor in whole.state.items())
    again = train_heads([heads(probe)], [0.03], TRAIN, HELD, **run)
    assert again.accuracy == whole.accuracy
    keep.write_bytes(keep.read_bytes()[:90])
    with pytest.raises(UserError, match=r"state\.safetensors is damaged"):
        train_heads([heads(probe)], [0.03], TRAIN, HELD, **run)


@pytest.mark.parametrize("probe", ["linear", "mlp"])
def test_units_change_no_logits(probe):
    state, standard = pick(heads(probe), 0), Standard.of(TRAIN.features)
    placed = standard.place(HELD)
    moved = standard.take(state)
    torch.testing.assert_close(logits(moved, placed.features), logits(state, HELD.features))
    for name, tensor in standard.give_back(moved).items():
        torch.testing.assert_close(tensor, state[name])
    assert standard.place(TRAIN).features.square().mean().item() == pytest.approx(1)


def test_the_learning_rate_that_is_best_where_it_is_asked():
    accuracy = {1e-3: [0.1, 0.5, 0.9], 1e-2: [0.1, 0.7, 0.8], 1e-1: [0.1, 0.7, 0.8]}
    loss = {1e-3: 1.0, 1e-2: 2.0, 1e-1: 1.5}

    def train(states, lrs):
        assert len(states) == 3
        made = finetune.Training.begin(states)
        made.accuracy = [[[accuracy[lr][epoch]] * 2 for lr in lrs] for epoch in range(3)]
        made.loss = [[[loss[lr]] * 2 for lr in lrs] for epoch in range(3)]
        return made

    def chosen(checkpoints):
        return finetune.choose_lrs({"a": heads("linear")}, train, checkpoints, tuple(accuracy))["a"]

    assert chosen([0, 2]) == 1e-3
    assert chosen([0, 1]) == 1e-1, "of two that are equal that of the lower loss"
    assert chosen([0, 1, 2]) == 1e-1


def test_validation_images_were_not_shown():
    labels, seen = torch.tensor([0] * 10 + [1] * 10 + [2] * 2 + [3]), torch.zeros(23, dtype=torch.bool)
    seen[:5] = seen[10:19] = True
    part = finetune_starts.validation_part(labels, seen, 0.2, 0)
    assert not (part & seen).any()
    assert [int(part[labels == c].sum()) for c in range(4)] == [2, 1, 1, 0], "one is left to train on"


def test_closed_form_heads_fit_and_their_scale_is_the_likeliest():
    placed = Standard.of(TRAIN.features).place(TRAIN)
    for arm in (finetune_starts.CLASS_MEAN, finetune_starts.RIDGE):
        head = finetune_starts.closed_form(arm, placed, CLASSES, 0)
        assert (logits(head, placed.features).argmax(1) == placed.labels).float().mean() > 0.8
        factor = finetune_starts.likeliest_scale(head, placed)

        def loss(times, head=head):
            said = logits(finetune_starts.scaled(head, times), placed.features)
            return torch.nn.functional.cross_entropy(said, placed.labels)

        assert loss(factor) <= min(loss(factor / 1.3), loss(factor * 1.3))


def test_epochs_saved_in_words():
    said = epochs_saved(report([0.7, 0.8, 0.85, 0.9], [0.1, 0.5, 0.75, 0.8]))
    assert said == (
        "The generated start is right on: untrained 70.0 %, for which random initialisation needs 2 epochs; after 1 "
        "epoch 80.0 %, for which random initialisation needs 3 epochs, 2 more; after 3 epochs 90.0 %, which random "
        "initialisation does not reach within 3 epochs."
    )
    behind = epochs_saved(report([0.1, 0.5, 0.6, 0.7], [0.1, 0.7, 0.75, 0.8]))
    assert "untrained 10.0 %, as much as random" in behind
    assert "after 1 epoch 50.0 %, 20.0 points behind random initialisation" in behind
    assert "after 3 epochs 70.0 %, 10.0 points behind random initialisation" in behind


def test_the_best_other_start_is_named():
    said = sentences(report([0.7, 0.8, 0.85, 0.9], [0.1, 0.5, 0.75, 0.8], [0.75, 0.8, 0.8, 0.85]))[1]
    assert said == (
        "Beside the best of the other starts: untrained it is 5.0 points below ridge on the shown images (75.0 %); "
        "after 3 epochs it is 5.0 points above ridge on the shown images (85.0 %)."
    )


def test_mean_and_deviation_over_seeds():
    made = report([0.7, 0.8, 0.85, 0.9], [0.1, 0.5, 0.75, 0.8])
    found = table(made)[0]["checkpoints"][1]
    assert found["epoch"] == 1 and found["mean"] == pytest.approx(0.8)
    assert found["std"] == pytest.approx(np.std([0.795, 0.805], ddof=1))
    assert cell(found, 2) == "80.0 ± 0.7" and cell(found, 1) == "80.0"
    one = report([0.7, 0.8, 0.85, 0.9], [0.1, 0.5, 0.75, 0.8], seeds=(0,))
    assert table(one)[0]["checkpoints"][1]["std"] == 0
    lines = text_table(made)
    assert all(len(a) == len(b) for a, b in pairwise(lines)) and "80.0 ± 0.7" in lines[1]
    assert FineTuneReport.from_json(made.to_json()) == made
    with pytest.raises(UserError, match="damaged at epochs"):
        FineTuneReport.from_json(made.to_json() | {"epochs": "x"})
