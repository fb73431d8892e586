"""Every line of HTML that the page shows, made from results and words. No gradio in here.

Labels, messages and file names may come from strangers, so nothing enters HTML except through `safe`.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from pawmatch.labels import display_name
from pawmatch.phrasing import MAX_NAMES, percent, thing, verdict_confidence, with_article
from pawmatch.results import Explanation, Heatmap, Prediction, Review
from pawmatch.tasks import TASKS, VARIANT_NAMES

CHECK = "A person should check this"


def above_bars(prediction: Prediction) -> str:
    """What the confidences below a verdict mean where the verdict is none of them."""
    task = TASKS[prediction.task]
    if prediction.verdict.code == "unknown":
        return f"The closest {task.plural} that the model knows:"
    if prediction.verdict.code in ("outside", "poor_image"):
        return f"If it is {with_article(task.subject)} after all:"
    return ""


def shown_regions(explanation: Explanation | None) -> str:
    """What the heatmaps show."""
    if explanation is None:
        return "Each model paints the regions that speak for one answer."
    task = TASKS[explanation.prediction.task]
    name = thing(explanation.name, subject=task.subject, noun=task.noun)
    return f"Coloured regions speak for {name}. The models see a coarse grid, so sharp edges mean nothing."


def alt_text(heatmap: Heatmap, name: str) -> str:
    """A heatmap for those who do not see it; `name` is that of its label."""
    model = VARIANT_NAMES.get(heatmap.variant, heatmap.variant)
    if heatmap.raw_max <= 0:
        return f"The photo without colours: {model} found no region that speaks for {name}"
    where = place(heatmap.cam)
    return f"The photo with a heatmap: {model} found its evidence for {name} mostly {where}"


def place(cam: Any) -> str:
    """Where a coarse map (rows, columns) is hottest: "at the top left", "in the centre"."""
    row, column = divmod(int(cam.argmax()), cam.shape[1])
    vertical = ("top", "", "bottom")[3 * row // cam.shape[0]]
    horizontal = ("left", "", "right")[3 * column // cam.shape[1]]
    side = f"{vertical} {horizontal}".strip()
    return f"at the {side}" if side else "in the centre"


def card_text(card: str) -> str:
    """A model card as Markdown without front matter, HTML and pictures: it may come from a stranger.

    Its headings go two levels down, below those of the page.
    """
    if card.startswith("---\n") and "\n---\n" in card[4:]:
        card = card[4:].partition("\n---\n")[2]
    # A picture becomes a link: this page itself must not make visitors call other servers.
    card = re.sub(r"(?m)^(#{1,4}) ", r"##\1 ", card)
    return re.sub(r"!+\[", "[", card).replace("<", "&lt;").strip() or "This model comes without a card."


TITLE = "pawmatch"
TAGLINE = "Which breed? Which painter?"
MAIN_PAGE = "One photo"
CHOOSE_PHOTO = "Choose a photo first."
# A paw in a picture frame.
MARK = (
    '<svg class="mark" viewBox="0 0 48 48" aria-hidden="true">'
    '<rect x="3" y="3" width="42" height="42" rx="9" fill="none" stroke="currentColor" stroke-width="3.4"/>'
    '<g fill="currentColor"><ellipse cx="14.6" cy="22.4" rx="3.1" ry="4.2"/>'
    '<ellipse cx="20.8" cy="16.4" rx="3.1" ry="4.4"/><ellipse cx="27.8" cy="16.4" rx="3.1" ry="4.4"/>'
    '<ellipse cx="33.6" cy="22.4" rx="3.1" ry="4.2"/>'
    '<path d="M24.2 22.8c4.2 0 8.2 4.6 8.2 8.6 0 3-2.4 4-4.4 4-1.6 0-2.4-.7-3.8-.7s-2.2.7-3.8.7c-2 0'
    '-4.4-1-4.4-4 0-4 4-8.6 8.2-8.6z"/></g></svg>'
)
ICON = MARK.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ').replace("currentColor", "#b0502a")
HEAD = (
    '<meta name="description" content="Names dog breeds and painters from a photo, says how sure it is, '
    f'and shows where three models looked."><link rel="icon" href="data:image/svg+xml,{quote(ICON)}">'
)
GHOST = "".join(
    f'<li><span class="bar"><span style="width:{width}%"></span></span></li>' for width in (62, 21, 9, 5, 3)
)


def safe(text: object) -> str:
    """Text for use inside HTML, quotes included.

    Braces, dollar signs and backticks too: Gradio fills its HTML as a template, where they mean something.
    """
    escaped = html.escape(str(text), quote=True).replace(" %", "&nbsp;%")
    return escaped.translate({ord(sign): f"&#{ord(sign)};" for sign in "{}$`"})


def paragraph(text: str, kind: str = "") -> str:
    """One paragraph of plain text; no text, no paragraph."""
    return f'<p class="{kind}">{safe(text)}</p>' if text else ""


def header() -> str:
    """The page's title."""
    more = '<span class="more">Three models answer, say how sure they are, and show where they looked.</span>'
    line = f'<p class="tagline">{TAGLINE} {more}</p>'
    return f'<header class="masthead">{MARK}<div><h1>{TITLE}</h1>{line}</div></header>'


def footer() -> str:
    """What the answers are not."""
    limits = (
        "This is a guess from looks, not a pedigree test and not an expert opinion on a painting. "
        "Please base no decision about a dog, a home or a purchase on it."
    )
    privacy = "Photos serve for the answer only and are deleted within the hour."
    return f'<footer class="colophon">{paragraph(limits)}{paragraph(privacy)}</footer>'


def gallery(pictures: Sequence[tuple[str, str]]) -> str:
    """Examples to click on, given as address and description each; none, no row."""
    if not pictures:
        return ""
    buttons = "".join(
        f'<li><button type="button" data-index="{index}">'
        f'<img src="{safe(address)}" alt="{safe(alt)}" width="112" height="112"></button></li>'
        for index, (address, alt) in enumerate(pictures)
    )
    title = paragraph("Or try one of these", "label")
    return f'{title}<ul class="gallery" aria-label="Examples">{buttons}</ul>'


# --- the answer's place


def card(kind: str, title: str, parts: Iterable[str], role: str = "status", beside: str = "") -> str:
    """The frame of whatever stands in the answer's place, with a figure beside its title if there is one."""
    figure = f' <span class="figure">{safe(beside)}</span>' if beside else ""
    return (
        f'<section class="card {kind}" role="{role}"><h2 class="verdict">{safe(title)}{figure}</h2>'
        f"{''.join(parts)}</section>"
    )


def empty(task: str) -> str:
    """Before there is a photo."""
    entry = TASKS[task]
    how = (
        f"Choose a photo of a {entry.subject}, paste one, take one, or click an example. "
        f"The closest {entry.plural} appear here, each with how sure the model is."
    )
    parts = (
        paragraph(how),
        paragraph("Where the model should not be trusted alone, it says so and why.", "quiet"),
        f'<ol class="bars ghost" aria-hidden="true">{GHOST}</ol>',
    )
    return card("empty", "No photo yet", parts)


def working(step: str) -> str:
    """While the answer is being found."""
    return card("working", f"{step} …", [f'<ol class="bars ghost" aria-hidden="true">{GHOST}</ol>'])


def problem(message: str) -> str:
    """An error, read out at once."""
    return card("problem", "That did not work", [paragraph(message)], role="alert")


def answer(prediction: Prediction) -> str:
    """The verdict, the badge that asks for a check, names that belong to it, and the confidence bars."""
    confidence = verdict_confidence(prediction)
    parts = [
        badge(prediction.review),
        names(prediction),
        paragraph(above_bars(prediction), "lead"),
        bars(prediction),
        *(paragraph(warning.rstrip(".") + ".", "quiet") for warning in prediction.warnings),
    ]
    kind = "check" if prediction.review.needed else "sure"
    beside = "" if confidence is None else percent(confidence)
    return card(kind, prediction.verdict.text, parts, beside=beside)


def badge(review: Review) -> str:
    """That a person should check, with the reasons folded away; nothing where nobody need to."""
    if not review.needed:
        return ""
    items = "".join(f"<li>{safe(reason.message)}</li>" for reason in review.reasons)
    return f'<details class="review"><summary>{safe(CHECK)}</summary><ul>{items}</ul></details>'


def names(prediction: Prediction) -> str:
    """The members of a group too large for the verdict, or what is seen where the subject is missing."""
    shown = []
    if prediction.group and len(prediction.group.labels) > MAX_NAMES:
        title, shown = "They look alike", [display_name(label) for label in prediction.group.labels]
    elif prediction.looks_like:
        title = "It looks like"
        shown = [f"{one.name} {percent(one.confidence)}" for one in prediction.looks_like]
    if not shown:
        return ""
    items = "".join(f"<li>{safe(name)}</li>" for name in shown)
    return f'<ul class="names" aria-label="{title}">{items}</ul>'


def bars(prediction: Prediction) -> str:
    """Calibrated confidences as a list that reads well aloud; the bars themselves are decoration."""
    rows = "".join(
        f'<li><span class="name">{safe(candidate.name)}</span> '
        f'<span class="value">{safe(percent(candidate.confidence))}</span>'
        '<span class="bar" aria-hidden="true">'
        f'<span style="width:{100 * candidate.confidence:.1f}%"></span></span></li>'
        for candidate in prediction.predictions
    )
    left = prediction.model.classes - len(prediction.predictions)
    rest = max(0.0, 1 - sum(candidate.confidence for candidate in prediction.predictions))
    task = TASKS[prediction.task]
    others = f"The other {left} {task.plural}" if left > 1 else f"The other {task.noun}"
    note = f"{others} together: {percent(rest)}." if left > 0 else ""
    return f'<ol class="bars" aria-label="Confidence">{rows}</ol>{paragraph(note, "quiet")}'


def notice(text: str | None) -> str:
    """A line that says that another model than the intended one answers."""
    return f'<p class="notice" role="status">{safe(text)}</p>' if text else ""


# --- the heatmaps


def heatmaps_title(explanation: Explanation | None) -> str:
    """The title above the heatmaps, and the line that says what they show."""
    line = paragraph(shown_regions(explanation), "quiet")
    return f'<h2 class="part">Where each model looked</h2>{line}'


def caption(explanation: Explanation | None, variant: str) -> str:
    """Below one heatmap: the variant, its own answer, and its view of the label that is explained."""
    lines = [f"<h3>{safe(VARIANT_NAMES.get(variant, variant))}</h3>"]
    if explanation is None:
        lines.append(paragraph("Its answer and its heatmap appear here.", "quiet"))
    elif variant not in explanation.heatmaps:
        lines.append(paragraph("These weights come without this model.", "quiet"))
    else:
        own = next(entry for entry in explanation.prediction.variants if entry.variant == variant)
        heatmap = explanation.heatmaps[variant]
        lines.append(f'<p class="own">{safe(own.name)} <b>{safe(percent(own.confidence))}</b></p>')
        if own.label != explanation.label:
            lines.append(paragraph(f"{explanation.name}: {percent(heatmap.confidence)}", "quiet"))
        if heatmap.raw_max <= 0:
            lines.append(paragraph(f"No region speaks for {explanation.name}.", "quiet"))
    return f'<div class="caption">{"".join(lines)}</div>'


def legend(stops: Sequence[str]) -> str:
    """The colour bar of the heatmaps."""
    gradient = f"linear-gradient(90deg,{','.join(map(safe, stops))})"
    return (
        '<div class="legend"><span>little evidence</span>'
        f'<span class="ramp" aria-hidden="true" style="background:{gradient}"></span>'
        "<span>most evidence</span></div>"
    )


# --- details


def details(prediction: Prediction, answer_json: Mapping[str, Any]) -> str:
    """The 90 % candidates, the timings, the model, and the whole answer as a file."""
    plural = TASKS[prediction.task].plural
    model = prediction.model
    coverage = (
        f"On photos like those it was checked with, the truth is among these {plural} nine times in ten."
    )
    rows = "".join(
        f'<tr><th scope="row">{safe(step)}</th><td>{milliseconds:.0f} ms</td></tr>'
        for step, milliseconds in prediction.timing_ms.items()
    )
    threshold = percent(prediction.review.threshold)
    packed = base64.b64encode(json.dumps(answer_json, indent=1).encode()).decode()
    return "".join(
        (
            '<div class="details"><h3>Candidates</h3>',
            paragraph(", ".join(prediction.candidates_90)),
            paragraph(coverage, "quiet"),
            f'<h3>Time taken</h3><table class="timings"><tbody>{rows}</tbody></table><h3>Model</h3>',
            paragraph(f"{model.source}, {model.backbone}, {model.classes} {plural}"),
            paragraph(f"It asks for a check below {threshold}.", "quiet"),
            f'<p><a class="download" download="pawmatch-{safe(prediction.task)}.json" ',
            f'href="data:application/json;base64,{packed}">Download the answer as JSON</a></p></div>',
        )
    )


def no_details() -> str:
    """Where details will be."""
    return paragraph(CHOOSE_PHOTO, "quiet")
