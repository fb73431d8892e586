"""evaluate: a classifier and a folder of labelled images to an Evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pawmatch.calibration import Calibration
from pawmatch.calibration.apply import calibrated, scope_margin, tempered
from pawmatch.calibration.decide import Judged, Observed, know
from pawmatch.calibration.decide import judge as judge_known
from pawmatch.calibration.fit import MAX_UNKNOWN_ANSWERED, REVIEW_TARGET, Evidence
from pawmatch.calibration.measure import Halves, judge_halves
from pawmatch.classifier import Classifier
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

MIN_IMAGES_OF_HALVES = 20
# Reasons for a review that follow from confidence alone.
OF_CONFIDENCE = ("low_confidence", "close_call", "variants_disagree")
CURVE_POINTS = 200


def evaluate(
    classifier: Classifier,
    folder: Path,
    *,
    calibration: str = "own",
    variants: Sequence[str] = (),
    outside: Sequence[Path] = (),
    unknown: Sequence[Path] = (),
    faithfulness: int = 0,
    follow: Follow = lambda things, what, count: things,
) -> Evaluation:
    """Measure `variants`, by default all, on the labelled images of `folder`.

    `calibration` is "own" for what users get, or "halves" on the images that it was fitted on; see
    `judge_by_halves`. `outside` are images that do not belong to the task, `unknown` those of classes that
    have no label, `faithfulness` is on how many images heatmaps are tested; `follow` wraps each long loop
    with its name and length. Images that cannot be read are left out and named. Raises BadOption where none
    can be read, UnknownVariant, NotACheckpoint if a model gives values that are no numbers, and what
    `folders.labelled_files` raises.
    """
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
        judgements: dict[str, Judged | Halves] = {v: judge(own[v], answers, v) for v in own}
    else:
        judgements = {v: judge_by_halves(classifier.labels, answers, v, targets) for v in own}
        # Which fit said what of an image is not known one by one.
        answers = replace(answers, verdicts=np.array([]))
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
    `verdicts` (N,) are the codes of what it says, and `reasons` has for each code of a review which images
    (N,) it holds for; `score` (N,) is how known the class looks to the main variant, None without a rule;
    `doubted` (N,) says where that took a second look.
    """

    rows: NDArray[np.int64]
    logits: dict[str, NDArray[np.float32]]
    scope: dict[str, NDArray[np.float64]]
    chosen: NDArray[np.int64]
    verdicts: NDArray[np.str_]
    reasons: Mapping[str, Bools]
    score: NDArray[np.float64] | None
    doubted: Bools
    unreadable: tuple[Unreadable, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def flagged(self) -> Bools:
        """Whether any reason holds for an image (N,)."""
        flagged: Bools = np.any([np.zeros(len(self), bool), *self.reasons.values()], axis=0)
        return flagged


def collect(
    classifier: Classifier, files: Sequence[Path], follow: Callable[[Iterable[Any]], Iterable[Any]] = iter
) -> Answers:
    """Examine every file; one that cannot be read is left out and named.

    Memory: classes x variants x 4 bytes an image; the images themselves are let go batch by batch. Raises
    NotACheckpoint if a model gives values that are no numbers.
    """
    rows: list[int] = []
    logits: dict[str, list[NDArray[np.float32]]] = {variant: [] for variant in classifier.variants}
    predictions: list[Prediction] = []
    doubted: list[bool] = []
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
        predictions.append(classifier.to_prediction(entry, top_k=1))
        doubted.append(entry.doubted)
        for variant, values in entry.logits.items():
            logits[variant].append(values)
        for variant, margins in scope.items():
            gates = calibrations[variant].scope_gates
            margins.append(float(scope_margin(gates, entry.pooled[variant])))
        if (known := classifier.know(entry).score) is not None:
            score.append(float(known[0]))
    reasons = [{reason.code for reason in one.review.reasons} for one in predictions]
    return Answers(
        rows=np.array(rows, dtype=np.int64),
        logits={
            variant: np.array(values, np.float32).reshape(-1, len(classifier.labels))
            for variant, values in logits.items()
        },
        scope={variant: np.array(values) for variant, values in scope.items()},
        chosen=np.array([classifier.labels.index(one.top.label) for one in predictions], dtype=np.int64),
        verdicts=np.array([one.verdict.code for one in predictions]),
        reasons={
            code: np.array([code in codes for codes in reasons]) for code in sorted(set().union(*reasons))
        },
        score=np.array(score) if score else None,
        doubted=np.array(doubted, dtype=bool),
        unreadable=tuple(unreadable),
    )


def judge(calibration: Calibration, answers: Answers, variant: str) -> Judged:
    """Judge the answers of a variant by a checkpoint's own calibration."""
    return judge_known(calibration, know(calibration, _observed(answers, variant)))


def judge_by_halves(
    labels: Sequence[str], answers: Answers, variant: str, targets: NDArray[np.int64]
) -> Halves:
    """Judge each image by fits on random halves that it is not in, as training does.

    `labels` are the classes' names, `targets` (N,) the true classes. Raises BadOption for too few images.
    """
    if len(targets) < MIN_IMAGES_OF_HALVES:
        raise BadOption(
            f"{len(targets)} images are too few to fit a calibration on half of them; "
            f"give {MIN_IMAGES_OF_HALVES} or more, or use --calibration own."
        )
    others = replace(answers, reasons={c: v for c, v in answers.reasons.items() if c not in OF_CONFIDENCE})
    evidence = Evidence(
        own=_observed(answers, variant), labels=targets, names=tuple(labels), flagged=others.flagged
    )
    return judge_halves(evidence, target=REVIEW_TARGET, max_unknown=MAX_UNKNOWN_ANSWERED)


def _observed(answers: Answers, variant: str) -> Observed:
    choices = np.stack([logits.argmax(axis=1) for logits in answers.logits.values()])
    return Observed(answers.logits[variant], choices, doubted=answers.doubted)


def with_reasons_of(judgement: Judged | Halves, answers: Answers) -> Answers:
    """The answers with the reasons for a review that follow from the main variant's judgement."""
    of_confidence = {code: judgement.reasons[code] for code in OF_CONFIDENCE}
    return replace(answers, reasons={**answers.reasons, **of_confidence})


def measure_variant(
    variant: str,
    calibration: Calibration,
    labels: tuple[str, ...],
    answers: Answers,
    targets: NDArray[np.int64],
    judgement: Judged | Halves,
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
    flagged, correct = answers.flagged, answers.chosen == targets
    reasons = {code: share(flags) for code, flags in answers.reasons.items() if flags.any()}
    nowhere = np.zeros(0 if outside is None else len(outside), bool)
    return ReviewReport(
        verdicts=_verdict_shares(answers),
        flagged=share(flagged),
        reasons=dict(sorted(reasons.items(), key=lambda entry: -entry[1].value)),
        accuracy=share(correct),
        unflagged_accuracy=_share_or_none(correct[~flagged]),
        flagged_accuracy=_share_or_none(correct[flagged]),
        outside_flagged=share(outside.flagged) if outside else None,
        outside_out_of_scope=share(outside.reasons.get("out_of_scope", nowhere)) if outside else None,
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
        answered=share((unknown.verdicts == "answer") & ~unknown.flagged),
        verdicts=_verdict_shares(unknown),
    )


def _verdict_shares(answers: Answers) -> dict[str, Estimate]:
    return {code: share(answers.verdicts == code) for code in VERDICTS} if len(answers.verdicts) else {}


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
