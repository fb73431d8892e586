"""The tasks that this process serves, as PAWMATCH_SOURCES and its short forms name them."""

from __future__ import annotations

import os

from pawmatch import labels
from pawmatch.errors import BadOption
from pawmatch.phrasing import listed
from pawmatch.results import Task
from pawmatch.settings import Settings


def _served() -> dict[str, Task]:
    try:
        given = {name: text for name, text in os.environ.items() if name.endswith(("_SOURCES", "_SOURCE"))}
        return Settings.from_environ(given).tasks
    except BadOption:  # told by whoever reads all settings
        return Settings().tasks


TASKS = _served()


def find_task(name: str) -> Task:
    """The task of that name among those served; raises UnknownTask, which lists them."""
    labels.find_task(name, TASKS)
    return TASKS[name]


def task_names() -> str:
    """The names of all tasks as a sentence has them."""
    return listed(tuple(TASKS))
