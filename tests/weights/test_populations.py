"""Small networks, and training many of them at once."""

import pytest
import torch

from d2nwg.utils.errors import UserError
from d2nwg.weights.networks import pick
from d2nwg.weights.populations import accuracy_of, as_input, logits_of, stack_states, train_networks
from d2nwg.weights.small_networks import NETWORKS, initial_state, last_layer, small_network


def _problem(many: int = 1, count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of three classes that differ in brightness."""
    labels = torch.arange(count) % 3
    noise = torch.randint(0, 60, (many, count, 1, 20, 20), generator=torch.Generator().manual_seed(0))
    return (noise + 90 * labels[:, None, None, None]).to(torch.uint8), labels.expand(many, -1)


def _starts(name: str, many: int) -> dict[str, torch.Tensor]:
    return stack_states([initial_state(name, 1, 3, 20, seed) for seed in range(many)])


def test_the_zoo_papers_network_has_its_number_of_weights():
    for channels, count in ((1, 2464), (3, 2864)):
        module = NETWORKS["cnn"].build(channels, 10, 28)
        assert sum(weight.numel() for weight in module.parameters()) == count


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (1, 21)])
def test_every_network_takes_images_of_its_size_and_ends_in_its_head(name, channels, size):
    module = NETWORKS[name].build(channels, 7, size).eval()
    assert module(torch.zeros(2, channels, size, size)).shape == (2, 7)
    head = dict(module.named_modules())[last_layer(name)]
    assert isinstance(head, torch.nn.Linear) and head.out_features == 7
    with pytest.raises(UserError, match="pixels a side"):
        NETWORKS[name].build(channels, 7, NETWORKS[name].smallest - 1)
    with pytest.raises(UserError, match="one or three channels"):
        NETWORKS[name].build(2, 7, size)


def test_initial_weights_are_those_of_the_seed_and_leave_the_random_state_alone():
    before = torch.random.get_rng_state()
    first, again, other = (initial_state("resnet", 1, 3, 20, seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])
    with pytest.raises(UserError, match="no small network"):
        small_network("vgg")


@pytest.mark.parametrize("name", ["cnn", "resnet"])
@pytest.mark.parametrize("stacked", [False, True])
def test_a_seed_gives_the_same_network_whatever_the_number_of_networks(name, stacked):
    (images, labels), start = _problem(), _starts(name, 3)
    module = NETWORKS[name].build(1, 3, 20).double()
    start = {key: tensor.double() if tensor.is_floating_point() else tensor for key, tensor in start.items()}
    options = {"steps": 5, "batch_size": 16, "lr": 1e-3, "stacked": stacked}
    images = as_input(images).double()
    together = train_networks(module, start, images, labels, seeds=[4, 5, 6], **options)
    for number in range(3):
        alone = train_networks(
            module, pick(start, slice(number, number + 1)), images, labels, seeds=[4 + number], **options
        )
        for key, tensor in alone.items():
            assert torch.allclose(tensor[0], together[key][number], rtol=1e-9, atol=1e-12), key
            assert stacked or torch.equal(tensor[0], together[key][number])


@pytest.mark.parametrize("name", ["cnn", "resnet"])
@pytest.mark.parametrize(("optimiser", "decay"), [("adam", 0.0), ("adam", 0.1), ("adamw", 0.1)])
def test_all_in_one_batch_is_the_same_training_as_a_loop(name, optimiser, decay):
    images, labels = _problem(many=2)
    images = as_input(images).double()
    start = {k: t.double() if t.is_floating_point() else t for k, t in _starts(name, 2).items()}
    module = NETWORKS[name].build(1, 3, 20).double()
    loop, batch = (
        train_networks(
            module, start, images, labels, steps=6, batch_size=8, lr=[1e-3, 3e-3], optimiser=optimiser,
            weight_decay=decay, seeds=[0, 1], stacked=stacked,
        )
        for stacked in (False, True)
    )  # fmt: skip
    assert list(loop) == list(batch) == list(start)
    for key in start:
        assert loop[key].dtype == batch[key].dtype == start[key].dtype
        assert torch.allclose(loop[key], batch[key], rtol=1e-6, atol=1e-9), key
        assert not torch.equal(loop[key], start[key])
        assert loop[key][0].is_contiguous() and batch[key][0].is_contiguous()  # as files need them


@pytest.mark.parametrize("stacked", [False, True])
def test_training_learns_reports_and_calls_back_at_the_steps_asked_for(stacked):
    (images, labels), start = _problem(), _starts("mlp", 2)
    module, seen, said = NETWORKS["mlp"].build(1, 3, 20), {}, []
    trained = train_networks(
        module,
        start,
        images,
        labels,
        steps=60,
        batch_size=16,
        lr=3e-3,
        seeds=[0, 1],
        at=[20, 60],
        on_step=lambda step, states: seen.update({step: states}),
        progress=lambda stage, done, total: said.append((done, total)),
        stacked=stacked,
    )
    assert accuracy_of(module, start, images, labels).max() < 0.8
    assert accuracy_of(module, trained, images, labels).min() > 0.9
    assert list(seen) == [20, 60] and torch.equal(seen[60]["head.weight"], trained["head.weight"])
    assert not torch.equal(seen[20]["head.weight"], trained["head.weight"])
    assert said[-1] == (120, 120) and sorted(said) == said


def test_a_network_with_fewer_images_trains_on_those_alone():
    (images, labels), start = _problem(), _starts("mlp", 2)
    module = NETWORKS["mlp"].build(1, 3, 20)
    both = torch.cat([images, images]), torch.cat([labels, labels])
    both[0][1, 10:], both[1][1, 10:] = 7, 2  # are not looked at
    options = {"steps": 5, "batch_size": 16, "lr": 1e-3}
    for stacked in (False, True):
        padded = train_networks(module, start, *both, seeds=[0, 1], counts=[40, 10], stacked=stacked, **options)
        alone = train_networks(
            module, pick(start, slice(1, 2)), images[:, :10], labels[:, :10], seeds=[1], stacked=stacked, **options
        )
        for key, tensor in alone.items():
            torch.testing.assert_close(tensor[0], padded[key][1])


def test_logits_are_those_of_each_network_in_evaluation_mode():
    (images, labels), states = _problem(many=2), _starts("resnet", 2)
    module = NETWORKS["resnet"].build(1, 3, 20)
    found = logits_of(module, states, images)
    for number in range(2):
        module.load_state_dict(pick(states, number))
        expected = module.eval()(as_input(images[number]))
        assert torch.allclose(found[number], expected, atol=1e-6)
    right = (found.argmax(-1) == labels).float().mean(1)
    assert torch.equal(accuracy_of(module, states, images, labels), right)


def test_a_cancelled_training_ends():
    (images, labels), start = _problem(), _starts("mlp", 2)

    def cancel(stage, done, total):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        train_networks(
            NETWORKS["mlp"].build(1, 3, 20), start, images, labels, steps=10**6, batch_size=8, lr=1e-3, seeds=[0, 1],
            progress=cancel,
        )  # fmt: skip
