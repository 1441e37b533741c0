"""Fields of configurations against their annotations."""

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Le

from d2nwg.utils.fields import Count, Widths, check_fields
from tests.helpers.refusals import refusal


@dataclass
class Example:
    """One field of each sort."""

    count: Count = 1
    share: Annotated[float, Ge(0), Le(1)] = 0.5
    kind: Literal["a", "b"] = "a"
    widths: Widths = (8, 16)
    on: bool = True


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("count", 0, "count cannot be 0: give a whole number from 1 to 1,000,000,000."),
        ("count", 1.0, "count cannot be 1.0: give a whole number"),
        ("count", True, "count cannot be True"),
        ("count", "1", "count cannot be 1: give"),
        ("share", float("nan"), "share cannot be nan: give a number from 0 to 1."),
        ("share", float("inf"), "share cannot be inf"),
        ("kind", "c\x1b", r"kind cannot be c\x1b: choose one of a, b."),
        ("widths", (), "widths cannot be (): give several values, each a whole number from 1 to 1,048,576."),
        ("widths", (8, 0), "widths cannot be (8, 0)"),
        ("widths", (1,) * 17, "widths cannot be"),
        ("on", 1, "on cannot be 1: give yes or no."),
    ],
)
def test_a_value_that_cannot_be_one(field, value, words):
    assert f"The setting {words}" in refusal(check_fields, Example(**{field: value}))


def test_values_that_can():
    check_fields(Example())
    check_fields(Example(count=10**9, share=1, kind="b", widths=(1,) * 16, on=False))
