"""Strict reading of frozen dataclasses from JSON: every field there, none unknown, types exact."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from slidetriage.errors import ModelError

T = TypeVar("T")


def read_fields(kind: type[T], value: object, *, where: str) -> T:
    """Build a `kind` (a dataclass) from a JSON object.

    Lists become tuples, objects become nested dataclasses or mappings of scalars. A
    whole number is taken where a float is asked for; nothing else is converted. A field
    with a default may be left out. Raises
    `ModelError` that names the field, as in `card.classes[0].color`.
    """
    if not isinstance(value, dict):
        raise _wrong(where, "a JSON object", value)
    hints = get_type_hints(kind)
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]  # is one
    names = [field.name for field in fields]
    needed = [field.name for field in fields if field.default is dataclasses.MISSING]
    unknown, missing = sorted(set(value) - set(names)), [n for n in needed if n not in value]
    if unknown:
        raise ModelError(
            f"{where}: unknown field {unknown[0]!r}.",
            mend="Remove it, or use the slidetriage version that wrote this card.",
        )
    if missing:
        raise ModelError(f"{where}: field {missing[0]!r} is missing.", mend="Add it to the card.")
    given = [name for name in names if name in value]
    return kind(**{name: _read(hints[name], value[name], f"{where}.{name}") for name in given})


def write_fields(value: object) -> object:
    """Turn a dataclass into what `json.dumps` takes, the inverse of `read_fields`."""
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: write_fields(getattr(value, name)) for name in names}
    if isinstance(value, tuple):
        return [write_fields(item) for item in value]
    if isinstance(value, Mapping):
        return {key: write_fields(item) for key, item in value.items()}
    return value


def _read(hint: Any, value: object, where: str) -> object:
    origin = get_origin(hint)
    if dataclasses.is_dataclass(hint):
        return read_fields(hint, value, where=where)  # type: ignore[arg-type]  # a class, not a value
    if origin is UnionType:  # X | None is the only one that cards have
        kind = next(item for item in get_args(hint) if item is not NoneType)
        return None if value is None else _read(kind, value, where)
    if origin is Literal:
        if not any(value == choice and type(value) is type(choice) for choice in get_args(hint)):
            raise _wrong(where, f"one of {', '.join(map(repr, get_args(hint)))}", value)
        return value
    if origin is tuple:
        return _read_tuple(get_args(hint), value, where)
    if origin is Mapping:
        return _read_scalars(value, where)
    return _read_plain(hint, value, where)


def _read_tuple(items: tuple[Any, ...], value: object, where: str) -> tuple[object, ...]:
    if not isinstance(value, list):
        raise _wrong(where, "a list", value)
    if items[-1] is Ellipsis:
        items = (items[0],) * len(value)
    if len(items) != len(value):
        raise _wrong(where, f"a list of {len(items)}", value)
    pairs = enumerate(zip(items, value, strict=True))
    return tuple(_read(hint, item, f"{where}[{i}]") for i, (hint, item) in pairs)


def _read_scalars(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise _wrong(where, "a JSON object", value)
    for key, item in value.items():
        if not isinstance(item, bool | int | float | str):
            raise _wrong(f"{where}.{key}", "a number, a string, true or false", item)
    return dict(value)


def _read_plain(hint: Any, value: object, where: str) -> object:
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        names = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
        raise _wrong(where, names[hint], value)
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(where, "a finite number", value)
    return value


def _wrong(where: str, wanted: str, value: object) -> ModelError:
    text = repr(value)
    shown = text if len(text) <= 60 else text[:57] + "..."
    return ModelError(f"{where} must be {wanted}, not {shown}.", mend="Correct the card.")
