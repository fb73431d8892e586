"""Requests to results: what the endpoints and the page's events do. Plain values in and out, no widgets.

Whatever goes wrong leaves here as a PawMatchError whose message is fit for a visitor: one sentence, no
path of the server, nothing about its insides.
"""

from __future__ import annotations

import base64
import errno
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from pawmatch.errors import BadOption, Busy, ImageError, ImageNotFound, PawMatchError, RequestError
from pawmatch.evaluation.compare import Comparison, ImageAnswers, compare
from pawmatch.heatmaps import draw_square_sheet, overlay
from pawmatch.images import open_image
from pawmatch.labels import display_name, find_label
from pawmatch.results import Explanation, Heatmap, Prediction
from pawmatch.tasks import TASKS, find_task
from pawmatch.ui import request_log
from pawmatch.ui.gradio_patches import as_jpeg
from pawmatch.ui.inference import Answering, Classifiers, Compute, Here, Lent

log = logging.getLogger(__name__)

EXAMPLES = Path(__file__).parents[2] / "examples"


THUMBNAIL = 224  # pixels, twice the size on the page for sharp screens


@dataclass(frozen=True)
class Example:
    """A picture, a task it is for, and what it shows."""

    path: Path
    task: str
    alt: str

    def thumbnail(self) -> str:
        """A small square of it as a data: address: the page needs no further request to show it."""
        # The upper part: faces and horizons are there.
        square = ImageOps.fit(open_image(self.path), (THUMBNAIL, THUMBNAIL), centering=(0.5, 0.2))
        buffer = BytesIO()
        square.save(buffer, "JPEG", quality=80)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def examples_for(task: str, examples: Sequence[Example]) -> list[Example]:
    """The examples that a task can answer: its own, and those of other tasks about the same subject."""
    subject = find_task(task).subject
    return [one for one in examples if one.task in TASKS and TASKS[one.task].subject == subject]


def read_examples(folder: Path) -> list[Example]:
    """The examples in a folder; none if it or its list is missing, since the page works without."""
    try:
        entries = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        examples = [Example(folder / entry["file"], entry["task"], entry["alt"]) for entry in entries]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as exc:
        log.warning("The examples cannot be read: %s", exc)
        return []
    return [example for example in examples if example.path.is_file()]


CHOOSE_PHOTO = "Please choose a photo first."
CHOOSE_PHOTOS = "Please choose some photos first."
CHOOSE_AGAIN = "The photo is no longer held here; please choose it again."
HOW_TO_SEND = "Send each photo as a file, in Python as gradio_client.handle_file(path)."
MOST_PHOTOS = 64  # in one call
MOST_COMPARED = 12  # on the page that compares the models
LONGEST_NAME = 60  # characters of a file's name that are repeated
TOP_K = 5


def photo_path(image: Any) -> str:
    """Where Gradio has put an upload: the path in the file object that stands for it.

    Gradio has checked, before we are called, that the path of a whole file object is one of its uploads.
    It looks at nothing else, so nothing else may be opened: any other path could be any file here.
    """
    if image is None or image == "":
        raise ImageNotFound(CHOOSE_PHOTO)
    meta = image.get("meta") if isinstance(image, dict) else None
    if not isinstance(meta, dict) or meta.get("_type") != "gradio.FileData":
        raise ImageNotFound(HOW_TO_SEND)
    path = image.get("path")
    if not isinstance(path, str):
        raise ImageNotFound(HOW_TO_SEND)
    if not Path(path).is_file():
        raise ImageNotFound(CHOOSE_AGAIN)
    return path


def photo_paths(images: Any) -> list[str]:
    """As photo_path, for a list."""
    if images is None or images == []:
        raise ImageNotFound(CHOOSE_PHOTO)
    if not isinstance(images, list | tuple):
        raise ImageNotFound(HOW_TO_SEND)
    if len(images) > MOST_PHOTOS:
        raise BadOption(f"{len(images)} photos are too many; send at most {MOST_PHOTOS} in one call.")
    return [photo_path(image) for image in images]


def compared_photos(images: Any) -> list[Any]:
    """The file objects of a comparison; each is still to be checked by photo_path."""
    if images is None or images == []:
        raise ImageNotFound(CHOOSE_PHOTOS)
    if not isinstance(images, list | tuple):
        raise ImageNotFound(HOW_TO_SEND)
    if len(images) > MOST_COMPARED:
        raise BadOption(f"{len(images)} photos are too many; choose at most {MOST_COMPARED}.")
    return list(images)


def photo_name(image: Any, number: int) -> str:
    """What the visitor's file is called; photos without a name, and forged ones, are counted."""
    name = image.get("orig_name") if isinstance(image, dict) else None
    if not isinstance(name, str) or not name.strip():
        return f"Photo {number}"
    # A name of the server's own has folders in front; what a client sends may have any.
    name = name.replace("\\", "/").rsplit("/", 1)[-1]
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def task_name(task: Any) -> str:
    """The task asked for; raises UnknownTask."""
    return find_task("breed" if task is None else task).name


def label_or_none(label: Any) -> str | None:
    """The label to explain; nothing means the first choice."""
    return None if label is None or label == "" else str(label)


def whole_number(name: str, value: Any) -> int:
    """A count that came as JSON, from 1 on; raises BadOption."""
    if value is None:
        return TOP_K
    if isinstance(value, bool) or not isinstance(value, int | float) or not float(value).is_integer():
        raise BadOption(f"{name} is {str(value)[:40]!r}; give a whole number such as 5.")
    if value < 1:
        raise BadOption(f"{name} is {value:g}; give a whole number from 1 on.")
    return int(value)


@dataclass(frozen=True)
class Kept:
    """The heatmaps for one label, by its name, and their photo as the bytes of a JPEG file.

    Hundreds of visitors have one each, and the pixels of a photo take some ten times as much.
    """

    name: str
    heatmaps: Mapping[str, Heatmap]
    jpeg: bytes

    def photo(self) -> Image.Image:
        """The photo, decoded anew."""
        return Image.open(BytesIO(self.jpeg))


def keep(shown: Shown) -> Kept:
    """What is to be kept of what a page shows."""
    explanation = shown.explanation
    return Kept(explanation.name, explanation.heatmaps, as_jpeg(shown.photo))


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
        with request_log.request("/predict") as line, fit_for_visitors():
            path, line.task, count = photo_path(image), task_name(task), whole_number("top_k", top_k)
            prediction = self.answering.predict(line.task, path, count)
            line.answered(prediction)
            return public(prediction.to_dict())

    def explain(
        self, image: Any, task: Any = "breed", label: Any = None
    ) -> tuple[dict[str, Any], Image.Image | None, Image.Image | None, Image.Image | None]:
        """A prediction, and one overlay per variant that shows where it found evidence for a label."""
        with request_log.request("/explain") as line, fit_for_visitors():
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
        with request_log.request("/predict_batch") as line, fit_for_visitors():
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
        with request_log.request("page") as line, fit_for_visitors():
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


SMALL = (88, 88)  # pixels, twice the size on the page for sharp screens


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
        thumbnail.thumbnail(SMALL)
        sure_of_truth = in_truth if question.truth else ()
        review = explanation.prediction.review
        told = ImageAnswers(name, answers, question.truth, sure_of_truth, review)
        return Looked(told, sheet, thumbnail)


def summarise(answers: list[ImageAnswers]) -> Comparison | None:
    """The comparison over the photos that were answered; None if there are none."""
    with fit_for_visitors():
        return compare(answers) if answers else None
