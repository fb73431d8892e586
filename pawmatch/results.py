"""What a prediction and an explanation consist of: frozen dataclasses of plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Len

from pawmatch.strict import Name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


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
class Candidate:
    """One class with its calibrated confidence in [0, 1]."""

    label: str
    name: str
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """The candidate as JSON values."""
        return {"label": self.label, "name": self.name, "confidence": self.confidence}


@dataclass(frozen=True)
class ReviewReason:
    """Why a person should check: a stable code and a sentence in plain words."""

    code: str
    message: str


@dataclass(frozen=True)
class Review:
    """Whether a person should check the answer, why, and the confidence below which that is asked."""

    needed: bool
    reasons: tuple[ReviewReason, ...]
    threshold: float

    def to_dict(self) -> dict[str, Any]:
        """The review decision as JSON values."""
        reasons = [{"code": reason.code, "message": reason.message} for reason in self.reasons]
        return {"needed": self.needed, "reasons": reasons, "threshold": self.threshold}


@dataclass(frozen=True)
class VariantAnswer:
    """The first choice of one of the task's variants, with its calibrated confidence."""

    variant: str
    label: str
    name: str
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """The answer as JSON values."""
        return {
            "variant": self.variant,
            "label": self.label,
            "name": self.name,
            "confidence": self.confidence,
        }


@dataclass(frozen=True)
class ModelInfo:
    """Which model answered: where its weights are from, its variant, backbone and class count."""

    source: str
    variant: str
    backbone: str
    classes: int

    def to_dict(self) -> dict[str, Any]:
        """The model's description as JSON values."""
        return {
            "source": self.source,
            "variant": self.variant,
            "backbone": self.backbone,
            "classes": self.classes,
        }


@dataclass(frozen=True)
class Verdict:
    """What there is to say about one image: a stable code and a line in plain words.

    From sure to lost the codes are `answer` (one label), `group` (one of several that look alike),
    `unknown` (the subject, but like no label), `outside` (another subject) and `poor_image`.
    """

    code: str
    text: str

    def to_dict(self) -> dict[str, Any]:
        """The verdict as JSON values."""
        return {"code": self.code, "text": self.text}


@dataclass(frozen=True)
class Group:
    """Labels that look alike, with the confidence in [0, 1] that the true one is among them."""

    name: str
    labels: tuple[str, ...]
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """The group as JSON values."""
        return {"name": self.name, "labels": list(self.labels), "confidence": self.confidence}


@dataclass(frozen=True)
class LookAlike:
    """What a picture without the task's subject looks like, with the confidence in [0, 1]."""

    name: str
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """The look-alike as JSON values."""
        return {"name": self.name, "confidence": self.confidence}


@dataclass(frozen=True)
class SubjectBox:
    """Where a subject was found, in pixels of the upright photo from its top left, with a score in [0, 1]."""

    x: float
    y: float
    width: float
    height: float
    score: float

    def to_dict(self) -> dict[str, Any]:
        """The box as JSON values."""
        return {"x": self.x, "y": self.y, "width": self.width, "height": self.height, "score": self.score}


@dataclass(frozen=True)
class Prediction:
    """The answer for one image, calibrated, sorted by confidence, not renormalised over the top k.

    `group` is given where the candidates look alike, `looks_like` where the subject is missing, and `boxes`
    where subjects were looked for and found. `words` is what the task calls itself; the JSON has its name.
    """

    task: str
    model: ModelInfo
    verdict: Verdict
    predictions: tuple[Candidate, ...]
    review: Review
    candidates_90: tuple[str, ...]
    variants: tuple[VariantAnswer, ...]
    group: Group | None = None
    looks_like: tuple[LookAlike, ...] = ()
    boxes: tuple[SubjectBox, ...] = ()
    timing_ms: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    words: Task | None = None

    @property
    def top(self) -> Candidate:
        """The class with the highest confidence."""
        return self.predictions[0]

    def to_dict(self) -> dict[str, Any]:
        """The prediction as the JSON object that every interface gives."""
        return {
            "task": self.task,
            "model": self.model.to_dict(),
            "verdict": self.verdict.to_dict(),
            "predictions": [candidate.to_dict() for candidate in self.predictions],
            "review": self.review.to_dict(),
            "candidates_90": list(self.candidates_90),
            "group": self.group.to_dict() if self.group else None,
            "looks_like": [one.to_dict() for one in self.looks_like],
            "boxes": [box.to_dict() for box in self.boxes],
            "variants": [answer.to_dict() for answer in self.variants],
            "timing_ms": dict(self.timing_ms),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class Heatmap:
    """Where one variant found evidence for one class.

    `cam` is the coarse map itself, float32 (grid rows, grid columns) scaled to [0, 1]; `raw_max` is the
    largest value before that scaling, so that a map of nothing can be told from a map of something: 0
    means that no region speaks for the class. `box` is the part of the upright image that the model saw
    (left, top, right, bottom, in pixels), `size` that image's width and height. `confidence` is the
    variant's calibrated confidence in `label`.
    """

    variant: str
    label: str
    cam: NDArray[np.float32]
    raw_max: float
    confidence: float
    box: tuple[float, float, float, float]
    size: tuple[int, int]

    @property
    def values(self) -> NDArray[np.float32]:
        """The map over the upright image, float32 (h, w) in [0, 1]; 0 outside the part that was seen.

        Made anew at each call: a stored explanation stays small.
        """
        import cv2
        import numpy as np

        width, height = self.size
        left, top, right, bottom = (round(edge) for edge in self.box)
        values = np.zeros((height, width), dtype=np.float32)
        # Bilinear adds no detail that the coarse map does not have.
        values[top:bottom, left:right] = cv2.resize(
            self.cam, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR
        )
        return values


@dataclass(frozen=True)
class Explanation:
    """A prediction with one heatmap and one overlay per variant, all for the same label.

    `photo` is the upright picture that the overlays are drawn on.
    """

    prediction: Prediction
    label: str
    name: str
    photo: Image.Image
    heatmaps: Mapping[str, Heatmap]
    overlays: Mapping[str, Image.Image]

    def to_dict(self) -> dict[str, Any]:
        """The prediction's JSON object with an added `explanation` entry (no pixels)."""
        heatmaps = {
            variant: {
                "confidence": heatmap.confidence,
                "raw_max": heatmap.raw_max,
                "grid": list(heatmap.cam.shape),
            }
            for variant, heatmap in self.heatmaps.items()
        }
        explained = {"label": self.label, "name": self.name, "heatmaps": heatmaps}
        return {**self.prediction.to_dict(), "explanation": explained}
