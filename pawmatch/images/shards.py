"""Pictures in shards: tar files, as WebDataset has them, and Parquet files with a column of pictures.

What is in memory does not grow with a shard: it is read from its beginning on, by who lists it and by each
who opens pictures of it, who are to ask for them in their order.
"""

from __future__ import annotations

import posixpath
import re
import tarfile
from bisect import bisect_right
from collections.abc import Iterator
from io import BytesIO
from itertools import accumulate, islice
from typing import IO, Any, NamedTuple

from pawmatch.images.filetypes import SUFFIXES
from pawmatch.images.reading import MAX_MB

MAX_PICTURE = MAX_MB * 2**20 + 1  # bytes; one more than allowed, by which the reader notices
MAX_HEADER = 2**20  # bytes that a tar may have for one member's name and further properties
# Bytes of one column in one row group of a Parquet file. Often they are a single page, which pyarrow holds
# three times: as it is stored, uncompressed, and as values.
MAX_CHUNK = 2**29
PAGE_HEADER = 2**16  # bytes that are read to find its sizes
MAX_NAME = 200  # characters of what a row is called
BUFFER = 2**20  # bytes of a column that are read at a time
# The columns that data sets call so, the likelier first; Hugging Face has a struct of bytes and path.
PICTURE_COLUMNS = ("image.bytes", "image", "jpg", "png", "webp", "bytes", "content", "data")
NAME_COLUMNS = ("path", "file_name", "filename", "file", "name", "__key__", "key", "id")


class Member(NamedTuple):
    """A file in a tar, and where its bytes are."""

    name: str
    offset: int
    size: int


class _Headers:
    """A tar's file, of which one who looks for members cannot be made to read much at a time."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > MAX_HEADER:
            raise tarfile.ReadError("a header is too large")
        return self._file.read(size)


def members(file: IO[bytes]) -> Iterator[Member]:
    """The files in a tar, in their order. Raises OSError where it is damaged."""
    try:
        with tarfile.TarFile(fileobj=_Headers(file)) as tar:  # type: ignore[arg-type]
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]
                if info.size < 0:  # the next one would be this one again
                    raise tarfile.ReadError("a size is below zero")
                if info.isreg() and not info.issparse():
                    yield Member(info.name, info.offset_data, info.size)
    except (tarfile.TarError, ValueError, RecursionError) as exc:  # which headers of headers bring about
        raise OSError(f"the tar is damaged: {exc}") from exc


def read_member(file: IO[bytes], member: Member) -> bytes:
    """The bytes of a file in a tar, or its first ones where it is larger than pictures may be."""
    file.seek(member.offset)
    return file.read(min(member.size, MAX_PICTURE))


def is_picture(name: str) -> bool:
    """Whether a name is that of a picture, and not of one that other programs hide."""
    return posixpath.splitext(name)[1].lower() in SUFFIXES and not posixpath.basename(name).startswith(".")


def plain(name: str) -> str:
    """A name from a shard without what would make another URL of the one it becomes part of."""
    return re.sub("::+", ":", name).strip(":/")


class Tar:
    """A tar file whose pictures are found by their names."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._left = file, members(file)

    def names(self) -> Iterator[str]:
        """The names of the pictures in it."""
        return (plain(member.name) for member in members(self._file) if is_picture(member.name))

    def open(self, name: str) -> IO[bytes]:
        """The next file of that name. Raises KeyError where there is none, and OSError."""
        for _ in range(2):
            for member in self._left:
                if plain(member.name) == name:
                    return BytesIO(read_member(self._file, member))
            self._file.seek(0)
            self._left = members(self._file)
        raise KeyError(name)


class Table:
    """A Parquet file whose pictures are found by their rows: "17", or "17/" and a name."""

    def __init__(self, file: IO[bytes]) -> None:
        try:
            import pyarrow.parquet as pq
        except ImportError as exc:
            raise ImportError('it takes pip install "pawmatch[parquet]"') from exc
        self._raw, self._file = file, pq.ParquetFile(file, buffer_size=BUFFER)
        leaves = {}
        for number in range(len(self._file.schema)):
            leaf = self._file.schema.column(number)
            if leaf.physical_type == "BYTE_ARRAY" and leaf.max_repetition_level == 0:
                leaves[leaf.path] = number, leaf.logical_type.type
        pictures = [path for path, (_, kind) in leaves.items() if kind == "NONE"]
        pictures.sort(key=lambda path: (*PICTURE_COLUMNS, path).index(path))
        if not pictures:
            raise ValueError("it has no column of pictures")
        self._picture = pictures[0]
        beside = self._picture.rpartition(".")[0] + ".path"  # of a struct
        self._name = next((path for path in (beside, *NAME_COLUMNS) if path in leaves), None)
        self._leaves = {path: number for path, (number, _) in leaves.items()}
        groups = self._file.metadata.num_row_groups
        counts = [self._file.metadata.row_group(group).num_rows for group in range(groups)]
        self._starts = list(accumulate(counts, initial=0))
        self._left, self._group, self._next = iter(()), -1, 0

    def _rows(self, path: str, group: int) -> Iterator[Any]:
        """The values of a column in one row group, one by one and not yet copied."""
        column = self._file.metadata.row_group(group).column(self._leaves[path])
        first, start = column.dictionary_page_offset, column.data_page_offset
        start = first if first and first < start else start
        if page_bytes(self._raw, start, start + column.total_compressed_size) > MAX_CHUNK:
            raise ValueError(
                f"a row group has more than {MAX_CHUNK >> 20} MB in one column; write smaller ones"
            )
        for batch in self._file.iter_batches(1, [group], [path], use_threads=False):
            value = batch.column(0)[0]
            while value.is_valid and hasattr(value, "keys"):  # a struct, of which this column alone was read
                (value,) = value.values()
            # What a dictionary has, or what somebody's own type is made of.
            yield getattr(value, "value", value) if value.is_valid else value

    def names(self) -> Iterator[str]:
        """What each row is called."""
        for group, (start, end) in enumerate(zip(self._starts, self._starts[1:], strict=False)):
            if self._name is None:
                yield from map(str, range(start, end))
                continue
            for row, value in enumerate(self._rows(self._name, group), start):
                name = plain(str(value)[:MAX_NAME]) if value.is_valid else ""
                yield f"{row}/{name}" if name else str(row)

    def open(self, name: str) -> IO[bytes]:
        """The picture of a row. Raises KeyError where there is none, and OSError and ValueError."""
        row = int(name.partition("/")[0])
        group = bisect_right(self._starts, row) - 1
        if not 0 <= group < len(self._starts) - 1:
            raise KeyError(name)
        if group != self._group or row < self._next:
            self._left, self._group, self._next = self._rows(self._picture, group), group, self._starts[group]
        self._group = -1  # until it went well
        value = next(islice(self._left, row - self._next, None), None)
        if value is None:
            raise KeyError(name)
        self._group, self._next = group, row + 1
        return BytesIO(memoryview(value.as_buffer())[:MAX_PICTURE] if value.is_valid else b"")


def page_bytes(file: IO[bytes], start: int, end: int) -> int:
    """How many bytes the pages there have uncompressed, by their own headers, as pyarrow goes by.

    Format: PageHeader in parquet.thrift of apache/parquet-format, fields 2 and 3. Raises ValueError where
    they are damaged.
    """
    total = 0
    while start < end:
        file.seek(start)
        header = BytesIO(file.read(PAGE_HEADER))
        fields = _struct(header, 0)
        if min(fields.get(2, -1), fields.get(3, -1)) < 0:
            raise ValueError("a page has no size")
        total += fields[2]
        start += header.tell() + fields[3]
    return total


def _struct(data: IO[bytes], depth: int) -> dict[int, int]:
    """The whole numbers of a struct, by their fields' numbers, in the compact protocol of Apache Thrift."""
    fields: dict[int, int] = {}
    field = 0
    while head := _varint(data, 1):
        field = field + (head >> 4) if head >> 4 else _varint(data) >> 1
        kind = head & 15
        if kind in (4, 5, 6):
            number = _varint(data)
            fields[field] = (number >> 1) ^ -(number & 1)
        elif kind == 8:  # text
            data.seek(min(_varint(data), PAGE_HEADER), 1)
        elif kind == 12 and depth < 4:
            _struct(data, depth + 1)
        elif kind not in (1, 2):  # truth values, which have no bytes of their own
            raise ValueError("a page's header is damaged")
    return fields


def _varint(data: IO[bytes], most: int = 10) -> int:
    """A number in groups of seven bits, the lowest first; with `most` 1 a plain byte."""
    number = 0
    for place in range(most):
        (byte,) = data.read(1) or (None,)
        if byte is None:
            raise ValueError("a page's header is too long")
        if most == 1:
            return byte
        number |= (byte & 127) << (7 * place)
        if byte < 128:
            return number
    raise ValueError("a page's header is damaged")
