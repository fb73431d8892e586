"""The page "What it knows": every class of a task, how often it is told right, and what it is taken for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from pawmatch.errors import PawMatchError
from pawmatch.labels import display_name, spelling_key
from pawmatch.ui import html, retell
from pawmatch.ui.api import MODEL_RUN, PRIVATE
from pawmatch.ui.handlers import Handlers, fit_for_visitors
from pawmatch.ui.page import page_header, task_choice
from pawmatch.ui.speech import language, say, static

PATH = "known"
MAX_TAKEN = 3  # classes that one is taken for, as far as they are named
# Typing narrows the list down; `data-key` has a class's names without case, accents and separators.
SEARCH = """element.addEventListener("input", ({ target }) => {
  const plain = (text) => text.normalize("NFKD").toLowerCase().replace(/[^\\p{L}\\p{N}]/gu, "");
  const wanted = plain(target.value);
  const rows = [...element.querySelectorAll("[data-key]")];
  for (const row of rows) row.hidden = !row.dataset.key.includes(wanted);
  element.querySelector("output").textContent = rows.filter((row) => !row.hidden).length;
});"""


class KnownPage:
    """All widgets, made within the route being built, and the events between them."""

    def __init__(self, handlers: Handlers) -> None:
        self.handlers = handlers
        tasks = list(handlers.classifiers.tasks.values())
        page_header(tasks)
        self.task = task_choice(tasks)
        self.list = gr.HTML(
            static(lambda: html.working(say("known.reading"))), js_on_load=SEARCH, elem_id="known"
        )
        gr.HTML(static(lambda: html.footer(tasks)))

    def connect(self, demo: gr.Blocks) -> None:
        """Which event leads to what; `demo` is the whole app, whose loading is an event too."""
        shown: dict[str, Any] = {"inputs": self.task, "outputs": self.list, "show_progress": "hidden"}
        for event in (demo.load, self.task.change):
            event(self.show, **shown, **PRIVATE, **MODEL_RUN)

    def show(self, task: Any) -> str:
        """The classes of a task, by name."""
        try:
            with fit_for_visitors():
                words = self.handlers.task(task)
                classifier = self.handlers.classifiers.get(words.name)
        except PawMatchError as exc:
            return html.problem(retell.error(exc))
        metrics = classifier.metrics
        figures = metrics.get("by_class")
        figures = figures if isinstance(figures, dict) else {}
        rows = sorted((row(label, figures.get(label)) for label in classifier.labels), key=lambda one: one[0])
        return html.known(retell.task(words), rows, metrics.get("validation_images") if figures else None)


def row(label: str, figures: Any) -> tuple[str, str, str, str, str]:
    """A class: its name, all its names to search for, its figures in words, its mistakes, and a link out."""
    name = retell.class_name(label)
    key = " ".join(spelling_key(text) for text in (name, display_name(label), label))
    told, taken = "", ""
    if isinstance(figures, list) and len(figures) == 3 and isinstance(figures[2], Mapping):
        images, right, others = figures
        told = say("known.right", right=right, images=images)
        named = [
            f"{retell.class_name(str(other))} ({count})" for other, count in [*others.items()][:MAX_TAKEN]
        ]
        taken = say("known.taken", names=say("known.comma").join(named)) if named else ""
    return name, key, told, taken, encyclopedia(name)


def encyclopedia(name: str) -> str:
    """Where Wikipedia's search for a name is, in the visitor's language."""
    return f"https://{language().partition('-')[0]}.wikipedia.org/w/index.php?{urlencode({'search': name})}"
