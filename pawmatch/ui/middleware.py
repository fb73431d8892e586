"""The door: what every request meets before Gradio, which answers far more than is needed.

Only what OFFERED lists is let in, and of that nothing larger, slower or more deeply nested than the pages,
Gradio's clients and the four endpoints need.
"""

from __future__ import annotations

import math
import re
from asyncio import sleep
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pawmatch.settings import Settings
from pawmatch.ui import request_log
from pawmatch.ui.bodies import (
    ID,
    MAX_JSON_BYTES,
    TOO_LARGE,
    Body,
    Parts,
    Refused,
    judge_call,
    judge_ids,
    judge_question,
)
from pawmatch.ui.html import MAX_COMPARED
from pawmatch.ui.visitors import Names, TokenBuckets, visitor

# What is let in: methods, address, and what needs it. SECURITY.md repeats the table.
OFFERED: tuple[tuple[str, str, str], ...] = (
    ("GET HEAD", "/", "the page"),
    ("GET", "/compare", "the page that compares"),
    ("GET", "/compare/", "the same, as people type it"),
    ("GET", "/known", "the page that lists what the models know"),
    ("GET", "/known/", "the same, as people type it"),
    ("GET", "/assets/{file}", "scripts, styles and fonts of the page"),
    ("GET", "/static/{file}", "icons and fonts of the page"),
    ("GET", "/theme.css", "colors of the page"),
    ("GET", "/favicon.ico", "the icon that browsers ask for"),
    ("GET", "/manifest.json", "the description that browsers ask for"),
    ("GET", "/robots.txt", "what search engines ask for"),
    ("GET HEAD", "/healthz", "whether the process lives"),
    ("GET HEAD", "/readyz", "whether the models are loaded"),
    ("GET", "/config", "Gradio's clients: the events of the pages"),
    ("GET", "/gradio_api/info", "Gradio's clients and the page: the four endpoints"),
    ("GET", "/gradio_api/openapi.json", "other clients: the four endpoints"),
    ("GET", "/gradio_api/app_id", "the page after a lost connection: whether it is still the same service"),
    (
        "GET",
        "/gradio_api/heartbeat/{id}",
        "pages and clients that are open; what they keep goes when they leave",
    ),
    ("GET", "/gradio_api/queue/status", "how many requests wait"),
    ("GET", "/gradio_api/queue/data", "answers to events of pages and clients"),
    ("POST", "/gradio_api/queue/join", "events of pages and clients"),
    ("POST", "/gradio_api/call/{name}", "the endpoints over plain HTTP"),
    ("POST", "/gradio_api/call/v2/{name}", "the endpoints over plain HTTP, with named arguments"),
    ("GET", "/gradio_api/call/{name}/{id}", "their answers"),
    ("GET", "/gradio_api/call/v2/{name}/{id}", "their answers"),
    ("POST", "/gradio_api/cancel", "who no longer waits for an answer"),
    ("POST", "/gradio_api/reset", "the same, by some clients"),
    ("POST", "/gradio_api/upload", "photos"),
    ("GET", "/gradio_api/upload_progress", "the page: how far an upload is"),
    (
        "GET HEAD",
        "/gradio_api/file={place}",
        "uploads, overlays and examples; Gradio judges which files may be read",
    ),
)
ENDPOINTS = ("predict", "explain", "predict_batch", "models")
PARTS = {
    "{file}": r"(?:[\w.@~-]+/)*[\w.@~-]+",
    "{id}": ID.pattern,
    "{name}": rf"(?P<endpoint>{'|'.join(ENDPOINTS)})",
    "{place}": r"(?!\s*(?i:https?):).+",
}
UPLOAD = "/gradio_api/upload"
JOIN = "/gradio_api/queue/join"
ASSISTANTS = "/mcp"  # on the list where the settings ask for it

MAX_ADDRESS = 4096  # bytes of path and query; a file's name may have 255 letters, in up to 12 bytes each
BURST_SECONDS = 20  # how much of the rate limit may come at once
WITHOUT_PHOTO = 0.1  # of a photo's cost: changing colours, listing the models
BYTES_PER_PHOTO = 5 * 2**20  # an upload of so many costs as much as one photo
# Of one visitor that are answered at once; a client that makes more waits for its answers, as long as it can.
REFUSALS_A_MINUTE, REFUSALS_AT_ONCE, MAX_HELD_SECONDS = 120, 20, 5.0

NOT_OFFERED = "This address is not offered here."
PREFLIGHT = {"Access-Control-Allow-Methods": "GET, POST", "Access-Control-Allow-Headers": "Content-Type"}
WRONG_NAME = "This service is not known by that name; name it in PAWMATCH_HOSTS."
WRONG_PAGE = "Pages of others may not call this service; name those that may in PAWMATCH_ORIGINS."


def compiled(template: str) -> re.Pattern[str]:
    """The expression that an address of the table stands for."""
    pieces = re.split(r"(\{\w+\})", template)
    return re.compile("".join(PARTS.get(piece) or re.escape(piece) for piece in pieces))


ROUTES = [(methods.split(), compiled(template)) for methods, template, _ in OFFERED]


def route(scope: Scope, root: str = "") -> str:
    """The path that is asked for, without one under which a proxy offers the service and that it keeps."""
    path, root = str(scope["path"]), (root or str(scope.get("root_path", ""))).rstrip("/")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def endpoint_of(path: str) -> str | None:
    """What a POST to this address asks for: "/predict" and the like, "page" or "upload"; None if nothing."""
    if path in (UPLOAD, JOIN):
        return "upload" if path == UPLOAD else "page"
    asked = re.fullmatch(rf"/gradio_api/call/(?:v2/)?{PARTS['{name}']}", path)
    return f"/{asked['endpoint']}" if asked else None


class Door:
    """The service as strangers see it: ASGI around Gradio's app.

    `root` is the path under which a proxy offers the service.
    """

    def __init__(self, app: ASGIApp, settings: Settings, root: str = "") -> None:
        self.app, self.settings, self.names = app, settings, Names(settings)
        self.root = urlsplit(root).path if root else ""
        # The page that compares sends all of its photos in one request; the rest is their wrapping.
        self.max_upload_bytes = MAX_COMPARED * (settings.max_upload_mb * 2**20 + 2**16)
        self.asked = self.uploaded = self.refused = None
        if rate := settings.photos_per_minute:
            burst = max(1.0, rate * BURST_SECONDS / 60)
            # Counted apart: a photo that is sent once and asked about once costs one of each.
            self.asked, self.uploaded = TokenBuckets(rate, burst), TokenBuckets(rate, burst)
            self.refused = TokenBuckets(REFUSALS_A_MINUTE, REFUSALS_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # no web sockets: who asks for one is hung up on
        path, headers = route(scope, self.root), Headers(scope=scope)
        scope["visitor"] = who = visitor(scope, self.settings.behind_proxy)
        body, permission = Body(receive, headers), self.permission(headers)
        has_begun = False

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Browsers are to take a file for what its type says, not for what it looks like.
                MutableHeaders(scope=message).update({"X-Content-Type-Options": "nosniff", **permission})
            await send(message)

        async def answer_of_app(message: Message) -> None:
            nonlocal has_begun
            if has_begun or body.refusal is None:  # an app that is cut off has things to say, too
                has_begun = True
                await answer(message)

        try:
            await self.let_in(scope, path, headers, body, permission, answer_of_app)
        except Refused as refused:
            body.refusal = refused.with_traceback(None)  # which holds what was read, and may wait
        except Exception:
            if body.refusal is None:
                raise
        if body.refusal and not has_begun:
            if endpoint := endpoint_of(path):
                request_log.turned_away(endpoint, body.refusal.code)
            if held := self.refused.owe(who, 1) if self.refused else 0.0:
                await sleep(min(held, MAX_HELD_SECONDS))  # and what else it sends is not read
            elif body.refusal.status != 408:
                await body.drain()
            await body.refusal.response(body.is_whole)(scope, receive, answer)

    def permission(self, headers: Headers) -> dict[str, str]:
        """What lets a page of another origin read the answer, where the settings name it; no cookies."""
        origin = headers.get("origin")
        if origin is None or not self.names.may_call(origin):
            return {}
        return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}

    async def let_in(
        self, scope: Scope, path: str, headers: Headers, body: Body, permission: dict[str, str], send: Send
    ) -> None:
        """Judge a request and hand it on; raises Refused."""
        if not self.names.know(headers.get("host", "")):
            raise Refused(400, WRONG_NAME, "WrongName")
        if not permission and not self.names.are_called_by(headers):
            raise Refused(403, WRONG_PAGE, "WrongPage")
        if permission and scope["method"] == "OPTIONS":
            await PlainTextResponse("", headers=PREFLIGHT)(scope, body.receive, send)
            return
        is_assistant = path == ASSISTANTS and self.settings.mcp and scope["method"] == "POST"
        if not is_assistant:
            judge_address(scope, path)
        receive: Receive = body.receive
        who = str(scope["visitor"])
        if is_assistant:  # its photos come as text
            message = await body.read(self.settings.max_upload_mb * 2**20 * 4 // 3 + MAX_JSON_BYTES)
            self.charge(self.asked, who, max(judge_call(message), len(message) / BYTES_PER_PHOTO))
            receive = body.again(message)
        elif path == UPLOAD:
            if body.announced > self.max_upload_bytes:
                raise Refused(413, TOO_LARGE, "TooLarge")
            parts = Parts(headers.get("content-type", ""))
            paid = max(1.0, body.announced / BYTES_PER_PHOTO)
            self.charge(self.uploaded, who, paid)
            body.limit, body.watch = self.max_upload_bytes, parts.write
        elif scope["method"] == "POST":
            question = await body.read(MAX_JSON_BYTES)
            photos = judge_question(question, headers.get("content-type", ""))
            if endpoint_of(path):
                self.charge(self.asked, who, photos or WITHOUT_PHOTO)
            receive = body.again(question)
        elif body.is_announced:
            raise Refused
        try:
            await self.app({**scope, "headers": self.handed_on(scope, headers)}, receive, send)
        finally:
            if path == UPLOAD and self.uploaded:  # what an upload holds shows when it is there
                used = max(parts.files, body.seen / BYTES_PER_PHOTO)
                self.uploaded.owe(who, max(0.0, used - paid))

    def handed_on(self, scope: Scope, headers: Headers) -> list[tuple[bytes, bytes]]:
        """The headers without those that Gradio would believe and that are judged here."""
        dropped = {b"origin", b"x-gradio-server"}
        forwarded = headers.get("x-forwarded-host", "").split(",")  # a Space's has its path after the name
        if not all(self.names.know(place.strip().partition("/")[0]) for place in forwarded):
            dropped.add(b"x-forwarded-host")
        return [(name, value) for name, value in scope["headers"] if name.lower() not in dropped]

    def charge(self, buckets: TokenBuckets | None, who: str, cost: float) -> None:
        """Take a request's cost from the visitor's bucket; raises Refused with the time to wait."""
        if buckets and (wait := buckets.take(who, cost)):
            raise Refused(429, too_many(math.ceil(wait)), "TooManyRequests", wait)


def too_many(seconds: int) -> str:
    """The sentence for a visitor who has to wait."""
    unit = "second" if seconds == 1 else "seconds"
    return f"That was a lot of photos in a short time; please try again in {seconds} {unit}."


def judge_address(scope: Scope, path: str) -> None:
    """Refuse what is not on the list, and long or odd values in the address; raises Refused."""
    query = scope.get("query_string", b"")
    if len(scope.get("raw_path") or b"") + len(query) > MAX_ADDRESS:
        raise Refused
    found = [methods for methods, pattern in ROUTES if pattern.fullmatch(path)]
    if not found:
        raise Refused(403, NOT_OFFERED, "NotOffered")
    if not any(scope["method"] in methods for methods in found):
        raise Refused(405, NOT_OFFERED, "NotOffered")
    judge_ids(dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)))
