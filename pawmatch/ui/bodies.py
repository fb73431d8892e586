"""Bodies of requests, judged as they arrive: size and pace, what JSON holds, which parts a form has."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Callable
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Message, Receive

from pawmatch.ui.handlers import MAX_PHOTOS

ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
IDS = ("session_hash", "event_id", "upload_id")
NUMBERS = ("fn_index", "trigger_id")
MAX_JSON_BYTES = 2**18  # of texts, numbers and the paths of uploads; 64 of these are 50 kB
MAX_DEPTH, MAX_VALUES, MAX_TEXT = 16, 4000, 4096  # nesting, values and characters of a text in JSON
# Of a call; the endpoint itself says how many are too many, as long as asking does not hurt others.
MAX_FILES = 2 * MAX_PHOTOS
MAX_TEXT_PARTS = 2**12  # bytes of all parts that are no files
# What is read and thrown away of a body that is refused; some clients see an answer only after sending.
MAX_DRAINED_BYTES, DRAIN_SECONDS = 2**25, 5.0
# How long a body may pause, and how slow it may be: as slow as the worst of mobile networks.
PAUSE_SECONDS, GRACE_SECONDS, MIN_BYTES_PER_SECOND = 10.0, 20.0, 4096

TOO_LARGE = "The request is too large; send fewer or smaller files."
TOO_SLOW = "The request took too long to arrive; please try again."
MALFORMED = "This is not a request that can be understood; docs/calling.md shows how to write one."


class Refused(Exception):
    """A request that gets no further; `status` is HTTP's, `code` the log's word for it."""

    def __init__(
        self, status: int = 400, sentence: str = MALFORMED, code: str = "BadRequest", wait: float = 0.0
    ) -> None:
        super().__init__(sentence)
        self.status, self.code, self.seconds = status, code, math.ceil(wait)

    def response(self, is_body_read: bool) -> Response:
        """The answer; where not all of the body was read, the connection ends with it."""
        headers = {} if is_body_read else {"Connection": "close"}
        if self.seconds:
            headers["Retry-After"] = str(self.seconds)
        if self.status in (400, 429, 507):  # what Gradio's clients show
            return JSONResponse({"detail": str(self)}, self.status, headers)
        return PlainTextResponse(str(self), self.status, headers)


def judge_ids(values: dict[str, Any]) -> None:
    """Refuse ids that are no short words, and numbers that are none: Gradio keeps them; raises Refused."""
    for name in IDS:
        value = values.get(name)
        if value is not None and not (isinstance(value, str) and ID.fullmatch(value)):
            raise Refused
    for name in NUMBERS:
        value = values.get(name)
        # A bool is an int to Python.
        if value is not None and (type(value) is not int or not 0 <= value < 10**6):
            raise Refused


def judge_question(body: bytes, content_type: str) -> int:
    """The number of files in a request that carries JSON, wherever in it they stand; raises Refused."""
    if "json" not in content_type:
        raise Refused
    try:
        question = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise Refused from exc
    if not isinstance(question, dict) or question.get("batched"):
        raise Refused
    judge_ids(question)
    files = 0
    level, values = [question], 0
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                files += not {"path", "url"}.isdisjoint(value)  # an upload, or a picture elsewhere
                below += [*value, *value.values()]
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str) and len(value) > MAX_TEXT:
                raise Refused(413, TOO_LARGE, "TooLarge")
        values += len(below)
        if files > MAX_FILES:
            sentence = f"{files} photos are too many; send at most {MAX_PHOTOS} in one call."
            raise Refused(400, sentence, "TooMany")
        if values > MAX_VALUES:
            raise Refused(413, TOO_LARGE, "TooLarge")
        level = below
    if level:
        raise Refused
    return files


def judge_call(body: bytes) -> int:
    """The number of photos in an assistant's call of a tool; raises Refused."""
    try:
        call = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise Refused from exc
    match call:
        case {"params": {"arguments": {"images": list(images)}}}:
            if len(images) > MAX_PHOTOS:
                raise Refused(400, f"Send at most {MAX_PHOTOS} photos in one call.", "TooMany")
            return len(images)
        case dict():
            return 1
    raise Refused  # several calls at once, say


class Body:
    """A request's body as it arrives, within its limit and in time.

    `watch` sees each piece before the app does. What is wrong raises Refused from `read`; to the app, from
    `receive`, it looks as if the visitor had left, and stays in `refusal`.
    """

    def __init__(self, receive: Receive, headers: Headers) -> None:
        length = headers.get("content-length", "0")
        self.announced = int(length) if length.isdigit() else 0
        self.is_announced = self.announced > 0 or "transfer-encoding" in headers
        self.limit, self.seen, self.is_whole = 0, 0, False
        self.watch: Callable[[bytes], None] = lambda piece: None
        self.refusal: Refused | None = None
        self._receive, self._waited = receive, 0.0

    async def _next(self) -> Message:
        """The next message, unless it takes too long."""
        left = GRACE_SECONDS + self.seen / MIN_BYTES_PER_SECOND - self._waited
        began = time.monotonic()
        try:
            async with asyncio.timeout(min(left, PAUSE_SECONDS)):
                message = await self._receive()
        except TimeoutError as exc:
            raise Refused(408, TOO_SLOW, "TooSlow") from exc
        self._waited += time.monotonic() - began  # what is done with a piece takes its time, too
        self.seen += len(message.get("body", b""))
        self.is_whole = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def _within_limit(self) -> Message:
        if max(self.announced, self.seen) > self.limit:
            raise Refused(413, TOO_LARGE, "TooLarge")
        message = await self._next()
        if self.seen > self.limit:
            raise Refused(413, TOO_LARGE, "TooLarge")
        if piece := message.get("body", b""):
            self.watch(piece)
        return message

    async def read(self, limit: int) -> bytes:
        """All of it; raises Refused."""
        self.limit = limit
        pieces: list[bytes] = []
        while not self.is_whole:
            pieces.append((await self._within_limit()).get("body", b""))
        return b"".join(pieces)

    async def receive(self) -> Message:
        """For the app, which reads a body and then waits for the visitor to leave."""
        if self.is_whole:
            return await self._receive()
        if self.refusal is None:
            try:
                return await self._within_limit()
            except Refused as refused:
                self.refusal = refused
        return {"type": "http.disconnect"}

    def again(self, content: bytes) -> Receive:
        """A `receive` that gives what was read once more."""
        waiting: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]

        async def receive() -> Message:
            return waiting.pop() if waiting else await self._receive()

        return receive

    async def drain(self) -> None:
        """Read what still comes, or the first part of very much, and keep nothing of it."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while self.is_announced and not self.is_whole and self.seen < MAX_DRAINED_BYTES:
                    await self._next()
        except (Refused, TimeoutError):
            pass


class Parts:
    """What a multipart body consists of, seen while it goes by: photos under the name that Gradio takes."""

    def __init__(self, content_type: str) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise Refused
        self.files, self._text, self._is_file = 0, 0, False
        # Of the header that arrives, and of the one that counts; the parser limits both.
        self._name, self._value, self._told = b"", b"", b""
        self._parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
            },
        )

    def write(self, piece: bytes) -> None:
        """Look at the next piece of the body; raises Refused."""
        try:
            self._parser.write(piece)
        except FormParserError as exc:
            raise Refused from exc

    def _begin(self) -> None:
        self._told, self._is_file = b"", False

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._told = self._value
        self._name = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._told)
        self._is_file = b"filename" in options
        self.files += self._is_file
        # Files under another name would be kept, and belong to no answer.
        if self._is_file and options.get(b"name") != b"files":
            raise Refused
        if self.files > MAX_PHOTOS:
            raise Refused(413, TOO_LARGE, "TooMany")
        self._data(b"", 0, 64)  # a text without content counts, too

    def _data(self, data: bytes, start: int, end: int) -> None:
        if not self._is_file:  # Gradio keeps texts in memory, and needs none
            self._text += end - start
            if self._text > MAX_TEXT_PARTS:
                raise Refused(413, TOO_LARGE, "TooLarge")
