"""A web server on this computer that answers as told, also in ways that no proper one does."""

from __future__ import annotations

import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, cast

# What is sent to whoever asks for a path: bytes as they are, or a function that writes them.
Answer = bytes | Callable[[IO[bytes]], None]


class Server(socketserver.ThreadingTCPServer):
    """`asked` has the paths that were asked for, and `heads` what came with them."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, answers: dict[str, Answer], context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.asked, self.heads = answers, list[str](), list[bytes]()
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)

    def url(self, path: str = "") -> str:
        """The address of a path."""
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Handler(socketserver.StreamRequestHandler):
    """One request a connection."""

    server: Server

    def handle(self) -> None:
        """Read the head of a request and answer it."""
        head = b"".join(iter(self.rfile.readline, b"\r\n"))
        path = head.split()[1].decode()
        self.server.asked.append(path)
        self.server.heads.append(head)
        answer = self.server.answers.get(path, b"HTTP/1.1 404 Not Found\r\n\r\n")
        with suppress(OSError):  # where nobody listens any more
            self.wfile.write(answer) if isinstance(answer, bytes) else answer(cast(IO[bytes], self.wfile))


def ok(body: bytes, *headers: str) -> bytes:
    """A plain answer with the length of its body."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def moved(place: str, status: int = 302) -> bytes:
    """An answer that refers to another address."""
    return f"HTTP/1.1 {status} Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode()


@contextmanager
def serving(answers: dict[str, Answer], context: ssl.SSLContext | None = None) -> Iterator[Server]:
    """A server that gives these answers, encrypted by the context if there is one, while the block lasts."""
    with Server(answers, context) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
