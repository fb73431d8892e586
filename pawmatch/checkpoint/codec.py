"""Frozen dataclasses as JSON and back, checked by their type annotations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pawmatch.checkpoint.values import lacking, unknown_key, wrong
from pawmatch.errors import BadOption, NotACheckpoint

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
REASONS = {
    "finite_number": "must be a finite number",
    "float_type": "must be a finite number",
    "int_type": "must be a whole number",
    "string_type": "must be a text",
    "tuple_type": "must be a list",
    "dict_type": "must be an object",
    "dataclass_type": "must be an object",
}

T = TypeVar("T")


def encode(value: Any) -> Any:
    """A dataclass as JSON values: its fields by their names, tuples as lists."""
    kind: Any = type(value)
    return _adapter(kind).dump_python((value,), mode="json")[0]


def decode(kind: type[T], values: Any, where: str = "") -> T:
    """The dataclass `kind` from JSON values, in which every field must be given.

    `where` is the key of the values in config.json. Raises NotACheckpoint, naming the key, for one too many
    or too few and for a value of another type; a float must be finite.
    """
    hashable: Any = kind  # as every class is, which mypy does not see of a type[T]
    try:
        # As JSON text, since strict checks take a list for a tuple only there.
        decoded: tuple[T] = _adapter(hashable).validate_json(json.dumps([values]))
        value = decoded[0]
    except ValidationError as exc:
        raise _refused(exc, where) from exc
    except BadOption as exc:  # from a dataclass that checks its own ranges
        raise wrong(f"{where}: {exc}" if where else str(exc)) from exc
    except RecursionError as exc:
        raise wrong("it is nested too deeply.") from exc
    if missing := _first_missing(values, encode(value), where):
        raise lacking(missing)
    return value


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    # In a tuple: pydantic takes no settings for a dataclass of the standard library, but hands those of what
    # it is in down to it.
    return TypeAdapter(tuple[kind], config=STRICT)


def _refused(exc: ValidationError, where: str) -> NotACheckpoint:
    first = exc.errors(include_url=False, include_input=False)[0]
    key = _key(where, first["loc"][1:])
    if first["type"] == "missing":
        return lacking(key)
    if first["type"] == "unexpected_keyword_argument":
        return unknown_key(key)
    reason = REASONS.get(first["type"], first["msg"][:1].lower() + first["msg"][1:])
    return wrong(f"{key} {reason}.".lstrip())


def _key(where: str, places: Sequence[str | int]) -> str:
    """Places in nested values as one name: calibration.scope_gates[0].bias."""
    for place in places:
        name = f"[{place}]" if isinstance(place, int) else f".{place[:64]}"
        where += name
    return where.removeprefix(".")


def _first_missing(given: Any, full: Any, where: str) -> str | None:
    """The key of the first field that has its value from a default and not from what was given."""
    pairs: list[tuple[str | int, Any, Any]] = []
    if isinstance(full, dict) and isinstance(given, dict):
        for key, value in full.items():
            if key not in given:
                return _key(where, [key])
            pairs.append((key, given[key], value))
    elif isinstance(full, list) and isinstance(given, list):
        pairs = [(index, *pair) for index, pair in enumerate(zip(given, full, strict=True))]
    for place, mine, whole in pairs:
        if missing := _first_missing(mine, whole, _key(where, [place])):
            return missing
    return None
