"""What a calibration says of many images: the checkpoint's own, or fits on halves of the images measured.

The checkpoint's own is what users get. On the images that it was fitted on it looks better than it is;
there, fits on random halves of the images, judged on what they have not seen, say what to expect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pawmatch.calibration import Calibration
from pawmatch.calibration.crossfit import judge_halves
from pawmatch.calibration.decide import Observed, know
from pawmatch.calibration.decide import judge as judge_known
from pawmatch.calibration.fit import MAX_UNKNOWN_ANSWERED, REVIEW_TARGET, Evidence
from pawmatch.errors import BadOption
from pawmatch.evaluation.answers import Answers
from pawmatch.metrics import Bools

CALIBRATIONS = ("own", "halves")
FEWEST_OF_HALVES = 20
# Reasons for a review that follow from confidence alone.
OF_CONFIDENCE = ("low_confidence", "close_call", "variants_disagree")


@dataclass(frozen=True)
class Judgement:
    """One variant's probabilities and candidate sets (N, classes), and OF_CONFIDENCE as flags (N,)."""

    probabilities: NDArray[np.float64]
    sets: Bools
    reasons: Mapping[str, Bools]


def judge(calibration: Calibration, answers: Answers, variant: str) -> Judgement:
    """Judge the answers of a variant by a checkpoint's own calibration."""
    known = know(calibration, _observed(answers, variant))
    judged = judge_known(calibration, known)
    return Judgement(known.probabilities, judged.sets, {code: judged.reasons[code] for code in OF_CONFIDENCE})


def judge_by_halves(
    labels: Sequence[str], answers: Answers, variant: str, targets: NDArray[np.int64]
) -> Judgement:
    """Judge each image by fits on random halves that it is not in, as training does.

    `labels` are the classes' names, `targets` (N,) the true classes. Raises BadOption for too few images.
    """
    if len(targets) < FEWEST_OF_HALVES:
        raise BadOption(
            f"{len(targets)} images are too few to fit a calibration on half of them; "
            f"give {FEWEST_OF_HALVES} or more, or use --calibration own."
        )
    evidence = Evidence(
        own=_observed(answers, variant),
        labels=targets,
        names=tuple(labels),
        flagged=np.array([any(code not in OF_CONFIDENCE for code in codes) for codes in answers.reasons]),
    )
    judged = judge_halves(evidence, target=REVIEW_TARGET, max_unknown=MAX_UNKNOWN_ANSWERED)
    return Judgement(
        judged.probabilities, judged.sets, {code: judged.reasons[code] for code in OF_CONFIDENCE}
    )


def _observed(answers: Answers, variant: str) -> Observed:
    choices = np.stack([logits.argmax(axis=1) for logits in answers.logits.values()])
    return Observed(answers.logits[variant], choices)


def with_reasons_of(judgement: Judgement, answers: Answers) -> Answers:
    """The answers with the reasons for a review that follow from the main variant's judgement."""
    reasons = [
        (
            *(code for code in codes if code not in OF_CONFIDENCE),
            *(code for code, flags in judgement.reasons.items() if flags[row]),
        )
        for row, codes in enumerate(answers.reasons)
    ]
    return replace(answers, reasons=tuple(reasons))
