"""What an event changes on the page: everything of the last answer goes, and no error gets lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from pawmatch.errors import CheckpointNotFound
from pawmatch.tasks import VARIANT_NAMES
from pawmatch.ui.handlers import NO_MODEL, OUR_FAULT, Handlers
from pawmatch.ui.inference import Classifiers
from pawmatch.ui.page import Updates, Widgets
from tests.ui.pretend import PretendClassifier, as_upload


@pytest.fixture
def widgets() -> Widgets:
    return Widgets(
        kept=gr.State(),
        answer=gr.HTML(),
        notice=gr.HTML(),
        retry=gr.Button(),
        label=gr.Dropdown(),
        explained=gr.HTML(),
        details=gr.HTML(),
        json=gr.JSON(),
        card=gr.Markdown(),
        images=[gr.Image() for _ in VARIANT_NAMES],
        captions=[gr.HTML() for _ in VARIANT_NAMES],
    )


@pytest.fixture
def updates(classifiers: Classifiers, widgets: Widgets, tmp_path: Path, monkeypatch: Any) -> Updates:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    return Updates(Handlers(classifiers), widgets)


def test_a_photo_leads_over_two_steps_to_an_answer(updates: Updates, upload: dict[str, Any]) -> None:
    page = updates.widgets
    first, second, last = updates.look(upload, "breed", "jet", 0.5)
    assert "Loading the models" in first[page.answer]
    assert "Looking at the photo" in second[page.answer]
    assert list(first) == list(second) == [page.answer]
    assert set(last) == set(page.all())
    assert 'Border Collie <span class="figure">70&nbsp;%</span>' in last[page.answer]
    assert last[page.label].value == "Border_Collie"
    assert last[page.label].interactive
    assert last[page.json]["explanation"]["label"] == "Border_Collie"
    assert last[page.card] == "### A card"
    drawn = [last[image] for image in page.images]
    assert [Path(image.value["path"]).name for image in drawn[:2]] == [
        "pawmatch-cnn.jpg",
        "pawmatch-cnn_transformer.jpg",
    ]
    assert drawn[0].alt_text.startswith("The photo with a heatmap")
    assert drawn[2].value is None  # this source lacks the third variant
    # Once the models are there, nothing is said about loading them.
    assert len(list(updates.look(upload, "breed", "jet", 0.5))) == 2


def test_no_photo_is_an_invitation(updates: Updates) -> None:
    page = updates.widgets
    (only,) = updates.look(None, "artist", "jet", 0.5)
    assert "a painting" in only[page.answer]
    assert set(only) == set(page.all())
    assert [only[image] for image in page.images] == [None] * 3
    assert only[page.kept] is None


@pytest.mark.parametrize("task", ["breed", "cat", None, 7])
def test_an_error_leaves_nothing_of_the_last_answer(updates: Updates, tmp_path: Path, task: Any) -> None:
    page = updates.widgets
    text = tmp_path / "notes.jpg"
    text.write_text("no picture")
    *_, last = updates.look(as_upload(text), task, "jet", 0.5)
    assert "That did not work" in last[page.answer]
    assert set(last) == set(page.all())
    assert [last[image] for image in page.images] == [None] * 3


@pytest.mark.parametrize(("colormap", "strength"), [("rainbow", 0.5), ("jet", 7), ("jet", None), ([], 0.5)])
def test_bad_colours_are_errors_like_others(
    updates: Updates, upload: dict[str, Any], colormap: Any, strength: Any
) -> None:
    *_, last = updates.look(upload, "breed", colormap, strength)
    assert "That did not work" in last[updates.widgets.answer]


def test_a_model_that_cannot_be_loaded_is_said_once(widgets: Widgets, upload: dict[str, Any]) -> None:
    def fail(task: str) -> Any:
        raise CheckpointNotFound("There is no checkpoint in /srv/secret.")

    *_, last = Updates(Handlers(Classifiers(fail, ("breed",))), widgets).look(upload, "breed", "jet", 0.5)
    assert NO_MODEL in last[widgets.answer]


def test_restyling_does_not_run_the_models(
    updates: Updates, pretender: PretendClassifier, upload: dict[str, Any]
) -> None:
    page = updates.widgets
    *_, last = updates.look(upload, "breed", "jet", 0.5)
    calls = len(pretender.calls)
    restyled = updates.restyle(last[page.kept], "viridis", 0.9)
    assert len(pretender.calls) == calls
    assert restyled[0].value["path"] != last[page.images[0]].value["path"]
    assert restyled[0].alt_text == last[page.images[0]].alt_text
    assert len(updates.restyle(None, "viridis", 0.9)) == 3


def test_a_chosen_label_is_explained_and_not_written_back(
    updates: Updates, pretender: PretendClassifier, upload: dict[str, Any]
) -> None:
    page = updates.widgets
    update = updates.explain_chosen(upload, "breed", "Akita", "jet", 0.5)
    assert update[page.kept].name == "Akita"
    assert set(update) == set(page.all()) - {page.label}
    problem = updates.explain_chosen(upload, "breed", "Wolpertinger", "jet", 0.5)
    assert "Wolpertinger" in problem[page.answer]
    assert not problem[page.label].interactive


def test_a_fallback_shows_its_notice_and_the_button(
    updates: Updates, pretender: PretendClassifier, upload: dict[str, Any]
) -> None:
    page = updates.widgets
    pretender.notice = "The bundled weights answer."
    *_, last = updates.look(upload, "breed", "jet", 0.5)
    assert "The bundled weights answer." in last[page.notice]
    assert last[page.retry].visible
    pretender.notice = None
    *_, last = updates.look(upload, "breed", "jet", 0.5)
    assert last[page.notice] == ""
    assert not last[page.retry].visible


def test_an_unexpected_error_stays_inside(
    updates: Updates, pretender: PretendClassifier, upload: dict[str, Any]
) -> None:
    pretender.failure = RuntimeError("cannot open /srv/secret")
    *_, last = updates.look(upload, "breed", "jet", 0.5)
    assert OUR_FAULT in last[updates.widgets.answer]
