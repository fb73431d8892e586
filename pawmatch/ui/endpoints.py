"""The public API: four endpoints on components that nobody sees."""

from __future__ import annotations

import html
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import gradio as gr
from gradio.data_classes import ImageData, ListFiles

from pawmatch.errors import PawMatchError
from pawmatch.ui.handlers import Handlers

P = ParamSpec("P")
R = TypeVar("R")

# One model run at a time, whoever asks: a second one would only slow the first down.
MODEL_RUN = {"concurrency_id": "model", "concurrency_limit": 1}
OVERLAYS = ("cnn", "cnn_transformer", "cnn_transformer_mfe")


class Photo(gr.Image):
    """An image whose file is left alone: how a picture is opened, and what is said about one, is ours."""

    is_template = True
    data_model = None  # a value of the wrong kind, too, reaches our own check and its sentence

    def api_info(self) -> dict[str, Any]:
        """The file object that clients send."""
        return ImageData.model_json_schema()


class Photos(gr.File):
    """Several files, left alone likewise."""

    is_template = True

    def api_info(self) -> dict[str, Any]:
        """The list of file objects that clients send."""
        return ListFiles.model_json_schema()


def worded(function: Callable[P, R]) -> Callable[P, R]:
    """The handler with its errors as Gradio's, which alone are shown to clients; one sentence each."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except PawMatchError as exc:
            raise gr.Error(html.escape(str(exc), quote=False), print_exception=False) from exc

    return call


def add_endpoints(handlers: Handlers) -> None:
    """Add /predict, /explain, /predict_batch and /models to the Blocks being built."""
    image = Photo(label="Photo", visible=False)
    images = Photos(label="Photos", file_count="multiple", visible=False)
    images.data_model = None
    task = gr.Textbox("breed", label="Task: breed or artist", visible=False)
    top_k = gr.Number(5, label="How many labels", precision=0, visible=False)
    label = gr.Textbox(label="Label to explain; the first choice if empty", visible=False)
    answer = gr.JSON(label="Answer", visible=False)
    overlays = [gr.Image(label=name, format="jpeg", visible=False) for name in OVERLAYS]
    trigger = gr.Button(visible=False)

    def endpoint(function: Callable[..., Any], inputs: list[Any], outputs: list[Any]) -> None:
        trigger.click(
            worded(function),
            inputs,
            outputs,
            api_name=function.__name__,
            preprocess=False,
            show_progress="hidden",
            **MODEL_RUN,
        )

    endpoint(handlers.predict, [image, task, top_k], [answer])
    endpoint(handlers.explain, [image, task, label], [answer, *overlays])
    endpoint(handlers.predict_batch, [images, task, top_k], [answer])
    endpoint(handlers.models, [], [answer])
