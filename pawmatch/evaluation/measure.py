"""From answers and the truth to reports: one per variant, and one of the review flag."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from pawmatch.calibration import Calibration
from pawmatch.calibration.apply import calibrated, tempered
from pawmatch.evaluation.answers import Answers
from pawmatch.evaluation.classes import class_scores, confusions
from pawmatch.evaluation.judgement import Judgement
from pawmatch.evaluation.report import Reliability, ReviewReport, RiskPoint, ScopeReport, VariantReport
from pawmatch.metrics import (
    Bools,
    CalibrationBins,
    Estimate,
    Floats,
    RiskCoverage,
    auroc,
    bootstrap,
    brier_scores,
    calibration_bins,
    confusion_matrix,
    expected_calibration_error,
    log_losses,
    macro_f1,
    mean,
    perfect_calibration_errors,
    risk_coverage,
    share,
    top_k_hits,
)

CURVE_POINTS = 200


def measure_variant(
    variant: str,
    calibration: Calibration,
    labels: tuple[str, ...],
    answers: Answers,
    targets: NDArray[np.int64],
    judgement: Judgement,
    outside: Answers | None = None,
) -> VariantReport:
    """Measure one variant on N images whose true classes are `targets` (N,).

    `calibration` is the checkpoint's own, `judgement` what is measured of it or of another one. `outside`
    are answers for images that do not belong to the task.
    """
    logits, probabilities, sets = answers.logits[variant], judgement.probabilities, judgement.sets
    count, classes = logits.shape
    before = tempered(logits, 1.0)
    predicted = probabilities.argmax(axis=1)
    correct = predicted == targets
    confidence, confidence_before = probabilities.max(axis=1), before.max(axis=1)
    kept = ~judgement.reasons["low_confidence"]
    matrix = confusion_matrix(predicted, targets, classes)

    def calibration_error(of: Floats) -> Estimate:
        return bootstrap(
            lambda rows: expected_calibration_error(of[rows], correct[rows]), count, lowest=0, highest=1
        )

    ece, perfect = calibration_error(confidence), perfect_calibration_errors(confidence)
    return VariantReport(
        variant=variant,
        temperature=calibration.temperature,
        top1=share(correct),
        top5=share(top_k_hits(logits, targets, 5)),
        macro_f1=bootstrap(
            lambda rows: macro_f1(predicted[rows], targets[rows], classes), count, lowest=0, highest=1
        ),
        nll=mean(log_losses(probabilities, targets)),
        nll_before=mean(log_losses(before, targets)),
        brier=mean(brier_scores(probabilities, targets)),
        brier_before=mean(brier_scores(before, targets)),
        ece=ece,
        ece_before=calibration_error(confidence_before),
        ece_floor=float(perfect.mean()),
        ece_p_value=float((perfect >= ece.value).mean()),
        aurc=bootstrap(
            lambda rows: risk_coverage(confidence[rows], correct[rows]).area, count, lowest=0, highest=1
        ),
        set_coverage=share(sets[np.arange(count), targets]),
        set_size=mean(sets.sum(axis=1)),
        review_threshold=calibration.review_threshold,
        kept=share(kept),
        kept_accuracy=_share_or_none(correct[kept]),
        scope=_scope(variant, calibration, answers, outside),
        classes=class_scores(matrix, labels),
        confusions=confusions(matrix, labels),
        reliability=_reliability(calibration_bins(confidence, correct)),
        reliability_before=_reliability(calibration_bins(confidence_before, correct)),
        risk_coverage=_points(risk_coverage(confidence, correct)),
    )


def measure_review(
    answers: Answers, targets: NDArray[np.int64], outside: Answers | None = None
) -> ReviewReport:
    """Measure the review flag and the answers as users get them on N images of classes `targets` (N,)."""
    flagged = _flagged(answers)
    correct = answers.chosen == targets
    return ReviewReport(
        flagged=share(flagged),
        reasons={code: share(_with_reason(answers, code)) for code in _codes(answers)},
        accuracy=share(correct),
        unflagged_accuracy=_share_or_none(correct[~flagged]),
        flagged_accuracy=_share_or_none(correct[flagged]),
        outside_flagged=share(_flagged(outside)) if outside else None,
        outside_out_of_scope=share(_with_reason(outside, "out_of_scope")) if outside else None,
    )


def _codes(answers: Answers) -> list[str]:
    """The reasons that were given, most frequent first."""
    return [code for code, _ in Counter(code for codes in answers.reasons for code in codes).most_common()]


def _flagged(answers: Answers) -> Bools:
    return np.array([bool(codes) for codes in answers.reasons], dtype=bool)


def _with_reason(answers: Answers, code: str) -> Bools:
    return np.array([code in codes for codes in answers.reasons], dtype=bool)


def _share_or_none(hits: Bools) -> Estimate | None:
    return share(hits) if len(hits) else None


def _scope(
    variant: str, calibration: Calibration, own: Answers, outside: Answers | None
) -> ScopeReport | None:
    if outside is None or variant not in own.scope:
        return None
    inside, beyond = own.scope[variant], outside.scope[variant]
    sure, unsure = (
        calibrated(answers.logits[variant], calibration).max(axis=1) for answers in (own, outside)
    )
    return ScopeReport(
        auroc=_auroc(inside, beyond),
        auroc_of_confidence=_auroc(sure, unsure),
        own_flagged=share(inside < 0),
        outside_flagged=share(beyond < 0),
    )


def _auroc(own: Floats, outside: Floats) -> Estimate:
    """The bootstrap draws from both folders together; a draw that lacks one of them counts as no news."""
    scores, is_own = np.concatenate([own, outside]), np.arange(len(own) + len(outside)) < len(own)

    def area(rows: NDArray[np.int64]) -> float:
        drawn, inside = scores[rows], is_own[rows]
        return auroc(drawn[inside], drawn[~inside]) if 0 < inside.sum() < len(rows) else 0.5

    return bootstrap(area, len(scores), lowest=0, highest=1)


def _reliability(bins: CalibrationBins) -> tuple[Reliability, ...]:
    return tuple(
        Reliability(count, confidence if count else None, accuracy if count else None)
        for count, confidence, accuracy in zip(
            bins.count.tolist(), bins.confidence.tolist(), bins.accuracy.tolist(), strict=True
        )
    )


def _points(curve: RiskCoverage) -> tuple[RiskPoint, ...]:
    thin = curve.thinned(CURVE_POINTS)
    columns = (thin.coverage.tolist(), thin.risk.tolist(), thin.threshold.tolist())
    return tuple(RiskPoint(*point) for point in zip(*columns, strict=True))
