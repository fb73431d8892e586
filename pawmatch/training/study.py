"""Studies: which variations of one recipe are trained and compared, read from a small TOML file."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pawmatch.errors import TrainingError

STUDIES = Path(__file__).parent / "studies"
RANGE_KEYS = {"choices", "low", "high", "log"}


@dataclass(frozen=True)
class Range:
    """Values that a recipe key may take: one of `choices`, or a number from `low` to `high`, both included.

    Between two whole numbers only whole numbers are drawn; `log` draws on a logarithmic scale.
    """

    key: str
    choices: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are drawn."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def example(self) -> Any:
        """One of the values, to check the key with."""
        return self.choices[0] if self.choices else self.low


@dataclass(frozen=True)
class Study:
    """One study. Values are recipe values under dotted keys, as `--set` takes them.

    `trials` are named variations, in the order of the table; the first is what the others are compared
    with. `ranges` are drawn from for `samples` further trials. Every trial is trained once for each of
    `seeds` seeds, and its heatmaps are tested on `heatmaps` images. With `fresh_heads`, trials that start
    from a checkpoint take over its feature extractor and nothing else.
    """

    name: str
    recipe: str
    about: str
    values: dict[str, Any]  # of every trial
    trials: dict[str, dict[str, Any]]
    ranges: tuple[Range, ...] = ()
    samples: int = 0
    seeds: int = 1
    fresh_heads: bool = False
    heatmaps: int = 0

    def trial_names(self, limit: int | None = None) -> list[str]:
        """Names of the trials: those that have one, then "sample 1", "sample 2" and so on.

        `limit` is how many trials there are in all; without ranges there are no more than the named ones.
        """
        names = list(self.trials)
        if self.ranges:
            samples = self.samples if limit is None else max(0, limit - len(names))
            names += [f"sample {number}" for number in range(1, samples + 1)]
        return names[:limit]


def read_study(name: str) -> Study:
    """Read the bundled study `name` or the TOML file at that path.

    Raises TrainingError for an unknown study, key or malformed value.
    """
    path = Path(name) if name.endswith(".toml") else STUDIES / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in STUDIES.glob("*.toml")))
        raise TrainingError(f"There is no study {name!r}; use one of {known}, or the path of a .toml file.")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise TrainingError(f"Study {name!r} is not valid TOML: {exc}.") from exc
    known_keys = {entry.name for entry in fields(Study)} - {"name"}
    if unknown := sorted(set(values) - known_keys):
        known = ", ".join(sorted(known_keys))
        raise TrainingError(f"Study key {unknown[0]!r} is unknown; use one of {known}.")
    for key, kind, meaning in (
        ("recipe", str, "the name of a recipe"),
        ("about", str, "a text"),
        ("values", dict, "a table of recipe values"),
        ("trials", dict, "a table of trials"),
        ("ranges", dict, "a table of ranges"),
        ("samples", int, "a whole number"),
        ("seeds", int, "a whole number"),
        ("fresh_heads", bool, "true or false"),
        ("heatmaps", int, "a whole number"),
    ):
        if key in values and not isinstance(values[key], kind):
            raise TrainingError(f"Study key {key!r} must be {meaning}.")
    if "recipe" not in values:
        raise TrainingError(f"Study {name!r} names no recipe; add recipe = 'NAME'.")
    trials = {trial: _trial(trial, table) for trial, table in values.get("trials", {}).items()}
    ranges = tuple(_range(key, table) for key, table in _range_tables(values.get("ranges", {})).items())
    if not trials and not ranges:
        raise TrainingError(f"Study {name!r} has nothing to try; add [trials.NAME] or [ranges].")
    if values.get("seeds", 1) < 1:
        raise TrainingError(f"Study {name!r} asks for {values['seeds']} seeds; give 1 or more.")
    _check_folders(trials)
    return Study(
        name=path.stem,
        recipe=values["recipe"],
        about=" ".join(values.get("about", "").split()),
        values=flatten(values.get("values", {})),
        trials=trials,
        ranges=ranges,
        samples=values.get("samples", 20),
        seeds=values.get("seeds", 1),
        fresh_heads=values.get("fresh_heads", False),
        heatmaps=values.get("heatmaps", 0),
    )


def flatten(table: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables as one with dotted keys: {"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{rest}": entry for rest, entry in flatten(value).items()}
        else:
            flat[key] = value
    return flat


def as_overrides(values: Mapping[str, Any]) -> list[str]:
    """Values under dotted keys as the `key=value` texts that read_recipe takes."""
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def folder_name(trial: str) -> str:
    """The trial's name as a folder's: "4 heads" -> "4-heads"."""
    return re.sub(r"[^a-z0-9]+", "-", trial.lower()).strip("-")


def _check_folders(names: Iterable[str]) -> None:
    taken: dict[str, str] = {}
    for name in names:
        folder = folder_name(name)
        if not folder:
            raise TrainingError(f"Trial {name!r} has no letter or digit to name its folder with; rename it.")
        if folder in taken:
            raise TrainingError(
                f"Trial {name!r} would share its folder with trial {taken[folder]!r}; use other letters."
            )
        taken[folder] = name


def _trial(name: str, table: Any) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise TrainingError(f"Trial {name!r} must be a table of recipe values, such as [trials.{name!r}].")
    return flatten(table)


def _range_tables(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Each range's own table, under its dotted recipe key."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict) and value and not RANGE_KEYS & value.keys():
            found |= _range_tables(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _range(key: str, table: Any) -> Range:
    wanted = "write { choices = [...] } or { low = ..., high = ... }"
    if not isinstance(table, dict) or not table.keys() <= RANGE_KEYS:
        raise TrainingError(f"Range {key!r} is malformed; {wanted}.")
    if "choices" in table:
        choices = table["choices"]
        if not isinstance(choices, list) or not choices or len(table) > 1:
            raise TrainingError(f"Range {key!r} needs a list of choices and nothing beside it; {wanted}.")
        return Range(key, choices=tuple(choices))
    low, high, log = table.get("low"), table.get("high"), table.get("log", False)
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (low, high))
    if not numbers or not isinstance(log, bool):
        raise TrainingError(f"Range {key!r} is malformed; {wanted}.")
    if low > high or (log and low <= 0):  # type: ignore[operator]
        raise TrainingError(
            f"Range {key!r} goes from {low} to {high}; put the lower number first, above 0 for log = true."
        )
    return Range(key, low=low, high=high, log=log)  # type: ignore[arg-type]
