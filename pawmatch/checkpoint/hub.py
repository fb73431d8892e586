"""The Hugging Face Hub: where a `hf://` source points, files from one commit of it, and uploads.

Every failure of the library below comes out as RepoNotFound, AccessDenied or HubUnavailable. Waiting is
bounded: a service that starts must not hang on a Hub that does not answer, that answers one byte at a time
or that asks to come back in an hour. The library bounds the wait for the next byte, not for the last one, and
where the Hub asks to come back in an hour, it sleeps that hour; a hook on each of its answers ends both.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from huggingface_hub import HfApi, constants, errors, get_hf_file_metadata, get_session, hf_hub_url
from huggingface_hub.file_download import hf_hub_download, repo_folder_name
from huggingface_hub.utils import parse_hf_uri  # type: ignore[attr-defined]
from huggingface_hub.utils.sha import git_hash, sha_fileobj

from pawmatch.errors import (
    AccessDenied,
    BadOption,
    HubError,
    HubUnavailable,
    NotACheckpoint,
    RepoNotFound,
)
from pawmatch.files import replace_file

PREFIX = "hf://"
ANSWER_TIMEOUT = 5.0  # seconds until the Hub's first answer
ANSWER_SECONDS = 15.0  # seconds until the last byte of it
# A file may take this many seconds, and as many more as it would at the slowest speed worth waiting for.
FILE_SECONDS = 30.0
MIN_SPEED = 200_000  # bytes a second
MAX_FILE = 2**33  # bytes; twice what the largest model may have in float32
TOO_MANY = 429
DEFAULT_REVISION = "main"

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}")
REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+/-]{0,199}")
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")

Result = TypeVar("Result")

# Xet downloads over connections of its own, to which the limits below do not reach. Set here, since the
# library may have been imported, and have read its environment, long before.
constants.HF_HUB_DISABLE_XET = True

_until: ContextVar[float] = ContextVar("until", default=math.inf)


class TookTooLong(Exception):
    """The time is up, and the answer not complete."""


class RateLimited(Exception):
    """The Hub asks to come back later."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TookTooLong or RateLimited inside, once a body takes longer or the Hub asks to wait.

    What is silent altogether is left to the library's own limits.
    """
    hooks = get_session().event_hooks["response"]
    if _watch not in hooks:
        hooks.append(_watch)
    token = _until.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _until.reset(token)


def _watch(response: Any) -> None:
    """Let an answer under a limit be read up to the limit. Its type differs from version to version."""
    end = _until.get()
    if end == math.inf:
        return
    if response.status_code == TOO_MANY:
        raise RateLimited
    read = response.iter_raw

    def iter_raw(chunk_size: int | None = None) -> Iterator[bytes]:
        for part in read(chunk_size):
            if time.monotonic() > end:
                raise TookTooLong
            yield part

    response.iter_raw = iter_raw


@dataclass(frozen=True)
class HubSource:
    """A place on the Hub: `subfolder` is a folder, or for imports a file, inside the repository."""

    repo: str
    subfolder: str = ""
    revision: str | None = None
    kind: str = "model"

    def __str__(self) -> str:
        kind = "spaces/" if self.kind == "space" else ""
        place = f"/{self.subfolder}" if self.subfolder else ""
        revision = self.revision or ""
        if not revision.startswith("refs/"):
            revision = quote(revision, safe="")
        return f"{PREFIX}{kind}{self.repo}{f'@{revision}' if revision else ''}{place}"

    def path(self, name: str = "") -> str:
        """The path inside the repository of the file or folder `name` below this place."""
        return "/".join(part for part in (self.subfolder, name) if part)

    def below(self, name: str) -> HubSource:
        """The place `name` below this one."""
        return replace(self, subfolder=self.path(name))


@dataclass(frozen=True)
class Commit:
    """One state of a repository: `files` it has, or for a `cached` one those that were downloaded."""

    source: HubSource
    sha: str
    files: frozenset[str]
    cached: bool

    def names(self, place: HubSource) -> list[str]:
        """The paths of the files at and below `place`, relative to it."""
        start = f"{place.subfolder}/" if place.subfolder else ""
        return sorted(file.removeprefix(start) for file in self.files if file.startswith(start))


def is_hub_source(source: str) -> bool:
    """Whether `source` names a place on the Hub."""
    return source.startswith(PREFIX)


def parse(source: str) -> HubSource:
    """The place that a source names: `hf://user/repo[@revision][/subfolder]`, as the Hub writes it.

    The revision may also stand at the end, `hf://user/repo/subfolder@revision`; a Space is
    `hf://spaces/user/repo`. Raises BadOption for anything else, `..` and backslashes in particular.
    """
    body, at, last = source.partition("@")
    at_the_end = body.removeprefix(PREFIX).removeprefix("models/").removeprefix("spaces/").count("/") > 1
    try:
        found = parse_hf_uri(body if at and at_the_end else source)
    except ValueError as exc:
        raise _no_place(source) from exc
    if found.type not in ("model", "space"):
        raise BadOption(f"{source[:200]!r} is a {found.type}; give a model repository or a Space.")
    revision = last if at and at_the_end else found.revision
    names = f"{found.id}/{found.path_in_repo}".removesuffix("/").split("/")
    plain = all(NAME.fullmatch(name) and ".." not in name for name in names)
    if revision is not None:
        plain = plain and bool(REVISION.fullmatch(revision)) and ".." not in revision
    if not is_hub_source(source) or source.startswith(f"{PREFIX}/") or not plain:
        raise _no_place(source)
    return HubSource(found.id, found.path_in_repo, revision, found.type)


def _no_place(source: str) -> BadOption:
    return BadOption(f"{source[:200]!r} is no place on the Hub; write hf://user/repo@revision/subfolder.")


def with_commit(source: HubSource, use: Callable[[Commit], Result], *, complete: bool = True) -> Result:
    """Give `use` the current commit, so that all it downloads is of one state.

    If the Hub fails, before or while `use` runs, `use` gets the last commit with which it succeeded. A use
    that is not `complete` leaves out what others need, and does not count.
    """
    try:
        commit = look_up(source)
        result = use(commit)
    except HubUnavailable:
        last = cached_commit(source)
        if last is None:
            raise
        return use(last)
    if complete:
        remember(commit)
    return result


def fetch(source: HubSource, names: Sequence[str]) -> tuple[Path, Commit]:
    """Download the files `names` below `source`, and give the local folder that stands for `source`."""
    return with_commit(source, lambda commit: (download(commit, source, names), commit))


def look_up(source: HubSource) -> Commit:
    """Ask the Hub which commit the source's revision is at, and which files that has."""
    with mapped(source), within(ANSWER_SECONDS):
        info = HfApi().repo_info(
            source.repo, repo_type=source.kind, revision=source.revision, timeout=ANSWER_TIMEOUT
        )
        files = frozenset(entry.rfilename for entry in getattr(info, "siblings", None) or ())
        sha = info.sha or ""
    if not COMMIT.fullmatch(sha):
        raise HubUnavailable(f"The Hub's answer about {source} names no commit; check HF_ENDPOINT.")
    return Commit(source, sha, files, cached=False)


def cached_commit(source: HubSource) -> Commit | None:
    """The commit that served last for the source's revision, if any of it is in the Hub's cache."""
    revision = source.revision or DEFAULT_REVISION
    repository = cache_folder(source)
    with suppress(OSError):
        sha = revision
        if not COMMIT.fullmatch(revision):
            sha = (repository / "refs" / revision).read_text().strip()
        snapshot = repository / "snapshots" / sha
        if COMMIT.fullmatch(sha) and snapshot.is_dir():
            files = [path.relative_to(snapshot) for path in snapshot.rglob("*") if path.is_file()]
            return Commit(source, sha, frozenset(file.as_posix() for file in files), cached=True)
    return None


def download(commit: Commit, place: HubSource, names: Sequence[str]) -> Path:
    """Download files of `commit` into the Hub's cache, and give the local folder that stands for `place`.

    A file appears in the cache only when all of its bytes are there, and counts only if they are right.
    """
    if missing := [name for name in names if place.path(name) not in commit.files]:
        if commit.cached:
            raise HubUnavailable(
                f"The Hub cannot be reached and the cached copy of {place} lacks {missing[0]}."
            )
        raise RepoNotFound(f"There is no {missing[0]} in {place}; check the spelling, or name a subfolder.")
    snapshot = cache_folder(place) / "snapshots" / commit.sha
    for name in names:
        path = place.path(name)
        if not (snapshot / path).is_file() or not intact(snapshot / path):
            _fetch_file(commit, place, path)
        if not intact(snapshot / path):
            raise HubUnavailable(f"{name} of {place} arrived damaged and was thrown away; try again later.")
    return snapshot / place.subfolder


def _fetch_file(commit: Commit, place: HubSource, path: str) -> None:
    """Download one file into the cache, within a time that its size allows for."""
    url = hf_hub_url(place.repo, path, repo_type=place.kind, revision=commit.sha)
    with mapped(place):
        with within(ANSWER_SECONDS):
            # hf_hub_download waits for minutes where the Hub is silent: ask once, briefly, before.
            size = get_hf_file_metadata(url, timeout=ANSWER_TIMEOUT).size or 0
        if size <= MAX_FILE:
            with within(FILE_SECONDS + size / MIN_SPEED):
                hf_hub_download(
                    place.repo, path, repo_type=place.kind, revision=commit.sha, etag_timeout=ANSWER_TIMEOUT
                )
    if size > MAX_FILE:
        raise NotACheckpoint(f"{path} of {place} has {size:,} bytes; {MAX_FILE:,} are the limit.")


def intact(file: Path) -> bool:
    """Whether a cached file holds what the Hub said it would; if not, it is removed.

    The cache names a file's content after its hash, of git for a small file, SHA-256 for a large one. The
    library compares sizes alone.
    """
    if not file.is_symlink():
        return True  # a cache without links, which keeps no hashes
    blob = file.parent / file.readlink()
    if SHA256.fullmatch(blob.name):
        with blob.open("rb") as content:
            digest = sha_fileobj(content).hex()
    else:
        digest = git_hash(blob.read_bytes()) if COMMIT.fullmatch(blob.name) else blob.name
    if digest == blob.name:
        return True
    with suppress(OSError):
        file.unlink()
        blob.unlink(missing_ok=True)
    return False


def cache_folder(source: HubSource) -> Path:
    """The repository's folder in the Hub's cache, whose layout the Hub documents."""
    folder = repo_folder_name(repo_id=source.repo, repo_type=source.kind)
    return Path(constants.HF_HUB_CACHE) / folder


def remember(commit: Commit) -> None:
    """Make `commit` the one that serves when the Hub cannot be reached.

    The library would note a commit before its files are complete; then an interrupted download would
    hide the last one that works.
    """
    revision = commit.source.revision or DEFAULT_REVISION
    if COMMIT.fullmatch(revision):
        return
    path = cache_folder(commit.source) / "refs" / revision
    with suppress(OSError):  # a read-only cache serves as well, only not for the next commit
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, commit.sha)


def upload(
    folder: Path,
    place: HubSource,
    names: Sequence[str],
    *,
    private: bool,
    message: str,
    but: Sequence[str] = (),
) -> str:
    """Upload the files of `folder` that match `names` and not `but`, and give the place's web address.

    One commit, so that no reader ever sees new weights beside an old config. Creates the repository, and
    the branch that `place.revision` names, where they are missing; a Space is one of Gradio's.
    """
    branch = place.revision or DEFAULT_REVISION
    repository: dict[str, Any] = {"repo_id": place.repo, "repo_type": place.kind}
    sdk = "gradio" if place.kind == "space" else None
    with mapped(place):
        api = HfApi()
        page = api.create_repo(**repository, space_sdk=sdk, private=private, exist_ok=True)
        if branch != DEFAULT_REVISION:
            api.create_branch(**repository, branch=branch, exist_ok=True)
        api.upload_folder(
            **repository,
            folder_path=folder,
            path_in_repo=place.subfolder,
            revision=branch,
            commit_message=message,
            allow_patterns=list(names),
            ignore_patterns=list(but),
        )
    return f"{page.url}/tree/{branch}/{place.subfolder}".rstrip("/")


def set_up_space(place: HubSource, variables: Mapping[str, str], hardware: str | None) -> None:
    """Set the public variables of a Space, and ask for its hardware; both restart it."""
    with mapped(place):
        for key, value in variables.items():
            HfApi().add_space_variable(place.repo, key, value)
        if hardware is not None:
            HfApi().request_space_hardware(place.repo, hardware)  # type: ignore[arg-type]


@contextmanager
def mapped(source: HubSource) -> Iterator[None]:
    """Turn every error of the Hub's library into one of ours. Only calls of the library belong inside."""
    try:
        yield
    # The library's own errors, then those of its HTTP client, which is another one from version to
    # version: nothing of either may reach a user.
    except Exception as exc:
        raise translated(exc, source) from exc


def translated(exc: BaseException, source: HubSource) -> HubError | BadOption:
    """The error of ours that says what `exc` means for `source`."""
    if isinstance(exc, errors.LocalEntryNotFoundError) and exc.__cause__ is not None:
        return translated(exc.__cause__, source)
    status = exc.response.status_code if isinstance(exc, errors.HfHubHTTPError) else None
    refused = errors.GatedRepoError | errors.DisabledRepoError | errors.LocalTokenNotFoundError
    if isinstance(exc, refused) or (status in (401, 402, 403) and type(exc) is errors.HfHubHTTPError):
        return AccessDenied(
            f"The Hub does not give access to {source.repo}; ask for access on its page "
            "and log in with `hf auth login` or set HF_TOKEN."
        )
    if isinstance(exc, errors.RepositoryNotFoundError):
        # The Hub gives the same answer for a private repository, so as not to say that it exists.
        return RepoNotFound(
            f"There is no repository {source.repo} on the Hub that your token may see; "
            "check the spelling, or log in with `hf auth login` if it is private."
        )
    if isinstance(exc, errors.RevisionNotFoundError):
        revision = source.revision or DEFAULT_REVISION
        return RepoNotFound(f"{source.repo} has no branch, tag or commit {revision!r}; check the spelling.")
    if isinstance(exc, errors.HFValidationError):
        return RepoNotFound(f"{source.repo!r} cannot be the name of a repository; write hf://user/repo.")
    if status == 404:
        return RepoNotFound(f"{source} does not exist on the Hub; check the spelling.")
    if isinstance(exc, ValueError) and str(exc).startswith("Invalid metadata"):
        said = " ".join(str(exc).split())[:300].rstrip(".")
        return BadOption(f"The Hub refuses the model card for {source}: {said}.")
    said = f"The Hub could not be reached for {source}; check the connection and try again."
    if isinstance(exc, TookTooLong):
        said = f"The Hub takes too long to hand out {source}; try again later."
    elif status == TOO_MANY or isinstance(exc, RateLimited):
        said = f"The Hub asks to slow down and did not hand out {source}; try again in some minutes."
    elif status is not None:
        said = f"The Hub answered {status} for {source}; try again later."
    elif isinstance(exc, OSError) and exc.strerror and not isinstance(exc, ConnectionError):
        said = f"{source} could not be stored in the Hub's cache: {exc.strerror}."
    return HubUnavailable(said)
