"""evaluate: a classifier and a folder of labelled images to an Evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pawmatch.calibration import Calibration
from pawmatch.calibration.apply import calibrated, scope_margin, tempered
from pawmatch.calibration.decide import Observed, know
from pawmatch.calibration.decide import judge as judge_known
from pawmatch.calibration.fit import MAX_UNKNOWN_ANSWERED, REVIEW_TARGET, Evidence
from pawmatch.calibration.measure import judge_halves
from pawmatch.classifier import Classifier
from pawmatch.errors import BadOption, NotACheckpoint, PawMatchError, UnknownVariant
from pawmatch.evaluation.faithfulness import measure_faithfulness, spread
from pawmatch.evaluation.folders import Unreadable, evaluated_folder, labelled_files
from pawmatch.evaluation.report import (
    Evaluation,
    Reliability,
    ReviewReport,
    RiskPoint,
    ScopeReport,
    VariantReport,
    class_scores,
    confusions,
)
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

Follow = Callable[[Sequence[Any], str], Iterable[Any]]


def unfollowed(things: Sequence[Any], what: str) -> Iterable[Any]:
    """The things themselves: no progress is shown."""
    return things


def evaluate(
    classifier: Classifier,
    folder: Path,
    *,
    calibration: str = "own",
    variants: Sequence[str] = (),
    outside: Sequence[Path] = (),
    faithfulness: int = 0,
    follow: Follow = unfollowed,
) -> Evaluation:
    """Measure `variants`, by default all, on the labelled images of `folder`.

    `calibration` is "own" for what users get, or "halves" on the images that it was fitted on; see
    `judgement`. `outside` are images that do not belong to the task, `faithfulness` is on how many images
    heatmaps are tested, `follow` wraps each long loop with its name. Images that cannot be read are left
    out and named. Raises BadOption where none can, UnknownVariant, NotACheckpoint if a model gives values
    that are no numbers, and what `folders.labelled_files` raises.
    """
    if calibration not in CALIBRATIONS:
        raise BadOption(f"Calibration {calibration!r} is unknown; use {' or '.join(CALIBRATIONS)}.")
    variants = _known(classifier, variants)
    files = labelled_files(folder, classifier.labels)
    answers = collect(classifier, follow([file.path for file in files], "images"))
    if not len(answers):
        raise BadOption(f"No image of {folder} can be measured; check that it holds pictures.")
    _check_numbers(answers)
    read = [files[row] for row in answers.rows]
    targets = np.array([file.target for file in read], dtype=np.int64)
    unreadable = answers.unreadable
    beyond = None
    backgrounds: list[Path] = []
    if outside:
        beyond = collect(classifier, follow(outside, "outside images"))
        if not len(beyond):
            raise BadOption("No image of the outside folder can be read; check that it holds pictures.")
        unreadable += beyond.unreadable
        backgrounds = [outside[row] for row in beyond.rows]
    own = {v: member.checkpoint.config.calibration for v, member in classifier.members.items()}
    if calibration == "own":
        judgements = {variant: judge(own[variant], answers, variant) for variant in own}
    else:
        judgements = {v: judge_by_halves(classifier.labels, answers, v, targets) for v in own}
    main = classifier.main.variant
    tested = spread(read, faithfulness)
    return Evaluation(
        task=classifier.task.name,
        source=classifier.source,
        main=main,
        folder=str(evaluated_folder(folder)),
        calibration=calibration,
        images=len(read),
        classes_with_images=len(np.unique(targets)),
        classes=len(classifier.labels),
        unreadable=unreadable,
        outside_images=len(backgrounds),
        review=measure_review(with_reasons_of(judgements[main], answers), targets, beyond),
        variants={
            v: measure_variant(v, own[v], classifier.labels, answers, targets, judgements[v], beyond)
            for v in variants
        },
        faithfulness=measure_faithfulness(classifier, variants, follow(tested, "heatmaps"), backgrounds)
        if tested
        else {},
    )


def _check_numbers(answers: Answers) -> None:
    for variant, logits in answers.logits.items():
        if not np.isfinite(logits).all():
            raise NotACheckpoint(f"Variant {variant} gives values that are no numbers; use other weights.")


def _known(classifier: Classifier, variants: Sequence[str]) -> tuple[str, ...]:
    """The variants asked for in the classifier's own order, or all of them."""
    for variant in variants:
        if variant not in classifier.members:
            known = ", ".join(classifier.variants)
            raise UnknownVariant(f"Variant {variant!r} is not in {classifier.source}; use one of {known}.")
    return tuple(variant for variant in classifier.variants if variant in (variants or classifier.variants))


@dataclass(frozen=True)
class Answers:
    """What was made of N readable images, in order.

    `rows` are their positions among the files given. `logits[variant]` is (N, classes). `scope[variant]`
    (N,) is the least margin by which each image passes the variant's scope gates, negative where it does
    not; variants without gates are left out. `chosen` (N,) is the class that the classifier answers,
    `reasons` are the codes of its reasons for a review.
    """

    rows: NDArray[np.int64]
    logits: dict[str, NDArray[np.float32]]
    scope: dict[str, NDArray[np.float64]]
    chosen: NDArray[np.int64]
    reasons: tuple[tuple[str, ...], ...]
    unreadable: tuple[Unreadable, ...]

    def __len__(self) -> int:
        return len(self.rows)


def collect(classifier: Classifier, files: Iterable[Path]) -> Answers:
    """Examine every file; one that cannot be read is left out and named.

    Memory: classes x variants x 4 bytes an image; the images themselves are let go batch by batch.
    """
    rows: list[int] = []
    logits: dict[str, list[NDArray[np.float32]]] = {variant: [] for variant in classifier.variants}
    gates = {v: m.checkpoint.config.calibration.scope_gates for v, m in classifier.members.items()}
    scope: dict[str, list[float]] = {variant: [] for variant in gates if gates[variant]}
    chosen: list[int] = []
    reasons: list[tuple[str, ...]] = []
    unreadable: list[Unreadable] = []
    names: list[str] = []

    def named() -> Iterable[Path]:
        for file in files:
            names.append(str(file))
            yield file

    for row, entry in enumerate(classifier.examine_batch(named())):
        if isinstance(entry, PawMatchError):
            unreadable.append(Unreadable(names[row], entry.code, str(entry)))
            continue
        prediction = classifier.conclude(entry, top_k=1)
        rows.append(row)
        chosen.append(classifier.labels.index(prediction.top.label))
        reasons.append(tuple(reason.code for reason in prediction.review.reasons))
        for variant, values in entry.logits.items():
            logits[variant].append(values)
        for variant in scope:
            scope[variant].append(float(scope_margin(gates[variant], entry.pooled[variant])))
    classes = len(classifier.labels)
    return Answers(
        rows=np.array(rows, dtype=np.int64),
        logits={
            variant: np.array(values, dtype=np.float32).reshape(-1, classes)
            for variant, values in logits.items()
        },
        scope={variant: np.array(values) for variant, values in scope.items()},
        chosen=np.array(chosen, dtype=np.int64),
        reasons=tuple(reasons),
        unreadable=tuple(unreadable),
    )


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
