"""A Hub of our own: a threaded local server that speaks as much of the Hub's HTTP as the program uses.

Commits are kept in memory. A `Fault` makes it answer an error, hang up, stop midway, be slow,
send elsewhere or send something else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


def files_of(folder: Path, prefix: str = "") -> dict[str, bytes]:
    """The files of a folder as a commit takes them."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {prefix + path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@dataclass
class Fault:
    """What goes wrong with requests whose path contains `match`, `times` times or for ever."""

    match: str = ""
    method: str = ""  # any, if empty
    status: int = 0  # answer this status, with `code` as the Hub's own error code
    code: str = ""
    reset: bool = False  # hang up without an answer
    keep: int | None = None  # announce the whole file, send this many bytes, hang up
    delay: float = 0  # seconds before the answer
    drip: float = 0  # seconds before each byte of the body
    redirect: str = ""  # send to this address, with the path behind it
    body: bytes | None = None  # send this in place of the file, under the file's own hash
    announced: int | None = None  # give this as the file's size before it is asked for
    extra: dict[str, str] = field(default_factory=dict)  # further headers
    times: int = -1


@dataclass
class Repo:
    """Commits by hash, and the branches that point at them."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    private: bool = False
    sdk: str | None = None
    variables: dict[str, str] = field(default_factory=dict)
    hardware: str = ""

    def add(self, files: Mapping[str, bytes], branch: str) -> str:
        """Add a commit that changes `files` on `branch`, and give its hash."""
        before = self.commits.get(self.branches.get(branch, ""), {})
        state = {**before, **files}
        digest = hashlib.sha1(repr((len(self.commits), branch, sorted(state.items()))).encode()).hexdigest()
        self.commits[digest] = state
        self.branches[branch] = digest
        return digest


class QuietServer(ThreadingHTTPServer):
    """One that takes clients that hang up for granted."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing about a connection that broke."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class HubServer:
    """Use as a context manager; `requests` lists what was asked, as (method, path)."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.ranges: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.messages: list[str] = []
        self.closing = threading.Event()
        owner = self

        class Handler(HubHandler):
            hub = owner

        self.http = QuietServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """The endpoint, for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def __enter__(self) -> HubServer:
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def commit(self, repo: str, files: Mapping[str, bytes], *, branch: str = "main") -> str:
        """Add a commit to a repository, which is created if needed; `spaces/user/name` is a Space."""
        return self.repos.setdefault(repo, Repo()).add(files, branch)

    def downloads(self) -> list[str]:
        """The paths of the files asked for with GET, below `resolve`."""
        return [
            path.split("/resolve/")[1]
            for method, path in self.requests
            if method == "GET" and "/resolve/" in path
        ]

    def fault_for(self, method: str, path: str) -> Fault:
        """The first fault that applies to a request; counts it."""
        for fault in self.faults:
            if fault.match in path and fault.method in ("", method) and fault.times != 0:
                fault.times -= 1
                return fault
        return Fault()


class HubHandler(BaseHTTPRequestHandler):
    """One connection to the HubServer."""

    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Requests are kept in `hub.requests`; nothing is printed."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def answer(self) -> None:
        """Note the request, let its fault happen, else route it."""
        path = unquote(urlsplit(self.path).path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append((self.command, path))
        self.hub.headers.append({name.lower(): value for name, value in self.headers.items()})
        self.fault = self.hub.fault_for(self.command, path)
        time.sleep(self.fault.delay)
        if self.fault.reset:
            self.hang_up()
        elif self.fault.redirect and "/resolve/" not in path:
            self.send(302, b"", Location=self.fault.redirect + self.path, **self.fault.extra)
        elif self.fault.status:
            self.error(self.fault.status, self.fault.code)
        elif path.startswith("/api/"):
            self.api(path.removeprefix("/api/"))
        elif "/resolve/" in path:
            self.resolve(path)
        else:
            self.error(404, "")

    def hang_up(self) -> None:
        """Close the connection at once, with a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def send(self, status: int, body: bytes, **headers: str) -> None:
        """Send a whole answer."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        length = len(body) if self.command != "HEAD" or self.fault.announced is None else self.fault.announced
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.fault.drip and self.command != "HEAD":
            self.send_slowly(body)
        elif self.command != "HEAD":
            self.wfile.write(body if self.fault.keep is None else body[: self.fault.keep])
            if self.fault.keep is not None:
                self.close_connection = True

    def send_slowly(self, body: bytes) -> None:
        """Send a body byte by byte, until the other side or the server goes."""
        for byte in body:
            if self.hub.closing.wait(self.fault.drip):
                return
            try:
                self.wfile.write(bytes([byte]))
            except OSError:
                self.close_connection = True
                return

    def reply(self, value: object) -> None:
        """Send a JSON answer."""
        self.send(200, json.dumps(value).encode(), Content_Type="application/json")

    def error(self, status: int, code: str) -> None:
        """Send an error as the Hub words it."""
        headers = {**self.fault.extra, **({"X_Error_Code": code} if code else {})}
        self.send(status, b'{"error": "test"}', Content_Type="application/json", **headers)

    def find(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit of a repository at a revision; answers with the Hub's error if there is none."""
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and "Authorization" not in self.headers):
            self.error(401 if "Authorization" not in self.headers else 404, "RepoNotFound")
            return None
        sha = repo.branches.get(revision, revision)
        if sha not in repo.commits:
            self.error(404, "RevisionNotFound")
            return None
        return sha, repo.commits[sha]

    def resolve(self, path: str) -> None:
        """A file of a commit, or from some byte on."""
        place, _, rest = path.lstrip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        found = self.find(place, revision)
        if found is None:
            return
        sha, files = found
        if name not in files:
            self.send(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
            return
        data = files[name]
        etag = hashlib.sha256(data).hexdigest()
        if self.fault.body is not None:
            data = self.fault.body
        headers = {
            "ETag": f'"{etag}"',
            "X_Repo_Commit": sha,
            "Accept_Ranges": "bytes",
            "Content_Type": "application/octet-stream",
        }
        if self.fault.redirect:  # a large file lies elsewhere, and the Hub says of it what it knows
            linked = {"X_Linked_ETag": headers["ETag"], "X_Linked_Size": str(len(data))}
            self.send(302, b"", Location=self.fault.redirect + self.path, X_Repo_Commit=sha, **linked)
            return
        wanted = self.headers.get("Range")
        if wanted and self.command == "GET":
            self.hub.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            headers["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self.send(206, data[start:], **headers)
        else:
            self.send(200, data, **headers)

    def api(self, path: str) -> None:
        """What is not a file: information about a repository, and all that a push needs."""
        kind, _, rest = path.partition("/")
        prefix = "spaces/" if kind == "spaces" else ""
        if self.command == "GET" and kind in ("models", "spaces"):
            name, _, revision = rest.partition("/revision/")
            found = self.find(prefix + name, revision or "main")
            if found is not None:
                sha, files = found
                self.reply({"id": name, "sha": sha, "siblings": [{"rfilename": file} for file in files]})
        elif path == "repos/create":
            self.create()
        elif path == "validate-yaml":
            wrong = "license: broken" in json.loads(self.body)["content"]
            answer = {"errors": [{"message": "license is unknown"}] if wrong else [], "warnings": []}
            self.send(400 if wrong else 200, json.dumps(answer).encode(), Content_Type="application/json")
        elif "/preupload/" in path:
            files = json.loads(self.body)["files"]
            modes = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]
            self.reply({"files": modes})
        elif kind == "spaces" and path.endswith("/variables"):
            given = json.loads(self.body)
            repo = self.hub.repos[prefix + rest.removesuffix("/variables")]
            repo.variables[given["key"]] = given["value"]
            self.reply({key: {"value": value} for key, value in repo.variables.items()})
        elif kind == "spaces" and path.endswith("/hardware"):
            repo = self.hub.repos[prefix + rest.removesuffix("/hardware")]
            repo.hardware = json.loads(self.body)["flavor"]
            self.reply({"stage": "BUILDING", "hardware": {"current": None, "requested": repo.hardware}})
        elif "/branch/" in path:
            name, _, branch = rest.partition("/branch/")
            repo = self.hub.repos[name]
            if branch in repo.branches:
                self.error(409, "")
            else:
                repo.branches[branch] = repo.branches.get("main", repo.add({}, branch))
                self.reply({})
        elif "/commit/" in path:
            name, _, branch = rest.partition("/commit/")
            self.take_commit(prefix + name, branch)
        else:
            self.error(404, "")

    def create(self) -> None:
        """Create a repository for whoever has a token."""
        if "Authorization" not in self.headers:
            self.error(401, "")
            return
        asked = json.loads(self.body)
        kind = "spaces/" if asked.get("type") == "space" else ""
        name = f"{kind}{asked['organization']}/{asked['name']}"
        if name in self.hub.repos:
            self.send(409, json.dumps({"url": f"{self.hub.url}/{name}"}).encode())
            return
        self.hub.repos[name] = Repo(private=asked.get("visibility") == "private", sdk=asked.get("sdk"))
        self.reply({"url": f"{self.hub.url}/{name}"})

    def take_commit(self, name: str, branch: str) -> None:
        """Take a commit, one JSON object a line, files in base64."""
        lines = [json.loads(line) for line in self.body.splitlines()]
        self.hub.messages += [line["value"]["summary"] for line in lines if line["key"] == "header"]
        files = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"])
            for line in lines
            if line["key"] == "file"
        }
        sha = self.hub.repos[name].add(files, branch)
        self.reply({"commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha})
