"""The service running on this computer with tiny random models, and what tests send to it."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import pytest
from PIL import Image

from pawmatch.classifier import Classifier
from pawmatch.labels import bundled_tasks, task_of
from pawmatch.settings import Settings
from pawmatch.ui import request_log
from pawmatch.ui.handlers import Handlers
from pawmatch.ui.inference import Classifiers, from_settings
from pawmatch.ui.visitors import TokenBuckets

T = TypeVar("T")
TASKS = {name: task_of(name) for name in bundled_tasks()}
ONE_TASK = {"breed": TASKS["breed"]}


def as_upload(path: Path) -> dict[str, Any]:
    """A file as Gradio hands it over."""
    return {"path": str(path), "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}


@pytest.fixture(autouse=True)
def fresh_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test logs leaves the few lines a minute to the next."""
    monkeypatch.setattr(request_log, "_refusals", TokenBuckets(60, 60))


@pytest.fixture(scope="session")
def tiny_settings(tiny_weights: Path) -> Settings:
    """Tiny checkpoints for all tasks, in torch on the CPU."""
    sources: dict[str, str | None] = {task: str(tiny_weights / task) for task in bundled_tasks()}
    return Settings(sources=sources, device="cpu", engine="torch")


@pytest.fixture(scope="session")
def classifiers(tiny_settings: Settings) -> Classifiers:
    """All tasks, loaded."""
    classifiers = from_settings(tiny_settings)
    classifiers.warm_up()
    return classifiers


@pytest.fixture(scope="session")
def breed(classifiers: Classifiers) -> Classifier:
    return classifiers.get("breed")


@pytest.fixture
def handlers(classifiers: Classifiers) -> Handlers:
    return Handlers(classifiers)


@pytest.fixture
def upload(tmp_path: Path, photo_maker: Callable[[], Image.Image]) -> dict[str, Any]:
    """A photo as Gradio hands it over."""
    path = tmp_path / "photo.png"
    photo_maker().save(path)
    return as_upload(path)


@pytest.fixture
def text_file(tmp_path: Path) -> dict[str, Any]:
    """A text that calls itself a photo, as Gradio hands it over."""
    path = tmp_path / "notes <b>.jpg"
    path.write_text("no picture")
    return as_upload(path)


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    """Call with an exception that the models raise from then on."""

    def start(exc: Exception) -> None:
        def raise_it(*args: Any) -> Any:
            raise exc

        monkeypatch.setattr(Classifier, "run_models", raise_it)

    return start


def until(condition: Callable[[], Any], seconds: float = 30) -> bool:
    """Whether a condition comes true within some seconds."""
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return bool(met)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


def in_loop(build: Callable[[], T]) -> T:
    """What is built in a running loop: without one, Gradio makes some and closes none of them."""

    async def run() -> T:
        return build()

    return asyncio.run(run())


@contextmanager
def photos_held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Semaphore]:
    """Let every photo wait before it is prepared until the block ends; the semaphore counts those that do."""
    go, begun = threading.Event(), threading.Semaphore(0)
    prepare = Classifier.prepare

    def held(classifier: Classifier, image: Any, **options: Any) -> Any:
        begun.release()
        assert go.wait(30)
        return prepare(classifier, image, **options)

    monkeypatch.setattr(Classifier, "prepare", held)
    try:
        yield begun
    finally:
        go.set()


@contextmanager
def running(settings: Settings, classifiers: Classifiers, examples: Path) -> Iterator[str]:
    """The service under its settings; gives its address."""
    from pawmatch.ui.listening import listen
    from pawmatch.ui.server import app, server_of

    at = replace(settings, port=free_port())
    listener = listen(at.host, at.port)
    base = os.environ.get("GRADIO_TEMP_DIR", "")  # the service makes a folder in it, and names that
    server = server_of(in_loop(lambda: app(at, classifiers, examples)), listener)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{at.port}/"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
        os.environ["GRADIO_TEMP_DIR"] = base


@pytest.fixture(scope="session")
def example_folder(tmp_path_factory: pytest.TempPathFactory, photo_maker: Callable[[], Image.Image]) -> Path:
    """Two examples, one per task."""
    folder = tmp_path_factory.mktemp("examples")
    photo_maker().save(folder / "dog.jpg")
    photo_maker().save(folder / "lilies.jpg")
    (folder / "index.json").write_text(
        '[{"file": "dog.jpg", "task": "breed", "alt": "A dog in the grass"},'
        ' {"file": "lilies.jpg", "task": "artist", "alt": "Water lilies"},'
        ' {"file": "missing.jpg", "task": "artist", "alt": "Not there"}]'
    )
    return folder


@pytest.fixture(scope="session")
def photo_maker() -> Callable[[], Image.Image]:
    def make() -> Image.Image:
        rng = np.random.default_rng(3)
        return Image.fromarray(rng.integers(0, 255, (18, 24, 3), dtype=np.uint8)).resize((240, 180))

    return make


@pytest.fixture(scope="session")
def service(
    tiny_settings: Settings,
    classifiers: Classifiers,
    example_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """The whole service with tiny random models, shared by all tests that talk to it; its address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        with running(tiny_settings, classifiers, example_folder) as address:
            yield address


@pytest.fixture(scope="session")
def http(service: str) -> Iterator[httpx.Client]:
    """A client of the service, one for all tests: each new one costs tens of milliseconds."""
    with httpx.Client(base_url=service, timeout=60) as client:
        yield client
