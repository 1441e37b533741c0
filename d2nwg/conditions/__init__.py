"""What weights are generated for, encoded: each conditioner is an entry here and a file."""

from pkgutil import resolve_name
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from d2nwg.conditions.base import Conditioner

# id → where the `Conditioner` is; imported when it is used.
CONDITIONERS = {
    "dataset": "d2nwg.conditions.dataset:DatasetEncoder",
    "task": "d2nwg.conditions.task_id:TaskIndex",
    "none": "d2nwg.conditions.nothing:NoCondition",
}


def get_conditioner(name: str) -> "type[Conditioner]":
    """The `d2nwg.conditions.base.Conditioner` of an id."""
    return resolve_name(CONDITIONERS[name])
