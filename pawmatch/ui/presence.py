"""Presence: who has a page open, and which files are theirs, so that these go when they leave."""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pawmatch.ui.bodies import ID, Refused
from pawmatch.ui.faults import NO_ROOM
from pawmatch.ui.gradio_patches import leaving_no_parts
from pawmatch.ui.middleware import UPLOAD
from pawmatch.ui.uploads import Uploads

HEARTBEAT = re.compile(rf"/gradio_api/heartbeat/(?P<session>{ID.pattern})$")
AWAY_SECONDS = 60  # a connection that breaks for less is the same visitor's, who is still there
MAX_VISITORS = 10_000  # who are remembered; files of one that is forgotten go by their age
MAX_FILES = 200  # of one visitor, likewise


@dataclass
class Visit:
    """One session: how many connections say that its page is open, since when none does, and its files."""

    pages: int = 0
    left: float | None = None
    last: float = 0.0
    files: OrderedDict[str, float] = field(default_factory=OrderedDict)  # when each was last used


class Visitors:
    """The sessions of a service, each with the files that it sent or got."""

    def __init__(self, uploads: Uploads, clock: Callable[[], float] = time.time) -> None:
        self._uploads, self._clock = uploads, clock
        self._away = min(AWAY_SECONDS, uploads.seconds / 8)
        self._visits: OrderedDict[str, Visit] = OrderedDict()
        self._lock = threading.Lock()

    def _visit(self, session: str) -> Visit:
        visit = self._visits.setdefault(session, Visit())
        visit.last = self._clock()
        self._visits.move_to_end(session)
        if len(self._visits) > MAX_VISITORS:
            self._visits.popitem(last=False)
        return visit

    def arrived(self, session: str) -> None:
        """A page of the session is open."""
        with self._lock:
            visit = self._visit(session)
            visit.pages += 1
            visit.left = None

    def departed(self, session: str) -> None:
        """A page of the session is no longer open."""
        with self._lock:
            visit = self._visit(session)
            visit.pages = max(0, visit.pages - 1)
            if not visit.pages:
                visit.left = self._clock()

    def owns(self, session: str, file: str) -> None:
        """A file is one that the session sent, or that was made for it."""
        with self._lock:
            files = self._visit(session).files
            files[file] = self._clock()
            files.move_to_end(file)
            if len(files) > MAX_FILES:
                files.popitem(last=False)

    def take(self, size: int, visitor: str) -> None:
        """So many bytes are about to be written for a visitor; raises OSError if there is no room."""
        self._uploads.take(size, visitor)

    def clear_up(self) -> list[str]:
        """Delete the files of sessions that have left, also those made since; gives these sessions.

        A file that another session uses, too, stays with that one.
        """
        now = self._clock()
        with self._lock:
            for session in [name for name, visit in self._visits.items() if self._is_over(visit, now)]:
                del self._visits[session]
            gone = {
                name: visit
                for name, visit in self._visits.items()
                if visit.left is not None and now - visit.left >= self._away
            }
            files: dict[str, float] = {}
            for visit in gone.values():
                for file, moment in visit.files.items():
                    files[file] = max(moment, files.get(file, moment))
                visit.files.clear()
            if files:
                staying = [visit.files for name, visit in self._visits.items() if name not in gone]
                used = {file for file in files if any(file in theirs for theirs in staying)}
                files = {file: moment for file, moment in files.items() if file not in used}
        self._uploads.delete(files)
        return list(gone)

    def _is_over(self, visit: Visit, now: float) -> bool:
        """Whether a session can be forgotten: its files have gone by their age, and none are being made."""
        return not visit.pages and now - visit.last > self._uploads.seconds


class Presence:
    """ASGI around Gradio's app: notes whose page is open, by the connection that each page keeps for that."""

    def __init__(self, app: ASGIApp, visitors: Visitors) -> None:
        self.app, self.visitors = app, visitors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through."""
        found = HEARTBEAT.search(scope["path"]) if scope["type"] == "http" else None
        if found is None:
            await self.app(scope, receive, send)
            return
        self.visitors.arrived(found["session"])
        try:
            await self.app(scope, receive, send)
        finally:
            self.visitors.departed(found["session"])


class UploadRoom:
    """ASGI around Gradio's app: uploads without room end in Refused, and one that fails leaves nothing."""

    def __init__(self, app: ASGIApp, uploads: Uploads) -> None:
        self.app, self.uploads = app, uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or raise Refused."""
        if scope["type"] != "http" or not scope["path"].endswith(UPLOAD):
            await self.app(scope, receive, send)
            return
        taken, status, who = 0, 0, str(scope.get("visitor", ""))
        refused: Refused | None = None

        async def counted() -> Message:
            nonlocal taken, refused
            message = await receive()
            size = len(message.get("body", b""))
            try:
                self.uploads.take(size, who)
            except OSError:
                refused = Refused(507, NO_ROOM, "NoRoom")
                return {"type": "http.disconnect"}
            taken += size
            return message

        async def noted(message: Message) -> None:
            nonlocal status
            if refused is None:  # an app that is cut off has things to say, too
                status = message.get("status", status)
                await send(message)

        try:
            # Not held: who announces much and sends nothing takes no room from others.
            self.uploads.take(announced := int(Headers(scope=scope).get("content-length", 0)), who)
            self.uploads.give_back(announced, who)
        except OSError as exc:
            raise Refused(507, NO_ROOM, "NoRoom") from exc
        try:
            with leaving_no_parts():
                await self.app(scope, counted, noted)
        finally:
            if status != 200:
                self.uploads.give_back(taken, who)
            if refused:
                raise refused
