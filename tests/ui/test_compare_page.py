"""The page "Compare": its questions, its steps, its result, and what must not be lost or shown."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from pawmatch.classifier import Classifier
from pawmatch.errors import CheckpointNotFound
from pawmatch.labels import display_name
from pawmatch.phrasing import percent
from pawmatch.settings import Settings
from pawmatch.ui.compare import ComparePage
from pawmatch.ui.faults import OUR_FAULT
from pawmatch.ui.handlers import CHOOSE_PHOTOS, HOW_TO_SEND, NO_MODEL, Handlers
from pawmatch.ui.inference import Classifiers
from pawmatch.ui.speech import speaking
from tests.ui.conftest import ONE_TASK, in_loop
from tests.ui.test_html import spaced


def page_of(classifiers: Classifiers) -> ComparePage:
    def build() -> ComparePage:
        with gr.Blocks():
            return ComparePage(Handlers(classifiers), Settings(), [])

    return in_loop(build)


@pytest.fixture
def page(classifiers: Classifiers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ComparePage:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    return page_of(classifiers)


def test_progress_then_the_comparison(page: ComparePage, upload: dict[str, Any], breed: Classifier) -> None:
    first, second, last = page.compare([upload, upload], "breed", "")
    assert "Photo 1 of 2: photo.png" in first[page.card]
    assert 'value="0.000"' in first[page.card]
    assert 'value="0.500"' in second[page.card]

    found = breed.predict(upload["path"]).variants
    cells = re.findall(r"<td>([^<]+)</td>", spaced(last[page.card]))
    assert cells[:2] == [percent(found[0].confidence)] * 2
    same = sum(one.label == other.label for one, other in ((found[0], found[1]),)) * 2
    assert cells[9] == f"{same} of 2"
    tables = spaced(last[page.tables])
    assert tables.count('<article class="photo">') == 2
    assert [percent(answer.confidence) in tables for answer in found] == [True] * 3
    addresses = re.findall(r'<img src="gradio_api/file=([^"]+)"', tables)
    assert [Path(address).name for address in addresses[:2]] == [
        "pawmatch-cnn.jpg",
        "pawmatch-cnn_transformer.jpg",
    ]
    with Image.open(addresses[0]) as drawn:
        assert drawn.format == "JPEG"
    packed = re.search(r'href="data:application/json;base64,([^"]+)"', tables)
    assert packed
    values = json.loads(base64.b64decode(packed[1]))
    assert (values["task"], values["images"], values["failed"]) == ("breed", 2, [])
    assert values["per_image"][0]["file"] == "photo.png"


def test_models_that_are_not_there_yet_are_loaded_and_that_is_said(
    breed: Classifier, upload: dict[str, Any]
) -> None:
    page = page_of(Classifiers(lambda task: breed, ONE_TASK))
    loading = next(page.compare([upload], "breed", ""))
    assert "Loading the models" in loading[page.card]


def test_a_known_truth_marks_right_answers(
    page: ComparePage, upload: dict[str, Any], breed: Classifier
) -> None:
    truth = breed.predict(upload["path"]).variants[0].label
    explanation = breed.explain(upload["path"], truth)
    *_, last = page.compare([upload], "breed", truth)
    wrong = [answer for answer in explanation.prediction.variants if answer.label != truth]
    tables = spaced(last[page.tables])
    assert tables.count('aria-label="right"') == 3 - len(wrong)
    for answer in wrong:  # how sure it is of the truth
        assert f": {percent(explanation.heatmaps[answer.variant].confidence)}" in tables


def test_a_photo_that_cannot_be_used_does_not_stop_the_others(
    page: ComparePage, upload: dict[str, Any], text_file: dict[str, Any], tmp_path: Path
) -> None:
    gone = {"path": str(tmp_path / "gone.jpg"), "orig_name": "gone.jpg", "meta": upload["meta"]}
    *_, last = page.compare([text_file, upload, gone], "breed", "")
    items = re.findall(r"<li><b>([^<]+)</b>: ([^<]+)</li>", last[page.card])
    assert [name for name, _ in items] == ["notes &lt;b&gt;.jpg", "gone.jpg"]
    assert all(sentence.endswith(".") for _, sentence in items)
    assert "on this photo" in last[page.card]
    assert str(tmp_path) not in last[page.card]


def test_no_photo_that_can_be_used(page: ComparePage, text_file: dict[str, Any]) -> None:
    *_, last = page.compare([text_file], "breed", "")
    assert "None of these photos can be used" in last[page.card]
    assert 'role="alert"' in last[page.card]
    assert last[page.tables] == ""


@pytest.mark.parametrize(
    ("photos", "task", "truth", "sentence"),
    [
        (None, "breed", "", CHOOSE_PHOTOS),
        ([], "breed", "", CHOOSE_PHOTOS),
        ("/etc/passwd", "breed", "", HOW_TO_SEND),
        ([{}] * 13, "breed", "", "13 photos are too many; choose at most 12."),
        ([{}], "cat", "", "Task &#x27;cat&#x27; is unknown; use breed, artist or artist-chae."),
        ([{}], "breed", "Wolpertinger", "&#x27;Wolpertinger&#x27; is not among the 5 classes"),
        ([{}], ["breed"], "", "is unknown"),
    ],
)
def test_a_wrong_question_is_answered_in_place(
    page: ComparePage, photos: Any, task: Any, truth: Any, sentence: str
) -> None:
    *_, last = page.compare(photos, task, truth)
    assert "That did not work" in last[page.card]
    assert sentence in last[page.card]
    assert last[page.tables] == ""


@pytest.mark.parametrize("image", ["/etc/passwd", {"path": "/etc/passwd"}, 7, None])
def test_only_what_gradio_has_checked_is_opened(page: ComparePage, image: Any) -> None:
    *_, last = page.compare([image], "breed", "")
    assert "None of these photos can be used" in last[page.card]
    assert "passwd" not in last[page.card]


def test_unexpected_errors_stay_inside(
    page: ComparePage, upload: dict[str, Any], fail: Callable[[Exception], None]
) -> None:
    fail(RuntimeError("cannot open /srv/secret"))
    *_, last = page.compare([upload], "breed", "")
    assert OUR_FAULT in last[page.card]
    assert "secret" not in last[page.card]


def test_a_model_that_cannot_be_loaded_is_said(upload: dict[str, Any]) -> None:
    def refuse(task: str) -> Any:
        raise CheckpointNotFound("There is no checkpoint in /srv/secret.")

    page = page_of(Classifiers(refuse, ONE_TASK))
    *_, last = page.compare([upload], "breed", "")
    assert NO_MODEL in last[page.card]
    assert page.truths("breed") == []


def test_the_task_decides_which_truths_there_are(page: ComparePage, breed: Classifier) -> None:
    assert "Nothing compared yet" in page.change_task()[page.card]
    with speaking("de"):
        names = page.truths("breed")
    assert names == sorted(display_name(label, "de") for label in breed.labels)


def test_a_file_that_was_not_sent_is_explained_in_place(page: ComparePage) -> None:
    event: Any = SimpleNamespace(name="notes.pdf", size=9)
    assert "notes.pdf is no picture" in page.refuse(event)[page.card]
