"""The served app against the same models in this process: throughput, and how long visitors wait.

Visitors are threads of this process; they and the service share the same cores, so what they cost is
counted against the service. Each request uploads its photo, calls /predict and reads the answer from the
event stream.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.service import ROOT, Reply, Visitor, service
from benchmarks.side_by_side import arguments, compare
from pawmatch.labels import bundled_tasks

EXAMPLES = ROOT / "examples"
BUSY = "Busy, please try again in a moment."


class Crowd:
    """So many visitors, who together ask a number of questions; remembers how long each waited."""

    def __init__(self, address: str, visitors: int, photos: list[bytes], task: str) -> None:
        self.visitors = visitors
        self.waits: list[float] = []
        self.refused = 0
        self.wrong: list[str] = []
        self._photos = photos
        self._task = task
        self._free = [Visitor(address) for _ in range(visitors)]
        self._pool = ThreadPoolExecutor(visitors)

    def ask(self, questions: int) -> None:
        """Ask them all, each visitor the next one as soon as the last is answered."""
        numbers = count()

        def keep_asking(visitor: Visitor) -> None:
            while (number := next(numbers)) < questions:
                self._ask_once(visitor, self._photos[number % len(self._photos)])

        for done in [self._pool.submit(keep_asking, visitor) for visitor in self._free]:
            done.result()

    def _ask_once(self, visitor: Visitor, photo: bytes) -> None:
        while True:
            started = time.perf_counter()
            reply: Reply = visitor.ask("predict", visitor.upload(photo), self._task, 5)
            waited = time.perf_counter() - started
            if reply.value:
                self.waits.append(waited)
                return
            if reply.message != BUSY:
                self.wrong.append(f"{reply.status} {reply.message}")
                return
            self.refused += 1
            time.sleep(0.1)

    def waited_ms(self, share: float) -> float:
        """Milliseconds within which that share of the answers came."""
        return 1000 * statistics.quantiles(self.waits, n=100, method="inclusive")[round(100 * share) - 1]


def main(given: list[str] | None = None) -> int:
    """Measure, print, and write if asked to."""
    parser = arguments(__doc__ or "", rounds=5)
    parser.add_argument("--questions", type=int, default=160, help="photos per round (default: %(default)s)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32], help="visitors at a time")
    parser.add_argument("--task", default="breed", choices=bundled_tasks())
    args = parser.parse_args(given)

    from pawmatch import load

    paths = sorted(EXAMPLES.glob("*.jpg"))
    photos = [path.read_bytes() for path in paths]
    asked = [paths[number % len(paths)] for number in range(args.questions)]
    classifier = load(args.task, device="cpu")
    with service(rate_limit=0, request_log="no", device="cpu") as running:
        crowds = {f"{n} clients": Crowd(running.address, n, photos, args.task) for n in args.clients}
        peers: dict[str, Callable[[], Any]] = {
            "in process": lambda: [classifier.predict(path) for path in asked],
            "in process, batches": lambda: list(classifier.predict_batch(asked)),
            **{name: partial(crowd.ask, args.questions) for name, crowd in crowds.items()},
        }
        result = compare(peers, args.rounds)
    print(result.table("in process"))
    facts: dict[str, Any] = {}
    for name, crowd in crowds.items():
        p50, p95 = crowd.waited_ms(0.5), crowd.waited_ms(0.95)
        facts[name] = {
            "throughput_of_in_process": result.ratio("in process", name),
            "p50_ms": p50,
            "p95_ms": p95,
            "refused": crowd.refused,
            "wrong": crowd.wrong[:10],
        }
        print(
            f"{name}: {args.questions / result.medians[name]:.1f} photos/s, "
            f"{facts[name]['throughput_of_in_process']:.2f} x in process; p50 {p50:.0f} ms, p95 {p95:.0f} ms "
            f"({p95 / p50:.1f} x), refused {crowd.refused}, wrong {len(crowd.wrong)}"
        )
    if args.json:
        result.write_json(Path(args.json), questions=args.questions, task=args.task, served=facts)
    return 1 if any(crowd.wrong for crowd in crowds.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
