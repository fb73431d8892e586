"""Results to widget updates: the one place that knows both what an answer holds and what the page shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import gradio as gr
from PIL import Image

from pawmatch.errors import PawMatchError
from pawmatch.explain import colormap_stops, overlay
from pawmatch.tasks import VARIANT_NAMES
from pawmatch.ui import present, words
from pawmatch.ui.handlers import Handlers, Shown, fit_for_visitors
from pawmatch.ui.kept import Kept, keep
from pawmatch.ui.pictures import keep_jpeg

NOTHING_TO_EXPLAIN = [(present.CHOOSE_PHOTO, "")]


@dataclass(frozen=True)
class Widgets:
    """What an answer changes on the page."""

    kept: gr.State
    answer: gr.HTML
    notice: gr.HTML
    retry: gr.Button
    label: gr.Dropdown
    explained: gr.HTML
    details: gr.HTML
    json: gr.JSON
    card: gr.Markdown
    images: list[gr.Image]
    captions: list[gr.HTML]

    def all(self) -> list[Any]:
        """Every widget, for an event that may change any of them."""
        widgets = vars(self).values()
        return [part for widget in widgets for part in (widget if isinstance(widget, list) else [widget])]


Update = dict[Any, Any]


class Updates:
    """What the page's events give back: for each widget that changes, its new value."""

    def __init__(self, handlers: Handlers, widgets: Widgets) -> None:
        self.handlers = handlers
        self.widgets = widgets

    def look(self, image: Any, task: str, colormap: str, strength: float) -> Iterator[Update]:
        """A new photo, or another task for it: say what is going on, then answer and explain."""
        page = self.widgets
        if image is not None and not self.handlers.is_ready(task):
            yield {page.answer: present.working("Loading the models")}
            with suppress(PawMatchError):  # which the answer will meet again, and say
                self.handlers.prepare(task)
        if image is not None:
            yield {page.answer: present.working("Looking at the photo")}
        yield self.explain(image, task, None, colormap, strength)

    def explain(self, image: Any, task: str, label: str | None, colormap: str, strength: float) -> Update:
        """The photo that is there, with the heatmaps for one label."""
        try:
            with fit_for_visitors():
                if image is None:
                    return self.blank(task, None)
                return self.answered(self.handlers.examine(image, task, label), colormap, strength)
        except PawMatchError as exc:
            # In the answer's own place: a passing message would leave the last photo's answer standing.
            return self.blank(task, str(exc))

    def explain_chosen(self, image: Any, task: str, label: str, colormap: str, strength: float) -> Update:
        """The same photo, with the heatmaps for the label that was just chosen."""
        update = self.explain(image, task, label, colormap, strength)
        if update[self.widgets.kept] is not None:
            # It stands there already, and the visitor may be about to choose another one.
            del update[self.widgets.label]
        return update

    def retry(self, task: str) -> None:
        """Load the intended model again; whether that helped, the next answer's notice says."""
        try:
            self.handlers.retry(task)
        except PawMatchError as exc:
            gr.Warning(present.safe(exc))

    def restyle(self, kept: Kept | None, colormap: str, strength: float) -> list[Any]:
        """The overlays in other colours or strength; the models do not run for that."""
        if kept is None:
            return [gr.skip() for _ in VARIANT_NAMES]
        return overlays(kept, kept.photo(), colormap, strength)

    def legend(self, colormap: str) -> str:
        """The colour bar of a colour map."""
        return present.legend(colormap_stops(colormap))

    def blank(self, task: str, problem: str | None) -> Update:
        """A problem, or else an invitation, in the answer's place, and nothing left of the last answer."""
        page = self.widgets
        answer = present.problem(problem) if problem else present.empty(task)
        return {
            page.kept: None,
            page.answer: answer,
            **self.noticed(task),
            page.label: gr.Dropdown(choices=NOTHING_TO_EXPLAIN, value="", interactive=False),
            page.explained: present.heatmaps_title(None),
            page.details: present.no_details(),
            page.json: None,
            page.card: present.CHOOSE_PHOTO,
            **dict.fromkeys(page.images),
            **{
                widget: present.caption(None, variant)
                for widget, variant in zip(page.captions, VARIANT_NAMES, strict=True)
            },
        }

    def answered(self, shown: Shown, colormap: str, strength: float) -> Update:
        """An answer with everything that belongs to it."""
        page = self.widgets
        explanation = shown.explanation
        prediction = explanation.prediction
        kept = keep(shown)
        return {
            page.kept: kept,
            page.answer: present.answer(prediction),
            **self.noticed(prediction.task),
            page.label: gr.Dropdown(
                choices=self.handlers.labels(prediction.task), value=explanation.label, interactive=True
            ),
            page.explained: present.heatmaps_title(explanation),
            page.details: present.details(prediction, shown.json),
            page.json: shown.json,
            page.card: words.card_text(self.handlers.card(prediction.task)),
            **dict(zip(page.images, overlays(kept, shown.photo, colormap, strength), strict=True)),
            **{
                widget: present.caption(explanation, variant)
                for widget, variant in zip(page.captions, VARIANT_NAMES, strict=True)
            },
        }

    def noticed(self, task: str) -> Update:
        """Whether another model than the intended one answers, and the button to change that."""
        text = self.handlers.notice(task)
        return {self.widgets.notice: present.notice(text), self.widgets.retry: gr.Button(visible=bool(text))}


def overlays(kept: Kept, photo: Image.Image, colormap: str, strength: float) -> list[Any]:
    """One update per variant's image, with words for those who do not see it."""
    updates = []
    for variant in VARIANT_NAMES:
        heatmap = kept.heatmaps.get(variant)
        if heatmap is None:
            updates.append(gr.Image(value=None))
            continue
        picture = overlay(photo, heatmap, colormap=colormap, strength=strength)
        updates.append(
            gr.Image(value=keep_jpeg(picture, variant), alt_text=words.alt_text(heatmap, kept.name))
        )
    return updates
