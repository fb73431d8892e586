"""The gate: what it lets through, what it refuses, and what it reads before it does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from pawmatch.ui.handlers import MOST_COMPARED
from pawmatch.ui.middleware import DRAINED_BYTES, JSON_BYTES, NOT_OFFERED, TOO_LARGE, Gate

UPLOAD_BYTES = MOST_COMPARED * (2**20 + 2**16)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the number of bytes that it was sent."""
    length = sum([len(part) async for part in Request(scope, receive).stream()])
    await PlainTextResponse(str(length))(scope, receive, send)


def ask(path: str, parts: list[bytes], length: int | None = None) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of the answer to a request whose body comes in parts."""
    waiting: list[Message] = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)}
        for number, part in enumerate(parts, 1)
    ]
    said: list[Message] = []

    async def receive() -> Message:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        said.append(message)

    headers = [] if length is None else [(b"content-length", str(length).encode())]
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path, "headers": headers}
    asyncio.run(Gate(echo, max_upload_mb=1)(scope, receive, send))
    if said[0]["status"] == 413 and sum(map(len, parts)) <= DRAINED_BYTES:
        assert not waiting  # a client that is still sending might not listen
    return said[0]["status"], dict(said[0]["headers"]), said[1]["body"]


def test_an_ordinary_request_passes() -> None:
    status, headers, body = ask("/gradio_api/queue/join", [b"ab", b"c"], 3)
    assert (status, body) == (200, b"3")
    assert headers[b"x-content-type-options"] == b"nosniff"


@pytest.mark.parametrize(
    ("path", "limit"), [("/gradio_api/call/predict", JSON_BYTES), ("/gradio_api/upload", UPLOAD_BYTES)]
)
def test_a_body_may_be_as_large_as_its_limit_and_no_larger(path: str, limit: int) -> None:
    assert ask(path, [bytes(limit)], limit)[0] == 200
    assert ask(path, [bytes(limit)])[0] == 200
    assert ask(path, [bytes(limit), b"x"], limit + 1)[::2] == (413, TOO_LARGE.encode())
    with pytest.raises(ClientDisconnect):
        ask(path, [bytes(limit), b"x"])  # of unknown length: cut off


def test_of_an_endless_body_only_the_first_part_is_read() -> None:
    parts = [bytes(2**24)] * 4
    assert ask("/gradio_api/queue/join", parts, 2**40)[0] == 413


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/proxy=https://x.hf.space/file",
        "/gradio_api/file=http://127.0.0.1/",
        "/gradio_api/file=HTTPS://example.org",
        "/gradio_api/file/https://example.org",
        "/gradio_api/component_server",
        "/gradio_api/deep_link",
        "/runs",
    ],
)
def test_what_is_not_offered_is_refused(path: str) -> None:
    assert ask(path, [b""])[::2] == (403, NOT_OFFERED.encode())


@pytest.mark.parametrize(
    "path", ["/", "/compare", "/gradio_api/file=/tmp/gradio/http/dog.jpg", "/gradio_api/upload", "/healthz"]
)
def test_what_the_page_needs_is_not(path: str) -> None:
    assert ask(path, [b""])[0] == 200
