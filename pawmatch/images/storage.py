"""Pictures in object stores and in archives, by the URLs that fsspec has for them.

s3://photos/cats/1.jpg is an object, tar://1.jpg::s3://photos/cats-000.tar one member of a WebDataset shard,
parquet://17/1.jpg::cats.parquet one row of a table. Tar files and tables are read by shards.py.
The command line alone takes such URLs: the service opens none.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, TypeGuard
from zipfile import BadZipFile

from pawmatch.errors import ImageNotFound, ImageUnreadable
from pawmatch.images.reading import is_address
from pawmatch.images.shards import Table, Tar, is_picture

SHARDS: dict[str, type[Tar] | type[Table]] = {"tar": Tar, "parquet": Table}
UNREADABLE = (OSError, ValueError, ImportError, LookupError, NotImplementedError, MemoryError, BadZipFile)
ARCHIVES = {".tar": "tar", ".parquet": "parquet", ".zip": "zip"}


def is_stored(source: object) -> TypeGuard[str]:
    """Whether a source is a URL for fsspec, such as s3://bucket/picture.jpg; a web address is none."""
    return (
        isinstance(source, str)
        and re.match(r"[a-z][a-z0-9+.-]+://", source, re.IGNORECASE) is not None
        and not is_address(source)
    )


def is_archive(source: str) -> bool:
    """Whether a name is that of an archive of pictures."""
    return posixpath.splitext(source)[1].lower() in ARCHIVES


def find_stored(source: str) -> Iterator[tuple[str, ImageUnreadable | None]]:
    """The pictures below a URL, in a shard, or that a pattern matches, sorted by name; in shards as they lie.

    Shards that are found are looked into. A place that cannot be listed comes with the error that says so.
    """
    import fsspec

    if is_archive(source) and "::" not in source:
        kind = ARCHIVES[posixpath.splitext(source)[1].lower()]
        yield from find_stored(f"{kind}://::{source}")
        return
    first, _, rest = source.partition("::")
    scheme, _, place = first.partition("://")
    found: Iterable[str]
    try:
        if rest and scheme in SHARDS:
            names = _opened(scheme, rest).names()
            found = (name for name in names if name.startswith(place) or fnmatchcase(name, place))
        else:
            store, root = fsspec.core.url_to_fs(source)
            if set(place) & set("*?["):
                found = sorted(name for name in store.glob(root) if not store.isdir(name))
            else:
                found = sorted(store.find(root))
        for name in found:
            whole = f"{scheme}://{name.lstrip('/') if rest else name}" + (f"::{rest}" if rest else "")
            if not rest and is_archive(name):
                yield from find_stored(whole)
            elif (rest and scheme in SHARDS) or (is_picture(name) and "::" not in name):
                yield whole, None
    except UNREADABLE as exc:
        yield source, ImageUnreadable(f"The place cannot be listed ({_reason(exc)}); check its address.")


def open_stored(source: str) -> Any:
    """The binary file at a URL. Raises ImageNotFound and ImageUnreadable."""
    import fsspec

    first, _, rest = source.partition("::")
    scheme, _, name = first.partition("://")
    try:
        if scheme in SHARDS and rest:
            return _shard(scheme, rest).open(name)
        store, name = (_archive(scheme, rest), name) if rest else fsspec.core.url_to_fs(source)
        return store.open(name, "rb")
    except (FileNotFoundError, KeyError) as exc:
        raise ImageNotFound("There is no such object; check its address.") from exc
    except UNREADABLE as exc:
        raise ImageUnreadable(f"The object cannot be read ({_reason(exc)}); check its address.") from exc


def _opened(kind: str, place: str) -> Tar | Table:
    import fsspec

    store, name = fsspec.core.url_to_fs(place)
    return SHARDS[kind](store.open(name, "rb"))


_shard = lru_cache(maxsize=1)(_opened)  # shards are asked one after the other


@lru_cache(maxsize=4)
def _archive(scheme: str, place: str) -> Any:
    """An archive that stays open: each time it is opened anew, all of it is read to list what is in it."""
    import fsspec

    return fsspec.core.url_to_fs(f"{scheme}://::{place}")[0]


def _reason(exc: Exception) -> str:
    """What a library says, on one line and without its full stop."""
    return " ".join(str(exc).split()).rstrip(".")[:200] or type(exc).__name__
