"""The page "Compare": which widgets it has, where they stand, and which event leads to what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Navbar

from pawmatch.errors import PawMatchError
from pawmatch.evaluation.compare import Comparison, ImageAnswers
from pawmatch.settings import Settings
from pawmatch.tasks import TASKS, find_task
from pawmatch.ui import compare_present, compare_words, html
from pawmatch.ui.api import MODEL_RUN, worded
from pawmatch.ui.gradio_patches import data_address, keep_jpeg
from pawmatch.ui.handlers import (
    Colours,
    Example,
    Handlers,
    Question,
    Refused,
    Step,
    examples_for,
    fit_for_visitors,
    look_at_all,
    read_question,
    summarise,
)

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
            yield {**self.blank(html.problem(str(exc))), **self.busy(False)}

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


PATH = "compare"
TITLE = "Compare"
FIRST_TASK = next(iter(TASKS))
# On a phone the answer's place is below the button: whoever presses it should see that something goes on.
SHOW_ANSWER = """() => {
  const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
  document.getElementById("answer").scrollIntoView({ behavior, block: "nearest" });
}"""


def add_compare_page(
    demo: gr.Blocks, handlers: Handlers, settings: Settings, examples: list[Example]
) -> None:
    """Add all widgets that are seen, top to bottom, and their events, to the route being built."""
    Navbar(main_page_name=html.MAIN_PAGE)
    gr.HTML(html.header())
    gr.HTML(compare_present.introduction())
    with gr.Row(elem_classes=["ask", "compare"]):
        with gr.Column(elem_classes="question"):
            task, photos, truth = add_question()
            button = gr.Button("Compare", variant="primary", elem_id="compare")
            drawings = gr.Button("Or try our drawings", size="md", elem_id="drawings", visible=bool(examples))
        with gr.Column(elem_classes="reply"):
            card = gr.HTML(compare_present.empty(FIRST_TASK), elem_id="answer")
    widgets = CompareWidgets(
        card=card,
        tables=gr.HTML(elem_id="tables"),
        sheets=add_sheets(),
        download=gr.HTML(),
        button=button,
        truth=truth,
    )
    gr.HTML(html.footer())

    updates = CompareUpdates(handlers, widgets, Colours(settings.colormap, settings.strength))
    # Values come as they are: photos are opened, and files judged, by our own code.
    quick: dict[str, Any] = {"preprocess": False, "api_visibility": "private", "show_progress": "hidden"}
    run: dict[str, Any] = {
        "fn": updates.compare,
        "inputs": [photos, task, truth],
        "outputs": widgets.all(),
        "preprocess": False,
        "api_visibility": "private",
        "show_progress": "minimal",
        "show_progress_on": card,
        "trigger_mode": "once",
        **MODEL_RUN,
    }

    def drawn(chosen: Any) -> list[str]:
        return [str(example.path) for example in examples_for(chosen, examples)]

    gr.on([button.click, drawings.click], None, js=SHOW_ANSWER, api_visibility="private")
    button.click(**run)
    drawings.click(worded(drawn), task, photos, **quick).then(**run)
    task.change(worded(updates.change_task), task, widgets.all(), **quick)
    photos.upload(updates.load_truths, task, truth, **quick)
    demo.load(updates.offer_truths, task, truth, **quick)


def add_question() -> tuple[gr.Radio, gr.File, gr.Dropdown]:
    """The choice of the task, the place for the photos, and what they show if that is known."""
    task = gr.Radio(
        [(entry.title, entry.name) for entry in TASKS.values()],
        value=FIRST_TASK,
        label="What would you like to know?",
        elem_id="task",
    )
    photos = gr.File(
        label="Photos", file_count="multiple", file_types=["image"], height=210, elem_id="photos"
    )
    truth = gr.Dropdown(
        [UNKNOWN_TRUTH],
        value="",
        label="What do they all show?",
        info="If you know, right answers are marked.",
        interactive=True,
        elem_id="truth",
    )
    return task, photos, truth


def add_sheets() -> gr.Gallery:
    """The place of the heatmap sheets."""
    return gr.Gallery(
        show_label=False,
        columns=2,
        height="auto",
        object_fit="contain",
        interactive=False,
        visible=False,
        buttons=["fullscreen", "download"],
        elem_id="sheets",
    )
