"""What visitors leave on the disk: broken uploads, visits that end in mid-run, a killed service, a full disk.

Files are kept for a hundredth of the usual time, so that an hour is over in half a minute. Then there may be
nothing in the folder.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from benchmarks.service import ROOT, Visitor, service
from benchmarks.soak import post

KEEP_SECONDS = 36
LARGEST_DISK_MB = 4


def lying_about(folder: Path) -> list[Path]:
    """All files in a folder."""
    return [Path(root, name) for root, _, names in os.walk(folder) for name in names]  # gone folders are none


def break_off(address: str, photo: bytes, number: int) -> None:
    """Send a part of an upload and hang up; by turns a little, half, and all but the end."""
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    whole = post("upload", head + photo + b"\r\n--b--\r\n", "multipart/form-data; boundary=b")
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 30, (source(number), 0)) as line:
        line.sendall(whole[: (400, len(whole) // 2, len(whole) - 4)[number % 3]])


def source(number: int) -> str:
    """An address for one of the visitors."""
    return f"127.1.1.{number % 250 + 1}"


@contextmanager
def page_open(address: str, number: int) -> Iterator[str]:
    """A page that is open, by the connection that it keeps for that; gives its session."""
    session = f"leaver{number}"
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 60, (source(number), 0)) as line:
        line.sendall(f"GET /gradio_api/heartbeat/{session} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        line.recv(1)
        yield session


def leave_in_mid_run(address: str, photo: bytes, number: int) -> None:
    """Have two photos compared, or one looked at, and close the page before there is an answer."""
    visitor = Visitor(address, source(number))
    with page_open(address, number) as session:
        sent = [visitor.upload(photo + bytes([number, turn])) for turn in range(2)]
        if number % 2:
            visitor.start("look", [sent[0], "breed", "jet", 0.5], session)
        else:
            visitor.start("compare", [sent, "breed", ""], session)
    visitor.close()


def side_by_side(go: Callable[[str, bytes, int], None], address: str, photo: bytes, number: int) -> None:
    """Let so many do something, eight at a time."""
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(go, address, photo, turn) for turn in range(number)]:
            done.result()


def fill(address: str, photo: bytes, folder: Path) -> str:
    """Upload until there is no room; says what the service said, and how it is afterwards."""
    visitor, said = Visitor(address, source(0)), ""
    for number in range(10_000):
        try:
            visitor.upload(photo + number.to_bytes(4, "big"))
        except RuntimeError as exc:
            said = str(exc)
            break
    visitor.close()
    return f"{len(lying_about(folder))} whole uploads, then {said}"


def main(given: list[str] | None = None) -> int:
    """Try all of it, print what was left, and give 1 if anything was."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--uploads", type=int, default=200, help="that break off (default: %(default)s)")
    parser.add_argument("--leavers", type=int, default=50, help="visitors who leave (default: %(default)s)")
    args = parser.parse_args(given)
    photo = next((ROOT / "examples").glob("*.jpg")).read_bytes()
    is_clean = True

    def judge(event: str, folder: Path, seconds: float = 0) -> None:
        nonlocal is_clean
        started = time.monotonic()
        while (left := lying_about(folder)) and time.monotonic() - started < seconds:
            time.sleep(0.2)
        is_clean &= not left
        print(f"{event}: {len(left)} files left after {time.monotonic() - started:.0f} s", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["GRADIO_TEMP_DIR"] = name
        with service(rate_limit=0, request_log="no", device="cpu", keep_seconds=KEEP_SECONDS) as running:
            side_by_side(break_off, running.address, photo, args.uploads)
            judge(f"{args.uploads} broken uploads", folder, KEEP_SECONDS)
            side_by_side(leave_in_mid_run, running.address, photo, args.leavers)
            print(f"{len(lying_about(folder))} files of {args.leavers} visitors who left", flush=True)
            # Their runs go on for a while, and what these make has its own time.
            judge(f"{args.leavers} visitors left in mid-run", folder, 3 * KEEP_SECONDS)
            Visitor(running.address).upload(photo)
            assert lying_about(folder)
        judge("SIGTERM", folder)
        with service(rate_limit=0, request_log="no", device="cpu", keep_seconds=KEEP_SECONDS) as running:
            Visitor(running.address).upload(photo)
            running.process.kill()
            running.process.wait()
            assert lying_about(folder)
        with service(rate_limit=0, request_log="no", device="cpu", keep_seconds=KEEP_SECONDS) as running:
            judge("kill -9, and the next start", folder)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={LARGEST_DISK_MB}m", "tmpfs", name]
        if subprocess.run(mount, capture_output=True).returncode:
            print("a full disk: not tried, since only root may make a small one")
            return int(not is_clean)
        try:
            with service(rate_limit=0, request_log="no", device="cpu", keep_seconds=KEEP_SECONDS) as running:
                print(f"a disk of {LARGEST_DISK_MB} MB: {fill(running.address, photo, folder)}")
                judge("a full disk", folder, KEEP_SECONDS)
                Visitor(running.address).upload(photo)  # there is room again
        finally:
            subprocess.run(["umount", name], check=False)
    return int(not is_clean)


if __name__ == "__main__":
    sys.exit(main())
