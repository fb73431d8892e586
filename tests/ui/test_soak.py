"""Many visitors for a short time: nothing wrong, nothing lost, and who hangs up frees a place."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from benchmarks.service import Reply, Visitor
from benchmarks.soak import Soak, Tally, after, alike, crowd
from pawmatch.settings import Settings
from pawmatch.ui.inference import MOST_AT_ONCE, Classifiers
from pawmatch.ui.server import BUSY
from tests.ui.conftest import running
from tests.ui.pretend import PretendClassifier


@pytest.fixture(scope="module")
def photos() -> list[bytes]:
    rng = np.random.default_rng(11)
    files = []
    for _ in range(3):
        small = rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(small).resize((160, 120)).save(buffer := BytesIO(), "JPEG")
        files.append(buffer.getvalue())
    return files


def test_a_short_soak_loses_nothing(service: str, photos: list[bytes]) -> None:
    tally = Tally()
    soak = Soak(service, photos, tally)
    soak.learn()
    crowd(soak, visitors=8, until=after(seconds=3), seed=1)
    assert tally.problems == []
    assert tally.counts["right: predict"] > 0
    assert tally.counts["requests"] >= 8


def test_a_soak_notices_another_answer() -> None:
    assert alike({"a": 0.5, "b": 0.25}, {"b": 0.25, "a": 0.5})
    assert not alike({"a": 0.5}, {"a": 0.5001})
    assert not alike({"a": 0.5}, {"b": 0.5})


class Held(PretendClassifier):
    """Looks at nothing until it is let go; `begun` counts the photos that wait for it."""

    go = threading.Event()
    begun: list[int]

    def prepare(self, image: Any) -> Any:
        self.begun.append(1)
        return super().prepare(image)

    def examine(self, prepared: Any) -> Any:
        assert self.go.wait(60)
        return super().examine(prepared)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def held() -> Iterator[Held]:
    """Models that stand still; in the end they go on, or the service would wait for them."""
    model = Held()
    model.begun, model.go = [], threading.Event()
    yield model
    model.go.set()


@pytest.fixture
def full(held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A service with two places to wait."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    classifiers = Classifiers(lambda task: held, ("breed", "artist"))  # type: ignore[arg-type,return-value]
    with running(Settings(queue_size=2), classifiers, tmp_path) as address:
        yield address
        held.go.set()


def until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 30
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return met


def test_who_hangs_up_frees_a_place_and_who_finds_none_is_told(
    full: str, held: Held, photos: list[bytes], stack: ExitStack
) -> None:
    observer = stack.enter_context(closing(Visitor(full)))
    photo = observer.upload(photos[0])

    def waiting() -> int:
        number: int = json.loads(observer.get("/gradio_api/queue/status")[1])["queue_size"]
        return number

    def ask() -> Reply:
        with closing(Visitor(full)) as visitor:
            return visitor.ask("predict", photo, "breed", 5)

    with ThreadPoolExecutor(MOST_AT_ONCE + 2) as pool:
        try:
            asked: list[Future[Reply]] = []
            while len(asked) < MOST_AT_ONCE:  # one by one, since all at once would find two places
                asked.append(pool.submit(ask))
                assert until(lambda: len(held.begun) == len(asked))
            for _ in range(3):  # more than there are places, one after the other
                assert observer.leave("predict", photo, "breed", 5) == 200
                assert until(lambda: waiting() == 0)
            asked += [pool.submit(ask) for _ in range(2)]
            assert until(lambda: waiting() == 2)
            for endpoint in ("predict", "explain", "predict_batch", "models"):
                question = {"models": [], "predict_batch": [[photo]]}.get(endpoint, [photo])
                reply = observer.ask(endpoint, *question)
                assert (reply.status, reply.message) == (503, BUSY)
            page = httpx.post(
                f"{full}gradio_api/queue/join", json={"data": [], "fn_index": 0, "session_hash": "page"}
            )
            assert (page.status_code, page.json()) == (503, {"detail": BUSY})
        finally:
            held.go.set()
        assert all(future.result(60).value["predictions"] for future in asked)
    assert len(held.begun) == MOST_AT_ONCE + 2  # nothing was done for those who had left
    assert ask().value["predictions"]
