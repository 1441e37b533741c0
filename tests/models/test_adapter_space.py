"""Adapters as coordinates: nothing is lost of what the zoo spans, padding counts for nothing, layers are apart."""

import pytest
import torch

from d2nwg.models.adapter_space import AdapterSpace, layers_of
from d2nwg.utils.errors import UserError

TASKS = [
    {"name": "two", "descriptions": ["a", "b"], "classes": ["x", "y"], "metric": "accuracy", "pairs": False},
    {"name": "four", "descriptions": ["c"], "classes": list("wxyz"), "metric": "accuracy", "pairs": False},
    {"name": "value", "descriptions": ["d"], "classes": [], "metric": "pearson", "pairs": True},
]
TENSORS = [[f"layer.{n}.query.lora_{k}.weight", [2, 6] if k == "A" else [6, 2]] for n in range(2) for k in "AB"]
ROWS = (2, 4, 1)


def adapter(task, seed):
    generator = torch.Generator().manual_seed(seed)
    sizes = {name: size for name, size in TENSORS}
    sizes |= {"head.weight": (ROWS[task], 6), "head.bias": (ROWS[task],)}
    return {name: torch.randn(*size, generator=generator) + 3 for name, size in sizes.items()}


def space(parts=1, coordinates=10):
    made = AdapterSpace(
        shape={}, encoder_key="", tensors=TENSORS, num_features=6, tasks=TASKS, parts=parts, coordinates=coordinates
    )
    members = [(adapter(n % 3, n), n % 3) for n in range(9)]
    return made, members, made.fit(members)


@pytest.mark.parametrize("parts", [1, 3])
def test_there_and_back(parts):
    made, members, vectors = space(parts)
    assert vectors.shape == (9, parts * 10)
    for (state, task), vector in zip(members, vectors, strict=True):
        back = made.to_states(vector[None], ROWS[task])
        assert back.keys() == state.keys()
        for name, tensor in state.items():
            torch.testing.assert_close(back[name][0], tensor, atol=1e-3, rtol=1e-3)
    assert torch.allclose(made.to_vectors(members), vectors, atol=1e-4)


def test_fewer_coordinates_keep_most_of_the_variance():
    made, members, vectors = space(coordinates=4)
    lost = whole = 0.0
    for (state, task), vector in zip(members, vectors, strict=True):
        back = made.to_states(vector[None], ROWS[task])
        lost += sum(float((back[name][0] - state[name]).square().sum()) for name in state)
        whole += sum(float((tensor - 3).square().sum()) for tensor in state.values())
    assert 0.1 < lost / whole < 0.7
    torch.testing.assert_close(vectors.square().mean(0), torch.ones(4), atol=1e-3, rtol=1e-3)


def test_the_padding_of_a_head_counts_for_nothing():
    made, *_ = space()
    mask = made.mask(torch.tensor([0, 2]))
    assert mask.sum(1).tolist() == [48 + 2 * 7, 48 + 7] and made.size == 48 + 4 * 7
    assert made.mean[~made.mask(torch.tensor([1]))[0]].abs().sum() == 0  # every number is used by the largest task


def test_layers_and_descriptions():
    assert [len(layer) for layer in layers_of([name for name, _ in TENSORS])] == [2, 2]
    with pytest.raises(ValueError, match="4 pieces for 2 layers"):
        space(parts=4)
    made, *_ = space()
    assert made.description_tasks.tolist() == [0, 0, 1, 2]
    made.texts = torch.nn.Parameter(torch.eye(4), requires_grad=False)
    near = made.nearest(torch.tensor([0.1, 0.9, 0.0, 0.3]), most=2)
    assert [n for n, _ in near] == [0, 2] and near[0][1] == pytest.approx(0.9)


def test_a_task_is_recognised_by_its_words_and_its_labels():
    made, *_ = space()
    made.texts = torch.nn.Parameter(torch.nn.functional.normalize(torch.eye(4) + 0.3, dim=1), requires_grad=False)
    for number in range(4):  # known words are taken for themselves
        likely = made.recognise(made.texts[number])
        assert likely.argmax() == number and likely.sum() == pytest.approx(1) and likely[number] > 0.9
    between = torch.tensor([0.5, 0.0, 0.55, 0.5])
    assert made.of_tasks(made.recognise(between)).argmax() == 1
    agree = torch.tensor([0.2, 0.1, 0.0])
    two, four = (made.of_tasks(made.recognise(between, agree, count)) for count in (2, 4))
    assert two[0] == pytest.approx(1) and four[1] == pytest.approx(1)  # only these have so many rows
    seven = made.of_tasks(made.recognise(between, torch.tensor([0.9, 0.1, 0.0]), 7))  # none has: the names decide
    assert seven.argmax() == 0 and seven.sum() == pytest.approx(1)
    near = made.nearest(between, likely=made.recognise(between, agree, 2))
    assert near[0][0] == 0 and near[0][1] < near[1][1]  # cosines stay those of the descriptions


def test_numbers_that_overflow_are_refused():
    made, members, _ = space()
    members[0][0]["head.bias"][0] = 3e38
    members[1][0]["head.bias"][0] = -3e38
    with pytest.raises(UserError, match="too large to learn from"):
        made.fit(members)
