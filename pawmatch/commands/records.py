"""Results as values for other programs: JSON objects and the columns of a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pawmatch.errors import PawMatchError
from pawmatch.results import Prediction

Result = Prediction | PawMatchError
Sink = Callable[[str, Result], None]

COLUMNS = (
    "file",
    "task",
    "verdict",  # its code
    "verdict_text",
    "label",
    "name",
    "confidence",
    "check",  # yes or no: whether a person should check
    "reasons",  # codes of the reasons, separated by blanks
    "candidates_90",  # names, separated by semicolons
    "others",  # the rest of the top k as `name confidence`, separated by semicolons
    "error",  # code of the error; then all columns from `task` on but the last are empty
    "message",
)
# What spreadsheets take for the beginning of a formula.
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")


def json_object(result: Result) -> dict[str, Any]:
    """A result as JSON values: the prediction's own object, or an `error` with code and message."""
    if isinstance(result, PawMatchError):
        return {"error": {"code": result.code, "message": str(result)}}
    return result.to_dict()


def json_record(file: str, result: Result) -> dict[str, Any]:
    """A result with the file that it belongs to as its first key."""
    return {"file": file, **json_object(result)}


def file_record(file: str, result: Result) -> dict[str, Any]:
    """The record as it stands in a file: without timings, so that the same run gives the same file."""
    record = json_record(file, result)
    record.pop("timing_ms", None)
    return record


def csv_values(result: Result) -> dict[str, str | float]:
    """The columns beside `file` of one row."""
    if isinstance(result, PawMatchError):
        return {"error": result.code, "message": str(result)}
    top = result.top
    row: dict[str, str | float] = {
        "task": result.task,
        "verdict": result.verdict.code,
        "verdict_text": result.verdict.text,
        "label": top.label,
        "name": top.name,
        "confidence": round(top.confidence, 4),
        "check": "yes" if result.review.needed else "no",
        "reasons": " ".join(reason.code for reason in result.review.reasons),
        "candidates_90": "; ".join(result.candidates_90),
        "others": "; ".join(f"{one.name} {one.confidence:.4f}" for one in result.predictions[1:]),
    }
    for answer in result.variants:
        row[answer.variant] = answer.label
        row[f"{answer.variant}_confidence"] = round(answer.confidence, 4)
    return row


def cell(value: str | float) -> str | float:
    """The value, with an apostrophe before what a spreadsheet would run as a formula."""
    is_formula = isinstance(value, str) and value.startswith(FORMULA_SIGNS)
    return f"'{value}" if is_formula else value
