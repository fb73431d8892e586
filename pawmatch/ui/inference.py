"""Inference: how photos meet the models when many people ask at once.

Where the models run in this process, photos are decoded side by side, as many at a time as there are cores,
and then looked at in batches by the one thread that runs models: a second one would only slow the first
down. Where a host lends an accelerator for each call, every call goes its own way.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from PIL import Image

from pawmatch.calibration.facts import given_facts
from pawmatch.errors import Busy, ImageError, PawMatchError
from pawmatch.images import ImageFile, hold_file, read_image
from pawmatch.images.pool import usable_cores
from pawmatch.images.spec import Prepared
from pawmatch.labels import find_label
from pawmatch.results import Explanation, Prediction, Task
from pawmatch.settings import Settings, on_lent_gpu
from pawmatch.ui import request_log
from pawmatch.ui.html import as_jpeg

if TYPE_CHECKING:
    from pawmatch.classifier import Classifier, ModelOutputs

log = logging.getLogger(__name__)

MAX_BATCH = 16  # photos at once; with more, the first of them would wait for the last
SHOWN_SIDE = 1024  # pixels; the page's own copy of a photo, larger than any place where it is shown
MIN_SHOWN = 720  # pixels of its longer side, unless the photo has fewer
RETRY_SECONDS = 60  # between two loads in place of a fallback
# What one call may take on a lent GPU; the shorter, the better the place in the queue. The largest call, of
# MAX_BATCH photos, takes 3.2 s of one CPU core. The rest is for CUDA to start, which was not measured.
GPU_SECONDS = 15
Source = str | ImageFile  # where an upload lies, or what was fetched from the web
LOAD_SECONDS = 60  # that a visitor waits for models
WARM_SECONDS = 600  # that the start waits for those of one task, before it turns to the next
Load = Callable[[str], "Classifier"]
Question = tuple["Classifier", Prepared]
Compute = Callable[[str, Sequence[Prepared]], "list[ModelOutputs] | PawMatchError"]
Q = TypeVar("Q")
A = TypeVar("A")


class Classifiers:
    """The loaded classifiers. Each task is loaded in a thread of its own, so that none waits for another's.

    `tasks` are those on offer, by name. `thread` is the one thread that runs models: each thread that did
    would keep helpers of its own on every core, and two at once only slow each other down.
    """

    def __init__(self, load: Load, tasks: Mapping[str, Task]) -> None:
        self.tasks = dict(tasks)
        self.thread: Executor = ThreadPoolExecutor(1, thread_name_prefix="models")
        self._load = load
        self._lock = threading.Lock()
        self._loads: dict[str, Future[Classifier]] = {}  # those that go on
        self._loaded: dict[str, Classifier] = {}
        self._retried = -math.inf  # when a load in place of a fallback was last begun, for any task

    def is_ready(self, task: str) -> bool:
        """Whether the task's models are in memory."""
        return task in self._loaded

    def get(self, task: str, seconds: float = LOAD_SECONDS) -> Classifier:
        """The task's classifier, loaded at the first call; a load that fails raises and is tried again.

        All who ask meanwhile wait for the same load, so many seconds at most. Raises Busy after them.
        """
        return self._loaded[task] if task in self._loaded else self._wait(task, seconds)

    def notice(self, task: str) -> str | None:
        """One line if another model than the intended one answers for the task."""
        return self._loaded[task].notice if task in self._loaded else None

    def replace_fallback(self, task: str) -> Future[Classifier] | None:
        """Start to load the task anew, aside, if a fallback serves, which answers until then.

        Once a minute at most, whoever asks: a load takes as much memory as the model that answers. None if
        nothing was started.
        """
        with self._lock:
            now = time.monotonic()
            if not self.notice(task) or now - self._retried < RETRY_SECONDS:
                return None
            self._retried = now
            return self._start(task)

    def _wait(self, task: str, seconds: float) -> Classifier:
        with self._lock:
            if task in self._loaded:  # since the caller looked
                return self._loaded[task]
            future = self._start(task)
        if not wait([future], seconds).done:
            raise Busy("The models are still being loaded; please try again in a minute.")
        return future.result()

    def _start(self, task: str) -> Future[Classifier]:
        """The load of a task that goes on, or else a new one; the lock is held."""
        future = self._loads.get(task)
        if future is None:
            future = self._loads[task] = Future()
            # Nobody can end a thread that hangs; as a daemon it does not keep the process from ending.
            threading.Thread(target=self._run, args=(task, future), daemon=True).start()
        return future

    def _run(self, task: str, future: Future[Classifier]) -> None:
        try:
            classifier = self._load(task)
        except BaseException as exc:
            with self._lock:
                del self._loads[task]
            future.set_exception(exc)
        else:
            with self._lock:
                self._loaded[task] = classifier
                del self._loads[task]
            future.set_result(classifier)

    def warm_up(self) -> None:
        """Load every task and let it answer for an empty picture: a model's first run takes far longer.

        A task that fails is logged and will be tried again when somebody asks for it.
        """
        for method in ("predict", "explain"):  # answers before heatmaps
            for task in self.tasks:
                if method == "predict" or self.is_ready(task):
                    self._try(task, method)

    def _try(self, task: str, method: str) -> None:
        try:
            classifier = self.get(task, WARM_SECONDS)
            self.thread.submit(getattr(classifier, method), Image.new("RGB", (64, 64))).result()
            if method == "explain":
                _ = classifier.architecture  # drawn once: else somebody's first heatmaps wait for it
        except Exception:
            log.exception("The models for %s could not be loaded.", task)


def from_settings(settings: Settings) -> Classifiers:
    """Classifiers of all tasks, from the sources that the settings name."""

    def load_task(task: str) -> Classifier:
        from pawmatch.classifier import load

        # A service must start every time: where the Hub fails, the bundled weights answer, with a notice.
        return load(task, settings.source(task), settings.device, settings.engine, strict=False)

    return Classifiers(load_task, settings.tasks)


class Collector(Generic[Q, A]):
    """Hands questions from many threads to `answer` in batches of at most `size`, in the order they came.

    Nobody waits for company: a question that finds the thread idle is answered at once and alone. What comes
    in while a batch runs is the next batch. So a quiet service is as quick as one without batches, and a busy
    one gathers just as much as piles up. `thread` runs the batches, one job at a time; others may use it too,
    since after each batch the rest queues up again behind their jobs.
    """

    def __init__(self, answer: Callable[[Sequence[Q]], Sequence[A]], size: int, thread: Executor) -> None:
        self._answer, self._size, self._thread = answer, size, thread
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Q, Future[A]]] = deque()
        self._is_called = False  # whether the thread has been told that something waits

    def hand_in(self, questions: Iterable[Q]) -> list[Future[A]]:
        """Questions whose answers the caller does not wait for yet; a cancelled future is left out."""
        entries: list[tuple[Q, Future[A]]] = [(question, Future()) for question in questions]
        with self._lock:
            self._waiting.extend(entries)
            call = bool(entries) and not self._is_called
            self._is_called |= call
        if call:
            self._thread.submit(self._run)
        return [future for _, future in entries]

    def _run(self) -> None:
        with self._lock:
            taken = [self._waiting.popleft() for _ in range(min(self._size, len(self._waiting)))]
            self._is_called = bool(self._waiting)
            if self._is_called:
                self._thread.submit(self._run)
        batch = [(question, future) for question, future in taken if future.set_running_or_notify_cancel()]
        if batch:
            self._settle(batch)

    def _settle(self, batch: list[tuple[Q, Future[A]]]) -> None:
        """Give every question of a batch its own answer or its own exception."""
        try:
            answers = self._answer([question for question, _ in batch])
            for (_, future), answer in zip(batch, answers, strict=True):
                future.set_result(answer)
            return
        except BaseException as exc:
            if len(batch) == 1:
                batch[0][1].set_exception(exc)
                return
        # One question can spoil a batch, or the batch was too large for the memory: each gets its own try.
        # Not in the clause above, where the exception would keep all that the batch had in memory.
        for entry in batch:
            if not entry[1].done():
                self._settle([entry])


@dataclass(frozen=True)
class Seen:
    """A photo that was answered for the page, and what heatmaps for any label are made of.

    `outputs` are those of the models, without the photo's pixels, or the photo itself where models elsewhere
    answered; `jpeg` is the page's copy of the photo.
    """

    prediction: Prediction
    outputs: Any
    jpeg: bytes


class Here:
    """The models run in this process."""

    def __init__(self, classifiers: Classifiers) -> None:
        self._classifiers = classifiers
        # Decoded photos are large: more of them at a time would cost memory and gain nothing.
        self._decoding = threading.BoundedSemaphore(max(2, usable_cores()))
        self._collector = Collector(run_together, MAX_BATCH, classifiers.thread)

    def predict(self, task: str, source: Source, top_k: int, facts: Any = None) -> Prediction:
        """One photo's answer, given what is known beside it; raises BadOption for a fact that is none."""
        classifier = self._classifiers.get(task)
        given = given_facts(classifier.table, facts)
        return classifier.to_prediction(self._run(task, source), top_k, given)

    def predict_all(self, task: str, paths: Sequence[str], top_k: int) -> list[Prediction | PawMatchError]:
        """An answer or an error for each photo, in order.

        A batch's worth of them at a time, so that somebody with one photo need not wait for all.
        """
        classifier = self._classifiers.get(task)
        answers: list[Prediction | PawMatchError] = []
        for start in range(0, len(paths), MAX_BATCH):
            entries = [self._try_prepare(classifier, path) for path in paths[start : start + MAX_BATCH]]
            readable = [entry for entry in entries if not isinstance(entry, ImageError)]
            outputs = iter(self._run_models(classifier, readable))
            for entry in entries:
                if isinstance(entry, ImageError):
                    answers.append(entry)
                else:
                    answers.append(classifier.to_prediction(next(outputs), top_k))
        return answers

    def explain(self, task: str, source: Source, label: str | None, top_k: int) -> Explanation:
        """One photo's answer with the heatmaps for a label."""
        classifier = self._classifiers.get(task)
        if label is not None:
            find_label(classifier.labels, label)  # before the models run for nothing
        outputs = self._run(task, source)
        with self._decoding:
            photo = read_image(source).image
        # Its gradients, too, are for the thread that runs models; it takes them in turn with batches.
        job = self._classifiers.thread.submit(classifier.explain_outputs, outputs, photo, label, top_k=top_k)
        return job.result()

    def look(self, task: str, path: Source, top_k: int) -> Seen:
        """One photo's answer for the page, as soon as there is one."""
        classifier = self._classifiers.get(task)
        prepared, jpeg = self._prepare_shown(classifier, path)
        (outputs,) = self._run_models(classifier, [prepared])
        prediction = classifier.to_prediction(outputs, top_k)
        # Pixels are most of it, and no heatmap needs them.
        small = replace(outputs.prepared, pixels={}, canvases={})
        return Seen(prediction, replace(outputs, prepared=small), jpeg)

    def refine(self, task: str, seen: Seen, top_k: int, facts: Any) -> Seen:
        """The answer to the same photo given what is known beside it; the models do not run."""
        classifier = self._classifiers.get(task)
        given = given_facts(classifier.table, facts)
        return replace(seen, prediction=classifier.to_prediction(seen.outputs, top_k, given))

    def heatmaps(self, task: str, seen: Seen, photo: Image.Image, label: str | None) -> Explanation:
        """The heatmaps of a photo that was answered: one backward pass through each head."""
        classifier = self._classifiers.get(task)
        return self._classifiers.thread.submit(draw_maps, classifier, seen, photo, label).result()

    def _run(self, task: str, source: Source) -> ModelOutputs:
        classifier = self._classifiers.get(task)
        (outputs,) = self._run_models(classifier, [self._prepare(classifier, source)])
        return outputs

    def _run_models(self, classifier: Classifier, prepared: Sequence[Prepared]) -> Sequence[ModelOutputs]:
        futures = self._collector.hand_in([(classifier, entry) for entry in prepared])
        return [future.result() for future in futures]

    def _prepare(self, classifier: Classifier, source: Source) -> Prepared:
        held = hold_file(source)
        with self._decoding:
            return noted(held, classifier.prepare(held))

    def _prepare_shown(self, classifier: Classifier, path: Source) -> tuple[Prepared, bytes]:
        """As _prepare, with the page's copy of the photo, of what was decoded where that is large enough."""
        held = hold_file(path)
        with self._decoding:
            prepared = noted(held, classifier.prepare(held, keep_photo=True))
            photo = prepared.photo
            if photo is None or max(photo.size) < min(MIN_SHOWN, max(prepared.width, prepared.height)):
                photo = read_image(held, min_side=MIN_SHOWN).image
            return replace(prepared, photo=None), shown_jpeg(photo)

    def _try_prepare(self, classifier: Classifier, path: str) -> Prepared | ImageError:
        try:
            return self._prepare(classifier, path)
        except ImageError as exc:
            return exc


def run_together(questions: Sequence[Question]) -> list[ModelOutputs]:
    """What each question's classifier makes of its photo; those of one classifier in one batch."""
    groups: dict[int, list[int]] = {}
    for index, (classifier, _) in enumerate(questions):
        groups.setdefault(id(classifier), []).append(index)
    answers: dict[int, ModelOutputs] = {}
    for indices in groups.values():
        classifier = questions[indices[0]][0]
        answers |= zip(
            indices, classifier.run_models([questions[index][1] for index in indices]), strict=True
        )
    return [answers[index] for index in range(len(questions))]


def draw_maps(classifier: Classifier, seen: Seen, photo: Image.Image, label: str | None) -> Explanation:
    """The heatmaps for a label, by default the first choice, of a photo that the models have run on."""
    started = time.perf_counter()
    wanted = seen.prediction.top.label if label is None else find_label(classifier.labels, label)
    maps = classifier.heatmaps(seen.outputs, wanted, photo.size)
    timing = {**seen.prediction.timing_ms, "explain": round(1000 * (time.perf_counter() - started), 1)}
    name = classifier.names[classifier.labels.index(wanted)]
    return Explanation(replace(seen.prediction, timing_ms=timing), wanted, name, photo, maps, {})


def shown_jpeg(photo: Image.Image) -> bytes:
    """The page's own copy of a photo, which becomes as small: at most SHOWN_SIDE long."""
    photo.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    return as_jpeg(photo)


def noted(held: ImageFile | Image.Image, prepared: Prepared) -> Prepared:
    """A photo whose size is in the request's line of the log now."""
    size = len(held.data) if isinstance(held, ImageFile) else 0
    request_log.note_photo(size, prepared.width * prepared.height)
    return prepared


class Lent(Here):
    """A host lends an accelerator for each call, which takes prepared photos and gives the models' outputs.

    The call runs in another process, where alone there is a GPU: what goes in and out are plain values on the
    CPU, errors included; and in the visitor's own thread, by which the host knows whose quota to charge.
    Photos are decoded and heatmaps drawn here, which costs nobody's quota.
    """

    def __init__(
        self, classifiers: Classifiers, on_gpu: Callable[[Compute], Compute], device: str = "cuda"
    ) -> None:
        super().__init__(classifiers)
        moved: dict[str, Classifier] = {}  # in the other process, which may serve several calls

        def compute(task: str, prepared: Sequence[Prepared]) -> list[ModelOutputs] | PawMatchError:
            if task not in moved:
                moved[task] = classifiers.get(task).moved(device)
            try:
                found = moved[task].run_models(prepared)
            except PawMatchError as exc:
                return exc
            return [
                replace(one, feature_maps={name: maps.cpu() for name, maps in one.feature_maps.items()})
                for one in found
            ]

        self._compute = on_gpu(compute)

    def _run_models(self, classifier: Classifier, prepared: Sequence[Prepared]) -> Sequence[ModelOutputs]:
        found = self._compute(classifier.task.name, prepared)
        if isinstance(found, PawMatchError):
            raise found
        return found


def lent_gpu() -> Callable[[Any], Any] | None:
    """The decorator that borrows a GPU for one call on Hugging Face's ZeroGPU; elsewhere None."""
    if not on_lent_gpu():
        return None
    try:
        import spaces
    except ImportError:
        return None
    decorator: Callable[[Any], Any] = spaces.GPU(duration=GPU_SECONDS)
    return decorator
