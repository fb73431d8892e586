"""Tar files and tables of pictures: what is found in them, and what hostile ones may take."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from pawmatch.errors import ImageNotFound, ImageUnreadable
from pawmatch.images import shards
from pawmatch.images.reading import MAX_MB
from pawmatch.images.shards import Table, Tar, members
from pawmatch.images.storage import find_stored, open_stored

JPEG = b"\xff\xd8" + bytes(40)


def packed(*files: tuple[str, bytes]) -> io.BytesIO:
    """A tar with these files."""
    place = io.BytesIO()
    with tarfile.open(fileobj=place, mode="w") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return io.BytesIO(place.getvalue())


def test_a_tar_gives_its_pictures_in_any_order() -> None:
    tar = Tar(packed(("a/1.jpg", b"one"), ("a/1.cls", b"0"), ("a/._1.jpg", b"x"), ("2.png", b"two")))
    assert list(tar.names()) == ["a/1.jpg", "2.png"]
    for name, data in (("a/1.jpg", b"one"), ("2.png", b"two"), ("a/1.jpg", b"one"), ("a/1.cls", b"0")):
        assert tar.open(name).read() == data
    with pytest.raises(KeyError):
        tar.open("3.jpg")


def test_absolute_names_are_found(tmp_path: Path) -> None:
    path = tmp_path / "shard.tar"
    path.write_bytes(packed(("/photos/1.jpg", b"one"), ("//2.jpg", b"two")).getvalue())
    assert [open_stored(name).read() for name, _ in find_stored(str(path))] == [b"one", b"two"]


def header(kind: bytes, size: int) -> bytes:
    """A member's header, which says what it likes of its size."""
    info = tarfile.TarInfo("1.jpg")
    info.type = kind
    raw = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    raw[124:136] = size.to_bytes(12, "big", signed=True) if size < 0 else b"%011o\0" % size
    raw[148:156] = b"%06o\0 " % (sum(raw[:148]) + sum(raw[156:]) + 8 * 32)
    return bytes(raw)


@pytest.mark.parametrize(
    "damage",
    [
        header(tarfile.REGTYPE, -512),  # the next header would be this one again, for ever
        (header(tarfile.GNUTYPE_LONGNAME, 1) + b"x".ljust(512, b"\0")) * 2000,
    ],
    ids=["a size below zero", "headers of headers"],
)
def test_a_hostile_header_is_a_damaged_tar(damage: bytes) -> None:
    whole = header(tarfile.REGTYPE, 0) + damage + header(tarfile.REGTYPE, 0) + bytes(1024)
    listed = members(io.BytesIO(whole))
    assert next(listed).name == "1.jpg"
    with pytest.raises(OSError, match="the tar is damaged"):
        next(listed)


def test_members_of_one_name_are_told_apart_by_their_order() -> None:
    tar = Tar(packed(("1.jpg", b"one"), ("1.jpg", b"two")))
    assert [tar.open(name).read() for name in tar.names()] == [b"one", b"two"]


def test_no_name_in_a_shard_leads_out_of_it(tmp_path: Path) -> None:
    """Such a name would be part of a URL, and its end the address of something else."""
    secret = tmp_path / "secret.tar"
    secret.write_bytes(packed(("x.jpg", b"secret")).getvalue())
    shard = tmp_path / "shard.tar"
    shard.write_bytes(
        packed((f"x.jpg::{secret}", b"no picture"), (f"x.jpg::{secret}:::.jpg", b"own")).getvalue()
    )
    ((found, error),) = find_stored(str(shard))
    assert error is None
    assert found.count("::") == 1
    assert open_stored(found).read() == b"own"


def test_a_tar_cannot_take_memory(tmp_path: Path) -> None:
    """Neither by its headers, nor by what it says of a member; the files are sparse, and so cost no disk."""
    path = tmp_path / "large.tar"
    header = tarfile.TarInfo("1.jpg")
    header.size = 3 * 2**30
    tracemalloc.start()
    try:
        with path.open("wb") as file:
            file.write(header.tobuf())
            file.truncate(3 * 2**30 + 2048)
        with path.open("rb") as file:
            assert len(Tar(file).open("1.jpg").read()) == MAX_MB * 2**20 + 1
        header.type = tarfile.GNUTYPE_LONGNAME
        with path.open("r+b") as file:
            file.write(header.tobuf())
        with path.open("rb") as file, pytest.raises(OSError, match="header is too large"):
            list(members(file))
        assert tracemalloc.get_traced_memory()[1] < 70 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("name", "cut"), [("t.tar", 700), ("t.tar", 3), ("t.parquet", 3), ("t.zip", 3)])
def test_a_damaged_shard_is_a_place_that_cannot_be_listed(tmp_path: Path, name: str, cut: int) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    path = tmp_path / name
    path.write_bytes(packed(("1.jpg", bytes(1000)), ("2.jpg", bytes(1000))).getvalue()[:cut])
    *_, (place, error) = find_stored(str(path))
    assert str(path) in place
    assert isinstance(error, ImageUnreadable)
    assert "cannot be listed" in str(error)


def table(columns: dict[str, object], path: Path, rows: int = 2) -> Path:
    """A Parquet file with so many rows in a group."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table(columns), path, row_group_size=rows)
    return path


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (
            {
                "label": [0] * 5,
                "image": [{"bytes": JPEG + bytes([n]), "path": f"d/{n}.jpg"} for n in range(5)],
            },
            [f"{n}/d/{n}.jpg" for n in range(5)],
        ),
        (
            {"mask": [b"m"] * 5, "jpg": [JPEG + bytes([n]) for n in range(5)], "__key__": list("abcde")},
            ["0/a", "1/b", "2/c", "3/d", "4/e"],
        ),
        ({"photo": [JPEG + bytes([n]) for n in range(5)]}, list("01234")),
        ({"photo.jpg": [JPEG + bytes([n]) for n in range(5)]}, list("01234")),
        ({"my.set": [{"image": {"bytes": JPEG + bytes([n])}} for n in range(5)]}, list("01234")),
    ],
)
def test_a_table_gives_its_pictures_in_any_order(
    tmp_path: Path, columns: dict[str, object], names: list[str]
) -> None:
    path = table(columns, tmp_path / "t.parquet")
    found = [name for name, error in find_stored(str(path)) if error is None]
    assert found == [f"parquet://{name}::{path}" for name in names]
    for number in (0, 1, 2, 4, 3, 3, 0):
        assert open_stored(found[number]).read() == JPEG + bytes([number])
    with pytest.raises(ImageNotFound):
        open_stored(f"parquet://5::{path}")
    with pytest.raises(ImageUnreadable):
        open_stored(f"parquet://first::{path}")


def test_a_column_may_be_a_dictionary(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    path = table({"image": pa.array([JPEG, None, JPEG]).dictionary_encode()}, tmp_path / "t.parquet")
    assert [open_stored(name).read() for name, _ in find_stored(str(path))] == [JPEG, b"", JPEG]


def test_rows_without_a_picture_are_empty_and_large_ones_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [None, {"bytes": None, "path": "a::b:"}, {"bytes": bytes(2000), "path": None}]
    path = table({"image": pictures}, tmp_path / "t.parquet", rows=8)
    monkeypatch.setattr(shards, "MAX_PICTURE", 1000)
    with path.open("rb") as file:
        shard = Table(file)
        assert list(shard.names()) == ["0", "1/a:b", "2"]
        assert [len(shard.open(name).read()) for name in ("0", "1", "2")] == [0, 0, 1000]
        monkeypatch.setattr(shards, "MAX_CHUNK", 1000)
        with pytest.raises(ValueError, match="write smaller ones"):
            shard.open("0")


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_pages_are_believed_and_not_what_is_said_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    pictures = pa.table({"image": [bytes(9000 + number) for number in range(9)]})
    pq.write_table(
        pictures, path, compression="gzip", data_page_version=version, data_page_size=1, write_batch_size=2
    )
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    start = column.dictionary_page_offset
    with path.open("rb") as file:
        found = shards.page_bytes(file, start, start + column.total_compressed_size)
        assert 81_000 < found < column.total_uncompressed_size < found + 2000
    data, true = path.read_bytes(), column.total_uncompressed_size * 2
    said = bytes([true & 127 | 128, true >> 7 & 127 | 128, true >> 14])
    assert said in data[-500:]
    path.write_bytes(data.replace(said, b"\x82\x80\x00"))  # 1
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).total_uncompressed_size == 1
    with path.open("rb") as file:
        assert len(Table(file).open("8").read()) == 9008
        monkeypatch.setattr(shards, "MAX_CHUNK", 80_000)
        with pytest.raises(ValueError, match="write smaller ones"):
            Table(file).open("0")


@pytest.mark.parametrize(
    "data",
    [b"", b"\x15", b"\x15\x00\x00", b"\x1c" * 99, b"\x15" + b"\xff" * 99, b"\x1b", b"\x25\x01\x15\x02\x00"],
)
def test_damaged_headers_of_pages_are_told(data: bytes) -> None:
    with pytest.raises(ValueError, match="a page"):
        shards.page_bytes(io.BytesIO(data), 0, 100)


def test_a_table_without_pictures_says_so(tmp_path: Path) -> None:
    path = table({"name": ["a"], "many": [[b"a", b"b"]]}, tmp_path / "t.parquet")
    ((_, error),) = find_stored(str(path))
    assert "no column of pictures" in str(error)
