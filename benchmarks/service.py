"""The app in a process of its own, and visitors who talk to it over plain HTTP, as many as one likes.

Visitors use the standard library's HTTP client in threads: it takes less of the cores, which they share with
the service, than others do, and waits for events without polling.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 120.0  # seconds that a visitor waits for an answer, or we for the start
SETTLING_S = 15.0


@dataclass(frozen=True)
class Reply:
    """What came of a question: `value` for an answer, else `message`; `status` is HTTP's."""

    status: int
    value: Any = None
    message: str | None = None

    @property
    def is_refusal(self) -> bool:
        """Whether the service had no place, or the visitor asked too often."""
        return self.status in (429, 503)


class Visitor:
    """One visitor with one connection and, as every client of Gradio's, one session.

    `source` is an address of this computer to come from, such as 127.1.0.1; on Linux each can have one.
    """

    def __init__(self, address: str, source: str = "") -> None:
        self._host = address.removeprefix("http://").rstrip("/")
        self._session = secrets.token_hex(8)
        self._source = (source, 0) if source else None
        self._connection = http.client.HTTPConnection(
            self._host, timeout=PATIENCE, source_address=self._source
        )

    def upload(self, data: bytes, name: str = "photo.jpg") -> dict[str, Any]:
        """Send a file; the file object that stands for it. Raises RuntimeError if it is refused."""
        mark = secrets.token_hex(16)
        head = (
            f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = head.encode() + data + f"\r\n--{mark}--\r\n".encode()
        status, said = self._post("upload", body, f"multipart/form-data; boundary={mark}")
        if status != 200:
            raise RuntimeError(f"upload: {status} {said[:200]!r}")
        return {"path": json.loads(said)[0], "meta": {"_type": "gradio.FileData"}}

    def ask(self, endpoint: str, *data: Any) -> Reply:
        """Call an endpoint and wait for its answer."""
        status, said = self._call(endpoint, data)
        if status != 200:
            return Reply(status, message=json.loads(said).get("detail"))
        _, events = self._request("GET", f"/gradio_api/call/{endpoint}/{json.loads(said)['event_id']}")
        for block in events.decode().split("\n\n"):
            kind, _, content = block.partition("\ndata: ")
            if kind == "event: complete":
                return Reply(200, json.loads(content)[0])
            if kind == "event: error":
                found = json.loads(content)
                return Reply(200, message=found.get("error") if isinstance(found, dict) else str(found))
        return Reply(200)

    def leave(self, endpoint: str, *data: Any) -> int:
        """Call an endpoint, begin to listen, and hang up before there is an answer; HTTP's status."""
        status, said = self._call(endpoint, data)
        if status == 200:
            place = f"/gradio_api/call/{endpoint}/{json.loads(said)['event_id']}"
            host, _, port = self._host.partition(":")
            with socket.create_connection((host, int(port)), PATIENCE, self._source) as line:
                line.sendall(f"GET {place} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
        # Whoever comes back is somebody else to the service.
        self._session = secrets.token_hex(8)
        return status

    def start(self, name: str, data: list[Any], session: str) -> None:
        """Start an event of a page, by the name of its function; raises RuntimeError if it is refused."""
        number = next(
            event["id"]
            for event in json.loads(self.get("/config")[1])["dependencies"]
            if event["api_name"] == name and len(event["inputs"]) == len(data)
        )
        asked = json.dumps({"data": data, "fn_index": number, "session_hash": session}).encode()
        status, said = self._post("queue/join", asked, "application/json")
        if status not in (200, 503):
            raise RuntimeError(f"{name}: {status} {said[:200]!r}")

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of a page."""
        status, said = self._request("GET", path)
        return status, said.decode()

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _call(self, endpoint: str, data: tuple[Any, ...]) -> tuple[int, bytes]:
        body = json.dumps({"data": list(data), "session_hash": self._session}).encode()
        return self._post(f"call/{endpoint}", body, "application/json")

    def _post(self, place: str, body: bytes, kind: str) -> tuple[int, bytes]:
        return self._request("POST", f"/gradio_api/{place}", body, {"Content-Type": kind})

    def _request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        try:
            return self._request_once(method, path, body, headers or {})
        except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):
            # Connections that were idle for five seconds are closed by the service.
            return self._request_once(method, path, body, headers or {})

    def _request_once(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        try:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            return response.status, response.read()
        except OSError:
            self._connection.close()  # the next request opens a new one
            raise


@dataclass(frozen=True)
class Service:
    """A running app: where it answers, and its process."""

    address: str
    process: subprocess.Popen[bytes]

    def resident_mb(self, settling_s: float = SETTLING_S) -> float:
        """Memory that the process holds in RAM, in megabytes, once it has had so long nothing to do.

        What the last requests took is then given back; what is left is what stays.
        """
        import psutil

        time.sleep(settling_s)
        return float(psutil.Process(self.process.pid).memory_info().rss) / 2**20


@contextmanager
def service(
    *, is_ready: bool = True, log: Path | None = None, checkout: Path = ROOT, **settings: object
) -> Iterator[Service]:
    """`python app.py` on a free port, with these settings; ready for all tasks unless told otherwise."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {f"PAWMATCH_{name.upper()}": str(value) for name, value in settings.items()}
    with (log or Path(os.devnull)).open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "app.py"],
            cwd=checkout,
            env={**os.environ, "PAWMATCH_PORT": str(port), **given},
            stdout=said,
            stderr=said,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            if is_ready:
                wait_for(address, "/readyz", process)
            yield Service(address, process)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(address: str, path: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until a page answers 200; raises RuntimeError if the process ends or it takes too long."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        visitor = Visitor(address)
        try:
            if visitor.get(path)[0] == 200:
                return
        except OSError:
            pass
        finally:
            visitor.close()
        time.sleep(0.02)
    raise RuntimeError(f"{address}{path} did not answer 200 within {PATIENCE:.0f} s.")
