"""Gradio's known advisories against the running service: reading, fetching, redirecting, serving uploads.

Gradio mends its own faults; these tests hold that our use of it, and what we shut ourselves, leave none
open, whatever version is installed.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import safehttpx
from PIL import Image

from pawmatch.images.fetch import NOT_PUBLIC
from pawmatch.ui.handlers import HOW_TO_SEND
from tests.ui.raw import ENDPOINTS, ROOT, SECRET, as_file, call, get_raw, gives_nothing_away, upload


class Canary(BaseHTTPRequestHandler):
    """Answers with a picture, and notes that it was asked."""

    asked: list[str]
    picture: bytes

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", str(len(self.picture)))
        self.end_headers()
        self.wfile.write(self.picture)

    do_HEAD = do_GET

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def canary() -> Iterator[tuple[str, list[str]]]:
    """A web server that must never hear from the service: its address, and the paths it was asked for."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "tan").save(file, "PNG")
    asked: list[str] = []
    handler = type("Handler", (Canary,), {"asked": asked, "picture": file.getvalue()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make Gradio take this computer for a public address, so that only our own refusal is left."""

    async def anything(hostname: str, *args: Any, **options: Any) -> str:
        return "127.0.0.1"

    monkeypatch.setattr(safehttpx, "async_validate_url", anything)


# --- reading files of the server


@pytest.mark.parametrize("route", ["gradio_api/file=", "gradio_api/file/", "file=", "file/"])
@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "//etc/passwd",
        "../../../../../../etc/passwd",
        "%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "%2fetc%2fpasswd",
        "file:///etc/passwd",
        "C:/Windows/win.ini",
        "\\\\server\\share",
        "/etc/passwd%00.png",
        f"{ROOT}/pyproject.toml",
        "requirements.txt",
    ],
)
def test_no_file_of_the_server_is_handed_out(http: httpx.Client, route: str, path: str) -> None:
    response = get_raw(http, f"/{route}{path}")
    assert response.status_code in (403, 404)
    assert SECRET not in response.text
    assert "[project]" not in response.text


@pytest.mark.parametrize("name", ENDPOINTS)
@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../../etc/passwd", "file:///etc/passwd", f"{ROOT}/pyproject.toml", "/proc/self/environ"],
)
def test_no_endpoint_opens_a_path_that_was_not_uploaded(http: httpx.Client, name: str, path: str) -> None:
    for image in (as_file(path), {**as_file(path), "is_stream": True}, {"path": path}, path):
        said = call(http, name, ENDPOINTS[name](image))
        assert "event: complete" not in said or '"error"' in said
        gives_nothing_away(said)


def test_static_routes_do_not_lead_out_of_their_folders(http: httpx.Client) -> None:
    for start in ("static/", "assets/", "svelte/", "gradio_api/custom_component/x/client/y/"):
        for way in ("../" * 9 + "etc/passwd", quote("../" * 9, safe="") + "etc/passwd", "%2fetc/passwd"):
            response = get_raw(http, f"/{start}{way}")
            assert response.status_code in (403, 404)
            assert SECRET not in response.text


# --- redirects, and fetching for others


@pytest.mark.parametrize("scheme", ["http", "HTTP", "https"])
@pytest.mark.parametrize("route", ["file=", "file/", "proxy="])
def test_the_service_fetches_and_redirects_to_nothing(
    http: httpx.Client, canary: tuple[str, list[str]], trusting: None, route: str, scheme: str
) -> None:
    address = canary[0].replace("http", scheme, 1)
    for method in ("GET", "HEAD"):
        for place in (f"{address}/x.png", quote(f"{address}/x.png", safe=""), "https://evil.example"):
            response = http.request(method, f"/gradio_api/{route}{place}")
            assert response.status_code in (403, 404)
            assert "location" not in response.headers
    assert canary[1] == []


@pytest.mark.parametrize("name", ENDPOINTS)
def test_no_endpoint_fetches_an_address_that_is_not_public(
    http: httpx.Client, canary: tuple[str, list[str]], trusting: None, name: str
) -> None:
    refusal = HOW_TO_SEND if name == "predict_batch" else NOT_PUBLIC
    for place in (f"{canary[0]}/dog.png", "http://169.254.169.254/latest/meta-data", "http://[::1]/x"):
        said = call(http, name, ENDPOINTS[name](as_file(place)))
        assert json.dumps(refusal) in said
        gives_nothing_away(said)
    said = call(http, name, ENDPOINTS[name]({**as_file("x.png"), "url": f"{canary[0]}/dog.png"}))
    gives_nothing_away(said)
    # Not in the other fields either: Gradio looks for files in each of them.
    image = as_file(upload(http, "dog.png", b"\x89PNG"))
    call(http, name, [*ENDPOINTS[name](image)[:1], as_file(f"{canary[0]}/dog.png"), 5])
    assert canary[1] == []


def test_a_redirect_after_the_login_of_others_is_not_ours(http: httpx.Client) -> None:
    for path in ("login/huggingface", "logout", "login/callback"):
        response = http.get(f"/{path}", params={"_target_url": "https://evil.example"})
        assert "evil.example" not in response.headers.get("location", "")


# --- what is uploaded comes back as nothing that runs


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("page.html", b"<script>alert(1)</script>"),
        ("page.htm", b"<script>alert(1)</script>"),
        ("dog.svg", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"),
        ("dog.xhtml", b"<html xmlns='http://www.w3.org/1999/xhtml'/>"),
        ("dog.xml", b"<?xml version='1.0'?><x/>"),
        ("dog.js", b"alert(1)"),
        ("dog.pdf", b"%PDF-1.7"),
        ("dog", b"<script>alert(1)</script>"),
        ("dog.png", b"<script>alert(1)</script>"),
        ("dog.html.png", b"<script>alert(1)</script>"),
    ],
)
@pytest.mark.parametrize("part", [None, "bytes=0-5"])
def test_an_upload_is_never_served_as_a_page(
    http: httpx.Client, name: str, data: bytes, part: str | None
) -> None:
    path = upload(http, name, data, "text/html")
    response = http.get(f"/gradio_api/file={quote(path)}", headers={"Range": part} if part else {})
    kind = response.headers["content-type"].split(";")[0]
    shown = response.headers["content-disposition"].split(";")[0] == "inline"
    assert kind in ("application/octet-stream", "image/png")
    assert not shown or kind == "image/png"
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "name", ["../../evil.png", "..\\evil.png", "/etc/evil.png", "a\r\nX: 1.png", "x" * 400]
)
def test_an_uploads_name_does_not_choose_its_place(http: httpx.Client, name: str) -> None:
    path = Path(upload(http, name, b"\x89PNG"))
    uploads = Path(upload(http, "dog.png", b"\x89PNG")).parents[1]
    assert path.parents[1] == uploads
    assert ".." not in path.parts
