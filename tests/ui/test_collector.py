"""The collector: lone questions at once, piled-up ones in batches, to each its own answer or exception."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from pawmatch.ui.inference import Collector


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


class Doubler:
    """Doubles numbers; records its batches; waits, if told to, before it begins."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, questions: Sequence[int]) -> list[int]:
        self.batches.append(list(questions))
        self.threads.add(threading.get_ident())
        self.begun.set()
        assert self.go_on.wait(10)
        if 13 in questions:
            raise MemoryError("13 is too much")
        return [2 * question for question in questions]


def test_a_lone_question_is_answered_alone(thread: ThreadPoolExecutor) -> None:
    doubler = Doubler()
    collector = Collector(doubler, 4, thread)
    assert [collector.ask(number) for number in (1, 2, 3)] == [2, 4, 6]
    assert doubler.batches == [[1], [2], [3]]


def test_what_piles_up_is_answered_together_in_order_and_no_more_than_fits(
    thread: ThreadPoolExecutor,
) -> None:
    doubler = Doubler()
    doubler.go_on.clear()
    collector = Collector(doubler, 4, thread)
    futures = collector.hand_in([0])
    assert doubler.begun.wait(10)
    for number in range(1, 7):
        futures += collector.hand_in([number])
    doubler.go_on.set()
    assert [future.result(10) for future in futures] == [0, 2, 4, 6, 8, 10, 12]
    assert doubler.batches == [[0], [1, 2, 3, 4], [5, 6]]
    assert doubler.threads == {thread.submit(threading.get_ident).result()}


def test_other_jobs_of_the_thread_get_their_turn_between_batches(thread: ThreadPoolExecutor) -> None:
    doubler = Doubler()
    doubler.go_on.clear()
    collector = Collector(doubler, 2, thread)
    futures = collector.hand_in([0])
    assert doubler.begun.wait(10)
    futures += collector.hand_in(range(1, 7))
    other = thread.submit(lambda: len(doubler.batches))
    doubler.go_on.set()
    assert [future.result(10) for future in futures] == [0, 2, 4, 6, 8, 10, 12]
    assert other.result(10) <= 2  # not after all four batches


def test_an_exception_is_that_question_s_own(thread: ThreadPoolExecutor) -> None:
    doubler = Doubler()
    doubler.go_on.clear()
    collector = Collector(doubler, 4, thread)
    collector.hand_in([0])
    assert doubler.begun.wait(10)
    futures = collector.hand_in([12, 13, 14])
    doubler.go_on.set()
    assert (futures[0].result(10), futures[2].result(10)) == (24, 28)
    with pytest.raises(MemoryError, match="13 is too much"):
        futures[1].result(10)
    with pytest.raises(MemoryError):
        collector.ask(13)
    assert collector.ask(1) == 2  # the service goes on


def test_too_few_answers_are_an_error_and_no_hang(thread: ThreadPoolExecutor) -> None:
    collector: Collector[int, int] = Collector(lambda questions: [], 4, thread)
    with pytest.raises(ValueError, match="zip"):
        collector.ask(1)


def test_a_cancelled_question_is_left_out(thread: ThreadPoolExecutor) -> None:
    doubler = Doubler()
    doubler.go_on.clear()
    collector = Collector(doubler, 4, thread)
    collector.hand_in([0])
    assert doubler.begun.wait(10)
    first, second = collector.hand_in([1, 2])
    assert first.cancel()
    doubler.go_on.set()
    assert second.result(10) == 4
    assert doubler.batches == [[0], [2]]


def test_many_threads_get_their_own_answers(thread: ThreadPoolExecutor) -> None:
    collector = Collector(Doubler(), 8, thread)
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(collector.ask, range(14, 514))) == list(range(28, 1028, 2))
