"""Task identity as the condition: the index, training on it, sampling by name, and composed ids."""

import json

import numpy as np
import pytest
import torch

from d2nwg.conditions.task_id import TaskIndex, compose
from d2nwg.encoders.images import load_encoder
from d2nwg.pipelines.heads import WeightGenerationPipeline
from d2nwg.training.run import train_bundle
from d2nwg.utils.errors import UserError
from tests.helpers.training import quick_config


@pytest.fixture(scope="module")
def pipe(tiny_zoo, tmp_path_factory):
    """A bundle told its tasks by name, trained for a few steps."""
    out = tmp_path_factory.mktemp("tasks") / "by-name"
    train_bundle(tiny_zoo, quick_config(condition="task"), out, device="cpu")
    made = WeightGenerationPipeline.from_pretrained(out)
    made.set_progress_bar_config(disable=True)
    return made


def names(*numbers: int) -> list[str]:
    return [f"patterns/pattern-{number:02}" for number in numbers]


def sample(pipe, tasks, shares=None, seed=0):
    return pipe.for_tasks(tasks, shares, 3, torch.Generator().manual_seed(seed), 4)


def test_the_index_gives_a_condition():
    index = TaskIndex(["a/0", "a/1", "b/0"], width=8, latent_size=12)
    condition = index(torch.tensor([[0, 1, -1], [2, 0, 1]]))
    assert condition.dataset.shape == (2, 8) and condition.slots.shape == (2, 3, 8)
    assert condition.used.tolist() == [[True, True, False], [True] * 3]
    assert not condition.slots[0, 2].any() and torch.equal(condition.slots[0, 0], condition.slots[1, 1])
    assert index.numbers(["b/0", "a/1"]).tolist() == [2, 1]
    with pytest.raises(UserError, match="has not seen c/9"):
        index.numbers(["c/9"])


def test_records_of_one_task_are_not_against_each_other():
    """Did a task count against itself, equal records could not be aligned at all: the loss would stay at log 2."""
    index = TaskIndex(["a", "b"], width=4, latent_size=2)
    latents = torch.randn(4, 1, 1, 2)
    classes = torch.tensor([[0], [0], [1], [1]])
    optimiser = torch.optim.Adam(index.parameters(), lr=0.05)
    latents[:2], latents[2:] = latents[:1].clone(), latents[2:3].clone()
    for _ in range(200):
        optimiser.zero_grad()
        loss = index(classes, latents=latents)
        loss.backward()
        optimiser.step()
    assert float(loss) < np.log(2) + 0.05  # two partners share the weight: log 2 is the best there is
    with torch.no_grad():
        assert float(index(torch.tensor([[0], [1]]), latents=latents[[0, 2]])) < 0.1


def test_composing():
    index = TaskIndex(["a", "b"], width=4)
    one, two = index(torch.tensor([[0, -1]])), index(torch.tensor([[1, 0]]))
    mixed = compose([one, two], [0.25, 0.75])
    torch.testing.assert_close(mixed.dataset, 0.25 * one.dataset + 0.75 * two.dataset)
    torch.testing.assert_close(mixed.slots, 0.25 * one.slots + 0.75 * two.slots)
    assert mixed.used.tolist() == [[True, True]]
    same = compose([one, two, two], [1, 1, -1])
    torch.testing.assert_close(same.slots, one.slots)


def test_a_bundle_told_by_name(pipe):
    assert isinstance(pipe.condition_encoder, TaskIndex) and len(pipe.condition_encoder.config.names) == 24
    first = sample(pipe, [names(3, 7, 9)])
    assert first.state["weight"].shape == (3, 3, 48) and len(first.order) == 3
    assert torch.equal(first.state["weight"], sample(pipe, [names(3, 7, 9)]).state["weight"])
    assert not torch.allclose(first.state["weight"], sample(pipe, [names(3, 7, 11)]).state["weight"])


def test_the_order_of_the_names_is_that_of_the_rows(pipe):
    first, other = sample(pipe, [names(3, 7, 9)]), sample(pipe, [names(9, 3, 7)])
    torch.testing.assert_close(other.state["weight"], first.state["weight"][:, [2, 0, 1]], rtol=1e-4, atol=1e-5)


def test_ids_are_composed(pipe):
    one, two = names(1, 2), names(11, 12)
    alone = sample(pipe, [one])
    for tasks, shares in (([one, two], [1, 0]), ([one, two, two], [1, 0.5, -0.5]), ([one, one], None)):
        made = sample(pipe, tasks, shares)
        torch.testing.assert_close(made.state["weight"], alone.state["weight"], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(sample(pipe, [one, two]).state["weight"], alone.state["weight"])


def test_what_it_cannot_do_is_refused(pipe, tiny_bundle):
    with pytest.raises(UserError, match="cannot look at images"):
        pipe([torch.rand(2, 48), torch.rand(2, 48)])
    with pytest.raises(UserError, match="same number of classes"):
        pipe.for_tasks([names(1, 2), names(1, 2, 3)])
    with pytest.raises(UserError, match="has not seen patterns/zebra"):
        pipe.for_tasks([[*names(1), "patterns/zebra"]])
    with pytest.raises(UserError, match="is conditioned on images"):
        WeightGenerationPipeline.from_pretrained(tiny_bundle).for_tasks([names(1, 2)])


def test_bare_pixels_are_an_encoder(image_folder):
    encoder = load_encoder("pixels/28", "cpu")
    features, readable = encoder.encode(sorted(image_folder.glob("*/*.png"))[:3], cache=False)
    assert features.shape == (3, 784) and readable.all() and 0 <= features.min() and features.max() <= 1


def test_the_benchmark_trains_networks_together():
    from benchmarks.tasks import change, fit_networks

    pictures = np.random.default_rng(0).integers(0, 255, (5, 28, 28), np.uint8)
    torch.testing.assert_close(change(pictures, 0, False), torch.from_numpy(pictures / 255).float().flatten(1))
    turned = change(pictures, 90, False).reshape(5, 28, 28).numpy() * 255
    np.testing.assert_allclose(turned, np.rot90(pictures, 1, (1, 2)), atol=0.05)
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(3, (300,), generator=generator)
    x = torch.nn.functional.one_hot(y, 3).float() + 0.3 * torch.randn(300, 3, generator=generator)
    state = fit_networks([x, -x], [y, y], 4, 6, 3, steps=120, seed=0, checkpoints=2)
    assert {name: tuple(t.shape) for name, t in state.items()} == {
        "0.weight": (8, 2, 6, 3),
        "0.bias": (8, 2, 6),
        "2.weight": (8, 2, 3, 6),
        "2.bias": (8, 2, 3),
    }
    from d2nwg.evaluation.accuracy import accuracies

    last = {name: t[:, -1] for name, t in state.items()}
    right = accuracies(last, x, y)
    assert right[:4].min() > 0.9 and accuracies(last, -x, y)[4:].min() > 0.9 and right[4:].max() < 0.6
    assert not torch.equal(last["0.weight"][0], last["0.weight"][1]), "every network draws its own batches"


def test_the_benchmark_runs(tmp_path, monkeypatch, capsys):
    from benchmarks import tasks

    rng = np.random.default_rng(0)
    for name in ("gray-one",):
        y = np.arange(600) % 10
        x = (rng.integers(0, 60, (600, 28, 28)) + 15 * y[:, None, None]).astype(np.uint8)
        np.savez(
            tmp_path / f"{name}.npz",
            x_train=x,
            y_train=y,
            x_test=x[:100],
            y_test=y[:100],
            class_names=np.array(list("0123456789")),
        )
    out = tmp_path / "bundle"
    archives = [str(tmp_path / f"{name}.npz") for name in ("gray-one",)]
    small = ["--out", str(out), "--smoke", "--width", "16", "--hidden", "8"]
    monkeypatch.setattr("sys.argv", ["tasks", *archives, *small])
    tasks.main()
    assert "| 3 unseen, composed id | one turned 22 |" in capsys.readouterr().out
    results = json.loads((out / "tasks.json").read_text())
    assert [len(case) for case in results.values()] == [1, 8, 8]  # the digits are always there
