"""Bounds: each map that Gradio keeps of its visitors gets a size and an age, and what they send is made fit.

As in gradio_patches, all this is about Gradio's insides, checked with Gradio 6.31.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import sys
import time
from collections import UserDict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar

import orjson
from gradio import queueing, routes
from gradio.server_messages import ProcessCompletedMessage
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pawmatch.ui.faults import NOT_FITTING, log_fault, sentence
from pawmatch.ui.presence import Visitors
from pawmatch.ui.uploads import Uploads

V = TypeVar("V")

MAX_SESSIONS = 500  # visitors whose last answer is kept, about 0.6 MB each; beyond that the oldest one goes
MAX_MAILBOXES = 2000  # sessions with messages to fetch, or without: those of events that nobody asks about
MAX_MESSAGES = 64  # that wait in one of them
UNREAD_SECONDS = 300  # how long messages wait to be fetched
MAX_TRACKED = 1000  # uploads whose progress is told
M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # of malloc.h


class Bounded(UserDict[str, V]):
    """A map of at most `size` entries; each goes when nobody has asked for it for `seconds`.

    Entries that are `in_use` stay. What is the oldest goes first.
    """

    def __init__(
        self,
        size: int,
        seconds: float,
        in_use: Callable[[str], bool] = lambda key: False,
        missing: Callable[[], V] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._size, self._seconds, self._in_use = size, seconds, in_use
        self._missing, self._clock = missing, clock
        self._used: dict[str, float] = {}  # in the order of their last use
        super().__init__()

    def __getitem__(self, key: str) -> V:
        if key not in self.data and self._missing:
            self[key] = self._missing()
        value = self.data[key]
        self._touch(key)
        return value

    def __setitem__(self, key: str, value: V) -> None:
        self.data[key] = value
        self._touch(key)
        if len(self.data) > self._size:
            oldest = next((old for old in self._used if old != key and not self._in_use(old)), None)
            if oldest is not None:
                del self[oldest]

    def __delitem__(self, key: str) -> None:
        del self.data[key]
        del self._used[key]

    def _touch(self, key: str) -> None:
        self._used.pop(key, None)
        self._used[key] = self._clock()

    def forget_old(self) -> None:
        """Drop what nobody has asked for since `seconds`."""
        moment = self._clock() - self._seconds
        for key in [key for key, used in self._used.items() if used <= moment]:
            if not self._in_use(key):
                del self[key]


class Mailbox(asyncio.Queue[Any]):
    """The messages of one session that are still to be fetched: of more than fit the oldest go."""

    def put_nowait(self, item: Any) -> None:
        if self.qsize() >= MAX_MESSAGES:
            self.get_nowait()
        super().put_nowait(item)


class Forgetful(set[str]):
    """A list of files to delete that stays empty: they are deleted by their age, listed or not."""

    def add(self, file: str) -> None:
        pass

    def update(self, *files: Iterable[str]) -> None:
        pass


# One list for all apps of a process; it would keep each id for good, and so would the signals.
TRACKED: Bounded[Any] = Bounded(MAX_TRACKED, UNREAD_SECONDS)
SIGNALS: Bounded[asyncio.Event] = Bounded(MAX_TRACKED, UNREAD_SECONDS, missing=asyncio.Event)


class Brief:
    """Stands for `traceback` in Gradio's queue, which prints all that an error says."""

    @staticmethod
    def print_exc() -> None:
        """Log the error that is being dealt with, in brief."""
        if (exc := sys.exc_info()[1]) is not None:
            log_fault(exc)


inside: Any = queueing
plain_payload = inside.error_payload


def payload(error: BaseException | None, show_error: bool) -> dict[str, Any]:
    """What a client is told of an error: never nothing.

    Our own functions fail with words of theirs. What else fails is what Gradio makes of the values before.
    """
    content: dict[str, Any] = plain_payload(error, show_error)
    if content["error"] is None:
        is_ours = isinstance(error, OSError | MemoryError)
        content["error"] = sentence(error) if error is not None and is_ours else NOT_FITTING
    return content


def heaps() -> Any:
    """The C library, where its heaps can be told what to keep: glibc's; else None."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "malloc_trim") else None


def keep_few_heaps() -> None:
    """Have all threads share two heaps: by itself glibc makes one for each thread, up to eight a core.

    Each would keep what its thread took in its busiest moment.
    """
    if (library := heaps()) is not None:
        library.mallopt(M_ARENA_MAX, 2)
        library.mallopt(M_MMAP_THRESHOLD, 2**24)  # the bytes of what is no longer taken from a heap


def encodable(value: Any) -> Any:
    """JSON values whose text can be sent: halves of characters, which a file's name may have, become "?"."""
    try:
        orjson.dumps(value)
        return value
    except TypeError:  # such a half, or a number or a depth that is its own limit
        return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


class Bounds:
    """Bounds on all that an app keeps of its visitors; `seconds` is how long it keeps an idle session."""

    def __init__(self, app: routes.App, seconds: float) -> None:
        self._seconds = seconds
        self._states = app.state_holder
        self._states.capacity = MAX_SESSIONS
        blocks: Any = app.get_blocks()
        queue = self._queue = blocks._queue
        inside.error_payload, inside.traceback, inside.AsyncQueue = payload, Brief, Mailbox
        progress: Any = routes.file_upload_statuses
        progress._statuses, progress._signals = TRACKED, SIGNALS
        queue.ANALYTICS_MAX_EVENTS = 0  # a line for each event, with its session, for a page that is shut

        self._mailboxes: Bounded[Any] = Bounded(MAX_MAILBOXES, UNREAD_SECONDS, self._is_busy)
        self._events: Bounded[set[str]] = Bounded(
            MAX_MAILBOXES,
            UNREAD_SECONDS,
            lambda session: session in self._mailboxes or self._is_busy(session),
        )
        queue.pending_messages_per_session = self._mailboxes
        queue.pending_event_ids_session = self._events
        self._push = queue.push
        queue.push = self._push_fit
        for block in (blocks, *blocks.blocks.values()):
            block.temp_files = Forgetful()
        blocks.upload_file_set = Forgetful()

    def _is_busy(self, session: str) -> bool:
        """Whether events of a session wait or run."""
        return any(event.session_hash == session for event in self._queue.event_ids_to_events.values())

    async def _push_fit(self, body: Any, **named: Any) -> Any:
        try:
            body.data, body.event_data = encodable(body.data), encodable(body.event_data)
        except (RecursionError, ValueError):
            return False, NOT_FITTING, "error"
        return await self._push(body=body, **named)

    def forget_old(self) -> None:
        """Drop what is too old; to be called now and then, in the app's own loop."""
        self._mailboxes.forget_old()
        self._events.forget_old()
        TRACKED.forget_old()
        SIGNALS.forget_old()
        moment = datetime.now() - timedelta(seconds=self._seconds)
        used = self._states.time_last_used
        self.drop(
            [session for session, last in used.items() if last <= moment and not self._is_busy(session)]
        )

    def drop(self, sessions: Iterable[str]) -> None:
        """Drop all that is kept of sessions that are over."""
        for session in sessions:
            self._states.session_data.pop(session, None)
            self._states.time_last_used.pop(session, None)


async def cancel(request: Request) -> Response:
    """End one event of a session, and say so there.

    Gradio's own route ends all events of the session that run the same function, and tells of one.
    """
    try:
        body = await request.json()
        session, name = str(body["session_hash"]), str(body["event_id"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return JSONResponse({"detail": NOT_FITTING}, 422)
    queue = request.app.get_blocks()._queue
    event = queue.event_ids_to_events.get(name)
    if event is not None and event.session_hash == session:
        message = ProcessCompletedMessage(output={}, success=True)
        queue.send_message(event, message)
        await queue.clean_events(event_id=name)
    return JSONResponse({"success": True})


@asynccontextmanager
async def keeping(app: routes.App, uploads: Uploads, visitors: Visitors) -> AsyncIterator[None]:
    """As long as this lasts, delete and forget what is too old or of visitors who left; in the end, all."""
    bounds, library = Bounds(app, uploads.seconds), heaps()

    async def keep() -> None:
        while True:
            try:
                bounds.drop(await asyncio.to_thread(visitors.clear_up))
                bounds.forget_old()
                await asyncio.to_thread(uploads.sweep)
                if library is not None:
                    await asyncio.to_thread(library.malloc_trim, 0)  # what is free, to the system
            except Exception as exc:
                log_fault(exc)  # and go on: it is what keeps the promise
            await asyncio.sleep(uploads.step)

    task = asyncio.create_task(keep())
    try:
        yield
    finally:
        task.cancel()
        uploads.close()
