"""CheckpointConfig: everything needed to use a set of weights, as one frozen dataclass and as JSON.

A config may come from a stranger, so each value is checked before anything is built from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pawmatch.calibration import Calibration, ScopeGate
from pawmatch.checkpoint.values import (
    check_architecture,
    check_json,
    check_keys,
    check_labels,
    number,
    text,
    wrong,
)
from pawmatch.errors import BadOption, NotACheckpoint, UnknownFormatVersion
from pawmatch.models import FAMILIES, VARIANTS
from pawmatch.preprocess import InputSpec

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
STEEPEST = 100  # what a map of confidence may multiply log odds by
LARGEST_CONFIG = 8 * 2**20  # bytes; 20,000 long labels and their metrics fit
TASK_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """What config.json holds; building one checks every value and raises NotACheckpoint naming the key.

    `architecture` holds build_model's values beside family, variant and num_classes. `metrics` says what
    was measured and on which data; `training` holds recipe, git commit, epochs and seed. Variants whose
    `backbone_group` is equal, and not None, have backbones with the same weights.
    """

    task: str
    family: str
    variant: str
    architecture: dict[str, Any]
    labels: tuple[str, ...]
    input: InputSpec
    license: str
    calibration: Calibration = field(default_factory=Calibration)
    metrics: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    backbone_group: str | None = None
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        check_format_version(self.format_version)
        if not TASK_NAME.fullmatch(text("task", self.task)):
            raise wrong(f"task {self.task!r} is no lower-case name such as breed.")
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
        if self.backbone_group is not None:
            text("backbone_group", self.backbone_group)
        check_input(self.input)
        check_calibration(self.calibration)

    def to_dict(self) -> dict[str, Any]:
        """The config as the JSON object that config.json holds."""
        calibration = asdict(self.calibration)
        calibration["top_label"] = list(calibration["top_label"])
        calibration["scope_gates"] = [
            {**gate, "weight": list(gate["weight"])} for gate in calibration["scope_gates"]
        ]
        return {
            "format_version": self.format_version,
            "task": self.task,
            "family": self.family,
            "variant": self.variant,
            "architecture": self.architecture,
            "labels": list(self.labels),
            "input": self.input.to_dict(),
            "calibration": calibration,
            "metrics": self.metrics,
            "training": self.training,
            "license": self.license,
            "backbone_group": self.backbone_group,
        }

    @classmethod
    def from_dict(cls, values: Any) -> CheckpointConfig:
        """The config from parsed JSON.

        Raises UnknownFormatVersion before looking at anything else, and NotACheckpoint, naming the key,
        for a key too many or too few or for a value of the wrong kind or out of range.
        """
        if not isinstance(values, dict):
            raise NotACheckpoint("config.json holds no JSON object; write it with save_checkpoint.")
        check_format_version(values.get("format_version"))
        check_keys("", values, (entry.name for entry in fields(cls)))
        if not isinstance(values["labels"], list):
            raise wrong("labels must be a list of names.")
        return cls(
            **{
                **values,
                "labels": tuple(values["labels"]),
                "input": read_input(values["input"]),
                "calibration": read_calibration(values["calibration"]),
            }
        )


def parse_config(data: bytes) -> CheckpointConfig:
    """The config from the bytes of a config.json; raises as CheckpointConfig.from_dict does."""
    if len(data) > LARGEST_CONFIG:
        raise NotACheckpoint(f"config.json has more than {LARGEST_CONFIG:,} bytes; no checkpoint needs them.")
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise NotACheckpoint("config.json is not valid JSON; write it with save_checkpoint.") from exc
    return CheckpointConfig.from_dict(values)


def check_choice(key: str, value: object, known: Iterable[str]) -> None:
    """Raise unless `value` is one of the `known` names."""
    if text(key, value) not in known:
        raise wrong(f"{key} {value!r} is unknown; use one of {', '.join(known)}.")


def check_format_version(version: object) -> None:
    """Raise UnknownFormatVersion unless `version` is the one that this program reads."""
    if type(version) is not int or version != FORMAT_VERSION:
        raise UnknownFormatVersion(
            f"config.json has format_version {str(version)[:20]} and this program reads {FORMAT_VERSION}; "
            "update pawmatch, or save the checkpoint with this version."
        )


def read_input(values: Any) -> InputSpec:
    """The input description from JSON, every key given; `views` came later and may be missing."""
    if isinstance(values, dict):
        values = {"views": ["plain"], **values}
    check_keys("input", values, (entry.name for entry in fields(InputSpec)))
    if not isinstance(values["views"], list):
        raise wrong("input.views must be a list of names.")
    for key in ("mean", "std"):
        if not isinstance(values[key], list):
            raise wrong(f"input.{key} must be a list of three numbers.")
        for value in values[key]:
            number(f"input.{key}", value)
    number("input.crop_pct", values["crop_pct"])
    if type(values["size"]) is not int:
        raise wrong("input.size must be a whole number of pixels.")
    text("input.resize", values["resize"])
    text("input.interpolation", values["interpolation"])
    try:
        return InputSpec.from_dict(values)
    except BadOption as exc:
        raise wrong(f"input: {exc}") from exc


def check_input(spec: InputSpec) -> None:
    """InputSpec checks its own ranges, yet lets NaN and infinity pass."""
    for value in (*spec.mean, *spec.std, spec.crop_pct):
        number("input", value)


def read_calibration(values: Any) -> Calibration:
    """The calibration from JSON; its numbers are checked by CheckpointConfig.

    Every key must be given but `top_label`, which early checkpoints lack.
    """
    if isinstance(values, dict):
        values = {"top_label": list(Calibration.top_label), **values}
    check_keys("calibration", values, (entry.name for entry in fields(Calibration)))
    if not isinstance(values["top_label"], list) or len(values["top_label"]) != 3:
        raise wrong("calibration.top_label must be a list of three numbers.")
    if not isinstance(values["scope_gates"], list):
        raise wrong("calibration.scope_gates must be a list.")
    gates = []
    for index, gate in enumerate(values["scope_gates"]):
        key = f"calibration.scope_gates[{index}]"
        check_keys(key, gate, (entry.name for entry in fields(ScopeGate)))
        if not isinstance(gate["weight"], list):
            raise wrong(f"{key}.weight must be a list of numbers.")
        gates.append(ScopeGate(**{**gate, "weight": tuple(gate["weight"])}))
    return Calibration(**{**values, "top_label": tuple(values["top_label"]), "scope_gates": tuple(gates)})


def check_calibration(calibration: Calibration) -> None:
    """Raise NotACheckpoint, naming the key, for a value of the wrong kind or out of range."""
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
    }
    for key, value in shares.items():
        if not 0 <= number(f"calibration.{key}", value) <= 1:
            raise wrong(f"calibration.{key} {value} is outside 0 to 1.")
    text("calibration.review_rule", calibration.review_rule)
    for index, gate in enumerate(calibration.scope_gates):
        key = f"calibration.scope_gates[{index}]"
        for value in (*gate.weight, gate.bias, gate.threshold):
            number(key, value)
        text(f"{key}.fitted_on", gate.fitted_on)
