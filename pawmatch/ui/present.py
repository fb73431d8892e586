"""Results in words: every sentence and every line of HTML that the page shows. No gradio in here.

Labels, messages and file names may come from strangers, so nothing enters HTML except through `safe`.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from pawmatch.results import Explanation, Prediction, ReviewReason
from pawmatch.tasks import TASKS, VARIANT_NAMES

TITLE = "pawmatch"
TAGLINE = "Which breed? Which painter?"
NO_DETAILS = "Choose a photo first."
# A paw in a picture frame.
MARK = (
    '<svg class="mark" viewBox="0 0 48 48" aria-hidden="true">'
    '<rect x="3" y="3" width="42" height="42" rx="9" fill="none" stroke="currentColor" stroke-width="3.4"/>'
    '<g fill="currentColor"><ellipse cx="14.6" cy="22.4" rx="3.1" ry="4.2"/>'
    '<ellipse cx="20.8" cy="16.4" rx="3.1" ry="4.4"/><ellipse cx="27.8" cy="16.4" rx="3.1" ry="4.4"/>'
    '<ellipse cx="33.6" cy="22.4" rx="3.1" ry="4.2"/>'
    '<path d="M24.2 22.8c4.2 0 8.2 4.6 8.2 8.6 0 3-2.4 4-4.4 4-1.6 0-2.4-.7-3.8-.7s-2.2.7-3.8.7c-2 0-4.4-1-4.4-4 '
    '0-4 4-8.6 8.2-8.6z"/></g></svg>'
)
GHOST = "".join(
    f'<li><span class="bar"><span style="width:{width}%"></span></span></li>' for width in (62, 21, 9, 5, 3)
)
HEAD = (
    '<meta name="description" content="Tells dog breeds and painters apart from a photo, says how sure it is, '
    'and shows where three models looked.">'
    '<link rel="icon" href="data:image/svg+xml,'
    + quote(MARK.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ').replace("currentColor", "#b0502a"))
    + '">'
)
# Spelt with a vowel, spoken with a consonant: "a Eurasier", "a Uruguayan Cimarron".
CONSONANT_SOUNDS = ("eu", "ewe", "uni", "uru", "ute", "us ")
# First words of a sentence that lose their capital when the sentence becomes a clause.
LOWERED = {"a", "an", "another", "both", "it", "no", "the", "there", "this", "two"}


def safe(text: object) -> str:
    """Text for use inside HTML, quotes included.

    Braces, dollar signs and backticks too: Gradio fills its HTML as a template, where they mean something.
    """
    escaped = html.escape(str(text), quote=True)
    return escaped.translate({ord(sign): f"&#{ord(sign)};" for sign in "{}$`"})


def percent(confidence: float) -> str:
    """A confidence for reading: 0.714 -> "71 %". Never 0 % or 100 %, which no model can know."""
    if confidence < 0.005:
        return "under 1 %"
    if confidence >= 0.995:
        return "over 99 %"
    return f"{100 * confidence:.0f} %"


def with_article(name: str) -> str:
    """The name with the article that it is spoken with: "an Akita", "a Eurasier"."""
    lower = name.lower()
    vowel = lower.startswith(tuple("aeiou")) and not lower.startswith(CONSONANT_SOUNDS)
    return f"{'an' if vowel else 'a'} {name}"


def thing(task: str, name: str) -> str:
    """What an answer claims to see: "a Border Collie", "a painting by Claude Monet"."""
    return f"a painting by {name}" if task == "artist" else with_article(name)


def clause(sentence: str) -> str:
    """A sentence made fit to follow a colon."""
    first, _, rest = sentence.partition(" ")
    return f"{first.lower()} {rest}" if first.lower() in LOWERED else sentence


def verdict(prediction: Prediction) -> str:
    """The answer in one line."""
    if prediction.review.needed:
        reasons = prediction.review.reasons
        return "Please have someone check: " + (
            clause(reasons[0].message) if reasons else "the answer is unsure."
        )
    top = prediction.top
    return f"Looks like {thing(prediction.task, top.name)}, {percent(top.confidence)}"


def answer(prediction: Prediction) -> str:
    """The card with the verdict, the reasons for a check and the confidence bars."""
    review = prediction.review
    top = prediction.top
    tone = "check" if review.needed else "sure"
    lines = [f'<h2 class="verdict">{safe(verdict(prediction))}</h2>']
    if review.needed:
        guess = f"Best guess: {thing(prediction.task, top.name)}, {percent(top.confidence)}."
        lines.append(f'<p class="guess">{safe(guess)}</p>')
    if len(review.reasons) > 1:
        lines.append(other_reasons(review.reasons[1:]))
    lines.append(bars(prediction))
    lines += [
        f'<p class="quiet">{safe(warning)}.</p>' for warning in (w.rstrip(".") for w in prediction.warnings)
    ]
    return f'<section class="card {tone}" role="status" aria-label="Answer">{"".join(lines)}</section>'


def other_reasons(reasons: Sequence[ReviewReason]) -> str:
    """The reasons that did not fit into the verdict."""
    items = "".join(f"<li>{safe(reason.message)}</li>" for reason in reasons)
    return f'<ul class="reasons" aria-label="Further reasons">{items}</ul>'


def bars(prediction: Prediction) -> str:
    """Calibrated confidences as a list that reads well aloud; the bars themselves are decoration."""
    rows = "".join(
        f'<li><span class="name">{safe(candidate.name)}</span> '
        f'<span class="value">{percent(candidate.confidence)}</span>'
        f'<span class="bar" aria-hidden="true"><span style="width:{100 * candidate.confidence:.1f}%"></span></span></li>'
        for candidate in prediction.predictions
    )
    left = prediction.model.classes - len(prediction.predictions)
    rest = max(0.0, 1 - sum(candidate.confidence for candidate in prediction.predictions))
    task = TASKS[prediction.task]
    others = f"The other {left} {task.plural}" if left > 1 else f"The other {task.noun}"
    note = f"{others} together: {percent(rest)}." if left > 0 else ""
    return f'<ol class="bars" aria-label="Confidence">{rows}</ol><p class="quiet">{note}</p>'


def empty(task: str) -> str:
    """The answer's place before there is a photo."""
    subject, plural = TASKS[task].subject, TASKS[task].plural
    return (
        '<section class="card empty" aria-label="Answer"><h2 class="verdict">No photo yet</h2>'
        f"<p>Choose a photo of a {subject}, paste one, take one, or click an example. "
        f"The closest {plural} appear here, each with how sure the model is.</p>"
        '<p class="quiet">Where the model should not be trusted alone, it says so and why.</p>'
        f'<ol class="bars ghost" aria-hidden="true">{GHOST}</ol></section>'
    )


def gallery(pictures: Sequence[tuple[str, str]]) -> str:
    """Examples to click on, given as address and description each; none, no row."""
    if not pictures:
        return ""
    buttons = "".join(
        f'<li><button type="button" data-index="{index}"><img src="{safe(address)}" alt="{safe(alt)}" '
        'width="112" height="112"></button></li>'
        for index, (address, alt) in enumerate(pictures)
    )
    return f'<p class="label">Or try a drawing of ours</p><ul class="gallery" aria-label="Examples">{buttons}</ul>'


def problem(message: str) -> str:
    """An error in the answer's place, read out at once."""
    return (
        '<section class="card problem" role="alert"><h2 class="verdict">That did not work</h2>'
        f"<p>{safe(message)}</p></section>"
    )


def caption(explanation: Explanation | None, variant: str) -> str:
    """What stands below one heatmap: the variant, its own answer, and its view of the label explained."""
    lines = [f"<h3>{safe(VARIANT_NAMES.get(variant, variant))}</h3>"]
    if explanation is None:
        lines.append('<p class="quiet">Its answer and its heatmap appear here.</p>')
    elif variant not in explanation.heatmaps:
        lines.append('<p class="quiet">These weights come without this model.</p>')
    else:
        own = next(entry for entry in explanation.prediction.variants if entry.variant == variant)
        heatmap = explanation.heatmaps[variant]
        lines.append(f'<p class="own">{safe(own.name)} <b>{percent(own.confidence)}</b></p>')
        if own.label != explanation.label:
            view = f"{explanation.name}: {percent(heatmap.confidence)}"
            lines.append(f'<p class="quiet">{safe(view)}</p>')
        if heatmap.raw_max <= 0:
            lines.append(f'<p class="quiet">No region speaks for {safe(explanation.name)}.</p>')
    return f'<div class="caption">{"".join(lines)}</div>'


def alt_text(explanation: Explanation, variant: str) -> str:
    """The heatmap for those who do not see it."""
    model = VARIANT_NAMES.get(variant, variant)
    heatmap = explanation.heatmaps[variant]
    if heatmap.raw_max <= 0:
        return f"The photo without colours: {model} found no region that speaks for {explanation.name}"
    return f"The photo with a heatmap: where {model} found evidence for {explanation.name}, mostly {place(heatmap.cam)}"


def place(cam: Any) -> str:
    """Where a coarse map is hottest, in words: "at the top left", "in the centre"."""
    row, column = divmod(int(cam.argmax()), cam.shape[1])
    vertical = ("top", "", "bottom")[min(2, 3 * row // cam.shape[0])]
    horizontal = ("left", "", "right")[min(2, 3 * column // cam.shape[1])]
    words = " ".join(word for word in (vertical, horizontal) if word)
    return f"at the {words}" if words else "in the centre"


def legend(stops: Sequence[str]) -> str:
    """The colour bar of the heatmaps."""
    return (
        '<div class="legend"><span>little evidence</span>'
        f'<span class="ramp" aria-hidden="true" style="background:linear-gradient(90deg,{",".join(map(safe, stops))})"></span>'
        "<span>most evidence</span></div>"
    )


def explained(explanation: Explanation | None) -> str:
    """The title above the heatmaps, and the line that says what they show."""
    if explanation is None:
        text = "Each model paints the regions that speak for one answer."
    else:
        name = thing(explanation.prediction.task, explanation.name)
        text = f"Coloured regions speak for {name}. The models see a coarse grid, so sharp edges mean nothing."
    return f'<h2 class="part">Where each model looked</h2><p class="quiet">{safe(text)}</p>'


def details(prediction: Prediction, answer_json: Mapping[str, Any]) -> str:
    """The 90 % candidates, the timings, and the whole answer as a file."""
    plural = TASKS[prediction.task].plural
    names = ", ".join(prediction.candidates_90)
    timings = "".join(
        f"<tr><th scope='row'>{safe(step)}</th><td>{milliseconds:.0f} ms</td></tr>"
        for step, milliseconds in prediction.timing_ms.items()
    )
    packed = base64.b64encode(json.dumps(answer_json, indent=1).encode()).decode()
    model = prediction.model
    return (
        f'<div class="details"><h3>Candidates</h3><p>{safe(names)}</p>'
        f'<p class="quiet">On photos like those it was checked with, the truth is among these {plural} nine times out of ten.</p>'
        f'<h3>Time taken</h3><table class="timings"><tbody>{timings}</tbody></table>'
        f"<h3>Model</h3><p>{safe(model.source)}, {safe(model.backbone)}, {model.classes} {plural}; "
        f"it asks for a check below {percent(prediction.review.threshold)}.</p>"
        f'<p><a class="download" download="pawmatch-{safe(prediction.task)}.json" '
        f'href="data:application/json;base64,{packed}">Download the answer as JSON</a></p></div>'
    )


def card_text(card: str) -> str:
    """A model card as Markdown without front matter, HTML or pictures: it may come from a stranger."""
    if card.startswith("---\n") and "\n---\n" in card[4:]:
        card = card[4:].partition("\n---\n")[2]
    # A picture becomes a link: the page itself must not call other servers.
    return card.replace("![", "[").replace("<", "&lt;").strip() or "This model comes without a card."


def header() -> str:
    """The page's title."""
    return (
        f'<header class="masthead">{MARK}<div><h1>{TITLE}</h1><p class="tagline">{TAGLINE} '
        "Three models answer, say how sure they are, and show where they looked.</p></div></header>"
    )


def footer() -> str:
    """What the answers are not."""
    return (
        '<footer class="colophon"><p>This is a guess from looks, not a pedigree test and not an expert opinion on '
        "a painting. Please do not base decisions about a dog, a home or a purchase on it.</p>"
        "<p>Photos are used for the answer only and deleted within the hour.</p></footer>"
    )


def notice(text: str | None) -> str:
    """A line that says that another model than the intended one answers."""
    return f'<p class="notice" role="status">{safe(text)}</p>' if text else ""
