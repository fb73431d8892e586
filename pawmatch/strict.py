"""JSON values from a stranger to frozen dataclasses and back, checked once, by the annotations of the fields.

pydantic does the work, imported when there is some. Its settings stand here, and the words in which it
refuses. Kinds of fields that many dataclasses have stand here too.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from annotated_types import Interval, Len, Predicate

from pawmatch.errors import BadOption

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

REASONS = {
    "finite_number": "must be a finite number",
    "float_type": "must be a finite number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large",
    "bool_type": "must be true or false",
    "string_type": "must be a text",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "dataclass_type": "must be an object",
    "greater_than": "{input} must be above {gt}",
    "greater_than_equal": "{input} must be {ge} or more",
    "less_than": "{input} must be below {lt}",
    "less_than_equal": "{input} must be {le} or less",
    "multiple_of": "{input} must be a multiple of {multiple_of}",
    "literal_error": "{input} is unknown; use {expected}",
    "too_short": "has {actual_length} entries; {min_length} or more are needed",
    "too_long": "has more than {max_length} entries",
    "string_too_short": "must not be empty",
    "string_too_long": "has more than {max_length} characters",
    "predicate_failed": "is not a printable text",
    "json_invalid": "it holds half a character, or is nested too deeply",
    "value_error": "{error}",
}
MAX_SHOWN = 64  # characters of a key or value in a message


def _is_printable(text: str) -> bool:
    return bool(text.strip()) and text.isprintable()


# A name fits one line of a page, a text a few. Larger numbers would overflow float32 in a sum of products.
Name = Annotated[str, Len(1, 200), Predicate(_is_printable)]
Text = Annotated[str, Len(1, 1_000), Predicate(_is_printable)]
Number = Annotated[float, Interval(ge=-1e9, le=1e9)]
Share = Annotated[float, Interval(ge=0, le=1)]
T = TypeVar("T")


class Refused(Exception):
    """A value that does not fit its field; `sentence` says so of a file or of whatever held the value."""

    def __init__(self, key: str, reason: str = "", *, lacking: bool = False, unknown: bool = False) -> None:
        super().__init__(key, reason)
        self.key, self.reason, self.lacking, self.unknown = key, reason, lacking, unknown

    def sentence(self, subject: str) -> str:
        """What is wrong and what to do: "config.json lacks the key license; add it."."""
        if self.lacking:
            return f"{subject} lacks the key {self.key}; add it."
        if self.unknown:
            return f"{subject} has the unknown key {self.key}; remove it."
        return f"{subject}: {f'{self.key} {self.reason}'.strip().rstrip('.')}."


def encode(value: Any) -> Any:
    """A dataclass as JSON values: its fields by their names, tuples as lists."""
    kind: Any = type(value)
    return _adapter(kind).dump_python((value,), mode="json")[0]


def decode(kind: type[T], values: Any, *, optional: Collection[str] | None = ()) -> T:
    """The dataclass `kind` from JSON values; only fields in `optional` may be left out, or all if it is None.

    Raises Refused, naming the key, for one too many or too few and for a value of another type or out of its
    range; a float must be finite.
    """
    from pydantic import ValidationError

    hashable: Any = kind  # as every class is, which mypy does not see of a type[T]
    try:
        # As JSON text, since strict checks take a list for a tuple only there.
        decoded: tuple[T] = _adapter(hashable).validate_json(json.dumps([values]))
    except ValidationError as exc:
        raise _refused(exc) from exc
    except BadOption as exc:  # from a dataclass that checks its own ranges
        raise Refused("", str(exc)) from exc
    except (RecursionError, TypeError, ValueError) as exc:
        raise Refused("", "it holds what is no plain value, or is nested too deeply") from exc
    if optional is not None and (missing := _first_missing(values, encode(decoded[0]), optional)):
        raise Refused(missing, lacking=True)
    return decoded[0]


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter

    # In a tuple: pydantic takes no settings for a dataclass of the standard library, but hands those of what
    # it is in down to it.
    return TypeAdapter(tuple[kind], config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))


def _refused(exc: ValidationError) -> Refused:
    first = exc.errors(include_url=False)[0]
    key = _key("", first["loc"][1:])
    if first["type"] == "missing":
        return Refused(key, lacking=True)
    if first["type"] == "unexpected_keyword_argument":
        return Refused(key, unknown=True)
    said = first["msg"][:1].lower() + first["msg"][1:]
    reason = REASONS.get(first["type"], said.replace("{", "(").replace("}", ")"))
    return Refused(key, reason.format(input=repr(first["input"])[:MAX_SHOWN], **first.get("ctx", {})))


def _key(where: str, places: Sequence[str | int]) -> str:
    """Places in nested values as one name: calibration.scope_gates[0].bias."""
    for place in places:
        if place == "[key]":  # the key itself is what was refused
            continue
        where += f"[{place}]" if isinstance(place, int) else f".{place[:MAX_SHOWN]}"
    return where.removeprefix(".")


def _first_missing(given: Any, full: Any, optional: Collection[str], where: str = "") -> str | None:
    """The key of the first field that has its value from a default and not from what was given."""
    pairs: list[tuple[str | int, Any, Any]] = []
    if isinstance(full, dict) and isinstance(given, dict):
        for key, value in full.items():
            if key in given:
                pairs.append((key, given[key], value))
            elif key not in optional:
                return _key(where, [key])
    elif isinstance(full, list) and isinstance(given, list):
        pairs = [(index, *pair) for index, pair in enumerate(zip(given, full, strict=True))]
    for place, mine, whole in pairs:
        if missing := _first_missing(mine, whole, optional, _key(where, [place])):
            return missing
    return None
