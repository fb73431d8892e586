"""The page "Compare": which widgets it has, where they stand, and which event leads to what."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Navbar

from pawmatch.settings import Settings
from pawmatch.tasks import TASKS
from pawmatch.ui import compare_present, present
from pawmatch.ui.compare_updates import UNKNOWN_TRUTH, CompareUpdates, CompareWidgets
from pawmatch.ui.comparing import Colours
from pawmatch.ui.endpoints import MODEL_RUN, worded
from pawmatch.ui.examples import Example, examples_for
from pawmatch.ui.handlers import Handlers

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
    Navbar(main_page_name=present.MAIN_PAGE)
    gr.HTML(present.header())
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
    gr.HTML(present.footer())

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
