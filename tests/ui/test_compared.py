"""What the page "Compare models" says of a comparison, and nothing unescaped."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from pawmatch.evaluation.compare import ImageAnswers, compare
from pawmatch.results import Review, ReviewReason, VariantAnswer
from pawmatch.ui import compared
from pawmatch.ui.speech import say
from tests.ui.test_html import EVIL, harmless

NAMES = ("cnn", "cnn_transformer", "cnn_transformer_mfe")


def answers(labels: str, truth: str | None = None) -> ImageAnswers:
    found = tuple(VariantAnswer(NAMES[i], label, label, 0.25 * (i + 1)) for i, label in enumerate(labels))
    return ImageAnswers(EVIL, found, truth, tuple(0.1 for _ in labels) if truth else ())


def row(image: ImageAnswers) -> compared.Row:
    return compared.Row(image, EVIL, {answer.variant: (EVIL, EVIL) for answer in image.answers})


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (["AAA", "AAB", "BBB"], "The 3 models agree on 2 of 3 photos"),
        (["AAA"] * 3, "The 3 models agree on all 3 photos"),
        (["AAB", "ABC"], "The 3 models never all agree on these 2 photos"),
        (["AAB"], "The 3 models differ on this photo"),
        (["AA"], "The 2 models agree on this photo"),
        (["A", "B"], "One model answered"),
    ],
)
def test_the_verdict_says_where_the_models_agree(images: list[str], sentence: str) -> None:
    assert compared.verdict(compare([answers(image) for image in images])) == sentence


def test_a_surest_model_is_not_called_the_best() -> None:
    sentence = compared.surest(compare([answers("ABC")]))
    assert sentence.startswith("CNN + Transformer + MFE is the surest, 75 % on average.")
    assert say("compare.caution") in sentence
    assert compared.surest(compare([answers("A")])) == say("compare.caution")


def test_photos_on_which_the_models_differ_come_first_and_flags_have_reasons() -> None:
    review = Review(True, (ReviewReason("close_call", "It is a close call."),), 0.5)
    alike = replace(answers("AAA"), file="alike.jpg", review=review)
    shown = compared.photos([row(alike), row(replace(answers("AAB"), file="differ.jpg"))], "")
    assert shown.index("differ.jpg") < shown.index('class="differ"') < shown.index("alike.jpg")
    assert shown.count("A person should check this") == shown.count("<li>It is a close call.</li>") == 1
    assert shown.index("alike.jpg") < shown.index("A person should check this")
    assert alike.to_dict()["review"] == review.to_dict()


def test_right_answers_are_marked() -> None:
    shown = compared.photos([row(answers("AAB", truth="A"))], "A")
    assert shown.count('aria-label="right"') == 2
    assert shown.count("A: 10&nbsp;%") == 1


def test_columns_are_as_high_as_their_counts() -> None:
    figure = compared.histograms(compare([answers("AAA"), answers("AAA"), answers("AAB")]))
    heights = re.findall(r"height:(\d+)%", figure)
    assert [heights.index("100"), heights.count("100")] == [2, 3]  # 25, 50 and 75 %, three photos each
    assert figure.count('class="high"') == 15


def everything_compared() -> list[str]:
    images = [answers("AAB", truth="A"), answers("BBB")]
    evil = ImageAnswers(EVIL, tuple(VariantAnswer(a.variant, EVIL, EVIL, 0.5) for a in images[0].answers))
    return [
        compared.introduction(),
        compared.empty(),
        compared.intakes(1, True, True),
        compared.truth_field(),
        compared.working(EVIL, EVIL, 0.5),
        compared.card(compare(images), [(EVIL, EVIL)], EVIL),
        compared.nothing_usable([(EVIL, EVIL)]),
        compared.histograms(compare(images)),
        compared.photos([row(image) for image in [*images, evil]], EVIL),
        compared.file({"x": EVIL}, "breed"),
    ]


@pytest.mark.parametrize("shown", everything_compared())
def test_nothing_from_strangers_is_taken_for_html_or_a_template(shown: str) -> None:
    harmless(shown)
