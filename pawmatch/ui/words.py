"""Results in words: the sentences that people read or hear, as plain text."""

from __future__ import annotations

import re
from typing import Any

from pawmatch.phrasing import thing, with_article
from pawmatch.results import Explanation, Heatmap, Prediction
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
