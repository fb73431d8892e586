"""Heap: how a process that serves for weeks gives back the memory that it no longer needs."""

from __future__ import annotations

import ctypes
import os

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


def return_freed_memory() -> bool:
    """Have glibc give freed memory back to the system; False where another library or choice is in force.

    Before there are threads: a thread keeps the heap that it got.
    """
    if any(name.startswith(CHOSEN) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    taken = [mallopt(option, value) for option, value in OPTIONS.items()]
    return all(taken)
