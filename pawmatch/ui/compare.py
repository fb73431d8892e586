"""The page "Compare models": which widgets it has, where they stand, and what each event changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from pawmatch.errors import PawMatchError
from pawmatch.evaluation.compare import ImageAnswers, compare
from pawmatch.heatmaps import overlay
from pawmatch.labels import find_label
from pawmatch.results import Task
from pawmatch.settings import Settings
from pawmatch.ui import compared, html, retell
from pawmatch.ui.api import MODEL_RUN, PRIVATE, QUICK, worded
from pawmatch.ui.gradio_patches import address_of, keep_jpeg
from pawmatch.ui.handlers import (
    Example,
    Handlers,
    compared_photos,
    fit_for_visitors,
    label_or_none,
    photo_name,
)
from pawmatch.ui.page import HEIC_REFUSED, Update, page_header, refused_file, task_choice
from pawmatch.ui.speech import say, static

PATH = "compare"
SCRIPT = Path(__file__).with_name("compare.js").read_text(encoding="utf-8")
THUMBNAIL = (88, 88)  # pixels, twice the size on the page for sharp screens
# What compare.js knows takes the place of what widgets hold.
WITH_PHOTOS = "(photos, task, truth) => [pawmatchCompare.photos, task, pawmatchCompare.truth()]"
# On a phone the answer's place is below the button: whoever presses it should see that something goes on.
SHOW_ANSWER = """() => {
  const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
  document.getElementById("answer").scrollIntoView({ behavior, block: "nearest" });
}"""


class ComparePage:
    """All widgets, made from top to bottom within the route being built, and the events between them.

    A method that answers an event gives, for each widget that changes, its new value.
    """

    def __init__(self, handlers: Handlers, settings: Settings, examples: list[Example]) -> None:
        self.handlers, self.settings, self.examples = handlers, settings, examples
        tasks = list(handlers.classifiers.tasks.values())
        page_header(tasks)
        gr.HTML(static(compared.introduction))
        self.task = task_choice(tasks)
        # The photos themselves are with compare.js: this only carries them to and from the server.
        self.photos = gr.File(file_count="multiple", visible=False)
        self.typed, self.names = gr.Textbox(visible=False), gr.JSON(visible=False)
        with gr.Row(elem_classes="board"):
            with gr.Column(elem_classes="question"):
                gr.HTML(static(compared.truth_field), elem_id="truth")
                limit = settings.max_upload_mb * 2**20
                self.intake = gr.HTML(
                    static(lambda: compared.intakes(limit, not HEIC_REFUSED, bool(examples))),
                    js_on_load=SCRIPT,
                    elem_id="photos",
                )
            with gr.Column(elem_classes="reply"):
                self.card = gr.HTML(static(compared.empty), elem_id="answer")
        self.tables = gr.HTML(elem_id="tables")
        gr.HTML(static(lambda: html.footer(tasks)))
        self.outputs = [self.card, self.tables]

    def connect(self) -> None:
        """Which event leads to what."""
        run: dict[str, Any] = {
            "fn": self.compare,
            "inputs": [self.photos, self.task, self.typed],
            "outputs": self.outputs,
            "js": WITH_PHOTOS,
            "show_progress": "hidden",
            "trigger_mode": "once",
            **PRIVATE,
            **MODEL_RUN,
        }
        in_browser: dict[str, Any] = {"fn": None, "api_visibility": "private"}
        free = {**in_browser, "js": "() => pawmatchCompare.busy(false)"}
        taken = {**in_browser, "inputs": self.photos, "js": "(photos) => pawmatchCompare.set(photos)"}
        for event in (self.intake.compare, self.intake.drawings):
            event(**in_browser, js=SHOW_ANSWER)
        self.intake.compare(**run).then(**free)
        drawings = self.intake.drawings(worded(self.choose_drawings), self.task, self.photos, **QUICK)
        drawings.then(**taken).then(**run).then(**free)
        self.intake.refused(self.refuse, None, self.outputs, **QUICK)
        self.task.change(self.change_task, None, self.outputs, **QUICK)
        offer = {**in_browser, "inputs": self.names, "js": "(names) => pawmatchCompare.offer(names)"}
        for event in (self.intake.chosen, self.task.change):
            event(self.truths, self.task, self.names, **QUICK).then(**offer)

    # --- what the events change

    def compare(self, images: Any, task: Any, truth: Any) -> Iterator[Update]:
        """Look at the photos one by one, saying how far that is, then compare."""
        if images and not self.handlers.is_ready(task):
            yield self.blank(compared.working(say("page.loading")))
        try:
            with fit_for_visitors():
                photos, words, typed = compared_photos(images), self.handlers.task(task), label_or_none(truth)
                labels = self.handlers.classifiers.get(words.name).labels
                label = None if typed is None else find_label(labels, retell.label_typed(labels, typed))
                answered: list[compared.Row] = []
                refused: list[tuple[str, str]] = []
                for number, photo in enumerate(photos, 1):
                    file = photo_name(photo, number)
                    text = say("compare.progress", number=number, count=len(photos), file=file)
                    yield self.blank(
                        compared.working(say("compare.looking"), text, (number - 1) / len(photos))
                    )
                    try:
                        answered.append(self.look(photo, file, words.name, label))
                    except PawMatchError as exc:
                        refused.append((file, retell.error(exc)))
                yield self.compared(words, label, answered, refused)
        except PawMatchError as exc:
            yield self.blank(html.problem(retell.error(exc)))

    def look(self, photo: Any, file: str, task: str, truth: str | None) -> compared.Row:
        """One photo, answered and explained; raises errors fit for a visitor."""
        _, found = self.handlers.paint(self.handlers.look(photo, task), truth)
        name = retell.class_name(found.label)
        maps = {}
        for variant, heatmap in found.heatmaps.items():
            drawn = overlay(
                found.photo, heatmap, colormap=self.settings.colormap, strength=self.settings.strength
            )
            address = address_of(keep_jpeg(html.as_jpeg(drawn), variant))
            maps[variant] = address, html.alt_text(heatmap, name)
        answers = found.prediction.variants
        in_truth = tuple(found.heatmaps[answer.variant].confidence for answer in answers)
        told = ImageAnswers(file, answers, truth, in_truth if truth else (), found.prediction.review)
        small = found.photo.copy()
        small.thumbnail(THUMBNAIL)
        return compared.Row(told, html.data_address(small), maps)

    def compared(
        self, words: Task, truth: str | None, answered: list[compared.Row], refused: list[tuple[str, str]]
    ) -> Update:
        """A comparison with everything that belongs to it, or that no photo can be used."""
        if not answered:
            return self.blank(compared.nothing_usable(refused))
        found = compare([photo.answers for photo in answered])
        values = {
            "task": words.name,
            **found.to_dict(),
            "per_image": [photo.answers.to_dict() for photo in answered],
            "failed": [{"file": name, "error": message} for name, message in refused],
        }
        told = [replace(row, answers=retell.answers(row.answers, words)) for row in answered]
        tables = (
            compared.photos(told, retell.class_name(truth or "")),
            compared.histograms(found),
            compared.file(values, words.name),
        )
        return {
            self.card: compared.card(found, refused, self.handlers.classifiers.notice(words.name)),
            self.tables: "".join(tables),
        }

    def blank(self, card: str) -> Update:
        """Something in the answer's place, and nothing left of the last comparison."""
        return {self.card: card, self.tables: ""}

    def refuse(self, event: gr.EventData) -> Update:
        """A file that the page did not send: what to do, and nothing left of the last comparison."""
        return self.blank(html.problem(refused_file(event, self.settings.max_upload_mb)))

    def choose_drawings(self, task: Any) -> list[str]:
        """The examples of a task, as if they had been uploaded."""
        mine = [] if task is None else self.handlers.examples_for(task, self.examples)
        return [str(example.path) for example in mine]

    def change_task(self) -> Update:
        """Another task: nothing left of the last comparison."""
        return self.blank(compared.empty())

    def truths(self, task: Any) -> list[str]:
        """Names of what photos may show: without models, which the comparison will say, there are none."""
        try:
            with fit_for_visitors():
                labels = self.handlers.labels(self.handlers.task(task).name)
                return sorted(retell.class_name(label) for _, label in labels)
        except PawMatchError:
            return []
