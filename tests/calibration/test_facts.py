"""Facts beside the picture: the tables, the fusion, and the question that decides."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pawmatch.calibration.facts import (
    MAX_CHOICES,
    MAX_WEIGHT,
    MIN_ERROR,
    MIN_GAIN,
    UNSURE,
    WORDS,
    Attribute,
    answer_likelihood,
    best_question,
    expected_gain,
    fact_table,
    fuse,
    given_facts,
    translated_facts,
    with_facts,
)
from pawmatch.errors import BadOption
from pawmatch.labels import read_labels, spelling_key
from pawmatch.results import Choice
from pawmatch.ui.speech import LANGUAGES

Doubles = NDArray[np.float64]
TABLES = {
    path.name: tomllib.loads(path.read_text(encoding="utf-8"))
    for path in (files("pawmatch") / "labels" / "facts").iterdir()
}
LISTS = {"breed.toml": "breed", "artist.toml": "artist"}


def attribute(key: str, usual: Sequence[Sequence[bool]], *, asked: bool = True) -> Attribute:
    choices = tuple(Choice(f"{key}{number}", f"{key} {number}") for number in range(len(usual)))
    return Attribute(key, key, f"Which {key}?", choices, answer_likelihood(np.array(usual), 0.2), asked)


def entropy(probabilities: Doubles) -> float:
    return float(-(probabilities * np.log2(probabilities)).sum())


def oracle_gain(probabilities: Doubles, likelihood: Doubles) -> float:
    """The entropy now less that after each possible answer, by how likely the answer is."""
    after = 0.0
    for row in likelihood:
        joint = probabilities * row
        after += joint.sum() * entropy(joint / joint.sum())
    return entropy(probabilities) - after


# --- the tables


@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_table_knows_every_class_and_says_everything_in_every_language(name: str) -> None:
    table = TABLES[name]
    assert table["languages"] == list(LANGUAGES)
    assert set(table["classes"]) == set(read_labels(LISTS[name]))
    assert MIN_ERROR <= table["error"] < 0.5
    assert 0 < table["weight"] <= MAX_WEIGHT
    for key, words in table["attributes"].items():
        assert re.fullmatch("[a-z]+", key)
        assert key != WORDS
        assert 2 <= len(words["values"]) <= MAX_CHOICES
        assert UNSURE not in words["values"]
        for texts in (words["name"], words["question"], *words["values"].values()):
            assert len(texts) == len(LANGUAGES)
            assert all(text == text.strip() and text.isprintable() for text in texts)
        by_language = zip(*words["values"].values(), strict=True)
        assert all(len(set(texts)) == len(texts) for texts in by_language)
    for facts in table["classes"].values():
        for key, said in facts.items():
            values = [said] if isinstance(said, str) else said
            assert set(values) <= set(table["attributes"][key]["values"])
            assert len(set(values)) == len(values) > 0


def test_equal_english_texts_are_equal_in_other_languages() -> None:
    for number in range(1, len(LANGUAGES)):
        said: dict[str, str] = {}
        for table in TABLES.values():
            for words in table["attributes"].values():
                for texts in (words["name"], words["question"], *words["values"].values()):
                    assert said.setdefault(texts[0], texts[number]) == texts[number]
    assert translated_facts("de")["wiry, rough"] == "drahtig, rau"
    assert translated_facts("en")["wiry, rough"] == "wiry, rough"


def test_the_table_is_the_one_that_knows_the_labels() -> None:
    artists = fact_table(read_labels("artist"))
    assert [one.key for one in artists][:2] == ["year", "medium"]
    size = fact_table(["pug", "Great Dane", "Unheard Of"])[0]
    assert [choice.value for choice in size.choices] == ["tiny", "small", "medium", "large", "giant"]
    assert size.likelihood[:, 0].argmax() == 1
    assert size.likelihood[:, 1].argmax() == 4
    assert np.ptp(size.likelihood[:, 2]) == 0
    assert fact_table(["Sparrow", "Robin", "Pug"]) == ()


# --- fusion


def test_likelihood_of_an_answer_by_hand() -> None:
    usual = np.array([[1, 1, 0, 1], [0, 1, 0, 1], [0, 0, 0, 1]], dtype=bool)
    expected = [[0.8, 0.4, 1 / 3, 1 / 3], [0.1, 0.4, 1 / 3, 1 / 3], [0.1, 0.2, 1 / 3, 1 / 3]]
    np.testing.assert_allclose(answer_likelihood(usual, 0.2), expected)
    tempered = answer_likelihood(usual, 0.2, 0.5)
    np.testing.assert_allclose(tempered[0, 0] / tempered[1, 0], np.sqrt(8))
    np.testing.assert_allclose(tempered.sum(axis=0), 1)


def test_fusion_is_bayes_rule() -> None:
    picture = np.array([0.5, 0.3, 0.2])
    rows = [np.array([0.8, 0.1, 0.1]), np.array([0.2, 0.2, 0.6])]
    np.testing.assert_allclose(fuse(picture, rows[:1]), np.array([0.4, 0.03, 0.02]) / 0.45)
    product = picture * rows[0] * rows[1]
    np.testing.assert_allclose(fuse(picture, rows), product / product.sum())
    np.testing.assert_allclose(fuse(picture, rows), fuse(picture, rows[::-1]))


@pytest.mark.parametrize("name", sorted(LISTS.values()))
def test_no_single_answer_outweighs_a_sure_picture(name: str) -> None:
    labels = read_labels(name)
    table = fact_table(labels)
    spread = 16 / 17 + 1e-6
    for first in range(len(labels)):
        for rival in {(first + 1) % len(labels), (first + 7) % len(labels)} - {first}:
            picture = np.full(len(labels), 0.0)
            picture[[first, rival]] = spread, 1 - spread
            for one in table:
                for choice in one.choices:
                    (fact,) = given_facts(table, {one.key: choice.value})
                    assert with_facts(picture, table, (fact,)).argmax() == first


@pytest.mark.parametrize("name", sorted(LISTS.values()))
def test_an_answer_multiplies_odds_by_sixteen_at_most(name: str) -> None:
    for one in fact_table(read_labels(name)):
        ratios = one.likelihood.max(axis=1) / one.likelihood.min(axis=1)
        assert ratios.max() <= 16 + 1e-9


def test_what_is_taken_back_leaves_no_trace() -> None:
    labels = read_labels("breed")
    table, picture = fact_table(labels), np.random.default_rng(0).dirichlet(np.full(len(labels), 0.1))
    both = given_facts(table, {"size": "small", "coat": "long"})
    one = given_facts(table, {"size": "small"})
    unsure = given_facts(table, {"size": "small", "coat": UNSURE})
    assert not np.array_equal(with_facts(picture, table, both), with_facts(picture, table, one))
    assert np.array_equal(with_facts(picture, table, both[:1]), with_facts(picture, table, one))
    assert np.array_equal(with_facts(picture, table, unsure), with_facts(picture, table, one))
    assert np.array_equal(with_facts(picture, table, ()), picture)


# --- what to ask


def test_expected_gain_is_what_the_oracle_says() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        rows, likelihood = rng.dirichlet(np.ones(6), 3), rng.dirichlet(np.ones(4), 6).T
        expected = [oracle_gain(row, likelihood) for row in rows]
        np.testing.assert_allclose(expected_gain(rows, likelihood), expected, atol=1e-12)
    # Two classes as likely that one answer without errors tells apart: one bit.
    np.testing.assert_allclose(expected_gain(np.array([0.5, 0.5]), np.eye(2) + 1e-12), 1)
    np.testing.assert_allclose(expected_gain(np.array([1.0, 0.0]), np.array([[0.8, 0.2], [0.2, 0.8]])), 0)


@pytest.mark.parametrize("name", sorted(LISTS.values()))
def test_the_question_is_the_one_of_largest_gain(name: str) -> None:
    labels, rng = read_labels(name), np.random.default_rng(2)
    table, asked = fact_table(labels), set()
    for _ in range(40):
        picture = rng.dirichlet(np.full(len(labels), 0.05)) * 0.999 + 0.001 / len(labels)
        gains = {one.key: oracle_gain(picture, one.likelihood) for one in table if one.asked}
        best = max(gains, key=lambda key: gains[key])
        question = best_question(picture, table, ())
        assert (question.attribute if question else None) == (best if gains[best] >= MIN_GAIN else None)
        if question:
            asked.add(question.attribute)
            again = best_question(picture, table, given_facts(table, {question.attribute: UNSURE}))
            assert again is None or again.attribute != question.attribute
    assert len(asked) > 2


def test_only_useful_questions_are_asked() -> None:
    useless = attribute("a", [[True, True], [False, False]])
    useful = attribute("b", [[True, False], [False, True]])
    unasked = attribute("c", [[True, False], [False, True]], asked=False)
    even, sure = np.array([0.5, 0.5]), np.array([0.999, 0.001])
    question = best_question(even, [useless, unasked, useful], ())
    assert question is not None
    assert question.attribute == "b"
    assert [choice.value for choice in question.choices] == ["b0", "b1"]
    assert best_question(sure, [useful], ()) is None
    assert best_question(even, [useless, unasked], ()) is None
    assert best_question(even, [], ()) is None


# --- what was said


def test_facts_are_checked() -> None:
    table = fact_table(read_labels("breed"))
    (fact,) = given_facts(table, {"size": "small"})
    assert (fact.attribute, fact.value, fact.name, fact.text) == (
        "size",
        "small",
        "Size",
        "small, 5 to 12 kg",
    )
    assert given_facts(table, None) == given_facts(table, {}) == given_facts((), {}) == ()


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"words": 3}, "^words is '3'; give at most 300 characters of text.$"),
        ({"words": "x" * 301}, "^words is 'x{40}'; give at most"),
        ({"siez": "small"}, r"'siez' is unknown; use size, coat, .* or work\.$"),
        ({"size": "huge"}, r"^size is 'huge'; use tiny, small, medium, large, giant or unsure\.$"),
        ({"size": 3}, "^size is '3'; use tiny"),
        ({"size": ["small"]}, "^size is .*; use tiny"),
        ("size=small", '^facts is .*; give an object such as {"attribute": "value"}.$'),
        (["size"], "^facts is "),
    ],
)
def test_bad_facts_are_refused_in_words(facts: Any, said: str) -> None:
    with pytest.raises(BadOption, match=said):
        given_facts(fact_table(read_labels("breed")), facts)


def test_words_are_facts_as_far_as_they_are_understood() -> None:
    table = fact_table(read_labels("breed"))
    told = given_facts(table, {"words": "Big white FLUFFY dog named Rex, upright ears"})
    assert {fact.attribute: fact.value for fact in told} == {
        "size": "large",
        "color": "white",
        "texture": "fluffy",
        "ears": "upright",
    }
    assert told[0] == given_facts(table, {told[0].attribute: told[0].value})[0]
    assert given_facts(table, {"words": "my friend Rex"}) == given_facts(table, {"words": ""}) == ()
    # What is said for sure stands.
    both = given_facts(table, {"size": UNSURE, "words": "big, upright ears"})
    assert {fact.attribute: fact.value for fact in both} == {"size": UNSURE, "ears": "upright"}


def test_classes_without_a_table_take_no_facts() -> None:
    with pytest.raises(BadOption, match="leave the facts out"):
        given_facts((), {"size": "small"})
    with pytest.raises(BadOption, match="leave the facts out"):
        given_facts((), {"words": "small"})


def test_a_class_may_be_spelt_as_people_do() -> None:
    keys = [spelling_key(label) for label in TABLES["breed.toml"]["classes"]]
    assert len(set(keys)) == len(keys)
