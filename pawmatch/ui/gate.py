"""The gate in front of Gradio: what of its HTTP this service has no use for stays shut.

Gradio fetches web addresses for whoever asks, through a route of its own and wherever a file is expected,
and takes request bodies of any size. Nothing here needs either: photos are uploaded, and the only requests
that may leave this computer are those to the Hub for weights.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import gradio as gr
from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pawmatch.ui.requests import HOW_TO_SEND, MOST_COMPARED

UPLOAD = "/gradio_api/upload"
# Other requests carry JSON: texts, numbers and the paths of uploads.
JSON_BYTES = 2**20
# What is read and thrown away of a body that is too large; some clients see an answer only after sending.
DRAINED_BYTES = 2**25
SHUT = re.compile(
    r"/gradio_api/"
    r"(?:proxy=|file[=/]\s*https?:|custom_component/|component_server|deep_link|run-history|stream/|dev/)"
    r"|^/(?:gradio_api/)?runs/?$",
    re.IGNORECASE,
)
NOT_OFFERED = "This address is not offered here."
TOO_LARGE = "The request is too large; send fewer or smaller files."


class Gate:
    """ASGI middleware: refuses what is not offered (403) and bodies that are too large (413)."""

    def __init__(self, app: ASGIApp, max_upload_mb: int) -> None:
        self.app = app
        # The page that compares sends all of its photos in one request; the rest is their wrapping.
        self.upload_bytes = MOST_COMPARED * (max_upload_mb * 2**20 + 2**16)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        send = partial(send_plainly, send)
        if SHUT.search(scope["path"]):
            await PlainTextResponse(NOT_OFFERED, 403)(scope, receive, send)
            return
        limit = self.upload_bytes if scope["path"].startswith(UPLOAD) else JSON_BYTES
        if declared_length(scope) > limit:
            await drain(receive)
            await PlainTextResponse(TOO_LARGE, 413)(scope, receive, send)
            return
        await self.app(scope, counted(receive, limit), send)


def declared_length(scope: Scope) -> int:
    """The length of the body that a request's header announces; 0 if it announces none."""
    text = dict(scope["headers"]).get(b"content-length", b"")
    return int(text) if text.isdigit() else 0


def counted(receive: Receive, limit: int) -> Receive:
    """`receive` for a body that announces no length: one that outgrows `limit` counts as broken off."""
    seen = 0

    async def receive_within() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return message if seen <= limit else {"type": "http.disconnect"}

    return receive_within


async def drain(receive: Receive) -> None:
    """Read a body, or the first part of a very large one, and keep nothing of it."""
    seen, more = 0, True
    while more and seen < DRAINED_BYTES:
        message = await receive()
        seen += len(message.get("body", b""))
        more = message.get("more_body", False)


async def send_plainly(send: Send, message: Message) -> None:
    """Tell browsers to take a file for what its type says, not for what it looks like."""
    if message["type"] == "http.response.start":
        MutableHeaders(scope=message).setdefault("X-Content-Type-Options", "nosniff")
    await send(message)


def fetch_nothing(demo: gr.Blocks) -> None:
    """Make every component refuse a web address in place of an upload; Gradio would download it."""
    for block in demo.blocks.values():
        move: Callable[[Any], Awaitable[Any]] = block.async_move_resource_to_block_cache
        setattr(block, "async_move_resource_to_block_cache", partial(move_own, move))  # noqa: B010 - as mypy likes


async def move_own(move: Callable[[Any], Awaitable[Any]], place: Any) -> Any:
    """Take in a file that is here; raise Gradio's error, which visitors see, for a web address."""
    if str(place).startswith(("http://", "https://")):
        raise gr.Error(HOW_TO_SEND, print_exception=False)
    return await move(place)
