"""The gate and the rate limit: what they let through, what they refuse, and who is who."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pawmatch.ui import middleware
from pawmatch.ui.html import MAX_COMPARED
from pawmatch.ui.middleware import (
    MAX_DRAINED_BYTES,
    MAX_JSON_BYTES,
    NOT_OFFERED,
    TOO_LARGE,
    WITHOUT_PHOTO,
    Gate,
    RateLimit,
    TokenBuckets,
    cost,
    direct_visitor,
    endpoint_of,
    grouped,
    too_many,
    visitor_behind_proxy,
)

MAX_UPLOAD = MAX_COMPARED * (2**20 + 2**16)
PHOTO = {"path": "/tmp/gradio/x.jpg", "meta": {"_type": "gradio.FileData"}}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what it was sent, or with its length if that is much."""
    body = await Request(scope, receive).body()
    await PlainTextResponse(body if len(body) < 2000 else str(len(body)))(scope, receive, send)


def ask(app: ASGIApp, path: str, parts: list[bytes], **scope: Any) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of the answer to a request whose body comes in parts."""
    waiting: list[Message] = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)}
        for number, part in enumerate(parts, 1)
    ]
    said: list[Message] = []

    async def receive() -> Message:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        said.append(message)

    whole = {"type": "http", "method": "POST", "path": path, "headers": [], "client": ("192.0.2.1", 1)}

    async def run() -> None:
        await app({**whole, **scope}, receive, send)

    asyncio.run(run())
    if said[0]["status"] == 413 and sum(map(len, parts)) <= MAX_DRAINED_BYTES:
        assert not waiting  # a client that is still sending might not listen
    return said[0]["status"], dict(said[0]["headers"]), said[1]["body"]


# --- the gate


def knock(path: str, parts: list[bytes], length: int | None = None, **scope: Any) -> Any:
    headers = [] if length is None else [(b"content-length", str(length).encode())]
    return ask(Gate(echo, max_upload_mb=1), path, parts, headers=headers, **scope)


def test_an_ordinary_request_passes() -> None:
    status, headers, body = knock("/gradio_api/queue/join", [b"ab", b"c"], 3)
    assert (status, body) == (200, b"abc")
    assert headers[b"x-content-type-options"] == b"nosniff"


@pytest.mark.parametrize(
    ("path", "root", "limit"),
    [
        ("/gradio_api/call/predict", "", MAX_JSON_BYTES),
        ("/gradio_api/upload", "", MAX_UPLOAD),
        ("/gradio_api/upload", "/dogs", MAX_UPLOAD),
        ("/dogs/gradio_api/upload", "/dogs", MAX_UPLOAD),
        ("/dogs/gradio_api/upload", "/dogs/", MAX_UPLOAD),
        ("/gradio_api/uploads", "", MAX_JSON_BYTES),
    ],
)
def test_a_body_may_be_as_large_as_its_limit_and_no_larger(path: str, root: str, limit: int) -> None:
    assert knock(path, [bytes(limit)], limit, root_path=root)[0] == 200
    assert knock(path, [bytes(limit)], root_path=root)[0] == 200
    assert knock(path, [bytes(limit), b"x"], limit + 1, root_path=root)[::2] == (413, TOO_LARGE.encode())
    with pytest.raises(ClientDisconnect):
        knock(path, [bytes(limit), b"x"], root_path=root)  # of unknown length: cut off


def test_of_an_endless_body_only_the_first_part_is_read() -> None:
    assert knock("/gradio_api/queue/join", [bytes(2**24)] * 4, 2**40)[0] == 413


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
        "/runs",
        "/dogs/runs",
    ],
)
def test_what_is_not_offered_is_refused(path: str) -> None:
    assert knock(path, [b""], root_path="/dogs")[::2] == (403, NOT_OFFERED.encode())


@pytest.mark.parametrize(
    "path", ["/", "/compare", "/gradio_api/file=/tmp/gradio/http/dog.jpg", "/gradio_api/upload", "/healthz"]
)
def test_what_the_page_needs_is_not(path: str) -> None:
    assert knock(path, [b""])[0] == 200


# --- token buckets


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_let_in_and_then_one_for_each_new_token() -> None:
    clock = Clock()
    buckets = TokenBuckets(60, 3, clock=clock)
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 0]
    assert buckets.take("a") == pytest.approx(1.0)
    assert buckets.take("b") == 0  # others do not pay for it
    clock.now += 0.75
    assert buckets.take("a") == pytest.approx(0.25)  # being refused costs nothing
    clock.now += 0.25
    assert buckets.take("a") == 0
    clock.now += 3600
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, pytest.approx(1.0)]


def test_many_photos_at_once_are_paid_off_afterwards() -> None:
    clock = Clock()
    buckets = TokenBuckets(60, 10, clock=clock)
    assert buckets.take("a", 1) == 0
    assert buckets.take("a", 64) == pytest.approx(1.0)  # it needs a full bucket
    clock.now += 1
    assert buckets.take("a", 64) == 0
    assert buckets.take("a", 1) == pytest.approx(55.0)
    clock.now += 55
    assert buckets.take("a", 1) == 0


def test_memory_is_bounded_and_who_keeps_asking_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "MAX_VISITORS", 100)
    buckets = TokenBuckets(60, 1, clock=Clock())
    assert buckets.take("persistent") == 0
    for number in range(1000):
        buckets.take(f"visitor {number}")
        assert buckets.take("persistent") > 0
    assert len(buckets._buckets) == 100


# --- the rate limit


def send(limit: RateLimit, path: str, body: Any, **scope: Any) -> tuple[int, dict[bytes, bytes], bytes]:
    """The answer to a question that comes in two parts."""
    sent = json.dumps(body).encode()
    return ask(limit, path, [sent[:5], sent[5:]], **scope)


@pytest.fixture
def limit() -> RateLimit:
    return RateLimit(echo, 9, direct_visitor)  # three at once


PATHS = ["/gradio_api/call/predict", "/gradio_api/call/v2/explain", "/gradio_api/queue/join"]


@pytest.mark.parametrize("path", [*PATHS, "/gradio_api/upload", "/dogs/gradio_api/queue/join"])
def test_over_the_limit_there_is_a_sentence_with_the_time_to_wait(limit: RateLimit, path: str) -> None:
    scope = {"root_path": "/dogs"}
    for _ in range(3):
        status, _, body = send(limit, path, {"data": [PHOTO]}, **scope)
        assert (status, json.loads(body)) == (200, {"data": [PHOTO]})  # what follows gets the whole body
    status, headers, body = send(limit, path, {"data": [PHOTO]}, **scope)
    assert status == 429
    assert headers[b"retry-after"] == b"7"
    assert json.loads(body) == {
        "detail": "That was a lot of photos in a short time; please try again in 7 seconds."
    }
    assert send(limit, path, {"data": [PHOTO]}, **scope, client=("192.0.2.2", 1))[0] == 200


def test_the_page_and_the_endpoints_are_counted_together_and_uploads_apart(limit: RateLimit) -> None:
    assert [send(limit, path, {"data": [PHOTO]})[0] for path in PATHS * 2] == [200] * 3 + [429] * 3
    assert send(limit, "/gradio_api/upload", {})[0] == 200


def test_what_costs_nothing_is_never_refused(limit: RateLimit) -> None:
    for _ in range(5):
        send(limit, "/gradio_api/queue/join", {"data": [PHOTO]})
    assert send(limit, "/gradio_api/call/predict/abc", {}, method="GET")[0] == 200
    assert send(limit, "/", {}, method="GET")[0] == 200
    assert send(limit, "/gradio_api/cancel", {})[0] == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/gradio_api/queue/join", {"data": [[PHOTO] * 12, "breed", ""]}),
        ("/gradio_api/call/v2/predict_batch", {"images": [PHOTO] * 12, "task": "breed"}),
        ("/gradio_api/call/predict_batch_of_another_name", {"data": [{"x": [PHOTO] * 12}]}),
    ],
)
def test_each_photo_counts_by_whichever_way_it_comes(limit: RateLimit, path: str, body: Any) -> None:
    assert send(limit, path, body)[0] == 200
    _, headers, _ = send(limit, "/gradio_api/queue/join", {"data": [PHOTO]})
    assert 60 < int(headers[b"retry-after"]) <= 67  # nine in debt, and one to come


@pytest.mark.parametrize(
    ("body", "photos"),
    [
        (b'{"data": [{"path": "x"}, "breed", 5]}', 1),
        (b'{"data": [[{"path": "x"}, {"path": "y"}], "breed"]}', 2),
        (b'{"image": {"path": "x", "more": [{"path": "y"}]}}', 2),
        (b'{"data": [null, "jet", 0.6]}', WITHOUT_PHOTO),
        (b"{}", WITHOUT_PHOTO),
        (b"[1]", WITHOUT_PHOTO),
        (b"", 1),
        (b"\xff", 1),
        (b"[" * 100_000, 1),
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
    scope = {"headers": headers, "client": ("192.0.2.9", 1)}
    assert visitor_behind_proxy(scope) == visitor
    assert direct_visitor(scope) == "192.0.2.9"  # who is not behind one cannot pretend to be somebody else


def test_a_household_is_one_visitor() -> None:
    assert grouped("2001:db8::1") == grouped("2001:db8::ffff") != grouped("2001:db9::1")
    assert grouped("::ffff:192.0.2.1") == "192.0.2.1"
    assert grouped("testclient") == "testclient"
    assert direct_visitor({"headers": []}) == ""


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
