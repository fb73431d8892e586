"""Handlers: requests in, plain values out, and errors that are fit for a visitor."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pawmatch.errors import (
    BadOption,
    CheckpointNotFound,
    ImageError,
    ImageNotFound,
    PawMatchError,
    UnknownLabel,
    UnknownTask,
)
from pawmatch.tasks import TASKS
from pawmatch.ui.handlers import (
    CHOOSE_AGAIN,
    CHOOSE_PHOTO,
    HOW_TO_SEND,
    MOST_PHOTOS,
    NO_MODEL,
    OUR_FAULT,
    SHOWN_SIDE,
    Handlers,
    Unavailable,
)
from pawmatch.ui.inference import Classifiers
from tests.ui.pretend import PretendClassifier, as_upload


@pytest.fixture
def handlers(classifiers: Classifiers) -> Handlers:
    return Handlers(classifiers)


def test_predict_gives_the_json_of_the_design(handlers: Handlers, upload: dict[str, Any]) -> None:
    answer = handlers.predict(upload)
    assert list(answer) == [
        *("task", "model", "verdict", "predictions", "review", "candidates_90", "group", "looks_like"),
        *("boxes", "variants", "timing_ms", "warnings"),
    ]
    assert answer["verdict"] == {"code": "answer", "text": "Border Collie"}
    assert answer["predictions"][0] == {"label": "Border_Collie", "name": "Border Collie", "confidence": 0.7}
    json.dumps(answer)


def test_no_folder_of_the_server_gets_out(handlers: Handlers, upload: dict[str, Any]) -> None:
    answers = [handlers.predict(upload), handlers.explain(upload)[0], *handlers.predict_batch([upload])]
    answers += handlers.models()
    answers.append(handlers.examine(upload, "breed", None).json)
    for answer in answers:
        assert answer["model"]["source"] == "breed/cnn"
        assert "/srv" not in json.dumps(answer)


@pytest.mark.parametrize("top_k", [3, 3.0])
def test_top_k_reaches_the_classifier(
    handlers: Handlers, pretender: PretendClassifier, upload: dict[str, Any], top_k: float
) -> None:
    handlers.predict(upload, "breed", top_k)
    assert pretender.calls == [("predict", 3)]


@pytest.mark.parametrize("top_k", ["3", 2.5, True, [], float("nan"), float("inf"), {"a": 1}])
def test_a_top_k_that_is_no_count_is_refused(handlers: Handlers, upload: dict[str, Any], top_k: Any) -> None:
    with pytest.raises(BadOption, match=r"^top_k is "):
        handlers.predict(upload, "breed", top_k)


@pytest.mark.parametrize("task", ["cat", "", 3, ["breed"], {"task": "breed"}])
def test_an_unknown_task_is_named(handlers: Handlers, upload: dict[str, Any], task: Any) -> None:
    for ask in (handlers.predict, handlers.explain):
        with pytest.raises(UnknownTask, match="use breed, artist or artist-chae"):
            ask(upload, task)


def test_nothing_chosen_asks_for_a_photo(handlers: Handlers) -> None:
    for ask in (handlers.predict, handlers.explain, handlers.predict_batch):
        with pytest.raises(ImageNotFound) as caught:
            ask(None)
        assert str(caught.value) == CHOOSE_PHOTO
    with pytest.raises(ImageNotFound, match=CHOOSE_PHOTO):
        handlers.predict_batch([])


@pytest.mark.parametrize(
    "image",
    [
        "/etc/passwd",
        b"bytes",
        7,
        ["/etc/passwd"],
        {"path": "/etc/passwd"},
        {"path": "/etc/passwd", "meta": {"_type": "something.Else"}},
        {"path": "/etc/passwd", "meta": "gradio.FileData"},
        {"path": 7, "meta": {"_type": "gradio.FileData"}},
    ],
)
def test_only_what_gradio_has_checked_is_opened(handlers: Handlers, image: Any) -> None:
    for ask in (handlers.predict, handlers.explain, lambda it: handlers.predict_batch([it])):
        with pytest.raises(ImageNotFound) as caught:
            ask(image)
        assert str(caught.value) == HOW_TO_SEND


def test_an_upload_that_was_cleaned_up_is_asked_for_again(handlers: Handlers, tmp_path: Path) -> None:
    with pytest.raises(ImageNotFound) as caught:
        handlers.predict(as_upload(tmp_path / "gone.jpg"))
    assert str(caught.value) == CHOOSE_AGAIN


def test_a_file_that_is_no_picture_is_refused_without_its_path(handlers: Handlers, tmp_path: Path) -> None:
    path = tmp_path / "notes.jpg"
    path.write_text("hello")
    with pytest.raises(ImageError) as caught:
        handlers.predict(as_upload(path))
    assert str(tmp_path) not in str(caught.value)


def test_a_batch_keeps_order_and_reports_failures(
    handlers: Handlers, upload: dict[str, Any], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff\xe0nothing")
    results = handlers.predict_batch([upload, as_upload(bad), upload], "breed", 2)
    assert [next(iter(result)) for result in results] == ["task", "error", "task"]
    error = results[1]["error"]
    assert set(error) == {"code", "message"}
    assert str(tmp_path) not in error["message"]


def test_a_batch_has_an_end(handlers: Handlers, upload: dict[str, Any]) -> None:
    with pytest.raises(BadOption, match=f"at most {MOST_PHOTOS}"):
        handlers.predict_batch([upload] * (MOST_PHOTOS + 1))


def test_explain_gives_one_overlay_per_variant_and_none_for_one_that_is_missing(
    handlers: Handlers, upload: dict[str, Any]
) -> None:
    answer, cnn, transformer, mfe = handlers.explain(upload, "breed", "Akita")
    assert answer["explanation"]["label"] == "Akita"
    assert isinstance(cnn, Image.Image)
    assert isinstance(transformer, Image.Image)
    assert mfe is None


@pytest.mark.parametrize("label", [None, ""])
def test_no_label_means_the_first_choice(handlers: Handlers, upload: dict[str, Any], label: Any) -> None:
    assert handlers.explain(upload, "breed", label)[0]["explanation"]["label"] == "Border_Collie"


@pytest.mark.parametrize("label", ["Wolpertinger", 7, ["Akita"]])
def test_an_unknown_label_is_named(handlers: Handlers, upload: dict[str, Any], label: Any) -> None:
    with pytest.raises(UnknownLabel):
        handlers.explain(upload, "breed", label)


def test_unexpected_errors_are_logged_and_say_nothing(
    handlers: Handlers, pretender: PretendClassifier, upload: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    pretender.failure = RuntimeError("cannot open /srv/secret/weights")
    asks = (
        lambda: handlers.predict(upload),
        lambda: handlers.explain(upload),
        lambda: handlers.predict_batch([upload]),
        lambda: handlers.examine(upload, "breed", None),
    )
    for ask in asks:
        caplog.clear()
        with pytest.raises(Unavailable) as caught:
            ask()
        assert str(caught.value) == OUR_FAULT
        assert "cannot open" in caplog.text


def test_a_model_that_cannot_be_loaded_is_the_operators_business(
    upload: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(task: str) -> Any:
        raise CheckpointNotFound(f"There is no checkpoint in /srv/secret/{task}.")

    handlers = Handlers(Classifiers(fail, TASKS))
    with pytest.raises(Unavailable) as caught:
        handlers.predict(upload)
    assert str(caught.value) == NO_MODEL
    assert "/srv/secret/breed" in caplog.text
    assert handlers.models() == [
        {"task": task, "error": {"code": "Unavailable", "message": NO_MODEL}} for task in TASKS
    ]


def test_models_lists_what_is_on_offer(handlers: Handlers, pretender: PretendClassifier) -> None:
    pretender.notice = "The bundled weights answer."
    found = handlers.models()
    assert [(entry["task"], entry["name"]) for entry in found] == [
        (task.name, task.title) for task in TASKS.values()
    ]
    breed = found[0]
    assert breed["labels"] == list(pretender.labels)
    assert breed["variants"] == ["cnn", "cnn_transformer"]
    assert breed["notice"] == "The bundled weights answer."


def test_the_page_holds_a_small_copy_and_no_overlays(handlers: Handlers, tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    Image.new("RGB", (2000, 1500), "tan").save(path)
    shown = handlers.examine(as_upload(path), "breed", None)
    assert max(shown.photo.size) == SHOWN_SIDE
    assert shown.explanation.overlays == {}
    assert {heatmap.size for heatmap in shown.explanation.heatmaps.values()} == {shown.photo.size}
    assert shown.json["explanation"]["label"] == "Border_Collie"


def test_the_page_says_how_the_file_was_read(handlers: Handlers, tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 60)).save(path, exif=exif)
    prediction = handlers.examine(as_upload(path), "breed", None).explanation.prediction
    assert prediction.warnings == ("Image was rotated according to its EXIF tag",)
    assert prediction.timing_ms["decode"] >= 0


def test_a_lent_gpu_wraps_the_computing_and_passes_errors_through(
    classifiers: Classifiers, pretender: PretendClassifier, upload: dict[str, Any], tmp_path: Path
) -> None:
    """The wrapped function runs elsewhere: what goes in and out must survive pickling, errors too."""
    import pickle

    results: list[Any] = []

    def on_gpu(compute: Any) -> Any:
        def call(*arguments: Any) -> Any:
            results.append(pickle.loads(pickle.dumps(compute(*pickle.loads(pickle.dumps(arguments))))))
            return results[-1]

        return call

    handlers = Handlers(classifiers, on_gpu)
    handlers.predict(upload)
    handlers.explain(upload)
    handlers.predict_batch([upload])
    handlers.examine(upload, "breed", None)
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    with pytest.raises(ImageError):
        handlers.predict(as_upload(text))
    assert len(results) == 5
    assert isinstance(results[-1], PawMatchError)


def test_two_visitors_wait_for_one_load() -> None:
    loads: list[str] = []
    begun = threading.Event()
    finish = threading.Event()

    def load(task: str) -> Any:
        loads.append(task)
        begun.set()
        finish.wait(5)
        return PretendClassifier()

    classifiers = Classifiers(load, ("breed",))
    found: list[Any] = []
    visitors = [threading.Thread(target=lambda: found.append(classifiers.get("breed"))) for _ in range(4)]
    for visitor in visitors:
        visitor.start()
    begun.wait(5)
    assert not classifiers.is_ready("breed")
    finish.set()
    for visitor in visitors:
        visitor.join(5)
    assert loads == ["breed"]
    assert len({id(classifier) for classifier in found}) == 1


def test_a_failed_load_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    failures = [CheckpointNotFound("Not yet.")]

    def load(task: str) -> Any:
        if failures:
            raise failures.pop()
        return PretendClassifier()

    classifiers = Classifiers(load, ("breed",))
    with caplog.at_level(logging.ERROR):
        classifiers.warm_up()
    assert "Not yet." in caplog.text
    assert not classifiers.is_ready("breed")
    classifiers.warm_up()
    assert classifiers.is_ready("breed")


def test_retry_replaces_a_fallback() -> None:
    notices = [None, "The bundled weights answer."]
    classifiers = Classifiers(lambda task: PretendClassifier(notice=notices.pop()), ("breed",))  # type: ignore[arg-type,return-value]
    handlers = Handlers(classifiers)
    assert handlers.notice("breed") is None  # not loaded yet
    classifiers.warm_up()
    assert handlers.notice("breed") == "The bundled weights answer."
    handlers.retry("breed")
    assert handlers.notice("breed") is None
