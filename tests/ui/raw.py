"""Raw HTTP to the running service: uploads, calls of endpoints, and events of the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

ENDPOINTS: dict[str, Callable[[Any], list[Any]]] = {
    "predict": lambda image: [image, "breed", 5],
    "explain": lambda image: [image, "breed", None],
    "predict_batch": lambda image: [[image], "breed", 5],
}
SECRET = "root:"
ROOT = str(Path(__file__).parents[2])


def get_raw(http: httpx.Client, target: str) -> httpx.Response:
    """The answer to a path sent exactly as written; the client alone would tidy up dots."""
    return http.get("/", extensions={"target": target.encode()})


def as_file(place: str) -> dict[str, Any]:
    return {"path": place, "meta": {"_type": "gradio.FileData"}}


def upload(http: httpx.Client, name: str, data: bytes, kind: str = "image/png") -> str:
    """Upload a file and give its path on the server."""
    response = http.post("/gradio_api/upload", files={"files": (name, data, kind)})
    return str(response.raise_for_status().json()[0])


def call(http: httpx.Client, name: str, data: list[Any]) -> str:
    """Everything that an endpoint says to a call."""
    started = http.post(f"/gradio_api/call/{name}", json={"data": data})
    if started.status_code != 200:
        return started.text
    return http.get(f"/gradio_api/call/{name}/{started.json()['event_id']}").text


def ask_page(http: httpx.Client, number: int, data: Any, session: str = "forged") -> str:
    """Everything that an event of the page says to a call."""
    question = {"data": data, "fn_index": number, "session_hash": session}
    started = http.post("/gradio_api/queue/join", json=question)
    if started.status_code != 200:
        return started.text
    return http.get("/gradio_api/queue/data", params={"session_hash": session}).text


def gives_nothing_away(said: str) -> None:
    """Hold that an answer has neither code nor places of the server in it."""
    for telling in ("Traceback", 'File "', SECRET, ROOT, "site-packages", "pawmatch/", "/tmp/", "Error("):
        assert telling not in said, said
