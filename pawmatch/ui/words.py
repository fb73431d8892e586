"""Results in words: the sentences that people read or hear, as plain text."""

from __future__ import annotations

import re
from typing import Any

from pawmatch.results import Explanation, Heatmap, Prediction
from pawmatch.tasks import VARIANT_NAMES

# Spelt with a vowel, spoken with a consonant: "a Eurasier", "a Uruguayan Cimarron".
CONSONANT_SOUNDS = ("eu", "ewe", "uni", "uru", "ute")
# First words of a sentence that lose their capital when it becomes a clause; names would keep theirs.
LOWERED = {"a", "an", "another", "both", "it", "no", "the", "there", "this", "two"}


def percent(confidence: float) -> str:
    """A confidence for reading: 0.714 -> "71 %". Never 0 % or 100 %, which no model can know."""
    if confidence < 0.01:
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


def best_guess(prediction: Prediction) -> str:
    """The first choice and its confidence, without saying whether to believe it."""
    top = prediction.top
    return f"{thing(prediction.task, top.name)}, {percent(top.confidence)}"


def verdict(prediction: Prediction) -> str:
    """The answer in one line: what it looks like, or the gravest reason to ask a person."""
    review = prediction.review
    if not review.needed:
        return f"Looks like {best_guess(prediction)}"
    reason = clause(review.reasons[0].message) if review.reasons else "the answer is unsure."
    return f"Please have someone check: {reason}"


def shown_regions(explanation: Explanation | None) -> str:
    """What the heatmaps show."""
    if explanation is None:
        return "Each model paints the regions that speak for one answer."
    name = thing(explanation.prediction.task, explanation.name)
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
