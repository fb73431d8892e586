"""The tasks and the variants: what they are called in the API and what people read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Len

from pawmatch.errors import UnknownTask
from pawmatch.strict import Name


@dataclass(frozen=True)
class Task:
    """One question about a picture, as a checkpoint's config holds it.

    `subject` is what the picture has to show ("dog"), `noun` and `plural` are what is looked for ("breed",
    "breeds"); `examples` are file names of pictures to try.
    """

    name: str
    title: Name
    subject: Name
    noun: Name
    plural: Name
    examples: Annotated[tuple[Name, ...], Len(0, 64)] = ()


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("breed", "Dog breed", "dog", "breed", "breeds"),
        Task("artist", "Artist", "painting", "artist", "artists"),
        Task("artist-chae", "Artist (CHAE)", "painting", "artist", "artists"),
    )
}

# From the plain one to the one with everything, the order in which they are shown. MFE stands for
# morphological feature extractor.
VARIANT_NAMES: dict[str, str] = {
    "cnn": "CNN",
    "cnn_transformer": "CNN + Transformer",
    "cnn_transformer_mfe": "CNN + Transformer + MFE",
}


def task_names() -> str:
    """The names of all tasks as a sentence has them: "breed, artist or artist-chae"."""
    *most, last = TASKS
    return f"{', '.join(most)} or {last}"


def find_task(name: str) -> Task:
    """The task of that name; raises UnknownTask, which lists the names that there are."""
    if isinstance(name, str) and name in TASKS:
        return TASKS[name]
    raise UnknownTask(f"Task {str(name)[:40]!r} is unknown; use {task_names()}.")


def new_task(name: str) -> Task:
    """The task of that name for a new checkpoint; one that is not in the table gets general words."""
    if name in TASKS:
        return TASKS[name]
    title = name.replace("_", " ").replace("-", " ").capitalize()
    return Task(name, title, "picture", "class", "classes")
