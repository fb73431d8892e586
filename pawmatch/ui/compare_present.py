"""Every line of HTML that the page "Compare" shows. Nothing enters HTML except through `safe`."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from pawmatch.evaluation.compare import Comparison, ImageAnswers, VariantSummary
from pawmatch.phrasing import percent
from pawmatch.ui import compare_words as words
from pawmatch.ui.html import GHOST, badge, card, notice, paragraph, safe

Pair = tuple[str, str]  # a file's name and a sentence about it


def introduction() -> str:
    """The page's own title."""
    return f'<h2 class="part">Compare the models</h2>{paragraph(words.INTRODUCTION, "quiet")}'


# --- the answer's place


def empty(task: str) -> str:
    """Before there is a comparison."""
    ghost = f'<ol class="bars ghost" aria-hidden="true">{GHOST}</ol>'
    return card("empty", "Nothing compared yet", [paragraph(words.invitation(task)), ghost])


def working(title: str, text: str = "", share: float | None = None) -> str:
    """While photos are looked at, with how far that is."""
    value = "" if share is None else f' value="{share:.3f}"'
    bar = f'<progress class="progress" max="1"{value} aria-label="Photos looked at"></progress>'
    return card("working", f"{title} …", [bar, paragraph(text, "quiet")])


def result(comparison: Comparison, refused: Sequence[Pair], warning: str | None) -> str:
    """What there is to say about the models together, and the tables of their numbers."""
    parts = [
        notice(warning),
        paragraph(words.surest(comparison)),
        summary_table(comparison),
        agreement_table(comparison),
        refusals(refused),
    ]
    return card("sure", words.verdict(comparison), parts)


def nothing_usable(refused: Sequence[Pair]) -> str:
    """When no photo could be used."""
    return card("problem", words.EVERY_PHOTO_REFUSED, [refusals(refused)], role="alert")


def refusals(refused: Sequence[Pair]) -> str:
    """One sentence for each photo that could not be used."""
    if not refused:
        return ""
    items = "".join(f"<li><b>{safe(name)}</b>: {safe(message)}</li>" for name, message in refused)
    return f'<ul class="refusals" aria-label="Photos that could not be used">{items}</ul>'


def summary_table(comparison: Comparison) -> str:
    """One row per model: how sure it is and, where the truth is known, how often right."""
    names = ["Model", "Mean", "Median", "50 % or more", *(["Right"] if comparison.judged else [])]
    head = "".join(f'<th scope="col">{safe(name)}</th>' for name in names)
    rows = []
    for summary in comparison.variants:
        cells = [percent(summary.confidence.mean), percent(summary.confidence.median), words.half(summary)]
        cells += [words.right(summary)] if comparison.judged else []
        rows.append(row(words.model_name(summary.variant), cells))
    table = f'<table class="numbers"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<h3 class="small">Confidence in its own answer</h3>{table}'


def agreement_table(comparison: Comparison) -> str:
    """One row per pair of models: to how many photos they gave the same answer."""
    names = [words.model_name(summary.variant) for summary in comparison.variants]
    rows = [
        row(
            f"{names[one]} and {names[other]}", [f"{comparison.agreement[one][other]} of {comparison.images}"]
        )
        for one, other in combinations(range(len(names)), 2)
    ]
    if not rows:
        return ""
    table = f'<table class="numbers"><tbody>{"".join(rows)}</tbody></table>'
    return f'<h3 class="small">Same answer</h3>{table}'


def row(name: str, cells: Iterable[str]) -> str:
    """A row of a table, with the name that it has."""
    values = "".join(f"<td>{safe(cell)}</td>" for cell in cells)
    return f'<tr><th scope="row">{safe(name)}</th>{values}</tr>'


# --- the figure


def figure(comparison: Comparison) -> str:
    """How often each model is how sure: one small histogram per model, all of one scale."""
    highest = max(max(summary.confidence.histogram) for summary in comparison.variants)
    panels = "".join(histogram(summary, highest) for summary in comparison.variants)
    line = paragraph(
        "How many photos there are for each confidence; the coloured ones are 50 % or more.", "quiet"
    )
    return f'<h2 class="part">How sure they are</h2>{line}<div class="histograms">{panels}</div>'


def histogram(summary: VariantSummary, highest: int) -> str:
    """One model's histogram; the sentence that describes it is its label."""
    counts = summary.confidence.histogram
    bars = "".join(
        f'<span class="{"high" if 2 * place >= len(counts) else "low"}">'
        f"<i>{count or ''}</i>"
        f'<b style="height:{100 * count / highest:.0f}%"></b></span>'
        for place, count in enumerate(counts)
    )
    return (
        f'<figure class="histogram"><figcaption>{safe(words.model_name(summary.variant))}</figcaption>'
        f'<div class="columns" role="img" aria-label="{safe(words.histogram(summary))}">{bars}</div>'
        '<div class="scale" aria-hidden="true"><span>0</span><span>50&nbsp;%</span>'
        "<span>100&nbsp;%</span></div></figure>"
    )


# --- photo by photo


def photo_table(rows: Iterable[tuple[str, ImageAnswers]], truth_name: str) -> str:
    """One row per photo, given with its thumbnail's address; on a narrow screen a block each."""
    rows = list(rows)
    variants = [answer.variant for answer in rows[0][1].answers]
    head = "".join(
        f'<th scope="col" role="columnheader">{safe(words.model_name(variant))}</th>' for variant in variants
    )
    body = "".join(photo_row(address, image, truth_name) for address, image in rows)
    return (
        '<h2 class="part">Photo by photo</h2><table class="photos" role="table">'
        '<thead role="rowgroup"><tr role="row"><th scope="col" role="columnheader">Photo</th>'
        f'{head}</tr></thead><tbody role="rowgroup">{body}</tbody></table>'
    )


def photo_row(address: str, image: ImageAnswers, truth_name: str) -> str:
    """One photo: what each model sees in it; right answers are marked where the truth is known."""
    cells = []
    for place, answer in enumerate(image.answers):
        right = image.truth is not None and answer.label == image.truth
        mark = '<span class="right" role="img" aria-label="right">✓</span> ' if right else ""
        lines = [f'{mark}{safe(answer.name)} <b class="value">{safe(percent(answer.confidence))}</b>']
        if image.truth is not None and not right:
            other = f"{truth_name}: {percent(image.truth_confidences[place])}"
            lines.append(f'<small class="quiet">{safe(other)}</small>')
        name = safe(words.model_name(answer.variant))
        cells.append(
            f'<td role="cell"><span class="model" aria-hidden="true">{name}</span>'
            f"<span>{''.join(lines)}</span></td>"
        )
    differ = "" if image.agreed else "<small>not alike</small>"
    check = badge(image.review) if image.review else ""
    head = (
        f'<th scope="row" role="rowheader"><img src="{safe(address)}" alt="" width="44" height="44">'
        f'<span class="file">{safe(image.file)}{differ}{check}</span></th>'
    )
    return f'<tr role="row">{head}{"".join(cells)}</tr>'


def sheets_title() -> str:
    """The title above the heatmap sheets."""
    line = paragraph("Click a sheet to enlarge it. All heatmaps of a sheet are for one answer.", "quiet")
    return f'<h2 class="part">Where they looked</h2>{line}'


def download(values: Mapping[str, Any], task: str) -> str:
    """The comparison as a file."""
    packed = base64.b64encode(json.dumps(values, indent=1).encode()).decode()
    return (
        f'<p class="details"><a class="download" download="pawmatch-compare-{safe(task)}.json" '
        f'href="data:application/json;base64,{packed}">Download the comparison as JSON</a></p>'
    )
