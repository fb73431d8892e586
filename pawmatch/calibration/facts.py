"""Facts beside the picture: what is known of each class, how answers are fused, and what to ask next."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from pawmatch.calibration.apply import Doubles, Flags
from pawmatch.calibration.words import MAX_WORDS, Said, understood
from pawmatch.errors import BadOption
from pawmatch.labels import ENGLISH, spelling_key
from pawmatch.phrasing import listed
from pawmatch.results import Choice, Fact, Question

UNSURE = "unsure"  # an answer that any question takes, and that has no weight
WORDS = "words"  # the place among facts for what somebody says in words of their own
MAX_CHOICES = 5
# With five choices, one answer then multiplies odds by 16 at most: what is 95 % sure outlives any.
MIN_ERROR, MAX_WEIGHT = 0.2, 1.0
MIN_GAIN = 0.1  # bits that a question is expected to bring; for less, nobody is asked
MIN_KNOWN = 0.5  # share of the labels that a table has to know


@dataclass(frozen=True, eq=False)
class Attribute:
    """One thing to know beside the picture, with its words in English.

    `likelihood` (choices, classes) is how likely people answer so of each class, tempered by `weight`.
    Unless `asked`, it only counts for those who say it unasked, in words of their own as in `said`.
    """

    key: str
    name: str
    question: str
    choices: tuple[Choice, ...]
    likelihood: Doubles
    asked: bool = True
    weight: float = 1.0
    said: Said = field(default_factory=Said)


def fact_table(labels: Sequence[str]) -> tuple[Attribute, ...]:
    """What can be said of classes `labels`, from the table in pawmatch/labels/facts/ that knows most of them.

    Nothing if none knows MIN_KNOWN of them. A class that it does not know may have any fact.
    """
    keys = [spelling_key(label) for label in labels]
    known = [{spelling_key(label): facts for label, facts in table["classes"].items()} for table in _tables()]
    shares = [sum(key in classes for key in keys) / len(keys) for classes in known]
    best = int(np.argmax(shares))
    if shares[best] < MIN_KNOWN:
        return ()
    table, classes = _tables()[best], known[best]
    place = table["languages"].index(ENGLISH)
    found = []
    for key, words in table["attributes"].items():
        said = [classes.get(label, {}).get(key, ()) for label in keys]
        sets = [{one} if isinstance(one, str) else set(one) for one in said]
        usual = np.array([[value in one for one in sets] for value in words["values"]])
        found.append(
            Attribute(
                key=key,
                name=words["name"][place],
                question=words["question"][place],
                choices=tuple(Choice(value, texts[place]) for value, texts in words["values"].items()),
                likelihood=answer_likelihood(usual, table["error"], table["weight"]),
                asked=words.get("asked", True),
                weight=table["weight"],
                said=Said(
                    tuple(words["values"]),
                    words.get("said", {}),
                    words.get("measures", {}),
                    tuple(words.get("bounds", ())),
                ),
            )
        )
    return tuple(found)


@cache
def _tables() -> tuple[dict[str, Any], ...]:
    folder = files("pawmatch") / "labels" / "facts"
    found = [entry for entry in folder.iterdir() if entry.name.endswith(".toml")]
    return tuple(
        tomllib.loads(entry.read_text(encoding="utf-8")) for entry in sorted(found, key=lambda one: one.name)
    )


@cache
def translated_facts(language: str) -> Mapping[str, str]:
    """What the tables' English texts are in another language."""
    found = {}
    for table in _tables():
        english, other = (table["languages"].index(one) for one in (ENGLISH, language))
        for words in table["attributes"].values():
            for texts in (words["name"], words["question"], *words["values"].values()):
                found[texts[english]] = texts[other]
    return found


# --- fusion: naive Bayes whose answers may be wrong


def answer_likelihood(usual: Flags, error: float, weight: float = 1.0) -> Doubles:
    """How likely each answer is given each class, (choices, classes), from which are `usual` of it.

    Who is right, all but `error` of those asked, says one of the usual values, who is wrong any other, alike
    often (the noisy answers of naive Bayes models of annotators: Dawid and Skene 1979). All are as likely of
    a class of which nothing is said. `weight` in (0, 1] is a power that tempers this, scaled to sum to 1.
    """
    count = usual.sum(axis=0)
    choices = len(usual)
    told = (count > 0) & (count < choices)
    right = np.where(told, (1 - error) / np.maximum(count, 1), 1 / choices)
    wrong = np.where(told, error / np.maximum(choices - count, 1), 1 / choices)
    tempered = np.where(usual, right, wrong) ** weight
    likelihood: Doubles = tempered / tempered.sum(axis=0)
    return likelihood


def fuse(probabilities: Doubles, likelihoods: Iterable[Doubles]) -> Doubles:
    """Probabilities (..., classes) by Bayes' rule, from those of the picture and of answers.

    Answers are taken as independent given the class. Without any, the picture's stay as they are.
    """
    fused = probabilities
    for likelihood in likelihoods:
        product = fused * likelihood
        fused = product / product.sum(axis=-1, keepdims=True)
    return fused


def expected_gain(probabilities: Doubles, likelihood: Doubles) -> Doubles:
    """How many bits (...) the answer to a question is expected to tell about the class.

    The mutual information of class and answer (Lindley 1956) from probabilities (..., classes) and the
    question's likelihood (choices, classes).
    """
    answers = probabilities @ likelihood.T
    told = np.log2(likelihood / np.maximum(answers, np.finfo(float).tiny)[..., None])
    gain: Doubles = (probabilities[..., None, :] * likelihood * told).sum(axis=(-2, -1))
    return gain


# --- what was said, and what to ask


def given_facts(table: Sequence[Attribute], facts: Any) -> tuple[Fact, ...]:
    """Facts as {"attribute": "value"}, checked; raises BadOption, which names what there is.

    What is told in words, as {"words": "..."}, comes first, as far as it is understood: see words.understood.
    A value that is given for an attribute stands against words about it.
    """
    if facts is None:
        return ()
    if not isinstance(facts, Mapping):
        raise BadOption(f'facts is {str(facts)[:40]!r}; give an object such as {{"attribute": "value"}}.')
    if facts and not table:
        raise BadOption("Nothing is known of these classes beside their looks; leave the facts out.")
    known = {attribute.key: attribute for attribute in table}
    words, found = facts.get(WORDS, ""), []
    if not isinstance(words, str) or len(words) > MAX_WORDS:
        raise BadOption(f"{WORDS} is {str(words)[:40]!r}; give at most {MAX_WORDS} characters of text.")
    told = understood({key: attribute.said for key, attribute in known.items()}, words)
    given = {key: value for key, value in facts.items() if key != WORDS}
    for key, value in {**told, **given}.items():
        if key not in known:
            raise BadOption(f"The fact {str(key)[:40]!r} is unknown; use {listed(list(known))}.")
        texts = {choice.value: choice.text for choice in known[key].choices} | {UNSURE: "not sure"}
        if not isinstance(value, str) or value not in texts:
            raise BadOption(f"{key} is {str(value)[:40]!r}; use {listed(list(texts))}.")
        found.append(Fact(key, value, known[key].name, texts[value]))
    return tuple(found)


def with_facts(probabilities: Doubles, table: Sequence[Attribute], facts: Sequence[Fact]) -> Doubles:
    """Probabilities (..., classes) of the picture, updated by facts but for those that nobody is sure of."""
    known = {attribute.key: attribute for attribute in table}
    rows = []
    for fact in facts:
        if fact.value != UNSURE:
            values = [choice.value for choice in known[fact.attribute].choices]
            rows.append(known[fact.attribute].likelihood[values.index(fact.value)])
    return fuse(probabilities, rows)


def best_question(
    probabilities: Doubles, table: Sequence[Attribute], facts: Sequence[Fact]
) -> Question | None:
    """The question of largest expected gain for probabilities (classes,), not among those answered.

    None if it would bring less than MIN_GAIN.
    """
    answered = {fact.attribute for fact in facts}
    open_ones = [one for one in table if one.asked and one.key not in answered]
    gains = [float(expected_gain(probabilities, one.likelihood)) for one in open_ones]
    if not gains or max(gains) < MIN_GAIN:
        return None
    best = open_ones[gains.index(max(gains))]
    return Question(best.key, best.question, best.choices)
