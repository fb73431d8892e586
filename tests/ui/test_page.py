"""What an event changes on the page: everything of the last answer goes, and no error gets lost."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from pawmatch.classifier import Classifier, load
from pawmatch.errors import CheckpointNotFound
from pawmatch.labels import VARIANT_NAMES
from pawmatch.settings import Settings
from pawmatch.ui.faults import OUR_FAULT
from pawmatch.ui.handlers import EXAMPLES, NO_MODEL, Handlers
from pawmatch.ui.inference import SHOWN_SIDE, Classifiers
from pawmatch.ui.page import PhotoPage, refused_file
from tests.ui.conftest import ONE_TASK, as_upload, in_loop


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))


def page_of(classifiers: Classifiers) -> PhotoPage:
    def build() -> PhotoPage:
        with gr.Blocks():
            return PhotoPage(Handlers(classifiers), Settings(), [])

    return in_loop(build)


@pytest.fixture
def page(classifiers: Classifiers) -> PhotoPage:
    return page_of(classifiers)


def look(page: PhotoPage, image: Any, task: Any = "breed") -> list[dict[Any, Any]]:
    return list(page.look(image, task, "jet", 0.5))


def test_the_answer_comes_before_the_heatmaps(
    page: PhotoPage, upload: dict[str, Any], breed: Classifier
) -> None:
    working, answer, maps = look(page, upload)
    assert "Looking at the photo" in working[page.answer]
    assert list(working) == [page.answer]
    assert set(answer) == set(page.outputs)
    expected = breed.predict(upload["path"])
    assert expected.top.name in answer[page.answer]
    first = re.findall(r'data-label="(\w+)"', answer[page.why])[:5]
    assert first == [one.label for one in expected.predictions]  # the likeliest come first
    assert 'class="wait"' in answer[page.maps]
    assert "<img" not in answer[page.maps]
    assert "explanation" not in answer[page.json]

    assert maps[page.figure].count("<svg") == 1
    assert "Fusion" in maps[page.figure]
    assert page.answer not in maps  # it stands, and so does the field where a visitor may be typing
    assert page.why not in maps
    assert maps[page.json]["explanation"]["label"] == expected.top.label
    for variant in VARIANT_NAMES:
        assert f"pawmatch-{variant}.jpg" in maps[page.maps]
    assert maps[page.maps].count('alt="The photo') == 3
    assert "wait" not in maps[page.maps]


def test_models_that_are_not_there_yet_are_loaded_and_that_is_said(
    breed: Classifier, upload: dict[str, Any]
) -> None:
    page = page_of(Classifiers(lambda task: breed, ONE_TASK))
    assert "Loading the models" in look(page, upload)[0][page.answer]
    assert len(look(page, upload)) == 3


def test_a_source_without_one_of_the_models_leaves_its_place_empty(
    tiny_checkpoints: Callable[..., Path], tmp_path: Path, upload: dict[str, Any]
) -> None:
    for variant in ("cnn", "cnn_transformer"):
        (tmp_path / variant).symlink_to(tiny_checkpoints("breed") / variant)
    page = page_of(Classifiers(lambda task: load(task, tmp_path, "cpu", "torch"), ONE_TASK))
    *_, maps = look(page, upload)
    assert maps[page.maps].count("<img") == 2
    assert "without this model" in maps[page.maps]


def test_no_photo_is_an_invitation(page: PhotoPage) -> None:
    (only,) = look(page, None, "artist")
    assert "artists appear here" in only[page.answer]
    assert set(only) == set(page.outputs)
    assert "<img" not in only[page.maps]
    assert only[page.state] is None


@pytest.mark.parametrize("task", ["breed", "cat", None, 7, ["breed"]])
def test_an_error_leaves_nothing_of_the_last_answer(
    page: PhotoPage, text_file: dict[str, Any], task: Any
) -> None:
    *_, last = look(page, text_file, task)
    assert "That did not work" in last[page.answer]
    assert set(last) == set(page.outputs)
    assert "<img" not in last[page.maps]


@pytest.mark.parametrize(("colormap", "strength"), [("rainbow", 0.5), ("jet", 7), ("jet", None), ([], 0.5)])
def test_bad_colours_are_errors_like_others(
    page: PhotoPage, upload: dict[str, Any], colormap: Any, strength: Any
) -> None:
    *_, last = page.look(upload, "breed", colormap, strength)
    assert "That did not work" in last[page.answer]


def test_a_model_that_cannot_be_loaded_is_said(upload: dict[str, Any]) -> None:
    def fail(task: str) -> Any:
        raise CheckpointNotFound("There is no checkpoint in /srv/secret.")

    page = page_of(Classifiers(fail, ONE_TASK))
    *_, last = look(page, upload)
    assert NO_MODEL in last[page.answer]


def test_an_unexpected_error_stays_inside(
    page: PhotoPage, upload: dict[str, Any], fail: Callable[[Exception], None]
) -> None:
    fail(RuntimeError("cannot open /srv/secret"))
    *_, last = look(page, upload)
    assert OUR_FAULT in last[page.answer]


def test_another_label_and_other_colours_do_not_run_the_models_again(
    page: PhotoPage,
    upload: dict[str, Any],
    breed: Classifier,
    fail: Callable[[Exception], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = look(page, upload)[-1][page.state]
    fail(AssertionError("the models ran again"))
    monkeypatch.setattr(Classifier, "prepare", lambda *_: pytest.fail("the upload was decoded again"))
    monkeypatch.setattr("pawmatch.ui.inference.read_image", lambda *_: pytest.fail("and again"))
    for label in breed.labels:
        chosen = page.explain(upload, "breed", label, state, "jet", 0.5)
        assert chosen[page.json]["explanation"]["label"] == label
        assert page.why not in chosen  # the visitor may be about to choose another one
    drawn, restyled = chosen[page.maps], page.restyle(chosen[page.state], "viridis", 0.9)
    assert re.findall('alt="(.+?)"', restyled) == re.findall('alt="(.+?)"', drawn)
    assert set(re.findall('src="(.+?)"', restyled)).isdisjoint(re.findall('src="(.+?)"', drawn))
    assert page.restyle(None, "viridis", 0.9) == gr.skip()
    problem = page.explain(upload, "breed", "Wolpertinger", state, "jet", 0.5)
    assert "Wolpertinger" in problem[page.answer]
    assert problem[page.why] == ""


def test_an_answer_to_a_question_does_not_run_the_models_and_is_taken_back_without_a_trace(
    page: PhotoPage, upload: dict[str, Any], fail: Callable[[Exception], None]
) -> None:
    *_, answer, maps = look(page, upload)
    asked = re.findall(r'data-ask="(\w+)" data-value="(\w+)"', answer[page.answer])
    assert len(asked) > 2
    assert asked[-1][1] == "unsure"
    fail(AssertionError("the models ran again"))
    state = maps[page.state]
    for attribute, value in asked:
        told, *drawn = page.tell(upload, "breed", {attribute: value}, state, "jet", 0.5)
        assert f'data-fact="{attribute}" data-value="{value}"' in told[page.answer]
        assert f'data-ask="{attribute}"' not in told[page.answer]
        assert page.why not in told  # the visitor may be about to choose one
        first = told[page.json]["predictions"][0]["label"]
        if first == maps[page.json]["explanation"]["label"]:
            assert not drawn
        else:
            assert drawn[0][page.json]["explanation"]["label"] == first
            assert drawn[0][page.json]["facts"] == told[page.json]["facts"]
        (back,) = page.tell(upload, "breed", {}, told[page.state], "jet", 0.5)
        assert back[page.answer] == answer[page.answer]
        assert back[page.json]["predictions"] == maps[page.json]["predictions"]
    (problem,) = page.tell(upload, "breed", {"size": "huge"}, state, "jet", 0.5)
    assert "huge" in problem[page.answer]


def test_words_become_facts_to_take_back_and_what_is_not_understood_stays_to_be_mended(
    page: PhotoPage, upload: dict[str, Any]
) -> None:
    told, *_ = page.tell(upload, "breed", {"ears": "upright", "words": "Small, long coat"}, None, "jet", 0.5)
    for chip in ('ears" data-value="upright', 'size" data-value="small', 'coat" data-value="long'):
        assert f'data-fact="{chip}' in told[page.answer]
    assert "aria-invalid" not in told[page.answer]
    assert "words" not in {one["attribute"] for one in told[page.json]["facts"]}
    missed, *_ = page.tell(upload, "breed", {"ears": "upright", "words": '"><b>{x}'}, None, "jet", 0.5)
    assert missed[page.answer].count("data-fact=") == 1
    assert 'value="&quot;&gt;&lt;b&gt;&#123;x&#125;" aria-invalid="true"' in missed[page.answer]
    assert "Nothing new was understood" in missed[page.answer]
    (problem,) = page.tell(upload, "breed", {"words": ["small"]}, None, "jet", 0.5)
    assert "at most 300 characters" in problem[page.answer]


def test_facts_outlive_what_is_kept(page: PhotoPage, upload: dict[str, Any]) -> None:
    told, *_ = page.tell(upload, "breed", {"size": "small"}, None, "jet", 0.5)
    assert 'data-fact="size" data-value="small"' in told[page.answer]
    assert told[page.json]["facts"][0]["text"] == "small, 5 to 12 kg"


def test_what_is_kept_of_another_photo_is_not_explained(
    page: PhotoPage, upload: dict[str, Any], tmp_path: Path
) -> None:
    other = tmp_path / "other.png"
    Image.new("RGB", (90, 60), "tan").save(other)
    state = look(page, as_upload(other))[-1][page.state]
    for kept in (state, None):
        chosen = page.explain(upload, "breed", "Collie", kept, "jet", 0.5)
        assert chosen[page.state].path == upload["path"]
        assert chosen[page.answer]


def test_little_is_kept_of_a_photo_and_it_looks_the_same(page: PhotoPage, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    with Image.open(EXAMPLES / "beagle.jpg") as picture:
        picture.resize((2000, 1500)).save(large)
    state = look(page, as_upload(large))[-1][page.state]
    photo = state.photo()
    assert (photo.size, photo.mode) == ((SHOWN_SIDE, SHOWN_SIDE * 3 // 4), "RGB")
    assert {heatmap.size for heatmap in state.heatmaps.values()} == {photo.size}
    with Image.open(large) as picture:
        expected = np.asarray(picture.resize(photo.size), dtype=float)
    assert np.abs(np.asarray(photo, dtype=float) - expected).mean() < 5
    assert len(pickle.dumps(state)) < 500_000


def test_a_fallback_shows_its_notice_and_the_button(
    page: PhotoPage, upload: dict[str, Any], breed: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = look(page, upload)[1]
    assert (answer[page.notice], answer[page.retry].visible) == ("", False)
    page.load_intended("breed")
    assert page.handlers.classifiers.get("breed") is breed  # nothing was wrong
    monkeypatch.setattr(breed, "notice", "The bundled weights answer.")
    answer = look(page, upload)[1]
    assert "The bundled weights answer." in answer[page.notice]
    assert answer[page.retry].visible


@pytest.mark.parametrize(
    ("name", "size", "sentence"),
    [
        ("IMG_1.HEIC", 900, "IMG_1.HEIC: This is a HEIC photo; export it."),
        ("/home/ann/large.jpg", 30 * 2**20, "large.jpg is larger than 20 MB; save it smaller, or choose"),
        ("notes.pdf", 900, "notes.pdf is no picture; choose a photo as JPEG, PNG or WebP."),
        ({"x": 1}, None, "is no picture"),
    ],
)
def test_a_file_that_was_not_sent_is_explained_in_place(
    page: PhotoPage, name: Any, size: Any, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As where the extra that reads them is not installed.
    monkeypatch.setattr("pawmatch.ui.page.HEIC_REFUSED", "This is a HEIC photo; export it.")
    event: Any = SimpleNamespace(name=name, size=size)
    assert sentence in refused_file(event, 20)
    update = page.refuse("breed", event)
    assert 'role="alert"' in update[page.answer]
    assert set(update) == set(page.outputs)
