"""Heap: how a process that serves for weeks gives back the memory that it no longer needs."""

from __future__ import annotations

import ctypes
import os
import threading
import time

# glibc's own numbers for its options.
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
MEGABYTE = 2**20
OPTIONS = {
    # By itself glibc has eight heaps for each core, shared among some 50 threads, and each keeps what its
    # own busiest moment took.
    ARENA_MAX: 2,
    # Larger blocks come from the system one by one and go back to it; by itself glibc moves this up to 32 MB.
    # The models take many from 4 to 16 MB: fetched from the system each time, a tenth of their time.
    MMAP_THRESHOLD: 16 * MEGABYTE,
    # Fixing that one leaves this at 128 kB, with which a heap shrinks and grows all the time.
    TRIM_THRESHOLD: 64 * MEGABYTE,
}
CHOSEN = ("GLIBC_TUNABLES", "MALLOC_")  # variables by which an operator sets the same
# What is free between blocks in use stays with a heap until somebody asks for it. A busy service gathers some
# 100 MB of it within a minute.
TRIM_SECONDS = 5.0


def return_freed_memory(every: float = TRIM_SECONDS) -> bool:
    """Have glibc give freed memory back to the system; False where another library or choice is in force.

    Before there are threads: a thread keeps the heap that it got.
    """
    if any(name.startswith(CHOSEN) for name in os.environ):
        return False
    try:
        libc = ctypes.CDLL(None)
        mallopt, trim = libc.mallopt, libc.malloc_trim
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    taken = [mallopt(option, value) for option, value in OPTIONS.items()]

    def keep_trimming() -> None:
        while True:
            time.sleep(every)
            trim(0)

    threading.Thread(target=keep_trimming, name="trim", daemon=True).start()
    return all(taken)
