"""Connections: how many there may be, and how long one may take to say what it wants.

A request that is sent in part costs its sender nothing, and us an open file, of which there are often 1,024.
So a connection has HEAD_SECONDS for the head of a request (a body's time is measured in `bodies`), and must
take an answer as fast as it must send a body. Where there are too many, one goes: of the address that has
most of them, the one that was silent longest. Nobody is turned away for that: who has just come goes last.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from pawmatch.ui import listening
from pawmatch.ui.bodies import GRACE_SECONDS, MIN_BYTES_PER_SECOND
from pawmatch.ui.listening import Listener
from pawmatch.ui.visitors import grouped

MAX_HEAD_BYTES = 2**15


def limited(listener: Listener) -> Any:
    """What makes the connections of one server; uvicorn's types ask for a class, which it only calls."""

    def made(**given: Any) -> Connection:
        listener.connection = partial(Connection, listener, **given)
        return listener.connection()

    return made


class Connection(H11Protocol):
    """A connection of uvicorn's server, in the crowd of all and, with half a request, in that of those."""

    def __init__(self, listener: Listener, **given: Any) -> None:
        super().__init__(**given)
        self.everyone, self.unfinished = listener.everyone, listener.unfinished
        self.address = ""
        self._due: dict[str, asyncio.TimerHandle] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # whatever is not taken at once is waited for
        self.address = grouped(self.client[0]) if self.client else ""
        self._note()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.end(is_open=False)
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Look at what has arrived."""
        super().handle_events()
        if not self.transport.is_closing():
            self._note()

    def pause_writing(self) -> None:
        """Begin to look how fast an answer is taken."""
        super().pause_writing()
        self._await_reader(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """All of it was taken."""
        self._cancel("reader")
        super().resume_writing()

    def _await_reader(self, unread: int) -> None:
        self._due["reader"] = self.loop.call_later(GRACE_SECONDS, self._judge_reader, unread)

    def _judge_reader(self, before: int) -> None:
        unread = self.transport.get_write_buffer_size()
        if before - unread < GRACE_SECONDS * MIN_BYTES_PER_SECOND:
            self.end()
        else:
            self._await_reader(unread)

    def _note(self) -> None:
        """Say where the request is: its head or its body due, all of it there, or none begun."""
        self.everyone.add(self)
        state = self.conn.their_state
        is_idle = state is h11.IDLE and self.cycle is not None and not self.conn.trailing_data[0]
        if state is h11.IDLE and not is_idle:
            if "head" not in self._due:
                self._due["head"] = self.loop.call_later(listening.HEAD_SECONDS, self.end)
        else:
            self._cancel("head")
        if is_idle or state not in (h11.IDLE, h11.SEND_BODY):
            self.unfinished.discard(self)
        # From the start of a request it keeps its place: a byte now and then makes nobody the youngest.
        elif self not in self.unfinished.of(self.address):
            self.unfinished.add(self)

    def _cancel(self, name: str) -> None:
        if timer := self._due.pop(name, None):
            timer.cancel()

    def end(self, is_open: bool = True) -> None:
        """Hang up, and be forgotten."""
        self._cancel("head")
        self._cancel("reader")
        self.everyone.discard(self)
        self.unfinished.discard(self)
        if is_open:
            self.transport.abort()
