"""Names that have moved to pawmatch.labels and pawmatch.results, until nobody imports them from here."""

from __future__ import annotations

from pawmatch.labels import VARIANT_NAMES, bundled_tasks, find_task, new_task
from pawmatch.phrasing import listed
from pawmatch.results import Task

__all__ = ["TASKS", "VARIANT_NAMES", "Task", "find_task", "new_task", "task_names"]

TASKS = {name: find_task(name) for name in bundled_tasks()}


def task_names() -> str:
    """The names of all tasks as a sentence has them."""
    return listed(bundled_tasks())
