"""The tasks and the variants: what they are called in the API and what people read."""

from __future__ import annotations

from dataclasses import dataclass

from pawmatch.errors import UnknownTask


@dataclass(frozen=True)
class Task:
    """One question about a picture.

    `subject` is what the picture has to show ("dog"), `noun` and `plural` are what is looked for ("breed",
    "breeds"); `main_variant` is the one whose answer is given where several are loaded.
    """

    name: str
    title: str
    subject: str
    noun: str
    plural: str
    main_variant: str


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("breed", "Dog breed", "dog", "breed", "breeds", "cnn_transformer_mfe"),
        Task("artist", "Artist", "painting", "artist", "artists", "cnn_transformer"),
    )
}

# From the plain one to the one with everything, the order in which they are shown. MFE stands for
# morphological feature extractor.
VARIANT_NAMES: dict[str, str] = {
    "cnn": "CNN",
    "cnn_transformer": "CNN + Transformer",
    "cnn_transformer_mfe": "CNN + Transformer + MFE",
}


def find_task(name: str) -> Task:
    """The task of that name; raises UnknownTask, which lists the names that there are."""
    if isinstance(name, str) and name in TASKS:
        return TASKS[name]
    raise UnknownTask(f"Task {str(name)[:40]!r} is unknown; use {' or '.join(TASKS)}.")
