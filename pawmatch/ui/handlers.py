"""Requests to results: what the endpoints and the page's events do. Plain values in and out, no widgets.

Whatever goes wrong leaves here as a PawMatchError whose message is fit for a visitor: one sentence, no
path of the server, nothing about its insides.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path, PurePath
from typing import Any

from PIL import Image, ImageOps

from pawmatch.calibration.facts import WORDS
from pawmatch.errors import BadOption, Busy, ImageError, ImageNotFound, PawMatchError, RequestError
from pawmatch.images import ImageFile, is_address, open_image
from pawmatch.labels import find_task
from pawmatch.results import Explanation, Heatmap, ModelInfo, Prediction, Task
from pawmatch.ui import request_log
from pawmatch.ui.faults import log_fault, sentence
from pawmatch.ui.gradio_patches import note_file
from pawmatch.ui.html import MAX_COMPARED, data_address
from pawmatch.ui.inference import Classifiers, Compute, Here, Lent, Seen
from pawmatch.ui.remote import There

log = logging.getLogger(__name__)

CHOOSE_PHOTO = "Please choose a photo first."
CHOOSE_PHOTOS = "Please choose some photos first."
CHOOSE_AGAIN = "The photo is no longer held here; please choose it again."
HOW_TO_SEND = "Send each photo as a file, in Python as gradio_client.handle_file(path)."
NO_MODEL = "The model for this task cannot be loaded just now; please try again later."
TOO_MANY_FETCHES = "Other pictures are being fetched just now; please try again, or send the file."
MAX_PHOTOS = 64  # in one call
MAX_FETCHES = 4  # from the web at once
MAX_NAME = 60  # characters of a file's name that are repeated
TOP_K = 5
THUMBNAIL = 224  # pixels of an example's small copy, twice the size on the page for sharp screens
# In a checkout beside the package, in an installation inside of it.
EXAMPLES = next(
    (path for path in (folder / "examples" for folder in Path(__file__).parents[1:3]) if path.is_dir()),
    Path("examples"),
)


class Unavailable(PawMatchError):
    """The service cannot answer, and the visitor can only try again."""


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
        log_fault(exc)
        raise Unavailable(sentence(exc)) from exc


@contextmanager
def answering(endpoint: str) -> Iterator[request_log.Line]:
    """The log's line of one request, whose errors become fit for visitors."""
    with request_log.request(endpoint) as line, fit_for_visitors():
        yield line


# --- what clients send, checked: file objects, tasks, labels and counts that arrive as JSON


def photo_path(image: Any) -> str:
    """Where Gradio has put an upload: the path in the file object that stands for it.

    Gradio has checked, before we are called, that the path of a whole file object is one of its uploads.
    It looks at nothing else, so nothing else may be opened: any other path could be any file here.
    """
    if image is None or image == "":
        raise ImageNotFound(CHOOSE_PHOTO)
    meta = image.get("meta") if isinstance(image, dict) else None
    path = image.get("path") if isinstance(meta, dict) and meta.get("_type") == "gradio.FileData" else None
    if not isinstance(path, str) or is_address(path):
        raise ImageNotFound(HOW_TO_SEND)
    if not Path(path).is_file():
        raise ImageNotFound(CHOOSE_AGAIN)
    note_file(path)
    return path


def web_address(image: Any) -> str | None:
    """The web address in a file object that stands for no upload but for a picture elsewhere."""
    if not isinstance(image, dict):
        return None
    place = image.get("path") or image.get("url")
    return place if is_address(place) else None


def photo_list(images: Any, limit: int, nothing: str, how: str) -> list[Any]:
    """The file objects of several photos; each is still to be checked by photo_path."""
    if images is None or images == []:
        raise ImageNotFound(nothing)
    if not isinstance(images, list | tuple):
        raise ImageNotFound(HOW_TO_SEND)
    if len(images) > limit:
        raise BadOption(f"{len(images)} photos are too many; {how}.")
    return list(images)


def photo_paths(images: Any) -> list[str]:
    """As photo_path, for a list."""
    how = f"send at most {MAX_PHOTOS} in one call"
    return [photo_path(image) for image in photo_list(images, MAX_PHOTOS, CHOOSE_PHOTO, how)]


def compared_photos(images: Any) -> list[Any]:
    """The file objects of a comparison; each is still to be checked by photo_path."""
    return photo_list(images, MAX_COMPARED, CHOOSE_PHOTOS, f"choose at most {MAX_COMPARED}")


def photo_name(image: Any, number: int) -> str:
    """What the visitor's file is called; photos without a name, and forged ones, are counted."""
    name = image.get("orig_name") if isinstance(image, dict) else None
    if not isinstance(name, str) or not name.strip():
        return f"Photo {number}"
    # A name of the server's own has folders in front; what a client sends may have any.
    name = name.replace("\\", "/").rsplit("/", 1)[-1]
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"


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


def with_words(facts: Any, words: Any) -> Any:
    """Facts as they came, with words of somebody's own in their place among them; raises BadOption."""
    if words in (None, ""):
        return facts
    if facts is not None and not isinstance(facts, Mapping):
        raise BadOption("facts is no object; give attributes and values, or only words.")
    return {**(facts or {}), WORDS: words}


# --- what goes out


def public(prediction: Prediction) -> Prediction:
    """The answer without the server's folders."""
    return replace(prediction, model=public_info(prediction.model))


def public_info(info: ModelInfo) -> ModelInfo:
    """The model's description with only the last two names of a local source that leads out of here."""
    parts = PurePath(info.source).parts
    if info.source.startswith("hf://") or not any(part[0] in "/\\~" or ".." in part for part in parts):
        return info
    names = [part for part in parts if part[0] not in "/\\~" and ".." not in part]
    return replace(info, source="/".join(names[-2:]) or "local weights")


def entry(result: Prediction | PawMatchError) -> dict[str, Any]:
    """One line of a batch as JSON values."""
    if isinstance(result, PawMatchError):
        return {"error": {"code": result.code, "message": str(result)}}
    return public(result).to_dict()


@dataclass(frozen=True)
class PageState:
    """What is kept of one visitor's photo, to explain it anew in other colours and for other labels.

    Hundreds of visitors have one each, so there are no pixels: `seen` has the page's copy of the photo as a
    file, about 0.2 MB, and feature maps of 0.25 MB. `heatmaps` are empty until there are any.
    """

    path: str
    task: str
    seen: Seen
    heatmaps: Mapping[str, Heatmap] = field(default_factory=dict)

    def photo(self) -> Image.Image:
        """The photo at the page's size."""
        return Image.open(BytesIO(self.seen.jpeg))


class Handlers:
    """What visitors may ask, answered by the classifiers given.

    `on_gpu` wraps the function that needs an accelerator, where a host lends one per call. `fetch` gives the
    picture at a web address; without it none is fetched. `inference` asks models that are elsewhere.
    """

    def __init__(
        self,
        classifiers: Classifiers,
        on_gpu: Callable[[Compute], Compute] | None = None,
        fetch: Callable[[str], ImageFile] | None = None,
        inference: There | None = None,
    ) -> None:
        self.classifiers = classifiers
        self._fetch = fetch
        # Who waits for a slow web server has a place that others need for their photos.
        self._fetching = threading.BoundedSemaphore(MAX_FETCHES)
        here = Lent(classifiers, on_gpu) if on_gpu else Here(classifiers)
        self.inference: Here | Lent | There = inference or here

    def task(self, name: Any) -> Task:
        """The task asked for, by default the first on offer; raises UnknownTask."""
        tasks = self.classifiers.tasks
        return find_task(next(iter(tasks)) if name is None else name, tasks)

    def fetch(self, address: str) -> ImageFile:
        """The picture at a web address; raises ImageError, or Busy where too many are being fetched."""
        if self._fetch is None:
            raise ImageNotFound(HOW_TO_SEND)
        if not self._fetching.acquire(blocking=False):
            raise Busy(TOO_MANY_FETCHES)
        try:
            return self._fetch(address)
        finally:
            self._fetching.release()

    def _photo(self, image: Any) -> str | ImageFile:
        """The upload that a file object stands for, or the picture at its web address."""
        address = web_address(image)
        return photo_path(image) if address is None else self.fetch(address)

    # --- the endpoints

    def predict(
        self, image: Any, task: Any = None, top_k: Any = TOP_K, facts: Any = None, words: Any = None
    ) -> dict[str, Any]:
        """The most likely labels of one photo, with calibrated confidence, given what is told beside it."""
        with answering("/predict") as line:
            line.task, count = self.task(task).name, whole_number("top_k", top_k)
            told = with_words(facts, words)
            prediction = self.inference.predict(line.task, self._photo(image), count, told)
            line.answered(prediction)
            return public(prediction).to_dict()

    def explain(
        self, image: Any, task: Any = None, label: Any = None
    ) -> tuple[dict[str, Any], Image.Image | None, Image.Image | None, Image.Image | None]:
        """A prediction, and one overlay per variant that shows where it found evidence for a label."""
        with answering("/explain") as line:
            line.task, wanted = self.task(task).name, label_or_none(label)
            explanation = self.inference.explain(line.task, self._photo(image), wanted, TOP_K)
            line.answered(explanation.prediction)
            found = replace(explanation, prediction=public(explanation.prediction)).to_dict()
            overlays = explanation.overlays
            return (
                found,
                overlays.get("cnn"),
                overlays.get("cnn_transformer"),
                overlays.get("cnn_transformer_mfe"),
            )

    def predict_batch(self, images: Any, task: Any = None, top_k: Any = TOP_K) -> list[dict[str, Any]]:
        """One prediction, or one error, per photo, in order."""
        with answering("/predict_batch") as line:
            paths, line.task, count = photo_paths(images), self.task(task).name, whole_number("top_k", top_k)
            once = list(dict.fromkeys(paths))  # an upload's path is made from its content
            results = dict(zip(once, self.inference.predict_all(line.task, once, count), strict=True))
            line.answered(*results.values())
            return [entry(results[path]) for path in paths]

    def models(self) -> list[dict[str, Any]]:
        """The tasks on offer: their models, classes and, where another model stands in, a notice."""
        return [self._model(task) for task in self.classifiers.tasks]

    def _model(self, task: str) -> dict[str, Any]:
        try:
            with fit_for_visitors():
                classifier = self.classifiers.get(task)
        except PawMatchError as exc:
            return {"task": task, **entry(exc)}
        return {
            "task": task,
            "name": self.task(task).title,
            "model": public_info(classifier.info).to_dict(),
            "variants": list(classifier.variants),
            "labels": list(classifier.labels),
            "notice": classifier.notice,
        }

    # --- the pages

    def is_ready(self, task: Any) -> bool:
        """Whether the task's models are in memory."""
        return isinstance(task, str) and self.classifiers.is_ready(task)

    def look(self, image: Any, task: Any) -> PageState:
        """Answer one photo for a page; its heatmaps are still to be painted."""
        with answering("page") as line:
            path, line.task = photo_path(image), self.task(task).name
            seen = self.inference.look(line.task, path, TOP_K)
            line.answered(seen.prediction)
            return PageState(path, line.task, replace(seen, prediction=public(seen.prediction)))

    def refine(self, state: PageState, facts: Any) -> PageState:
        """The same photo with the answer that facts beside it give; without facts the first one."""
        with answering("facts") as line:
            line.task = state.task
            seen = self.inference.refine(state.task, state.seen, TOP_K, facts)
            line.answered(seen.prediction)
            return replace(state, seen=replace(seen, prediction=public(seen.prediction)))

    def paint(self, state: PageState, label: Any = None) -> tuple[PageState, Explanation]:
        """The heatmaps for a label, by default the first choice, of a photo that was answered.

        The explanation's photo is the page's copy of it, and its `overlays` are empty.
        """
        with answering("heatmaps") as line:
            line.task, photo = state.task, state.photo()
            found = self.inference.heatmaps(state.task, state.seen, photo, label_or_none(label))
            line.timing_ms["explain"] = found.prediction.timing_ms["explain"]
            found = replace(found, prediction=public(found.prediction))
            return replace(state, heatmaps=found.heatmaps), found

    def examples_for(self, task: str, examples: Sequence[Example]) -> list[Example]:
        """The examples that a task can answer: its own, and those of other tasks about the same subject."""
        subject = self.task(task).subject
        alike = {name for name, other in self.classifiers.tasks.items() if other.subject == subject}
        return [example for example in examples if example.task in alike]

    def labels(self, task: str) -> list[tuple[str, str]]:
        """Display name and label of every class, by name."""
        classifier = self.classifiers.get(task)
        return sorted(zip(classifier.names, classifier.labels, strict=True))


# --- the pictures to click on, listed in examples/index.json


@dataclass(frozen=True)
class Example:
    """A picture, a task it is for, and what it shows."""

    path: Path
    task: str
    alt: str
    answer: str | None = None

    def thumbnail(self) -> str:
        """A small square of it as a data: address: the page needs no further request to show it."""
        # The upper part: faces and horizons are there.
        return data_address(ImageOps.fit(open_image(self.path), (THUMBNAIL, THUMBNAIL), centering=(0.5, 0.2)))


def read_examples(folder: Path) -> list[Example]:
    """The examples in a folder; none if it or its list is missing, since the page works without."""
    try:
        entries = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        examples = [
            Example(folder / entry["file"], entry["task"], entry["alt"], entry.get("answer"))
            for entry in entries
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as exc:
        log.warning("The examples cannot be read: %s", exc)
        return []
    return [example for example in examples if example.path.is_file()]
