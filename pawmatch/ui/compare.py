"""The page "Compare": which widgets it has, where they stand, and what each event changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
from PIL import Image

from pawmatch.errors import PawMatchError
from pawmatch.evaluation.compare import ImageAnswers, compare
from pawmatch.heatmaps import draw_square_sheet, overlay
from pawmatch.labels import display_name, find_label
from pawmatch.settings import Settings
from pawmatch.ui import html
from pawmatch.ui.api import MODEL_RUN, PRIVATE, QUICK, worded
from pawmatch.ui.gradio_patches import keep_jpeg
from pawmatch.ui.handlers import (
    Example,
    Handlers,
    compared_photos,
    fit_for_visitors,
    label_or_none,
    photo_name,
)
from pawmatch.ui.page import Update, page_header, refused_file, task_choice

PATH = "compare"
TITLE = "Compare"
UNKNOWN_TRUTH = ("I do not know, or they differ", "")
THUMBNAIL = (88, 88)  # pixels, twice the size on the page for sharp screens
# On a phone the answer's place is below the button: whoever presses it should see that something goes on.
SHOW_ANSWER = """() => {
  const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
  document.getElementById("answer").scrollIntoView({ behavior, block: "nearest" });
}"""


@dataclass(frozen=True)
class Compared:
    """A photo that every variant has answered for: its heatmap sheet, and its thumbnail as an address."""

    answers: ImageAnswers
    sheet: Image.Image
    thumbnail: str


class ComparePage:
    """All widgets, made from top to bottom within the route being built, and the events between them.

    A method that answers an event gives, for each widget that changes, its new value.
    """

    def __init__(self, handlers: Handlers, settings: Settings, examples: list[Example]) -> None:
        self.handlers, self.settings, self.examples = handlers, settings, examples
        tasks = list(handlers.classifiers.tasks.values())
        self.header = page_header(tasks, settings)
        gr.HTML(html.comparison_introduction())
        with gr.Row(elem_classes=["ask", "compare"]):
            with gr.Column(elem_classes="question"):
                self.task = task_choice(tasks)
                self.photos = gr.File(
                    label="Photos", file_count="multiple", file_types=["image"], height=210, elem_id="photos"
                )
                self.truth = gr.Dropdown(
                    [UNKNOWN_TRUTH],
                    value="",
                    label="What do they all show?",
                    info="If you know, right answers are marked.",
                    interactive=True,
                    elem_id="truth",
                )
                self.button = gr.Button("Compare", variant="primary", elem_id="compare")
                self.drawings = gr.Button(
                    "Or try our drawings", size="md", elem_id="drawings", visible=bool(examples)
                )
            with gr.Column(elem_classes="reply"):
                self.card = gr.HTML(html.comparison_empty(tasks[0]), elem_id="answer")
        self.tables = gr.HTML(elem_id="tables")
        self.sheets = gr.Gallery(
            show_label=False,
            columns=2,
            height="auto",
            object_fit="contain",
            interactive=False,
            visible=False,
            buttons=["fullscreen", "download"],
            elem_id="sheets",
        )
        self.download = gr.HTML()
        gr.HTML(html.footer(tasks))
        self.outputs = [self.card, self.tables, self.sheets, self.download, self.button, self.truth]

    def connect(self, demo: gr.Blocks) -> None:
        """Which event leads to what; `demo` is the whole app, whose loading is an event too."""
        run: dict[str, Any] = {
            "fn": self.compare,
            "inputs": [self.photos, self.task, self.truth],
            "outputs": self.outputs,
            "show_progress": "minimal",
            "show_progress_on": self.card,
            "trigger_mode": "once",
            **PRIVATE,
            **MODEL_RUN,
        }
        gr.on([self.button.click, self.drawings.click], None, js=SHOW_ANSWER, api_visibility="private")
        self.button.click(**run)
        self.drawings.click(worded(self.choose_drawings), self.task, self.photos, **QUICK).then(**run)
        self.task.change(worded(self.change_task), self.task, self.outputs, **QUICK)
        self.photos.upload(self.load_truths, self.task, self.truth, **QUICK)
        self.header.click(self.refuse, None, self.outputs, **QUICK)
        demo.load(self.offer_truths, self.task, self.truth, **QUICK)

    # --- what the events change

    def compare(self, images: Any, task: Any, truth: Any) -> Iterator[Update]:
        """Look at the photos one by one, saying how far that is, then compare."""
        if images and not self.handlers.is_ready(task):
            yield {**self.blank(html.comparing("Loading the models")), **self.busy(True)}
        try:
            with fit_for_visitors():
                photos, name, label = (
                    compared_photos(images),
                    self.handlers.task(task).name,
                    label_or_none(truth),
                )
                labels = self.handlers.classifiers.get(name).labels
                label = None if label is None else find_label(labels, label)
                answered: list[Compared] = []
                refused: list[tuple[str, str]] = []
                for number, photo in enumerate(photos, 1):
                    file = photo_name(photo, number)
                    text = f"Photo {number} of {len(photos)}: {file}"
                    card = html.comparing("Looking at the photos", text, (number - 1) / len(photos))
                    yield {**self.blank(card), **self.busy(True)} if number == 1 else {self.card: card}
                    try:
                        answered.append(self.look(photo, file, name, label))
                    except PawMatchError as exc:
                        refused.append((file, str(exc)))
                yield {**self.compared(name, label, answered, refused), **self.busy(False)}
        except PawMatchError as exc:
            yield {**self.blank(html.problem(exc)), **self.busy(False)}

    def look(self, photo: Any, file: str, task: str, truth: str | None) -> Compared:
        """One photo, answered and explained; raises errors fit for a visitor."""
        _, found = self.handlers.paint(self.handlers.look(photo, task), truth)
        colors = {"colormap": self.settings.colormap, "strength": self.settings.strength}
        drawn = {
            variant: overlay(found.photo, heatmap, **colors)  # type: ignore[arg-type]
            for variant, heatmap in found.heatmaps.items()
        }
        sheet = draw_square_sheet(found.photo, replace(found, overlays=drawn), is_truth=truth is not None)
        answers = found.prediction.variants
        in_truth = tuple(found.heatmaps[answer.variant].confidence for answer in answers)
        told = ImageAnswers(file, answers, truth, in_truth if truth else (), found.prediction.review)
        small = found.photo.copy()
        small.thumbnail(THUMBNAIL)
        return Compared(told, sheet, html.data_address(small))

    def compared(
        self, task: str, truth: str | None, answered: list[Compared], refused: list[tuple[str, str]]
    ) -> Update:
        """A comparison with everything that belongs to it, or that no photo can be used."""
        if not answered:
            return self.blank(html.nothing_usable(refused))
        found = compare([photo.answers for photo in answered])
        values = {
            "task": task,
            **found.to_dict(),
            "per_image": [photo.answers.to_dict() for photo in answered],
            "failed": [{"file": name, "error": message} for name, message in refused],
        }
        rows = [(photo.thumbnail, photo.answers) for photo in answered]
        truth_name = display_name(truth) if truth else ""
        parts = (html.histograms(found), html.photo_table(rows, truth_name), html.sheets_title())
        sheets = [
            (keep_jpeg(html.as_jpeg(photo.sheet), "sheet"), html.sheet_told(photo.answers))
            for photo in answered
        ]
        return {
            self.card: html.comparison(found, refused, self.handlers.classifiers.notice(task)),
            self.tables: "".join(parts),
            self.sheets: gr.Gallery(value=sheets, visible=True),
            self.download: html.comparison_file(values, task),
        }

    def blank(self, card: str) -> Update:
        """Something in the answer's place, and nothing left of the last comparison."""
        sheets = gr.Gallery(value=None, visible=False)
        return {self.card: card, self.tables: "", self.sheets: sheets, self.download: ""}

    def busy(self, is_busy: bool) -> Update:
        """Whether the button can be pressed."""
        return {self.button: gr.Button(interactive=not is_busy)}

    def refuse(self, event: gr.EventData) -> Update:
        """A file that the page did not send: what to do, and nothing left of the last comparison."""
        return self.blank(html.problem(refused_file(event, self.settings.max_upload_mb)))

    def choose_drawings(self, task: Any) -> list[str]:
        """The examples of a task, as if they had been uploaded."""
        return [str(example.path) for example in self.handlers.examples_for(task, self.examples)]

    def change_task(self, task: Any) -> Update:
        """Another task: nothing left of the last comparison, and other true labels to choose from."""
        chosen = self.handlers.task(task)
        truths = gr.Dropdown(choices=self.truths(chosen.name), value="")
        return {**self.blank(html.comparison_empty(chosen)), self.truth: truths}

    def offer_truths(self, task: Any) -> Any:
        """The true labels to choose from, if the models that know them are there already."""
        return self.load_truths(task) if self.handlers.is_ready(task) else gr.skip()

    def load_truths(self, task: Any) -> Any:
        """The true labels to choose from; the models, needed soon, are loaded for that."""
        return gr.Dropdown(choices=self.truths(task))

    def truths(self, task: Any) -> list[tuple[str, str]]:
        """The choice of the true label: without models, which the comparison will say, there is none."""
        try:
            with fit_for_visitors():
                return [UNKNOWN_TRUTH, *self.handlers.labels(self.handlers.task(task).name)]
        except PawMatchError:
            return [UNKNOWN_TRUTH]
