"""config.json: everything needed to use a set of weights, as frozen dataclasses, to bytes and back.

A config may come from a stranger, so each value is checked before anything is built from it. Version 2
describes all variants of a task: what they have in common stands once, and each variant names its files,
calibration and metrics. Version 1 described one variant; it is read and no longer written.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pawmatch.calibration import Calibration, LabelGroup, OutsideRule, UnknownRule
from pawmatch.errors import BadOption, NotACheckpoint, UnknownFormatVersion
from pawmatch.images import InputSpec
from pawmatch.models import FAMILIES, VARIANTS
from pawmatch.tasks import Task, new_task

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


CONFIG_FILE = "config.json"
STEEPEST = 100  # what a map of confidence may multiply log odds by
IMAGENET_CLASSES = 1000
MAX_FEATURES = 4  # of an unknown score
MAX_GROUPS = 2_000
MAX_GROUP_LABELS = 64
TASK_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
WEIGHTS_NAME = re.compile(rf"{FILE_NAME.pattern}\.safetensors")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights by its name in the checkpoint's folder and its SHA-256, in hexadecimal."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Answers:
    """The variant whose answer counts where several are loaded, and why it does."""

    variant: str
    why: str


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """One variant of a checkpoint; building one checks every value and raises NotACheckpoint naming the key.

    `architecture` holds build_model's values beside family, variant and num_classes. `metrics` says what
    was measured and on which data; `training` holds recipe, git commit, epochs and seed. The parameters are
    the union of those in `files`, which are known once the checkpoint has been written or read.
    """

    task: Task
    family: str
    variant: str
    architecture: dict[str, Any]
    labels: tuple[str, ...]
    input: InputSpec
    license: str
    calibration: Calibration = field(default_factory=Calibration)
    metrics: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    answers: Answers | None = None
    files: tuple[WeightsFile, ...] = ()

    def __post_init__(self) -> None:
        check_task(self.task)
        for key, value, known in (
            ("family", self.family, FAMILIES),
            ("variant", self.variant, VARIANTS),
        ):
            if text(key, value) not in known:
                raise wrong(f"{key} {value!r} is unknown; use one of {', '.join(known)}.")
        check_architecture(self.architecture)
        check_labels(self.labels)
        check_json("metrics", self.metrics)
        check_json("training", self.training)
        text("license", self.license)
        for part in (*self.input.mean, *self.input.std, self.input.crop_pct):
            number("input", part)  # InputSpec checks its own ranges, yet lets NaN pass
        check_calibration(self.calibration, len(self.labels))
        if self.answers is not None:
            text("answers.why", self.answers.why)
        check_files(self.files)


def check_task(task: Task) -> None:
    """Raise NotACheckpoint, naming the key, unless a task's words are fit to be shown."""
    if not TASK_NAME.fullmatch(text("task.name", task.name)):
        raise wrong(f"task.name {task.name!r} is no lower-case name such as breed.")
    for key, words in {
        "title": task.title,
        "subject": task.subject,
        "noun": task.noun,
        "plural": task.plural,
    }.items():
        check_name(f"task.{key}", words)
    if len(task.examples) > LONGEST_LIST:
        raise wrong(f"task.examples has more than {LONGEST_LIST} names.")
    for index, name in enumerate(task.examples):
        if not FILE_NAME.fullmatch(text(f"task.examples[{index}]", name)):
            raise wrong(f"task.examples[{index}] {name[:64]!r} is no plain file name.")


def check_files(files: Sequence[WeightsFile]) -> None:
    """Raise NotACheckpoint unless each name is plain, stands once, and has a SHA-256."""
    if len(files) > LONGEST_LIST:
        raise wrong(f"a variant has more than {LONGEST_LIST} files.")
    for file in files:
        if not WEIGHTS_NAME.fullmatch(text("files", file.name)):
            raise wrong(f"the file name {file.name[:64]!r} is no plain name such as cnn.safetensors.")
        if not SHA256.fullmatch(file.sha256):
            raise wrong(f"the sha256 of {file.name} is no SHA-256 in hexadecimal.")
    if len({file.name for file in files}) < len(files):
        raise wrong("a variant names a file twice.")


def check_calibration(calibration: Calibration, classes: int) -> None:
    """Raise NotACheckpoint, naming the key, for a value out of range; `classes` is the number of labels."""
    if number("calibration.temperature", calibration.temperature) <= 0:
        raise wrong(f"calibration.temperature {calibration.temperature} must be above 0.")
    a, b, c = (number("calibration.top_label", value) for value in calibration.top_label)
    if min(a, b) <= 0 or max(a, b, abs(c)) > STEEPEST:
        raise wrong(
            f"calibration.top_label must be two numbers above 0 and one of any sign, up to {STEEPEST}."
        )
    shares: Mapping[str, float] = {
        "review_threshold": calibration.review_threshold,
        "close_call_margin": calibration.close_call_margin,
        "conformal_quantile": calibration.conformal_quantile,
        "group_threshold": calibration.group_threshold,
    }
    for key, value in shares.items():
        if not 0 <= number(f"calibration.{key}", value) <= 1:
            raise wrong(f"calibration.{key} {value} is outside 0 to 1.")
    text("calibration.review_rule", calibration.review_rule)
    for index, gate in enumerate(calibration.scope_gates):
        for value in (*gate.weight, gate.bias, gate.threshold):
            number(f"calibration.scope_gates[{index}]", value)
    if calibration.outside is not None:
        check_outside(calibration.outside)
    if calibration.unknown is not None:
        check_unknown(calibration.unknown, classes)
    check_groups(calibration.groups, classes)


def check_outside(rule: OutsideRule) -> None:
    """Raise NotACheckpoint, naming the key, unless the rule's classes are different ones of ImageNet."""
    key = "calibration.outside"
    check_indices(f"{key}.classes", rule.classes, IMAGENET_CLASSES)
    if not 0 <= number(f"{key}.threshold", rule.threshold) <= 1:
        raise wrong(f"{key}.threshold {rule.threshold} is outside 0 to 1.")
    text(f"{key}.fitted_on", rule.fitted_on)


def check_unknown(rule: UnknownRule, classes: int) -> None:
    """Raise NotACheckpoint, naming the key, unless the rule has the numbers that its score needs."""
    key = "calibration.unknown"
    if len(rule.weights) not in (MAX_FEATURES - 1, MAX_FEATURES):
        raise wrong(
            f"{key}.weights has {len(rule.weights)} numbers, not {MAX_FEATURES - 1} or {MAX_FEATURES}."
        )
    if len(rule.label_offsets) != classes:
        raise wrong(f"{key}.label_offsets has {len(rule.label_offsets)} numbers for {classes} labels.")
    for value in (*rule.weights, rule.bias, *rule.label_offsets, rule.threshold, rule.answer_threshold):
        number(key, value)
    text(f"{key}.fitted_on", rule.fitted_on)


def check_groups(groups: Sequence[LabelGroup], classes: int) -> None:
    """Raise NotACheckpoint, naming the key, unless each group has a name to show and different labels."""
    if len(groups) > MAX_GROUPS:
        raise wrong(f"calibration.groups has more than {MAX_GROUPS:,} groups.")
    for index, group in enumerate(groups):
        key = f"calibration.groups[{index}]"
        if group.name:
            check_name(f"{key}.name", group.name)
        if not 2 <= len(group.labels) <= MAX_GROUP_LABELS:
            raise wrong(f"{key}.labels has {len(group.labels)} labels, not 2 to {MAX_GROUP_LABELS}.")
        check_indices(f"{key}.labels", group.labels, classes)


def check_indices(key: str, indices: Sequence[int], count: int) -> None:
    """Raise NotACheckpoint unless `indices` are one or more different ones of `count`."""
    if not indices or len(set(indices)) < len(indices):
        raise wrong(f"{key} must hold one or more indices, each once.")
    if min(indices) < 0 or max(indices) >= count:
        raise wrong(f"{key} must hold indices from 0 to {count - 1}.")


def main_variant(configs: Sequence[CheckpointConfig]) -> str:
    """The variant whose answer counts among some of one task, in table order.

    It is the one that all of them name, where it is among them, and else the last.
    """
    named = {config.answers.variant if config.answers else None for config in configs}
    variants = [config.variant for config in configs]
    return next((variant for variant in variants if named == {variant}), variants[-1])


FORMAT_VERSION = 2
LARGEST_CONFIG = 8 * 2**20  # bytes; 20,000 long labels and their metrics fit
# Which variants of the tasks of version 1 answer, since its configs do not say.
FIRST_ANSWERS = {"breed": "cnn_transformer_mfe", "artist": "cnn_transformer"}
ONLY = "the only variant"
LATER_KEYS = ("outside", "unknown", "groups", "group_threshold")
COMMON = ("task", "family", "labels", "architecture", "input", "license", "training")


@dataclass(frozen=True, kw_only=True)
class VariantEntry:
    """What config.json says about one variant alone."""

    files: tuple[WeightsFile, ...]
    calibration: Calibration
    metrics: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ConfigFile:
    """config.json of version 2."""

    format_version: int
    task: Task
    family: str
    labels: tuple[str, ...]
    architecture: dict[str, Any]
    input: InputSpec
    license: str
    training: dict[str, Any]
    answers: Answers
    variants: dict[str, VariantEntry]


@dataclass(frozen=True, kw_only=True)
class FirstConfigFile:
    """config.json of version 1; `backbone_group` was a label that nobody checked and is ignored."""

    format_version: int
    task: str
    family: str
    variant: str
    architecture: dict[str, Any]
    labels: tuple[str, ...]
    input: InputSpec
    calibration: Calibration
    metrics: dict[str, Any]
    training: dict[str, Any]
    license: str
    backbone_group: str | None


def parse_config(data: bytes) -> tuple[CheckpointConfig, ...]:
    """The variants that the bytes of a config.json describe, in table order.

    Raises UnknownFormatVersion before looking at anything else, and NotACheckpoint, naming the key, for a
    key too many or too few or for a value of the wrong kind or out of range.
    """
    if len(data) > LARGEST_CONFIG:
        raise NotACheckpoint(f"config.json has more than {LARGEST_CONFIG:,} bytes; no checkpoint needs them.")
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise NotACheckpoint("config.json is not valid JSON; write it with save_checkpoint.") from exc
    return parse_values(values)


def parse_values(values: Any) -> tuple[CheckpointConfig, ...]:
    """The variants that the JSON object of a config.json describes; raises as `parse_config` does."""
    if not isinstance(values, dict):
        raise NotACheckpoint("config.json holds no JSON object; write it with save_checkpoint.")
    version = values.get("format_version")
    if type(version) is not int or version not in (1, FORMAT_VERSION):
        raise UnknownFormatVersion(
            f"config.json has format_version {str(version)[:20]} and this program reads 1 and "
            f"{FORMAT_VERSION}; update pawmatch, or save the checkpoint with this version."
        )
    if "kind" in values:
        raise NotACheckpoint(
            "config.json is a pretrained backbone's; start a run from it with `pawmatch train --init`."
        )
    return (_first(values),) if version == 1 else _second(decode(ConfigFile, _with_later_keys(values)))


def _with_later_keys(values: dict[str, Any]) -> dict[str, Any]:
    """The object with the keys of a calibration that were added while version 2 was written."""
    variants = values.get("variants")
    if not isinstance(variants, dict):
        return values
    defaults = encode(Calibration())
    later = {key: defaults[key] for key in LATER_KEYS}
    return values | {
        "variants": {
            name: entry | {"calibration": later | entry["calibration"]}
            if isinstance(entry, dict) and isinstance(entry.get("calibration"), dict)
            else entry
            for name, entry in variants.items()
        }
    }


def config_values(configs: Sequence[CheckpointConfig]) -> dict[str, Any]:
    """The JSON object of a config.json that describes these variants of one task.

    Raises NotACheckpoint where they differ in what is written once.
    """
    first = configs[0]
    for key in COMMON:
        if any(getattr(config, key) != getattr(first, key) for config in configs):
            raise NotACheckpoint(f"The variants differ in {key}; write each into a folder of its own.")
    answers = first.answers
    if answers is None or answers.variant not in {config.variant for config in configs}:
        answers = Answers(main_variant(configs), ONLY if len(configs) == 1 else "nothing was measured")
    return dict(
        encode(
            ConfigFile(
                format_version=FORMAT_VERSION,
                answers=answers,
                variants={
                    config.variant: VariantEntry(
                        files=config.files, calibration=config.calibration, metrics=config.metrics
                    )
                    for config in configs
                },
                **{key: getattr(first, key) for key in COMMON},
            )
        )
    )


def config_bytes(configs: Sequence[CheckpointConfig]) -> bytes:
    """The bytes of a config.json that describes these variants; raises as reading it back would."""
    data = json.dumps(config_values(configs), indent=1, ensure_ascii=False).encode() + b"\n"
    parse_config(data)  # what cannot be read back must not be written
    return data


def _second(file: ConfigFile) -> tuple[CheckpointConfig, ...]:
    if file.answers.variant not in file.variants:
        raise wrong(f"answers.variant {file.answers.variant[:64]!r} is none of the variants.")
    configs = {
        name: CheckpointConfig(
            variant=name,
            answers=file.answers,
            files=entry.files,
            calibration=entry.calibration,
            metrics=entry.metrics,
            **{key: getattr(file, key) for key in COMMON},
        )
        for name, entry in file.variants.items()
    }
    digests: dict[str, str] = {}
    for config in configs.values():
        if not config.files:
            raise wrong(f"variants.{config.variant}.files is empty.")
        for entry in config.files:
            if digests.setdefault(entry.name, entry.sha256) != entry.sha256:
                raise wrong(f"the file {entry.name} has two different SHA-256.")
    return tuple(configs[name] for name in VARIANTS if name in configs)


def _first(values: dict[str, Any]) -> CheckpointConfig:
    values = dict(values)
    # Keys that came later, some while version 1 was written and some with version 2.
    for key, later in (("input", {"views": ["plain"]}), ("calibration", encode(Calibration()))):
        if isinstance(values.get(key), dict):
            values[key] = later | values[key]
    file = decode(FirstConfigFile, values)
    variant = FIRST_ANSWERS.get(file.task)
    return CheckpointConfig(
        task=new_task(file.task),
        variant=file.variant,
        calibration=file.calibration,
        metrics=file.metrics,
        answers=Answers(variant, "as in the first edition") if variant else None,
        **{key: getattr(file, key) for key in COMMON if key != "task"},
    )
