"""Open files in a child process that may crash or hang without taking this one with it."""

from __future__ import annotations

import contextlib
import json
import selectors
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[2]
WORKER = (sys.executable, "-m", "tests.fuzz.worker")


@dataclass(frozen=True)
class Outcome:
    """What became of one file: `error` names the class, or is "crash" or "hang", or None where it opened.

    `seconds` are of the clock and `cpu` of the processor; `memory` is the peak above what the idle process
    held, in bytes.
    """

    error: str | None
    sentence: str | None
    seconds: float
    cpu: float
    memory: int


class WatchedLoader:
    """A child process with the loader in it; a new one takes over where one crashed or was ended."""

    def __init__(self, *, limit: float, command: Sequence[str] = WORKER) -> None:
        self.limit = limit
        self.command = command
        self.child: subprocess.Popen[str] | None = None

    def __enter__(self) -> WatchedLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def open(self, path: Path) -> Outcome:
        """Open the file in the child, at most `limit` seconds long."""
        child = self.child or self.start()
        assert child.stdin is not None
        child.stdin.write(json.dumps(str(path)) + "\n")
        child.stdin.flush()
        answer = self.answer(child)
        if answer is None:
            code = child.poll()
            self.end()
            name = "hang" if code is None else "crash"
            return Outcome(name, None if code is None else f"exit status {code}", self.limit, self.limit, 0)
        return Outcome(
            answer["error"], answer["sentence"], answer["seconds"], answer["cpu"], answer["memory"]
        )

    def answer(self, child: subprocess.Popen[str]) -> dict[str, Any] | None:
        """The child's answer, or None if it ends or the time is up."""
        assert child.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            line = child.stdout.readline() if selector.select(self.limit) else ""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.2)  # a crash closes the pipe a moment before its exit status is known
        return None

    def start(self) -> subprocess.Popen[str]:
        """Start a child, and wait until it has imported the loader."""
        pipe = subprocess.PIPE
        self.child = subprocess.Popen(
            self.command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )
        assert self.child.stdin is not None
        # The first file pays for what the loader loads on first use; a missing file makes it import them.
        self.child.stdin.write(json.dumps("nowhere") + "\n")
        self.child.stdin.flush()
        self.answer(self.child)
        return self.child

    def end(self) -> None:
        """End the child."""
        if self.child is not None:
            self.child.kill()
            self.child.communicate()
            self.child = None
