"""The comparison's numbers, against examples worked out by hand."""

from __future__ import annotations

import json

import pytest

from pawmatch.errors import CheckpointError, ImageNotFound
from pawmatch.evaluation.compare import ImageAnswers, Part, compare
from pawmatch.results import VariantAnswer

VARIANTS = ("cnn", "cnn_transformer", "cnn_transformer_mfe")


def image(
    labels: str, *confidences: float, truth: str | None = None, sure_of_truth: tuple[float, ...] = ()
) -> ImageAnswers:
    """The answers to one image: one letter and one confidence per variant."""
    answers = tuple(
        VariantAnswer(variant, label, label, confidence)
        for variant, label, confidence in zip(VARIANTS, labels, confidences, strict=False)
    )
    return ImageAnswers(f"{labels}.jpg", answers, truth, sure_of_truth)


FOUR = (
    image("AAA", 0.9, 0.8, 0.5, truth="A", sure_of_truth=(0.9, 0.8, 0.5)),
    image("AAB", 0.3, 0.4, 0.2, truth="B", sure_of_truth=(0.1, 0.0, 0.2)),
    image("ABC", 0.5, 0.2, 0.4),
    image("BBB", 0.7, 1.0, 0.1, truth="C", sure_of_truth=(0.2, 0.0, 0.0)),
)


def test_confidence_of_each_variant() -> None:
    cnn, transformer, mfe = compare(iter(FOUR)).variants
    assert [summary.variant for summary in (cnn, transformer, mfe)] == list(VARIANTS)
    # 0.9, 0.3, 0.5, 0.7: deviations from 0.6 are 0.3, 0.3, 0.1, 0.1, their squares' mean is 0.05.
    assert cnn.confidence.mean == pytest.approx(0.6)
    assert cnn.confidence.median == pytest.approx(0.6)
    assert cnn.confidence.std == pytest.approx(0.05**0.5)
    assert (cnn.confidence.min, cnn.confidence.max) == (0.3, 0.9)
    assert cnn.confidence.at_half_or_more.images == 3
    # 0.8, 0.4, 0.2, 1.0: the middle two are 0.4 and 0.8.
    assert transformer.confidence.median == pytest.approx(0.6)
    assert transformer.confidence.at_half_or_more.images == 2
    assert mfe.confidence.at_half_or_more.images == 1  # 0.5 itself counts
    assert mfe.confidence.median == pytest.approx(0.3)


def test_a_bin_has_its_lower_edge_and_the_last_one_has_both() -> None:
    cnn, transformer, mfe = compare(FOUR).variants
    assert cnn.confidence.histogram == (0, 0, 0, 1, 0, 1, 0, 1, 0, 1)
    assert transformer.confidence.histogram == (0, 0, 1, 0, 1, 0, 0, 0, 1, 1)
    assert mfe.confidence.histogram == (0, 1, 1, 0, 1, 1, 0, 0, 0, 0)


def test_accuracy_counts_only_images_whose_truth_is_known() -> None:
    comparison = compare(FOUR)
    assert (comparison.images, comparison.judged) == (4, 3)
    accuracies = [summary.accuracy for summary in comparison.variants]
    assert [accuracy and (accuracy.right, accuracy.judged) for accuracy in accuracies] == [
        *((1, 3), (1, 3), (2, 3))
    ]
    cnn = comparison.variants[0].true_label_confidence
    assert cnn is not None
    assert cnn.mean == pytest.approx(0.4)
    assert cnn.at_half_or_more == Part(1, 1 / 3)


def test_agreement_counts_equal_first_choices() -> None:
    comparison = compare(FOUR)
    assert comparison.agreement == ((4, 3, 2), (3, 4, 2), (2, 2, 4))
    assert comparison.unanimous == Part(2, 0.5)
    assert [entry.agreed for entry in FOUR] == [True, False, False, True]


def test_the_most_confidence_in_different_answers_says_how_far_variants_differ() -> None:
    # AAB: 0.3 and 0.2, 0.4 and 0.2. ABC: 0.5 and 0.2, 0.5 and 0.4, 0.2 and 0.4.
    assert [entry.difference for entry in FOUR] == [0, 0.2, 0.4, 0]


def test_who_is_right_is_named_where_the_truth_is_known() -> None:
    assert [entry.right for entry in FOUR] == [VARIANTS, VARIANTS[2:], (), ()]


def test_without_truth_nothing_is_judged() -> None:
    comparison = compare([image("AB", 0.2, 0.8)])
    assert comparison.judged == 0
    assert all(summary.accuracy is None for summary in comparison.variants)
    assert all(summary.true_label_confidence is None for summary in comparison.variants)
    assert comparison.agreement == ((1, 0), (0, 1))
    assert comparison.variants[0].confidence.std == 0


def test_json_has_shares_and_plain_values() -> None:
    values = json.loads(json.dumps(compare(FOUR).to_dict(), allow_nan=False))
    assert values["agreement"]["cnn"] == {"cnn": 1.0, "cnn_transformer": 0.75, "cnn_transformer_mfe": 0.5}
    assert values["unanimous"] == {"images": 2, "share": 0.5}
    assert values["histogram_edges"] == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]
    mfe = values["variants"][2]
    assert mfe["accuracy"]["right"] == 2
    assert mfe["confidence"]["at_half_or_more"] == {"images": 1, "share": 0.25}
    assert set(mfe["true_label_confidence"]) == set(mfe["confidence"])


def test_a_softmax_just_above_one_is_counted() -> None:
    comparison = compare([image("A", 1.0000000002)])
    assert comparison.variants[0].confidence.histogram[-1] == 1
    assert comparison.variants[0].confidence.max == 1


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(ImageNotFound, match="no image to compare"):
        compare([])


def test_a_confidence_that_is_no_number_is_an_error() -> None:
    with pytest.raises(CheckpointError, match="no numbers"):
        compare([image("A", float("nan"))])


def test_images_of_different_variants_are_not_mixed() -> None:
    with pytest.raises(ValueError, match="other variants"):
        compare([image("AA", 0.1, 0.2), image("A", 0.1)])
