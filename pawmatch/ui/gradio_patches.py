"""Touches of Gradio's insides, checked with Gradio 6.31; those that bound what it keeps are in bounds.py.

An upgrade that breaks one of them shows there, and only here is something to mend.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from inspect import signature
from pathlib import Path
from types import FunctionType
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import gradio as gr
from gradio import route_utils
from gradio.components import Component
from gradio.context import LocalContext
from gradio.utils import get_upload_folder
from starlette.types import ASGIApp

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


def pad_calls(demo: gr.Blocks, endpoint: str, least: int) -> None:
    """Fill up calls of an endpoint that give its first `least` inputs alone: Gradio wants all that there are.

    So what was written before an input was added at the end goes on working over plain HTTP, too.
    """
    validate = demo.validate_inputs

    def padded(block_fn: Any, inputs: list[Any]) -> None:
        if block_fn.api_name == endpoint and len(inputs) >= least:
            inputs += [None] * (len(block_fn.inputs) - len(inputs))
        validate(block_fn, inputs)

    setattr(demo, "validate_inputs", padded)  # noqa: B010 - a plain assignment offends mypy


class Keeper(Protocol):
    """Who is told of the files that visitors send and get."""

    def owns(self, session: str, file: str) -> None:
        """A file is a session's."""

    def take(self, size: int, visitor: str) -> None:
        """So many bytes are about to be written for a visitor; raises OSError if there is no room."""


def current_keeper() -> Keeper | None:
    """The keeper of the service whose event is being answered in this thread, if there are both."""
    return getattr(LocalContext.blocks.get(None), "keeper", None)


def note_file(path: str) -> None:
    """Note that a file is of the visitor whose event is being answered."""
    keeper, request = current_keeper(), LocalContext.request.get(None)
    if keeper and request and request.session_hash:
        keeper.owns(request.session_hash, path)


def keep_jpeg(data: bytes, name: str) -> str:
    """As keep_file, for a JPEG file of ours."""
    return keep_file(data, f"pawmatch-{name}.jpg")


def keep_file(data: bytes, name: str) -> str:
    """Write a picture's bytes to the upload folder, which cleans up, and give its path.

    Gradio would write a picture too, in place: who fetches it just when somebody else is given the same one
    (an example, say) then gets an empty file. Here it appears whole or not at all.
    """
    folder = Path(get_upload_folder()) / hashlib.sha256(data).hexdigest()
    path = folder / name
    if keeper := current_keeper():
        asking = getattr(LocalContext.request.get(None), "request", None)
        keeper.take(len(data), asking.scope.get("visitor", "") if asking else "")
    folder.mkdir(parents=True, exist_ok=True)
    file = tempfile.NamedTemporaryFile(dir=folder, delete=False)  # noqa: SIM115 - closed below
    try:
        with file:
            file.write(data)
        Path(file.name).replace(path)
    except BaseException:
        Path(file.name).unlink(missing_ok=True)  # a full disk must not fill up with halves
        raise
    note_file(str(path))
    return str(path)


def address_of(path: str) -> str:
    """Where a page finds a file of Gradio's cache, from wherever the app is mounted."""
    return f"gradio_api/file={quote(path)}"


_parts: ContextVar[list[Any] | None] = ContextVar("parts of an upload", default=None)
multipart: Any = route_utils
make_part = multipart.NamedTemporaryFile


def remembered_part(**options: Any) -> Any:
    """A temporary file for one part of an upload, as Gradio makes it."""
    part = make_part(**options)
    if (parts := _parts.get()) is not None:
        parts.append(part)
    return part


multipart.NamedTemporaryFile = remembered_part


@contextmanager
def leaving_no_parts() -> Iterator[None]:
    """In the end delete what an upload within has left under a name of its own: Gradio renames what it takes.

    That are parts under another name than "files", and all of an upload that breaks off or fails.
    """
    parts: list[Any] = []
    token = _parts.set(parts)
    try:
        yield
    finally:
        _parts.reset(token)
        for part in parts:
            with suppress(OSError):  # what is still to be written, on a full disk
                part.close()
            Path(part.name).unlink(missing_ok=True)


def app_of(
    demo: gr.Blocks,
    *,
    beside: Callable[[Any], AbstractAsyncContextManager[None]],
    app_kwargs: dict[str, Any],
    **options: Any,
) -> ASGIApp:
    """Gradio's app, to be served by a server of ours; `options` are those of launch.

    What `beside` makes of the app is entered before the first request and left after the last.

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
            async with beside(app):
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
