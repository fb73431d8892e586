"""Uploaded photos to a comparison of the models, one photo at a time. Plain values in and out, no widgets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from pawmatch.errors import PawMatchError
from pawmatch.evaluation.compare import Comparison, ImageAnswers, compare
from pawmatch.explain import overlay
from pawmatch.labels import display_name, find_label
from pawmatch.ui.handlers import Handlers, fit_for_visitors
from pawmatch.ui.requests import compared_photos, label_or_none, photo_name, task_name
from pawmatch.ui.sheet import draw_square_sheet

THUMBNAIL = (88, 88)  # pixels, twice the size on the page for sharp screens


@dataclass(frozen=True)
class Looked:
    """A photo that every variant has answered for, with its heatmap sheet and a small copy."""

    answers: ImageAnswers
    sheet: Image.Image
    thumbnail: Image.Image


@dataclass(frozen=True)
class Refused:
    """A photo that cannot be used, and the sentence that says why."""

    name: str
    message: str


@dataclass(frozen=True)
class Step:
    """What is about to be looked at: photo `number` of `total`."""

    number: int
    total: int
    name: str


@dataclass(frozen=True)
class Question:
    """What is asked: file objects as Gradio hands them over, a task, and the true label if it is known."""

    photos: tuple[Any, ...]
    task: str
    truth: str | None

    @property
    def truth_name(self) -> str:
        """The true label's display name, or nothing."""
        return display_name(self.truth) if self.truth else ""


@dataclass(frozen=True)
class Colours:
    """How heatmaps are painted."""

    colormap: str
    strength: float


def read_question(handlers: Handlers, images: Any, task: Any, truth: Any) -> Question:
    """The question, checked; loads the task's models to know its labels.

    Raises errors fit for a visitor: no photos, too many, an unknown task or label, no model.
    """
    with fit_for_visitors():
        photos, name, label = compared_photos(images), task_name(task), label_or_none(truth)
        labels = handlers.classifiers.get(name).labels
        return Question(tuple(photos), name, None if label is None else find_label(labels, label))


def look_at_all(
    handlers: Handlers, question: Question, colours: Colours
) -> Iterator[Step | Looked | Refused]:
    """For each photo what is about to be done, and then what came of it."""
    for number, photo in enumerate(question.photos, start=1):
        name = photo_name(photo, number)
        yield Step(number, len(question.photos), name)
        try:
            yield look(handlers, photo, name, question, colours)
        except PawMatchError as exc:
            yield Refused(name, str(exc))


def look(handlers: Handlers, photo: Any, name: str, question: Question, colours: Colours) -> Looked:
    """One photo, answered and explained; raises errors fit for a visitor."""
    shown = handlers.examine(photo, question.task, question.truth)
    with fit_for_visitors():
        explanation = shown.explanation
        answers = explanation.prediction.variants
        overlays = {
            variant: overlay(shown.photo, heatmap, colormap=colours.colormap, strength=colours.strength)
            for variant, heatmap in explanation.heatmaps.items()
        }
        in_truth = tuple(explanation.heatmaps[answer.variant].confidence for answer in answers)
        sheet = draw_square_sheet(
            shown.photo, replace(explanation, overlays=overlays), is_truth=question.truth is not None
        )
        thumbnail = shown.photo.copy()
        thumbnail.thumbnail(THUMBNAIL)
        sure_of_truth = in_truth if question.truth else ()
        review = explanation.prediction.review
        told = ImageAnswers(name, answers, question.truth, sure_of_truth, review)
        return Looked(told, sheet, thumbnail)


def summarise(answers: list[ImageAnswers]) -> Comparison | None:
    """The comparison over the photos that were answered; None if there are none."""
    with fit_for_visitors():
        return compare(answers) if answers else None
