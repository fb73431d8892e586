"""Requests to results: what the endpoints and the page's events do. Plain values in and out, no widgets.

Whatever goes wrong leaves here as a PawMatchError whose message is fit for a visitor: one sentence, no
path of the server, nothing about its insides.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from pawmatch.errors import Busy, ImageError, PawMatchError, RequestError
from pawmatch.results import Explanation, Prediction
from pawmatch.tasks import find_task
from pawmatch.ui import journal
from pawmatch.ui.answering import Answering, Compute, Here, Lent
from pawmatch.ui.classifiers import Classifiers
from pawmatch.ui.requests import TOP_K, label_or_none, photo_path, photo_paths, task_name, whole_number

log = logging.getLogger(__name__)

OUR_FAULT = "Something went wrong on our side; please try again."
NO_MODEL = "The model for this task cannot be loaded just now; please try again later."
NO_MEMORY = "There is not enough memory for this just now; please try again, or choose a smaller photo."
NO_ROOM = "The service has no room to keep pictures just now; please try again later."
SHOWN_SIDE = 1024  # pixels; the page's own copy of a photo, larger than any place where it is shown
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Unavailable(PawMatchError):
    """The service cannot answer, and the visitor can only try again."""


@dataclass(frozen=True)
class Shown:
    """What one visitor's page holds: an explanation without overlays, and a small copy of the photo."""

    explanation: Explanation
    photo: Image.Image

    @property
    def json(self) -> dict[str, Any]:
        """The same object as the /explain endpoint gives."""
        return public(self.explanation.to_dict())


@contextmanager
def fit_for_visitors() -> Iterator[None]:
    """Let errors pass that speak about the request; log all others and say something neutral instead."""
    try:
        yield
    except (ImageError, RequestError, Busy, Unavailable):
        raise
    except PawMatchError as exc:
        # Errors of checkpoints and of the Hub name places that are the operator's business.
        log.error("%s: %s", exc.code, exc)
        raise Unavailable(NO_MODEL) from exc
    except Exception as exc:
        log.exception("Unexpected error")
        raise Unavailable(sentence(exc)) from exc


def sentence(exc: Exception) -> str:
    """What a visitor is told about an error of ours: as much as helps."""
    # torch has an exception of its own for accelerators, and for the CPU a RuntimeError that says so.
    if (
        isinstance(exc, MemoryError)
        or type(exc).__name__ == "OutOfMemoryError"
        or "allocate memory" in str(exc)
    ):
        return NO_MEMORY
    return NO_ROOM if is_full(exc) else OUR_FAULT


def is_full(exc: Exception) -> bool:
    """Whether an error says that nothing can be written: no space left, or a folder for reading only."""
    return isinstance(exc, OSError) and exc.errno in FULL_DISK


class Handlers:
    """What visitors may ask, answered by the classifiers given.

    `on_gpu` wraps the function that needs an accelerator, where a host lends one per call.
    """

    def __init__(self, classifiers: Classifiers, on_gpu: Callable[[Compute], Compute] | None = None) -> None:
        self.classifiers = classifiers
        self.answering: Answering = Lent(classifiers, on_gpu) if on_gpu else Here(classifiers)

    # --- the endpoints

    def predict(self, image: Any, task: Any = "breed", top_k: Any = TOP_K) -> dict[str, Any]:
        """The most likely labels of one photo, with calibrated confidence."""
        with journal.request("/predict") as line, fit_for_visitors():
            path, line.task, count = photo_path(image), task_name(task), whole_number("top_k", top_k)
            prediction = self.answering.predict(line.task, path, count)
            line.answered(prediction)
            return public(prediction.to_dict())

    def explain(
        self, image: Any, task: Any = "breed", label: Any = None
    ) -> tuple[dict[str, Any], Image.Image | None, Image.Image | None, Image.Image | None]:
        """A prediction, and one overlay per variant that shows where it found evidence for a label."""
        with journal.request("/explain") as line, fit_for_visitors():
            path, line.task = photo_path(image), task_name(task)
            explanation = self.answering.explain(line.task, path, label_or_none(label), TOP_K)
            line.answered(explanation.prediction)
            overlays = explanation.overlays
            return (
                public(explanation.to_dict()),
                overlays.get("cnn"),
                overlays.get("cnn_transformer"),
                overlays.get("cnn_transformer_mfe"),
            )

    def predict_batch(self, images: Any, task: Any = "breed", top_k: Any = TOP_K) -> list[dict[str, Any]]:
        """One prediction, or one error, per photo, in order."""
        with journal.request("/predict_batch") as line, fit_for_visitors():
            paths, line.task, count = photo_paths(images), task_name(task), whole_number("top_k", top_k)
            results = self.answering.predict_all(line.task, paths, count)
            line.answered(*results)
            return [entry(result) for result in results]

    def models(self) -> list[dict[str, Any]]:
        """The tasks on offer: their models, classes and, where another model stands in, a notice."""
        return [self._model(task) for task in self.classifiers.tasks]

    def _model(self, task: str) -> dict[str, Any]:
        try:
            with fit_for_visitors():
                classifier = self.classifiers.get(task)
        except PawMatchError as exc:
            return {"task": task, **entry(exc)}
        return public(
            {
                "task": task,
                "name": find_task(task).title,
                "model": classifier.info.to_dict(),
                "variants": list(classifier.variants),
                "labels": list(classifier.labels),
                "notice": classifier.notice,
            }
        )

    # --- the page

    def is_ready(self, task: Any) -> bool:
        """Whether the task's models are in memory."""
        return isinstance(task, str) and self.classifiers.is_ready(task)

    def prepare(self, task: Any) -> None:
        """Load the task's models if they are not there yet."""
        with fit_for_visitors():
            self.classifiers.get(task_name(task))

    def examine(self, image: Any, task: Any, label: Any) -> Shown:
        """Answer and explain one photo for the page."""
        with journal.request("page") as line, fit_for_visitors():
            path, line.task = photo_path(image), task_name(task)
            explanation = self.answering.explain(line.task, path, label_or_none(label), TOP_K)
            line.answered(explanation.prediction)
            photo = explanation.photo.copy()
            photo.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
            return Shown(fitted(explanation, photo), photo)

    def notice(self, task: Any) -> str | None:
        """One line if another model than the intended one answers for the task."""
        return self.classifiers.get(task).notice if self.is_ready(task) else None

    def labels(self, task: str) -> list[tuple[str, str]]:
        """Display name and label of every class, by name."""
        classifier = self.classifiers.get(task)
        return sorted(zip(classifier.names, classifier.labels, strict=True))

    def card(self, task: str) -> str:
        """The model card of the task's main variant, as Markdown."""
        return self.classifiers.get(task).card

    def retry(self, task: Any) -> None:
        """Try again to load the model that was meant to answer."""
        with fit_for_visitors():
            self.classifiers.reload(task_name(task))


def fitted(explanation: Explanation, photo: Image.Image) -> Explanation:
    """The explanation for a smaller copy of its photo, without overlays."""
    size = photo.size
    heatmaps = {}
    for variant, heatmap in explanation.heatmaps.items():
        across, down = size[0] / heatmap.size[0], size[1] / heatmap.size[1]
        left, top, right, bottom = heatmap.box
        box = (left * across, top * down, right * across, bottom * down)
        heatmaps[variant] = replace(heatmap, box=box, size=size)
    return replace(explanation, photo=photo, heatmaps=heatmaps, overlays={})


def entry(result: Prediction | PawMatchError) -> dict[str, Any]:
    """One line of a batch as JSON values."""
    if isinstance(result, PawMatchError):
        return {"error": {"code": result.code, "message": str(result)}}
    return public(result.to_dict())


def public(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer without the server's folders: of a local source only the last names remain."""
    model = dict(answer["model"])
    if Path(model["source"]).is_absolute():
        model["source"] = "/".join(Path(model["source"]).parts[-2:])
    return {**answer, "model": model}
