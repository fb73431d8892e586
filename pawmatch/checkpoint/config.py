"""config.json: everything needed to use a set of weights, as frozen dataclasses, to bytes and back.

A config may come from a stranger, so each value is checked, against the annotation of its field, before
anything is built from it; the values of an architecture are checked by the models. Version 2 describes all
variants of a task: what they have in common stands once, and each variant names its files, calibration and
metrics. Version 1 described one variant; it is read and no longer written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any, TypeVar

from annotated_types import Len
from pydantic import AfterValidator, JsonValue

from pawmatch.calibration import Calibration
from pawmatch.errors import NotACheckpoint, UnknownFormatVersion
from pawmatch.images import InputSpec
from pawmatch.labels import known_tasks, new_task
from pawmatch.models import FAMILIES, MAX_CLASSES, VARIANTS
from pawmatch.results import Task
from pawmatch.strict import MAX_SHOWN, Name, Refused, Text, decode, encode

CONFIG_FILE = "config.json"
FORMAT_VERSION = 2
MAX_CONFIG = 8 * 2**20  # bytes; 20,000 long labels and their metrics fit
MAX_FILES = 64
MAX_GROUPS = 2_000
IMAGENET_CLASSES = 1000
# Which variants of the families of version 1 answer, since its configs do not say.
FIRST_ANSWERS = {"hybrid": "cnn_transformer_mfe", "chae": "cnn_transformer"}
ONLY = "the only variant"
# Keys that were added while version 2 was written.
LATER_KEYS = frozenset(
    {"outside", "unknown", "groups", "group_threshold", "focus_below", "second_look_quantile"}
)
COMMON = ("task", "family", "labels", "architecture", "input", "license", "training")
# Given by other keys of the config.
RESERVED = frozenset({"family", "variant", "num_classes"})
TASK_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
EXAMPLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
T = TypeVar("T")


def one_of(known: Collection[str]) -> Callable[[str], str]:
    """A check that a text is one of those known."""

    def check(value: str) -> str:
        if value not in known:
            raise ValueError(f"{value[:MAX_SHOWN]!r} is unknown; use one of {', '.join(known)}")
        return value

    return check


def matching(pattern: re.Pattern[str], otherwise: str) -> Callable[[str], str]:
    """A check that a text matches; `otherwise` says what one is that does not."""

    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(f"{value[:MAX_SHOWN]!r} is {otherwise}")
        return value

    return check


def different(labels: tuple[str, ...]) -> tuple[str, ...]:
    """The labels, if none stands twice."""
    seen: set[str] = set()
    for label in labels:
        if label in seen:
            raise ValueError(f"holds {label!r} twice; each class needs its own name")
        seen.add(label)
    return labels


def finite(values: dict[str, Any]) -> dict[str, Any]:
    """The JSON object, if no number in it is NaN or infinite."""
    try:
        json.dumps(values, allow_nan=False)
    except ValueError as exc:
        raise ValueError("must hold finite numbers only") from exc
    return values


Family = Annotated[str, AfterValidator(one_of(FAMILIES))]
Variant = Annotated[str, AfterValidator(one_of(VARIANTS))]
Labels = Annotated[tuple[Name, ...], Len(1, MAX_CLASSES), AfterValidator(different)]
WEIGHTS_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.safetensors")
FileName = Annotated[str, AfterValidator(matching(WEIGHTS_NAME, "no plain name such as cnn.safetensors"))]
DIGEST = re.compile(r"[0-9a-f]{64}")
Sha256 = Annotated[str, AfterValidator(matching(DIGEST, "no SHA-256 in hexadecimal"))]
Json = Annotated[dict[str, JsonValue], AfterValidator(finite)]


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights by its name in the checkpoint's folder and its SHA-256, in hexadecimal."""

    name: FileName
    sha256: Sha256


@dataclass(frozen=True)
class Answers:
    """The variant whose answer counts where several are loaded, and why it does."""

    variant: str
    why: Text


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """One variant of a checkpoint; its values are checked when it is read and when it is written.

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


@dataclass(frozen=True, kw_only=True)
class VariantEntry:
    """What config.json says about one variant alone."""

    files: Annotated[tuple[WeightsFile, ...], Len(0, MAX_FILES)]
    calibration: Calibration
    metrics: Json


@dataclass(frozen=True, kw_only=True)
class ConfigFile:
    """config.json of version 2."""

    format_version: int
    task: Task
    family: Family
    labels: Labels
    architecture: Json
    input: InputSpec
    license: Text
    training: Json
    answers: Answers
    variants: dict[Variant, VariantEntry]


def parse_config(data: bytes) -> tuple[CheckpointConfig, ...]:
    """The variants that the bytes of a config.json describe, in table order.

    Raises UnknownFormatVersion before looking at anything else, and NotACheckpoint, naming the key, for a
    key too many or too few or for a value of the wrong kind or out of range.
    """
    if len(data) > MAX_CONFIG:
        raise NotACheckpoint(f"config.json has more than {MAX_CONFIG:,} bytes; no checkpoint needs them.")
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
    if version == 1:
        return _parse_first(values)
    configs = _configs(checked(ConfigFile, values, optional=LATER_KEYS))
    digests: dict[str, str] = {}
    for config in configs:
        if not config.files:
            raise wrong(f"variants.{config.variant}.files is empty.")
        for entry in config.files:
            if digests.setdefault(entry.name, entry.sha256) != entry.sha256:
                raise wrong(f"the file {entry.name} has two different SHA-256.")
    return configs


def checked(kind: type[T], values: Any, *, optional: Collection[str] = ()) -> T:
    """The dataclass `kind` from the JSON values of a config.json; raises NotACheckpoint, naming the key."""
    try:
        return decode(kind, values, optional=optional)
    except Refused as exc:
        raise NotACheckpoint(exc.sentence("config.json")) from exc


def wrong(reason: str) -> NotACheckpoint:
    """The error for a value in config.json."""
    return NotACheckpoint(f"config.json: {reason}")


def _parse_first(values: dict[str, Any]) -> tuple[CheckpointConfig, ...]:
    """The variant of a config.json of version 1, by way of the object that version 2 would have.

    `backbone_group` was a label that nobody checked and is ignored.
    """
    values = dict(values)
    values.pop("backbone_group", None)
    name, variant = (values.pop(key, None) for key in ("task", "variant"))
    if not isinstance(name, str) or not isinstance(variant, str):
        raise wrong("task and variant must be texts.")
    entry: dict[str, Any] = {
        "files": [],
        **{key: values.pop(key) for key in ("calibration", "metrics") if key in values},
    }
    values |= {
        "format_version": FORMAT_VERSION,
        "task": encode(new_task(name)),
        "answers": {"variant": variant, "why": "as in the first edition"},
        "variants": {variant: entry},
    }
    # Some keys came later, while version 1 was written or with version 2.
    later = {entry.name for entry in fields(Calibration)} | {"views", "focus_below"}
    (config,) = _configs(checked(ConfigFile, values, optional=later))
    answering = FIRST_ANSWERS.get(config.family)
    return (replace(config, answers=Answers(answering, "as in the first edition") if answering else None),)


def _configs(file: ConfigFile) -> tuple[CheckpointConfig, ...]:
    if not TASK_NAME.fullmatch(file.task.name):
        raise wrong(
            f"task.name {file.task.name[:MAX_SHOWN]!r} is no lower-case name such as {known_tasks()[0]}."
        )
    for name in file.task.examples:
        if not EXAMPLE_NAME.fullmatch(name):
            raise wrong(f"task.examples holds {name[:MAX_SHOWN]!r}, which is no plain file name.")
    if reserved := sorted(RESERVED & file.architecture.keys()):
        raise wrong(f"architecture must not hold {reserved[0]}; remove it.")
    if file.answers.variant not in file.variants:
        raise wrong(f"answers.variant {file.answers.variant[:MAX_SHOWN]!r} is none of the variants.")
    for name, entry in file.variants.items():
        _check_calibration(f"variants.{name}.calibration", entry.calibration, len(file.labels))
        if len({weights.name for weights in entry.files}) < len(entry.files):
            raise wrong(f"variants.{name} names a file twice.")
    return tuple(
        CheckpointConfig(
            variant=name,
            answers=file.answers,
            **vars(file.variants[name]),
            **{key: getattr(file, key) for key in COMMON},
        )
        for name in VARIANTS
        if name in file.variants
    )


def _check_calibration(key: str, calibration: Calibration, classes: int) -> None:
    """Raise NotACheckpoint, naming the key, for a rule that does not fit the number of labels."""
    if calibration.outside is not None:
        _check_indices(f"{key}.outside.classes", calibration.outside.classes, IMAGENET_CLASSES)
    if calibration.unknown is not None and len(calibration.unknown.label_offsets) != classes:
        count = len(calibration.unknown.label_offsets)
        raise wrong(f"{key}.unknown.label_offsets has {count} numbers for {classes} labels.")
    if len(calibration.groups) > MAX_GROUPS:
        raise wrong(f"{key}.groups has more than {MAX_GROUPS:,} groups.")
    for index, group in enumerate(calibration.groups):
        _check_indices(f"{key}.groups[{index}].labels", group.labels, classes)


def _check_indices(key: str, indices: Sequence[int], count: int) -> None:
    if len(set(indices)) < len(indices) or min(indices) < 0 or max(indices) >= count:
        raise wrong(f"{key} must hold indices from 0 to {count - 1}, each once.")


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
    own = tuple(entry.name for entry in fields(VariantEntry))
    values = {"format_version": FORMAT_VERSION, **{key: asdict(first)[key] for key in COMMON}}
    values["answers"] = asdict(answers)
    values["variants"] = {config.variant: {key: asdict(config)[key] for key in own} for config in configs}
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def config_bytes(configs: Sequence[CheckpointConfig]) -> bytes:
    """The bytes of a config.json that describes these variants; raises as reading it back would."""
    try:
        data = json.dumps(config_values(configs), indent=1, ensure_ascii=False).encode() + b"\n"
    except (TypeError, ValueError) as exc:
        raise wrong("it holds what JSON cannot.") from exc
    parse_config(data)  # what cannot be read back must not be written
    return data


def main_variant(configs: Sequence[CheckpointConfig]) -> str:
    """The variant whose answer counts among some of one task, in table order.

    It is the one that all of them name, where it is among them, and else the last.
    """
    named = {config.answers.variant if config.answers else None for config in configs}
    variants = [config.variant for config in configs]
    return next((variant for variant in variants if named == {variant}), variants[-1])
