"""Connections: half a request ends, and very many of them leave the service to others."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from types import SimpleNamespace

import httpx
import pytest

from pawmatch.ui import connections, listening
from pawmatch.ui.listening import Crowd, listen, max_connections
from pawmatch.ui.server import server_of
from tests.ui.asking import echo

HEAD = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
Open = Callable[[bytes], socket.socket]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test reaches; nothing ends by its age."""
    monkeypatch.setattr(listening, "MAX_UNFINISHED", 8)
    monkeypatch.setattr(listening, "max_connections", lambda: 16)
    monkeypatch.setattr(listening, "HEAD_SECONDS", 600)


@pytest.fixture
def port(small: None) -> Iterator[int]:
    """A server that repeats what it is sent."""
    with listen("127.0.0.1", 0) as listener:
        server = server_of(echo, listener)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        server.config.lifespan = "off"
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield int(listener.getsockname()[1])
        server.should_exit = True
        thread.join()


@pytest.fixture
def begin(port: int) -> Iterator[Open]:
    """Call to open a connection and say something."""
    with ExitStack() as stack:

        def open_one(said: bytes) -> socket.socket:
            line = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            line.sendall(said)
            return line

        yield open_one


def is_over(line: socket.socket) -> bool:
    """Whether the server hangs up without a word."""
    try:
        return line.recv(1) == b""
    except ConnectionResetError:
        return True


def is_answered(line: socket.socket) -> bool:
    """Whether the five letters come back."""
    said = b""
    while not said.endswith(b"abcde") and (more := line.recv(4096)):
        said += more
    return said.endswith(b"abcde")


def test_half_a_head_ends_and_half_a_body_does_not_count_as_one(
    monkeypatch: pytest.MonkeyPatch, begin: Open
) -> None:
    monkeypatch.setattr(listening, "HEAD_SECONDS", 0.1)
    whole, half, silent = begin(HEAD + b"\r\nab"), begin(HEAD), begin(b"")
    second = begin(HEAD + b"\r\nabcde" + HEAD)  # after a whole request
    assert is_answered(second)
    for line in (half, silent, second):
        assert is_over(line)
    whole.sendall(b"cde")
    assert is_answered(whole)


@pytest.mark.parametrize("said", [b"", HEAD, HEAD + b"\r\nab"], ids=["nothing", "half a head", "half a body"])
def test_of_many_half_requests_the_oldest_go_and_an_honest_one_is_answered(
    port: int, begin: Open, said: bytes
) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as visitor:
        assert visitor.post("/", content=b"before").text == "before"  # stays open all the time
        lines = [begin(said) for _ in range(60)]
        for line in lines[:-8]:
            assert is_over(line)
        assert visitor.post("/", content=b"after").text == "after"
    if said.endswith(b"ab"):
        lines[-1].sendall(b"cde")
        assert is_answered(lines[-1])


def test_whole_requests_are_limited_too(begin: Open) -> None:
    lines = []
    for _ in range(40):
        lines.append(begin(HEAD + b"\r\nabcde"))
        assert is_answered(lines[-1])
    assert all(map(is_over, lines[:-16]))


def test_who_does_not_take_an_answer_is_hung_up_on(monkeypatch: pytest.MonkeyPatch, begin: Open) -> None:
    monkeypatch.setattr(connections, "GRACE_SECONDS", 0.2)
    much, some = 2**25, b"POST /much HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    monkeypatch.setattr("tests.ui.asking.MUCH", much)
    slow, quick = begin(some), begin(some)
    taken = 0
    while taken < much:
        taken += len(quick.recv(2**20))
    time.sleep(1)
    held = 0
    with suppress(ConnectionResetError):
        while more := slow.recv(2**20):
            held += len(more)
    assert 0 < held < much


class Fake:
    """A connection that notes its end."""

    def __init__(self, crowd: Crowd[Fake], gone: list[Fake], address: str) -> None:
        self.crowd, self.gone, self.address = crowd, gone, address

    def end(self) -> None:
        self.gone.append(self)
        self.crowd.discard(self)


def test_the_address_that_has_most_gives_one_up() -> None:
    crowd: Crowd[Fake] = Crowd(4)
    gone: list[Fake] = []
    honest, *others = (Fake(crowd, gone, address) for address in "baaaaaa")
    for fake in (honest, *others):
        crowd.add(fake)
    assert gone == others[:3]
    crowd.discard(honest)
    assert (crowd.count, set(crowd.by_address)) == (3, {"a"})


@pytest.mark.parametrize(("allowed", "most"), [(1024, 512), (256, 128), (64, 64), (10**6, 1024), (-1, 1024)])
def test_open_files_are_left_for_photos(monkeypatch: pytest.MonkeyPatch, allowed: int, most: int) -> None:
    monkeypatch.setattr(
        listening, "resource", SimpleNamespace(getrlimit=lambda kind: (allowed, 0), RLIMIT_NOFILE=7)
    )
    assert max_connections() == most
