"""Phrasing: percentages, articles, lists and verdicts in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pawmatch.phrasing import listed, percent, thing, verdict_line, verdict_text, with_article
from pawmatch.results import Group, Verdict
from tests.ui.made import make_prediction

DOG: dict[str, Any] = {"subject": "dog", "noun": "breed"}
PAINTING: dict[str, Any] = {"subject": "painting", "noun": "artist"}
NAMES = ("Beagle", "Harrier", "Foxhound", "Basset Hound", "Bloodhound")


@pytest.mark.parametrize(
    ("name", "spoken"),
    [
        ("Border Collie", "a Border Collie"),
        ("Akita", "an Akita"),
        ("Old English Sheepdog", "an Old English Sheepdog"),
        ("Irish Setter", "an Irish Setter"),
        ("Entlebucher Mountain Dog", "an Entlebucher Mountain Dog"),
        ("Eurasier", "a Eurasier"),
        ("Uruguayan Cimarron", "a Uruguayan Cimarron"),
        ("Xoloitzcuintli", "a Xoloitzcuintli"),
    ],
)
def test_names_are_spoken_with_the_right_article(name: str, spoken: str) -> None:
    assert with_article(name) == spoken


@pytest.mark.parametrize(
    ("confidence", "text"),
    [
        (0.0, "under 1 %"),
        (0.0099, "under 1 %"),
        (0.01, "1 %"),
        (0.714, "71 %"),
        (0.994, "99 %"),
        (0.995, "over 99 %"),
        (1.0, "over 99 %"),
    ],
)
def test_percentages_never_claim_certainty(confidence: float, text: str) -> None:
    assert percent(confidence) == text


def test_lists_are_those_of_a_sentence() -> None:
    assert listed(()) == ""
    assert listed(("a",)) == "a"
    assert listed(("a", "b")) == "a or b"
    assert listed(("a", "b", "c"), "and") == "a, b and c"


def test_what_is_seen_depends_on_whether_names_are_those_of_persons() -> None:
    assert thing("Akita", **DOG) == "an Akita"
    assert thing("Claude Monet", **PAINTING) == "a painting by Claude Monet"
    assert thing("Egret", subject="animal", noun="bird") == "an Egret"


@pytest.mark.parametrize(
    ("code", "words", "text"),
    [
        ("answer", {**DOG, "name": "Golden Retriever", "confidence": 0.8}, "Golden Retriever"),
        ("answer", {**DOG, "name": "Beagle", "confidence": 0.79}, "Probably a Beagle"),
        ("answer", {**DOG, "name": "Akita", "confidence": 0.49}, "Perhaps an Akita"),
        ("answer", {**PAINTING, "name": "Francisco Goya", "confidence": 0.5}, "Probably Francisco Goya"),
        (
            "group",
            {**DOG, "group_name": "scent hound", "names": NAMES[:3]},
            "A scent hound: Beagle, Harrier or Foxhound",
        ),
        ("group", {**DOG, "names": NAMES[:4]}, "Beagle, Harrier, Foxhound or Basset Hound"),
        ("group", {**DOG, "names": NAMES}, "Beagle, Harrier, Foxhound or one of 2 others"),
        ("unknown", DOG, "A dog, but of no breed that I know; perhaps a mix"),
        ("unknown", PAINTING, "A painting, but by no artist that I know"),
        ("unknown", {"subject": "insect", "noun": "species"}, "An insect, but of no species that I know"),
        ("outside", {**DOG, "looks_like_name": "tabby cat"}, "No dog here: this looks like a tabby cat"),
        ("outside", PAINTING, "No painting here"),
        ("poor_image", DOG, "The picture is too small, too narrow, too plain or too blurred to tell"),
    ],
)
def test_each_verdict_has_its_words(code: str, words: dict[str, Any], text: str) -> None:
    assert verdict_text(code, **words) == text


def test_other_codes_are_no_verdict() -> None:
    with pytest.raises(ValueError, match="'sure'"):
        verdict_text("sure", **DOG)


def test_a_line_has_the_confidence_that_the_verdict_is_about() -> None:
    answer = make_prediction(0.714)
    group = replace(answer, verdict=Verdict("group", "A dog"), group=Group("dog", ("Akita", "Pug"), 0.93))
    assert verdict_line(answer) == "Border Collie, 71 %"
    assert verdict_line(group) == "A dog, 93 %"
    assert verdict_line(replace(answer, verdict=Verdict("outside", "No dog here"))) == "No dog here"
