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
from pawmatch.classifier import Classifier
from pawmatch.settings import Settings
from pawmatch.ui.inference import MAX_BATCH, Classifiers
from pawmatch.ui.server import BUSY
from tests.ui.conftest import running


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


class Held:
    """Models that look at nothing until they are let go; `begun` counts the photos that wait for them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.begun = threading.Event(), 0
        prepare, examine = Classifier.prepare, Classifier.run_models

        def counted(classifier: Classifier, image: Any) -> Any:
            self.begun += 1
            return prepare(classifier, image)

        def held(classifier: Classifier, prepared: Any) -> Any:
            assert self.go.wait(240)
            return examine(classifier, prepared)

        monkeypatch.setattr(Classifier, "prepare", counted)
        monkeypatch.setattr(Classifier, "run_models", held)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def held(classifiers: Classifiers, monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """Models that stand still; in the end they go on, or the service would wait for them."""
    model = Held(monkeypatch)
    yield model
    model.go.set()


@pytest.fixture
def full(
    classifiers: Classifiers, held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A service with two places to wait."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    with running(Settings(queue_size=2), classifiers, tmp_path) as address:
        yield address
        held.go.set()


def until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 240
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

    with ThreadPoolExecutor(MAX_BATCH + 2) as pool:
        try:
            asked: list[Future[Reply]] = []
            while len(asked) < MAX_BATCH:  # one by one, since all at once would find two places
                asked.append(pool.submit(ask))
                assert until(lambda: held.begun == len(asked))
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
                f"{full}gradio_api/queue/join",
                json={"data": [], "fn_index": 0, "session_hash": "page"},
                timeout=60,
            )
            assert (page.status_code, page.json()) == (503, {"detail": BUSY})
        finally:
            held.go.set()
        assert all(future.result(240).value["predictions"] for future in asked)
    assert held.begun == MAX_BATCH + 2  # nothing was done for those who had left
    assert ask().value["predictions"]
