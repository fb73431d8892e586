"""The rate limit: what counts, who is who, and what a visitor who is over it gets to read."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from pawmatch.ui.middleware import (
    WITHOUT_PHOTO,
    RateLimit,
    cost,
    direct_visitor,
    endpoint_of,
    grouped,
    too_many,
    visitor_behind_proxy,
)

PHOTO = {"path": "/tmp/gradio/x.jpg", "meta": {"_type": "gradio.FileData"}}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(await Request(scope, receive).body())(scope, receive, send)


def ask(
    limit: RateLimit, path: str, data: Any = (PHOTO,), *, client: str = "192.0.2.1", method: str = "POST"
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of the answer to a question that comes in two parts."""
    body = json.dumps({"data": list(data)}).encode()
    waiting: list[Message] = [
        {"type": "http.request", "body": body[:5], "more_body": True},
        {"type": "http.request", "body": body[5:], "more_body": False},
    ]
    said: list[Message] = []

    async def receive() -> Message:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        said.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": [], "client": (client, 1)}
    asyncio.run(limit(scope, receive, send))
    return said[0]["status"], dict(said[0]["headers"]), said[1]["body"]


@pytest.fixture
def limit() -> RateLimit:
    return RateLimit(echo, 9, direct_visitor)  # three at once


PATHS = ["/gradio_api/call/predict", "/gradio_api/call/v2/explain", "/gradio_api/queue/join"]


@pytest.mark.parametrize("path", [*PATHS, "/gradio_api/upload"])
def test_over_the_limit_there_is_a_sentence_with_the_time_to_wait(limit: RateLimit, path: str) -> None:
    for _ in range(3):
        status, _, body = ask(limit, path)
        assert (status, json.loads(body)) == (200, {"data": [PHOTO]})  # what follows gets the whole body
    status, headers, body = ask(limit, path)
    assert status == 429
    assert headers[b"retry-after"] == b"7"
    assert json.loads(body) == {
        "detail": "That was a lot of photos in a short time; please try again in 7 seconds."
    }
    assert ask(limit, path, client="192.0.2.2")[0] == 200  # others are not affected


def test_the_page_and_the_endpoints_are_counted_together_and_uploads_apart(limit: RateLimit) -> None:
    assert [ask(limit, path)[0] for path in PATHS] == [200, 200, 200]
    assert [ask(limit, path)[0] for path in PATHS] == [429, 429, 429]
    assert ask(limit, "/gradio_api/upload")[0] == 200


def test_what_costs_nothing_is_never_refused(limit: RateLimit) -> None:
    for _ in range(5):
        ask(limit, "/gradio_api/queue/join")
    assert ask(limit, "/gradio_api/call/predict/abc", method="GET")[0] == 200
    assert ask(limit, "/", method="GET")[0] == 200
    assert ask(limit, "/gradio_api/cancel")[0] == 200


def test_each_photo_counts(limit: RateLimit) -> None:
    assert ask(limit, "/gradio_api/queue/join", [[PHOTO] * 12, "breed", ""])[0] == 200
    _, headers, _ = ask(limit, "/gradio_api/queue/join", [PHOTO])
    assert 60 < int(headers[b"retry-after"]) <= 67  # nine in debt, and one to come


@pytest.mark.parametrize(
    ("body", "photos"),
    [
        (b'{"data": [{"path": "x"}, "breed", 5]}', 1),
        (b'{"data": [[{"path": "x"}, {"path": "y"}], "breed"]}', 2),
        (b'{"data": {"image": {"path": "x"}}}', 1),
        (b'{"data": [null, "jet", 0.6]}', WITHOUT_PHOTO),
        (b'{"data": []}', WITHOUT_PHOTO),
        (b"{}", WITHOUT_PHOTO),
        (b"", 1),
        (b"\xff", 1),
        (b"[1]", 1),
        (b"[" * 100_000, 1),
        (b'{"data": ' + b"[" * 900 + b"]" * 900 + b"}", WITHOUT_PHOTO),
    ],
)
def test_the_cost_of_a_question(body: bytes, photos: float) -> None:
    assert cost(body) == photos


@pytest.mark.parametrize(
    ("forwarded", "visitor"),
    [
        (["1.2.3.4"], "1.2.3.4"),
        (["5.6.7.8, 1.2.3.4"], "1.2.3.4"),  # the first one may be invented
        (["5.6.7.8", "1.2.3.4"], "1.2.3.4"),
        (["1.2.3.4, 10.0.0.7"], "1.2.3.4"),  # a proxy in the house
        (["10.0.0.7"], "192.0.2.9"),
        (["5.6.7.8, nonsense"], "192.0.2.9"),
        ([""], "192.0.2.9"),
        ([], "192.0.2.9"),
        (["2a00:1450:4001:81b::200e"], "2a00:1450:4001:81b::/64"),
    ],
)
def test_who_is_behind_a_proxy(forwarded: list[str], visitor: str) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    assert visitor_behind_proxy({"headers": headers, "client": ("192.0.2.9", 1)}) == visitor


def test_who_is_not_behind_a_proxy_cannot_pretend_to_be_somebody_else() -> None:
    scope = {"headers": [(b"x-forwarded-for", b"1.2.3.4")], "client": ("192.0.2.9", 1)}
    assert direct_visitor(scope) == "192.0.2.9"
    assert direct_visitor({"headers": []}) == ""


def test_a_household_is_one_visitor() -> None:
    assert grouped("2001:db8::1") == grouped("2001:db8::ffff") != grouped("2001:db9::1")
    assert grouped("::ffff:192.0.2.1") == "192.0.2.1"
    assert grouped("testclient") == "testclient"


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/gradio_api/call/predict", "/predict"),
        ("/gradio_api/call/v2/predict_batch/", "/predict_batch"),
        ("/gradio_api/queue/join", "page"),
        ("/gradio_api/call/somethingelse", "page"),  # nothing that a visitor wrote is logged
        ("/gradio_api/upload", "upload"),
        ("/gradio_api/info", None),
        ("/gradio_api/call/predict/0123", None),
    ],
)
def test_what_an_address_asks_for(path: str, endpoint: str | None) -> None:
    assert endpoint_of(path) == endpoint


def test_one_second_is_no_plural() -> None:
    assert too_many(1).endswith("in 1 second.")
