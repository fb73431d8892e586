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
from pawmatch.classifier import Classifier, ModelOutputs
from pawmatch.errors import BadOption, PawMatchError, UnknownVariant
from pawmatch.evaluation.faithfulness import measure_faithfulness, spread
from pawmatch.evaluation.folders import evaluated_folder, examine_files, labelled_files
from pawmatch.evaluation.report import (
    VERDICTS,
    Evaluation,
    ReviewReport,
    RiskPoint,
    ScopeReport,
    UnknownReport,
    Unreadable,
    VariantReport,
    class_scores,
    confusions,
    reliability,
)
from pawmatch.metrics import (
    Bools,
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
from pawmatch.results import Prediction

Follow = Callable[[Iterable[Any], str, int], Iterable[Any]]

CALIBRATIONS = ("own", "halves")
MIN_IMAGES_OF_HALVES = 20
# Reasons for a review that follow from confidence alone.
OF_CONFIDENCE = ("low_confidence", "close_call", "variants_disagree")
CURVE_POINTS = 200


def unfollowed(things: Iterable[Any], what: str, count: int) -> Iterable[Any]:
    """The things themselves: no progress is shown."""
    return things


def evaluate(
    classifier: Classifier,
    folder: Path,
    *,
    calibration: str = "own",
    variants: Sequence[str] = (),
    outside: Sequence[Path] = (),
    unknown: Sequence[Path] = (),
    faithfulness: int = 0,
    follow: Follow = unfollowed,
) -> Evaluation:
    """Measure `variants`, by default all, on the labelled images of `folder`.

    `calibration` is "own" for what users get, or "halves" on the images that it was fitted on; see
    `judge_by_halves`. `outside` are images that do not belong to the task, `unknown` those of classes that
    have no label, `faithfulness` is on how many images heatmaps are tested; `follow` wraps each long loop
    with its name and length. Images that cannot be read are left out and named. Raises BadOption where none
    can be read, UnknownVariant, NotACheckpoint if a model gives values that are no numbers, and what
    `folders.labelled_files` raises.
    """
    if calibration not in CALIBRATIONS:
        raise BadOption(f"Calibration {calibration!r} is unknown; use {' or '.join(CALIBRATIONS)}.")
    variants = _known(classifier, variants)
    files = labelled_files(folder, classifier.labels)

    def answers_to(paths: Sequence[Path], what: str, place: object) -> Answers:
        answers = collect(classifier, paths, lambda things: follow(things, what, len(paths)))
        if not len(answers):
            raise BadOption(f"No image of {place} can be read; check that it holds pictures.")
        return answers

    answers = answers_to([file.path for file in files], "images", folder)
    beyond = answers_to(outside, "outside images", "the outside folder") if outside else None
    strange = answers_to(unknown, "unknown images", "the unknown folder") if unknown else None
    read = [files[row] for row in answers.rows]
    targets = np.array([file.target for file in read], dtype=np.int64)
    backgrounds = [outside[row] for row in beyond.rows] if beyond else []
    own = {v: member.checkpoint.config.calibration for v, member in classifier.members.items()}
    if calibration == "own":
        judgements = {variant: judge(own[variant], answers, variant) for variant in own}
    else:
        judgements = {v: judge_by_halves(classifier.labels, answers, v, targets) for v in own}
        # Which fit said what of an image is not known one by one.
        answers = replace(answers, verdicts=())
    main = classifier.main.variant
    tested = spread(read, faithfulness)
    heatmaps = follow(tested, "heatmaps", len(tested))
    flagged = with_reasons_of(judgements[main], answers)
    return Evaluation(
        task=classifier.task.name,
        source=classifier.source,
        main=main,
        folder=str(evaluated_folder(folder)),
        calibration=calibration,
        images=len(read),
        classes_with_images=len(np.unique(targets)),
        classes=len(classifier.labels),
        unreadable=tuple(entry for some in (answers, beyond, strange) if some for entry in some.unreadable),
        outside_images=len(backgrounds),
        review=measure_review(flagged, targets, beyond),
        unknown=measure_unknown(answers, strange, main, own[main]) if strange else None,
        variants={
            v: measure_variant(v, own[v], classifier.labels, answers, targets, judgements[v], beyond)
            for v in variants
        },
        faithfulness=measure_faithfulness(classifier, variants, heatmaps, backgrounds) if tested else {},
    )


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
    `verdicts` are the codes of what it says, `reasons` those of its reasons for a review; `score` (N,) is
    how known the class looks to the main variant, None without a rule for it.
    """

    rows: NDArray[np.int64]
    logits: dict[str, NDArray[np.float32]]
    scope: dict[str, NDArray[np.float64]]
    chosen: NDArray[np.int64]
    verdicts: tuple[str, ...]
    reasons: tuple[tuple[str, ...], ...]
    score: NDArray[np.float64] | None
    unreadable: tuple[Unreadable, ...]

    def __len__(self) -> int:
        return len(self.rows)


def collect(
    classifier: Classifier, files: Sequence[Path], follow: Callable[[Iterable[Any]], Iterable[Any]] = iter
) -> Answers:
    """Examine every file; one that cannot be read is left out and named.

    Memory: classes x variants x 4 bytes an image; the images themselves are let go batch by batch. Raises
    NotACheckpoint if a model gives values that are no numbers.
    """
    rows: list[int] = []
    examined: list[tuple[dict[str, NDArray[np.float32]], Prediction]] = []
    calibrations = {v: m.checkpoint.config.calibration for v, m in classifier.members.items()}
    scope: dict[str, list[float]] = {v: [] for v, own in calibrations.items() if own.scope_gates}
    score: list[float] = []
    unreadable: list[Unreadable] = []
    found = ((str(file), None) for file in files)
    for row, (file, entry) in enumerate(follow(examine_files(classifier, found))):
        if isinstance(entry, PawMatchError):
            unreadable.append(Unreadable(file, entry.code, str(entry)))
            continue
        rows.append(row)
        examined.append((entry.logits, classifier.to_prediction(entry, top_k=1)))
        for variant in scope:
            scope[variant].append(
                float(scope_margin(calibrations[variant].scope_gates, entry.pooled[variant]))
            )
        if (known := _score(classifier, entry)) is not None:
            score.append(known)
    classes, predictions = len(classifier.labels), [prediction for _, prediction in examined]
    return Answers(
        rows=np.array(rows, dtype=np.int64),
        logits={
            variant: np.array([logits[variant] for logits, _ in examined], np.float32).reshape(-1, classes)
            for variant in classifier.variants
        },
        scope={variant: np.array(values) for variant, values in scope.items()},
        chosen=np.array([classifier.labels.index(one.top.label) for one in predictions], dtype=np.int64),
        verdicts=tuple(one.verdict.code for one in predictions),
        reasons=tuple(tuple(reason.code for reason in one.review.reasons) for one in predictions),
        score=np.array(score) if score else None,
        unreadable=tuple(unreadable),
    )


def _score(classifier: Classifier, examined: ModelOutputs) -> float | None:
    """The main variant's unknown score of one image."""
    main = classifier.main
    imagenet = None if examined.imagenet is None else examined.imagenet[None]
    logits = examined.logits[main.variant][None]
    observed = Observed(logits, logits.argmax(axis=1)[None], imagenet=imagenet)
    known = know(main.checkpoint.config.calibration, observed, classifier.own_classes)
    return None if known.score is None else float(known.score[0])


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
    if len(targets) < MIN_IMAGES_OF_HALVES:
        raise BadOption(
            f"{len(targets)} images are too few to fit a calibration on half of them; "
            f"give {MIN_IMAGES_OF_HALVES} or more, or use --calibration own."
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
        reliability=reliability(calibration_bins(confidence, correct)),
        reliability_before=reliability(calibration_bins(confidence_before, correct)),
        risk_coverage=_points(risk_coverage(confidence, correct)),
    )


def measure_review(
    answers: Answers, targets: NDArray[np.int64], outside: Answers | None = None
) -> ReviewReport:
    """Measure the review flag and the answers as users get them on N images of classes `targets` (N,)."""
    flagged = _flagged(answers)
    correct = answers.chosen == targets
    return ReviewReport(
        verdicts=_verdict_shares(answers),
        flagged=share(flagged),
        reasons={code: share(_with_reason(answers, code)) for code in _codes(answers)},
        accuracy=share(correct),
        unflagged_accuracy=_share_or_none(correct[~flagged]),
        flagged_accuracy=_share_or_none(correct[flagged]),
        outside_flagged=share(_flagged(outside)) if outside else None,
        outside_out_of_scope=share(_with_reason(outside, "out_of_scope")) if outside else None,
        outside_verdicts=_verdict_shares(outside) if outside else {},
    )


def measure_unknown(own: Answers, unknown: Answers, main: str, calibration: Calibration) -> UnknownReport:
    """Measure how images of the labels' classes are told from those of others, by the main variant."""
    sure, unsure = (calibrated(answers.logits[main], calibration).max(axis=1) for answers in (own, unknown))
    scores = None if own.score is None or unknown.score is None else (own.score, unknown.score)
    return UnknownReport(
        images=len(unknown),
        auroc=_auroc(*scores) if scores else None,
        auroc_of_confidence=_auroc(sure, unsure),
        answered=share(
            np.array(
                [
                    code == "answer" and not flags
                    for code, flags in zip(unknown.verdicts, unknown.reasons, strict=True)
                ]
            )
        ),
        verdicts=_verdict_shares(unknown),
    )


def _verdict_shares(answers: Answers) -> dict[str, Estimate]:
    given = np.array(answers.verdicts)
    return {code: share(given == code) for code in VERDICTS} if answers.verdicts else {}


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


def _points(curve: RiskCoverage) -> tuple[RiskPoint, ...]:
    thin = curve.thinned(CURVE_POINTS)
    columns = (thin.coverage.tolist(), thin.risk.tolist(), thin.threshold.tolist())
    return tuple(RiskPoint(*point) for point in zip(*columns, strict=True))
