"""A comparison in words: the sentences that people read or hear, as plain text."""

from __future__ import annotations

from pawmatch.evaluation.compare import Comparison, ImageAnswers, VariantSummary
from pawmatch.phrasing import percent
from pawmatch.results import VariantAnswer
from pawmatch.tasks import TASKS, VARIANT_NAMES
from pawmatch.ui.handlers import MOST_COMPARED

NUMBERS = ("no", "one", "two", "three")
INTRODUCTION = (
    f"Choose up to {MOST_COMPARED} photos to see how sure each of the models is, where they agree, "
    "and where they looked."
)
CAUTION = "So few photos show how the models differ, not which of them is better."
SURE_IS_NOT_RIGHT = "To be sure is not to be right."
EVERY_PHOTO_REFUSED = "None of these photos can be used"


def model_name(variant: str) -> str:
    """The variant's display name."""
    return VARIANT_NAMES.get(variant, variant)


def photos(count: int) -> str:
    """The count with its noun."""
    return "1 photo" if count == 1 else f"{count} photos"


def invitation(task: str) -> str:
    """What to do before there is a comparison."""
    entry = TASKS[task]
    return (
        f"Choose photos of {entry.subject}s, up to {MOST_COMPARED}, and press Compare. Each model names the "
        f"{entry.noun} on its own, and says how sure it is."
    )


def progress(number: int, total: int, name: str) -> str:
    """What is going on."""
    return f"Photo {number} of {total}: {name}"


def verdict(comparison: Comparison) -> str:
    """In how many photos the models agree."""
    count, total, alike = len(comparison.variants), comparison.images, comparison.unanimous
    if count == 1:
        return f"One model looked at {photos(total)}"
    models = f"The {NUMBERS[count] if count < len(NUMBERS) else count} models"
    if total == 1:
        return f"{models} {'agree' if alike else 'disagree'} on this photo"
    if alike == 0:
        return f"{models} never all agree on these {total} photos"
    everything = "both photos" if total == 2 else f"all {total} photos"
    which = everything if alike == total else f"{alike} of {total} photos"
    return f"{models} agree on {which}"


def surest(comparison: Comparison) -> str:
    """Which model is the surest on average, with the caution that belongs to it."""
    if len(comparison.variants) < 2:
        return CAUTION
    first = max(comparison.variants, key=lambda summary: summary.confidence.mean)
    sure = f"{model_name(first.variant)} is the surest, {percent(first.confidence.mean)} on average."
    return f"{sure} {SURE_IS_NOT_RIGHT} {CAUTION}"


def half(summary: VariantSummary) -> str:
    """In how many photos a model is at least as sure as not."""
    return f"{summary.confidence.at_half} of {summary.confidence.count}"


def right(summary: VariantSummary) -> str:
    """How many of a model's answers are right."""
    return f"{summary.accuracy.right} of {summary.accuracy.judged}" if summary.accuracy else "not known"


def histogram(summary: VariantSummary) -> str:
    """A histogram for those who do not see it."""
    found = summary.confidence
    counts = ", ".join(
        f"{photos(count)} from {10 * place} to {10 * (place + 1)} %"
        for place, count in enumerate(found.histogram)
        if count
    )
    return f"{model_name(summary.variant)}: {counts}"


def own_answer(answer: VariantAnswer) -> str:
    """A model's first choice for one photo and how sure it is."""
    return f"{answer.name}, {percent(answer.confidence)}"


def sheet(image: ImageAnswers) -> str:
    """A heatmap sheet for those who do not see it, and the name under which it stands."""
    told = "; ".join(f"{model_name(answer.variant)}: {own_answer(answer)}" for answer in image.answers)
    return f"{image.file}. {told}"
