"""Classifiers: one per task, loaded when first needed, shared by everyone who asks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pawmatch.settings import Settings

if TYPE_CHECKING:
    from pawmatch.explain import ExplainingClassifier

log = logging.getLogger(__name__)

Load = Callable[[str], "ExplainingClassifier"]


class Classifiers:
    """The loaded classifiers. Two callers who ask for the same task at once wait for one load."""

    def __init__(self, load: Load, tasks: Iterable[str]) -> None:
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
        """Load every task; one that fails is logged and will be tried again when somebody asks for it."""
        for task in self.tasks:
            try:
                self.get(task)
            except Exception:
                log.exception("The models for %s could not be loaded.", task)


def from_settings(settings: Settings) -> Classifiers:
    """Classifiers of all tasks, from the sources that the settings name."""
    from pawmatch.tasks import TASKS

    def load_task(task: str) -> ExplainingClassifier:
        from pawmatch.loading import load

        # A service must start every time: where the Hub fails, the bundled weights answer, with a notice.
        return load(task, settings.source(task), settings.device, settings.engine, strict=False)

    return Classifiers(load_task, TASKS)
