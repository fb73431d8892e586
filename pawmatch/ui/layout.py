"""The page: which widgets there are, where they stand, and which event leads to what."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from types import FunctionType
from typing import Any

import gradio as gr
from gradio.components import Navbar

from pawmatch.explain import COLORMAPS, colormap_stops
from pawmatch.settings import Settings
from pawmatch.tasks import TASKS, VARIANT_NAMES
from pawmatch.ui import present
from pawmatch.ui.classifiers import Classifiers
from pawmatch.ui.compare_page import PATH, TITLE, add_compare_page
from pawmatch.ui.endpoints import MODEL_RUN, add_endpoints, worded
from pawmatch.ui.examples import EXAMPLES, Example, examples_for, read_examples
from pawmatch.ui.handlers import Handlers
from pawmatch.ui.updates import NOTHING_TO_EXPLAIN, Updates, Widgets

FIRST_TASK = next(iter(TASKS))
# A visitor's photo and answer stay here half an hour at most.
KEPT_SECONDS = 1800
CLEAN_SECONDS = 900
CLICKED_EXAMPLE = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-index]");
  if (button) trigger("click", { index: Number(button.dataset.index) });
});"""
# On a phone the answer is below the question: whoever asked should see it without searching.
SHOW_VERDICT = """() => {
  const verdict = document.querySelector("#answer .card:not(.empty) .verdict");
  if (!verdict) return;
  const { top, bottom } = verdict.getBoundingClientRect();
  if (top >= 0 && bottom <= innerHeight) return;
  const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
  document.getElementById("answer").scrollIntoView({ behavior, block: "start" });
}"""
COLORMAP_TITLES = {"jet": "Red is high", "cividis": "Cividis", "viridis": "Viridis"}


def build(
    classifiers: Classifiers,
    settings: Settings,
    *,
    examples: Path = EXAMPLES,
    on_gpu: Callable[[Any], Any] | None = None,
) -> gr.Blocks:
    """The page and its endpoints, not yet launched."""
    handlers = Handlers(classifiers, on_gpu)
    drawings = read_examples(examples)
    with gr.Blocks(
        title=f"{present.TITLE}: {present.TAGLINE}",
        delete_cache=(CLEAN_SECONDS, KEPT_SECONDS),
        analytics_enabled=False,
    ) as demo:
        add_endpoints(handlers)
        add_page(handlers, settings, drawings)
    with demo.route(TITLE, PATH):
        add_compare_page(demo, handlers, settings, drawings)
    page: gr.Blocks = demo  # its type says Any
    remember_signatures(page)
    return page


def remember_signatures(demo: gr.Blocks) -> None:
    """Work out once what each widget is made from: Gradio does it for every widget in every new session.

    A call of an endpoint is such a session, and half of what that costs goes into this.
    """
    for kind in {type(block) for block in demo.blocks.values()}:
        make = kind.__init__
        if isinstance(make, FunctionType):
            setattr(make, "__signature__", signature(make))  # noqa: B010 - a plain assignment offends mypy


def add_page(handlers: Handlers, settings: Settings, examples: list[Example]) -> None:
    """Add all widgets that are seen, top to bottom, and their events."""
    Navbar(main_page_name=present.MAIN_PAGE)
    gr.HTML(present.header())
    with gr.Row(elem_classes="ask"):
        with gr.Column(elem_classes="question"):
            task, photo = add_question()
        with gr.Column(elem_classes="reply"):
            notice = gr.HTML(elem_id="notice")
            retry = gr.Button("Try the intended model again", size="sm", visible=False, elem_id="retry")
            answer = gr.HTML(present.empty(FIRST_TASK), elem_id="answer")
        with gr.Column(elem_classes="tryout"):
            galleries = {name: add_gallery(name, examples) for name in TASKS}
    explained = gr.HTML(present.heatmaps_title(None), elem_id="explained")
    with gr.Row(elem_classes="controls"):
        label, colormap, strength = add_controls(settings)
    with gr.Row(elem_classes="maps"):
        images, captions = zip(*(add_map(variant) for variant in VARIANT_NAMES), strict=True)
    legend = gr.HTML(present.legend(colormap_stops(settings.colormap)), elem_id="legend")
    with gr.Accordion("Details", open=False):
        details = gr.HTML(present.no_details())
    with gr.Accordion("The answer as JSON", open=False):
        answer_json = gr.JSON(show_label=False)
    with gr.Accordion("Model card", open=False):
        card = gr.Markdown(present.CHOOSE_PHOTO)
    gr.HTML(present.footer())
    kept = gr.State(time_to_live=KEPT_SECONDS)

    widgets = Widgets(
        kept,
        answer,
        notice,
        retry,
        label,
        explained,
        details,
        answer_json,
        card,
        list(images),
        list(captions),
    )
    updates = Updates(handlers, widgets)
    # Values come as they are: the photo is opened, and its file judged, by our own code.
    quick: dict[str, Any] = {"preprocess": False, "api_visibility": "private", "show_progress": "hidden"}
    run: dict[str, Any] = {"preprocess": False, "api_visibility": "private", **MODEL_RUN}
    look: dict[str, Any] = {
        "fn": updates.look,
        "inputs": [photo, task, colormap, strength],
        "outputs": widgets.all(),
    }
    # The answer's place says itself what is going on; this adds the seconds, and the place in the queue.
    on_answer = {**run, "show_progress": "minimal", "show_progress_on": answer}

    # `change` fires once for each upload, paste, capture, example and removal, and after the value has
    # changed; `input` and `clear` may come with the value of before.
    looked = photo.change(**look, **on_answer, trigger_mode="always_last")
    for gallery, mine in galleries.values():
        gallery.click(worded(chosen_from(mine)), None, photo, **quick)
    asked_again = task.change(
        lambda chosen: [gr.HTML(visible=chosen == name) for name in galleries],
        task,
        [gallery for gallery, _ in galleries.values()],
        **quick,
    ).then(**look, **on_answer)
    retry.click(worded(updates.retry), task, None, **on_answer).then(**look, **on_answer)
    for event in (looked, asked_again):
        event.then(None, js=SHOW_VERDICT, api_visibility="private")
    # Not `input`, which also fires when the field is left, nor `change`, which our own updates fire. The
    # label is the field's value and not the event's: "always_last" asks again with the first event.
    label.select(
        worded(updates.explain_chosen),
        [photo, task, label, colormap, strength],
        widgets.all(),
        **run,
        show_progress_on=list(images),
        trigger_mode="always_last",
    )
    gr.on(
        [colormap.change, strength.change],
        worded(updates.restyle),
        [kept, colormap, strength],
        list(images),
        **quick,
        trigger_mode="always_last",
    )
    colormap.change(worded(updates.legend), colormap, legend, **quick)


def add_question() -> tuple[gr.Radio, gr.Image]:
    """The choice of the task, and the place for the photo."""
    task = gr.Radio(
        [(entry.title, entry.name) for entry in TASKS.values()],
        value=FIRST_TASK,
        label="What would you like to know?",
        elem_id="task",
    )
    photo = gr.Image(
        label="Photo",
        sources=["upload", "clipboard", "webcam"],
        placeholder="# Drop a photo here\nor click to choose one",
        alt_text="The photo that you chose",
        format="jpeg",
        height=320,
        buttons=["fullscreen"],
        elem_id="photo",
    )
    return task, photo


def add_gallery(task: str, examples: list[Example]) -> tuple[gr.HTML, list[Example]]:
    """The examples of one task, to click on; shown while the task is chosen."""
    mine = examples_for(task, examples)
    gallery = gr.HTML(
        present.gallery([(example.thumbnail(), example.alt) for example in mine]),
        js_on_load=CLICKED_EXAMPLE,
        visible=task == FIRST_TASK,
        elem_id=f"examples-{task}",
    )
    return gallery, mine


def chosen_from(examples: list[Example]) -> Callable[[gr.EventData], str]:
    """The handler that turns a click on an example into its path."""

    def choose(event: gr.EventData) -> str:
        return str(examples[int(event.index)].path)

    return choose


def add_controls(settings: Settings) -> tuple[gr.Dropdown, gr.Radio, gr.Slider]:
    """Which answer the heatmaps explain, and how they are painted."""
    label = gr.Dropdown(
        NOTHING_TO_EXPLAIN,
        value="",
        label="Answer to explain",
        info="Why not another one? Choose it, or type to search.",
        interactive=False,
        elem_id="label",
    )
    colormap = gr.Radio(
        [(COLORMAP_TITLES.get(name, name), name) for name in COLORMAPS],
        value=settings.colormap,
        label="Colours",
        info="The last two read alike for colour-blind eyes.",
        elem_id="colormap",
    )
    strength = gr.Slider(
        0, 1, settings.strength, step=0.05, label="Strength", info="0 is the plain photo.", elem_id="strength"
    )
    return label, colormap, strength


def add_map(variant: str) -> tuple[gr.Image, gr.HTML]:
    """The place of one variant's heatmap, and below it that of its answer."""
    with gr.Column(min_width=240):
        image = gr.Image(
            label=VARIANT_NAMES[variant],
            show_label=False,
            interactive=False,
            format="jpeg",
            height=280,
            buttons=["fullscreen", "download"],
            elem_id=f"map-{variant}",
        )
        caption = gr.HTML(present.caption(None, variant), elem_id=f"caption-{variant}")
    return image, caption
