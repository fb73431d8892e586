"""Classifiers: one per task, loaded when first needed, shared by everyone who asks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING

from PIL import Image

from pawmatch.cores import usable_cores
from pawmatch.settings import Settings

if TYPE_CHECKING:
    from pawmatch.explain import ExplainingClassifier

log = logging.getLogger(__name__)

Load = Callable[[str], "ExplainingClassifier"]


class Classifiers:
    """The loaded classifiers. Two callers who ask for the same task at once wait for one load.

    `thread` is the one thread that runs models: each thread that did would keep helpers of its own on every
    core, and two at once only slow each other down.
    """

    def __init__(self, load: Load, tasks: Iterable[str]) -> None:
        self.thread: Executor = ThreadPoolExecutor(1, thread_name_prefix="models")
        self._load = load
        self._locks = {task: threading.Lock() for task in tasks}
        self._loaded: dict[str, ExplainingClassifier] = {}

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks on offer."""
        return tuple(self._locks)

    def is_ready(self, task: str) -> bool:
        """Whether the task's models are in memory."""
        return task in self._loaded

    def get(self, task: str) -> ExplainingClassifier:
        """The task's classifier, loaded at the first call; a load that fails raises and is tried again."""
        with self._locks[task]:
            if task not in self._loaded:
                self._loaded[task] = self._load(task)
            return self._loaded[task]

    def reload(self, task: str) -> ExplainingClassifier:
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
    from pawmatch.tasks import TASKS

    def load_task(task: str) -> ExplainingClassifier:
        import torch

        from pawmatch.loading import load

        torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))

        # A service must start every time: where the Hub fails, the bundled weights answer, with a notice.
        return load(task, settings.source(task), settings.device, settings.engine, strict=False)

    return Classifiers(load_task, TASKS)
