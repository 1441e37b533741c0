"""Fields of configurations, checked against their types and limits; those from files as well as those from callers."""

from dataclasses import fields
from functools import lru_cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from annotated_types import Ge, Le, MaxLen, MinLen

from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import MANY, MOST_SEED
from d2nwg.utils.text import shown

Count = Annotated[int, Ge(1), Le(MANY)]
Steps = Annotated[int, Ge(0), Le(10**8)]  # of training: years
Width = Annotated[int, Ge(1), Le(2**20)]  # of a layer, in numbers
Widths = Annotated[tuple[Width, ...], MinLen(1), MaxLen(16)]  # of a network's levels
Depth = Annotated[int, Ge(1), Le(1_000)]  # in layers
Seed = Annotated[int, Ge(0), Le(MOST_SEED)]


def check_fields(config: Any, what: str = "setting") -> None:
    """Check every field of a dataclass against its annotation.

    Args:
        what: a field is called in a sentence, before its name.
    Raises:
        UserError: naming the first field that cannot be what it is.
    """
    from pydantic import ValidationError

    for name, (kind, adapter) in _adapters(config.__class__).items():
        value = getattr(config, name)
        try:
            adapter.validate_python(value, strict=True)
        except (ValidationError, RecursionError):
            raise UserError(f"The {what} {name} cannot be {shown(value, 40)}: {expected(kind)}.") from None


def expected(kind: Any) -> str:
    """What a value of an annotation should be, as an imperative."""
    plain, limits = kind, {}
    if get_origin(kind) is Annotated:
        plain, *about = get_args(kind)
        limits = {type(one): getattr(one, type(one).__name__.lower()) for one in about if isinstance(one, (Ge, Le))}
    if get_origin(plain) is Literal:
        return f"choose one of {', '.join(map(str, get_args(plain)))}"
    if get_origin(plain) is tuple:
        return f"give several values, each {expected(get_args(plain)[0]).removeprefix('give ')}"
    noun = {int: "a whole number", float: "a number", bool: "yes or no", str: "a text"}.get(plain, "something else")
    if Ge in limits and Le in limits:
        noun += f" from {limits[Ge]:,} to {limits[Le]:,}"
    return f"give {noun}"


@lru_cache(maxsize=32)
def _adapters(kind: Any) -> dict[str, tuple[Any, Any]]:
    """Field name → its annotation, and what checks values."""
    from pydantic import TypeAdapter

    hints = get_type_hints(kind, include_extras=True)
    return {field.name: (hints[field.name], TypeAdapter(hints[field.name])) for field in fields(kind)}
