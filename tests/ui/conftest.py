"""The service running on this computer with tiny models, and what tests send to it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from pawmatch.settings import Settings
from pawmatch.tasks import TASKS
from pawmatch.ui.inference import Classifiers
from tests.ui.pretend import PretendClassifier, as_upload


@pytest.fixture
def pretender() -> PretendClassifier:
    return PretendClassifier()


@pytest.fixture
def classifiers(pretender: PretendClassifier) -> Classifiers:
    return Classifiers(lambda task: pretender, TASKS)  # type: ignore[arg-type,return-value]


@pytest.fixture
def upload(tmp_path: Path) -> dict[str, Any]:
    """A photo as Gradio hands it over."""
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (800, 600), "tan").save(path)
    return as_upload(path)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


@contextmanager
def running(settings: Settings, classifiers: Classifiers, examples: Path) -> Iterator[str]:
    """The service under its settings; gives its address."""
    from pawmatch.ui.server import create, launch_options

    async def start() -> Any:
        demo = create(at, classifiers, examples)
        demo.launch(prevent_thread_lock=True, **launch_options(at, classifiers, examples))
        return demo

    at = replace(settings, port=free_port())
    # In a running loop, or Gradio makes one for each of its locks and closes none.
    demo = asyncio.run(start())
    try:
        yield str(demo.local_url)
    finally:
        demo.close(verbose=False)


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
    tiny_weights: Path, example_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The whole service with tiny random models, shared by all tests that talk to it; its address."""
    from pawmatch.ui.inference import from_settings

    settings = Settings(
        sources={task: str(tiny_weights / task) for task in ("breed", "artist", "artist-chae")},
        device="cpu",
        engine="torch",
    )
    classifiers = from_settings(settings)
    classifiers.warm_up()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        with running(settings, classifiers, example_folder) as address:
            yield address


@pytest.fixture(scope="session")
def http(service: str) -> Iterator[httpx.Client]:
    """A client of the service, one for all tests: each new one costs tens of milliseconds."""
    with httpx.Client(base_url=service, timeout=60) as client:
        yield client
