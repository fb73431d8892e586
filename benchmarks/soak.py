"""Soak: many visitors at once, with good, bad and abandoned requests, for as long as one likes.

Every good answer is compared with the answer that the same photo had alone, every bad request must get one
sentence, and every visitor who stays must get something. Beside them a stranger may attack, in every other
slice of the time: the slices without are what those with are compared with. The stranger, who would have a
computer of their own, has the lowest priority on this one.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import random
import resource
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.service import PATIENCE, ROOT, SETTLING_S, Reply, Service, Visitor, service
from pawmatch.labels import bundled_tasks

NEAR = 1e-6  # how far a confidence may be from that of the lone answer


@dataclass
class Tally:
    """What happened; `problems` should stay empty."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, kind: str) -> None:
        """One more of a kind."""
        with self.lock:
            self.counts[kind] += 1

    def problem(self, text: str) -> None:
        """Something that must not happen."""
        with self.lock:
            self.counts["problems"] += 1
            self.problems.append(text[:300])


class Soak:
    """Visitors of one service, who know what its answers should be."""

    def __init__(
        self, address: str, photos: list[bytes], tally: Tally, *, have_addresses: bool = False
    ) -> None:
        self.address = address
        self.photos = photos
        self.tally = tally
        self.have_addresses = have_addresses
        self.is_attacked = False
        # Seconds, of all answers to good photos: of those asked for in peace, and under attack.
        self.waits: dict[bool, list[float]] = {False: [], True: []}
        self.expected: dict[tuple[int, str], dict[str, float]] = {}

    def learn(self) -> None:
        """Ask for every photo alone, and remember the answers."""
        visitor = Visitor(self.address)
        self.expected.clear()
        for number, photo in enumerate(self.photos):
            for task in bundled_tasks():
                reply = visitor.ask("predict", visitor.upload(photo), task, 5)
                if not reply.value:
                    raise RuntimeError(f"{reply.status} {reply.message}")
                self.expected[number, task] = confidences(reply.value)
            visitor.close()

    def visitor(self, number: int) -> Visitor:
        """A new visitor."""
        source = f"127.1.{number // 250 % 250}.{number % 250 + 1}" if self.have_addresses else ""
        return Visitor(self.address, source)

    def visit(self, seed: int, until: Callable[[], bool]) -> None:
        """One visitor's requests, until it is time to go."""
        chance = random.Random(seed)
        visitor = self.visitor(seed)
        kinds = (self.predict, self.explain, self.batch, self.bad, self.leave)
        while not until():
            kind = chance.choices(kinds, weights=(60, 10, 5, 15, 10))[0]
            self.tally.count("requests")
            if self.have_addresses:  # where photos are counted, an honest visitor looks at the answer first
                time.sleep(chance.uniform(1, 3))
            try:
                kind(visitor, chance)
            except Exception as exc:  # whatever it is: this request was lost
                self.tally.problem(f"lost: {kind.__name__}: {type(exc).__name__}: {exc}")
                visitor.close()
                visitor = self.visitor(seed)
        visitor.close()

    def predict(self, visitor: Visitor, chance: random.Random) -> None:
        """A good photo."""
        number, task = chance.randrange(len(self.photos)), chance.choice(bundled_tasks())
        started, is_attacked = time.monotonic(), self.is_attacked
        reply = visitor.ask("predict", visitor.upload(self.photos[number]), task, 5)
        if reply.value:
            self.waits[is_attacked].append(time.monotonic() - started)
        self.judge(reply, number, task, "predict")

    def explain(self, visitor: Visitor, chance: random.Random) -> None:
        """A good photo with its heatmaps."""
        number, task = chance.randrange(len(self.photos)), chance.choice(bundled_tasks())
        reply = visitor.ask("explain", visitor.upload(self.photos[number]), task, None)
        self.judge(reply, number, task, "explain")

    def batch(self, visitor: Visitor, chance: random.Random) -> None:
        """Good photos around a bad one."""
        numbers = [chance.randrange(len(self.photos)) for _ in range(2)]
        files = [visitor.upload(self.photos[number]) for number in numbers]
        files.insert(1, visitor.upload(b"\xff\xd8\xff\xe0 no picture"))
        reply = visitor.ask("predict_batch", files, "breed", 5)
        if reply.value is None:
            self.judge(reply, numbers[0], "breed", "batch")
            return
        first, bad, last = reply.value
        if "error" not in bad:
            self.tally.problem(f"a broken photo was answered: {bad}")
        for number, found in zip(numbers, (first, last), strict=True):
            self.judge(Reply(200, found), number, "breed", "batch")

    def bad(self, visitor: Visitor, chance: random.Random) -> None:
        """A request that cannot be answered, and must be told why in one sentence."""
        broken = self.photos[0][: chance.randrange(1, 600)]
        reply = chance.choice(
            (
                lambda: visitor.ask("predict", visitor.upload(broken), "breed", 5),
                lambda: visitor.ask("predict", visitor.upload(self.photos[0]), "cat", 5),
                lambda: visitor.ask("predict", visitor.upload(self.photos[0]), "breed", 0),
                lambda: visitor.ask("explain", visitor.upload(self.photos[0]), "breed", "Wolpertinger"),
                lambda: visitor.ask("predict", None, "breed", 5),
                lambda: visitor.ask("predict", {"path": "/etc/passwd"}, "breed", 5),
            )
        )()
        if reply.is_refusal:
            self.tally.count("busy")
        elif reply.value is None and is_sentence(reply.message):
            self.tally.count("told why")
        else:
            self.tally.problem(f"bad request: {reply}")

    def leave(self, visitor: Visitor, chance: random.Random) -> None:
        """A visitor who hangs up while waiting."""
        status = visitor.leave("predict", visitor.upload(chance.choice(self.photos)), "breed", 5)
        self.tally.count("left" if status == 200 else "busy")

    def judge(self, reply: Reply, number: int, task: str, kind: str) -> None:
        """Compare an answer with the lone one."""
        if reply.is_refusal:
            self.tally.count("busy")
        elif reply.value is None:
            self.tally.problem(f"{kind} without an answer: {reply}")
        elif not alike(confidences(reply.value), self.expected[number, task]):
            self.tally.problem(f"{kind} with another answer than alone: photo {number}, {task}")
        else:
            self.tally.count(f"right: {kind}")


def confidences(answer: dict[str, Any]) -> dict[str, float]:
    """Labels in order, with their confidence."""
    return {entry["label"]: entry["confidence"] for entry in answer["predictions"]}


def alike(found: dict[str, float], expected: dict[str, float]) -> bool:
    """Whether two answers are the same; labels that are equally likely may change places."""
    return set(found) == set(expected) and all(
        abs(found[label] - confidence) <= NEAR for label, confidence in expected.items()
    )


def is_sentence(message: str | None) -> bool:
    """Whether it is one sentence without a trace of the server's inside."""
    return bool(message) and str(message).endswith((".", "?")) and "Traceback" not in str(message)


def crowd(soak: Soak, visitors: int, until: Callable[[], bool], seed: int) -> None:
    """Let so many visitors in at a time, until it is time to go."""
    with ThreadPoolExecutor(visitors) as pool:
        for done in [pool.submit(soak.visit, seed + number, until) for number in range(visitors)]:
            done.result()


def after(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds have gone by since now."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


# --- what strangers do; each is one round of it, repeated side by side until it is time to go

STRANGER = "127.0.0.66"


def say(address: str, pieces: Iterable[bytes]) -> None:
    """Send something, whatever it is, and read the answer if there is one."""
    host, _, port = address.removeprefix("http://").rstrip("/").partition(":")
    try:
        with socket.create_connection((host, int(port)), 30, (STRANGER, 0)) as line:
            for piece in pieces:
                line.sendall(piece)
            line.recv(4096)
    except OSError:
        pass  # hung up on


def post(place: str, body: bytes, kind: str = "application/json", **headers: str) -> bytes:
    """A whole request."""
    told = {"Host": "127.0.0.1", "Content_Type": kind, "Content_Length": str(len(body)), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in told.items())
    return f"POST /gradio_api/{place} HTTP/1.1\r\n{lines}\r\n".encode() + body


def files(number: int, content: bytes = b"x") -> bytes:
    """A form of so many files."""
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n%b\r\n'
    return part % content * number + b"--b--\r\n"


def uploaded(address: str) -> dict[str, Any]:
    """A photo of the stranger's own."""
    photo = next((ROOT / "examples").glob("*.jpg")).read_bytes()
    visitor = Visitor(address, STRANGER)
    return visitor.upload(photo)


def rate(address: str, photo: dict[str, Any]) -> None:
    """Far more photos than are allowed, by named arguments and in uploads, under invented addresses."""
    invented = {"X_Forwarded_For": f"1.2.3.{random.randrange(256)}"}
    asked = json.dumps({"images": [photo] * 64, "task": "breed", "top_k": 5}).encode()
    say(address, [post("call/v2/predict_batch", asked, **invented)])
    say(address, [post("upload", files(1000), "multipart/form-data; boundary=b", **invented)])


def memory(address: str, photo: dict[str, Any]) -> None:
    """A text of 200 MB in an upload, and long names of sessions and uploads, which would be kept."""
    text = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n'
    head = post("upload", text, "multipart/form-data; boundary=b", Content_Length=str(200 * 2**20))
    say(address, [head, *[bytes(2**20)] * 200])
    named = json.dumps({"data": [], "fn_index": 0, "session_hash": "s" * 900_000}).encode()
    say(address, [post("queue/join", named)])
    say(
        address,
        [b"GET /gradio_api/upload_progress?upload_id=" + b"x" * 60_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"],
    )


def reload(address: str, photo: dict[str, Any]) -> None:
    """Every event of the pages that needs nothing, among them that which loads the weights again."""
    events = json.loads(Visitor(address, STRANGER).get("/config")[1])["dependencies"]
    for event in events:
        asked = {"data": [None] * len(event["inputs"]), "fn_index": event["id"], "session_hash": "stranger"}
        say(address, [post("queue/join", json.dumps(asked).encode())])


def references(address: str, photo: dict[str, Any]) -> None:
    """6,600 references to one upload in one question, and one photo 64 times in a batch."""
    for number in (6600, 64):
        asked = json.dumps({"data": [[photo] * number, "breed", 5]}).encode()
        say(address, [post("call/predict_batch", asked)])


def half(address: str, photo: dict[str, Any]) -> None:
    """Half a request, and silence until the service hangs up."""
    whole = post("queue/join", b"{}")
    say(address, [whole[: random.choice((0, 40, len(whole) - 1))]])


ATTACKS: dict[str, tuple[Callable[[str, dict[str, Any]], None], int]] = {
    "rate": (rate, 4),
    "memory": (memory, 8),
    "reload": (reload, 4),
    "references": (references, 8),
    "half": (half, 1200),
}


def attack(name: str, address: str, rounds: Any) -> None:
    """Attack until killed, counting the rounds."""
    os.nice(19)
    go, side_by_side = ATTACKS[name]
    photo = uploaded(address)

    def keep_on() -> None:
        while True:
            go(address, photo)
            with rounds.get_lock():
                rounds.value += 1

    for _ in range(side_by_side):
        threading.Thread(target=keep_on).start()


@contextmanager
def beside(soak: Soak, name: str, slice_s: float) -> Iterator[Callable[[], int]]:
    """Let a stranger attack in every other slice, not in the first; gives what tells the rounds so far."""
    spawning = multiprocessing.get_context("spawn")
    rounds, over = spawning.Value("i", 0), threading.Event()
    stranger = spawning.Process(target=attack, args=(name, soak.address, rounds))

    def alternate() -> None:
        while not over.wait(slice_s):
            soak.is_attacked = not soak.is_attacked
            if stranger.pid is None:
                stranger.start()
            else:
                os.kill(stranger.pid, signal.SIGCONT if soak.is_attacked else signal.SIGSTOP)

    clock = threading.Thread(target=alternate)
    clock.start()
    try:
        yield lambda: int(rounds.value)
    finally:
        over.set()
        clock.join()
        if stranger.pid is not None:
            stranger.kill()
            stranger.join()


@contextmanager
def watched(running: Service, folder: Path) -> Iterator[dict[str, float]]:
    """The most memory and disk, in megabytes, that the service takes meanwhile, looked at once a second."""
    most, over = {"resident": 0.0, "disk": 0.0}, threading.Event()

    def watch() -> None:
        while not over.is_set():
            most["resident"] = max(most["resident"], running.resident_mb(1))
            most["disk"] = max(most["disk"], disk_mb(folder))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


def disk_mb(folder: Path) -> float:
    """Megabytes of all files in a folder."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(root, name).lstat().st_size
            except OSError:
                continue  # gone meanwhile
    return total / 2**20


def p95(waits: list[float]) -> float:
    """Seconds within which 95 % of the answers came."""
    return statistics.quantiles(waits, n=20, method="inclusive")[-1] if len(waits) > 1 else math.nan


def run(name: str | None, args: argparse.Namespace) -> dict[str, Any]:
    """One service, its visitors, and a stranger if one is named; what came of it."""
    photos = [path.read_bytes() for path in sorted((ROOT / "examples").glob("*.jpg"))]
    tally = Tally()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, soft), hard))  # what a service has as a rule
    with ExitStack() as stack:
        os.environ["GRADIO_TEMP_DIR"] = folder = stack.enter_context(tempfile.TemporaryDirectory())
        limits: dict[str, Any] = {"rate_limit": 120 if name else 0, "queue_size": args.queue_size}
        running = stack.enter_context(service(request_log="no", device="cpu", **limits))
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soak = Soak(running.address, photos, tally, have_addresses=bool(name))
        soak.learn()
        found: dict[str, Any] = {"attack": name, "idle_mb": running.resident_mb()}
        if not name:
            crowd(soak, args.clients, after(args.seconds / 5), seed=0)
            found["before_mb"] = running.resident_mb()
        most = stack.enter_context(watched(running, Path(folder)))
        rounds = stack.enter_context(beside(soak, name, args.slice)) if name else lambda: 0
        crowd(soak, args.clients, after(args.seconds if name else args.seconds * 4 / 5), seed=10_000)
        found |= {"rounds": rounds(), "is_alive": running.process.poll() is None}
        found |= {"most_mb": most["resident"], "disk_mb": most["disk"]}
        if not name:
            found["after_mb"] = running.resident_mb()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    found |= {"p95_s": p95(soak.waits[False]), "attacked_s": p95(soak.waits[True])}
    return {**found, "counts": dict(tally.counts), "problems": tally.problems}


def told(found: dict[str, Any]) -> str:
    """What came of one run, in lines."""
    counts = ", ".join(f"{number} {kind}" for kind, number in sorted(found["counts"].items()))
    memory = f"{found['idle_mb']:.0f} MB idle, at most {found['most_mb'] - found['idle_mb']:.0f} MB more"
    if found["attack"]:
        ratio = found["attacked_s"] / found["p95_s"]
        waits = f"p95 {found['p95_s']:.2f} s, {found['attacked_s']:.2f} s under attack: {ratio:.2f} x"
        waits += f"; {found['rounds']} rounds of the attack"
    else:
        waits = f"p95 {found['p95_s']:.2f} s"
        memory += f"; {found['before_mb']:.0f} MB after a fifth of it, {found['after_mb']:.0f} MB at the end"
    memory += f"; disk {found['disk_mb']:.0f} MB"
    return "\n  ".join(
        [f"{found['attack'] or 'no attack'}: {counts}", waits, memory, *found["problems"][:20]]
    )


def main(given: list[str] | None = None) -> int:
    """Run, print, and write if asked to; 1 if anything went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600, help="how long each (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=32, help="visitors at a time (default: %(default)s)")
    parser.add_argument("--queue-size", type=int, default=16, help="places to wait (default: %(default)s)")
    parser.add_argument("--attack", choices=(*ATTACKS, "all"), help="what a stranger does meanwhile")
    parser.add_argument("--slice", type=float, default=20, help="seconds of a slice (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write everything to this file")
    args = parser.parse_args(given)
    names = list(ATTACKS) if args.attack == "all" else [args.attack]
    # The start, what the photos' lone answers take, and visitors who wait when the time is up.
    around = 30 + (1 if args.attack else 3) * SETTLING_S
    longest = len(names) * (args.seconds + around)
    print(f"about {longest / 60:.0f} minutes, {len(names) * 2 * PATIENCE / 60:.0f} more at most", flush=True)
    results = []
    for name in names:
        results.append(run(name, args))
        print(told(results[-1]), flush=True)
        if args.json:
            Path(args.json).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0 if all(found["is_alive"] and not found["problems"] for found in results) else 1


if __name__ == "__main__":
    sys.exit(main())
