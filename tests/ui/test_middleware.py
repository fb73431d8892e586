"""The door: which addresses are let in, who is refused, and what a visitor pays."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from pawmatch.settings import Settings
from pawmatch.ui import middleware
from pawmatch.ui.middleware import (
    BYTES_PER_PHOTO,
    MAX_ADDRESS,
    NOT_OFFERED,
    REFUSALS_AT_ONCE,
    WRONG_NAME,
    WRONG_PAGE,
    Door,
    endpoint_of,
    too_many,
)
from tests.ui.asking import FORM, JSON, PHOTO, ask, echo, form

OURS = Settings(origins=("https://friend.example",), hosts=("dogs.example",))


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/proxy=https://x.hf.space/file",
        "/gradio_api/file=http://127.0.0.1/",
        "/gradio_api/file=HTTPS://example.org",
        "/gradio_api/file/https://example.org",
        "/gradio_api/component_server",
        "/gradio_api/deep_link",
        "/gradio_api/process_recording",
        "/gradio_api/vibe-edit/",
        "/gradio_api/startup-events",
        "/gradio_api/run/predict",
        "/gradio_api/call/look",
        "/gradio_api/call/predict/a/b",
        "/runs",
        "/dogs/runs",
        "//",
        "/assets/../../x y",
    ],
)
def test_what_is_not_on_the_list_is_not_there(path: str) -> None:
    for parts in (None, [b"{}"]):
        assert ask(Door(echo, Settings(), "/dogs"), path, parts, JSON)[::2] == (403, NOT_OFFERED)


@pytest.mark.parametrize(
    "path", ["/", "/compare", "/gradio_api/file=/tmp/gradio/http/dog.jpg", "/healthz", "/assets/a-b_c.1.js"]
)
def test_what_the_page_needs_is_let_in(path: str) -> None:
    status, headers, _ = ask(Door(echo, Settings()), path)
    assert (status, headers["x-content-type-options"]) == (200, "nosniff")
    assert ask(Door(echo, Settings(), "https://x.example/dogs"), f"/dogs{path}")[0] == 200


def test_other_methods_are_refused() -> None:
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "POST", "QUERY"):
        assert ask(Door(echo, Settings()), "/config", method=method)[0] == 405
    assert ask(Door(echo, Settings()), "/gradio_api/upload")[0] == 405


def test_long_addresses_odd_ids_and_bodies_of_what_has_none_are_refused() -> None:
    door = Door(echo, Settings())
    assert ask(door, "/", query_string=b"x" * (MAX_ADDRESS + 1))[0] == 400
    assert ask(door, "/gradio_api/queue/data", query_string=b"session_hash=abc")[0] == 200
    for value in (b"x" * 65, b"a%2Fb", b""):
        assert ask(door, "/gradio_api/upload_progress", query_string=b"upload_id=" + value)[0] == 400
    assert ask(door, f"/gradio_api/heartbeat/{'x' * 65}")[0] == 403
    assert ask(door, "/", headers={"content-length": "5"})[0] == 400


def test_a_web_socket_gets_no_further() -> None:
    asyncio.run(Door(fails, Settings())({"type": "websocket"}, fails, fails))


async def fails(*args: Any) -> Any:
    """An app that must not be called."""
    raise AssertionError


# --- names, and pages of others


async def headers_of(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the headers that it sees, and as if it let everybody in."""
    found = dict(Request(scope).headers)
    await PlainTextResponse(json.dumps(found), headers={"X-App": "1"})(scope, receive, send)


def test_an_unknown_name_is_refused() -> None:
    door = Door(echo, OURS)
    assert ask(door, "/", headers={"host": "evil.example"})[::2] == (
        400,
        json.dumps({"detail": WRONG_NAME}).replace(": ", ":"),
    )
    assert ask(door, "/", headers={"host": "dogs.example"})[0] == 200


def test_a_page_of_others_is_refused_and_one_that_is_named_gets_no_cookies() -> None:
    door = Door(headers_of, OURS)
    assert ask(door, "/", headers={"origin": "https://evil.example"})[::2] == (403, WRONG_PAGE)
    for method in ("GET", "OPTIONS"):
        status, headers, _ = ask(door, "/config", headers={"origin": "https://friend.example"}, method=method)
        assert status == 200
        assert headers["access-control-allow-origin"] == "https://friend.example"
        assert headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in headers
    # Gradio has an opinion of its own, and is not asked.
    seen = json.loads(ask(door, "/config", headers={"origin": "http://127.0.0.1:7860"})[2])
    assert "origin" not in seen


def test_gradio_hears_of_a_forwarded_name_only_if_it_is_known() -> None:
    door = Door(headers_of, OURS)
    for name, is_handed_on in (
        ("dogs.example", True),
        ("dogs.example/--replicas/1", True),
        ("evil.example/dogs.example", False),
        ("evil.example", False),
        ("dogs.example, evil.example", False),
    ):
        seen = json.loads(ask(door, "/", headers={"x-forwarded-host": name})[2])
        assert ("x-forwarded-host" in seen) == is_handed_on


# --- the rate limit

PATHS = ["/gradio_api/call/predict", "/gradio_api/call/v2/explain", "/gradio_api/queue/join"]
UPLOAD = "/gradio_api/upload"
FILE = 'name="files"; filename="dog.jpg"'


@pytest.fixture
def door() -> Door:
    return Door(echo, Settings(rate_limit=9))  # three at once


def question(door: Door, path: str, body: Any, **scope: Any) -> tuple[int, dict[str, str], str]:
    """The answer to a question that comes in two parts."""
    sent = json.dumps(body).encode()
    return ask(door, path, [sent[:5], sent[5:]], JSON, **scope)


@pytest.mark.parametrize("path", PATHS)
def test_over_the_limit_there_is_a_sentence_with_the_time_to_wait(door: Door, path: str) -> None:
    for _ in range(3):
        status, _, body = question(door, path, {"data": [PHOTO]})
        assert (status, json.loads(body)) == (200, {"data": [PHOTO]})  # what follows gets the whole body
    status, headers, body = question(door, path, {"data": [PHOTO]})
    assert (status, headers["retry-after"]) == (429, "7")
    assert json.loads(body) == {
        "detail": "That was a lot of photos in a short time; please try again in 7 seconds."
    }
    assert question(door, path, {"data": [PHOTO]}, client=("192.0.2.2", 1))[0] == 200


def test_the_page_and_the_endpoints_are_counted_together_and_uploads_apart(door: Door) -> None:
    assert [question(door, path, {"data": [PHOTO]})[0] for path in PATHS * 2] == [200] * 3 + [429] * 3
    assert [ask(door, UPLOAD, [form((FILE, b"x"))], FORM)[0] for _ in range(4)] == [200] * 3 + [429]


def test_what_costs_nothing_is_never_refused(door: Door) -> None:
    for _ in range(5):
        question(door, "/gradio_api/queue/join", {"data": [PHOTO]})
    assert ask(door, "/gradio_api/call/predict/abc")[0] == 200
    assert ask(door, "/")[0] == 200
    assert question(door, "/gradio_api/cancel", {})[0] == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/gradio_api/queue/join", {"data": [[PHOTO] * 12, "breed", ""]}),
        ("/gradio_api/call/v2/predict_batch", {"images": [PHOTO] * 12, "task": "breed"}),
        ("/gradio_api/call/predict_batch", {"data": [{"x": [PHOTO] * 12}]}),
    ],
)
def test_each_photo_counts_by_whichever_way_it_comes(door: Door, path: str, body: Any) -> None:
    assert question(door, path, body)[0] == 200
    headers = question(door, "/gradio_api/queue/join", {"data": [PHOTO]})[1]
    assert 60 < int(headers["retry-after"]) <= 67  # nine in debt, and one to come


def test_a_question_without_a_photo_costs_a_tenth(door: Door) -> None:
    said = [question(door, "/gradio_api/call/models", {"data": []})[0] for _ in range(31)]
    assert said == [200] * 30 + [429]


@pytest.mark.parametrize(
    "files",
    [[(FILE, b"x")] * 12, [(FILE, bytes(12 * BYTES_PER_PHOTO))]],
    ids=["many", "large"],
)
@pytest.mark.parametrize("announced", [{}, {"content-length": "", "transfer-encoding": "chunked"}])
def test_an_upload_costs_what_is_in_it(
    door: Door, files: list[tuple[str, bytes]], announced: dict[str, str]
) -> None:
    whole = form(*files)
    assert ask(door, UPLOAD, [whole[:1000], whole[1000:]], FORM | announced)[0] == 200
    headers = ask(door, UPLOAD, [form((FILE, b"x"))], FORM)[1]
    assert 60 < int(headers["retry-after"]) <= 68


def test_an_assistants_photos_are_counted_one_by_one() -> None:
    door = Door(headers_of, Settings(rate_limit=9, mcp=True, origins=OURS.origins))
    call = {"params": {"name": "predict_batch", "arguments": {"images": ["eA=="] * 12}}}
    headers = JSON | {"origin": "https://friend.example"}
    status, _, seen = ask(door, "/mcp", [json.dumps(call).encode()], headers)
    assert (status, "origin" in json.loads(seen)) == (200, False)
    assert 60 < int(question(door, "/mcp", {"params": {"name": "models"}})[1]["retry-after"]) <= 67
    for refused in ([call], {"params": {"arguments": {"images": ["eA=="] * 1000}}}):
        assert question(Door(fails, Settings(mcp=True)), "/mcp", refused)[0] == 400


def test_who_is_refused_again_and_again_waits_for_the_answer(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(middleware, "sleep", sleep)
    bad = {"session_hash": "x" * 1000}
    answers = [question(door, PATHS[0], bad) for _ in range(REFUSALS_AT_ONCE + 20)]
    assert {status for status, _, _ in answers} == {400}
    assert waits == pytest.approx([min(number / 2, 5) for number in range(1, 21)], abs=0.2)
    assert "connection" in ask(door, "/other", [b"ab", b"cd"])[1]  # the rest of what it sends is not read
    del waits[20:]
    assert question(door, PATHS[0], {"data": [PHOTO]})[0] == 200  # whoever is right does not wait
    question(door, PATHS[0], bad, client=("192.0.2.2", 1))
    assert len(waits) == 20


def test_who_is_refused_does_not_pay(door: Door) -> None:
    for _ in range(5):
        assert question(door, PATHS[0], {"session_hash": "x" * 1000, "data": [PHOTO]})[0] == 400
    assert question(door, PATHS[0], {"data": [PHOTO]})[0] == 200


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/gradio_api/call/predict", "/predict"),
        ("/gradio_api/call/v2/predict_batch", "/predict_batch"),
        ("/gradio_api/queue/join", "page"),
        ("/gradio_api/call/somethingelse", None),
        ("/gradio_api/upload", "upload"),
        ("/gradio_api/info", None),
        ("/gradio_api/call/predict/0123", None),
    ],
)
def test_what_an_address_asks_for(path: str, endpoint: str | None) -> None:
    assert endpoint_of(path) == endpoint


def test_one_second_is_no_plural() -> None:
    assert too_many(1).endswith("in 1 second.")
