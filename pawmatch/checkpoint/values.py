"""Checks on single JSON values of a config: each raises NotACheckpoint with the key in its message."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from pawmatch.errors import NotACheckpoint

LONGEST_TEXT = 1_000
LONGEST_LABEL = 200
MOST_LABELS = 20_000
DEEPEST_JSON = 12

# An architecture is built on the meta device before its shapes are compared with the weights, so no
# number in it can cost memory; a count of layers costs time all the same: 512 took a minute of one core.
LARGEST_WIDTH = 65_536
MOST_LAYERS = 128
LAYER_COUNTS = frozenset({"layers", "depths", "extra_convolutions"})
LONGEST_LIST = 64
# Given by other keys of the config, or not for a stranger to choose: the last one starts a download.
RESERVED = frozenset({"family", "variant", "num_classes", "pretrained_backbone"})


def wrong(reason: str) -> NotACheckpoint:
    """The error for a value in config.json."""
    return NotACheckpoint(f"config.json: {reason}")


def lacking(key: str) -> NotACheckpoint:
    """The error for a key that config.json lacks."""
    return NotACheckpoint(f"config.json lacks the key {key}; add it.")


def unknown_key(key: str) -> NotACheckpoint:
    """The error for a key that config.json should not have."""
    return NotACheckpoint(f"config.json has the unknown key {key}; remove it.")


def text(key: str, value: object) -> str:
    """`value` if it is a string of sensible length."""
    if not isinstance(value, str) or not value.strip() or len(value) > LONGEST_TEXT:
        raise wrong(f"{key} must be a text of 1 to {LONGEST_TEXT} characters.")
    return value


def check_name(key: str, value: object) -> None:
    """Raise unless `value` is a printable text of sensible length, fit for one line of a page."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise wrong(f"{key} is not a printable name.")
    if len(value) > LONGEST_LABEL:
        raise wrong(f"{key} has more than {LONGEST_LABEL} characters.")


def number(key: str, value: object) -> float:
    """`value` if it is a finite number."""
    # bool is an int to Python; 10**400 is an int that no float holds.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) <= 1e300:  # type: ignore[arg-type]
        raise wrong(f"{key} must be a finite number.")
    return float(value)  # type: ignore[arg-type]


def check_keys(where: str, values: Any, expected: Iterable[str]) -> None:
    """Raise unless `values` is an object with exactly the `expected` keys."""
    if not isinstance(values, dict):
        raise wrong(f"{where} must be an object.")
    known = set(expected)
    prefix = f"{where}." if where else ""
    if missing := sorted(known - values.keys()):
        raise lacking(f"{prefix}{missing[0]}")
    if unknown := sorted(values.keys() - known):
        raise unknown_key(f"{prefix}{unknown[0][:64]}")


def check_labels(labels: Sequence[object]) -> None:
    """Raise unless `labels` are between 1 and MOST_LABELS different printable names."""
    if not 1 <= len(labels) <= MOST_LABELS:
        raise wrong(f"labels has {len(labels)} names, not 1 to {MOST_LABELS:,}.")
    seen: set[str] = set()
    for index, label in enumerate(labels):
        check_name(f"labels[{index}]", label)
        if label in seen:
            raise wrong(f"labels holds {label!r} twice; each class needs its own name.")
        seen.add(str(label))


def check_json(key: str, value: object, depth: int = 0) -> None:
    """Raise unless `value` is an object of finite JSON values."""
    if depth > DEEPEST_JSON:
        raise wrong(f"{key} is nested too deeply.")
    if depth == 0 and not isinstance(value, dict):
        raise wrong(f"{key} must be an object.")
    if isinstance(value, dict):
        for name, entry in value.items():
            if not isinstance(name, str):
                raise wrong(f"{key} has a key that is not a text.")
            check_json(f"{key}.{name[:LONGEST_LABEL]}", entry, depth + 1)
    elif isinstance(value, list | tuple):
        for entry in value:
            check_json(key, entry, depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise wrong(f"{key} must be a finite number.")
    elif value is not None and not isinstance(value, str | int):
        raise wrong(f"{key} holds a {type(value).__name__}, which JSON cannot.")


def check_architecture(values: object) -> None:
    """Raise unless `values` are plain, bounded values under keys that a checkpoint may choose."""
    check_json("architecture", values)
    assert isinstance(values, dict)
    if reserved := sorted(RESERVED & values.keys()):
        raise wrong(f"architecture must not hold {reserved[0]}; remove it.")
    check_bounds("architecture", values)


def check_bounds(key: str, value: object) -> None:
    """Raise for a number or a list in an architecture that no sensible network has."""
    if isinstance(value, dict):
        for name, entry in value.items():
            check_bounds(f"{key}.{name}", entry)
            counts = entry if isinstance(entry, list | tuple) else [entry]
            total = sum(count for count in counts if isinstance(count, int | float))
            if name in LAYER_COUNTS and total > MOST_LAYERS:
                raise wrong(f"{key}.{name} asks for more than {MOST_LAYERS} layers.")
    elif isinstance(value, list | tuple):
        if len(value) > LONGEST_LIST:
            raise wrong(f"{key} has more than {LONGEST_LIST} entries.")
        for entry in value:
            check_bounds(key, entry)
    elif isinstance(value, str):
        text(key, value)
    elif isinstance(value, int | float) and abs(value) > LARGEST_WIDTH:
        raise wrong(f"{key} {value:.6g} is larger than {LARGEST_WIDTH:,}.")
