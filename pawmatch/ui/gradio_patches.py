"""Every touch of Gradio's insides, checked with Gradio 6.31.

An upgrade that breaks one of them shows there, and only here is something to mend.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from inspect import signature
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar
from urllib.parse import quote

import gradio as gr
from gradio.components import Component
from gradio.routes import file_upload_statuses
from gradio.utils import get_upload_folder
from starlette.types import ASGIApp

MAX_UPLOADS_TOLD = 1000  # uploads whose progress can be asked for
Widget = TypeVar("Widget", bound=Component)


def left_alone(component: Widget) -> Widget:
    """The widget with its files as they come: how a picture is opened, and what is said of it, is ours.

    Without a data model a value of the wrong kind, too, reaches our own check and its sentence. This is
    no subclass because Gradio writes a .pyi file beside the source of each one.
    """
    schema = component.api_info()
    component.data_model = None
    setattr(component, "api_info", lambda: schema)  # noqa: B010 - a plain assignment offends mypy
    return component


def remember_signatures(demo: gr.Blocks) -> None:
    """Work out once what each widget is made from: Gradio does it for every widget in every new session.

    A call of an endpoint is such a session, and half of what that costs goes into this.
    """
    for kind in {type(block) for block in demo.blocks.values()}:
        make = kind.__init__
        if isinstance(make, FunctionType):
            setattr(make, "__signature__", signature(make))  # noqa: B010 - a plain assignment offends mypy


def fetch_nothing(demo: gr.Blocks, refusal: str, passing: gr.Image | None = None) -> None:
    """Make every component refuse a web address in place of an upload; Gradio would fetch it.

    The component `passing` lets it through as it is, for our own code to judge and to fetch.
    """

    async def move_own(block: Any, move: Callable[[Any], Awaitable[Any]], place: Any) -> Any:
        if not str(place).startswith(("http://", "https://")):
            return await move(place)
        if block is not passing:
            raise gr.Error(refusal, print_exception=False)
        return place

    for block in demo.blocks.values():
        move: Callable[[Any], Awaitable[Any]] = block.async_move_resource_to_block_cache
        own = partial(move_own, block, move)
        setattr(block, "async_move_resource_to_block_cache", own)  # noqa: B010 - as mypy likes


def forget_uploads() -> None:
    """Drop all but the last of what Gradio keeps of how far uploads are: every id that was asked about."""
    for table in (file_upload_statuses._signals, file_upload_statuses._statuses):
        while len(table) > MAX_UPLOADS_TOLD:
            del table[next(iter(table))]


def keep_jpeg(data: bytes, name: str) -> str:
    """As keep_file, for a JPEG file of ours."""
    return keep_file(data, f"pawmatch-{name}.jpg")


def keep_file(data: bytes, name: str) -> str:
    """Write a picture's bytes to Gradio's cache, which cleans up what a component shows, and give its path.

    Gradio would write a picture too, in place: who fetches it just when somebody else is given the same one
    (an example, say) then gets an empty file. Here it appears whole or not at all.
    """
    folder = Path(get_upload_folder()) / hashlib.sha256(data).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    file = tempfile.NamedTemporaryFile(dir=folder, delete=False)  # noqa: SIM115 - closed below
    try:
        with file:
            file.write(data)
        Path(file.name).replace(path)
    except BaseException:
        Path(file.name).unlink(missing_ok=True)  # a full disk must not fill up with halves
        raise
    return str(path)


def address_of(path: str) -> str:
    """Where a page finds a file of Gradio's cache, from wherever the app is mounted."""
    return f"gradio_api/file={quote(path)}"


def app_of(demo: gr.Blocks, *, app_kwargs: dict[str, Any], **options: Any) -> ASGIApp:
    """Gradio's app, to be served by a server of ours; `options` are those of launch.

    By itself launch starts a server that looks for a free port on IPv4, believes X-Forwarded-For, and is
    asked over HTTP to start the queue: through the proxy that the variables name, which may not reach it.
    A page that counts as running already starts none. ZeroGPU needs the call all the same: its package
    hooks into it.
    """
    running: Any = demo
    running.is_running, running.is_colab, running.local_url = True, False, "http://localhost/"

    @asynccontextmanager
    async def queue_runs(app: Any) -> AsyncIterator[None]:
        running.run_startup_events()
        await running.run_extra_startup_events()
        try:
            yield
        finally:
            running.is_running = False  # the streams that tell pages of their answers end
            app.stop_event.set()
            running._queue.close()

    app, _, _ = demo.launch(
        app_kwargs={**app_kwargs, "lifespan": queue_runs},
        prevent_thread_lock=True,
        quiet=True,
        _frontend=False,
        **options,
    )
    running.has_launched = True  # from here on Gradio judges whether a file may be opened
    running._queue.set_server_app(app)
    served: ASGIApp = app
    return served
