"""The page for one photo: which widgets there are, where they stand, and what each event changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Navbar
from PIL import Image

from pawmatch.calibration.facts import WORDS
from pawmatch.errors import PawMatchError, UnsupportedFormat
from pawmatch.heatmaps import colormap_stops, overlay
from pawmatch.images.filetypes import refusal
from pawmatch.labels import COLORMAPS
from pawmatch.results import Explanation, Task
from pawmatch.settings import Settings
from pawmatch.ui import html, retell
from pawmatch.ui.api import MODEL_RUN, PRIVATE, QUICK, worded
from pawmatch.ui.gradio_patches import address_of, keep_file, keep_jpeg
from pawmatch.ui.handlers import (
    Example,
    Handlers,
    PageState,
    fit_for_visitors,
    photo_name,
    photo_path,
)
from pawmatch.ui.inference import RETRY_SECONDS
from pawmatch.ui.share import draw_answer
from pawmatch.ui.speech import say, static

KEPT_SECONDS = 1800  # a visitor's photo and answer stay half an hour at most
# What to do about a photo as iPhones store it; None where it can be read.
HEIC_REFUSED = refusal(b"\0\0\0\x18ftypheic", "photo.heic")
PHOTO_SCRIPT, KEEP_SCRIPT = (
    Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("photo.js", "keep.js")
)
# What photo.js knows takes the place of what widgets hold.
WITH_PHOTO = "(photo, ...rest) => [pawmatch.photo, ...rest]"
WITH_LABEL, WITH_FACTS = (
    f"(photo, task, told, ...rest) => [pawmatch.photo, task, pawmatch.{told}, ...rest]"
    for told in ("label", "facts")
)

Update = dict[Any, Any]


def page_header(tasks: Iterable[Task]) -> None:
    """The links to all pages and the title."""
    Navbar(main_page_name=static("page.main"))
    gr.HTML(static(lambda: html.header(tasks)))


def refused_file(event: gr.EventData, max_upload_mb: int) -> str:
    """What to do about a file that the page did not send, by the name and size that the browser tells."""
    name, size = str(event.name), event.size
    shown = photo_name({"orig_name": name}, 1)
    if HEIC_REFUSED and name.lower().endswith((".heic", ".heif")):
        return f"{shown}: {retell.error(UnsupportedFormat(HEIC_REFUSED))}"
    if isinstance(size, int | float) and size > max_upload_mb * 2**20:
        return say("page.too_large", file=shown, limit=max_upload_mb)
    return say("page.no_picture", file=shown)


def task_choice(tasks: Iterable[Task]) -> gr.Radio:
    """The choice of the task."""
    titles = [(static(partial(task_title, task)), task.name) for task in tasks]
    return gr.Radio(titles, value=titles[0][1], label=static("page.task"), elem_id="task")


def task_title(task: Task) -> str:
    """What a task is called, in the visitor's language."""
    return retell.task(task).title


class PhotoPage:
    """All widgets, made from top to bottom within the Blocks being built, and the events between them.

    A method that answers an event gives, for each widget that changes, its new value.
    """

    def __init__(self, handlers: Handlers, settings: Settings, examples: list[Example]) -> None:
        self.handlers, self.settings = handlers, settings
        tasks = list(handlers.classifiers.tasks.values())
        self.pictures = {
            task.name: [(one.thumbnail(), one) for one in handlers.examples_for(task.name, examples)]
            for task in tasks
        }
        page_header(tasks)
        self.task = task_choice(tasks)
        # The photo itself is with photo.js: this only carries it to and from the server.
        self.photo = gr.Image(visible=False)
        self.wanted = gr.Textbox(visible=False)
        limit = settings.max_upload_mb * 2**20
        with gr.Column(elem_classes="board"):
            with gr.Column(elem_classes="question"):
                self.intake = gr.HTML(
                    static(
                        partial(
                            html.intake, limit, reads_heic=not HEIC_REFUSED, opens_links=settings.fetch_urls
                        )
                    ),
                    js_on_load=PHOTO_SCRIPT,
                    elem_id="photo",
                )
            with gr.Column(elem_classes="reply"):
                self.notice = gr.HTML(elem_id="notice")
                self.retry = gr.Button(static("page.retry"), size="sm", visible=False, elem_id="retry")
                self.answer = gr.HTML(static(lambda: html.empty(tasks[0])), elem_id="answer")
                self.kept = gr.Textbox(visible=False)
                self.keep = gr.HTML(static(html.keep), js_on_load=KEEP_SCRIPT, elem_id="keep")
            with gr.Column(elem_classes="tryout"):
                self.gallery = gr.HTML(static(lambda: self.show_gallery(tasks[0].name)), elem_id="examples")
            with gr.Column(elem_classes="proof"):
                stops = colormap_stops(settings.colormap)
                self.maps = gr.HTML(static(lambda: html.maps(stops)), elem_id="maps")
                self.why = gr.HTML(elem_id="why")
                with gr.Accordion(static("page.display"), open=False), gr.Row():
                    self.colormap, self.strength = add_controls(settings)
                with gr.Accordion(static("page.details"), open=False):
                    self.details = gr.HTML(static(html.no_details))
                    with gr.Accordion(static("page.json"), open=False):
                        self.json = gr.JSON(show_label=False)
                    with gr.Accordion(static("page.card"), open=False):
                        self.figure = gr.HTML()
                        self.card = gr.Markdown(static("page.choose_first"))
        gr.HTML(static(lambda: html.footer(tasks)))
        self.state = gr.State(time_to_live=min(KEPT_SECONDS, settings.keep_seconds))
        self.outputs = [
            *(self.state, self.answer, self.notice, self.retry, self.maps, self.why),
            *(self.details, self.json, self.figure, self.card),
        ]
        self._connect()

    def _connect(self) -> None:
        colors: list[Any] = [self.colormap, self.strength]
        look: dict[str, Any] = {
            "fn": self.look,
            "inputs": [self.photo, self.task, *colors],
            "outputs": self.outputs,
            "js": WITH_PHOTO,
        }
        # The answer's place says itself what is going on; this adds the seconds, and the place in the queue.
        run = {**PRIVATE, **MODEL_RUN}
        on_answer = {**run, "show_progress": "minimal", "show_progress_on": self.answer}
        in_browser: dict[str, Any] = {"fn": None, "api_visibility": "private"}

        self.intake.photo(**look, **on_answer, trigger_mode="always_last")
        self.intake.refused(self.refuse, self.task, self.outputs, **QUICK)
        arrived = {**in_browser, "inputs": self.photo, "js": "(photo) => pawmatch.show(photo)"}
        self.intake.example(worded(self.example), self.task, self.photo, **QUICK).then(**arrived)
        linked: list[Any] = [self.photo, *self.outputs]
        address = "(address, task) => [pawmatch.link, task]"
        self.intake.linked(self.open_link, [self.wanted, self.task], linked, js=address, **QUICK).then(
            **arrived
        )
        self.task.change(self.show_gallery, self.task, self.gallery, **QUICK).then(**look, **on_answer)
        self.retry.click(worded(self.load_intended), self.task, None, **on_answer).then(**look, **on_answer)
        self.answer.change(**in_browser, js="() => pawmatch.answered()")
        for event, answer, js in (
            (self.intake.explain, self.explain, WITH_LABEL),
            (self.intake.fact, self.tell, WITH_FACTS),
        ):
            event(
                answer,
                [self.photo, self.task, self.wanted, self.state, *colors],
                self.outputs,
                **run,
                js=js,
                show_progress="hidden",
                trigger_mode="always_last",
            )
        shared = self.keep.picture(worded(self.picture), [self.state, *colors], self.kept, **QUICK)
        shared.then(**in_browser, inputs=self.kept, js="(address) => pawmatchKeep(address)")
        gr.on(
            [self.colormap.change, self.strength.change],
            worded(self.restyle),
            [self.state, *colors],
            self.maps,
            **QUICK,
            trigger_mode="always_last",
        )

    # --- what the events change

    def look(self, image: Any, task: Any, colormap: Any, strength: Any) -> Iterator[Update]:
        """A new photo, or another task for it: say what is going on, answer, and then explain."""
        try:
            with fit_for_visitors():
                if image is None:
                    yield self.blank(task)
                    return
                if not self.handlers.is_ready(task):
                    yield {self.answer: html.working(say("page.loading"))}
                    self.handlers.classifiers.get(self.handlers.task(task).name)
                yield {self.answer: html.working(say("page.looking"))}
                state = self.handlers.look(image, task)
                yield self.answered(state, colormap)
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
                state = self._held(image, task, state)
                if state is None:
                    state = self.handlers.look(image, task)
                    update = self.answered(state, colormap)
                return update | self.painted(*self.handlers.paint(state, label), colormap, strength)
        except PawMatchError as exc:
            return self.blank(task, exc)

    def tell(
        self, image: Any, task: Any, facts: Any, state: PageState | None, colormap: Any, strength: Any
    ) -> Iterator[Update]:
        """The same photo, with all that is said of it beside; heatmaps follow if another label is first now.

        The models run again only as for `explain`.
        """
        try:
            with fit_for_visitors():
                held = self._held(image, task, state)
                state = self.handlers.refine(held or self.handlers.look(image, task), facts)
                prediction, values = state.seen.prediction, state.seen.prediction.to_dict()
                words = facts.get(WORDS, "") if facts else ""
                yield {
                    self.state: state,
                    # Nothing has come to what was said before.
                    self.answer: html.answer(
                        prediction, words if words and len(prediction.facts) < len(facts) else ""
                    ),
                    self.details: html.details(prediction, values),
                    self.json: values,
                }
                if prediction.top.label not in {one.label for one in state.heatmaps.values()}:
                    yield self.painted(*self.handlers.paint(state), colormap, strength)
        except PawMatchError as exc:
            yield self.blank(task, exc)

    def _held(self, image: Any, task: Any, state: PageState | None) -> PageState | None:
        """What is kept, if it is of this photo and task."""
        wanted = (photo_path(image), self.handlers.task(task).name)
        return state if state and (state.path, state.task) == wanted else None

    def refuse(self, task: Any, event: gr.EventData) -> Update:
        """A file that the page did not send: what to do, and nothing left of the last answer."""
        return self.blank(task, refused_file(event, self.settings.max_upload_mb))

    def open_link(self, address: Any, task: Any) -> Update:
        """The picture at a web address, as if it had been uploaded; or why there is none."""
        try:
            with fit_for_visitors():
                found = self.handlers.fetch(str(address))
                return {self.photo: keep_file(found.data, f"linked.{found.format.lower()}")}
        except PawMatchError as exc:
            return {**self.blank(task, exc), self.photo: None}

    def load_intended(self, task: Any) -> None:
        """Load the intended model again; whether that helped, the next answer's notice says.

        Only who starts the load waits for it, and not for long: others are answered as before.
        """
        if load := self.handlers.classifiers.replace_fallback(self.handlers.task(task).name):
            with suppress(TimeoutError):
                load.result(RETRY_SECONDS)

    def show_gallery(self, task: Any) -> str:
        """The examples of one task, to click on."""
        words = self.handlers.task(task)
        mine = self.pictures[words.name]
        return html.gallery(words, [(address, retell.example(one.answer, one.alt)) for address, one in mine])

    def example(self, task: Any, event: gr.EventData) -> str:
        """The picture of an example that was clicked, by its number."""
        return str(self.pictures[self.handlers.task(task).name][int(event.index)][1].path)

    def picture(self, state: PageState | None, colormap: Any, strength: Any) -> str | None:
        """The address of one picture of the answer with everything that belongs to it."""
        if state is None or not state.heatmaps:
            return None
        photo = state.photo()
        drawn = {
            variant: overlay(photo, heatmap, colormap=colormap, strength=strength)
            for variant, heatmap in state.heatmaps.items()
        }
        card = draw_answer(state.seen.prediction, photo, drawn, state.heatmaps)
        return address_of(keep_jpeg(html.as_jpeg(card), "answer"))

    def restyle(self, state: PageState | None, colormap: Any, strength: Any) -> Any:
        """The overlays in other colors or strength; the models do not run for that."""
        if state is None or not state.heatmaps:
            return gr.skip()
        return drawn(state, colormap, strength, state.photo())

    def blank(self, task: Any, problem: object = None) -> Update:
        """A problem, or else an invitation, in the answer's place, and nothing left of the last answer."""
        return {
            self.state: None,
            self.answer: html.problem(problem) if problem else html.empty(self.handlers.task(task)),
            **self._notice(task),
            self.maps: html.maps(colormap_stops(self.settings.colormap)),
            self.why: "",
            self.details: html.no_details(),
            self.json: None,
            self.figure: "",
            self.card: say("page.choose_first"),
        }

    def answered(self, state: PageState, colormap: Any) -> Update:
        """An answer with everything that belongs to it but the heatmaps, which follow."""
        prediction, values = state.seen.prediction, state.seen.prediction.to_dict()
        first = [one.label for one in prediction.predictions]
        others = [label for _, label in self.handlers.labels(state.task) if label not in first]
        choices = [(retell.class_name(label), label) for label in [*first, *others]]
        return {
            self.state: None,
            self.answer: html.answer(prediction),
            **self._notice(state.task),
            self.maps: html.maps(colormap_stops(colormap), prediction),
            self.why: html.why(self.handlers.task(state.task), choices),
            self.details: html.details(prediction, values),
            self.json: values,
            self.figure: "",
            self.card: html.card_text(self.handlers.classifiers.get(state.task).card),
        }

    def painted(self, state: PageState, found: Explanation, colormap: Any, strength: Any) -> Update:
        """The heatmaps for one label with everything that belongs to them, and the figure of the model."""
        return {
            self.state: state,
            self.maps: drawn(state, colormap, strength, found.photo),
            self.details: html.details(found.prediction, found.to_dict()),
            self.json: found.to_dict(),
            # Drawn while the models warmed up, or else once now, for up to a second.
            self.figure: html.architecture(self.handlers.classifiers.get(state.task).architecture),
        }

    def _notice(self, task: Any) -> Update:
        """Whether another model than the intended one answers, and the button to change that."""
        text = self.handlers.classifiers.notice(task) if self.handlers.is_ready(task) else None
        return {self.notice: html.notice(retell.notice(text)), self.retry: gr.Button(visible=bool(text))}


def drawn(state: PageState, colormap: Any, strength: Any, photo: Image.Image) -> str:
    """The heatmaps of what is kept of a photo, as files that the page can show."""
    name, pictures = "", {}
    for variant, heatmap in state.heatmaps.items():
        name = retell.class_name(heatmap.label)
        picture = overlay(photo, heatmap, colormap=colormap, strength=strength)
        pictures[variant] = address_of(keep_jpeg(html.as_jpeg(picture), variant))
    return html.maps(colormap_stops(colormap), state.seen.prediction, state.heatmaps, name, pictures)


def add_controls(settings: Settings) -> tuple[gr.Radio, gr.Slider]:
    """How the heatmaps are painted."""
    colormap = gr.Radio(
        [(static("page.jet") if name == "jet" else title, name) for name, title in COLORMAPS.items()],
        value=settings.colormap,
        label=static("page.colors"),
        info=static("page.colors_info"),
        elem_id="colormap",
    )
    strength = gr.Slider(
        0,
        1,
        settings.strength,
        step=0.05,
        label=static("page.strength"),
        info=static("page.strength_info"),
        elem_id="strength",
    )
    return colormap, strength
