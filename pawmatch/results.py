"""What a prediction and an explanation consist of: frozen dataclasses of plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Len

from pawmatch.strict import Name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


MIN_STRENGTH = 0.25  # of a heatmap: below it there is little evidence


class Record:
    """A dataclass that can be written as JSON."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; what is no number is null."""
        values: dict[str, Any] = _plain(self)
        return values


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in fields(value)}
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Task:
    """One question about a picture, as a checkpoint's config holds it.

    `subject` is what the picture has to show ("animal"), `noun` and `plural` are what is looked for
    ("species"); `examples` are file names of pictures to try.
    """

    name: str
    title: Name
    subject: Name
    noun: Name
    plural: Name
    examples: Annotated[tuple[Name, ...], Len(0, 64)] = ()


@dataclass(frozen=True)
class Candidate(Record):
    """One class with its calibrated confidence in [0, 1]."""

    label: str
    name: str
    confidence: float


@dataclass(frozen=True)
class ReviewReason:
    """Why a person should check: a stable code and a sentence in plain words."""

    code: str
    message: str


@dataclass(frozen=True)
class Review(Record):
    """Whether a person should check the answer, why, and the confidence below which that is asked."""

    needed: bool
    reasons: tuple[ReviewReason, ...]
    threshold: float


@dataclass(frozen=True)
class VariantAnswer(Record):
    """The first choice of one of the task's variants, with its calibrated confidence."""

    variant: str
    label: str
    name: str
    confidence: float


@dataclass(frozen=True)
class ModelInfo(Record):
    """Which model answered: where its weights are from, its variant, backbone and class count."""

    source: str
    variant: str
    backbone: str
    classes: int


@dataclass(frozen=True)
class Verdict(Record):
    """What there is to say about one image: a stable code and a line in plain words.

    From sure to lost the codes are `answer` (one label), `group` (one of several that look alike),
    `unknown` (the subject, but like no label), `outside` (another subject) and `poor_image`.
    """

    code: str
    text: str


@dataclass(frozen=True)
class Group(Record):
    """Labels that look alike, with the confidence in [0, 1] that the true one is among them."""

    name: str
    labels: tuple[str, ...]
    confidence: float


@dataclass(frozen=True)
class LookAlike(Record):
    """What a picture without the task's subject looks like, with the confidence in [0, 1]."""

    name: str
    confidence: float


@dataclass(frozen=True)
class SubjectBox(Record):
    """Where a subject was found, in pixels of the upright photo from its top left, with a score in [0, 1]."""

    x: float
    y: float
    width: float
    height: float
    score: float


@dataclass(frozen=True)
class Fact(Record):
    """What somebody said of the subject beside its picture; `name` and `text` are for people."""

    attribute: str
    value: str
    name: str
    text: str


@dataclass(frozen=True)
class Choice(Record):
    """One answer that a question takes: the value, and the words for it."""

    value: str
    text: str


@dataclass(frozen=True)
class Question(Record):
    """The one question about the subject whose answer is expected to tell most about its class."""

    attribute: str
    text: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True, kw_only=True)
class Prediction(Record):
    """The answer for one image, calibrated, sorted by confidence, not renormalized over the top k.

    `group` is given where the candidates look alike, `looks_like` where the subject is missing, and `boxes`
    where subjects were looked for and found. `facts` are what the confidence rests on beside the picture, and
    `question` would help most to be surer. `words` is what the task calls itself; the JSON has its name.
    """

    task: str
    model: ModelInfo
    verdict: Verdict
    predictions: tuple[Candidate, ...]
    review: Review
    candidates_90: tuple[str, ...]
    group: Group | None = None
    looks_like: tuple[LookAlike, ...] = ()
    boxes: tuple[SubjectBox, ...] = ()
    variants: tuple[VariantAnswer, ...]
    facts: tuple[Fact, ...] = ()
    question: Question | None = None
    timing_ms: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    words: Task | None = None

    @property
    def top(self) -> Candidate:
        """The class with the highest confidence."""
        return self.predictions[0]

    def to_dict(self) -> dict[str, Any]:
        """The prediction as the JSON object that every interface gives."""
        values = super().to_dict()
        del values["words"]
        return values


@dataclass(frozen=True)
class Heatmap:
    """Where one variant found evidence for one class.

    `cam` is the coarse map itself, float32 (grid rows, grid columns) in [0, 1]; its highest value is
    `strength`, how much the class has for it beside the variant's first choice, whose map reaches 1.
    `raw_max` is the largest value before any scaling: 0 means that no region speaks for the class. `box` is
    the part of the upright image that the model saw (left, top, right, bottom, in pixels), `size` that
    image's width and height. `confidence` is the variant's calibrated confidence in `label`.
    """

    variant: str
    label: str
    cam: NDArray[np.float32]
    raw_max: float
    confidence: float
    box: tuple[float, float, float, float]
    size: tuple[int, int]
    strength: float = 1.0

    @property
    def is_weak(self) -> bool:
        """Whether there is little evidence for the class, or none."""
        return self.raw_max <= 0 or self.strength < MIN_STRENGTH

    @property
    def edges(self) -> tuple[int, int, int, int]:
        """The box in whole pixels, at least one wide and high: left, top, right, bottom."""
        left, top, right, bottom = (round(edge) for edge in self.box)
        width, height = self.size
        left, top = min(left, width - 1), min(top, height - 1)
        return left, top, max(right, left + 1), max(bottom, top + 1)

    @property
    def values(self) -> NDArray[np.float32]:
        """The map over the upright image, float32 (h, w) in [0, 1]; 0 outside the part that was seen.

        Made anew at each call: a stored explanation stays small.
        """
        import cv2
        import numpy as np

        left, top, right, bottom = self.edges
        values = np.zeros(self.size[::-1], dtype=np.float32)
        # Bilinear adds no detail that the coarse map does not have.
        values[top:bottom, left:right] = cv2.resize(
            self.cam, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR
        )
        return values


@dataclass(frozen=True)
class Parts:
    """What the parts of one variant did with the plain view of a picture, for one class.

    `attention`, float32 (layers, heads, grid rows, grid columns), is how much each head draws from each
    place: a hybrid's into the pooled vector, where its map sums to 1, and CHAE's into the CLS token, which
    takes the rest from itself. None without attention over places. `branches` is what each morphological
    branch contributes to the class's logit, all of them together `logit` less `silent`, the logit with every
    branch at 0. Logits are counted from the mean of all classes. Empty and 0 without branches.
    """

    attention: NDArray[np.float32] | None = None
    branches: Mapping[str, float] = field(default_factory=dict)
    silent: float = 0.0
    logit: float = 0.0


@dataclass(frozen=True)
class Explanation:
    """A prediction with one heatmap and one overlay per variant, all for the same label.

    `photo` is the upright picture that the overlays are drawn on. `parts` has the views into each variant's
    parts, if they were asked for.
    """

    prediction: Prediction
    label: str
    name: str
    photo: Image.Image
    heatmaps: Mapping[str, Heatmap]
    overlays: Mapping[str, Image.Image]
    parts: Mapping[str, Parts] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The prediction's JSON object with an added `explanation` entry (no pixels)."""
        heatmaps = {
            variant: {
                "confidence": heatmap.confidence,
                "raw_max": heatmap.raw_max,
                "strength": heatmap.strength,
                "grid": list(heatmap.cam.shape),
            }
            for variant, heatmap in self.heatmaps.items()
        }
        explained: dict[str, Any] = {"label": self.label, "name": self.name, "heatmaps": heatmaps}
        if self.parts:
            explained["parts"] = {
                variant: {
                    "heads": None if parts.attention is None else list(parts.attention.shape),
                    "branches": dict(parts.branches),
                    "silent": parts.silent,
                    "logit": parts.logit,
                }
                for variant, parts in self.parts.items()
            }
        return {**self.prediction.to_dict(), "explanation": explained}
