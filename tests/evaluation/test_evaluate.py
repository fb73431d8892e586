"""evaluate: from a folder to an Evaluation, from Python."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pawmatch import load
from pawmatch.calibration import Calibration, ScopeGate, UnknownRule, measure
from pawmatch.calibration.apply import calibrated, candidate_sets, tempered
from pawmatch.calibration.decide import Observed
from pawmatch.calibration.fit import Evidence, fit_calibration
from pawmatch.checkpoint import load_checkpoint
from pawmatch.classifier import Classifier
from pawmatch.errors import BadOption, NotACheckpoint, UnknownVariant
from pawmatch.evaluation.evaluate import (
    OF_CONFIDENCE,
    Answers,
    collect,
    evaluate,
    judge,
    judge_by_halves,
    measure_review,
    measure_unknown,
    measure_variant,
    with_reasons_of,
)
from pawmatch.evaluation.report import Evaluation
from pawmatch.metrics import expected_calibration_error
from pawmatch.results import Prediction


@pytest.fixture(scope="module")
def classifier(tiny_checkpoints: Callable[..., Path]) -> Classifier:
    return load("breed", tiny_checkpoints("breed"))


def test_figures_are_those_of_the_answers_served(
    classifier: Classifier, kennel: Path, few_resamples: None
) -> None:
    evaluation = evaluate(classifier, kennel)
    files = sorted(kennel.rglob("*.png"))
    truth = ["Border_Collie" if path.parent.name == "border collie" else path.parent.name for path in files]
    served = [entry for entry in classifier.predict_batch(files) if isinstance(entry, Prediction)]
    right = np.array([one.top.label == label for one, label in zip(served, truth, strict=True)])
    flagged = np.array([one.review.needed for one in served])
    assert evaluation.review.accuracy.value == pytest.approx(right.mean())
    assert evaluation.review.flagged.value == pytest.approx(flagged.mean())
    for code, share in evaluation.review.verdicts.items():
        assert share.value == pytest.approx(np.mean([one.verdict.code == code for one in served]))
    for code, share in evaluation.review.reasons.items():
        with_code = [code in {reason.code for reason in one.review.reasons} for one in served]
        assert share.value == pytest.approx(np.mean(with_code))
    for variant, report in evaluation.variants.items():
        answers = [next(a for a in one.variants if a.variant == variant).label for one in served]
        assert report.top1.value == pytest.approx(np.mean(np.array(answers) == truth))
        assert report.set_size.value >= 1
    main = evaluation.variants[evaluation.main]
    assert main.set_size.value == pytest.approx(np.mean([len(one.candidates_90) for one in served]))


def test_loops_are_followed_by_name(
    classifier: Classifier, kennel: Path, dog: Path, few_resamples: None
) -> None:
    seen = {}

    def follow(things: Iterable[Any], what: str, count: int) -> Iterable[Any]:
        seen[what] = count
        return things

    beside: dict[str, Any] = {"outside": [dog], "unknown": [dog]}
    evaluation = evaluate(classifier, kennel, variants=["cnn"], faithfulness=2, follow=follow, **beside)
    assert seen == {"images": 9, "outside images": 1, "unknown images": 1, "heatmaps": 2}
    assert list(evaluation.variants) == list(evaluation.faithfulness) == ["cnn"]
    assert evaluation.faithfulness["cnn"].images == 2


def test_what_cannot_be_asked_is_refused(classifier: Classifier, kennel: Path, dog: Path) -> None:
    with pytest.raises(UnknownVariant, match="'rnn' is not in"):
        evaluate(classifier, kennel, variants=["rnn"])
    with pytest.raises(BadOption, match=r"9 images are too few .* use --calibration own"):
        evaluate(classifier, kennel, calibration="halves")
    dog.write_bytes(b"no picture")
    with pytest.raises(BadOption, match="No image of the outside folder"):
        evaluate(classifier, kennel, outside=[dog])
    with pytest.raises(BadOption, match="No image of the unknown folder"):
        evaluate(classifier, kennel, unknown=[dog])


def test_a_model_of_no_numbers_is_refused(tiny_checkpoints: Callable[..., Path], kennel: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoints("breed") / "cnn")
    checkpoint.model.get_parameter("classifier.2.bias").fill_(float("nan"))
    broken = Classifier("breed", [replace(checkpoint, source="broken")])
    with pytest.raises(NotACheckpoint, match="The variant cnn of broken computes NaN"):
        evaluate(broken, kennel)


def test_answers_are_those_of_serving(tiny_checkpoints: Callable[..., Path], kennel: Path) -> None:
    classifier = load("breed", tiny_checkpoints("breed"))
    files = sorted(kennel.rglob("*.png"))
    files[4].write_bytes(b"no picture")
    answers = collect(classifier, files)
    assert answers.rows.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert [(Path(u.file), u.code) for u in answers.unreadable] == [(files[4], "UnsupportedFormat")]
    served = [entry for entry in classifier.predict_batch(files) if isinstance(entry, Prediction)]
    assert [classifier.labels[index] for index in answers.chosen] == [one.top.label for one in served]
    for row, prediction in enumerate(served):
        codes = {code for code, flags in answers.reasons.items() if flags[row]}
        assert codes == {reason.code for reason in prediction.review.reasons}
        for answer in prediction.variants:
            probabilities = calibrated(
                answers.logits[answer.variant][row],
                classifier.members[answer.variant].checkpoint.config.calibration,
            )
            assert probabilities.max() == pytest.approx(answer.confidence)
    assert answers.scope == {}


def test_scope_scores_decide_as_serving_does(tiny_checkpoints: Callable[..., Path], kennel: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoints("breed") / "cnn")
    files = sorted(kennel.rglob("*.png"))
    gate = ScopeGate((1.0,) * 16, 0.0, 0.0, "made up")

    def with_threshold(threshold: float) -> Classifier:
        calibration = replace(
            checkpoint.config.calibration, scope_gates=(replace(gate, threshold=threshold),)
        )
        return Classifier(
            "breed", [replace(checkpoint, config=replace(checkpoint.config, calibration=calibration))]
        )

    margins = collect(with_threshold(0.0), files).scope["cnn"]
    answers = collect(with_threshold(float(np.median(margins))), files)
    flagged = answers.reasons["out_of_scope"].tolist()
    assert flagged == (answers.scope["cnn"] < 0).tolist() == (margins < np.median(margins)).tolist()
    assert 0 < sum(flagged) < len(files)


NAMES = ("a", "b", "c", "d")
OWN = Calibration(temperature=2.0, review_threshold=0.5, close_call_margin=0.2, conformal_quantile=0.8)


def drawn(count: int = 120, classes: int = 4) -> tuple[Answers, np.ndarray]:
    """Answers three times as sure as they should be, and the truth; every fifth is out of scope."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(count, classes)).astype(np.float32)
    targets = np.array([rng.choice(classes, p=row) for row in tempered(logits, 1.0)])
    reasons = dict.fromkeys(("out_of_scope", "low_confidence"), np.arange(count) % 5 == 0)
    logits *= 3
    chosen, verdicts = logits.argmax(axis=1), np.array(["answer"] * count)
    return Answers(
        np.arange(count), {"cnn": logits}, {}, chosen, verdicts, reasons, None, chosen < 0, ()
    ), targets


def test_halves_are_judged_by_fits_on_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "HALVINGS", 20)
    given, targets = drawn(count=600)
    logits = given.logits["cnn"]
    judged = judge_by_halves(NAMES, given, "cnn", targets)
    flagged = given.reasons["out_of_scope"]
    observed = Observed(logits, logits.argmax(axis=1)[None])
    fit = fit_calibration(Evidence(observed, targets, NAMES, flagged=flagged))
    np.testing.assert_allclose(judged.probabilities, tempered(logits, fit.temperature), atol=0.05)
    assert 2 < fit.temperature < 5
    confidence, correct = judged.probabilities.max(axis=1), judged.probabilities.argmax(axis=1) == targets
    before = tempered(logits, 1.0).max(axis=1)
    assert expected_calibration_error(confidence, correct) < expected_calibration_error(before, correct) / 2
    assert 0.8 < judged.sets[np.arange(len(targets)), targets].mean() <= 1


def test_reasons_follow_the_judgement() -> None:
    given, _ = drawn(count=3)
    second = np.array([False, True, False])
    judged = replace(judge(OWN, given, "cnn"), reasons=dict.fromkeys(OF_CONFIDENCE, second))
    reasons = with_reasons_of(judged, given).reasons
    # Those that no calibration decides on stay.
    assert {code: flags.tolist() for code, flags in reasons.items()} == {
        "out_of_scope": [True, False, False],
        **dict.fromkeys(OF_CONFIDENCE, second.tolist()),
    }


LABELS = ("a", "b", "c")
# Four images of a, b, c, c; the third is taken for a, surely.
LOGITS = np.array([[3, 0, 0], [0, 2, 0], [6, 0, 1], [0, 0, 1]], dtype=np.float32)
TARGETS = np.array([0, 1, 2, 2])
ANSWERS = Answers(
    rows=np.arange(4),
    logits={"cnn": LOGITS},
    scope={},
    chosen=LOGITS.argmax(axis=1),
    verdicts=np.array(["answer", "answer", "group", "outside"]),
    score=None,
    doubted=np.zeros(4, dtype=bool),
    reasons={"low_confidence": np.arange(4) > 2, "close_call": np.arange(4) > 1},
    unreadable=(),
)
CALIBRATION = Calibration(temperature=2.0, review_threshold=0.55, conformal_quantile=0.6)


def test_a_variant_of_known_answers(few_resamples: None) -> None:
    report = measure_variant("cnn", CALIBRATION, LABELS, ANSWERS, TARGETS, judge(CALIBRATION, ANSWERS, "cnn"))
    probabilities = tempered(LOGITS, 2.0)
    sets = candidate_sets(probabilities, 0.6)
    assert report.top1.value == 0.75
    assert report.top5.value == 1
    assert report.temperature == 2
    assert report.nll.value == pytest.approx(-np.log(probabilities[range(4), TARGETS]).mean())
    assert report.nll_before.value == pytest.approx(-np.log(tempered(LOGITS, 1)[range(4), TARGETS]).mean())
    assert report.set_coverage.value == sets[range(4), TARGETS].mean()
    assert report.set_size.value == sets.sum(axis=1).mean()
    # Confidences 0.69, 0.58, 0.88 and 0.45: the last one is below the threshold.
    assert report.kept.value == 0.75
    assert report.kept_accuracy is not None
    assert report.kept_accuracy.value == pytest.approx(2 / 3)
    assert [(pair.truth, pair.answer) for pair in report.confusions] == [("c", "a")]
    assert report.risk_coverage[0].risk == 1
    assert report.scope is None
    assert sum(entry.count for entry in report.reliability) == 4


def test_only_an_error_beyond_chance_is_improbable(few_resamples: None) -> None:
    """Labels drawn from the very probabilities, and the same answers made five times as sure."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 3)).astype(np.float32)
    targets = np.array([rng.choice(3, p=row) for row in tempered(logits, 1.0)])
    answers = replace(ANSWERS, rows=np.arange(300), logits={"cnn": logits}, reasons={})
    for temperature, is_rare in ((1.0, False), (0.2, True)):
        own = Calibration(temperature=temperature)
        report = measure_variant("cnn", own, LABELS, answers, targets, judge(own, answers, "cnn"))
        assert (report.ece_p_value < 0.05) == is_rare
        assert (report.ece.value > 2 * report.ece_floor) == is_rare


def test_none_above_the_threshold(few_resamples: None) -> None:
    strict = replace(CALIBRATION, review_threshold=1.0)
    report = measure_variant("cnn", strict, LABELS, ANSWERS, TARGETS, judge(strict, ANSWERS, "cnn"))
    assert report.kept.value == 0
    assert report.kept_accuracy is None


def test_the_review_flag() -> None:
    report = measure_review(ANSWERS, TARGETS)
    assert report.flagged.value == 0.5
    assert {code: share.value for code, share in report.reasons.items()} == {
        "close_call": 0.5,
        "low_confidence": 0.25,
    }
    assert report.unflagged_accuracy is not None
    assert report.unflagged_accuracy.value == 1
    assert report.flagged_accuracy is not None
    assert report.flagged_accuracy.value == 0.5
    assert report.outside_flagged is None
    assert {code: share.value for code, share in report.verdicts.items() if share.value} == {
        "answer": 0.5,
        "group": 0.25,
        "outside": 0.25,
    }
    unflagged = measure_review(replace(ANSWERS, reasons={}), TARGETS, ANSWERS)
    assert unflagged.flagged_accuracy is None
    assert unflagged.outside_flagged is not None
    assert unflagged.outside_flagged.value == 0.5


def test_scope_against_another_folder(made_up: Callable[..., Evaluation]) -> None:
    scope = made_up().variants["cnn"].scope
    assert scope is not None
    # Scores of two normal distributions, two standard deviations apart: 0.921 in the limit.
    assert 0.8 < scope.auroc.value < 1
    assert scope.own_flagged.value < 0.35 < 0.65 < scope.outside_flagged.value
    assert scope.auroc.low < scope.auroc.value < scope.auroc.high


def test_the_json_holds_every_report(made_up: Callable[..., Evaluation]) -> None:
    evaluation = made_up()
    values = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert values["variants"]["cnn"]["top1"]["value"] == evaluation.variants["cnn"].top1.value
    assert len(values["variants"]["cnn"]["reliability"]) == 15
    assert values["review"]["reasons"]["close_call"]["low"] > 0
    assert evaluation.leading.variant == "cnn_transformer_mfe"
    assert made_up(variants=("cnn",)).leading.variant == "cnn"


def test_unknown_classes_are_told_by_the_score_or_else_by_confidence(few_resamples: None) -> None:
    known = replace(ANSWERS, score=np.array([2.0, 1.0, 3.0, 0.0]))
    strange = replace(
        ANSWERS,
        logits={"cnn": LOGITS / np.float32(4)},
        verdicts=np.array(["answer", "answer", "unknown", "answer"]),
        reasons={"unknown_class": np.array([False, True, True, False])},
        score=np.array([0.5, -1.0, -2.0, -3.0]),
    )
    report = measure_unknown(known, strange, "cnn", CALIBRATION)
    assert report.auroc is not None
    assert report.auroc.value == 15 / 16  # 0.0 alone lies below a score of the others
    assert report.auroc_of_confidence.value > 0.5
    assert report.answered.value == 0.5  # without a flag
    assert report.verdicts["unknown"].value == 0.25
    without = measure_unknown(ANSWERS, strange, "cnn", CALIBRATION)
    assert without.auroc is None


@pytest.mark.parametrize("is_known", [True, False])
def test_the_score_is_that_of_the_verdict(
    tiny_checkpoints: Callable[..., Path], kennel: Path, is_known: bool
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoints("breed") / "cnn")
    rule = UnknownRule(
        weights=(0.0, 0.0, 0.0),
        bias=1.0 if is_known else -1.0,
        label_offsets=(0.0,) * 5,
        threshold=0.0,
        answer_threshold=0.0,
        fitted_on="made up",
    )
    calibration = replace(checkpoint.config.calibration, unknown=rule)
    config = replace(checkpoint.config, calibration=calibration)
    answers = collect(
        Classifier("breed", [replace(checkpoint, config=config)]), sorted(kennel.rglob("*.png"))
    )
    assert answers.score is not None
    assert ((answers.score >= 0) == is_known).all()
    assert ("unknown" in answers.verdicts) is not is_known
