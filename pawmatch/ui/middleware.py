"""What every request meets before Gradio: the gate and the rate limit.

Gradio fetches web addresses for whoever asks, through a route of its own and wherever a file is expected,
and takes request bodies of any size. Nothing here needs either: photos are uploaded, and the only requests
that may leave this computer are those to the Hub for weights.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pawmatch.ui import request_log
from pawmatch.ui.html import MAX_COMPARED

# Requests that are no uploads carry JSON: texts, numbers and the paths of uploads.
MAX_JSON_BYTES = 2**20
# What is read and thrown away of a body that is too large; some clients see an answer only after sending.
MAX_DRAINED_BYTES = 2**25
SHUT = re.compile(
    r"/gradio_api/(?:proxy=|file[=/]\s*https?:|custom_component/|component_server|deep_link|run-history|stream/"
    r"|dev/|process_recording|(?:undo-)?vibe-|profiling/|startup-events)|^/(?:gradio_api/)?runs/?$",
    re.IGNORECASE,
)
NOT_OFFERED = "This address is not offered here."
TOO_LARGE = "The request is too large; send fewer or smaller files."
UPLOADS = re.compile(r"/gradio_api/upload/?")
ASKS = re.compile(r"/gradio_api/(?:queue/join|(?:call|run|api)(?:/v2)?/(?P<endpoint>[^/]+))/?")
ENDPOINTS = ("predict", "explain", "predict_batch", "models")
BURST_SECONDS = 20  # how much of the limit may come at once
WITHOUT_PHOTO = 0.1  # of a photo's cost: changing colours, listing the models
MAX_VISITORS = 10_000  # who are remembered; one that is forgotten starts anew
Identify = Callable[[Scope], str]


def route(scope: Scope) -> str:
    """The path that is asked for, without one under which a proxy offers the service and that it keeps."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


class Gate:
    """ASGI middleware: refuses what is not offered (403) and bodies that are too large (413)."""

    def __init__(self, app: ASGIApp, max_upload_mb: int) -> None:
        self.app = app
        # The page that compares sends all of its photos in one request; the rest is their wrapping.
        self.max_upload_bytes = MAX_COMPARED * (max_upload_mb * 2**20 + 2**16)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        send, path = partial(send_plainly, send), route(scope)
        if SHUT.search(path):
            await PlainTextResponse(NOT_OFFERED, 403)(scope, receive, send)
            return
        limit = self.max_upload_bytes if UPLOADS.fullmatch(path) else MAX_JSON_BYTES
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
    while more and seen < MAX_DRAINED_BYTES:
        message = await receive()
        seen += len(message.get("body", b""))
        more = message.get("more_body", False)


async def send_plainly(send: Send, message: Message) -> None:
    """Tell browsers to take a file for what its type says, not for what it looks like."""
    if message["type"] == "http.response.start":
        MutableHeaders(scope=message).setdefault("X-Content-Type-Options", "nosniff")
    await send(message)


class TokenBuckets:
    """A bucket for each visitor: it holds `burst` tokens at most and gets `per_minute` new ones a minute.

    A cost may be a fraction, or more than a bucket holds: that needs a full one, and is paid off afterwards.
    `clock` gives seconds.
    """

    def __init__(
        self, per_minute: float, burst: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second, self._burst, self._clock = per_minute / 60, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and at what moment
        self._lock = threading.Lock()

    def take(self, visitor: str, cost: float = 1.0) -> float:
        """Take `cost` tokens and give 0; or, where they are lacking, none, and give the seconds to wait."""
        needed = min(cost, self._burst)
        with self._lock:
            now = self._clock()
            tokens, moment = self._buckets.pop(visitor, (self._burst, now))
            tokens = min(self._burst, tokens + (now - moment) * self._per_second)
            wait = max(0.0, needed - tokens) / self._per_second
            # At the end, as the one that asked last.
            self._buckets[visitor] = (tokens if wait else tokens - cost, now)
            if len(self._buckets) > MAX_VISITORS:
                self._buckets.popitem(last=False)
            return wait


class RateLimit:
    """ASGI middleware: refuses visitors who ask more than `per_minute` photos a minute.

    Who is over the limit gets 429 and a sentence with the time to wait, before anything of theirs is queued,
    so that nobody can fill the queue for all the others. Uploads are counted apart: a photo that is sent once
    and asked about once costs one of each. `identify` says who is asking; that is forgotten with the bucket,
    and logged nowhere.
    """

    def __init__(self, app: ASGIApp, per_minute: int, identify: Identify) -> None:
        self.app = app
        self.identify = identify
        burst = max(1.0, per_minute * BURST_SECONDS / 60)
        self.asked = TokenBuckets(per_minute, burst)
        self.uploaded = TokenBuckets(per_minute, burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        is_post = scope["type"] == "http" and scope["method"] == "POST"
        endpoint = endpoint_of(route(scope)) if is_post else None
        if endpoint is None:
            await self.app(scope, receive, send)
            return
        if endpoint == "upload":
            wait = self.uploaded.take(self.identify(scope))
        else:
            body, receive = await read_ahead(receive)
            wait = self.asked.take(self.identify(scope), cost(body))
        if wait:
            request_log.turned_away(endpoint, "TooManyRequests")
            seconds = math.ceil(wait)
            answer = JSONResponse({"detail": too_many(seconds)}, 429, {"Retry-After": str(seconds)})
            await answer(scope, receive, send)
            return
        await self.app(scope, receive, send)


def endpoint_of(path: str) -> str | None:
    """What a POST to this address asks for: "/predict" and the like, "page" or "upload"; None if nothing."""
    if UPLOADS.fullmatch(path):
        return "upload"
    asked = ASKS.fullmatch(path)
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
    """How many photos a question is about, wherever in it they stand; without any, a tenth of a photo."""
    try:
        return float(count_files(json.loads(body))) or WITHOUT_PHOTO
    except (ValueError, RecursionError):
        return 1.0  # no question at all, which others will say


def count_files(value: Any) -> int:
    """The file objects in JSON values."""
    if isinstance(value, dict):
        return ("path" in value) + sum(map(count_files, value.values()))
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
