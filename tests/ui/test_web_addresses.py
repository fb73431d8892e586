"""A web address in place of a photo: fetched by our own code alone, where the settings let it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from gradio_client import Client, handle_file
from PIL import Image

from pawmatch.errors import Busy, ImageNotFound
from pawmatch.images import ImageFile
from pawmatch.images.fetch import fetch
from pawmatch.settings import Settings
from pawmatch.ui import server as served
from pawmatch.ui.gradio_patches import fetch_nothing
from pawmatch.ui.handlers import HOW_TO_SEND, MAX_FETCHES, Handlers
from pawmatch.ui.inference import Classifiers
from tests.support.web_server import Server, ok, serving
from tests.ui.conftest import in_loop, running
from tests.ui.raw import as_file, call

here = partial(fetch, is_allowed=lambda address, port: address == "127.0.0.1")


@pytest.fixture
def web(photo_maker: Callable[[], Image.Image]) -> Iterator[Server]:
    """A web server with a picture."""
    file = BytesIO()
    photo_maker().save(file, "PNG")
    with serving({"/dog.png": ok(file.getvalue())}) as server:
        yield server


def test_predict_and_explain_take_a_web_address(
    web: Server,
    tiny_settings: Settings,
    classifiers: Classifiers,
    example_folder: Path,
    upload: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(served, "fetch", here)
    with running(tiny_settings, classifiers, example_folder) as address:
        client = Client(address, verbose=False)
        photo = handle_file(web.url("/dog.png"))
        expected = Handlers(classifiers).predict(upload)["predictions"]
        assert client.predict(image=photo, api_name="/predict")["predictions"] == expected
        assert client.predict(image=photo, api_name="/explain")[0]["predictions"] == expected
        assert web.asked == ["/dog.png"] * 2
        with httpx.Client(base_url=address, timeout=60) as http:
            said = call(http, "predict_batch", [[as_file(web.url("/dog.png"))], "breed", 5])
        assert json.dumps(HOW_TO_SEND) in said
        assert len(web.asked) == 2
        client.close()


def test_nothing_is_fetched_where_it_is_switched_off(web: Server, classifiers: Classifiers) -> None:
    for image in (as_file(web.url("/dog.png")), {"url": web.url("/dog.png")}):
        with pytest.raises(ImageNotFound) as refused:
            Handlers(classifiers, fetch=None).predict(image)
        assert str(refused.value) == HOW_TO_SEND

    def build() -> list[gr.Image]:
        with gr.Blocks() as demo:
            built = [gr.Image(), gr.Image()]
        fetch_nothing(demo, HOW_TO_SEND, passing=built[0])
        return built

    images = in_loop(build)
    moves = [image.async_move_resource_to_block_cache(web.url("/dog.png")) for image in images]
    assert asyncio.run(moves[0]) == web.url("/dog.png")
    with pytest.raises(gr.Error, match="Send each photo as a file"):
        asyncio.run(moves[1])
    assert web.asked == []


@pytest.mark.parametrize("keys", [("path",), ("url",), ("path", "url")])
def test_the_address_may_stand_in_either_place(
    web: Server, classifiers: Classifiers, upload: dict[str, Any], keys: tuple[str, ...]
) -> None:
    handlers = Handlers(classifiers, fetch=here)
    image = {key: web.url("/dog.png") for key in keys}
    assert handlers.predict(image)["predictions"] == handlers.predict(upload)["predictions"]
    # An upload is not fetched again, whatever its file object says of a place on the web.
    handlers.predict({**upload, "url": web.url("/dog.png")})
    assert len(web.asked) == 1
    with pytest.raises(ImageNotFound, match="Send each photo as a file"):
        handlers.look(image, "breed")


def test_slow_servers_hold_a_few_places_only(classifiers: Classifiers) -> None:
    begun, over = threading.Semaphore(0), threading.Event()

    def slow(address: str) -> ImageFile:
        begun.release()
        over.wait()
        raise ImageNotFound("gone")

    handlers = Handlers(classifiers, fetch=slow)

    def ask() -> None:
        with pytest.raises(ImageNotFound, match="gone"):
            handlers.fetch("http://slow.example/dog.png")

    threads = [threading.Thread(target=ask) for _ in range(MAX_FETCHES)]
    for thread in threads:
        thread.start()
    for _ in threads:
        begun.acquire()
    with pytest.raises(Busy, match="please try again"):
        handlers.fetch("http://slow.example/dog.png")
    over.set()
    for thread in threads:
        thread.join()
    with pytest.raises(ImageNotFound, match="gone"):
        handlers.fetch("http://slow.example/dog.png")
