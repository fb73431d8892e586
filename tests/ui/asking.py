"""Requests to an ASGI app without a server: in parts, slowly, and however they are meant to be wrong."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PHOTO = {"path": "/tmp/gradio/x.jpg", "meta": {"_type": "gradio.FileData"}}
JSON = {"content-type": "application/json"}
FORM = {"content-type": "multipart/form-data; boundary=b"}


MUCH = 2**20  # letters of the longest answer


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what it was sent, or with its length if that is much."""
    body = await Request(scope, receive).body()
    if scope["path"] == "/much":
        body = bytes(MUCH)
        await Response(body)(scope, receive, send)
        return
    await PlainTextResponse(body if len(body) < 2000 else str(len(body)))(scope, receive, send)


def ask(
    app: ASGIApp,
    path: str,
    parts: list[bytes] | None = None,
    headers: dict[str, str] | None = None,
    pauses: float = 0.0,
    **scope: Any,
) -> tuple[int, dict[str, str], str]:
    """Status, headers and text of the answer to a request whose body comes in parts.

    With `pauses` a part comes after so many seconds, and after the last one the sender stays silent.
    """
    told = {"host": "127.0.0.1:7860", **(headers or {})}
    if parts is not None:
        told = {"content-length": str(sum(map(len, parts))), **told}
    left = list(parts or [b""])
    said: list[Message] = []

    async def receive() -> Message:
        await asyncio.sleep(pauses if left else 3600 * pauses)
        if not left:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left) or pauses > 0}

    async def send(message: Message) -> None:
        said.append(message)

    whole: Scope = {
        "type": "http",
        "method": "GET" if parts is None else "POST",
        "path": path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in told.items()],
        "client": ("192.0.2.1", 1),
    }
    asyncio.run(_call(app, {**whole, **scope}, receive, send))
    found = {name.decode(): value.decode() for name, value in said[0]["headers"]}
    return said[0]["status"], found, said[1]["body"].decode("latin-1")


async def _call(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


def form(*files: tuple[str, bytes], boundary: str = "b") -> bytes:
    """A multipart body: pairs of a part's Content-Disposition, without "form-data; ", and its content."""
    pieces = [
        f"--{boundary}\r\nContent-Disposition: form-data; {told}\r\n\r\n".encode() + content + b"\r\n"
        for told, content in files
    ]
    return b"".join(pieces) + f"--{boundary}--\r\n".encode()
