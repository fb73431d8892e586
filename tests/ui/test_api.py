"""The API through the real Gradio client, against the real service with tiny random models."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from pawmatch.settings import Settings
from pawmatch.ui.inference import MAX_BATCH, Classifiers
from pawmatch.ui.server import BUSY
from tests.ui.conftest import ONE_TASK, TASKS, running

VARIANTS = ["cnn", "cnn_transformer", "cnn_transformer_mfe"]


@pytest.fixture(scope="session")
def client(service: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = Client(service, verbose=False, download_files=tmp_path_factory.mktemp("downloads"))
    yield client
    client.close()


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory, photo_maker: Callable[[], Image.Image]) -> Path:
    """A file whose name is as odd as names get."""
    path = tmp_path_factory.mktemp("photos") / "my <b>dog & 'me' été.png"
    photo_maker().save(path)
    return path


def refused(client: Client, *arguments: Any, api_name: str, **named: Any) -> str:
    """The one sentence that a wrong call is answered with."""
    with pytest.raises(AppError) as caught:
        client.predict(*arguments, api_name=api_name, **named)
    message = str(caught.value.message)
    assert message.endswith((".", "?"))
    assert ". " not in message.rstrip(".")
    assert "/" not in message.replace("/predict", "")
    assert "Traceback" not in message
    return message


def test_only_the_four_endpoints_are_public(service: str) -> None:
    info = httpx.get(f"{service}gradio_api/info", timeout=60).json()
    assert list(info["named_endpoints"]) == ["/predict", "/explain", "/predict_batch", "/models"]
    assert info["unnamed_endpoints"] == {}
    parameters = {
        name: [
            (entry["parameter_name"], entry["parameter_has_default"], entry["parameter_default"])
            for entry in endpoint["parameters"]
        ]
        for name, endpoint in info["named_endpoints"].items()
    }
    image, task, top_k = ("image", False, None), ("task", True, "breed"), ("top_k", True, 5)
    assert parameters == {
        "/predict": [image, task, top_k, ("facts", True, None), ("words", True, None)],
        "/explain": [image, task, ("label", True, None)],
        "/predict_batch": [("images", False, None), task, top_k],
        "/models": [],
    }


def test_predict_with_and_without_defaults(client: Client, picture: Path) -> None:
    answer = client.predict(handle_file(picture), api_name="/predict")
    assert answer["task"] == "breed"
    assert answer["model"]["variant"] == "cnn_transformer_mfe"
    assert answer["model"]["source"] == "breed/cnn_transformer_mfe"
    assert len(answer["predictions"]) == min(5, answer["model"]["classes"])
    assert set(answer["predictions"][0]) == {"label", "name", "confidence"}
    confidences = [entry["confidence"] for entry in answer["predictions"]]
    assert confidences == sorted(confidences, reverse=True)
    assert set(answer["review"]) == {"needed", "reasons", "threshold"}
    assert all(set(reason) == {"code", "message"} for reason in answer["review"]["reasons"])
    assert answer["candidates_90"]
    assert [entry["variant"] for entry in answer["variants"]] == VARIANTS
    assert {"decode", "features", "head"} <= set(answer["timing_ms"])
    assert answer["warnings"] == []

    for task in TASKS:
        other = client.predict(image=handle_file(picture), task=task, top_k=2, api_name="/predict")
        assert other["task"] == task
        assert other["model"]["source"] == f"{task}/cnn_transformer_mfe"
        assert len(other["predictions"]) == 2


def test_predict_takes_facts_and_says_what_to_ask(client: Client, picture: Path, service: str) -> None:
    photo = handle_file(picture)
    plain = client.predict(photo, "breed", 5, api_name="/predict")
    question = plain["question"]
    assert plain["facts"] == []
    assert question["text"].endswith("?")
    value = question["choices"][0]["value"]
    given = client.predict(photo, "breed", 5, {question["attribute"]: value}, api_name="/predict")
    assert [(one["attribute"], one["value"]) for one in given["facts"]] == [(question["attribute"], value)]
    assert given["predictions"] != plain["predictions"]
    again = client.predict(photo, "breed", 5, {}, api_name="/predict")
    assert again["predictions"] == plain["predictions"]
    assert "'huge'; use tiny" in refused(client, photo, "breed", 5, {"size": "huge"}, api_name="/predict")
    assert "facts is 'small'" in refused(client, photo, "breed", 5, "small", api_name="/predict")
    said = client.predict(photo, "breed", words="A <b>small</b> dog {}", api_name="/predict")
    assert [(one["attribute"], one["value"]) for one in said["facts"]] == [("size", "small")]
    both = client.predict(photo, "breed", 5, {"coat": "long"}, "small", api_name="/predict")
    assert {one["attribute"] for one in both["facts"]} == {"size", "coat"}
    assert "at most 300" in refused(client, photo, "breed", 5, None, "x" * 301, api_name="/predict")
    assert "facts is no object" in refused(client, photo, "breed", 5, "small", "small", api_name="/predict")
    # Calls over plain HTTP that were written before there were facts.
    with picture.open("rb") as file:
        (path,) = httpx.post(f"{service}gradio_api/upload", files={"files": file}, timeout=60).json()
    body = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, "breed", 5]}
    asked = httpx.post(f"{service}gradio_api/call/predict", json=body, timeout=60).json()["event_id"]
    told = httpx.get(f"{service}gradio_api/call/predict/{asked}", timeout=60).text
    assert json.loads(told.split("data: ")[-1])[0]["predictions"] == plain["predictions"]


def test_explain_gives_overlays_of_the_photos_size(client: Client, picture: Path) -> None:
    answer, *overlays = client.predict(handle_file(picture), api_name="/explain")
    assert answer["explanation"]["label"] == answer["predictions"][0]["label"]
    assert list(answer["explanation"]["heatmaps"]) == VARIANTS
    assert len(overlays) == 3
    for overlay in overlays:
        with Image.open(overlay) as image:
            assert (image.format, image.size) == ("JPEG", (240, 180))

    named, *_ = client.predict(handle_file(picture), "breed", "border collie", api_name="/explain")
    assert named["explanation"]["name"] == "Border Collie"


def test_predict_batch_keeps_order_and_reports_failures(
    client: Client, picture: Path, tmp_path: Path
) -> None:
    text = tmp_path / "notes.jpg"
    text.write_text("no picture")
    files = [handle_file(picture), handle_file(text), handle_file(picture)]
    good, bad, again = client.predict(files, "breed", 2, api_name="/predict_batch")
    assert len(good["predictions"]) == 2
    assert good["predictions"] == again["predictions"]
    assert set(bad) == {"error"}
    assert set(bad["error"]) == {"code", "message"}
    assert str(tmp_path) not in json.dumps(bad)
    assert len(client.predict(files[:1], api_name="/predict_batch")) == 1


def test_models_lists_all_tasks(client: Client) -> None:
    found = client.predict(api_name="/models")
    assert [entry["task"] for entry in found] == list(TASKS)
    for entry in found:
        assert entry["variants"] == VARIANTS
        assert len(entry["labels"]) == entry["model"]["classes"]
        assert entry["notice"] is None


def test_wrong_requests_get_one_clear_sentence(client: Client, picture: Path, tmp_path: Path) -> None:
    photo = handle_file(picture)
    text = tmp_path / "notes.jpg"
    text.write_text("no picture")
    assert refused(client, None, api_name="/predict") == "Please choose a photo first."
    assert refused(client, [], api_name="/predict_batch") == "Please choose a photo first."
    assert "'cat' is unknown" in refused(client, photo, "cat", api_name="/predict")
    assert "top_k is 0" in refused(client, photo, "breed", 0, api_name="/predict")
    assert "top_k is 'many'" in refused(client, photo, "breed", "many", api_name="/predict")
    assert "did you mean Beagle" in refused(client, photo, "breed", "beagel", api_name="/explain")
    refused(client, handle_file(text), api_name="/predict")
    refused(client, handle_file(text), api_name="/explain")


@pytest.mark.parametrize("name", ["/predict", "/explain"])
def test_paths_that_were_not_uploaded_are_refused(client: Client, name: str) -> None:
    """A forgotten handle_file is explained; a path of the server, dressed up or not, opens nothing."""
    for image in ("/etc/passwd", {"path": "/etc/passwd"}, ["x"]):
        message = refused(client, image, api_name=name)
        assert "handle_file" in message


def test_a_path_dressed_up_as_an_upload_is_refused_by_gradio(service: str) -> None:
    image = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    started = httpx.post(f"{service}gradio_api/call/predict", json={"data": [image, "breed", 5]}, timeout=60)
    events = httpx.get(f"{service}gradio_api/call/predict/{started.json()['event_id']}", timeout=60).text
    assert "event: error" in events
    assert "passwd" not in events


def test_the_page_that_compares_adds_nothing_to_the_api(client: Client, service: str) -> None:
    assert httpx.get(f"{service}compare", timeout=60).status_code == 200
    with pytest.raises(ValueError, match="Cannot find a function"):
        client.predict([], "breed", "", api_name="/compare")


def test_a_forged_upload_is_refused_by_the_page_that_compares(service: str) -> None:
    """Its event can be reached like those of any page; the server's files cannot."""
    config = httpx.get(f"{service}config", timeout=60).json()
    own = config["page"]["compare"]["dependencies"]
    number = next(
        entry["id"] for entry in config["dependencies"] if entry["id"] in own and len(entry["inputs"]) == 3
    )
    image = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}, "orig_name": "dog.jpg"}
    question = {"data": [[image], "breed", ""], "fn_index": number, "session_hash": "forged"}
    assert httpx.post(f"{service}gradio_api/queue/join", json=question, timeout=60).status_code == 200
    with httpx.stream(
        "GET", f"{service}gradio_api/queue/data", params={"session_hash": "forged"}, timeout=60
    ) as events:
        said = "".join(events.iter_text())
    assert "process_completed" in said
    assert "passwd" not in said
    assert "root:" not in said


def test_markup_in_a_request_comes_back_escaped(client: Client, picture: Path) -> None:
    message = refused(client, handle_file(picture), "breed", "<b>", api_name="/explain")
    assert "<b>" not in message
    assert "&lt;b&gt;" in message


def test_eight_threads_get_the_answers_of_one(service: str, client: Client, picture: Path) -> None:
    def confidences(answer: Any) -> dict[str, float]:
        return {entry["label"]: entry["confidence"] for entry in answer["predictions"]}

    expected = confidences(client.predict(handle_file(picture), api_name="/predict"))

    def ask(number: int) -> list[dict[str, float]]:
        # A client each: threads that share one share its event stream, and gradio_client cancels what is
        # submitted between the server's closing of that stream and the client's hearing of it.
        own = Client(service, verbose=False)
        return [
            confidences(own.predict(handle_file(picture), api_name="/predict")),
            confidences(own.predict(handle_file(picture), api_name="/explain")[0]),
        ]

    with ThreadPoolExecutor(8) as pool:
        answers = [answer for pair in pool.map(ask, range(8)) for answer in pair]
    for answer in answers:
        assert list(answer) == list(expected)
        assert answer == pytest.approx(expected, abs=1e-6)


def test_the_queue_cannot_be_gone_around(service: str) -> None:
    for way in ("run", "api"):
        assert (
            httpx.post(f"{service}gradio_api/{way}/models", json={"data": []}, timeout=60).status_code == 403
        )


def test_health_and_readiness(service: str) -> None:
    assert httpx.get(f"{service}healthz", timeout=60).text == "ok"
    assert httpx.get(f"{service}readyz", timeout=60).status_code == 200


def test_what_is_closed_stays_closed(service: str) -> None:
    assert httpx.get(f"{service}monitoring", timeout=60).status_code == 403
    assert httpx.get(f"{service}gradio_api/file=/etc/passwd", timeout=60).status_code == 403
    assert httpx.get(f"{service}gradio_api/file=pyproject.toml", timeout=60).status_code in (403, 404)


def test_too_large_a_file_is_refused_before_it_is_read(service: str) -> None:
    large = b"\xff\xd8" + bytes(21 * 2**20)
    response = httpx.post(f"{service}gradio_api/upload", files={"files": ("large.jpg", large)}, timeout=60)
    assert response.status_code == 413


def test_a_full_queue_says_so_and_readiness_waits_for_the_models(tmp_path: Path) -> None:
    release = threading.Event()

    def load(task: str) -> Any:
        release.wait(240)
        raise RuntimeError("never loaded")

    with running(Settings(queue_size=1), Classifiers(load, ONE_TASK), tmp_path) as address:
        waiting = httpx.get(f"{address}readyz", timeout=60)
        assert (waiting.status_code, waiting.text) == (503, "loading breed")
        refusals = []
        for _ in range(MAX_BATCH + 6):
            response = httpx.post(f"{address}gradio_api/call/models", json={"data": []}, timeout=60)
            if response.status_code != 200:
                refusals.append((response.status_code, response.json()["detail"]))
        release.set()
    assert refusals
    assert set(refusals) == {(503, BUSY)}
