"""Listening: what floods from an address costs no connection, and whoever shares the address is answered."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pawmatch.ui import listening
from pawmatch.ui.listening import BEGUN_BYTES, MUCH_BYTES, Listener, is_whole, listen
from pawmatch.ui.server import server_of
from tests.ui.asking import echo
from tests.ui.test_connections import HEAD, is_answered, is_over

HELD = 8  # a quarter of `max_connections`
Open = Callable[..., socket.socket]


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """Of a server that repeats what it is sent, with limits that a test reaches; nothing ends by its age."""
    monkeypatch.setattr(listening, "MAX_UNFINISHED_EACH", 2)
    monkeypatch.setattr(listening, "max_connections", lambda: 4 * HELD)
    monkeypatch.setattr(listening, "HEAD_SECONDS", 600)
    monkeypatch.setattr(listening, "LOOK_SECONDS", 0.02)
    with listen("127.0.0.1", 0) as listener:
        server = server_of(echo, listener)
        server.config.lifespan = "off"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        wait_until(lambda: server.started)
        yield listener
        server.should_exit = True
        thread.join()
        assert listener.held.count == 0


@pytest.fixture
def begin(listener: Listener) -> Iterator[Open]:
    """Call to open a connection, from an address of this computer, and say something."""
    port = listener.getsockname()[1]
    with ExitStack() as stack:

        def open_one(said: bytes = HEAD, source: str = "127.0.0.1") -> socket.socket:
            line = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30, (source, 0)))
            line.sendall(said)
            return line

        yield open_one


@pytest.fixture
def flood(listener: Listener, begin: Open) -> list[socket.socket]:
    """Half requests, two of which became connections; all others were held, as many of them as may be."""
    lines = []
    for count in (1, 2):
        lines.append(begin())
        wait_until(lambda count=count: listener.unfinished.count == count)  # type: ignore[misc]
    lines += [begin() for _ in range(60)]
    for line in lines[2:-HELD]:
        assert is_over(line)
    assert (listener.everyone.count, listener.held.count) == (2, HELD)
    return lines


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for something that the server does; the limit of each test ends it."""
    while not is_so():
        time.sleep(0.005)


def test_a_flood_is_held_and_hung_up_on_without_a_connection_being_made(
    listener: Listener, begin: Open, flood: list[socket.socket]
) -> None:
    assert is_answered(begin(HEAD + b"\r\nabcde"))  # who shares the address
    for said in (HEAD, HEAD + b"\r\nab"):
        other = begin(said, "127.0.0.2")
        wait_until(lambda: "127.0.0.2" in listener.unfinished.by_address)
        other.sendall((HEAD + b"\r\nabcde")[len(said) :])
        assert is_answered(other)
    for line in flood[:2]:  # those that came first were not made to go
        line.sendall(b"\r\nabcde")
        assert is_answered(line)


def test_who_is_held_is_taken_up_once_the_request_is_there(
    listener: Listener, begin: Open, flood: list[socket.socket]
) -> None:
    flood[-1].sendall(b"\r\nabc")
    flood[-2].sendall(b"\r\nabcde")
    assert is_answered(flood[-2])
    flood[-1].sendall(b"de")
    assert is_answered(flood[-1])
    assert (listener.unfinished.count, listener.held.count) == (2, HELD - 2)
    upload = begin(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n" + bytes(BEGUN_BYTES))
    wait_until(lambda: listener.unfinished.count == 3)
    upload.sendall(bytes(9000 - BEGUN_BYTES))
    said = b""
    while not said.endswith(b"\n9000"):
        said += upload.recv(4096)


def test_few_beginnings_of_uploads_are_taken_up_and_those_that_are_well_on_the_way(
    monkeypatch: pytest.MonkeyPatch, listener: Listener, begin: Open, flood: list[socket.socket]
) -> None:
    monkeypatch.setattr(listener.begun, "take", lambda address: address == "127.0.0.1")  # seconds to wait
    begun = HEAD + b"X: " + bytes(BEGUN_BYTES)
    lines = [begin(begun) for _ in range(HELD + 1)]
    assert is_over(lines[0])
    assert (listener.unfinished.count, listener.held.count) == (2, HELD)
    much = HEAD.replace(b"5", b"99999") + b"\r\n" + bytes(99_999)
    first = begin(much[:MUCH_BYTES])
    wait_until(lambda: listener.unfinished.count == 3)
    first.sendall(much[MUCH_BYTES:])
    said = b""
    while not said.endswith(b"\n99999"):
        said += first.recv(4096)


def test_who_is_held_and_silent_is_hung_up_on(
    monkeypatch: pytest.MonkeyPatch, listener: Listener, begin: Open
) -> None:
    monkeypatch.setattr(listening, "MAX_UNFINISHED_EACH", 0)
    monkeypatch.setattr(listening, "HEAD_SECONDS", 0.1)
    for line in [begin() for _ in range(HELD)]:
        assert is_over(line)
    assert listener.held.count == 0


def test_a_burst_of_connections_keeps_nobody_waiting_to_be_let_in() -> None:
    longest = Path("/proc/sys/net/core/somaxconn")
    if not longest.exists() or int(longest.read_text()) < 300:
        pytest.skip("the system keeps fewer")
    with listen("127.0.0.1", 0) as listener, ExitStack() as stack:
        listener.listen(128)  # as the event loop does
        for _ in range(300):
            stack.enter_context(socket.create_connection(listener.getsockname(), 5))


@pytest.mark.parametrize(
    ("said", "whole"),
    [
        (b"", False),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", True),
        (b"GET / HTTP/1.1\nHost: x\n\n", True),  # h11 takes these, too
        (b"POST / HTTP/1.1\r\ncontent-length:  5\r\n\r\nabcd", False),
        (b"POST / HTTP/1.1\r\ncontent-length:  5\r\n\r\nabcde", True),
        (b"POST / HTTP/1.1\r\ncontent-length: " + b"0" * 5000 + b"5\r\n\r\nabcd", False),
        (b"POST / HTTP/1.1\r\ncontent-length: " + b"1" * 5000 + b"\r\n\r\nabcd", False),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n", False),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n", True),
    ],
)
def test_a_whole_request_is_recognized_before_it_is_read(said: bytes, whole: bool) -> None:
    assert is_whole(said) == whole
