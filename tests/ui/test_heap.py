"""Freed memory goes back to the system where glibc manages it; elsewhere nothing happens."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pawmatch.ui import heap

ROOT = Path(__file__).parents[2]
# After a block of 24 MB was freed, glibc by itself takes the next one from a heap. Prints how many bytes that
# one has of the system directly, and then how many heaps 24 threads have among them that are busy at once.
PROBE = """
import ctypes, sys, threading

if sys.argv[1] == "ours":
    from pawmatch.ui.heap import return_freed_memory
    assert return_freed_memory()

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.fflush.argtypes = [ctypes.c_void_p]

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena b c d mapped f g h i j".split()]

libc.mallinfo2.restype = Info
libc.free(libc.malloc(24 * 2**20))
before = libc.mallinfo2().mapped
libc.malloc(20 * 2**20)
print(libc.mallinfo2().mapped - before, flush=True)

together = threading.Barrier(24)
def take():
    together.wait()
    libc.malloc(1000)
    together.wait()
threads = [threading.Thread(target=take) for _ in range(24)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
out = libc.fdopen(1, b"w")
libc.malloc_info(0, out)
libc.fflush(out)
"""


# Frees every other one of 2,000 blocks of 64 kB, and prints the resident pages before and some time later.
HOLES = """
import ctypes, sys, time
from pathlib import Path
from pawmatch.ui.heap import return_freed_memory

assert return_freed_memory(float(sys.argv[1]))
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
blocks = [libc.malloc(2**16) for _ in range(2000)]
for block in blocks:
    libc.memset(block, 1, 2**16)
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1])
before = resident()
for block in blocks[::2]:
    libc.free(block)
end = time.monotonic() + 2
while time.monotonic() < end and resident() > before - 10_000:
    time.sleep(0.05)
print(before - resident())
"""


@pytest.fixture(autouse=True)
def no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(heap.CHOSEN)]:
        monkeypatch.delenv(name)


def probe(whose: str) -> tuple[int, int]:
    """Bytes that a large block has of the system directly, and the number of heaps."""
    run = subprocess.run(
        [sys.executable, "-c", PROBE, whose], cwd=ROOT, capture_output=True, text=True, check=True
    )
    mapped, _, described = run.stdout.partition("\n")
    return int(mapped), described.count("<heap nr=")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_large_blocks_go_back_to_the_system_and_threads_share_heaps() -> None:
    mapped, heaps = probe("ours")
    assert mapped >= 20 * 2**20
    assert heaps <= 3
    plain_mapped, plain_heaps = probe("glibc's")
    assert plain_mapped == 0
    assert plain_heaps > heaps


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize(("seconds", "is_given_back"), [(0.1, True), (600, False)])
def test_memory_between_blocks_in_use_goes_back_in_time(seconds: float, is_given_back: bool) -> None:
    run = subprocess.run(
        [sys.executable, "-c", HOLES, str(seconds)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    # 1,000 holes of 16 pages, of which those at the edges stay.
    assert (int(run.stdout) > 10_000) == is_given_back


@pytest.mark.parametrize("variable", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_what_the_operator_chose_stays(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "4")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: pytest.fail("the heap was set"))
    assert not heap.return_freed_memory()


def test_a_system_without_these_options_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    assert not heap.return_freed_memory()
