"""A file of results that is written as they come, and gone on with by the run after one that was ended.

Rows are handed to the system after each batch, which is enough whatever ends this process; they are
forced onto the disk once, at the end, so that a power cut may take rows of the last seconds. Either leaves
whole rows and perhaps a torn one. The next run cuts the file after the last whole batch and goes on there:
batches then hold the same images as in a run that nothing ended, and so give the same digits.

A Parquet table has its index at its end and cannot grow. Its rows wait in a file of JSON lines beside it.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Protocol

import pawmatch
from pawmatch.commands.inputs import Found
from pawmatch.errors import BadOption, PawMatchError
from pawmatch.results import Prediction

if TYPE_CHECKING:
    from pawmatch.classifier import Classifier


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
        check_parquet()


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
        name = valid_text if self.is_table and self._stream is None else self.format.file_in_row
        if entry is None or name(entry[0]) != row.file:
            now = "no image" if entry is None else entry[0]
            raise BadOption(
                f"Images were added or taken away since {self.out} was begun: its row {number} is about "
                f"{row.file}, and {now} is there now; {REMEDY}."
            )

    def _finished_table(self, found: Iterator[Found]) -> Iterator[Found]:
        check_record(self.out, self.settings)
        _, rest = self._kept(read_table(self.out), found, 0)
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
            convert(self.rows, self.out, self.variants)
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


REMEDY = "add --fresh to start over, or name another file"


def record_path(out: Path) -> Path:
    """results.csv -> results.csv.run.json."""
    return out.with_name(f"{out.name}.run.json")


def settings_of(classifier: Classifier, top_k: int) -> dict[str, Any]:
    """All that a row depends on beside the image, as JSON values."""
    from pawmatch.checkpoint.config import config_values
    from pawmatch.engines.openvino import digest_of

    checkpoints = [member.checkpoint for member in classifier.members.values()]
    configs = [json.dumps(config_values([checkpoint.config]), sort_keys=True) for checkpoint in checkpoints]
    weights = [digest_of(one.model, [config]) for one, config in zip(checkpoints, configs, strict=True)]
    return {
        "pawmatch": pawmatch.__version__,
        "task": classifier.task.name,
        "source": classifier.source,
        "top_k": top_k,
        "variants": list(classifier.variants),
        "engines": classifier.engines,
        "weights": weights,
    }


def write_record(out: Path, settings: dict[str, Any]) -> None:
    """Write the record, whole or not at all."""
    path = record_path(out)
    temporary = path.with_name(f"{path.name}.part")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(settings, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def engines_of(out: Path) -> dict[str, str] | None:
    """The engines that a run to `out` was begun with, by variant, or None where that is not known.

    "auto" judges by the clock too, and may choose another when the run goes on.
    """
    try:
        engines = json.loads(record_path(out).read_text(encoding="utf-8"))["engines"]
        return {str(variant): str(engine) for variant, engine in engines.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def check_record(out: Path, settings: dict[str, Any]) -> None:
    """Raise BadOption unless the rows in `out` were made by these settings."""
    try:
        found = json.loads(record_path(out).read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise BadOption(f"{out} is there already, and no run that could go on; {REMEDY}.") from exc
    except ValueError as exc:
        raise BadOption(f"{record_path(out)} cannot be read; {REMEDY}.") from exc
    if not isinstance(found, dict):
        raise BadOption(f"{record_path(out)} is no record of a run; {REMEDY}.")
    for key, value in settings.items():
        if found.get(key) != value:
            raise BadOption(f"{out} was begun with other settings ({change(key, found, value)}); {REMEDY}.")


def change(key: str, found: dict[str, Any], value: Any) -> str:
    """What differs, in a few words."""
    if key == "weights":
        return "the weights have changed"
    return f"{key} was {json.dumps(found.get(key))}, now {json.dumps(value)}"


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


def read_table(path: Path) -> Iterator[Row]:
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
