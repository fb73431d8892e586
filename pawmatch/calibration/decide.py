"""From what is known of an image to its verdict, and to whether a person should check and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pawmatch.calibration.apply import (
    Calibration,
    Doubles,
    Flags,
    Floats,
    LabelGroup,
    calibrated,
    candidate_sets,
    outside_mass,
    own_share,
    scope_margin,
    unknown_score,
)
from pawmatch.calibration.groups import enclosing_groups
from pawmatch.labels import display_name
from pawmatch.phrasing import verdict_text
from pawmatch.results import Group, Review, ReviewReason, Task, Verdict

Ints = NDArray[np.int64]

MIN_SIDE = 64  # pixels; below it neither fur nor brush strokes are resolved
MAX_ASPECT = 4.0
MIN_DEVIATION = 3.0  # of 255: what the pixels of a nearly blank picture stay under
# Of 700 pictures of the bundled tasks all have more, 0.034 to 0.46; blurred by 4 of 224 pixels all have less.
MIN_SHARPNESS = 0.028
MIN_AGREED = 0.9  # confidence from which other variants' doubts do not count
# Candidates that a group may stand for.
MIN_CANDIDATES = 2
MAX_CANDIDATES = 6


@dataclass(frozen=True)
class Observed:
    """What models gave for N images, averaged over the views.

    Of one variant the logits (N, classes) and the average-pooled map (N, C), of the backbone's own head the
    ImageNet probabilities (N, 1000), and of every variant the first choice: `choices` (variants, N).
    `probabilities` (N, classes) are the logits calibrated, where that has been done; `doubted` (N,) says
    where a second look was taken, None for nowhere.
    """

    logits: Floats
    choices: Ints
    pooled: Floats | None = None
    imagenet: Floats | None = None
    probabilities: Doubles | None = None
    doubted: Flags | None = None

    def rows(self, chosen: Flags) -> Observed:
        """The same of some of the images, by flags (N,)."""
        return Observed(
            self.logits[chosen],
            self.choices[:, chosen],
            None if self.pooled is None else self.pooled[chosen],
            None if self.imagenet is None else self.imagenet[chosen],
            None if self.probabilities is None else self.probabilities[chosen],
            None if self.doubted is None else self.doubted[chosen],
        )


@dataclass(frozen=True)
class Known:
    """What follows from it: `probabilities` (N, classes), and for each image (N,) how far it is in scope.

    `margin` is the least margin by which it passes the scope gates and `mass` its outside mass; `score` is
    its unknown score. None stands for a rule that is missing. `choices` is (variants, N), and `doubted` (N,)
    says where a second look was taken.
    """

    probabilities: Doubles
    choices: Ints
    margin: Doubles | None = None
    mass: Doubles | None = None
    score: Doubles | None = None
    doubted: Flags | None = None


@dataclass(frozen=True)
class Judged:
    """What a calibration says of N images: probabilities and candidate sets (N, classes), and flags (N,).

    `reasons` has for each code of a review which images it holds for. `outside` and `unknown` are those
    turned away, `group` (N,) is the number of the group that is answered or -1.
    """

    probabilities: Doubles
    sets: Flags
    outside: Flags
    unknown: Flags
    reasons: Mapping[str, Flags]
    group: Ints

    @property
    def flagged(self) -> Flags:
        """Whether any reason holds: the answer is not plain, or there is none."""
        flagged: Flags = np.any(list(self.reasons.values()), axis=0)
        return flagged


@dataclass(frozen=True)
class Decision:
    """What is said of one image; `candidates` are the class indices of its conformal set, likeliest first."""

    verdict: Verdict
    group: Group | None
    review: Review
    candidates: tuple[int, ...]


def know(calibration: Calibration, observed: Observed, own_classes: Sequence[int] = ()) -> Known:
    """Apply a calibration to what was observed; `own_classes` are the ImageNet classes that are labels."""
    probabilities = observed.probabilities
    if probabilities is None:
        probabilities = calibrated(observed.logits, calibration)
    outside, unknown = calibration.outside, calibration.unknown
    mass, share = None, None
    if outside is not None and observed.imagenet is not None:
        mass = outside_mass(outside, observed.imagenet)
        share = own_share(observed.imagenet, own_classes, outside.classes) if own_classes else None
    gates = calibration.scope_gates
    return Known(
        probabilities=probabilities,
        choices=observed.choices,
        margin=None if observed.pooled is None or not gates else scope_margin(gates, observed.pooled),
        mass=mass,
        score=None if unknown is None else unknown_score(unknown, observed.logits, probabilities, share),
        doubted=observed.doubted,
    )


def judge(calibration: Calibration, known: Known) -> Judged:
    """Judge N images."""
    probabilities = known.probabilities
    first, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    none = np.zeros(len(first), dtype=bool)
    outside, unknown, doubtful = none, none, none
    if known.margin is not None:
        outside = known.margin < 0
    if known.mass is not None and calibration.outside is not None:
        outside = outside | (known.mass < calibration.outside.threshold)
    if known.score is not None and calibration.unknown is not None:
        unknown = ~outside & (known.score < calibration.unknown.threshold)
        doubtful = unknown | (~outside & (known.score < calibration.unknown.answer_threshold))
    reasons = {
        "out_of_scope": outside,
        "unknown_class": doubtful,
        "low_confidence": confidence < calibration.review_threshold,
        "close_call": close_calls(probabilities, calibration.close_call_margin),
        "variants_disagree": (known.choices != first).any(axis=0) & (confidence < MIN_AGREED),
    }
    quantile: float | Doubles = calibration.conformal_quantile
    if calibration.second_look_quantile is not None and known.doubted is not None:
        quantile = np.where(known.doubted, calibration.second_look_quantile, quantile)[:, None]
    sets = candidate_sets(probabilities, quantile)
    open_to_groups = np.any(list(reasons.values()), axis=0) & ~outside & ~unknown
    size = sets.sum(axis=1)
    open_to_groups &= (size >= MIN_CANDIDATES) & (size <= MAX_CANDIDATES)
    group = np.full(len(first), -1, dtype=np.int64)
    group[open_to_groups] = enclosing_groups(calibration.groups, sets[open_to_groups])
    sure = group_mass(calibration.groups, group, probabilities) >= calibration.group_threshold
    return Judged(probabilities, sets, outside, unknown, reasons, np.where(sure, group, -1))


def group_mass(groups: Sequence[LabelGroup], chosen: Ints, probabilities: Doubles) -> Doubles:
    """The summed probability (N,) of each row's chosen group, 0 where it is -1."""
    return np.array(
        [
            row[list(groups[number].labels)].sum() if number >= 0 else 0.0
            for number, row in zip(chosen.tolist(), probabilities, strict=True)
        ]
    )


def close_calls(probabilities: Doubles, margin: float) -> Flags:
    """Whether the two likeliest classes of each row (N, classes) lie within `margin`."""
    if probabilities.shape[1] < 2:
        return np.zeros(len(probabilities), dtype=bool)
    best = np.partition(probabilities, -2, axis=1)[:, -2:]
    close: Flags = best[:, 1] - best[:, 0] < margin
    return close


def poor_image(size: tuple[int, int], pixels: NDArray[np.uint8] | None = None) -> str | None:
    """What is wrong with a picture of that width and height, in words, or None.

    `pixels` (H, W, 3) are the whole of it, or nearly so, as the model sees it.
    """
    if min(size) < MIN_SIDE:
        return f"The picture is very small ({size[0]} x {size[1]} pixels); try a larger one."
    if max(size) / min(size) > MAX_ASPECT:
        return "The picture is a very narrow strip; try one nearer to a square."
    if pixels is None:
        return None
    if float(cv2.meanStdDev(pixels)[1].max()) < MIN_DEVIATION:
        return "The picture is almost of one color; try one that shows more."
    if sharpness(pixels) < MIN_SHARPNESS:
        return "The picture is out of focus; try a sharper one."
    return None


def sharpness(pixels: NDArray[np.uint8]) -> float:
    """The contrast of the finest detail of pixels (H, W, 3) as a share of all their contrast."""
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return float((gray - cv2.GaussianBlur(gray, (0, 0), 1.0)).std() / (gray.std() + 1e-6))


def decide(
    calibration: Calibration,
    task: Task,
    labels: Sequence[str],
    known: Known,
    *,
    size: tuple[int, int],
    pixels: NDArray[np.uint8] | None = None,
    looks_like: str = "",
) -> Decision:
    """Say what there is to say of one image: the first row of `known`.

    `labels` are in class order; `size` and `pixels` are those of `poor_image`, and `looks_like` is the
    name of what the picture shows where it is outside. The gravest reason for a review comes first.
    """
    judged, probabilities = judge(calibration, known), known.probabilities[0]
    order = np.argsort(-probabilities, kind="stable")
    first, confidence = int(order[0]), float(probabilities[order[0]])
    names = [display_name(labels[index]) for index in order[:2]]
    poor = poor_image(size, pixels)
    others = sorted({display_name(labels[index]) for index in known.choices[:, 0].tolist() if index != first})
    messages = {
        "out_of_scope": f"This does not look like a {task.subject}.",
        "unknown_class": f"This may be a {task.noun} that the model does not know.",
        "low_confidence": f"The model is only {100 * confidence:.0f} % sure of its first choice; "
        f"below {100 * calibration.review_threshold:.0f} % a person should check.",
        "close_call": f"It is a close call between {' and '.join(names)}.",
        "variants_disagree": f"The models do not agree on the {task.noun}: another says "
        f"{' or '.join(others)}.",
    }
    reasons = [ReviewReason("poor_image", poor)] if poor else []
    reasons += [ReviewReason(code, messages[code]) for code, flags in judged.reasons.items() if flags[0]]
    chosen = None if poor else _group(calibration.groups, int(judged.group[0]), labels, probabilities)
    code = (
        ("poor_image" if poor else None)
        or ("outside" if judged.outside[0] else None)
        or ("unknown" if judged.unknown[0] else None)
        or ("group" if chosen else "answer")
    )
    text = verdict_text(
        code,
        subject=task.subject,
        noun=task.noun,
        name=names[0],
        confidence=confidence,
        group_name=chosen.name if chosen else "",
        names=[display_name(label) for label in chosen.labels] if chosen else (),
        looks_like_name=looks_like,
    )
    return Decision(
        verdict=Verdict(code, text),
        group=chosen if code == "group" else None,
        review=Review(bool(reasons), tuple(reasons), calibration.review_threshold),
        candidates=tuple(int(index) for index in order if judged.sets[0, index]),
    )


def _group(
    groups: Sequence[LabelGroup], number: int, labels: Sequence[str], probabilities: Doubles
) -> Group | None:
    """The group of that number with its labels sorted by probability; None for -1."""
    if number < 0:
        return None
    members = sorted(groups[number].labels, key=lambda index: -probabilities[index])
    mass = min(1.0, float(probabilities[members].sum()))
    return Group(groups[number].name, tuple(labels[index] for index in members), mass)
