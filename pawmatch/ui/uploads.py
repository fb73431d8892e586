"""Uploads: the one folder in which visitors' files lie, by whichever route they came, and how they go.

Each process has a folder of its own and holds a lock on it as long as it lives, however it ends. A folder
that nobody holds is of a process that died; whoever looks next deletes it.
"""

from __future__ import annotations

import atexit
import errno
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pawmatch.errors import BadOption
from pawmatch.ui.visitors import TokenBuckets

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PREFIX = "pawmatch-uploads-"
MAX_SHARE = 0.25  # of the budget that one visitor's files may take
BLOCK = 4096  # bytes; what a file takes is rounded up to it, and one more is for its folder
EMPTY_SECONDS = 5  # how long a folder is left alone after its last file went: a new one may be about to come
_held: dict[str, int] = {}  # folders of this process, with the open file that has the lock


def own_folder(seconds: float) -> Path:
    """A new folder that no other user can read and this process holds; Gradio is told to use it.

    It lies in the folder that GRADIO_TEMP_DIR names, or among the system's temporary files. What dead
    processes of this user left there is deleted. Raises BadOption if there can be none.
    """
    named = os.environ.get("GRADIO_TEMP_DIR", "")
    try:
        base = Path(named) if named else Path(tempfile.gettempdir())
        if str(base) in _held:  # by another service in this process
            base = base.parent
        elif named:
            base.mkdir(parents=True, exist_ok=True)
        delete_dead(base, seconds)
        while True:
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base)).absolute()
            _held[str(folder)] = lock = os.open(folder, os.O_RDONLY)
            # Who looked in between took it for a dead one's, and has deleted it.
            if _hold(lock) is not False and folder.exists():
                break
    except OSError as exc:
        raise BadOption(
            f"There is no folder for uploads ({exc.strerror}); name one with GRADIO_TEMP_DIR."
        ) from exc
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    return folder


def delete_dead(base: Path, seconds: float) -> None:
    """Delete what dead processes of this user left in `base`; where no lock tells, what is too old."""
    for folder in base.glob(f"{PREFIX}*"):
        with suppress(OSError):  # another user's, or gone meanwhile
            found = folder.lstat()
            is_mine = not hasattr(os, "getuid") or found.st_uid == os.getuid()
            if str(folder) in _held or not is_mine or not stat.S_ISDIR(found.st_mode):
                continue
            lock = os.open(folder, os.O_RDONLY)
            try:
                is_dead = _hold(lock)
                if is_dead:
                    shutil.rmtree(folder, ignore_errors=True)
                elif is_dead is None:
                    delete_older(folder, time.time() - seconds)
            finally:
                os.close(lock)


def _hold(lock: int) -> bool | None:
    """Lock an open folder for this process; False if another one holds it, None where there are no locks."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (OSError, AttributeError):  # some network disks; Windows
        return None
    return True


def delete_older(folder: Path, moment: float) -> int:
    """Delete all that lies in a folder, at any depth, unchanged since a moment; gives the bytes that stay."""
    taken, now = 0, time.time()
    for root, _, names in os.walk(folder, topdown=False):
        for path in (Path(root, name) for name in names):
            with suppress(OSError):  # somebody else was faster
                found = path.lstat()
                # The time of the last change cannot be set from outside, unlike that of the last writing.
                if found.st_ctime <= moment:
                    path.unlink()
                else:
                    taken += size_on_disk(found.st_size)
        place = Path(root)
        with suppress(OSError):  # not empty
            if place != folder and place.lstat().st_mtime <= now - EMPTY_SECONDS:
                place.rmdir()
    return taken


def size_on_disk(size: int) -> int:
    """The bytes that a file of `size` takes, with its folder."""
    return (size + 2 * BLOCK - 1) // BLOCK * BLOCK + BLOCK


class Uploads:
    """The upload folder of a running service: a budget of bytes, and an age at which everything goes.

    With `share`, one visitor's files may take that part of the budget: half of it at once, and half in the
    time that the first are kept.
    """

    def __init__(self, folder: Path, seconds: float, max_bytes: int, share: float | None = None) -> None:
        self.folder, self.seconds, self.max_bytes = folder, seconds, max_bytes
        half = (share or 0) * max_bytes / 2
        self._shares = TokenBuckets(half * 60 / seconds, half) if half else None
        self.step = max(0.1, min(10.0, seconds / 60))  # between two sweeps
        self._lock = threading.Lock()
        self._taken = 0  # bytes: those that the last sweep has counted, and what came since

    def sweep(self) -> None:
        """Delete what would be too old before the next sweep, and what dead processes left beside it."""
        delete_dead(self.folder.parent, self.seconds)
        taken = delete_older(self.folder, time.time() - self.seconds + 2 * self.step)
        with self._lock:
            self._taken = taken

    def close(self) -> None:
        """Delete everything: the service ends."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def take(self, size: int, visitor: str = "") -> None:
        """Count bytes that are about to be written; raises OSError, as a full disk does, if none is left."""
        with self._lock:
            room = min(self.max_bytes - self._taken, shutil.disk_usage(self.folder.parent).free)
            if size > room or self._has_enough(visitor, size):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._taken += size

    def _has_enough(self, visitor: str, size: int) -> bool:
        return bool(visitor and self._shares and self._shares.take(visitor, size))

    def give_back(self, size: int, visitor: str = "") -> None:
        """Count bytes no longer that were not kept after all."""
        with self._lock:
            self._taken = max(0, self._taken - size)
        if visitor and self._shares:
            self._shares.owe(visitor, -size)

    def delete(self, files: Mapping[str, float]) -> None:
        """Delete files unless they were written anew after the moment given for each."""
        for name, moment in files.items():
            path = Path(name)
            if self.folder not in path.parents:
                continue
            with suppress(OSError):  # gone already
                found = path.lstat()
                if found.st_ctime <= moment:
                    path.unlink()
                    self.give_back(size_on_disk(found.st_size))
                    path.parent.rmdir()
