"""The public API: four endpoints on components that nobody sees."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from html import escape
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from pawmatch.errors import PawMatchError
from pawmatch.labels import VARIANT_NAMES
from pawmatch.phrasing import listed
from pawmatch.ui.gradio_patches import keep_jpeg, left_alone
from pawmatch.ui.handlers import Handlers, fit_for_visitors
from pawmatch.ui.html import as_jpeg
from pawmatch.ui.inference import MAX_BATCH

P = ParamSpec("P")
R = TypeVar("R")

# As many requests as fill a batch are worked on; the others wait in the queue, which they can still leave.
MODEL_RUN: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": MAX_BATCH}
# Values come as they are: photos are opened, and files judged, by our own code.
PRIVATE: dict[str, Any] = {"preprocess": False, "api_visibility": "private"}
QUICK: dict[str, Any] = {**PRIVATE, "show_progress": "hidden"}


def worded(function: Callable[P, R]) -> Callable[P, R]:
    """The function with its errors as Gradio's, which alone are shown to clients; one sentence each."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with fit_for_visitors():
                return function(*args, **kwargs)
        except PawMatchError as exc:
            raise gr.Error(escape(str(exc), quote=False), print_exception=False) from exc

    return call


def add_endpoints(handlers: Handlers) -> gr.Image:
    """Add /predict, /explain, /predict_batch and /models to the Blocks being built.

    Gives the component for one photo, the only one in which a web address may stand.
    """
    image = left_alone(gr.Image(label="Photo", visible=False))
    images = left_alone(gr.File(label="Photos", file_count="multiple", visible=False))
    tasks = tuple(handlers.classifiers.tasks)
    task = gr.Textbox(tasks[0], label=f"Task: {listed(tasks)}", visible=False)
    top_k = gr.Number(5, label="How many labels", precision=0, visible=False)
    facts = gr.JSON(label="What is known beside the photo, as attribute and value each", visible=False)
    words = gr.Textbox(None, label="The same in words", visible=False)
    label = gr.Textbox(label="Label to explain; the first choice if empty", visible=False)
    answer = gr.JSON(label="Answer", visible=False)
    overlays = [gr.Image(label=name, format="jpeg", visible=False) for name in VARIANT_NAMES]
    trigger = gr.Button(visible=False)

    @wraps(handlers.explain)
    def explain(*arguments: Any) -> list[Any]:
        found, *drawn = handlers.explain(*arguments)
        named = zip(drawn, VARIANT_NAMES, strict=True)
        return [found, *(keep_jpeg(as_jpeg(picture), name) if picture else None for picture, name in named)]

    def endpoint(function: Callable[..., Any], inputs: list[Any], outputs: list[Any]) -> None:
        name = function.__name__
        shown: dict[str, Any] = {"preprocess": False, "show_progress": "hidden", "api_name": name}
        trigger.click(worded(function), inputs, outputs, **shown, **MODEL_RUN)

    endpoint(handlers.predict, [image, task, top_k, facts, words], [answer])
    endpoint(explain, [image, task, label], [answer, *overlays])
    endpoint(handlers.predict_batch, [images, task, top_k], [answer])
    endpoint(handlers.models, [], [answer])
    return image
