"""Rate limit: how many photos each visitor may send in a minute, kept at the door.

Who is over the limit gets 429 and a sentence with the time to wait, before anything of theirs is queued, so
that nobody can fill the queue for all the others. Uploads are counted apart: a photo that is sent once and
asked about once costs one of each.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pawmatch.token_bucket import TokenBuckets
from pawmatch.ui import journal

ASKS = re.compile(r"/gradio_api/(?:queue/join|(?:call|run|api)(?:/v2)?/(?P<endpoint>\w{1,20}))/?$")
UPLOADS = re.compile(r"/gradio_api/upload/?$")
ENDPOINTS = ("predict", "explain", "predict_batch", "models")
BURST_SECONDS = 20  # how much of the limit may come at once
WITHOUT_PHOTO = 0.1  # of a photo's cost: changing colours, listing the models
Identify = Callable[[Scope], str]


class RateLimit:
    """ASGI middleware: refuses visitors who ask more than `per_minute` photos a minute.

    `identify` says who is asking; that is forgotten with the bucket, and logged nowhere.
    """

    def __init__(self, app: ASGIApp, per_minute: int, identify: Identify) -> None:
        self.app = app
        self.identify = identify
        burst = max(1.0, per_minute * BURST_SECONDS / 60)
        self.asked = TokenBuckets(per_minute, burst)
        self.uploaded = TokenBuckets(per_minute, burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        endpoint = endpoint_of(scope["path"])
        if endpoint is None:
            await self.app(scope, receive, send)
            return
        if endpoint == "upload":
            wait = self.uploaded.take(self.identify(scope))
        else:
            body, receive = await read_ahead(receive)
            wait = self.asked.take(self.identify(scope), cost(body))
        if wait:
            journal.turned_away(endpoint, "TooManyRequests")
            seconds = math.ceil(wait)
            answer = JSONResponse({"detail": too_many(seconds)}, 429, {"Retry-After": str(seconds)})
            await answer(scope, receive, send)
            return
        await self.app(scope, receive, send)


def endpoint_of(path: str) -> str | None:
    """What a POST to this address asks for: "/predict" and the like, "page" or "upload"; None if nothing."""
    if UPLOADS.search(path):
        return "upload"
    asked = ASKS.search(path)
    if asked is None:
        return None
    return f"/{asked['endpoint']}" if asked["endpoint"] in ENDPOINTS else "page"


def too_many(seconds: int) -> str:
    """The sentence for a visitor who has to wait."""
    unit = "second" if seconds == 1 else "seconds"
    return f"That was a lot of photos in a short time; please try again in {seconds} {unit}."


async def read_ahead(receive: Receive) -> tuple[bytes, Receive]:
    """The whole body, and a `receive` that gives it once more."""
    messages: list[Message] = []
    while True:
        messages.append(await receive())
        if messages[-1]["type"] != "http.request" or not messages[-1].get("more_body"):
            break
    body = b"".join(message.get("body", b"") for message in messages)

    async def again() -> Message:
        return messages.pop(0) if messages else await receive()

    return body, again


def cost(body: bytes) -> float:
    """How many photos a question is about; one without any costs a tenth of a photo."""
    try:
        photos = count_files(json.loads(body).get("data"))
    except (ValueError, AttributeError, RecursionError):
        return 1.0  # no question at all, which others will say
    return float(photos) or WITHOUT_PHOTO


def count_files(value: Any) -> int:
    """The file objects in JSON values."""
    if isinstance(value, dict):
        return 1 if "path" in value else sum(map(count_files, value.values()))
    return sum(map(count_files, value)) if isinstance(value, list) else 0


def direct_visitor(scope: Scope) -> str:
    """Who holds the connection."""
    client = scope.get("client")
    return grouped(client[0]) if client else ""


def visitor_behind_proxy(scope: Scope) -> str:
    """Whom the proxy in front has seen: the last public address in X-Forwarded-For.

    Each proxy adds the address that it was called from at the end, and anyone can send a header that begins
    with invented ones. So only the end can be believed: what comes after the last public address are
    proxies in the house, and what comes before it is hearsay.
    """
    values = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    entries = [entry.strip() for entry in b",".join(values).decode("latin-1").split(",")]
    for entry in reversed(entries):
        try:
            if ipaddress.ip_address(entry).is_global:
                return grouped(entry)
        except ValueError:
            break
    return direct_visitor(scope)


def grouped(address: str) -> str:
    """The address, or the network of 2^64 addresses that one household has in IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    if mapped := parsed.ipv4_mapped:
        return str(mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
