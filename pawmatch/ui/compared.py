"""What the page "Compare models" says: sentences, and HTML by the macros of parts.html. No gradio in here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from pawmatch.evaluation.compare import Comparison, ImageAnswers, VariantSummary
from pawmatch.ui.html import MAX_COMPARED, json_file, model_name, parts
from pawmatch.ui.retell import percent
from pawmatch.ui.speech import say


@dataclass(frozen=True)
class Row:
    """A photo that every model has answered for; `maps` has for each a heatmap's address and description."""

    answers: ImageAnswers
    thumbnail: str
    maps: Mapping[str, tuple[str, str]]


def introduction() -> str:
    """The page's own title."""
    return str(parts.part(say("compare.title"), say("compare.introduction", most=MAX_COMPARED)))


def empty() -> str:
    """Before there is a comparison."""
    return str(parts.empty(say("compare.nothing"), say("compare.how", most=MAX_COMPARED)))


def intakes(limit: int, reads_heic: bool, has_drawings: bool) -> str:
    """The place where photos come in, of at most `limit` bytes each, and what can be done with them."""
    return str(parts.intakes(limit, "yes" if reads_heic else "no", MAX_COMPARED, has_drawings))


def truth_field() -> str:
    """The field for what all photos show; compare.js fills in names to choose from."""
    return str(parts.truth())


def working(title: str, text: str = "", share: float | None = None) -> str:
    """While photos are looked at, with how far that is."""
    return str(parts.comparing(title, text, share))


def nothing_usable(refused: Sequence[tuple[str, str]]) -> str:
    """When no photo could be used: a file's name and a sentence about it, for each."""
    return str(parts.nothing_usable(say("compare.refused"), refused))


def card(found: Comparison, refused: Sequence[tuple[str, str]], warning: str | None) -> str:
    """What there is to say about the models together, and the tables of their numbers."""
    names = [model_name(summary.variant) for summary in found.variants]
    columns = [say(f"compare.{key}") for key in ("model", "mean", "median", "half")]
    models = []
    for name, summary in zip(names, found.variants, strict=True):
        spread = summary.confidence
        half = say("compare.of", count=spread.at_half_or_more.images, all=found.images)
        models.append((name, [percent(spread.mean), percent(spread.median), half, *right(summary, found)]))
    pairs = [
        (
            say("compare.pair", one=names[one], other=names[other]),
            [say("compare.of", count=found.agreement[one][other], all=found.images)],
        )
        for one, other in combinations(range(len(names)), 2)
    ]
    if found.judged:
        columns.append(say("compare.right"))
    return str(
        parts.comparison(verdict(found), warning, surest(found), columns, models, pairs, list(refused))
    )


def verdict(found: Comparison) -> str:
    """On how many photos the models agree."""
    count, total, alike = len(found.variants), found.images, found.unanimous.images
    if count == 1:
        return say("compare.one_model")
    key = "agree_on_some"
    if total == 1:
        key = "agree_on_it" if alike else "differ_on_it"
    elif alike in (0, total):
        key = "agree_on_all" if alike else "never_agree"
    return say(f"compare.{key}", count=count, photos=total, alike=alike)


def surest(found: Comparison) -> str:
    """Which model is the surest on average, with the caution that belongs to it."""
    if len(found.variants) < 2:
        return say("compare.caution")
    first = max(found.variants, key=lambda summary: summary.confidence.mean)
    sure = say("compare.surest", model=model_name(first.variant), confidence=percent(first.confidence.mean))
    return f"{sure} {say('compare.caution')}"


def right(summary: VariantSummary, found: Comparison) -> list[str]:
    """How many of a model's answers are right, if any truth is known."""
    if not found.judged:
        return []
    accuracy = summary.accuracy
    known = accuracy and say("compare.of", count=accuracy.right, all=accuracy.judged)
    return [known or say("compare.unknown")]


def histograms(found: Comparison) -> str:
    """How often each model is how sure: one small histogram per model, all of one scale."""
    panels = [
        (model_name(summary.variant), histogram_told(summary), summary.confidence.histogram)
        for summary in found.variants
    ]
    return str(parts.histograms(panels, max(max(counts) for _, _, counts in panels)))


def histogram_told(summary: VariantSummary) -> str:
    """A histogram for those who do not see it."""
    counts = [
        say("compare.histogram_part", **{"from": 10 * tenth, "to": 10 * (tenth + 1), "count": count})
        for tenth, count in enumerate(summary.confidence.histogram)
        if count
    ]
    return f"{model_name(summary.variant)}: {'; '.join(counts)}"


def photos(rows: Sequence[Row], truth_name: str) -> str:
    """Photo by photo, those first on which the models differ most: what each answers, and where it looked.

    Right answers are marked where the truth is known.
    """
    rows = sorted(rows, key=lambda row: -row.answers.difference)
    return str(parts.photos([(row, [*figures(row, truth_name)]) for row in rows]))


def figures(row: Row, truth_name: str) -> Iterable[tuple[Any, ...]]:
    """For each model its name, heatmap and answer, whether that is right, and its view of the truth."""
    image = row.answers
    for index, answer in enumerate(image.answers):
        is_right = image.truth is not None and answer.label == image.truth
        is_wrong = image.truth is not None and not is_right
        other = f"{truth_name}: {percent(image.truth_confidences[index])}" if is_wrong else ""
        yield model_name(answer.variant), *row.maps[answer.variant], answer, is_right, other


def file(values: Mapping[str, Any], task: str) -> str:
    """The comparison as a file."""
    return str(parts.comparison_file(json_file(f"pawmatch-compare-{task}", values, say("compare.download"))))
