"""Bounds on what the service remembers of its visitors, and what it makes of odd requests."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio import routes
from PIL import Image

from pawmatch.settings import Settings
from pawmatch.ui import bounds
from pawmatch.ui.bounds import MAX_MESSAGES, Bounded, Bounds, Mailbox, encodable
from pawmatch.ui.faults import NOT_FITTING, OUR_FAULT
from pawmatch.ui.html import as_jpeg
from pawmatch.ui.inference import Classifiers
from tests.ui.conftest import photos_held, running, until
from tests.ui.raw import as_file, call, gives_nothing_away, upload

# --- sizes and ages


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_map_has_a_size_and_an_age_but_keeps_what_is_in_use() -> None:
    clock, used = Clock(), {"a"}
    kept: Bounded[int] = Bounded(3, 10, used.__contains__, clock=clock)
    for clock.now, key in enumerate("abc"):
        kept[key] = int(clock.now)
    assert kept["b"] == 1  # asked for later than the others
    kept["d"] = 3
    assert sorted(kept) == ["a", "b", "d"]  # "c" was the oldest that nobody uses
    clock.now = 12.0
    kept.forget_old()
    assert sorted(kept) == ["a"]
    used.clear()
    kept.forget_old()
    assert not kept
    with pytest.raises(KeyError):
        kept["a"]


def test_unread_messages_are_few() -> None:
    box = Mailbox()
    for number in range(2 * MAX_MESSAGES):
        box.put_nowait(number)
    assert box.qsize() == MAX_MESSAGES
    assert box.get_nowait() == MAX_MESSAGES  # the newest stay


MANY_THREADS = """
import ctypes, threading
from pawmatch.ui.bounds import keep_few_heaps
keep_few_heaps()
library, together = ctypes.CDLL(None), threading.Barrier(6)
def take():
    together.wait()
    library.malloc(1000)
    together.wait()
threads = [threading.Thread(target=take) for _ in range(6)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
library.malloc_stats()
"""


@pytest.mark.skipif(bounds.heaps() is None, reason="glibc alone has heaps to count")
def test_many_threads_share_two_heaps() -> None:
    told = subprocess.run([sys.executable, "-c", MANY_THREADS], capture_output=True, text=True, check=True)
    assert 0 < told.stderr.count("Arena ") <= 2


class Kept:
    """A service of this module's own, and the bounds that it has."""

    def __init__(self, address: str, bounds: Bounds) -> None:
        self.bounds = bounds
        self.http = httpx.Client(base_url=address, timeout=30)


@pytest.fixture(scope="module")
def kept(
    tiny_settings: Settings, classifiers: Classifiers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kept]:
    made: list[Bounds] = []

    class Recorded(Bounds):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("kept")))
        patch.setattr(bounds, "Bounds", Recorded)
        with running(tiny_settings, classifiers, Path("none")) as address:
            found = Kept(address, made[0])
            with found.http:
                yield found


def test_what_strangers_make_the_service_remember_is_bounded(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, progress = kept.bounds._queue, routes.file_upload_statuses
    maps: tuple[Any, ...] = (
        queue.pending_messages_per_session,
        queue.pending_event_ids_session,
        progress._statuses,
        progress._signals,
    )
    for bounded in maps:
        monkeypatch.setattr(bounded, "_size", 5)
    models: dict[str, Any] = {"data": []}
    for number in range(20):
        kept.http.post("/gradio_api/call/models", json=models).raise_for_status()
        file = {"files": ("a.jpg", str(number).encode())}
        kept.http.post("/gradio_api/upload", params={"upload_id": f"id{number}"}, files=file)
        asyncio.run(waited(progress, f"other{number}"))
    until(lambda: not queue.event_ids_to_events)
    for bounded in maps:
        assert len(bounded) <= 5
    demo: Any = kept.bounds._states.blocks
    assert not queue.event_analytics
    assert not demo.upload_file_set
    assert not any(block.temp_files for block in demo.blocks.values())
    for bounded in maps:
        monkeypatch.setattr(bounded, "_seconds", -1)
    states = kept.bounds._states
    assert len(states.session_data) == len(states.time_last_used) == 20
    kept.bounds.drop(list(states.session_data)[:1])
    monkeypatch.setattr(kept.bounds, "_seconds", -1)
    kept.bounds.forget_old()
    assert [len(bounded) for bounded in maps] == [0] * 4
    assert len(states.session_data) == len(states.time_last_used) == 0
    assert "labels" in call(kept.http, "models", [])


async def waited(progress: Any, upload_id: str) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(progress.is_tracked(upload_id), 0.001)


# --- odd requests


@pytest.fixture
def photo(kept: Kept) -> str:
    data = as_jpeg(Image.new("RGB", (40, 30), "tan"))
    return upload(kept.http, "photo.jpg", data)


def number_of(http: httpx.Client, name: str, inputs: int) -> int:
    """An event of the pages, by the name of its function and its number of inputs."""
    entries = http.get("/config").json()["dependencies"]
    return int(next(one["id"] for one in entries if one["api_name"] == name and len(one["inputs"]) == inputs))


def test_half_a_character_in_a_name_breaks_no_stream(kept: Kept, photo: str) -> None:
    named = {**as_file(photo), "orig_name": "caf\ud800.jpg"}
    number = number_of(kept.http, "compare", 3)
    question = {"data": [[named, named], "breed", ""], "fn_index": number, "session_hash": "half"}
    # Standing in JSON as browsers write it: an escape, which only the reader makes a half of a character.
    kind = {"Content-Type": "application/json"}
    started = kept.http.post("/gradio_api/queue/join", content=json.dumps(question), headers=kind)
    assert started.status_code == 200
    said = kept.http.get("/gradio_api/queue/data", params={"session_hash": "half"}).text
    assert "caf?.jpg" in said
    assert said.count("process_completed") == 1
    assert "unexpected_error" not in said
    assert encodable(2**70) == 2**70


@pytest.mark.parametrize("data", [[], ["x"] * 9, [{"path": "/etc/" + "passwd" * 600}]])
def test_what_does_not_fit_is_said_in_words_and_logged_in_brief(
    kept: Kept, data: list[Any], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    said = call(kept.http, "predict", data)
    assert "event: error" in said
    assert '"error": null' not in said
    gives_nothing_away(said)
    written = caplog.text + capfd.readouterr().err
    assert "Traceback" not in written
    assert len(written) < 10_000
    assert "passwdpasswd" * 50 not in written


@pytest.mark.parametrize(
    ("name", "body"),
    [("predict", {"picture" * 500: 1}), ("predict", {}), ("explain", {"x": 1})],
)
def test_wrong_names_are_refused_in_words(
    kept: Kept,
    name: str,
    body: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    refused = kept.http.post(f"/gradio_api/call/v2/{name}", json=body)
    assert (refused.status_code, refused.json()) == (422, {"detail": NOT_FITTING})
    assert "picture" not in caplog.text + capfd.readouterr().err


def test_an_unforeseen_error_is_logged_with_its_place_and_little_of_what_it_says(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("typed\n" * 10_000)

    monkeypatch.setattr(kept.bounds._queue, "push", fail)
    refused = kept.http.post("/gradio_api/call/models", json={"data": []})
    assert (refused.status_code, refused.json()) == (500, {"detail": OUR_FAULT})
    assert "RuntimeError: 'typed\\ntyped" in caplog.text
    assert "test_bounds.py" in caplog.text
    assert len(caplog.text) < 20_000


# --- ending events


def test_ending_one_event_leaves_the_others_of_its_session_alone(
    kept: Kept, photo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = number_of(kept.http, "look", 4)
    data = [as_file(photo), "breed", "jet", 0.5]
    question = {"data": data, "fn_index": number, "session_hash": "some"}
    with photos_held(monkeypatch) as begun:
        events = [
            kept.http.post("/gradio_api/queue/join", json=question).json()["event_id"] for _ in range(2)
        ]
        for _ in events:
            assert begun.acquire(timeout=10)
        stop = {"session_hash": "others", "fn_index": number, "event_id": events[1]}
        kept.http.post("/gradio_api/cancel", json=stop)  # which is not theirs
        stop |= {"session_hash": "some", "event_id": events[0]}
        assert kept.http.post("/gradio_api/cancel", json=stop).json() == {"success": True}
    told = [
        json.loads(line.removeprefix("data: "))
        for line in kept.http.get("/gradio_api/queue/data", params={"session_hash": "some"}).text.splitlines()
        if line.startswith("data: ")
    ]
    ended = {one["event_id"]: one["output"] for one in told if one["msg"] == "process_completed"}
    assert list(ended) == events
    assert ended[events[0]] == {}
    assert ended[events[1]]["data"]
