"""Files of rows, CSV or JSON lines: how a result becomes a row, and how rows are read again."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from pawmatch.commands.records import COLUMNS, Result, cell, csv_values, file_record

# A name on disk may hold bytes that are no UTF-8; they come out of a row as they went in.
ENCODING = {"encoding": "utf-8", "errors": "surrogateescape"}


@dataclass(frozen=True)
class Row:
    """A row that is there already: its file, its error's message if it is one, and where it ends in bytes."""

    file: str
    message: str | None
    end: int


class Damaged(Exception):
    """A row in the middle is not as it was written; the message says where."""


class RowFormat(Protocol):
    """One way of writing rows."""

    @property
    def header(self) -> bytes:
        """What the file begins with."""
        ...

    def row(self, file: str, result: Result) -> bytes:
        """One row with the end of its line."""
        ...

    def file_in_row(self, file: str) -> str:
        """The name of a file as it stands in its row."""
        ...

    def read(self, stream: BinaryIO) -> Iterator[Row]:
        """The rows from the stream's place on, up to one that is cut off. Raises Damaged."""
        ...


class JsonLines:
    """One JSON object per line, in ASCII."""

    header = b""

    def row(self, file: str, result: Result) -> bytes:
        """The result's record as a line."""
        return (json.dumps(file_record(file, result), allow_nan=False) + "\n").encode("ascii")

    def file_in_row(self, file: str) -> str:
        """The name as it is: JSON keeps all of them."""
        return file

    def read(self, stream: BinaryIO) -> Iterator[Row]:
        """The rows up to a line without an end."""
        end = stream.tell()
        for number, line in enumerate(stream, start=1):
            if not line.endswith(b"\n"):
                return
            end += len(line)
            try:
                record = json.loads(line)
                message = record["error"]["message"] if "error" in record else None
                yield Row(record["file"], message, end)
            except (ValueError, KeyError, TypeError) as exc:
                raise Damaged(f"line {number}") from exc


class CsvRows:
    """COLUMNS, then per variant its label and its confidence."""

    def __init__(self, variants: Sequence[str]) -> None:
        extra = [column for variant in variants for column in (variant, f"{variant}_confidence")]
        self.columns = [*COLUMNS, *extra]

    @property
    def header(self) -> bytes:
        """The names of the columns."""
        return self._line(self.columns)

    def row(self, file: str, result: Result) -> bytes:
        """The result's values, without what a spreadsheet would run as a formula."""
        values = {"file": file, **csv_values(result)}
        return self._line([cell(values.get(column, "")) for column in self.columns])

    def file_in_row(self, file: str) -> str:
        """The name as spreadsheets may see it."""
        return str(cell(file))

    def _line(self, values: Sequence[str | float]) -> bytes:
        # Python before 3.13 leaves a lone carriage return without the quotes that every reader wants.
        odd = any(isinstance(value, str) and "\r" in value for value in values)
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL)
        writer.writerow(values)
        return stream.getvalue().encode(**ENCODING)

    def read(self, stream: BinaryIO) -> Iterator[Row]:
        """The rows up to one without an end; a name may hold line breaks, so a row may be several lines."""
        end, whole = stream.tell(), True

        def lines() -> Iterator[str]:
            nonlocal end, whole
            for line in stream:
                end, whole = end + len(line), line.endswith(b"\n")
                yield line.decode(**ENCODING)

        # A reader takes no more lines than one row has, so that `end` is where the row ends.
        rows = csv.reader(lines(), strict=True)
        number = 0
        while True:
            number += 1
            try:
                values = next(rows)
            except StopIteration:
                return
            except csv.Error as exc:
                if "unexpected end of data" in str(exc) or not whole:
                    return
                raise Damaged(f"row {number}") from exc
            if not whole:
                return
            if len(values) != len(self.columns):
                raise Damaged(f"row {number}")
            row = dict(zip(self.columns, values, strict=True))
            yield Row(row["file"], row["message"] if row["error"] else None, end)
