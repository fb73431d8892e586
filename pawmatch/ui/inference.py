"""Answering: how photos meet the models when many people ask at once.

Where the models run in this process, photos are decoded side by side, as many at a time as there are cores,
and then looked at in batches by the one thread that runs models: a second one would only slow the first
down. Where a host lends an accelerator for each call, every call goes its own way.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from PIL import Image

from pawmatch.errors import ImageError, PawMatchError
from pawmatch.images import ImageFile, hold_file, open_image
from pawmatch.images.pool import usable_cores
from pawmatch.labels import find_label
from pawmatch.results import Explanation, Prediction
from pawmatch.settings import Settings
from pawmatch.ui import request_log

if TYPE_CHECKING:
    from pawmatch.classifier import Classifier, Examined
    from pawmatch.images import Prepared

log = logging.getLogger(__name__)

Load = Callable[[str], "Classifier"]


class Classifiers:
    """The loaded classifiers. Two callers who ask for the same task at once wait for one load.

    `thread` is the one thread that runs models: each thread that did would keep helpers of its own on every
    core, and two at once only slow each other down.
    """

    def __init__(self, load: Load, tasks: Iterable[str]) -> None:
        self.thread: Executor = ThreadPoolExecutor(1, thread_name_prefix="models")
        self._load = load
        self._locks = {task: threading.Lock() for task in tasks}
        self._loaded: dict[str, Classifier] = {}

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks on offer."""
        return tuple(self._locks)

    def is_ready(self, task: str) -> bool:
        """Whether the task's models are in memory."""
        return task in self._loaded

    def get(self, task: str) -> Classifier:
        """The task's classifier, loaded at the first call; a load that fails raises and is tried again."""
        with self._locks[task]:
            if task not in self._loaded:
                self._loaded[task] = self._load(task)
            return self._loaded[task]

    def reload(self, task: str) -> Classifier:
        """Load the task anew, for when a fallback serves; until then the old classifier answers."""
        classifier = self._load(task)
        with self._locks[task]:
            self._loaded[task] = classifier
        return classifier

    def warm_up(self) -> None:
        """Load every task and let it answer for an empty picture: a model's first run takes far longer.

        A task that fails is logged and will be tried again when somebody asks for it.
        """
        for task in self.tasks:
            self._try(task, "predict")
        # Answers before heatmaps, whose libraries take a while to import.
        for task in filter(self.is_ready, self.tasks):
            self._try(task, "explain")

    def _try(self, task: str, method: str) -> None:
        try:
            classifier = self.get(task)
            self.thread.submit(getattr(classifier, method), Image.new("RGB", (64, 64))).result()
        except Exception:
            log.exception("The models for %s could not be loaded.", task)


def from_settings(settings: Settings) -> Classifiers:
    """Classifiers of all tasks, from the sources that the settings name."""

    def load_task(task: str) -> Classifier:
        import torch

        from pawmatch.classifier import load

        torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))

        # A service must start every time: where the Hub fails, the bundled weights answer, with a notice.
        return load(task, settings.source(task), settings.device, settings.engine, strict=False)

    return Classifiers(load_task, settings.sources)


Q = TypeVar("Q")
A = TypeVar("A")


class Collector(Generic[Q, A]):
    """Hands questions to `answer` in batches of at most `most`, in the order in which they came.

    `thread` runs the batches and should run one job at a time; others may use it too, since after each
    batch the rest queues up again behind their jobs. `answer` gives one answer for each question.
    """

    def __init__(self, answer: Callable[[Sequence[Q]], Sequence[A]], most: int, thread: Executor) -> None:
        self._answer = answer
        self._most = most
        self._thread = thread
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Q, Future[A]]] = deque()
        self._is_called = False  # whether the thread has been told that something waits

    def ask(self, question: Q) -> A:
        """The answer to one question; raises what answering it raised."""
        (future,) = self.hand_in([question])
        return future.result()

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
            taken = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
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


MOST_AT_ONCE = 16  # photos in one batch; with more, the first of them would wait for the last
Question = tuple["Classifier", "Prepared"]
Compute = Callable[[str, str, tuple[Any, ...], int], Any]


class Answering(Protocol):
    """What the handlers need: answers for photos, given as paths that were checked."""

    def predict(self, task: str, path: str, top_k: int) -> Prediction:
        """One photo's answer."""
        ...

    def predict_all(self, task: str, paths: Sequence[str], top_k: int) -> list[Prediction | PawMatchError]:
        """An answer or an error for each photo, in order."""
        ...

    def explain(self, task: str, path: str, label: str | None, top_k: int) -> Explanation:
        """One photo's answer with the heatmaps for a label."""
        ...


class Here:
    """The models run in this process."""

    def __init__(self, classifiers: Classifiers) -> None:
        self._classifiers = classifiers
        self._models = classifiers.thread
        # Decoded photos are large: more of them at a time would cost memory and gain nothing.
        self._decoding = threading.BoundedSemaphore(max(2, usable_cores()))
        self._collector = Collector(examine_together, MOST_AT_ONCE, self._models)

    def predict(self, task: str, path: str, top_k: int) -> Prediction:
        """One photo's answer."""
        classifier = self._classifiers.get(task)
        examined = self._collector.ask((classifier, self._prepare(classifier, path)))
        return classifier.conclude(examined, top_k)

    def predict_all(self, task: str, paths: Sequence[str], top_k: int) -> list[Prediction | PawMatchError]:
        """An answer or an error for each photo, in order.

        A batch's worth of them at a time, so that somebody with one photo need not wait for all.
        """
        classifier = self._classifiers.get(task)
        answers: list[Prediction | PawMatchError] = []
        for start in range(0, len(paths), MOST_AT_ONCE):
            entries = [self._try_prepare(classifier, path) for path in paths[start : start + MOST_AT_ONCE]]
            readable = [entry for entry in entries if not isinstance(entry, ImageError)]
            futures = iter(self._collector.hand_in([(classifier, entry) for entry in readable]))
            for entry in entries:
                if isinstance(entry, ImageError):
                    answers.append(entry)
                else:
                    answers.append(classifier.conclude(next(futures).result(), top_k))
        return answers

    def explain(self, task: str, path: str, label: str | None, top_k: int) -> Explanation:
        """One photo's answer with the heatmaps for a label."""
        classifier = self._classifiers.get(task)
        if label is not None:
            find_label(classifier.labels, label)  # before the models run for nothing
        examined = self._collector.ask((classifier, self._prepare(classifier, path)))
        with self._decoding:
            photo = open_image(path)
        # Its gradients, too, are for the thread that runs models; it takes them in turn with batches.
        job = self._models.submit(classifier.explain_examined, examined, photo, label, top_k=top_k)
        return job.result()

    def _prepare(self, classifier: Classifier, path: str) -> Prepared:
        held = hold_file(path)
        size = len(held.data) if isinstance(held, ImageFile) else 0
        with self._decoding:
            prepared = classifier.prepare(held)
        request_log.note_photo(size, prepared.width * prepared.height)
        return prepared

    def _try_prepare(self, classifier: Classifier, path: str) -> Prepared | ImageError:
        try:
            return self._prepare(classifier, path)
        except ImageError as exc:
            return exc


def examine_together(questions: Sequence[Question]) -> list[Examined]:
    """What each question's classifier makes of its photo; those of one classifier in one batch."""
    groups: dict[int, list[int]] = {}
    for place, (classifier, _) in enumerate(questions):
        groups.setdefault(id(classifier), []).append(place)
    answers: dict[int, Examined] = {}
    for places in groups.values():
        classifier = questions[places[0]][0]
        examined = classifier.examine([questions[place][1] for place in places])
        answers |= zip(places, examined, strict=True)
    return [answers[place] for place in range(len(questions))]


class Lent:
    """A host lends an accelerator for each call.

    The call runs in another process, so what goes in and out are plain values, errors included; and in the
    visitor's own thread, by which the host knows whose quota to charge.
    """

    def __init__(self, classifiers: Classifiers, on_gpu: Callable[[Compute], Compute]) -> None:
        self._classifiers = classifiers

        def compute(task: str, method: str, arguments: tuple[Any, ...], top_k: int) -> Any:
            try:
                result = getattr(classifiers.get(task), method)(*arguments, top_k=top_k)
                return list(result) if isinstance(result, Iterator) else result
            except PawMatchError as exc:
                return exc

        self._compute = on_gpu(compute)

    def predict(self, task: str, path: str, top_k: int) -> Prediction:
        """One photo's answer."""
        answer: Prediction = self._run(task, "predict", path, top_k=top_k)
        return answer

    def predict_all(self, task: str, paths: Sequence[str], top_k: int) -> list[Prediction | PawMatchError]:
        """An answer or an error for each photo, in order."""
        answers: list[Prediction | PawMatchError] = self._run(task, "predict_batch", paths, top_k=top_k)
        return answers

    def explain(self, task: str, path: str, label: str | None, top_k: int) -> Explanation:
        """One photo's answer with the heatmaps for a label."""
        explanation: Explanation = self._run(task, "explain", path, label, top_k=top_k)
        return explanation

    def _run(self, task: str, method: str, *arguments: Any, top_k: int) -> Any:
        # Loaded in this process: the other one would load it at every call.
        self._classifiers.get(task)
        result = self._compute(task, method, arguments, top_k)
        paths = arguments[0] if isinstance(arguments[0], list) else [arguments[0]]
        for path in paths:
            request_log.note_photo(Path(path).stat().st_size, 0)  # decoded elsewhere
        if isinstance(result, PawMatchError):
            raise result
        return result
