"""Listening: an address with many unfinished requests has to say more before it is listened to.

To make a connection of an open file and to take it down costs the processor what an answer costs, and who
sends half a request and is hung up on may be back at once. So where an address has MAX_UNFINISHED_EACH of
them, what else comes from it stays the bare file that it is until a whole request lies there, or the start of
an upload. What was sent decides who is answered, not the address: visitors who share it are taken up.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from pawmatch.errors import BadOption
from pawmatch.ui.visitors import TokenBuckets, grouped

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

BACKLOG = 128  # connections that are made before anything else has its turn
PENDING = 1024  # that may be opened before any is looked at; the kernel has others try again after a second
MAX_UNFINISHED = 256  # that have not sent a whole request
MAX_UNFINISHED_EACH = 64  # of one address; what else comes from there is held
HEAD_SECONDS = 10.0  # for the head of a request, or while it is held
LOOK_SECONDS = 0.1  # how often it is looked at what those that are held have sent
MOST_AT_ONCE = 32  # that are held before anybody else has their turn
# An upload is seldom there as a whole; it is taken up for much of it, or for little where few others are.
MUCH_BYTES, BEGUN_BYTES, BEGUN_A_SECOND = 2**15, 2**12, 32
END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
LENGTH = re.compile(rb"\ncontent-length:[ \t]*0*(\d{1,9})", re.IGNORECASE)
IN_PIECES = re.compile(rb"\ntransfer-encoding:", re.IGNORECASE)
AT_ONCE = struct.pack("ii", 1, 0)  # for SO_LINGER: nothing of it stays


def max_connections() -> int:
    """Half of the files that the process may have open, 1,024 at most; photos and weights are files, too."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if resource else 2048
    return 1024 if allowed < 0 else max(64, min(allowed // 2, 1024))


class Member(Protocol):
    """One of a crowd, which `end` has to leave."""

    address: str

    def end(self) -> None:
        """Hang up."""


M = TypeVar("M", bound=Member)


class Crowd(Generic[M]):
    """Connections of one kind, `most` of them; the one that was added last is the last to go."""

    def __init__(self, most: int) -> None:
        self.most, self.count = most, 0
        self.by_address: dict[str, dict[M, None]] = {}

    def add(self, member: M) -> None:
        """Add a connection, or note that it did something."""
        self.discard(member)
        self.by_address.setdefault(member.address, {})[member] = None
        self.count += 1
        if self.count > self.most:
            largest = max(self.by_address.values(), key=len)
            next(iter(largest)).end()

    def discard(self, member: M) -> None:
        """Forget a connection, if it is here."""
        here = self.of(member.address)
        if member in here:
            del here[member]
            self.count -= 1
            if not here:
                del self.by_address[member.address]

    def of(self, address: str) -> dict[M, None]:
        """Those of an address."""
        return self.by_address.get(address, {})


@dataclass(eq=False)
class Held:
    """A connection that nothing was made of yet."""

    listener: Listener
    address: str
    line: socket.socket
    until: float = 0.0

    def is_ready(self) -> bool:
        """Whether to take it up, for what has been said so far; a beginning that is taken up counts."""
        try:
            said = self.line.recv(MUCH_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError:  # silent, or gone
            return False
        if is_whole(said) or len(said) >= MUCH_BYTES:
            return True
        return len(said) >= BEGUN_BYTES and not self.listener.begun.take(self.address)

    def end(self) -> None:
        """Take it up or hang up."""
        self.leave(self.is_ready())

    def leave(self, is_ready: bool) -> None:
        """Be held no longer."""
        self.listener.held.discard(self)
        if is_ready:
            self.listener.take_up(self.line)
        else:
            self.line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
            self.line.close()


def is_whole(said: bytes) -> bool:
    """Whether a request has its head and all of the body that it announces."""
    head, *body = END_OF_HEAD.split(said, 1)
    if not body or IN_PIECES.search(head):
        return bool(body) and said.endswith(b"\r\n0\r\n\r\n")
    length = LENGTH.search(head)
    return len(body[0]) >= (int(length[1]) if length else 0)


class Listener(socket.socket):
    """A socket that listens, with the crowds of what came of its connections.

    The event loop calls `accept` while there are new ones. What was held is taken up with `connection`, which
    whoever makes connections has to set.
    """

    connection: Callable[[], asyncio.Protocol]

    def __init__(self, *kind: int) -> None:
        super().__init__(*kind)
        most = max_connections()
        self.everyone: Crowd[Any] = Crowd(most)
        self.unfinished: Crowd[Any] = Crowd(min(MAX_UNFINISHED, most // 2))
        self.held: Crowd[Held] = Crowd(most // 4)
        self.begun = TokenBuckets(60 * BEGUN_A_SECOND, BEGUN_A_SECOND)
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()  # the loop alone would forget them

    def listen(self, backlog: int = PENDING) -> None:
        """Begin to listen; the event loop, which does so again, means its turns by `backlog`."""
        super().listen(PENDING)

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection that is taken up at once; raises BlockingIOError if there is none now."""
        for _ in range(MOST_AT_ONCE):
            line, place = super().accept()
            held = Held(self, grouped(place[0]), line)
            if len(self.unfinished.of(held.address)) < MAX_UNFINISHED_EACH or held.is_ready():
                return line, place
            loop = asyncio.get_running_loop()
            held.until = loop.time() + HEAD_SECONDS
            self.held.add(held)
            self._timer = self._timer or loop.call_later(LOOK_SECONDS, self._look)
        raise BlockingIOError

    def take_up(self, line: socket.socket) -> None:
        """Make a connection of what was held."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(loop.connect_accepted_socket(self.connection, line))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _look(self) -> None:
        """Take up those that have said enough, and hang up on those that had their time."""
        loop = asyncio.get_running_loop()
        for held in [held for those in self.held.by_address.values() for held in those]:
            if (is_ready := held.is_ready()) or held.until < loop.time():
                held.leave(is_ready)
        self._timer = loop.call_later(LOOK_SECONDS, self._look) if self.held.count else None

    def close(self) -> None:
        """Listen no longer, and hang up on those that are held."""
        if self._timer:
            self._timer.cancel()
        for held in [held for those in self.held.by_address.values() for held in those]:
            held.leave(False)
        super().close()


def listen(host: str, port: int) -> Listener:
    """A socket that listens on an address, IPv4 or IPv6; raises BadOption if none can."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = Listener(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # "::" is every interface
            listener.bind(address)
            listener.listen()
        except OSError:
            listener.close()
            raise
    except OSError as exc:
        raise BadOption(
            f"Nothing can listen on {host}, port {port} ({exc.strerror}); choose others with --host and "
            "--port or PAWMATCH_HOST and PAWMATCH_PORT."
        ) from exc
    return listener
