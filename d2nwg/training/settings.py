"""A configuration's fields as text: what they mean, and how they are read. The command line and the Train tab share
this."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Literal, TypeVar, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from d2nwg.training.config_base import Config
from d2nwg.utils.errors import UserError
from d2nwg.utils.text import shown

C = TypeVar("C", bound=Config)


def meanings(config: type[Config]) -> dict[str, str]:
    """What each field means."""
    return {field.name: field.metadata["help"] for field in fields(config)}


def choices(config: type[Config]) -> dict[str, tuple[str, ...]]:
    """What each field can be, of those that are one of a few names."""
    found, types = {}, get_type_hints(config)
    for field in fields(config):
        if get_origin(types[field.name]) is Literal:
            found[field.name] = get_args(types[field.name])
        elif listed := field.metadata["choices"]:
            found[field.name] = listed()
    return found


def split_setting(text: str) -> tuple[str, str]:
    """``"vae_steps=1000"`` → the two sides.

    Raises:
        UserError: it is not of that form.
    """
    name, sign, value = text.partition("=")
    if not sign:
        raise UserError(f"{text!r} is no setting: write FIELD=VALUE, such as vae_steps=1000.")
    return name.strip().replace("-", "_"), value.strip()


def changed(config: C, values: Mapping[str, str]) -> C:
    """The configuration with some fields given as text: ``64, 128`` for several values, ``yes`` or ``no``.

    Raises:
        UserError: a field is not known, or its value cannot be one.
    """
    types, listed, new = get_type_hints(type(config), include_extras=True), choices(type(config)), {}
    known = [field.name for field in fields(config)]
    defaults = {field.name: field.default for field in fields(config)}
    for name, text in values.items():
        if name not in known:
            raise UserError(f"There is no setting {shown(name)}: choose among {', '.join(known)}.")
        plain = str(text).strip()
        value: str | list[str] = plain
        if isinstance(getattr(config, name), tuple):
            value = [part.strip() for part in plain.strip("()[] ").split(",") if part.strip()]
        if name in listed and value not in listed[name]:
            raise UserError(f"{shown(text)!r} cannot be the {name}: choose one of {', '.join(listed[name])}.")
        try:
            new[name] = TypeAdapter(types[name]).validate_python(value)
            if new[name] == () and defaults[name]:
                raise ValueError("several values are needed")
        except (ValidationError, ValueError):
            example = as_text(getattr(config, name))
            raise UserError(f"{shown(text)!r} cannot be the {name}: write for instance {example}.") from None
    return replace(config, **new)


def as_text(value) -> str:
    """A field's value as `changed` reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
