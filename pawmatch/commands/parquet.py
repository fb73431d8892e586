"""Parquet: a table with types, made of the JSON lines of a finished run."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pawmatch.commands.rows import Row
from pawmatch.errors import BadOption

ROWS_AT_ONCE = 4096  # in memory, and per row group: the file does not depend on how often the run stopped


def check_parquet() -> None:
    """Raise BadOption if the library that writes Parquet is not there."""
    if importlib.util.find_spec("pyarrow") is None:
        raise BadOption("A .parquet file needs pyarrow: pip install pyarrow, or give a .csv or .jsonl file.")


def convert(lines: Path, out: Path, variants: Sequence[str]) -> None:
    """Write the records in a file of JSON lines as one Parquet table, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, number = pa.string(), pa.float64()
    other = pa.struct([("name", text), ("confidence", number)])
    schema = pa.schema(
        [
            ("file", text),
            ("task", text),
            ("verdict", text),
            ("verdict_text", text),
            ("label", text),
            ("name", text),
            ("confidence", number),
            ("check", pa.bool_()),
            ("reasons", pa.list_(text)),
            ("candidates_90", pa.list_(text)),
            ("others", pa.list_(other)),
            ("error", text),
            ("message", text),
            *(pair for name in variants for pair in ((name, text), (f"{name}_confidence", number))),
        ]
    )
    temporary = out.with_name(f"{out.name}.part")
    with lines.open(encoding="ascii") as source, pq.ParquetWriter(temporary, schema) as writer:
        while records := [json.loads(line) for line in islice(source, ROWS_AT_ONCE)]:
            writer.write_table(pa.Table.from_pylist([values(record) for record in records], schema))
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(out)


def values(record: dict[str, Any]) -> dict[str, Any]:
    """The columns of one record; those that are not named are null."""
    row: dict[str, Any] = {"file": valid_text(record["file"])}
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


def valid_text(name: str) -> str:
    """The name with bytes that are no UTF-8 written as escapes: Parquet takes nothing else."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read(path: Path) -> Iterator[Row]:
    """The rows of a finished table. Raises BadOption for a file that is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            for batch in table.iter_batches(ROWS_AT_ONCE, columns=["file", "error", "message"]):
                for row in batch.to_pylist():
                    yield Row(row["file"], row["message"] if row["error"] else None, 0)
    except (pa.ArrowInvalid, KeyError) as exc:
        raise BadOption(f"{path} is no table of results; add --fresh or name another file.") from exc
