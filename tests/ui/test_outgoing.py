"""With bundled weights the service talks to nobody but its visitors: start, page, answer, all of it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
from PIL import Image

from tests.ui.conftest import free_port
from tests.ui.raw import as_file, call, upload

ROOT = Path(__file__).parents[2]
# Python tells a hook about every name looked up and every connection made, whichever library asks.
SERVICE = """
import sys

def note(event, arguments):
    if not event.startswith("socket."):
        return
    host = arguments[0] if arguments else None
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        host = arguments[1][0] if isinstance(arguments[1], tuple) else None
    elif event not in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        return
    if host not in (None, "", "127.0.0.1", "localhost", "0.0.0.0", "::1"):
        print(host, file=said, flush=True)

said = open(sys.argv[1], "a")
sys.addaudithook(note)
sys.audit("socket.getaddrinfo", "the.hook.works", 80, 0, 0, 0)
import app
sys.exit(app.main())
"""


def test_no_connection_leaves_the_process(tiny_weights: Path, tmp_path: Path) -> None:
    port, said = free_port(), tmp_path / "said"
    environment = {
        **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
        "PAWMATCH_WEIGHTS": str(tiny_weights),
        "PAWMATCH_PORT": str(port),
        "GRADIO_TEMP_DIR": str(tmp_path / "uploads"),
        "HF_HOME": str(tmp_path / "hf"),
    }
    service = subprocess.Popen(
        [sys.executable, "-c", SERVICE, str(said)], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as http:
            deadline = time.monotonic() + 120
            while not ready(http):
                assert service.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert http.get("/").status_code == 200
            file = io.BytesIO()
            Image.new("RGB", (64, 64), "tan").save(file, "PNG")
            photo = as_file(upload(http, "dog.png", file.getvalue()))
            assert "event: complete" in call(http, "explain", [photo, "breed", None])
    finally:
        service.kill()
        service.wait()
    assert said.read_text().split() == ["the.hook.works"]


def ready(http: httpx.Client) -> bool:
    """Whether the service is there with its models in memory."""
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False
