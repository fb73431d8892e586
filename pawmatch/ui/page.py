"""The page: which widgets there are, where they stand, and which event leads to what."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from types import FunctionType
from typing import Any

import gradio as gr
from gradio.components import Navbar
from PIL import Image

from pawmatch.errors import PawMatchError
from pawmatch.heatmaps import COLORMAPS, colormap_stops, overlay
from pawmatch.settings import Settings
from pawmatch.tasks import TASKS, VARIANT_NAMES
from pawmatch.ui import html
from pawmatch.ui.api import MODEL_RUN, add_endpoints, worded
from pawmatch.ui.compare import PATH, TITLE, add_compare_page
from pawmatch.ui.gradio_patches import keep_jpeg
from pawmatch.ui.handlers import (
    EXAMPLES,
    Example,
    Handlers,
    Kept,
    Shown,
    examples_for,
    fit_for_visitors,
    keep,
    read_examples,
)
from pawmatch.ui.inference import Classifiers

NOTHING_TO_EXPLAIN = [(html.CHOOSE_PHOTO, "")]


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
            yield {page.answer: html.working("Loading the models")}
            with suppress(PawMatchError):  # which the answer will meet again, and say
                self.handlers.prepare(task)
        if image is not None:
            yield {page.answer: html.working("Looking at the photo")}
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
            gr.Warning(html.safe(exc))

    def restyle(self, kept: Kept | None, colormap: str, strength: float) -> list[Any]:
        """The overlays in other colours or strength; the models do not run for that."""
        if kept is None:
            return [gr.skip() for _ in VARIANT_NAMES]
        return overlays(kept, kept.photo(), colormap, strength)

    def legend(self, colormap: str) -> str:
        """The colour bar of a colour map."""
        return html.legend(colormap_stops(colormap))

    def blank(self, task: str, problem: str | None) -> Update:
        """A problem, or else an invitation, in the answer's place, and nothing left of the last answer."""
        page = self.widgets
        answer = html.problem(problem) if problem else html.empty(task)
        return {
            page.kept: None,
            page.answer: answer,
            **self.noticed(task),
            page.label: gr.Dropdown(choices=NOTHING_TO_EXPLAIN, value="", interactive=False),
            page.explained: html.heatmaps_title(None),
            page.details: html.no_details(),
            page.json: None,
            page.card: html.CHOOSE_PHOTO,
            **dict.fromkeys(page.images),
            **{
                widget: html.caption(None, variant)
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
            page.answer: html.answer(prediction),
            **self.noticed(prediction.task),
            page.label: gr.Dropdown(
                choices=self.handlers.labels(prediction.task), value=explanation.label, interactive=True
            ),
            page.explained: html.heatmaps_title(explanation),
            page.details: html.details(prediction, shown.json),
            page.json: shown.json,
            page.card: html.card_text(self.handlers.card(prediction.task)),
            **dict(zip(page.images, overlays(kept, shown.photo, colormap, strength), strict=True)),
            **{
                widget: html.caption(explanation, variant)
                for widget, variant in zip(page.captions, VARIANT_NAMES, strict=True)
            },
        }

    def noticed(self, task: str) -> Update:
        """Whether another model than the intended one answers, and the button to change that."""
        text = self.handlers.notice(task)
        return {self.widgets.notice: html.notice(text), self.widgets.retry: gr.Button(visible=bool(text))}


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
            gr.Image(value=keep_jpeg(picture, variant), alt_text=html.alt_text(heatmap, kept.name))
        )
    return updates


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
        title=f"{html.TITLE}: {html.TAGLINE}",
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
    Navbar(main_page_name=html.MAIN_PAGE)
    gr.HTML(html.header())
    with gr.Row(elem_classes="ask"):
        with gr.Column(elem_classes="question"):
            task, photo = add_question()
        with gr.Column(elem_classes="reply"):
            notice = gr.HTML(elem_id="notice")
            retry = gr.Button("Try the intended model again", size="sm", visible=False, elem_id="retry")
            answer = gr.HTML(html.empty(FIRST_TASK), elem_id="answer")
        with gr.Column(elem_classes="tryout"):
            galleries = {name: add_gallery(name, examples) for name in TASKS}
    explained = gr.HTML(html.heatmaps_title(None), elem_id="explained")
    with gr.Row(elem_classes="controls"):
        label, colormap, strength = add_controls(settings)
    with gr.Row(elem_classes="maps"):
        images, captions = zip(*(add_map(variant) for variant in VARIANT_NAMES), strict=True)
    legend = gr.HTML(html.legend(colormap_stops(settings.colormap)), elem_id="legend")
    with gr.Accordion("Details", open=False):
        details = gr.HTML(html.no_details())
    with gr.Accordion("The answer as JSON", open=False):
        answer_json = gr.JSON(show_label=False)
    with gr.Accordion("Model card", open=False):
        card = gr.Markdown(html.CHOOSE_PHOTO)
    gr.HTML(html.footer())
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
        html.gallery([(example.thumbnail(), example.alt) for example in mine]),
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
        caption = gr.HTML(html.caption(None, variant), elem_id=f"caption-{variant}")
    return image, caption
