"""CheckpointConfig: everything needed to use a set of weights, as one frozen dataclass.

A config may come from a stranger, so each value is checked before anything is built from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pawmatch.calibration import Calibration, LabelGroup, OutsideRule, UnknownRule
from pawmatch.checkpoint.values import (
    LONGEST_LIST,
    check_architecture,
    check_json,
    check_labels,
    check_name,
    number,
    text,
    wrong,
)
from pawmatch.images import InputSpec
from pawmatch.models import FAMILIES, VARIANTS
from pawmatch.tasks import Task

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
