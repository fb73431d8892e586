"""config.json: the bytes of it, to configs and back.

Version 2 describes all variants of a task: what they have in common stands once, and each variant names its
files, calibration and metrics. Version 1 described one variant; it is read and no longer written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pawmatch.calibration import Calibration
from pawmatch.checkpoint.codec import decode, encode
from pawmatch.checkpoint.config import Answers, CheckpointConfig, WeightsFile, main_variant
from pawmatch.checkpoint.values import wrong
from pawmatch.errors import NotACheckpoint, UnknownFormatVersion
from pawmatch.images import InputSpec
from pawmatch.models import VARIANTS
from pawmatch.tasks import Task, new_task

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
