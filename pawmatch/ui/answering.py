"""Answering: how photos meet the models when many people ask at once.

Where the models run in this process, photos are decoded side by side, as many at a time as there are cores,
and then looked at in batches by the one thread that runs models: a second one would only slow the first
down. Where a host lends an accelerator for each call, every call goes its own way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pawmatch.cores import usable_cores
from pawmatch.errors import ImageError, PawMatchError
from pawmatch.images import ImageFile, hold_file, open_image
from pawmatch.labels import find_label
from pawmatch.results import Explanation, Prediction
from pawmatch.ui import journal
from pawmatch.ui.classifiers import Classifiers
from pawmatch.ui.collector import Collector

if TYPE_CHECKING:
    from pawmatch.explain import ExplainingClassifier
    from pawmatch.predict import Examined
    from pawmatch.prepared import Prepared

MOST_AT_ONCE = 16  # photos in one batch; with more, the first of them would wait for the last
Question = tuple["ExplainingClassifier", "Prepared"]
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

    def _prepare(self, classifier: ExplainingClassifier, path: str) -> Prepared:
        held = hold_file(path)
        size = len(held.data) if isinstance(held, ImageFile) else 0
        with self._decoding:
            prepared = classifier.prepare(held)
        journal.note_photo(size, prepared.width * prepared.height)
        return prepared

    def _try_prepare(self, classifier: ExplainingClassifier, path: str) -> Prepared | ImageError:
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
            journal.note_photo(Path(path).stat().st_size, 0)  # decoded elsewhere
        if isinstance(result, PawMatchError):
            raise result
        return result
