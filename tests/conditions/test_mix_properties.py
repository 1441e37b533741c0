"""Mixes in words: whatever is written is read as it stands, or refused in one sentence."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from d2nwg.conditions.task_names import name_classes, read_mix
from d2nwg.utils.errors import UserError

CLASSES = ("cat", "dog")
TASKS = {"birds": CLASSES, "tools": CLASSES[::-1], "two words": ("Cat", "DOG"), "a+b": CLASSES, "ünï": CLASSES}
NAMES = st.lists(st.sampled_from(sorted(TASKS)), min_size=1, max_size=5, unique=True)
SHARES = st.floats(-100, 100).map(lambda share: round(share, 4))


def written(share: float) -> str:
    return f"{share:.4f}"


@given(NAMES, st.data())
def test_shares_are_what_is_written(names, data):
    shares = data.draw(st.lists(SHARES, min_size=len(names), max_size=len(names)))
    between = data.draw(st.sampled_from([" ", "*", " * ", "  "]))
    text = " + ".join(written(share) + between + name for share, name in zip(shares, names, strict=True))
    assert read_mix(text, TASKS) == pytest.approx(dict(zip(names, shares, strict=True)))
    assert list(read_mix(text, TASKS)) == names


@given(NAMES)
def test_names_alone_share_equally(names):
    mix = read_mix(" + ".join(names), TASKS)
    assert list(mix) == names and math.fsum(mix.values()) == pytest.approx(1)
    assert len(set(mix.values())) == 1


@given(NAMES, st.data())
def test_the_order_of_the_tasks_does_not_matter(names, data):
    parts = [f"{written(data.draw(SHARES))} {name}" for name in names]
    moved = data.draw(st.permutations(parts))
    assert read_mix(" + ".join(parts), TASKS) == read_mix(" + ".join(moved), TASKS)


@given(st.sampled_from(sorted(TASKS)), st.lists(SHARES, min_size=1, max_size=4))
def test_a_task_named_twice_has_the_sum_of_its_shares(name, shares):
    text = " + ".join(f"{written(share)} {name}" for share in shares)
    assert read_mix(text, TASKS) == {name: pytest.approx(sum(shares), abs=1e-9)}


PART = st.tuples(
    st.sampled_from(
        ["", "0.5 ", "-1 * ", ".5*", "+2. ", "٣ ", "9" * 400 + " ", "1e3 ", "nan ", "- ", "\n", "0.5", "\0"]
    ),
    st.sampled_from([*TASKS, *TASKS, "gone", "", "0.5"]) | st.text(max_size=3),
).map("".join)


@settings(max_examples=200)
@example("9" * 400 + " birds")
@given(st.lists(PART, max_size=3).map(" + ".join))
def test_any_text_is_a_mix_or_refused_in_a_sentence(text):
    try:
        mix = read_mix(text, TASKS)
    except UserError as refusal:
        assert str(refusal).endswith(".") and "\n" not in str(refusal)
        return
    assert mix and set(mix) <= set(TASKS) and all(math.isfinite(share) for share in mix.values())


@given(NAMES, st.permutations(CLASSES))
def test_classes_of_each_task_stand_in_the_order_asked_for(names, order):
    known, shares = name_classes(TASKS, " + ".join(names), order)
    assert len(known) == len(shares) == len(names)
    for name, classes in zip(names, known, strict=True):
        assert [label.lower() for label in classes] == [f"{name}/{label}" for label in order]
        assert {label.partition("/")[2] for label in classes} == set(TASKS[name])
