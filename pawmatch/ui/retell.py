"""Results in the visitor's language: names, and sentences made anew from codes; English stays as it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

from pawmatch import phrasing
from pawmatch.calibration.facts import UNSURE, translated_facts
from pawmatch.checkpoint.backbone import imagenet_names
from pawmatch.evaluation.compare import ImageAnswers
from pawmatch.labels import ENGLISH, display_name, spelling_key, translated, words_of
from pawmatch.phrasing import MAX_NAMES, MIN_PROBABLE, MIN_SURE
from pawmatch.results import (
    Candidate,
    Explanation,
    Fact,
    LookAlike,
    Prediction,
    Question,
    Review,
    ReviewReason,
    Task,
    VariantAnswer,
    Verdict,
)
from pawmatch.ui.speech import language, say, texts

Named = TypeVar("Named", Candidate, VariantAnswer)


def percent(p: float) -> str:
    """A confidence in [0, 1] for reading, in the visitor's language: "71 %", 「71%」."""
    if language() == ENGLISH:
        return phrasing.percent(p)
    if p < 0.01:
        return say("retold.under")
    return say("retold.over") if p >= 0.995 else say("retold.percent", n=f"{100 * p:.0f}")


def class_name(label: str) -> str:
    """What people call the class in the visitor's language."""
    return display_name(label, language())


def label_typed(labels: Sequence[str], text: str) -> str:
    """The label whose name in the visitor's language was typed; where there is none, what was typed."""
    wanted = spelling_key(text)
    return next((label for label in labels if spelling_key(class_name(label)) == wanted), text)


def listed(names: Sequence[str], conjunction: str = "or") -> str:
    """Names as a sentence has them; `conjunction` is that of English."""
    if language() == ENGLISH:
        return phrasing.listed(names, conjunction)
    if conjunction != "or":
        return say("retold.comma").join(names)
    return say("retold.or").join(filter(None, (say("retold.comma").join(names[:-1]), *names[-1:])))


def task(words: Task) -> Task:
    """The words of a task in the visitor's language, as far as the catalogue knows the task by its noun."""
    known = texts(language())
    said = {name: known.get(f"task.{words.name}.{name}") for name in ("title", "subject", "noun", "plural")}
    told: dict[str, Any] = {name: text for name, text in said.items() if text}
    return replace(words, **told)


def prediction(found: Prediction) -> Prediction:
    """An answer with every name and sentence in the visitor's language."""
    if language() == ENGLISH:
        return found
    told = replace(
        found,
        words=task(words_of(found)),
        predictions=tuple(map(_named, found.predictions)),
        variants=tuple(map(_named, found.variants)),
        candidates_90=tuple(class_name(_labels_by_name().get(name, name)) for name in found.candidates_90),
        group=found.group and replace(found.group, name=_kind(found.group.name)),
        looks_like=_looks(found.looks_like),
        facts=tuple(_fact(one) for one in found.facts),
        question=found.question and _question(found.question),
        warnings=tuple(texts(language()).get(f"warning.{text}", "") for text in found.warnings),
    )
    review = _review(told.review, told.predictions, told.variants, words_of(told))
    return replace(told, verdict=Verdict(found.verdict.code, _verdict(told)), review=review)


def headline(told: Prediction) -> tuple[str, float | None]:
    """The name that stands largest, and how sure it is, of an answer in the visitor's language."""
    confidence = phrasing.headline_confidence(told)
    if language() == ENGLISH:
        return phrasing.headline(told), confidence
    code, words = told.verdict.code, words_of(told)
    if code == "answer":
        return told.top.name, confidence
    if code == "group" and told.group:
        return told.group.name or listed(told.candidates_90[:MAX_NAMES]), confidence
    if code == "unknown":
        return words.subject, confidence
    if code == "outside" and told.looks_like:
        return told.looks_like[0].name, confidence
    return (say("retold.cannot") if code == "poor_image" else told.verdict.text), None


def verdict(told: Prediction) -> str:
    """The line below the headline; nothing where the name says it all."""
    if language() == ENGLISH:
        return phrasing.verdict_told(told)
    text, close = told.verdict.text, [name for name in told.candidates_90 if name != told.top.name]
    if told.verdict.code != "answer":
        return "" if text == headline(told)[0] else text
    if close:
        return say("retold.close", text=text, names=listed(close[: MAX_NAMES - 1]))
    return "" if text == told.top.name else text


def thing(name: str, words: Task) -> str:
    """What an answer claims to see, as English says it: "a Border Collie"."""
    return phrasing.thing(name, subject=words.subject, noun=words.noun)


def limits(tasks: Iterable[Task]) -> str:
    """What answers are not."""
    if language() == ENGLISH:
        proofs = [f", {text}" for task in tasks if (text := phrasing.no_proof(task.subject))]
    else:
        proofs = [texts(language()).get(f"task.{task.name}.proof", "") for task in tasks]
    return say("page.limits", proofs="".join(dict.fromkeys(proofs)))


def notice(text: str | None) -> str | None:
    """That another model than the intended one answers, and in English why."""
    return text if text is None or language() == ENGLISH else say("retold.notice")


def example(answer: str | None, told: str) -> str:
    """What an example shows: in English as told, in other languages by its answer."""
    if language() == ENGLISH:
        return told
    label = _labels_by_name().get(answer or "")
    return say("retold.example", name=class_name(label) if label else "–")


def explanation(found: Explanation) -> Explanation:
    """The same with an explanation."""
    return replace(found, name=class_name(found.label), prediction=prediction(found.prediction))


def answers(image: ImageAnswers, words: Task) -> ImageAnswers:
    """The answers of all variants for one image of a comparison."""
    if language() == ENGLISH:
        return image
    named = tuple(map(_named, image.answers))
    return replace(
        image, answers=named, review=image.review and _review(image.review, named, named, task(words))
    )


def error(exc: Exception) -> str:
    """What went wrong: in English in detail, in other languages by the kind of the error."""
    if language() == ENGLISH:
        return str(exc)
    known = texts(language())
    kinds = (f"error.{kind.__name__}" for kind in type(exc).__mro__)
    return next((known[kind] for kind in kinds if kind in known), known["error.PawMatchError"])


def _named(one: Named) -> Named:
    return replace(one, name=class_name(one.label))


def _fact(one: Fact) -> Fact:
    known = translated_facts(language())
    text = say("facts.unsure") if one.value == UNSURE else known[one.text]
    return replace(one, name=known[one.name], text=text)


def _question(one: Question) -> Question:
    known = translated_facts(language())
    choices = tuple(replace(choice, text=known[choice.text]) for choice in one.choices)
    return replace(one, text=known[one.text], choices=choices)


def _kind(name: str) -> str:
    return translated("kinds", language()).get(name, "")


@cache
def _labels_by_name() -> dict[str, str]:
    """The labels that have names in other languages, by their English names."""
    return {display_name(label): label for label in translated("classes", "de")}


def _verdict(found: Prediction) -> str:
    code, words = found.verdict.code, words_of(found)
    if code == "answer":
        sure = found.top.confidence
        degree = "sure" if sure >= MIN_SURE else "probable" if sure >= MIN_PROBABLE else "perhaps"
        return say(f"retold.{degree}", name=found.top.name)
    if code == "group" and found.group:
        names = [class_name(label) for label in found.group.labels]
        more = len(names) - MAX_NAMES
        if more > 0:
            shown = [*names[: MAX_NAMES - 1], say("retold.others", count=more + 1)]
            text = say("retold.comma").join(shown)
        else:
            text = listed(names)
        return say("retold.group", kind=found.group.name, names=text) if found.group.name else text
    if code == "outside":
        text = _of_task("outside", words)
        looks = found.looks_like
        return say("retold.looks", text=text, look=looks[0].name) if looks else text
    return _of_task("unknown", words) if code == "unknown" else say(f"retold.{code}")


def _of_task(key: str, words: Task) -> str:
    """The sentence that is written for a task's noun, or the general one."""
    own = f"retold.{key}.{words.name.partition('-')[0]}"
    return say(own if own in texts(language()) else f"retold.{key}", subject=words.subject)


def _review(
    review: Review, first: Sequence[Candidate | VariantAnswer], variants: Sequence[VariantAnswer], words: Task
) -> Review:
    """The reasons to check, made anew of the likeliest classes and of what the variants answer."""
    values = {
        "subject": words.subject,
        "confidence": percent(first[0].confidence),
        "threshold": percent(review.threshold),
        "names": listed([one.name for one in first[:2]]),
        "others": listed(sorted({one.name for one in variants if one.label != first[0].label})),
    }
    reasons = [ReviewReason(one.code, say(f"reason.{one.code}", **values)) for one in review.reasons]
    return replace(review, reasons=tuple(reasons))


def _looks(found: Sequence[LookAlike]) -> tuple[LookAlike, ...]:
    """What is seen, by its kind: of things there is no name in other languages, so that they are left out."""
    kinds = {
        place: name
        for ranges, name in translated("looks", language()).items()
        for first, _, last in (part.partition("-") for part in ranges.split(","))
        for place in range(int(first), int(last) + 1)
    }
    sums: dict[str, float] = {}
    for one in found:
        if name := kinds.get(imagenet_names().index(one.name)):
            sums[name] = sums.get(name, 0.0) + one.confidence
    return tuple(LookAlike(name, mass) for name, mass in sums.items())
