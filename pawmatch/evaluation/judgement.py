"""What a calibration says of many images: the checkpoint's own, or fits on halves of the images measured.

The checkpoint's own is what users get. On the images that it was fitted on it looks better than it is;
there, fits on random halves of the images, judged on what they have not seen, say what to expect.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pawmatch.calibration import Calibration
from pawmatch.confidence import calibrated
from pawmatch.errors import BadOption
from pawmatch.evaluation.answers import Answers
from pawmatch.evaluation.metrics import Bools
from pawmatch.evaluation.sets import candidate_sets
from pawmatch.training.crossfit import close_calls, judge_halves

CALIBRATIONS = ("own", "halves")
FEWEST_OF_HALVES = 20
OF_CONFIDENCE = ("low_confidence", "close_call")  # reasons for a review that a calibration decides on


@dataclass(frozen=True)
class Judgement:
    """Probabilities and candidate sets (N, classes) of one variant, and two reasons for a review (N,)."""

    probabilities: NDArray[np.float64]
    sets: Bools
    low_confidence: Bools
    close_call: Bools


def judge(calibration: Calibration, logits: NDArray[np.float32]) -> Judgement:
    """Judge logits (N, classes) by a checkpoint's own calibration."""
    probabilities = calibrated(logits, calibration)
    return Judgement(
        probabilities=probabilities,
        sets=candidate_sets(probabilities, calibration.conformal_quantile),
        low_confidence=probabilities.max(axis=1) < calibration.review_threshold,
        close_call=close_calls(probabilities, calibration.close_call_margin),
    )


def judge_by_halves(
    calibration: Calibration, answers: Answers, variant: str, targets: NDArray[np.int64], *, target: float
) -> Judgement:
    """Judge each image by fits on random halves that it is not in, as training does.

    `target` is the rate at which answers that nobody checks have to be right. The checkpoint's own
    calibration gives the margin of close calls only. Raises BadOption for too few images.
    """
    if len(targets) < FEWEST_OF_HALVES:
        raise BadOption(
            f"{len(targets)} images are too few to fit a calibration on half of them; "
            f"give {FEWEST_OF_HALVES} or more, or use --calibration own."
        )
    judged = judge_halves(answers.logits[variant], targets, _otherwise_flagged(answers), target=target)
    return Judgement(
        probabilities=judged.probabilities,
        sets=judged.sets,
        low_confidence=judged.below_threshold,
        close_call=close_calls(judged.probabilities, calibration.close_call_margin),
    )


def _otherwise_flagged(answers: Answers) -> Bools:
    """Which images (N,) are flagged for a reason that no calibration decides on."""
    return np.array([any(code not in OF_CONFIDENCE for code in codes) for codes in answers.reasons])


def with_reasons_of(judgement: Judgement, answers: Answers) -> Answers:
    """The answers with the reasons for a review that follow from the main variant's judgement."""
    decided = {code: getattr(judgement, code) for code in OF_CONFIDENCE}
    reasons = [
        (
            *(code for code in codes if code not in OF_CONFIDENCE),
            *(code for code, flags in decided.items() if flags[row]),
        )
        for row, codes in enumerate(answers.reasons)
    ]
    return replace(answers, reasons=tuple(reasons))
