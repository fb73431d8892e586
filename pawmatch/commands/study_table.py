"""The table of a search as Markdown: for the terminal, and to be pasted into a page."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pawmatch.training.search import Row, Table


def study_page(table: Table, command: str) -> str:
    """The table with the command that makes it above and what the figures mean below."""
    conditions = table.conditions
    images = " and ".join(
        f"{conditions[key]:,} {name} images"
        for key, name in (("train_images", "training"), ("validation_images", "validation"))
        if conditions.get(key)
    )
    machine = "{device}, threads: {threads}, torch {torch}".format(**conditions)
    notes = [
        "Validation loss is the negative log-likelihood after calibration, where each validation image is",
        "judged by fits on random halves that it is not in; ECE likewise.",
        f"Latency is the median for one image over {conditions['latency_rounds']} rounds in which the trials",
        f"took turns ({machine});",
        "relative is to the first row. A trial is on the Pareto front if no other is as good in validation",
        "loss, parameters and latency and better in one of them.",
    ]
    if tested := conditions["heatmaps"]:
        notes.append(
            f"Deletion and insertion are the gains of the heatmaps over random maps on {tested} validation "
            "images, positive where the heatmap is better."
        )
    if (seeds := conditions["seeds"]) > 1:
        notes.append(f"Figures are means of {seeds} seeds, ± half the distance from lowest to highest.")
    made = f"Made by `{command}`" + (f" on {images}." if images else ".")
    return "\n".join([made, "", *study_table(table), "", *notes]) + "\n"


def study_table(table: Table) -> list[str]:
    """The lines of the table, then one for each trial that failed."""
    done = [row for row in table.rows if row.runs]
    several = any(len(row.runs) > 1 for row in done)
    columns = {**COLUMNS, **HEAT_COLUMNS} if table.conditions["heatmaps"] else COLUMNS
    lines = [
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(cell(row, several) for cell in columns.values()) + " |" for row in done),
    ]
    failed = [f"- {row.name} failed: {row.failure}" for row in table.rows if row.failure]
    return [*lines, "", *failed] if failed else lines


def _values(row: Row, several: bool) -> str:
    """What the trial sets, without the tables that the values are in: "kernel=5, layers=3"."""
    sets = (f"{key.rpartition('.')[2]}={json.dumps(value)}" for key, value in row.values.items())
    return " ".join(f"`{one}`" for one in sets)


def _measure(name: str, pattern: str) -> Callable[[Row, bool], str]:
    def cell(row: Row, several: bool) -> str:
        spread = f" ± {pattern.replace('+', '').format(row.spread(name))}" if several else ""
        return pattern.format(row.mean(name)) + spread

    return cell


def _latency(name: str, pattern: str) -> Callable[[Row, bool], str]:
    def cell(row: Row, several: bool) -> str:
        value: Any = getattr(row.latency, name, None)
        return "" if value is None else pattern.format(value)

    return cell


COLUMNS: dict[str, Callable[[Row, bool], str]] = {
    "trial": lambda row, several: row.name,
    "sets": _values,
    "parameters": lambda row, several: f"{row.mean('parameters'):,.0f}",
    "latency, ms": _latency("milliseconds", "{:.1f}"),
    "relative": _latency("ratio", "{:.2f}"),
    "validation loss": _measure("loss", "{:.3f}"),
    "top-1": _measure("top1", "{:.1%}"),
    "ECE": _measure("ece", "{:.3f}"),
    "Pareto front": lambda row, several: "yes" if row.front else "",
}
HEAT_COLUMNS = {
    "deletion": _measure("deletion", "{:+.3f}"),
    "insertion": _measure("insertion", "{:+.3f}"),
}
