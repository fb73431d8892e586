"""The page for one photo: which widgets there are, where they stand, and what each event changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gradio as gr
from gradio.components import Navbar
from PIL import Image

from pawmatch.errors import PawMatchError
from pawmatch.heatmaps import colormap_stops, overlay
from pawmatch.images.filetypes import refusal
from pawmatch.labels import COLORMAPS, VARIANT_NAMES
from pawmatch.results import Explanation, Task
from pawmatch.settings import Settings
from pawmatch.ui import html
from pawmatch.ui.api import MODEL_RUN, PRIVATE, QUICK, worded
from pawmatch.ui.gradio_patches import keep_jpeg
from pawmatch.ui.handlers import (
    Example,
    Handlers,
    PageState,
    fit_for_visitors,
    photo_name,
    photo_path,
)

KEPT_SECONDS = 1800  # a visitor's photo and answer stay half an hour at most
NOTHING_TO_EXPLAIN = [(html.CHOOSE_PHOTO, "")]
# What to do about a photo as iPhones store it; None where it can be read.
HEIC_REFUSED = refusal(b"\0\0\0\x18ftypheic", "photo.heic")
CLICKED_EXAMPLE = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-index]");
  if (button) trigger("click", { index: Number(button.dataset.index) });
});"""
# On a phone the answer is below the question: whoever asked should see it without searching.
SHOW_VERDICT = """() => setTimeout(() => {
  const verdict = document.querySelector("#answer .card:not(.empty, .working) .verdict");
  if (!verdict) return;
  const { top, bottom } = verdict.getBoundingClientRect();
  if (top >= 0 && bottom <= innerHeight) return;
  const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
  document.getElementById("answer").scrollIntoView({ behavior, block: "start" });
}, 50)"""
# Of a file that cannot be sent Gradio says something in passing. Here it is the header that notices, so that
# the answer's place can say it, and the file is kept from Gradio.
REFUSE_FILES = """const judge = (event, files) => {
  if (!event.target.closest?.("#photo, #photos")) return;
  const refused = [...(files ?? [])].find((file) => file.size > LIMIT || !file.type.startsWith("image/")
    || (REFUSE_HEIC && (/^image\\/hei[cf]/.test(file.type) || /\\.hei[cf]$/i.test(file.name))));
  if (!refused) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  if (event.type === "change") event.target.value = "";
  else event.target.dispatchEvent(new DragEvent("dragleave", { bubbles: true }));
  trigger("click", { name: refused.name, size: refused.size });
};
document.addEventListener("change", (event) => judge(event, event.target.files), true);
document.addEventListener("drop", (event) => judge(event, event.dataTransfer?.files), true);"""

Update = dict[Any, Any]


def page_header(tasks: Iterable[Task], settings: Settings) -> gr.HTML:
    """The links to both pages and the title, whose `click` says that a file was refused: see refused_file."""
    Navbar(main_page_name=html.MAIN_PAGE)
    script = REFUSE_FILES.replace("LIMIT", str(settings.max_upload_mb * 2**20))
    script = script.replace("REFUSE_HEIC", "true" if HEIC_REFUSED else "false")
    return gr.HTML(html.header(tasks), js_on_load=script)


def refused_file(event: gr.EventData, max_upload_mb: int) -> str:
    """What to do about a file that the page did not send, by the name and size that the browser tells."""
    name, size = str(event.name), event.size
    shown = photo_name({"orig_name": name}, 1)
    if HEIC_REFUSED and name.lower().endswith((".heic", ".heif")):
        return f"{shown}: {HEIC_REFUSED}"
    if isinstance(size, int | float) and size > max_upload_mb * 2**20:
        return f"{shown} is larger than {max_upload_mb} MB; save it smaller, or choose another photo."
    return f"{shown} is no picture; choose a photo as JPEG, PNG or WebP."


def task_choice(tasks: Iterable[Task]) -> gr.Radio:
    """The choice of the task."""
    titles = [(task.title, task.name) for task in tasks]
    return gr.Radio(titles, value=titles[0][1], label="What would you like to know?", elem_id="task")


class PhotoPage:
    """All widgets, made from top to bottom within the Blocks being built, and the events between them.

    A method that answers an event gives, for each widget that changes, its new value.
    """

    def __init__(self, handlers: Handlers, settings: Settings, examples: list[Example]) -> None:
        self.handlers, self.settings = handlers, settings
        tasks = list(handlers.classifiers.tasks.values())
        self.header = page_header(tasks, settings)
        with gr.Row(elem_classes="ask"):
            with gr.Column(elem_classes="question"):
                self.task = task_choice(tasks)
                self.photo = gr.Image(
                    label="Photo",
                    sources=["upload", "clipboard", "webcam"],
                    placeholder="# Drop a photo here\nor click to choose one",
                    alt_text="The photo that you chose",
                    format="jpeg",
                    height=320,
                    buttons=["fullscreen"],
                    elem_id="photo",
                )
            with gr.Column(elem_classes="reply"):
                self.notice = gr.HTML(elem_id="notice")
                self.retry = gr.Button(
                    "Try the intended model again", size="sm", visible=False, elem_id="retry"
                )
                self.answer = gr.HTML(html.empty(tasks[0]), elem_id="answer")
            with gr.Column(elem_classes="tryout"):
                self.galleries = {
                    task.name: add_gallery(
                        task.name, handlers.examples_for(task.name, examples), task is tasks[0]
                    )
                    for task in tasks
                }
        self.explained = gr.HTML(html.heatmaps_title(), elem_id="explained")
        with gr.Row(elem_classes="controls"):
            self.label, self.colormap, self.strength = add_controls(settings)
        with gr.Row(elem_classes="maps"):
            maps = {variant: add_map(variant) for variant in VARIANT_NAMES}
        self.images = {variant: image for variant, (image, _) in maps.items()}
        self.captions = {variant: caption for variant, (_, caption) in maps.items()}
        self.legend = gr.HTML(html.legend(colormap_stops(settings.colormap)), elem_id="legend")
        with gr.Accordion("Details", open=False):
            self.details = gr.HTML(html.no_details())
        with gr.Accordion("The answer as JSON", open=False):
            self.json = gr.JSON(show_label=False)
        with gr.Accordion("Model card", open=False):
            self.card = gr.Markdown(html.CHOOSE_PHOTO)
        gr.HTML(html.footer(tasks))
        self.state = gr.State(time_to_live=KEPT_SECONDS)
        self.outputs = [
            *(self.state, self.answer, self.notice, self.retry, self.label, self.explained),
            *(self.details, self.json, self.card, *self.images.values(), *self.captions.values()),
        ]
        self._connect()

    def _connect(self) -> None:
        colors: list[Any] = [self.colormap, self.strength]
        look: dict[str, Any] = {
            "fn": self.look,
            "inputs": [self.photo, self.task, *colors],
            "outputs": self.outputs,
        }
        # The answer's place says itself what is going on; this adds the seconds, and the place in the queue.
        run = {**PRIVATE, **MODEL_RUN}
        on_answer = {**run, "show_progress": "minimal", "show_progress_on": self.answer}
        galleries = [gallery for gallery, _ in self.galleries.values()]

        # `change` fires once for each upload, paste, capture, example and removal, and after the value has
        # changed; `input` and `clear` may come with the value of before.
        self.photo.change(**look, **on_answer, trigger_mode="always_last")
        for gallery, mine in self.galleries.values():
            gallery.click(worded(chosen_from(mine)), None, self.photo, **QUICK)
        self.task.change(self.show_gallery, self.task, galleries, **QUICK).then(**look, **on_answer)
        self.retry.click(worded(self.load_intended), self.task, None, **on_answer).then(**look, **on_answer)
        self.header.click(self.refuse, self.task, self.outputs, **QUICK)
        self.answer.change(None, js=SHOW_VERDICT, api_visibility="private")
        # Not `input`, which also fires when the field is left, nor `change`, which our own updates fire. The
        # label is the field's value and not the event's: "always_last" asks again with the first event.
        self.label.select(
            self.explain,
            [self.photo, self.task, self.label, self.state, *colors],
            self.outputs,
            **run,
            show_progress_on=list(self.images.values()),
            trigger_mode="always_last",
        )
        restyled = worded(self.restyle)
        gr.on(
            [self.colormap.change, self.strength.change],
            restyled,
            [self.state, *colors],
            list(self.images.values()),
            **QUICK,
            trigger_mode="always_last",
        )
        self.colormap.change(worded(self.show_legend), self.colormap, self.legend, **QUICK)

    # --- what the events change

    def look(self, image: Any, task: Any, colormap: Any, strength: Any) -> Iterator[Update]:
        """A new photo, or another task for it: say what is going on, answer, and then explain."""
        try:
            with fit_for_visitors():
                if image is None:
                    yield self.blank(task)
                    return
                if not self.handlers.is_ready(task):
                    yield {self.answer: html.working("Loading the models")}
                    self.handlers.classifiers.get(self.handlers.task(task).name)
                yield {self.answer: html.working("Looking at the photo")}
                state = self.handlers.look(image, task)
                yield self.answered(state)
                yield self.painted(*self.handlers.paint(state), colormap, strength)
        except PawMatchError as exc:
            # In the answer's own place: a passing message would leave the last photo's answer standing.
            yield self.blank(task, exc)

    def explain(
        self, image: Any, task: Any, label: Any, state: PageState | None, colormap: Any, strength: Any
    ) -> Update:
        """The same photo, with the heatmaps for the label that was just chosen.

        The models run again only if what is kept is gone, or is of another photo.
        """
        try:
            with fit_for_visitors():
                update: Update = {}
                if state is None or (state.path, state.task) != (
                    photo_path(image),
                    self.handlers.task(task).name,
                ):
                    state = self.handlers.look(image, task)
                    update = self.answered(state)
                update |= self.painted(*self.handlers.paint(state, label), colormap, strength)
                # It stands there already, and the visitor may be about to choose another one.
                update.pop(self.label, None)
                return update
        except PawMatchError as exc:
            return self.blank(task, exc)

    def refuse(self, task: Any, event: gr.EventData) -> Update:
        """A file that the page did not send: what to do, and nothing left of the last answer."""
        return self.blank(task, refused_file(event, self.settings.max_upload_mb))

    def load_intended(self, task: Any) -> None:
        """Load the intended model again; whether that helped, the next answer's notice says."""
        self.handlers.classifiers.replace_fallback(self.handlers.task(task).name)

    def show_gallery(self, task: Any) -> list[Any]:
        """The examples of one task."""
        return [gr.HTML(visible=task == name) for name in self.galleries]

    def show_legend(self, colormap: Any) -> str:
        """The colour bar of a colour map."""
        return html.legend(colormap_stops(colormap))

    def restyle(self, state: PageState | None, colormap: Any, strength: Any) -> list[Any]:
        """The overlays in other colours or strength; the models do not run for that."""
        if state is None or not state.heatmaps:
            return [gr.skip() for _ in VARIANT_NAMES]
        return overlays(state, state.photo(), colormap, strength)

    def blank(self, task: Any, problem: object = None) -> Update:
        """A problem, or else an invitation, in the answer's place, and nothing left of the last answer."""
        return {
            self.state: None,
            self.answer: html.problem(problem) if problem else html.empty(self.handlers.task(task)),
            **self._notice(task),
            self.label: gr.Dropdown(choices=NOTHING_TO_EXPLAIN, value="", interactive=False),
            self.explained: html.heatmaps_title(),
            self.details: html.no_details(),
            self.json: None,
            self.card: html.CHOOSE_PHOTO,
            **dict.fromkeys(self.images.values()),
            **{caption: html.caption(variant) for variant, caption in self.captions.items()},
        }

    def answered(self, state: PageState) -> Update:
        """An answer with everything that belongs to it but the heatmaps, which follow."""
        prediction, values = state.seen.prediction, state.seen.prediction.to_dict()
        choices = self.handlers.labels(state.task)
        return {
            self.state: None,
            self.answer: html.answer(prediction),
            **self._notice(state.task),
            self.label: gr.Dropdown(choices=choices, value=prediction.top.label, interactive=True),
            self.explained: html.heatmaps_title(),
            self.details: html.details(prediction, values),
            self.json: values,
            self.card: html.card_text(self.handlers.classifiers.get(state.task).card),
            **dict.fromkeys(self.images.values()),
            **{caption: html.caption(variant, prediction) for variant, caption in self.captions.items()},
        }

    def painted(self, state: PageState, found: Explanation, colormap: Any, strength: Any) -> Update:
        """The heatmaps for one label with everything that belongs to them."""
        drawn = overlays(state, found.photo, colormap, strength)
        return {
            self.state: state,
            self.explained: html.heatmaps_title(self.handlers.task(state.task), found.name),
            self.details: html.details(found.prediction, found.to_dict()),
            self.json: found.to_dict(),
            **dict(zip(self.images.values(), drawn, strict=True)),
            **{
                caption: html.caption(variant, found.prediction, found)
                for variant, caption in self.captions.items()
            },
        }

    def _notice(self, task: Any) -> Update:
        """Whether another model than the intended one answers, and the button to change that."""
        text = self.handlers.classifiers.notice(task) if self.handlers.is_ready(task) else None
        return {self.notice: html.notice(text), self.retry: gr.Button(visible=bool(text))}


def overlays(state: PageState, photo: Image.Image, colormap: Any, strength: Any) -> list[Any]:
    """One update per variant's image, with words for those who do not see it."""
    updates = []
    for variant in VARIANT_NAMES:
        heatmap = state.heatmaps.get(variant)
        if heatmap is None:
            updates.append(gr.Image(value=None))
            continue
        picture = overlay(photo, heatmap, colormap=colormap, strength=strength)
        path = keep_jpeg(html.as_jpeg(picture), variant)
        updates.append(gr.Image(value=path, alt_text=html.alt_text(heatmap, state.name)))
    return updates


def add_gallery(task: str, examples: list[Example], is_shown: bool) -> tuple[gr.HTML, list[Example]]:
    """The examples of one task, to click on; shown while the task is chosen."""
    gallery = gr.HTML(
        html.gallery([(example.thumbnail(), example.alt) for example in examples]),
        js_on_load=CLICKED_EXAMPLE,
        visible=is_shown,
        elem_id=f"examples-{task}",
    )
    return gallery, examples


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
        [(title, name) for name, title in COLORMAPS.items()],
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
        caption = gr.HTML(html.caption(variant), elem_id=f"caption-{variant}")
    return image, caption
