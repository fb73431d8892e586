"""Token buckets: how often each of many clients may ask, in little memory however many they are."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Bucket:
    """What is left of one client's tokens, as of a moment; below zero it is in debt."""

    tokens: float
    moment: float


class TokenBuckets:
    """A bucket for each client: it holds `burst` tokens at most and gets `per_minute` new ones a minute.

    Only the `most_clients` that asked last are remembered; one that is forgotten starts anew, with a full
    bucket. `clock` gives seconds.
    """

    def __init__(
        self,
        per_minute: float,
        burst: float,
        *,
        most_clients: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_second = per_minute / 60
        self._burst = burst
        self._most_clients = most_clients
        self._clock = clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, client: str, cost: float = 1.0) -> float:
        """Take `cost` tokens and give 0; or, where they are lacking, take none and give the seconds to wait.

        What costs more than a bucket holds needs a full one, and is paid off afterwards.
        """
        needed = min(cost, self._burst)
        with self._lock:
            now = self._clock()
            bucket = self._buckets.pop(client, None) or Bucket(self._burst, now)
            bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.moment) * self._per_second)
            bucket.moment = now
            self._buckets[client] = bucket  # at the end, as the one that asked last
            if len(self._buckets) > self._most_clients:
                self._buckets.popitem(last=False)
            if bucket.tokens < needed:
                return (needed - bucket.tokens) / self._per_second
            bucket.tokens -= cost
            return 0.0

    def __len__(self) -> int:
        """How many clients are remembered."""
        return len(self._buckets)
