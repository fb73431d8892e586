"""What a checkout of this project does when strangers try it: one line for each thing that one of them did.

The tests of these things need modules that older checkouts lack. This program only talks to the service that
a checkout starts, so it shows what any of them does.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.leftovers import break_off, lying_about
from benchmarks.service import ROOT, Service, service
from benchmarks.soak import files, post, say

FORM = {"Content-Type": "multipart/form-data; boundary=b"}
JSON = {"Content-Type": "application/json"}
PART = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n--b--\r\n'
CALL = "/gradio_api/call"


class Stranger:
    """Somebody with an address of their own, such as 127.0.3.1."""

    def __init__(self, address: str, source: str) -> None:
        self.host, self.source = address.removeprefix("http://").rstrip("/"), source

    def get(self, path: str, **options: Any) -> tuple[Any, dict[str, str], bytes]:
        """Status, headers and body, or the error's name in place of a status."""
        return self.ask("GET", path, **options)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        seconds: float = 120,
    ) -> tuple[Any, dict[str, str], bytes]:
        """The same for any method."""
        line = http.client.HTTPConnection(self.host, timeout=seconds, source_address=(self.source, 0))
        try:
            line.request(method, path, body, headers or {})
            answer = line.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        except OSError as exc:
            return type(exc).__name__, {}, b""
        finally:
            line.close()

    def upload(
        self, data: bytes, name: bytes = b'files"; filename="a.jpg'
    ) -> tuple[Any, dict[str, str], bytes]:
        """Send a part of a form."""
        return self.ask("POST", "/gradio_api/upload", PART % (name, data), FORM)

    def call(self, name: str, body: Any, **headers: str) -> Any:
        """The status of a call."""
        return self.ask("POST", f"{CALL}/{name}", json.dumps(body).encode(), JSON | headers)[0]


def show(what: str, *found: object) -> None:
    """One line."""
    print(f"{what}:", *found, flush=True)


def try_all(running: Service, folder: Path, photo: bytes) -> None:
    """All of it; each by a stranger of its own, since their photos are counted."""
    address, process = running.address, psutil.Process(running.process.pid)
    someone = iter(Stranger(address, f"127.0.3.{number}") for number in range(1, 250))

    def more(before: float) -> str:
        return f"{process.memory_info().rss / 2**20 - before:+.0f} MB"

    for number in range(6):
        break_off(address, photo + bytes([number]), number)
    time.sleep(12)
    show("six broken uploads, files left", len(lying_about(folder)))
    before = len(lying_about(folder))
    status = next(someone).upload(photo, b'other"; filename="a.jpg')[0]
    time.sleep(1)
    show("a file under another name", status, "files left", len(lying_about(folder)) - before)

    owner = next(someone)
    file = {"path": json.loads(owner.upload(photo)[2])[0], "meta": {"_type": "gradio.FileData"}}
    many, one = {"images": [file], "task": "breed", "top_k": 5}, {"data": [file, "breed", 5]}
    greedy = next(someone)
    show("named photos, 6 a minute", [greedy.call("v2/predict_batch", many) for _ in range(12)])
    local = Stranger(address, "127.0.0.1")
    invented = [{"X-Forwarded-For": f"1.2.3.{number}"} for number in range(12)]
    show("photos of invented addresses", [local.call("predict", one, **header) for header in invented])
    greedy = next(someone)
    sixty = [greedy.ask("POST", "/gradio_api/upload", files(60), FORM)[0] for _ in range(4)]
    show("four uploads of 60 files", sixty)

    memory = process.memory_info().rss / 2**20
    show("a text of 50 MB in an upload", next(someone).upload(bytes(50 * 2**20), b"x")[0], more(memory))
    memory, statuses = process.memory_info().rss / 2**20, set()
    for number in range(20):
        asked = {"data": [], "fn_index": 0, "session_hash": f"{number}" + "s" * 900_000}
        body = json.dumps(asked).encode()
        statuses.add(next(someone).ask("POST", "/gradio_api/queue/join", body, JSON)[0])
    show("twenty sessions with names of 900 kB", statuses, more(memory))
    long_id = f"/gradio_api/upload_progress?upload_id={'x' * 60_000}"
    show("an upload named by 60 kB", next(someone).get(long_id, seconds=5)[0])

    started = time.monotonic()
    lots = {"data": [[file] * 6600, "breed", 5]}
    greedy = next(someone)
    asking = threading.Thread(target=lambda: show("6,600 references", greedy.call("predict_batch", lots)))
    asking.start()
    time.sleep(0.3)
    next(someone).get("/config")
    show("meanwhile another waits for", f"{time.monotonic() - started:.1f} s")
    asking.join()

    answer = next(someone).get("/config", headers={"Origin": "https://evil.example"})
    allowed = {name: value for name, value in answer[1].items() if "allow" in name.lower()}
    show("a page of others", answer[0], allowed)
    show("another Host", next(someone).get("/", headers={"Host": "evil.example"})[0])
    show("wrong names of v2", next(someone).call("v2/predict", {"picture": 1}))
    odd = ("/gradio_api/process_recording", "/gradio_api/component_server", "/gradio_api/run/predict")
    show("routes that nobody needs", [next(someone).ask("POST", path, b"{}", JSON)[0] for path in odd])

    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (256, 256))
    half = [post("queue/join", b"{}")[:40]]
    for _ in range(300):
        threading.Thread(target=say, args=(address, half), daemon=True).start()
    time.sleep(2)
    started = time.monotonic()
    status = next(someone).get("/config", seconds=15)[0]
    show(
        "300 half requests where 256 files may be open, a page", status, f"{time.monotonic() - started:.1f} s"
    )


def main(given: list[str] | None = None) -> int:
    """Try a checkout, and print what it did."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path, nargs="?", default=ROOT, help="default: this one")
    args = parser.parse_args(given)
    photo = next((ROOT / "examples").glob("*.jpg")).read_bytes()
    options: dict[str, Any] = {"rate_limit": 6, "request_log": "no", "device": "cpu", "engine": "torch"}
    with tempfile.TemporaryDirectory() as name:
        os.environ["GRADIO_TEMP_DIR"] = name
        with service(checkout=args.checkout, **options) as running:
            try_all(running, Path(name), photo)
            Stranger(running.address, "127.0.4.1").upload(photo)
            running.process.kill()
            running.process.wait()
        show("kill -9, files left", len(lying_about(Path(name))))
        with service(checkout=args.checkout, **options):
            show("after the next start", len(lying_about(Path(name))))
        show("SIGTERM, files left", len(lying_about(Path(name))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
