"""What the running service offers to strangers, and what it says to those who ask for more."""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from gradio.routes import App

from pawmatch.ui.bodies import MAX_JSON_BYTES
from pawmatch.ui.middleware import NOT_OFFERED, OFFERED, ROUTES
from tests.ui.conftest import in_loop
from tests.ui.raw import ROOT, ask_page, gives_nothing_away, upload

# --- limits


def test_an_upload_is_capped(http: httpx.Client) -> None:
    large = ("large.jpg", b"\xff\xd8" + bytes(21 * 2**20))
    assert http.post("/gradio_api/upload", files={"files": large}).status_code == 413


@pytest.mark.parametrize("path", ["call/predict", "queue/join", "cancel", "call/v2/predict"])
def test_a_question_is_capped(http: httpx.Client, path: str) -> None:
    text = json.dumps({"data": ["x" * MAX_JSON_BYTES, "breed", 5], "session_hash": "s", "fn_index": 0})
    response = http.post(f"/gradio_api/{path}", content=text.encode())
    assert response.status_code == 413
    assert response.text.endswith("send fewer or smaller files.")


# --- what is on offer


def test_descriptions_name_the_four_endpoints_alone(http: httpx.Client) -> None:
    for place in ("gradio_api/info", "gradio_api/openapi.json", "gradio_api/info?page=compare"):
        said = http.get(f"/{place}").text
        gives_nothing_away(said)
        for private in ("/look", "/restyle", "/retry", "/choose", "/compare_photos"):
            assert f'"{private}' not in said
    assert list(http.get("/gradio_api/info").json()["named_endpoints"]) == [
        "/predict",
        "/explain",
        "/predict_batch",
        "/models",
    ]
    gives_nothing_away(http.get("/config").text)
    gives_nothing_away(http.get("/").text)


@pytest.mark.parametrize(
    "path",
    [
        "monitoring",
        "monitoring/summary",
        "monitoring/x",
        "runs",
        "gradio_api/runs",
        "gradio_api/run-history/records",
        "gradio_api/deep_link?session_hash=x",
        "gradio_api/custom_component/x/client/component/y",
        "gradio_api/stream/x/y/1/playlist.m3u8",
        "gradio_api/dev/reload",
        "gradio_api/mcp/sse",
        "docs",
        "redoc",
        "login",
    ],
)
def test_what_is_not_needed_is_shut(http: httpx.Client, path: str) -> None:
    response = http.get(f"/{path}")
    assert response.status_code in (403, 404, 405)
    gives_nothing_away(response.text)


def gradio_addresses(photo: str) -> set[str]:
    """Whatever this version of Gradio has a route for, with something to try in each place of an address."""
    samples = {"{api_name}": "models", "{path_or_url:path}": photo}
    found: set[str] = set()
    routers: list[Any] = [in_loop(lambda: App.create_app(gr.Blocks(analytics_enabled=False)))]
    for router in routers:
        for route in router.routes:
            if inner := getattr(route, "original_router", None):
                routers.append(inner)
            place = str(getattr(route, "path", "/"))
            for name, sample in samples.items():
                place = place.replace(name, sample)
            found.add(re.sub(r"\{[^}]*\}", "x", place))
    assert {"/gradio_api/call/v2/models", "/gradio_api/component_server"} < found
    return found


def test_what_answers_is_in_the_list_of_the_security_page(http: httpx.Client) -> None:
    rows = re.findall(
        r"^\| (GET|POST|GET HEAD) \| `(/\S*)` \| (.+) \|$", Path(ROOT, "SECURITY.md").read_text(), re.M
    )
    assert tuple(rows) == OFFERED
    answering: set[str] = set()
    for place in [
        *sorted(gradio_addresses(upload(http, "a.png", b"x"))),
        "/compare",
        "/compare/",
        "/known",
        "/known/",
        "/healthz",
        "/readyz",
        "/nothing",
    ]:
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
            with http.stream(method, place, content=b"{}" if method == "POST" else None) as response:
                if response.status_code in (403, 405):
                    continue
            row = next(row for row in ROUTES if method in row[0] and row[1].fullmatch(place))
            answering.add(OFFERED[ROUTES.index(row)][1])
    assert {
        template for _, template, _ in OFFERED
    } - answering == set()  # nothing is listed that is not there


def test_functions_of_components_cannot_be_called(http: httpx.Client) -> None:
    for name in ("ls", "preprocess", "__init__", "async_move_resource_to_block_cache"):
        question = {"component_id": 1, "fn_name": name, "session_hash": "s", "data": "/etc"}
        response = http.post("/gradio_api/component_server", json=question)
        assert (response.status_code, response.text) == (403, NOT_OFFERED)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example"])
def test_pages_of_others_may_not_use_a_visitors_service(http: httpx.Client, origin: str) -> None:
    for method in ("GET", "OPTIONS"):
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        response = http.request(method, "/gradio_api/info", headers=headers)
        assert response.headers.get("access-control-allow-origin") not in (origin, "*")


# --- private events, reached by raw HTTP


HOSTILE: list[Any] = [
    None,
    "/etc/passwd",
    "<script>alert(1)</script>",
    {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
    {"__type__": "update", "value": "/etc/passwd"},
    [[[[]]]],
    -1e308,
]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: str(value)[:20])
def test_hostile_values_for_any_event_end_in_one_sentence_or_in_silence(
    http: httpx.Client, value: Any
) -> None:
    def ask(entry: dict[str, Any]) -> str:
        return ask_page(http, entry["id"], [value] * len(entry["inputs"]), f"{entry['id']}")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, http.get("/config").json()["dependencies"]))
    for said in answers:
        gives_nothing_away(said.replace(os.environ["GRADIO_TEMP_DIR"], ""))  # where uploads are asked for
        assert "<script>" not in said
        for line in said.splitlines():
            message = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
            error = (message.get("output") or {}).get("error")
            assert error is None or (error.endswith((".", "?")) and "\n" not in error), error


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"data": 1}', b'{"data": {}, "fn_index": 99999, "session_hash": "s"}', b"\xff"],
)
@pytest.mark.parametrize("path", ["call/predict", "queue/join", "cancel", "reset", "call/nothing"])
def test_a_malformed_question_gets_a_short_refusal(http: httpx.Client, path: str, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    response = http.post(f"/gradio_api/{path}", content=body, headers=headers)
    assert len(response.text) < 1000
    gives_nothing_away(response.text)


def test_the_events_of_others_are_not_told(http: httpx.Client) -> None:
    for path in ("call/predict/none", "queue/data?session_hash=nobody"):
        try:
            with http.stream("GET", f"/gradio_api/{path}", timeout=1) as events:
                gives_nothing_away("".join(events.iter_text()))
        except httpx.TransportError:
            pass  # hung up on, or kept waiting for events that never come


def test_many_open_connections_leave_the_service_up(http: httpx.Client) -> None:
    with httpx.Client(base_url=http.base_url, limits=httpx.Limits(max_connections=60), timeout=60) as client:
        streams = [client.stream("GET", f"/gradio_api/heartbeat/{number}") for number in range(50)]
        for stream in streams:
            assert stream.__enter__().status_code == 200
        assert http.get("/healthz").text == "ok"
        for stream in streams:
            stream.__exit__(None, None, None)
