"""Collector: questions from many threads, answered in batches by one thread.

Nobody waits for company: a question that finds the thread idle is answered at once and alone. What comes in
while a batch runs is the next batch. So a quiet service is as quick as one without batches, and a
busy one gathers just as much as piles up.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class Collector(Generic[Q, A]):
    """Hands questions to `answer` in batches of at most `most`, in the order in which they came.

    `thread` runs the batches and should run one job at a time; others may use it too, since after each
    batch the rest queues up again behind their jobs. `answer` gives one answer for each question.
    """

    def __init__(self, answer: Callable[[Sequence[Q]], Sequence[A]], most: int, thread: Executor) -> None:
        self._answer = answer
        self._most = most
        self._thread = thread
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Q, Future[A]]] = deque()
        self._is_called = False  # whether the thread has been told that something waits

    def ask(self, question: Q) -> A:
        """The answer to one question; raises what answering it raised."""
        (future,) = self.hand_in([question])
        return future.result()

    def hand_in(self, questions: Iterable[Q]) -> list[Future[A]]:
        """Questions whose answers the caller does not wait for yet; a cancelled future is left out."""
        entries: list[tuple[Q, Future[A]]] = [(question, Future()) for question in questions]
        with self._lock:
            self._waiting.extend(entries)
            call = bool(entries) and not self._is_called
            self._is_called |= call
        if call:
            self._thread.submit(self._run)
        return [future for _, future in entries]

    def _run(self) -> None:
        with self._lock:
            taken = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            self._is_called = bool(self._waiting)
            if self._is_called:
                self._thread.submit(self._run)
        batch = [(question, future) for question, future in taken if future.set_running_or_notify_cancel()]
        if batch:
            self._settle(batch)

    def _settle(self, batch: list[tuple[Q, Future[A]]]) -> None:
        """Give every question of a batch its own answer or its own exception."""
        try:
            answers = self._answer([question for question, _ in batch])
            for (_, future), answer in zip(batch, answers, strict=True):
                future.set_result(answer)
            return
        except BaseException as exc:
            if len(batch) == 1:
                batch[0][1].set_exception(exc)
                return
        # One question can spoil a batch, or the batch was too large for the memory: each gets its own try.
        # Not in the clause above, where the exception would keep all that the batch had in memory.
        for entry in batch:
            if not entry[1].done():
                self._settle([entry])
