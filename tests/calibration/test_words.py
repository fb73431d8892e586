"""Free words: what is understood of them, and that nothing else is."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from benchmarks.words import read_rows, score
from pawmatch.calibration.facts import fact_table
from pawmatch.calibration.words import MAX_WORDS, Said, plain, understood
from pawmatch.labels import read_labels
from pawmatch.ui.speech import LANGUAGES

TABLES = {task: {one.key: one.said for one in fact_table(read_labels(task))} for task in ("breed", "artist")}
TOY = {
    "coat": Said(
        ("short", "long"), {"": "long ears", "short": "short coat|fur", "long": "long* coat|fur; furry"}
    ),
    "color": Said(("black", "white"), {"black": "black", "white": "white|snow_white"}),
    "beard": Said(("yes", "no"), {"yes": "beard*", "no": "no|without beard"}),
    "size": Said(("small", "big"), {}, {r"(\d+(?:,\d+)?) ?kg": 1, r"(\d+) ?lbs": 0.4536}, (10,)),
}


@pytest.mark.parametrize("task", sorted(TABLES))
def test_phrasings_that_no_phrase_was_made_for_are_understood(task: str) -> None:
    rows = read_rows(task)[1::2]
    precision, recall = score(rows, lambda words: understood(TABLES[task], words))
    assert len(rows) >= 25
    assert precision >= 0.95
    assert recall >= 0.93


@pytest.mark.parametrize("task", sorted(TABLES))
def test_a_table_has_phrases_for_its_values_and_each_means_its_own(task: str) -> None:
    for key, said in TABLES[task].items():
        assert {*said.phrases, ""} <= {*said.values, ""}
        assert len(said.bounds) == (len(said.values) - 1 if said.measures else 0)
        assert said.bounds == tuple(sorted(said.bounds))
        assert all(re.compile(measure).groups == 1 for measure in said.measures)
        for value, phrases in said.phrases.items():
            for phrase in phrases.split(";"):
                words = [word.split("|")[0].replace("*", "").replace("_", " ") for word in phrase.split()]
                text = (" " if phrase.isascii() or plain(phrase).isascii() else "").join(words)
                assert understood(TABLES[task], text).get(key, "") == value, phrase


SPOKEN = {
    "en": ("big white fluffy dog, upright ears", "size=large texture=fluffy ears=upright"),
    "de": (
        "groß, weiß, lockig, Stehohren, kein Bart",
        "size=large texture=curly ears=upright beard=no",
    ),
    "es": ("perro blanco, grande, de pelo largo, orejas caídas", "size=large coat=long ears=hanging"),
    "fr": ("grand chien blanc à poil frisé, oreilles dressées", "size=large texture=curly ears=upright"),
    "ja": ("白い大型犬、ふわふわ、立ち耳、ひげはない", "size=large texture=fluffy ears=upright beard=no"),
    "zh-Hant": ("白色大型犬，毛茸茸，立耳", "size=large texture=fluffy ears=upright"),
}


@pytest.mark.parametrize("language", list(LANGUAGES))
def test_every_language_of_the_pages_is_understood(language: str) -> None:
    words, facts = SPOKEN[language]
    told = dict(one.split("=") for one in [*facts.split(), "color=white"])
    assert understood(TABLES["breed"], words) == told


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        ("Short, black fur", {"color": "black"}),  # a phrase does not go over a comma
        ("short black fur", {"coat": "short", "color": "black"}),
        ("his fur is rather short", {"coat": "short"}),
        ("short and very, very long tail, which has nothing of fur", {}),
        ("long ears and a short coat", {"coat": "short"}),
        ("long ears, long-haired fur", {"coat": "long"}),
        ("black and white", {}),  # two values: neither is sure
        ("black. BLACK!", {"color": "black"}),
        ("snow-white", {"color": "white"}),
        ("blackish, unblack", {}),
        ("not black", {}),
        ("isn't black but white", {"color": "white"}),
        ("not short, black", {"color": "black"}),
        ("no beard", {"beard": "no"}),
        ("bearded", {"beard": "yes"}),
        ("never a beard", {}),
        ("12,5 kg", {"size": "big"}),
        ("20lbs", {"size": "small"}),
        ("9 kg or 12 kg", {}),
        ("20 years", {}),
        ("", {}),
        ("\u3099\u0301{}$`<b>'; DROP", {}),
    ],
)
def test_what_words_mean(words: str, facts: Mapping[str, str]) -> None:
    assert understood(TOY, words) == facts


def test_no_more_is_read_than_may_be_written() -> None:
    assert understood(TOY, "x " * (MAX_WORDS // 2) + "black") == {}
    assert understood(TOY, "\ufdfa" * (MAX_WORDS - 6) + " black") == {}  # one sign that is spelt out as 18
