"""Phrasing: percentages, articles, lists and verdicts in words, for the command line and the page."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from pawmatch.results import Prediction

MIN_SURE = 0.8  # confidence from which a name stands alone
MIN_PROBABLE = 0.5  # confidence from which it is probable; below it is a mere guess
MAX_NAMES = 4  # that a verdict lists
# Spelt with a vowel, spoken with a consonant: "a Eurasier", "a Uruguayan Cimarron".
CONSONANT_SOUNDS = ("eu", "ewe", "uni", "uru", "ute")


def percent(p: float) -> str:
    """A confidence in [0, 1] for reading: 0.714 -> "71 %". Never 0 % or 100 %, which no model can know."""
    if p < 0.01:
        return "under 1 %"
    if p >= 0.995:
        return "over 99 %"
    return f"{100 * p:.0f} %"


def tenths(share: float) -> str:
    """A measured share, to a tenth of a percent: 0.4142 -> "41.4 %"."""
    return f"{100 * share:.1f} %"


def article(word: str) -> str:
    """The article that a word is spoken with: "an" for Akita, "a" for Eurasier."""
    lower = word.lower()
    is_vowel = lower.startswith(tuple("aeiou")) and not lower.startswith(CONSONANT_SOUNDS)
    return "an" if is_vowel else "a"


def with_article(name: str) -> str:
    """The name after its article: "an Akita"."""
    return f"{article(name)} {name}"


def listed(names: Sequence[str], conjunction: str = "or") -> str:
    """Names as a sentence has them: "Beagle, Harrier or Basset Hound"."""
    return f" {conjunction} ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def thing(name: str, *, subject: str, noun: str) -> str:
    """What an answer claims to see: "a Border Collie", "a picture by Claude Monet"."""
    return f"{with_article(subject)} by {name}" if noun in _nouns("makers") else with_article(name)


def verdict_text(
    code: str,
    *,
    subject: str,
    noun: str,
    name: str = "",
    confidence: float = 1.0,
    group_name: str = "",
    names: Sequence[str] = (),
    looks_like_name: str = "",
) -> str:
    """The verdict on one image as a line without a full stop.

    `subject` and `noun` are the task's. An `answer` needs `name` and its `confidence`, a
    `group` the `names` in it and, if it has one, its `group_name` in the singular ("scent hound");
    `outside` takes a `looks_like_name`. Raises ValueError for another code than those of a Verdict.
    """
    if code == "answer":
        claim = name if noun in _nouns("makers") else with_article(name)
        if confidence >= MIN_SURE:
            return name
        return f"{'Probably' if confidence >= MIN_PROBABLE else 'Perhaps'} {claim}"
    if code == "group":
        more = len(names) - MAX_NAMES
        shown = [*names[: MAX_NAMES - 1], f"one of {more + 1} others"] if more > 0 else names
        return f"{_capital(with_article(group_name))}: {listed(shown)}" if group_name else listed(shown)
    if code == "unknown":
        by = "by" if noun in _nouns("makers") else "of"
        mix = "; perhaps a mix" if noun in _nouns("mixable") else ""
        return f"{_capital(with_article(subject))}, but {by} no {noun} that I know{mix}"
    if code == "outside":
        looks = f": this looks like {with_article(looks_like_name)}" if looks_like_name else ""
        return f"No {subject} here{looks}"
    if code == "poor_image":
        return "The picture is too small, too narrow, too plain or too blurred to tell"
    raise ValueError(f"There is no verdict {code!r}.")


def verdict_confidence(prediction: Prediction) -> float | None:
    """The confidence in an answer or in a group; other verdicts have none."""
    if prediction.verdict.code == "answer":
        return prediction.top.confidence
    return prediction.group.confidence if prediction.verdict.code == "group" and prediction.group else None


def verdict_line(prediction: Prediction) -> str:
    """The verdict with its confidence: "Probably a Beagle, 71 %"."""
    confidence = verdict_confidence(prediction)
    return ", ".join([prediction.verdict.text, *([] if confidence is None else [percent(confidence)])])


def no_proof(subject: str) -> str:
    """What an answer about a subject might be taken for and is not: "no pedigree test"; may be empty."""
    return str(_words()["proofs"].get(subject, ""))


def headline(prediction: Prediction) -> str:
    """The verdict's name alone: "Beagle", "Scent hound", "Tabby cat"."""
    code, group, words = prediction.verdict.code, prediction.group, prediction.words
    if code == "answer":
        return prediction.top.name
    if code == "group" and group:
        return _capital(group.name) or listed(prediction.candidates_90[:MAX_NAMES])
    if code == "unknown" and words:
        return _capital(with_article(words.subject))
    if code == "outside" and prediction.looks_like:
        return _capital(prediction.looks_like[0].name)
    return "I cannot tell" if code == "poor_image" else prediction.verdict.text


def headline_confidence(prediction: Prediction) -> float | None:
    """The confidence in the headline; none where the model has no name for what it sees."""
    if prediction.verdict.code == "outside" and prediction.looks_like:
        return prediction.looks_like[0].confidence
    return verdict_confidence(prediction)


def verdict_told(prediction: Prediction) -> str:
    """The verdict below its headline, with what is close to an answer; nothing where the name says it all."""
    text = prediction.verdict.text
    if prediction.verdict.code != "answer":
        return "" if text == headline(prediction) else text
    close = [name for name in prediction.candidates_90 if name != prediction.top.name][: MAX_NAMES - 1]
    if close:
        return f"{text}; {listed(close, 'and')} {'is' if len(close) == 1 else 'are'} close"
    return "" if text == prediction.top.name else text


@cache
def _words() -> dict[str, Any]:
    return tomllib.loads((files("pawmatch") / "labels" / "nouns.toml").read_text(encoding="utf-8"))


def _nouns(kind: str) -> list[str]:
    """The nouns of a kind: `makers` are named after persons, of `mixable` ones a subject may have two."""
    nouns: list[str] = _words()[kind]
    return nouns


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
