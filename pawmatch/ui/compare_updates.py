"""Comparisons to widget updates: what the events of the page "Compare" give back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from pawmatch.errors import PawMatchError
from pawmatch.evaluation.compare import Comparison, ImageAnswers
from pawmatch.tasks import find_task
from pawmatch.ui import compare_present, compare_words, present
from pawmatch.ui.comparing import (
    Colours,
    Question,
    Refused,
    Step,
    look_at_all,
    read_question,
    summarise,
)
from pawmatch.ui.handlers import Handlers, fit_for_visitors
from pawmatch.ui.pictures import data_address, keep_jpeg

UNKNOWN_TRUTH = ("I do not know, or they differ", "")


@dataclass(frozen=True)
class CompareWidgets:
    """What a comparison changes on the page."""

    card: gr.HTML
    tables: gr.HTML
    sheets: gr.Gallery
    download: gr.HTML
    button: gr.Button
    truth: gr.Dropdown

    def all(self) -> list[Any]:
        """Every widget, for an event that may change any of them."""
        return list(vars(self).values())


@dataclass(frozen=True)
class Shown:
    """A photo that was answered: its heatmap sheet as a file, its thumbnail as an address."""

    answers: ImageAnswers
    sheet: str
    thumbnail: str


Update = dict[Any, Any]


class CompareUpdates:
    """What the page's events give back: for each widget that changes, its new value."""

    def __init__(self, handlers: Handlers, widgets: CompareWidgets, colours: Colours) -> None:
        self.handlers = handlers
        self.widgets = widgets
        self.colours = colours

    def compare(self, images: Any, task: Any, truth: Any) -> Iterator[Update]:
        """Look at the photos one by one, saying how far that is, then compare."""
        if images and not self.handlers.is_ready(task):
            yield {**self.blank(compare_present.working("Loading the models")), **self.busy(True)}
        try:
            with fit_for_visitors():
                question = read_question(self.handlers, images, task, truth)
                yield from self.looked(question)
        except PawMatchError as exc:
            yield {**self.blank(present.problem(str(exc))), **self.busy(False)}

    def looked(self, question: Question) -> Iterator[Update]:
        """The steps of a comparison that can be made, and its result."""
        page = self.widgets
        answered: list[Shown] = []
        refused: list[tuple[str, str]] = []
        for event in look_at_all(self.handlers, question, self.colours):
            if isinstance(event, Step):
                text = compare_words.progress(event.number, event.total, event.name)
                share = (event.number - 1) / event.total
                card = compare_present.working("Looking at the photos", text, share)
                yield {**self.blank(card), **self.busy(True)} if event.number == 1 else {page.card: card}
            elif isinstance(event, Refused):
                refused.append((event.name, event.message))
            else:
                sheet, thumbnail = keep_jpeg(event.sheet, "sheet"), data_address(event.thumbnail)
                answered.append(Shown(event.answers, sheet, thumbnail))
        comparison = summarise([shown.answers for shown in answered])
        if comparison is None:
            yield {**self.blank(compare_present.nothing_usable(refused)), **self.busy(False)}
        else:
            yield {**self.compared(question, comparison, answered, refused), **self.busy(False)}

    def compared(
        self,
        question: Question,
        comparison: Comparison,
        answered: list[Shown],
        refused: list[tuple[str, str]],
    ) -> Update:
        """A comparison with everything that belongs to it."""
        page = self.widgets
        rows = [(shown.thumbnail, shown.answers) for shown in answered]
        values = {
            "task": question.task,
            **comparison.to_dict(),
            "per_image": [image.to_dict() for _, image in rows],
            "failed": [{"file": name, "error": message} for name, message in refused],
        }
        parts = (
            compare_present.figure(comparison),
            compare_present.photo_table(rows, question.truth_name),
            compare_present.sheets_title(),
        )
        sheets = [(shown.sheet, compare_words.sheet(shown.answers)) for shown in answered]
        warning = self.handlers.notice(question.task)
        return {
            page.card: compare_present.result(comparison, refused, warning),
            page.tables: "".join(parts),
            page.sheets: gr.Gallery(value=sheets, visible=True),
            page.download: compare_present.download(values, question.task),
        }

    def blank(self, card: str) -> Update:
        """Something in the answer's place, and nothing left of the last comparison."""
        page = self.widgets
        sheets = gr.Gallery(value=None, visible=False)
        return {page.card: card, page.tables: "", page.sheets: sheets, page.download: ""}

    def busy(self, is_busy: bool) -> Update:
        """Whether the button can be pressed."""
        return {self.widgets.button: gr.Button(interactive=not is_busy)}

    def change_task(self, task: Any) -> Update:
        """Another task: nothing left of the last comparison, and other true labels to choose from."""
        with fit_for_visitors():
            name = find_task(task).name
        return {
            **self.blank(compare_present.empty(name)),
            self.widgets.truth: gr.Dropdown(choices=self.truths(name), value=""),
        }

    def offer_truths(self, task: Any) -> Any:
        """The true labels to choose from, if the models that know them are there already."""
        if not self.handlers.is_ready(task):
            return gr.skip()
        return gr.Dropdown(choices=self.truths(task))

    def load_truths(self, task: Any) -> Any:
        """The true labels to choose from; the models, needed soon, are loaded for that."""
        return gr.Dropdown(choices=self.truths(task))

    def truths(self, task: Any) -> list[tuple[str, str]]:
        """The choice of the true label: without models, which the comparison will say, there is none."""
        try:
            with fit_for_visitors():
                return [UNKNOWN_TRUTH, *self.handlers.labels(find_task(task).name)]
        except PawMatchError:
            return [UNKNOWN_TRUTH]
