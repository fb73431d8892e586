"""Readers: processes that read and prepare images beside the one that runs the models.

They are spawned, not forked: a fork of a process in which torch has threads may hang. They import no torch,
so each takes about 35 MB. A reader that dies, because a decoder crashed or the system was out of memory,
costs the file that it was reading and nothing else.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from pawmatch.errors import BadOption, ImageError, PawMatchError, ReaderDied
from pawmatch.images.fetch import fetch
from pawmatch.images.filetypes import EXPORT
from pawmatch.images.reading import is_address
from pawmatch.images.spec import InputSpec, Prepared, prepare
from pawmatch.images.storage import is_stored, open_stored

Found = tuple[str, PawMatchError | None]
Read = tuple[str, Prepared | PawMatchError]

# A file gets a second reader, since the system may have ended the first for another program's sake.
TRIES = 2
STARTS = 3
NAME = "pawmatch-reader"
LONGEST_S = 60.0
MAX_READERS = 16
FEW_FILES = 32  # are read sooner than readers have started
CGROUP = Path("/sys/fs/cgroup")


def read_all(
    found: Iterable[Found], specs: Sequence[InputSpec], readers: Readers, ahead: int
) -> Generator[Read]:
    """Each file prepared, or its error, in the order given; at most `ahead` of them are under way.

    Where there is no reader this process reads. Closing the iterator ends the readers. Raises BadOption if
    they cannot be started.
    """
    if not len(readers):
        for file, error in found:
            yield file, error or try_prepare(file, specs)
        return
    with ThreadPoolExecutor(len(readers)) as threads:
        waiting: deque[tuple[str, PawMatchError | Future[Prepared | ImageError]]] = deque()

        def first() -> Read:
            file, entry = waiting.popleft()
            return file, entry.result() if isinstance(entry, Future) else entry

        try:
            for file, error in found:
                waiting.append((file, error or threads.submit(readers, file, specs)))
                if len(waiting) >= ahead:
                    yield first()
            while waiting:
                yield first()
        finally:
            # Whoever stops early must not wait for what is under way.
            threads.shutdown(wait=False, cancel_futures=True)
            readers.stop()


def suitable_readers(files: int, device: str) -> int:
    """How many readers suit at least so many files: none for few, half the cores beside a CPU model."""
    if files < FEW_FILES:
        return 0
    cores = usable_cores()
    return max(1, min(MAX_READERS, cores if device.startswith("cuda") else cores // 2))


def try_prepare(file: str, specs: Sequence[InputSpec]) -> Prepared | ImageError:
    """The file, or what is at the web address or the URL, prepared, or why it cannot be used."""
    try:
        if is_stored(file):
            with open_stored(file) as stream:
                return prepare(stream, specs)
        return prepare(fetch(file) if is_address(file) else file, specs)
    except ImageError as exc:
        return exc


class Lost(Exception):
    """A reader ended or did not answer; the message says which."""


class Readers:
    """A number of readers, for as many threads that ask them; perhaps none.

    They start beside whatever this process does next, such as to load models.
    """

    def __init__(self, count: int) -> None:
        self._readers: list[Reader] = []
        self._idle: SimpleQueue[Reader] = SimpleQueue()
        self.grow(count)

    def __len__(self) -> int:
        return len(self._readers)

    def grow(self, count: int) -> None:
        """Start as many more as make `count` of them; to be called before any is asked."""
        for _ in range(len(self), count):
            self._readers.append(Reader())
            self._idle.put(self._readers[-1])

    def __call__(self, file: str, specs: Sequence[InputSpec]) -> Prepared | ImageError:
        """The file prepared by a reader, or why it cannot be used."""
        reader = self._idle.get()
        try:
            for _ in range(TRIES):
                try:
                    return reader.ask(file, specs)
                except Lost as exc:
                    lost = exc
                    reader.restart()
            return ReaderDied(f"Reading this image {lost}, {TRIES} times; {EXPORT}.")
        finally:
            self._idle.put(reader)

    def stop(self) -> None:
        """End the readers at once, and so the waiting of every thread that asks one."""
        for reader in self._readers:
            reader.stop()

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


class Reader:
    """One process and the pipe to it; it ends when the pipe is closed, also by this process's death."""

    def __init__(self) -> None:
        self._stopped = False
        self._start()

    def _start(self) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,), name=NAME, daemon=True)
        with interrupts_held():
            self._process.start()
        # Only the reader holds this end now, so that its death closes the pipe.
        theirs.close()
        self._ready = False

    def ask(self, file: str, specs: Sequence[InputSpec]) -> Prepared | ImageError:
        """The file prepared, or why it cannot be used; raises Lost if there is no answer."""
        self._await_start()
        try:
            self._pipe.send((file, specs))
            if self._pipe.poll(LONGEST_S):
                answer: Prepared | ImageError = self._pipe.recv()
                return answer
        except (EOFError, OSError) as exc:
            raise Lost("ended the process that does it") from exc
        raise Lost(f"took longer than {LONGEST_S:.0f} s")

    def _await_start(self) -> None:
        for _ in range(STARTS):
            try:
                self._ready = self._ready or self._pipe.recv() is None
            except (EOFError, OSError):
                self.restart()
            if self._ready:
                return
        raise BadOption("The processes that read images end as they start; add --workers 0 to do without.")

    def restart(self) -> None:
        """Start anew, unless it was stopped for good."""
        if not self._stopped:
            self._end()
            self._pipe.close()
            self._start()

    def stop(self) -> None:
        """End the process for good, whatever it does."""
        self._stopped = True
        self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.join()


def serve(pipe: Connection[Any, Any]) -> None:
    """What a reader does: prepare the files that it is asked for, until nobody can ask any more."""
    # Ctrl-C goes to all processes of a terminal; the one that asks decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        pipe.send(None)
        while True:
            pipe.send(try_prepare(*pipe.recv()))
    except (EOFError, OSError):
        return


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Keep Ctrl-C from a process that is being started; else it would print where it was hit."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def usable_cores(cgroup: Path = CGROUP) -> int:
    """How many CPU cores this process may use, at least 1.

    Libraries see every core of the machine. In a container that was given two of 64, that many threads
    would stand in each other's way.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(cgroup)
    return allowed if quota is None else max(1, min(allowed, round(quota)))


def cpu_quota(cgroup: Path) -> float | None:
    """The cores that a container's limit amounts to; None without a limit (cgroup v2, then v1)."""
    try:
        if (file := cgroup / "cpu.max").is_file():
            amount, period = file.read_text(encoding="ascii").split()
        else:
            quota, span = (cgroup / "cpu" / f"cpu.cfs_{name}_us" for name in ("quota", "period"))
            amount, period = quota.read_text(encoding="ascii"), span.read_text(encoding="ascii")
        cores = int(amount) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # ValueError: "max", which is no limit
        return None
    return cores if cores > 0 else None
