"""Bodies of requests: how large, how slow, how nested they may be, and what a form may have in it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pawmatch.settings import Settings
from pawmatch.ui import bodies
from pawmatch.ui.bodies import (
    MAX_DEPTH,
    MAX_DRAINED_BYTES,
    MAX_FILES,
    MAX_JSON_BYTES,
    MAX_TEXT,
    MAX_TEXT_PARTS,
    MAX_VALUES,
    TOO_LARGE,
    TOO_SLOW,
    Refused,
    judge_question,
)
from pawmatch.ui.handlers import MAX_PHOTOS
from pawmatch.ui.html import MAX_COMPARED
from pawmatch.ui.middleware import Door
from tests.ui.asking import FORM, JSON, PHOTO, ask, echo, form

JOIN, UPLOAD = "/gradio_api/queue/join", "/gradio_api/upload"
SETTINGS = Settings(max_upload_mb=1)
MAX_UPLOAD = MAX_COMPARED * (2**20 + 2**16)
FILE = 'name="files"; filename="dog.jpg"'


def post(path: str, parts: list[bytes], headers: dict[str, str], **more: Any) -> tuple[int, str]:
    status, _, text = ask(Door(echo, SETTINGS), path, parts, headers, **more)
    return status, text


def question(size: int) -> bytes:
    """A question of so many bytes that is right otherwise."""
    start = b'{"data": []'
    return start + b" " * (size - len(start) - 1) + b"}"


def photo(size: int) -> bytes:
    """An upload of so many bytes in all."""
    return form((FILE, bytes(size - len(form((FILE, b""))))))


CHUNKED = {"content-length": "", "transfer-encoding": "chunked"}


@pytest.mark.parametrize("announced", [{}, CHUNKED])
def test_a_body_may_be_as_large_as_its_limit_and_no_larger(announced: dict[str, str]) -> None:
    for path, kind, make, limit in (
        (JOIN, JSON, question, MAX_JSON_BYTES),
        (UPLOAD, FORM, photo, MAX_UPLOAD),
    ):
        assert post(path, [make(limit)], kind | announced) == (200, str(limit))
        half = make(limit + 1)[: limit // 2], make(limit + 1)[limit // 2 :]
        assert post(path, list(half), kind | announced) == (413, TOO_LARGE)


def test_of_an_endless_body_only_the_first_part_is_read() -> None:
    parts = [bytes(2**24)] * 4
    assert post(JOIN, parts, JSON | {"content-length": str(2**40)}) == (413, TOO_LARGE)
    assert MAX_DRAINED_BYTES < 4 * 2**24


@pytest.mark.parametrize(("path", "kind"), [(JOIN, JSON), (UPLOAD, FORM)])
def test_half_a_body_ends_with_a_sentence_and_the_connection(
    monkeypatch: pytest.MonkeyPatch, path: str, kind: dict[str, str]
) -> None:
    monkeypatch.setattr(bodies, "PAUSE_SECONDS", 0.02)
    status, headers, text = ask(Door(echo, SETTINGS), path, [form((FILE, b"x"))[:50]], kind, pauses=0.001)
    assert (status, text, headers["connection"]) == (408, TOO_SLOW, "close")


def test_a_byte_now_and_then_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "GRACE_SECONDS", 0.05)
    monkeypatch.setattr(bodies, "MIN_BYTES_PER_SECOND", 10**9)
    assert post(JOIN, [b" "] * 1000, JSON, pauses=0.001) == (408, TOO_SLOW)


# --- JSON


@pytest.mark.parametrize(
    ("content", "photos"),
    [
        ({"data": [PHOTO, "breed", 5]}, 1),
        ({"data": [[PHOTO, PHOTO], "breed"]}, 2),
        ({"images": [PHOTO] * 12, "task": "breed"}, 12),
        ({"image": {**PHOTO, "more": [PHOTO]}}, 2),
        ({"data": [{"url": "https://dogs.example/1.jpg"}, "breed"]}, 1),
        ({"data": [None, "jet", 0.6], "session_hash": None, "fn_index": 3}, 0),
        ({}, 0),
        ({"data": [PHOTO] * MAX_FILES}, MAX_FILES),
    ],
)
def test_photos_are_counted_wherever_they_stand(content: Any, photos: int) -> None:
    assert judge_question(json.dumps(content).encode(), "application/json") == photos


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else []


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ({"data": [PHOTO] * (MAX_FILES + 1)}, 400),
        ({"data": nested(MAX_DEPTH)}, 400),
        ({"data": [0] * MAX_VALUES}, 413),
        ({"data": ["x" * (MAX_TEXT + 1)]}, 413),
        ({"session_hash": "x" * 65}, 400),
        ({"session_hash": ["s"]}, 400),
        ({"event_id": "a/b"}, 400),
        ({"fn_index": "1"}, 400),
        ({"fn_index": 10**9}, 400),
        ({"trigger_id": True}, 400),
        ({"data": [], "batched": True}, 400),
        ([], 400),
        ("text", 400),
    ],
)
def test_a_question_out_of_all_measure_is_refused(content: Any, status: int) -> None:
    with pytest.raises(Refused) as caught:
        judge_question(json.dumps(content).encode(), "application/json")
    assert caught.value.status == status


@pytest.mark.parametrize("body", [b"", b"\xff", b"{", b"[" * 100_000, b'{"x": ' + b"9" * 5000 + b"}"])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(Refused):
        judge_question(body, "application/json")


def test_a_form_of_others_carries_no_json() -> None:
    with pytest.raises(Refused):  # browsers let any page send such a body
        judge_question(b"{}", "text/plain")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (200, (400, f'{{"detail":"200 photos are too many; send at most {MAX_PHOTOS} in one call."}}')),
        (6600, (413, TOO_LARGE)),
    ],
)
def test_many_references_to_one_upload_get_no_further(number: int, expected: tuple[int, str]) -> None:
    photos = json.dumps({"data": [[{"path": "/x"}] * number, "breed", 5]}).encode()
    assert len(photos) < MAX_JSON_BYTES
    assert post("/gradio_api/call/predict_batch", [photos], JSON) == expected


# --- forms


def send(*parts: tuple[str, bytes], boundary: str = "b", piece: int = 1000) -> tuple[int, str]:
    """Upload a form that arrives in pieces."""
    whole = form(*parts, boundary=boundary)
    return post(UPLOAD, [whole[at : at + piece] for at in range(0, len(whole), piece)], FORM)


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_photos_pass_in_pieces_of_any_size(piece: int) -> None:
    assert send(*[(FILE, b"\xff\xd8" * 100)] * 3, piece=piece)[0] == 200


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([('name="files"', b"x" * (MAX_TEXT_PARTS + 1))], 413),
        ([('name="x"', b"")] * 100, 413),
        ([(FILE, b"")] * (MAX_PHOTOS + 1), 413),
        ([(FILE + '; x="' + "x" * 2**14 + '"', b"")], 400),
        ([(FILE.replace("files", "other"), b"x")], 400),
        ([('filename="dog.jpg"', b"x")], 400),
    ],
)
def test_a_form_out_of_all_measure_is_refused_while_it_arrives(
    parts: list[tuple[str, bytes]], status: int
) -> None:
    assert send(*parts)[0] == status


def test_a_form_that_is_none_is_refused() -> None:
    assert send((FILE, b"x"), boundary="other")[0] == 400
    for kind in ("multipart/form-data", "text/plain", "multipart/mixed; boundary=b"):
        assert post(UPLOAD, [b"x"], {"content-type": kind})[0] == 400
