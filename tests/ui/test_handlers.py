"""Handlers: requests in, plain values out, and errors that are fit for a visitor."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pawmatch.classifier import Classifier
from pawmatch.errors import (
    BadOption,
    CheckpointNotFound,
    ImageError,
    ImageNotFound,
    UnknownLabel,
    UnknownTask,
)
from pawmatch.ui.faults import OUR_FAULT
from pawmatch.ui.handlers import (
    CHOOSE_AGAIN,
    CHOOSE_PHOTO,
    EXAMPLES,
    HOW_TO_SEND,
    MAX_PHOTOS,
    NO_MODEL,
    Example,
    Handlers,
    Unavailable,
    photo_name,
    public_info,
    read_examples,
)
from pawmatch.ui.inference import Classifiers
from tests.ui.conftest import TASKS, as_upload


def test_predict_gives_the_json_of_the_design(
    handlers: Handlers, breed: Classifier, upload: dict[str, Any]
) -> None:
    answer = handlers.predict(upload, "breed", 3.0)
    assert list(answer) == [
        *("task", "model", "verdict", "predictions", "review", "candidates_90", "group", "looks_like"),
        *("boxes", "variants", "facts", "question", "timing_ms", "warnings"),
    ]
    expected = breed.predict(upload["path"], 3)
    assert answer["verdict"] == expected.verdict.to_dict()
    assert [one["label"] for one in answer["predictions"]] == [one.label for one in expected.predictions]
    json.dumps(answer)


def test_no_folder_of_the_server_gets_out(
    handlers: Handlers, breed: Classifier, upload: dict[str, Any], tiny_weights: Path
) -> None:
    answers = [handlers.predict(upload), handlers.explain(upload)[0], *handlers.predict_batch([upload])]
    answers.append(handlers.models()[0])
    state = handlers.look(upload, "breed")
    answers += [state.seen.prediction.to_dict(), handlers.paint(state)[1].to_dict()]
    for answer in answers:
        assert answer["model"]["source"] == "/".join(Path(breed.info.source).parts[-2:])
        assert str(tiny_weights) not in json.dumps(answer)


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("/srv/secret/breed/cnn", "breed/cnn"),
        ("~/secret/breed/cnn", "breed/cnn"),
        ("~ann/breed", "breed"),
        ("../../secret/runs/breed", "runs/breed"),
        ("weights/../../secret/runs/breed", "runs/breed"),
        ("weights/breed/cnn", "weights/breed/cnn"),
        ("hf://ann/dogs@main/breed", "hf://ann/dogs@main/breed"),
        ("..", "local weights"),
        ("/", "local weights"),
    ],
)
def test_of_a_local_source_only_the_last_names_are_shown(breed: Classifier, source: str, shown: str) -> None:
    assert public_info(replace(breed.info, source=source)).source == shown


@pytest.mark.parametrize("top_k", ["3", 2.5, True, [], float("nan"), float("inf"), {"a": 1}, 0])
def test_a_top_k_that_is_no_count_is_refused(handlers: Handlers, upload: dict[str, Any], top_k: Any) -> None:
    with pytest.raises(BadOption, match=r"^top_k is "):
        handlers.predict(upload, "breed", top_k)


@pytest.mark.parametrize("task", ["cat", "", 3, ["breed"], {"task": "breed"}])
def test_an_unknown_task_is_named(handlers: Handlers, upload: dict[str, Any], task: Any) -> None:
    for ask in (handlers.predict, handlers.explain, handlers.look):
        with pytest.raises(UnknownTask, match="use breed, artist or artist-chae"):
            ask(upload, task)


def test_nothing_chosen_asks_for_a_photo(handlers: Handlers) -> None:
    for ask, nothing in ((handlers.predict, None), (handlers.explain, ""), (handlers.predict_batch, [])):
        with pytest.raises(ImageNotFound) as caught:
            ask(nothing)
        assert str(caught.value) == CHOOSE_PHOTO


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
    asks: list[Callable[[Any], Any]] = [handlers.predict, handlers.explain]
    asks += [lambda it: handlers.predict_batch([it]), lambda it: handlers.look(it, "breed")]
    for ask in asks:
        with pytest.raises(ImageNotFound) as caught:
            ask(image)
        assert str(caught.value) == HOW_TO_SEND


def test_an_upload_that_was_cleaned_up_is_asked_for_again(handlers: Handlers, tmp_path: Path) -> None:
    with pytest.raises(ImageNotFound) as caught:
        handlers.predict(as_upload(tmp_path / "gone.jpg"))
    assert str(caught.value) == CHOOSE_AGAIN


def test_a_file_that_is_no_picture_is_refused_without_its_path(
    handlers: Handlers, text_file: dict[str, Any]
) -> None:
    with pytest.raises(ImageError) as caught:
        handlers.predict(text_file)
    assert str(Path(text_file["path"]).parent) not in str(caught.value)


def test_a_batch_keeps_order_reports_failures_and_has_an_end(
    handlers: Handlers, upload: dict[str, Any], text_file: dict[str, Any]
) -> None:
    results = handlers.predict_batch([upload, text_file, upload], "breed", 2)
    assert [next(iter(result)) for result in results] == ["task", "error", "task"]
    assert set(results[1]["error"]) == {"code", "message"}
    with pytest.raises(BadOption, match=f"at most {MAX_PHOTOS}"):
        handlers.predict_batch([upload] * (MAX_PHOTOS + 1))


def test_a_photo_that_comes_twice_is_looked_at_once(
    handlers: Handlers, upload: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []
    run_models = Classifier.run_models

    def counted(classifier: Classifier, prepared: Any) -> Any:
        looked.extend(prepared)
        return run_models(classifier, prepared)

    monkeypatch.setattr(Classifier, "run_models", counted)
    answers = handlers.predict_batch([upload] * MAX_PHOTOS)
    assert (len(answers), len(looked)) == (MAX_PHOTOS, 1)
    assert all(answer == answers[0] for answer in answers)


def test_explain_gives_one_overlay_per_variant(handlers: Handlers, upload: dict[str, Any]) -> None:
    answer, *overlays = handlers.explain(upload, "breed", "collie")
    assert answer["explanation"]["label"] == "Collie"
    assert all(isinstance(picture, Image.Image) for picture in overlays)
    for label in (None, ""):
        answer = handlers.explain(upload, "breed", label)[0]
        assert answer["explanation"]["label"] == answer["predictions"][0]["label"]


@pytest.mark.parametrize("label", ["Wolpertinger", 7, ["Akita"]])
def test_an_unknown_label_is_named(handlers: Handlers, upload: dict[str, Any], label: Any) -> None:
    with pytest.raises(UnknownLabel):
        handlers.explain(upload, "breed", label)


def test_unexpected_errors_are_logged_and_say_nothing(
    handlers: Handlers,
    upload: dict[str, Any],
    fail: Callable[[Exception], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    fail(RuntimeError("cannot open /srv/secret/weights"))
    for ask in (
        lambda: handlers.predict(upload),
        lambda: handlers.explain(upload),
        lambda: handlers.predict_batch([upload]),
        lambda: handlers.look(upload, "breed"),
    ):
        caplog.clear()
        with pytest.raises(Unavailable) as caught:
            ask()
        assert str(caught.value) == OUR_FAULT
        assert "cannot open" in caplog.text


def test_a_model_that_cannot_be_loaded_is_the_operators_business(
    upload: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(task: str) -> Any:
        raise CheckpointNotFound(f"There is no checkpoint in /srv/secret/{task}.")

    handlers = Handlers(Classifiers(refuse, TASKS))
    with pytest.raises(Unavailable) as caught:
        handlers.predict(upload)
    assert str(caught.value) == NO_MODEL
    assert "/srv/secret/breed" in caplog.text
    assert handlers.models() == [
        {"task": task, "error": {"code": "Unavailable", "message": NO_MODEL}} for task in TASKS
    ]


def test_models_lists_what_is_on_offer(handlers: Handlers, breed: Classifier) -> None:
    found = handlers.models()
    assert [(entry["task"], entry["name"]) for entry in found] == [
        (task.name, task.title) for task in TASKS.values()
    ]
    assert found[0]["labels"] == list(breed.labels)
    assert found[0]["variants"] == list(breed.variants)
    assert found[0]["notice"] is None


def test_the_page_says_how_the_file_was_read(handlers: Handlers, tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 60)).save(path, exif=exif)
    state, explanation = handlers.paint(handlers.look(as_upload(path), "breed"))
    assert explanation.prediction.warnings == ("Image was rotated according to its EXIF tag",)
    assert explanation.photo.size == state.photo().size == (60, 80)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ({"orig_name": "dog.jpg"}, "dog.jpg"),
        ({"orig_name": "/srv/secret/dog.jpg"}, "dog.jpg"),
        ({"orig_name": "C:\\secret\\dog.jpg"}, "dog.jpg"),
        ({"orig_name": " "}, "Photo 3"),
        ({"orig_name": 7}, "Photo 3"),
        ("dog.jpg", "Photo 3"),
        ({"orig_name": "x" * 99}, "x" * 59 + "…"),
    ],
)
def test_a_photo_is_called_by_its_last_name(image: Any, name: str) -> None:
    assert photo_name(image, 3) == name


# --- examples


def test_every_task_has_examples_of_its_subject(handlers: Handlers) -> None:
    examples = read_examples(EXAMPLES)
    assert {example.task for example in examples} == {"breed", "artist"}
    assert len(examples[0].thumbnail()) < 30_000
    shown = {task: [example.path.name for example in handlers.examples_for(task, examples)] for task in TASKS}
    assert all(shown.values())
    assert shown["artist-chae"] == shown["artist"]
    assert not set(shown["artist"]) & set(shown["breed"])
    assert handlers.examples_for("breed", [Example(EXAMPLES / "x.jpg", "garden_bird", "A bird")]) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "{}",
        "[1]",
        '[{"file": "x.jpg"}]',
        '["file"]',
        '[{"file": "x", "task": "breed", "alt": "Gone"}]',
    ],
)
def test_a_broken_list_of_examples_costs_only_the_examples(tmp_path: Path, text: str) -> None:
    assert read_examples(tmp_path) == []
    (tmp_path / "index.json").write_text(text)
    assert read_examples(tmp_path) == []
