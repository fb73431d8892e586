"""The model tier: models alone behind plain HTTP, for pages that hold none, on one computer or on many.

POST /predict and /explain take an image file as the body, and task, top_k, facts, label and size in the
query; GET /models says what is known of each task. Answers are the JSON of the page's own endpoints, and
/explain adds the heatmaps. All that an answer needs is in its request, so any replica can give it. On Ray
Serve: `serve run deploy/serve.yaml`.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from pawmatch.errors import BadOption, ImageError, ImageTooLarge, PawMatchError, RequestError
from pawmatch.images import ImageFile, hold_file
from pawmatch.images.reading import MAX_MB
from pawmatch.results import Explanation, Task
from pawmatch.settings import OPTIONS, Settings
from pawmatch.strict import encode
from pawmatch.ui.handlers import Handlers, entry, fit_for_visitors, public, whole_number
from pawmatch.ui.inference import from_settings

MAX_SIDE = 2048  # pixels of the picture that heatmaps are asked for
REPLICA = {
    "autoscaling_config": {"min_replicas": 1, "max_replicas": 8, "target_ongoing_requests": 16},
    "max_ongoing_requests": 64,  # more than a few batches would only wait; the next replica may be free
    "health_check_period_s": 10,
    "health_check_timeout_s": 60,
    "graceful_shutdown_wait_loop_s": 2,  # a replica that goes answers what it has begun with
    "graceful_shutdown_timeout_s": 60,
    "ray_actor_options": {"num_cpus": 1},
}


class Tier:
    """The models of all tasks that the settings name, loaded and warm, and what may be asked of them."""

    def __init__(self, settings: Settings) -> None:
        self.classifiers = from_settings(settings)
        self.classifiers.warm_up()
        self.handlers = Handlers(self.classifiers)

    def check_health(self) -> None:
        """What Ray Serve asks of a replica; raises RuntimeError for models that could not be loaded."""
        if waiting := self.waiting():
            raise RuntimeError(f"no models for {', '.join(waiting)}")

    def waiting(self) -> list[str]:
        """The tasks whose models are not in memory."""
        return [task for task in self.classifiers.tasks if not self.classifiers.is_ready(task)]

    async def __call__(self, request: Request) -> Response:
        """The answer to any request, errors included; what waits meanwhile is one batch for the models."""
        place = request.url.path.rstrip("/").rpartition("/")[2]
        if place in ("healthz", "readyz"):
            return PlainTextResponse("loading" if self.waiting() else "ok", 503 if self.waiting() else 200)
        questions: dict[str, Callable[..., Any]] = {"predict": self.predict, "explain": self.explain}
        try:
            if place == "models" and request.method == "GET":
                return JSONResponse(await run_in_threadpool(self.models))
            if place not in questions or request.method != "POST":
                raise BadOption(
                    "There is nothing here; post an image to /predict or /explain, or get /models."
                )
            photo = await body_of(request)
            asked = dict(request.query_params)
            return JSONResponse(await run_in_threadpool(questions[place], photo, asked))
        except PawMatchError as exc:
            return JSONResponse(entry(exc), 400 if isinstance(exc, ImageError | RequestError) else 503)

    def predict(self, photo: bytes, asked: Mapping[str, str]) -> dict[str, Any]:
        """The JSON object of /predict."""
        with fit_for_visitors():
            task, top_k, facts = self.read(asked)
            found = self.handlers.inference.predict(task.name, held(photo), top_k, facts)
            return public(found).to_dict()

    def explain(self, photo: bytes, asked: Mapping[str, str]) -> dict[str, Any]:
        """The JSON object of /explain, with each variant's heatmap under `maps`.

        With `size` the maps are for a copy of the photo of that size. With overlays=png there are also
        `overlays`, PNG files in base64.
        """
        with fit_for_visitors():
            inference, label = self.handlers.inference, asked.get("label") or None
            task, top_k, _ = self.read(asked)
            if "size" in asked:
                copy = Image.new("1", read_size(asked["size"]))  # only its size counts
                seen = inference.look(task.name, held(photo), top_k)
                found = inference.heatmaps(task.name, seen, copy, label)
            else:
                found = inference.explain(task.name, held(photo), label, top_k)
            told = public(found.prediction).to_dict()
            values = {**found.to_dict(), "model": told["model"], "maps": maps_of(found)}
            if asked.get("overlays") == "png":
                values["overlays"] = {name: png(picture) for name, picture in found.overlays.items()}
            return values

    def read(self, asked: Mapping[str, str]) -> tuple[Task, int, Any]:
        """Task, count of answers and facts of a query; raises RequestError."""
        top_k = asked.get("top_k", "")
        count = whole_number("top_k", int(top_k) if top_k.isdecimal() else top_k or None)
        try:
            facts = json.loads(asked["facts"]) if asked.get("facts") else None
        except ValueError as exc:
            raise BadOption("facts is no JSON; give an object of attributes and values.") from exc
        return self.handlers.task(asked.get("task")), count, facts

    def models(self) -> list[dict[str, Any]]:
        """What /models says of each task, and what pages show of it besides."""
        told = []
        for values in self.handlers.models():
            name = values["task"]
            if "error" not in values:
                found = self.classifiers.get(name)
                values |= {"card": found.card, "architecture": found.architecture}
                values |= {"metrics": found.metrics, "words": encode(found.task)}
            told.append(values)
        return told


async def body_of(request: Request) -> bytes:
    """The file that was posted; raises ImageTooLarge before more of it is read than is accepted."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_MB * 2**20:
            raise ImageTooLarge(f"The file is larger than the {MAX_MB} MB accepted; save it smaller.")
        parts.append(part)
    return b"".join(parts)


def held(photo: bytes) -> ImageFile:
    """A file that was posted, of an accepted kind; raises ImageError."""
    found = hold_file(photo)
    assert isinstance(found, ImageFile)
    return found


def read_size(text: str) -> tuple[int, int]:
    """Width and height from "640x480"; raises BadOption."""
    width, _, height = text.partition("x")
    if not all(side.isdecimal() and 1 <= int(side) <= MAX_SIDE for side in (width, height)):
        raise BadOption(f"size is {text[:40]!r}; give width and height in pixels, such as 640x480.")
    return int(width), int(height)


def maps_of(found: Explanation) -> dict[str, dict[str, Any]]:
    """Each variant's heatmap as JSON values, exact to the last digit."""
    return {name: {**vars(one), "cam": one.cam.tolist()} for name, one in found.heatmaps.items()}


def png(picture: Image.Image) -> str:
    """A picture as a PNG file in base64."""
    stream = BytesIO()
    picture.save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")


def app() -> Starlette:
    """One replica as an ASGI app, with the settings of the environment; Ray is not needed.

    uvicorn --factory pawmatch.ui.tier:app
    """
    answer = Tier(Settings.from_environ(os.environ)).__call__
    return Starlette(routes=[Route("/{place:path}", answer, methods=["GET", "POST"])])


def build(given: dict[str, str]) -> Any:
    """The Ray Serve application; `given` are settings of `pawmatch serve`, and perhaps replicas=2.

    A number of replicas turns autoscaling off. Settings not given are those of the environment.
    """
    from ray import serve

    options: dict[str, Any] = dict(REPLICA)
    if replicas := given.pop("replicas", None):
        del options["autoscaling_config"]
        options["num_replicas"] = int(replicas)
    flags = {option.name: given.pop(option.name, None) for option in OPTIONS}
    settings = Settings.from_environ(os.environ, {**flags, **given})
    return serve.deployment(Tier, name="models", **options).bind(settings)
