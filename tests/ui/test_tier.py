"""The model tier and the page that asks it: the same answers as from models in the page's own process."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.routing import Route

from pawmatch.errors import BadOption, BrokenImage, Busy, PawMatchError, UnknownLabel, UnknownTask
from pawmatch.settings import Settings
from pawmatch.ui import remote, tier
from pawmatch.ui.handlers import Handlers
from pawmatch.ui.inference import Classifiers
from pawmatch.ui.remote import There, remote_classifiers
from tests.ui.conftest import as_upload

FACTS = {"size": "small"}


@pytest.fixture(scope="module")
def served(tiny_settings: Settings) -> Iterator[str]:
    app = Starlette(
        routes=[Route("/{place:path}", tier.Tier(tiny_settings).__call__, methods=["GET", "POST"])]
    )
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def page(served: str, tiny_settings: Settings) -> Handlers:
    """A page's handlers without models."""
    descriptions = remote_classifiers(replace(tiny_settings, model_url=served))
    return Handlers(descriptions, inference=There(served, descriptions))


@pytest.fixture
def here(classifiers: Classifiers) -> Handlers:
    return Handlers(classifiers)


def untimed(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != "timing_ms"}


def test_endpoints_answer_as_with_models_of_their_own(page: Handlers, here: Handlers, dog: Path) -> None:
    upload = as_upload(dog)
    for task in ("breed", "artist"):
        assert untimed(page.predict(upload, task, 3)) == untimed(here.predict(upload, task, 3))
    (far, *drawn), (near, *own) = (which.explain(upload, "breed", "Boxer") for which in (page, here))
    assert untimed(far) == untimed(near)
    assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(drawn, own, strict=True))
    assert page.models() == here.models()
    broken = dog.with_name("broken.jpg")
    broken.write_bytes(dog.read_bytes()[:300])
    (good, bad), wanted = page.predict_batch([upload, as_upload(broken)]), here.predict_batch([upload])
    assert untimed(good) == untimed(wanted[0])
    assert bad["error"]["code"] == "BrokenImage"


def test_the_page_s_steps_go_to_any_replica(page: Handlers, here: Handlers, dog: Path) -> None:
    states = [which.look(as_upload(dog), "breed") for which in (page, here)]
    assert states[0].seen.prediction.words == states[1].seen.prediction.words
    found = [which.paint(state)[1] for which, state in zip((page, here), states, strict=True)]
    for variant, heatmap in found[1].heatmaps.items():
        assert np.array_equal(found[0].heatmaps[variant].cam, heatmap.cam)
        assert replace(found[0].heatmaps[variant], cam=heatmap.cam) == heatmap
    refined = [which.refine(state, FACTS).seen for which, state in zip((page, here), states, strict=True)]
    assert untimed(refined[0].prediction.to_dict()) == untimed(refined[1].prediction.to_dict())


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        ({"task": "trees"}, UnknownTask),
        ({"label": "Cat"}, UnknownLabel),
        ({"top_k": "0"}, BadOption),
        ({"facts": "{"}, BadOption),
        ({"size": "9999x1"}, BadOption),
    ],
)
def test_errors_come_through_in_their_words(
    asked: dict[str, str], kind: type[PawMatchError], served: str, dog: Path
) -> None:
    with pytest.raises(kind) as caught:
        remote.Line(served).ask("explain", dog.read_bytes(), **asked)
    assert str(caught.value).endswith(".")


def test_what_is_no_picture_or_no_place_is_refused(
    served: str, page: Handlers, dog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = remote.Line(served)
    with pytest.raises(BrokenImage):
        line.ask("predict", dog.read_bytes()[:300])
    with pytest.raises(BadOption, match="There is nothing here"):
        line.ask("weights", b"")
    monkeypatch.setattr(tier, "MAX_MB", 0)
    with pytest.raises(PawMatchError, match="larger than the 0 MB"):
        line.ask("predict", dog.read_bytes())


def test_pictures_are_there_for_who_asks(served: str, dog: Path) -> None:
    values = remote.Line(served).ask("explain", dog.read_bytes(), overlays="png")
    for data in values["overlays"].values():
        assert Image.open(BytesIO(base64.b64decode(data))).size == (240, 180)


def test_a_tier_that_is_away_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSE", 0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Busy, match="cannot be reached just now"):
        remote.Line(f"http://127.0.0.1:{port}").ask("models")


def test_a_replica_is_healthy_once_it_has_its_models(tiny_settings: Settings) -> None:
    found = tier.Tier(replace(tiny_settings, sources={"breed": "nowhere"}))
    with pytest.raises(RuntimeError, match="no models for breed"):
        found.check_health()
