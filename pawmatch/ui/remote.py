"""A page without models: it asks the model tier that PAWMATCH_MODEL_URL names, and draws what that found."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import httpx
import numpy as np
from PIL import Image

from pawmatch import errors
from pawmatch.errors import Busy, PawMatchError
from pawmatch.heatmaps import Overlays
from pawmatch.images import ImageFile, hold_file, read_image
from pawmatch.labels import display_name
from pawmatch.results import Explanation, Heatmap, ModelInfo, Prediction, Task
from pawmatch.settings import Settings
from pawmatch.strict import Refused, decode
from pawmatch.ui import request_log
from pawmatch.ui.inference import MAX_BATCH, SHOWN_SIDE, Classifiers, Seen, Source, shown_jpeg

PATIENCE = 60.0  # seconds for one answer
TRIES = 4  # of a question that a replica took with it when it went; to ask twice does no harm
PAUSE = 0.5  # seconds before the second try, more before each later one
AWAY = "The models cannot be reached just now; please try again in a minute."


@dataclass(frozen=True)
class Description:
    """What a page shows of a task whose models are elsewhere: as a Classifier has it."""

    task: Task
    info: ModelInfo
    variants: tuple[str, ...]
    labels: tuple[str, ...]
    notice: str | None
    card: str
    architecture: str
    metrics: dict[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        """The display name of each label."""
        return tuple(map(display_name, self.labels))

    def predict(self, image: Image.Image) -> None:
        """Nothing: the models elsewhere were warm before they could be asked."""

    explain = predict


class Line:
    """The connection to a model tier at `url`."""

    def __init__(self, url: str) -> None:
        # A proxy of the environment is for the world outside, where photos must not go.
        # A connection for each question: one that is kept leads to a replica that may be gone.
        alone = httpx.Limits(max_keepalive_connections=0)
        self._client = httpx.Client(base_url=url.rstrip("/"), timeout=PATIENCE, trust_env=False, limits=alone)

    def ask(self, place: str, photo: bytes | None = None, **asked: Any) -> Any:
        """The JSON of an answer. Raises the error that the tier tells of, or Busy where there is none."""
        query = {key: value for key, value in asked.items() if value is not None}
        method = "GET" if photo is None else "POST"
        for wait in range(TRIES):
            time.sleep(PAUSE * wait)
            try:
                reply = self._client.request(method, f"/{place}", params=query, content=photo)
                values = reply.json()
            except (httpx.TransportError, ValueError):  # ValueError: the words of a proxy, no JSON
                continue
            if reply.status_code == 200:
                return values
            if isinstance(values, dict) and isinstance(values.get("error"), dict):
                raise error_of(values["error"])
        raise Busy(AWAY)


def error_of(told: dict[str, Any]) -> PawMatchError:
    """The error that a tier's JSON tells of; one of another version's becomes Busy."""
    kind = getattr(errors, str(told.get("code")), Busy)
    known = isinstance(kind, type) and issubclass(kind, PawMatchError)
    return (kind if known else Busy)(str(told.get("message")))


def described(line: Line, task: str) -> Description:
    """What the tier says of one task."""
    for values in line.ask("models"):
        if values["task"] == task:
            if "error" in values:
                raise error_of(values["error"])
            kept = {name: values[name] for name in ("notice", "card", "architecture", "metrics")}
            variants, labels = tuple(values["variants"]), tuple(values["labels"])
            words, info = decode(Task, values["words"]), decode(ModelInfo, values["model"])
            return Description(words, info, variants, labels, **kept)
    raise Busy(AWAY)


def remote_classifiers(settings: Settings) -> Classifiers:
    """Descriptions of all tasks in place of classifiers, fetched as they are asked for."""
    line = Line(settings.model_url)
    load: Any = lambda task: described(line, task)  # noqa: E731 - a page asks no more of either
    return Classifiers(load, settings.tasks)


class There:
    """The models run elsewhere: photos go to the tier at `url`, and answers and heatmaps come back."""

    def __init__(self, url: str, classifiers: Classifiers) -> None:
        self._line, self._classifiers = Line(url), classifiers

    def predict(self, task: str, source: Source, top_k: int, facts: Any = None) -> Prediction:
        """One photo's answer, given what is known beside it."""
        told = json.dumps(facts) if facts else None
        values = self._line.ask("predict", content(source), task=task, top_k=top_k, facts=told)
        return self._prediction(task, values)

    def predict_all(self, task: str, paths: Sequence[str], top_k: int) -> list[Prediction | PawMatchError]:
        """An answer or an error for each photo, in order; as many at a time as one batch of models takes."""

        def ask(path: str) -> Prediction | PawMatchError:
            try:
                return self.predict(task, path, top_k)
            except errors.ImageError as exc:
                return exc

        with ThreadPoolExecutor(MAX_BATCH) as threads:
            return list(threads.map(ask, paths))

    def explain(self, task: str, source: Source, label: str | None, top_k: int) -> Explanation:
        """One photo's answer with the heatmaps for a label."""
        values = self._line.ask("explain", content(source), task=task, top_k=top_k, label=label)
        photo = read_image(source).image
        found = self._explanation(task, values, photo)
        overlays = Overlays(photo, found.heatmaps, colormap="jet", strength=0.6)
        return replace(found, overlays=overlays)

    def look(self, task: str, path: Source, top_k: int) -> Seen:
        """One photo's answer for the page. What else is asked of it goes to any replica, with the photo."""
        prediction = self.predict(task, path, top_k)
        return Seen(prediction, path, shown_jpeg(read_image(path, min_side=SHOWN_SIDE).image))

    def refine(self, task: str, seen: Seen, top_k: int, facts: Any) -> Seen:
        """The answer to the same photo given what is known beside it."""
        assert isinstance(seen.outputs, str | ImageFile)
        return replace(seen, prediction=self.predict(task, seen.outputs, top_k, facts))

    def heatmaps(self, task: str, seen: Seen, photo: Image.Image, label: str | None) -> Explanation:
        """The heatmaps of a photo that was answered, over the page's copy of it."""
        size, wanted = "{}x{}".format(*photo.size), label or seen.prediction.top.label
        values = self._line.ask("explain", content(seen.outputs), task=task, label=wanted, size=size)
        found = self._explanation(task, values, photo)
        timing = {**seen.prediction.timing_ms, "explain": found.prediction.timing_ms.get("explain", 0.0)}
        return replace(found, prediction=replace(seen.prediction, timing_ms=timing))

    def _prediction(self, task: str, values: dict[str, Any]) -> Prediction:
        try:
            found = decode(Prediction, values, optional=None)
        except Refused as exc:
            raise Busy(f"The models' answer is of another version ({exc.sentence('it')}).") from exc
        return replace(found, words=self._classifiers.get(task).task)

    def _explanation(self, task: str, values: dict[str, Any], photo: Image.Image) -> Explanation:
        maps, told = values.pop("maps"), values.pop("explanation")
        found = {name: heatmap(one) for name, one in maps.items()}
        return Explanation(self._prediction(task, values), told["label"], told["name"], photo, found, {})


def heatmap(values: dict[str, Any]) -> Heatmap:
    """A heatmap from the tier's JSON."""
    cam = np.asarray(values.pop("cam"), dtype=np.float32)
    return Heatmap(**{**values, "cam": cam, "box": tuple(values["box"]), "size": tuple(values["size"])})


def content(source: Source) -> bytes:
    """The bytes of an image file of an accepted kind; raises ImageError before anything is sent."""
    found = hold_file(source)
    assert isinstance(found, ImageFile)
    request_log.note_photo(len(found.data), 0)
    return found.data
