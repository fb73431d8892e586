"""The page "Compare": its questions, its steps, its result, and what must not be lost or shown."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from pawmatch.errors import CheckpointNotFound
from pawmatch.evaluation.compare import ImageAnswers, compare
from pawmatch.results import Review, ReviewReason, VariantAnswer
from pawmatch.ui import compare_present, compare_words
from pawmatch.ui.compare import CompareUpdates, CompareWidgets
from pawmatch.ui.handlers import (
    CHOOSE_PHOTOS,
    HOW_TO_SEND,
    MOST_COMPARED,
    NO_MODEL,
    OUR_FAULT,
    Colours,
    Handlers,
    photo_name,
)
from pawmatch.ui.inference import Classifiers
from tests.ui.pretend import PretendClassifier, as_upload
from tests.ui.test_html import EVIL, Tags, spaced

COLOURS = Colours("jet", 0.5)


@pytest.fixture
def widgets() -> CompareWidgets:
    return CompareWidgets(
        card=gr.HTML(),
        tables=gr.HTML(),
        sheets=gr.Gallery(),
        download=gr.HTML(),
        button=gr.Button(),
        truth=gr.Dropdown(),
    )


@pytest.fixture
def updates(
    classifiers: Classifiers, widgets: CompareWidgets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> CompareUpdates:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    return CompareUpdates(Handlers(classifiers), widgets, COLOURS)


@pytest.fixture
def broken(tmp_path: Path) -> dict[str, Any]:
    """A text file that calls itself a photo, as Gradio hands it over."""
    path = tmp_path / "notes <b>.jpg"
    path.write_text("no picture")
    return as_upload(path)


def test_progress_then_the_comparison(updates: CompareUpdates, upload: dict[str, Any]) -> None:
    page = updates.widgets
    loading, first, second, last = updates.compare([upload, upload], "breed", "")
    assert "Loading the models" in loading[page.card]
    assert "Photo 1 of 2: photo.jpg" in first[page.card]
    assert 'value="0.000"' in first[page.card]
    assert 'value="0.500"' in second[page.card]
    assert [step[page.button].interactive for step in (loading, first, last)] == [False, False, True]

    # The pretender's CNN says Akita, 56 %, its transformer Border Collie, 60 %.
    card = spaced(last[page.card])
    assert "The two models never all agree on these 2 photos" in card
    assert "CNN + Transformer is the surest, 60 % on average" in card
    assert re.findall(r"<td>([^<]+)</td>", card) == [
        "56 %",
        "56 %",
        "2 of 2",
        "60 %",
        "60 %",
        "2 of 2",
        "0 of 2",
    ]
    tables = spaced(last[page.tables])
    assert 'aria-label="CNN: 2 photos from 50 to 60 %"' in tables
    assert tables.count('<tr role="row"><th scope="row"') == 2
    assert tables.count("not alike") == 2
    paths = [picture["image"]["path"] for picture in last[page.sheets].value]
    assert all(Path(path).name == "pawmatch-sheet.jpg" for path in paths)
    assert last[page.sheets].visible
    with Image.open(paths[0]) as sheet:
        assert sheet.format == "JPEG"
    # Once the models are there, nothing is said about loading them.
    assert len(list(updates.compare([upload], "breed", ""))) == 2


def test_right_answers_are_marked_where_the_truth_is_known(
    updates: CompareUpdates, pretender: PretendClassifier, upload: dict[str, Any]
) -> None:
    *_, last = updates.compare([upload], "breed", "border collie")
    assert ("explain", "Border_Collie") in pretender.calls
    card, tables = spaced(last[updates.widgets.card]), spaced(last[updates.widgets.tables])
    assert re.findall(r"<td>(\d of 1)</td>", card) == ["1 of 1", "0 of 1", "1 of 1", "1 of 1", "0 of 1"]
    assert tables.count('aria-label="right"') == 1
    assert "Border Collie: 30 %" in tables  # how sure the wrong one is of the truth


def test_a_photo_that_cannot_be_used_does_not_stop_the_others(
    updates: CompareUpdates, upload: dict[str, Any], broken: dict[str, Any], tmp_path: Path
) -> None:
    gone = {"path": str(tmp_path / "gone.jpg"), "orig_name": "gone.jpg", "meta": upload["meta"]}
    page = updates.widgets
    *_, last = updates.compare([broken, upload, gone], "breed", "")
    items = re.findall(r"<li><b>([^<]+)</b>: ([^<]+)</li>", last[page.card])
    assert [name for name, _ in items] == ["notes &lt;b&gt;.jpg", "gone.jpg"]
    assert all(sentence.endswith(".") for _, sentence in items)
    assert "1 photo" in last[page.tables] or "on this photo" in last[page.card]
    assert str(tmp_path) not in last[page.card]
    assert "'path'" not in last[page.card]


def test_no_photo_that_can_be_used(updates: CompareUpdates, broken: dict[str, Any]) -> None:
    page = updates.widgets
    *_, last = updates.compare([broken], "breed", "")
    assert compare_words.EVERY_PHOTO_REFUSED in last[page.card]
    assert 'role="alert"' in last[page.card]
    assert last[page.tables] == ""
    assert last[page.button].interactive


@pytest.mark.parametrize(
    ("photos", "task", "truth", "sentence"),
    [
        (None, "breed", "", CHOOSE_PHOTOS),
        ([], "breed", "", CHOOSE_PHOTOS),
        ("/etc/passwd", "breed", "", HOW_TO_SEND),
        (
            [{}] * (MOST_COMPARED + 1),
            "breed",
            "",
            f"{MOST_COMPARED + 1} photos are too many; choose at most 12.",
        ),
        ([{}], "cat", "", "Task &#x27;cat&#x27; is unknown; use breed, artist or artist-chae."),
        ([{}], "breed", "Wolpertinger", "&#x27;Wolpertinger&#x27; is not among the 3 classes"),
        ([{}], ["breed"], "", "is unknown"),
    ],
)
def test_a_wrong_question_is_answered_in_place(
    updates: CompareUpdates, photos: Any, task: Any, truth: Any, sentence: str
) -> None:
    page = updates.widgets
    *_, last = updates.compare(photos, task, truth)
    assert "That did not work" in last[page.card]
    assert sentence in last[page.card]
    assert last[page.button].interactive
    assert last[page.tables] == ""


@pytest.mark.parametrize("image", ["/etc/passwd", {"path": "/etc/passwd"}, 7, None])
def test_only_what_gradio_has_checked_is_opened(updates: CompareUpdates, image: Any) -> None:
    *_, last = updates.compare([image], "breed", "")
    assert compare_words.EVERY_PHOTO_REFUSED in last[updates.widgets.card]
    assert "passwd" not in last[updates.widgets.card]


def test_unexpected_errors_stay_inside(
    updates: CompareUpdates, pretender: PretendClassifier, upload: dict[str, Any]
) -> None:
    pretender.failure = RuntimeError("cannot open /srv/secret")
    *_, last = updates.compare([upload], "breed", "")
    assert OUR_FAULT in last[updates.widgets.card]
    assert "secret" not in last[updates.widgets.card]


def test_a_model_that_cannot_be_loaded_is_said(widgets: CompareWidgets, upload: dict[str, Any]) -> None:
    def fail(task: str) -> Any:
        raise CheckpointNotFound("There is no checkpoint in /srv/secret.")

    updates = CompareUpdates(Handlers(Classifiers(fail, ("breed",))), widgets, COLOURS)
    *_, last = updates.compare([upload], "breed", "")
    assert NO_MODEL in last[widgets.card]
    assert updates.load_truths("breed").choices == [("I do not know, or they differ", "")]


def test_the_task_decides_which_truths_there_are(updates: CompareUpdates, upload: dict[str, Any]) -> None:
    page = updates.widgets
    assert updates.offer_truths("breed") == gr.skip()  # the models are not there yet
    changed = updates.change_task("artist")
    assert "photos of paintings" in changed[page.card]
    assert changed[page.truth].value == ""
    labels = [label for _, label in updates.load_truths("breed").choices]
    assert labels == ["", "Akita", "Border_Collie", "Pug"]
    assert [label for _, label in updates.offer_truths("breed").choices] == labels


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


# --- words and HTML


def answers(labels: str, truth: str | None = None) -> ImageAnswers:
    names = ("cnn", "cnn_transformer", "cnn_transformer_mfe")
    found = tuple(VariantAnswer(names[i], label, label, 0.25 * (i + 1)) for i, label in enumerate(labels))
    return ImageAnswers(EVIL, found, truth, tuple(0.1 for _ in labels) if truth else ())


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (["AAA", "AAB", "BBB"], "The three models agree on 2 of 3 photos"),
        (["AAA", "BBB"], "The three models agree on both photos"),
        (["AAA"] * 3, "The three models agree on all 3 photos"),
        (["AAB", "ABC"], "The three models never all agree on these 2 photos"),
        (["AAB"], "The three models disagree on this photo"),
        (["AA"], "The two models agree on this photo"),
        (["A", "B"], "One model looked at 2 photos"),
    ],
)
def test_the_verdict_says_where_the_models_agree(images: list[str], sentence: str) -> None:
    assert compare_words.verdict(compare([answers(image) for image in images])) == sentence


def test_a_surest_model_is_not_called_the_best() -> None:
    sentence = compare_words.surest(compare([answers("ABC")]))
    assert sentence.startswith("CNN + Transformer + MFE is the surest, 75 % on average.")
    assert compare_words.CAUTION in sentence
    assert compare_words.surest(compare([answers("A")])) == compare_words.CAUTION


def test_a_photo_that_a_person_should_check_is_flagged_with_its_reasons() -> None:
    review = Review(True, (ReviewReason("close_call", "It is a close call."),), 0.5)
    flagged = replace(answers("AAB"), review=review)
    rows = [("", flagged), ("", answers("AAA"))]
    table = compare_present.photo_table(rows, "")
    assert table.count("A person should check this") == 1
    assert "<li>It is a close call.</li>" in table
    assert flagged.to_dict()["review"] == review.to_dict()


def everything_shown() -> list[str]:
    images = [answers("AAB", truth="A"), answers("BBB")]
    evil = [ImageAnswers(EVIL, tuple(VariantAnswer(a.variant, EVIL, EVIL, 0.5) for a in images[0].answers))]
    return [
        compare_present.introduction(),
        compare_present.empty("artist"),
        compare_present.working(EVIL, EVIL, 0.5),
        compare_present.result(compare(images), [(EVIL, EVIL)], EVIL),
        compare_present.nothing_usable([(EVIL, EVIL)]),
        compare_present.figure(compare(images)),
        compare_present.photo_table([(EVIL, image) for image in [*images, *evil]], EVIL),
        compare_present.sheets_title(),
        compare_present.download({"x": EVIL}, "breed"),
    ]


@pytest.mark.parametrize("shown", everything_shown())
def test_nothing_from_strangers_is_taken_for_html_or_a_template(shown: str) -> None:
    tags = Tags(shown)
    assert not tags.open
    assert not {"script", "iframe"} & set(tags.names)
    assert not [name for name, _ in tags.attributes if name.startswith("on")]
    assert not any(sign in shown for sign in "{}`$")


def test_columns_are_as_high_as_their_counts() -> None:
    figure = compare_present.figure(compare([answers("AAA"), answers("AAA"), answers("AAB")]))
    heights = re.findall(r"height:(\d+)%", figure)
    assert [heights.index("100"), heights.count("100")] == [2, 3]  # 25, 50 and 75 %, three photos each
    assert figure.count('class="high"') == 15


def test_the_download_holds_the_comparison(updates: CompareUpdates, upload: dict[str, Any]) -> None:
    *_, last = updates.compare([upload], "breed", "Akita")
    packed = re.search(r'href="data:application/json;base64,([^"]+)"', last[updates.widgets.download])
    assert packed
    values = json.loads(base64.b64decode(packed[1]))
    assert (values["task"], values["images"], values["judged"]) == ("breed", 1, 1)
    assert values["per_image"][0]["file"] == "photo.jpg"
    assert values["failed"] == []
