"""Tables that people open: one writer and one reader of CSV, and Parquet with the same columns.

A CSV begins with the mark by which Excel knows UTF-8, and text that a spreadsheet would run as a formula
gets an apostrophe in front.
"""

from __future__ import annotations

import codecs
import csv
import importlib.util
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from pawmatch.errors import BadOption, PawMatchError
from pawmatch.results import Prediction

Result = Prediction | PawMatchError

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
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")  # what spreadsheets take for the beginning of a formula
ROWS_AT_ONCE = 4096  # in memory, and per row group of a Parquet table
MAX_SNIFFED = 4096  # characters of a table that is read; its separator is in its first lines


def json_record(file: str, result: Result) -> dict[str, Any]:
    """A result as JSON values after the file that it belongs to: the prediction's own, or an `error`."""
    if isinstance(result, PawMatchError):
        return {"file": file, "error": {"code": result.code, "message": str(result)}}
    return {"file": file, **result.to_dict()}


def table_values(record: dict[str, Any]) -> dict[str, Any]:
    """The columns of one record, typed; those that are not named are empty."""
    # JSON keeps bytes of a name that are no UTF-8; a table would not open with them.
    row = {"file": record["file"].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")}
    if "error" in record:
        return {**row, "error": record["error"]["code"], "message": record["error"]["message"]}
    top, *others = record["predictions"]
    row |= {
        "task": record["task"],
        "verdict": record["verdict"]["code"],
        "verdict_text": record["verdict"]["text"],
        **top,
        "check": record["review"]["needed"],
        "reasons": [reason["code"] for reason in record["review"]["reasons"]],
        "candidates_90": record["candidates_90"],
        "others": [{"name": one["name"], "confidence": one["confidence"]} for one in others],
    }
    for answer in record["variants"]:
        row[answer["variant"]] = answer["label"]
        row[f"{answer['variant']}_confidence"] = answer["confidence"]
    return row


def columns_of(variants: Sequence[str]) -> list[str]:
    """The columns of a table of results: COLUMNS, then per variant its label and its confidence."""
    return [*COLUMNS, *(column for variant in variants for column in (variant, f"{variant}_confidence"))]


def _in_words(column: str, value: Any) -> Any:
    """One value as a cell has it."""
    if column == "others" and value is not None:
        return "; ".join(f"{one['name']} {one['confidence']:.4f}" for one in value)
    if isinstance(value, list):
        return (" " if column == "reasons" else "; ").join(value)
    return ("no", "yes")[value] if isinstance(value, bool) else value


def csv_line(values: Iterable[str | float | None]) -> bytes:
    """One line of CSV: fractions to four digits, None as nothing, and no formulas."""
    cells = [
        "" if value is None else round(value, 4) if isinstance(value, float) else _guarded(value)
        for value in values
    ]
    # Python before 3.13 leaves a lone carriage return without the quotes that every reader wants.
    odd = any(isinstance(cell, str) and "\r" in cell for cell in cells)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL)
    writer.writerow(cells)
    return stream.getvalue().encode("utf-8", "backslashreplace")


def _guarded(value: str | int) -> str | int:
    is_formula = isinstance(value, str) and value.startswith(FORMULA_SIGNS)
    return f"'{value}" if is_formula else value


def csv_table(rows: Iterable[Iterable[Any]]) -> Iterator[bytes]:
    """A whole table as lines, its head first."""
    yield codecs.BOM_UTF8
    yield from map(csv_line, rows)


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV table, by the names in its first line, whichever spreadsheet wrote it.

    Commas, semicolons or tabs separate its cells. The apostrophe that keeps a formula from running is
    taken off. Raises BadOption for a table without a head.
    """
    text = decoded(path.read_bytes())
    try:
        dialect = csv.Sniffer().sniff(text[:MAX_SNIFFED].partition("\n")[0], ",;\t")
    except csv.Error:
        dialect = csv.excel  # a single column
    rows = csv.DictReader(io.StringIO(text, newline=""), dialect=dialect)
    if not rows.fieldnames:
        raise BadOption(f"{path} is empty; give a table whose first line names its columns.")
    return [
        {
            name.strip(): cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA_SIGNS) else cell
            for name, cell in row.items()
            if name is not None and cell is not None
        }
        for row in rows
    ]


def decoded(data: bytes) -> str:
    """The text of a file that somebody saved: UTF-8 or UTF-16 by its mark, or Windows' Western letters."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def check_parquet() -> None:
    """Raise BadOption if the library that writes Parquet is not there."""
    if importlib.util.find_spec("pyarrow") is None:
        raise BadOption("A .parquet file needs pyarrow: pip install pyarrow, or give a .csv or .jsonl file.")


def write_csv(records: Iterator[dict[str, Any]], path: Path, variants: Sequence[str]) -> None:
    """Write records as a CSV table."""
    columns = columns_of(variants)
    values = map(table_values, records)
    rows = ([_in_words(column, row.get(column)) for column in columns] for row in values)
    with path.open("wb") as stream:
        stream.writelines(csv_table(chain([columns], rows)))


def write_parquet(records: Iterator[dict[str, Any]], path: Path, variants: Sequence[str]) -> None:
    """Write records as a Parquet table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, number = pa.string(), pa.float64()
    kinds = {
        "confidence": number,
        "check": pa.bool_(),
        "reasons": pa.list_(text),
        "candidates_90": pa.list_(text),
        "others": pa.list_(pa.struct([("name", text), ("confidence", number)])),
    }
    numbers = dict.fromkeys((f"{variant}_confidence" for variant in variants), number)
    schema = pa.schema([(name, (kinds | numbers).get(name, text)) for name in columns_of(variants)])
    with pq.ParquetWriter(path, schema) as writer:
        while some := [table_values(record) for record in islice(records, ROWS_AT_ONCE)]:
            writer.write_table(pa.Table.from_pylist(some, schema))


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file of JSON lines."""
    with path.open(encoding="ascii") as lines:
        for line in lines:
            yield json.loads(line)
