"""A file of results that is written as they come, and gone on with by the run after one that was ended.

Rows are handed to the system after each batch, which is enough whatever ends this process; they are
forced onto the disk once, at the end, so that a power cut may take rows of the last seconds. Either leaves
whole rows and perhaps a torn one. The next run cuts the file after the last whole batch and goes on there:
batches then hold the same images as in a run that nothing ended, and so give the same digits.

A Parquet table has its index at its end and cannot grow. Its rows wait in a file of JSON lines beside it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from pawmatch.commands import parquet
from pawmatch.commands.inputs import Found
from pawmatch.commands.records import Result
from pawmatch.commands.rows import CsvRows, Damaged, JsonLines, Row, RowFormat
from pawmatch.commands.run_record import REMEDY, check_record, write_record
from pawmatch.errors import BadOption, PawMatchError

SUFFIXES = (".csv", ".jsonl", ".parquet")
MOST_LISTED = 20


@dataclass
class Tally:
    """How many rows there are, how many of them errors, and the first of those with their messages."""

    rows: int = 0
    errors: int = 0
    first: list[tuple[str, str]] = field(default_factory=list)

    def add(self, file: str, message: str | None) -> None:
        """Count one row; `message` is that of its error, if it is one."""
        self.rows += 1
        if message is not None:
            self.errors += 1
            if len(self.first) < MOST_LISTED:
                self.first.append((file, message))


def check_out(out: Path) -> None:
    """Raise BadOption for a name that no results can be written to."""
    if out.suffix.lower() not in SUFFIXES:
        raise BadOption(f"--out is {str(out)!r}; give a file that ends in .csv, .jsonl or .parquet.")
    if out.suffix.lower() == ".parquet":
        parquet.check_parquet()


class Output:
    """The results of one run, in `out`.

    `settings` are what the rows depend on, `variants` the models that have columns, `batch` how many images
    the models take at once; `fresh` drops what is there.
    """

    def __init__(
        self, out: Path, settings: dict[str, Any], variants: Sequence[str], batch: int, *, fresh: bool
    ) -> None:
        self.out = out
        self.settings = settings
        self.variants = variants
        self.batch = batch
        self.fresh = fresh
        self.tally = Tally()
        self.is_table = out.suffix.lower() == ".parquet"
        self.rows = out.with_name(f"{out.name}.rows.jsonl") if self.is_table else out
        is_csv = out.suffix.lower() == ".csv"
        self.format: RowFormat = CsvRows(variants) if is_csv else JsonLines()
        self._stream: IO[bytes] | None = None

    def left(self, found: Iterator[Found]) -> Iterator[Found]:
        """Open the file and give what is to be done yet of all that is found; `tally` counts the rest.

        Raises BadOption if what is there was not made by these settings, or not of these files.
        """
        if self.is_table and self.fresh:
            # The table first: rows without a table are a run to go on with, a table without rows is finished.
            self.out.unlink(missing_ok=True)
        if self.is_table and self.out.exists() and not self.rows.exists():
            return self._finished_table(found)
        self._stream = stream = self.rows.open("a+b")
        lock(stream, self.out)
        if self.fresh:
            stream.truncate(0)
        header = self.format.header
        stream.seek(0)
        if not stream.read(1):
            write_record(self.out, self.settings)
            self._begin(header)
            return found
        check_record(self.out, self.settings)
        stream.seek(0)
        start = stream.read(len(header))
        if start != header:
            if not header.startswith(start):
                raise BadOption(f"{self.out} was changed since this program wrote it (row 0); {REMEDY}.")
            stream.truncate(0)
            self._begin(header)
            return found
        end, rest = self._kept(self.format.read(stream), found, len(header))
        stream.truncate(end)
        stream.seek(end)
        return rest

    def _begin(self, header: bytes) -> None:
        assert self._stream is not None
        self._stream.seek(0)
        self._stream.write(header)
        self._stream.flush()

    def _kept(self, rows: Iterable[Row], found: Iterator[Found], end: int) -> tuple[int, Iterator[Found]]:
        """Where the whole batches end, and what is found after them."""
        begun: list[tuple[Found, Row]] = []

        def keep() -> int:
            for (file, _), row in begun:
                self.tally.add(file, row.message)
            return begun[-1][1].end if begun else end

        try:
            for number, row in enumerate(rows, start=1):
                entry = next(found, None)
                self._check_same(number, row, entry)
                if entry is not None:
                    begun.append((entry, row))
                if len(begun) == self.batch:
                    end = keep()
                    begun.clear()
        except Damaged as exc:
            raise BadOption(f"{self.out} was changed since this program wrote it ({exc}); {REMEDY}.") from exc
        following = next(found, None)
        if following is None:
            return keep(), iter(())
        return end, chain([entry for entry, _ in begun], [following], found)

    def _check_same(self, number: int, row: Row, entry: Found | None) -> None:
        name = parquet.valid_text if self.is_table and self._stream is None else self.format.file_in_row
        if entry is None or name(entry[0]) != row.file:
            now = "no image" if entry is None else entry[0]
            raise BadOption(
                f"Images were added or taken away since {self.out} was begun: its row {number} is about "
                f"{row.file}, and {now} is there now; {REMEDY}."
            )

    def _finished_table(self, found: Iterator[Found]) -> Iterator[Found]:
        check_record(self.out, self.settings)
        _, rest = self._kept(parquet.read(self.out), found, 0)
        if next(rest, None) is not None:
            raise BadOption(f"{self.out} is finished, and there are more images now; {REMEDY}.")
        return rest

    def write(self, file: str, result: Result) -> None:
        """Add one row."""
        assert self._stream is not None
        self._stream.write(self.format.row(file, result))
        self.tally.add(file, str(result) if isinstance(result, PawMatchError) else None)
        if self.tally.rows % self.batch == 0:
            self._stream.flush()

    def finish(self) -> None:
        """Put the rows onto the disk, and make the table of them if it is to be one."""
        if self._stream is None:
            return
        self._stream.flush()
        os.fsync(self._stream.fileno())
        if self.is_table:
            parquet.convert(self.rows, self.out, self.variants)
            self.rows.unlink()

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()


def lock(stream: IO[bytes], out: Path) -> None:
    """Hold the file for this process; raises BadOption if another run is writing it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise BadOption(f"Another run is writing {out}; wait for it, or name another file.") from exc
    except OSError:  # some network disks have no locks
        return
