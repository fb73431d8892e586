"""A file of results that is written as they come, and gone on with by the run after one that was ended.

There is one way of writing as results come: JSON lines. A .csv or .parquet file is made of them at the end;
until then, and for a run that adds images, they are in a file beside it. Rows are handed to the system
after each batch, which is enough whatever ends this process; they are forced onto the disk once, at the
end, so that a power cut may take rows of the last seconds. Either leaves whole rows and perhaps a torn one.
The next run cuts the file after the last whole batch: batches then hold the same images as in a run that
nothing ended, and so give the same digits.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import pawmatch
from pawmatch.commands.rows import Result, check_parquet, json_record, read_records, write_csv, write_parquet
from pawmatch.errors import BadOption, PawMatchError
from pawmatch.evaluation.folders import Found
from pawmatch.files import replace_file, whole_file

if TYPE_CHECKING:
    from pawmatch.classifier import Classifier

SUFFIXES = (".csv", ".jsonl", ".parquet")
TABLES = {".csv": write_csv, ".parquet": write_parquet}
MAX_LISTED = 20
REMEDY = "add --fresh to start over, or name another file"
LIBRARIES = ("numpy", "pillow", "torch")  # that a row depends on


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
            if len(self.first) < MAX_LISTED:
                self.first.append((file, message))


class Row(NamedTuple):
    """A row that is there already: its file, its error's message if it is one, and where it ends in bytes."""

    file: str
    message: str | None
    end: int


def check_out(out: Path) -> None:
    """Raise BadOption for a name that no results can be written to."""
    if out.suffix.lower() not in SUFFIXES:
        raise BadOption(f"--out is {str(out)!r}; give a file that ends in .csv, .jsonl or .parquet.")
    if out.suffix.lower() == ".parquet":
        check_parquet()
    if not out.parent.is_dir():
        raise BadOption(f"There is no folder {out.parent} for {out.name}; make it first, or name another.")
    if not os.access(out if out.exists() else out.parent, os.W_OK):
        raise BadOption(f"{out} cannot be written; check its permissions, or name another file.")


class Output:
    """The results of one run, in `out`.

    `settings` are what the rows depend on, `variants` the models that have columns, `batch` how many images
    the models take at once; `fresh` drops what is there. After `left`, `gone` is the number of rows about
    images that are not there any more.
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
        self.gone = 0
        self.write_table = TABLES.get(out.suffix.lower())
        self.rows = out.with_name(f"{out.name}.rows.jsonl") if self.write_table else out
        self._stream: IO[bytes] | None = None

    def left(self, found: Iterator[Found]) -> Iterator[Found]:
        """Open the file and give what is to be done yet of all that is found; `tally` counts the rest.

        Raises BadOption if what is there was not made by these settings, or not by this program.
        """
        if self.fresh and self.write_table:
            self.out.unlink(missing_ok=True)
        if self.out.exists() and not self.rows.exists():
            raise BadOption(f"{self.out} is there already, and no run that could go on; {REMEDY}.")
        self._stream = stream = self.rows.open("a+b")
        lock(stream, self.out)
        if self.fresh:
            stream.truncate(0)
        if stream.seek(0, os.SEEK_END) == 0:
            write_manifest(self.out, self.settings)
            return found
        check_manifest(self.out, self.settings)
        stream.seek(0)
        rows = list(self._kept(stream))
        entries = list(found)
        left, self.gone = without(entries, rows)
        if left and (torn := len(rows) % self.batch):
            rows = rows[:-torn]
            left, self.gone = without(entries, rows)
        stream.truncate(rows[-1].end if rows else 0)
        for row in rows:
            self.tally.add(row.file, row.message)
        return iter(left)

    def _kept(self, stream: IO[bytes]) -> Iterator[Row]:
        """The rows up to one without an end. Raises BadOption for one that is not as it was written."""
        end = 0
        for number, line in enumerate(stream, start=1):
            if not line.endswith(b"\n"):
                return
            end += len(line)
            try:
                record = json.loads(line)
                yield Row(
                    name_of(str(record["file"])),
                    record["error"]["message"] if "error" in record else None,
                    end,
                )
            except (ValueError, KeyError, TypeError) as exc:
                raise BadOption(
                    f"{self.rows} was changed since this program wrote it (line {number}); {REMEDY}."
                ) from exc

    def write(self, file: str, result: Result) -> None:
        """Add one row."""
        assert self._stream is not None
        record = kept_record(file, result)
        self._stream.write((json.dumps(record, allow_nan=False) + "\n").encode("ascii"))
        self.tally.add(file, str(result) if isinstance(result, PawMatchError) else None)
        if self.tally.rows % self.batch == 0:
            self._stream.flush()

    def finish(self) -> None:
        """Put the rows onto the disk, and make the table of them if it is to be one."""
        assert self._stream is not None
        self._stream.flush()
        os.fsync(self._stream.fileno())
        if self.write_table:
            with whole_file(self.out) as path:
                self.write_table(read_records(self.rows), path, self.variants)

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()


def kept_record(file: str, result: Result) -> dict[str, Any]:
    """A result as it is kept: without its times, which differ from run to run."""
    record = json_record(name_of(file), result)
    record.pop("timing_ms", None)
    return record


def name_of(file: str) -> str:
    """A file's name as text, if it is UTF-8, also where names are read as ASCII with escapes."""
    try:
        return file.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a character, as Windows allows
        return file


def without(entries: Sequence[Found], rows: Sequence[Row]) -> tuple[list[Found], int]:
    """The entries that have no row yet, and how many rows have no entry; a name may be there twice."""
    waiting = Counter(row.file for row in rows)
    left = []
    for entry in entries:
        name = name_of(entry[0])
        if waiting[name] > 0:
            waiting[name] -= 1
        else:
            left.append(entry)
    return left, waiting.total()


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


# --- the manifest beside the results: by what the rows were made, so that none are mixed


def manifest_path(out: Path) -> Path:
    """results.csv -> results.csv.run.json."""
    return out.with_name(f"{out.name}.run.json")


def manifest_of(
    classifier: Classifier, top_k: int, batch: int, facts: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """All that a row depends on beside the image, as JSON values."""
    from pawmatch.checkpoint.config import config_values
    from pawmatch.engines.openvino import digest_of

    checkpoints = [member.checkpoint for member in classifier.members.values()]
    configs = [json.dumps(config_values([checkpoint.config]), sort_keys=True) for checkpoint in checkpoints]
    weights = [digest_of(one.model, [config]) for one, config in zip(checkpoints, configs, strict=True)]
    libraries = LIBRARIES + ("openvino",) * ("openvino" in str(classifier.engines))
    return {
        "pawmatch": pawmatch.__version__,
        "task": classifier.task.name,
        "source": classifier.source,
        "top_k": top_k,
        "batch": batch,
        **({"facts": dict(facts)} if facts else {}),
        **({"adaptive": True} if classifier.adaptive else {}),
        "variants": list(classifier.variants),
        "engines": classifier.engines,
        "weights": weights,
        "versions": {name: importlib.metadata.version(name) for name in libraries},
    }


def write_manifest(out: Path, settings: dict[str, Any]) -> None:
    """Write the manifest, whole or not at all."""
    replace_file(manifest_path(out), json.dumps(settings, indent=1) + "\n")


def engines_of(out: Path) -> dict[str, str] | None:
    """The engines that a run to `out` was begun with, by variant, or None where that is not known.

    "auto" may choose another where the run goes on with other packages or on another computer.
    """
    engines = (read_manifest(out) or {}).get("engines")
    return {str(key): str(value) for key, value in engines.items()} if isinstance(engines, dict) else None


def read_manifest(out: Path) -> dict[str, Any] | None:
    """The manifest of the results in `out`, or None where there is none that can be read."""
    try:
        found = json.loads(manifest_path(out).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def check_manifest(out: Path, settings: dict[str, Any]) -> None:
    """Raise BadOption unless the rows of `out` were made by these settings."""
    found = read_manifest(out)
    if found is None:
        raise BadOption(f"{out} is there already, and no run that could go on; {REMEDY}.")
    check_settings(out, found, settings)


def check_settings(place: object, found: dict[str, Any], settings: dict[str, Any]) -> None:
    """Raise BadOption, which names what differs, unless the rows of `place` were made by these settings."""
    for key in settings | found:
        if found.get(key) != settings.get(key):
            was, now = (json.dumps(values.get(key)) for values in (found, settings))
            words = "the weights have changed" if key == "weights" else f"{key} was {was}, now {now}"
            raise BadOption(f"{place} was begun with other settings ({words}); {REMEDY}.")
