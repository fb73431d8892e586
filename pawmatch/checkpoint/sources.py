"""Where checkpoints come from: the bundled weights, a folder, or a `hf://` place on the Hub.

A place holds one config.json with all variants of a task, or a subfolder for each variant, possibly below
one named after the task. A service must start every time, so for weights that live on the Hub a cached
copy, and after it the bundled weights, answer where the Hub or its weights fail; the checkpoint's `notice`
says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import torch

from pawmatch import hub
from pawmatch.checkpoint.bundled import BUNDLED, bundled_weights, find_bundled
from pawmatch.checkpoint.config import CONFIG_FILE, TASK_NAME, main_variant
from pawmatch.checkpoint.folder import (
    CARD_FILE,
    PLOTS,
    Checkpoint,
    Stored,
    listing,
    load_stored,
    missing_file,
    parts_among,
    read_configs,
)
from pawmatch.errors import (
    AccessDenied,
    BadOption,
    CheckpointError,
    CheckpointNotFound,
    HubError,
    HubUnavailable,
    ModelError,
    NotACheckpoint,
    PawMatchError,
    RepoNotFound,
    UnknownTask,
    UnknownVariant,
)

CACHED_NOTICE = "The Hub could not be reached, so the copy downloaded earlier answers."

Device = str | torch.device
Choose = Callable[[list[Stored]], list[Stored]]


def load_checkpoint(source: str | Path, variant: str | None = None, *, device: Device = "cpu") -> Checkpoint:
    """Load one checkpoint strictly, from a folder or from the Hub.

    It is the source's variant of that name, or else its only one or the one that answers. Raises
    UnknownVariant where the source lacks it, the leaves of CheckpointError and HubError,
    UnsupportedBackbone, and BadOption for a malformed `hf://` source. When the Hub cannot be reached, the
    copy downloaded last serves, with a notice.
    """
    text = str(source)

    def choose(entries: list[Stored]) -> list[Stored]:
        wanted = variant or main_variant([entry.config for entry in entries])
        chosen = [entry for entry in entries if entry.config.variant == wanted]
        if not chosen:
            has = ", ".join(entry.config.variant for entry in entries)
            raise UnknownVariant(f"{text} has no variant {wanted[:40]!r}; use one of {has}.")
        return chosen

    if hub.is_hub_source(text):
        place = hub.parse(text)
        (found,) = hub.with_commit(place, lambda commit: load_from_hub(commit, place, None, choose, device))
        return found if found.source != str(place) else replace(found, source=text)
    (found,) = load_stored(choose(stored_in_folder(local_folder(text), text, None)), device)
    return found


def load_task(
    source: str | Path | None, task: str, device: Device = "cpu", *, strict: bool = False
) -> list[Checkpoint]:
    """Load all variants of `task` that `source` has, in table order; on the Hub, all from one commit.

    Variants with equal feature extractors share one module. Where the Hub or the weights there fail, the
    bundled weights serve and each checkpoint's notice says why, unless `strict`. A wrong local folder or a
    malformed source always raises.
    """
    check_task(task)
    text = None if source is None else str(source)
    if text is None or not hub.is_hub_source(text):
        folder, name = task_folder(text, task)
        return load_stored(stored_in_folder(folder, name, task), device)
    place = hub.parse(text)
    try:
        return hub.with_commit(place, lambda commit: load_from_hub(commit, place, task, list, device))
    except (HubError, CheckpointError, ModelError) as exc:
        if strict or not (bundled_weights() / task).is_dir():
            raise
        notice = fallback_notice(exc, text)
    return [replace(checkpoint, notice=notice) for checkpoint in load_task(None, task, device)]


def check_task(task: str) -> None:
    """Raise UnknownTask for a name that could lead out of a folder."""
    if not isinstance(task, str) or not TASK_NAME.fullmatch(task):
        raise UnknownTask(f"Task {str(task)[:64]!r} is unknown; use a name such as breed or artist.")


def task_folder(source: str | None, task: str) -> tuple[Path, str]:
    """The local folder of a source and its name; None is the task's bundled weights."""
    if source is not None:
        return local_folder(source), source
    folder = bundled_weights() / task
    if not folder.is_dir():
        raise CheckpointNotFound(f"There are no bundled weights for {task}; name a folder or a hf:// source.")
    return folder, f"{BUNDLED}/{task}"


def local_folder(source: str) -> Path:
    """The folder that a source names: as a path, or within the bundled weights from any directory."""
    path = Path(source).expanduser()
    if path.parts[:1] == (BUNDLED,) and not os.path.exists(path):  # noqa: PTH110 - never raises
        return bundled_weights().joinpath(*path.parts[1:])
    return path


def join(source: str, part: str) -> str:
    """The source of a variant: the given one, and the subfolder where there is one."""
    return f"{source.rstrip('/')}/{part}" if part else source


def stored_in_folder(folder: Path, source: str, task: str | None) -> list[Stored]:
    """The variants that a local folder describes, in table order; of any task if that is None."""
    try:
        names = listing(folder) if folder.is_dir() else []
        parts = parts_among(names, source, task) if names else [""]
        return together(
            [entry for part in parts for entry in stored_in_part(folder / part, join(source, part), part)],
            task,
        )
    except OSError as exc:
        raise NotACheckpoint(f"{source} cannot be read ({exc.strerror}); check its permissions.") from exc


def stored_in_part(folder: Path, source: str, part: str) -> list[Stored]:
    """The variants of one config.json; of a subfolder named after a variant, that one alone."""
    entries = [Stored(folder, source, config, part) for config in read_configs(folder, source)]
    if not part:
        return entries
    name = PurePosixPath(part).name
    if own := [entry for entry in entries if entry.config.variant == name]:
        return own
    raise NotACheckpoint(f"{source} holds the variant {entries[0].config.variant}; rename its folder.")


def together(entries: list[Stored], task: str | None) -> list[Stored]:
    """The variants of one source; raises NotACheckpoint unless they are for the task and belong together."""
    first = entries[0]
    for entry in entries:
        if entry.config.task.name != (task or first.config.task.name):
            raise NotACheckpoint(
                f"{entry.source} is for the task {entry.config.task.name}, "
                f"not {task or first.config.task.name}; give another source."
            )
        if entry.config.labels != first.config.labels:
            raise NotACheckpoint(
                f"The labels of {entry.source} differ from those of {first.source}; "
                "train the variants on the same classes."
            )
    return entries


def load_from_hub(
    commit: hub.Commit, place: hub.HubSource, task: str | None, choose: Choose, device: Device
) -> list[Checkpoint]:
    """Load variants from one commit; configs are checked before any weights are downloaded."""
    entries = choose(stored_on_hub(commit, place, task))
    for entry in entries:
        below = place.below(entry.part)
        names = commit.names(below)
        for name in entry.file_names:
            digests = {file.name: file.sha256 for file in entry.config.files}
            if name not in names and name in digests and find_bundled(digests[name]):
                continue
            # What a cached commit lacks says nothing about the repository; download words that.
            if name not in names and not commit.cached:
                raise missing_file(names, name, entry.source)
            hub.download(commit, below, [name])
        if CARD_FILE in names:
            hub.download(commit, below, [CARD_FILE])
    notice = CACHED_NOTICE if commit.cached else None
    return [replace(found, revision=commit.sha, notice=notice) for found in load_stored(entries, device)]


def stored_on_hub(commit: hub.Commit, place: hub.HubSource, task: str | None) -> list[Stored]:
    """The variants that a commit describes, in table order; downloads the configs."""
    try:
        parts = parts_among(commit.names(place), str(place), task)
    except NotACheckpoint:
        if not commit.cached:
            raise
        parts = [""]
    entries: list[Stored] = []
    for part in parts:
        below = place.below(part)
        entries += stored_in_part(hub.download(commit, below, [CONFIG_FILE]), str(below), part)
    return together(entries, task)


def fallback_notice(exc: PawMatchError, source: str) -> str:
    """One line that says why the bundled starter answers."""
    reasons: dict[type[PawMatchError], str] = {
        HubUnavailable: "The Hub could not be reached",
        RepoNotFound: f"{source} was not found on the Hub",
        AccessDenied: f"The Hub does not give access to {source}",
    }
    reason = reasons.get(type(exc), f"The weights of {source} cannot be used ({exc.code})")
    return f"{reason}, so the bundled starter model answers."


def push(
    folder: str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
) -> str:
    """Upload a checkpoint folder to the Hub and give its web address.

    `repo` is `user/repo`, or a `hf://` place to choose a subfolder. Everything is loaded first, and a
    README.md, the model card, must be there: nothing is published that nobody could use.
    """
    folder = Path(folder)
    place = hub.parse(repo if hub.is_hub_source(repo) else f"{hub.PREFIX}{repo}")
    if place.kind != "model":
        raise BadOption(f"{repo} is a Space; checkpoints go to a model repository such as hf://user/repo.")
    if revision is not None:
        place = hub.parse(str(replace(place, revision=revision)))
    entries = stored_in_folder(folder, str(folder), None)
    load_stored(entries)
    if not (folder / CARD_FILE).is_file():
        raise NotACheckpoint(
            f"{folder} has no {CARD_FILE}; write the model card with data, licence and metrics."
        )
    names = {CARD_FILE, "LICENSE"}
    for entry in entries:
        plots = (plot.name for plot in entry.folder.glob(PLOTS))
        for name in (CONFIG_FILE, CARD_FILE, *entry.file_names, *plots):
            names.add(str(PurePosixPath(entry.part, name)))
    variants = ", ".join(entry.config.variant for entry in entries)
    summary = message or f"Add {entries[0].config.task.name} weights: {variants}"
    return hub.upload(folder, place, sorted(names), private=private, message=summary)
