"""Where checkpoints come from: the bundled starter weights, a folder, or a `hf://` place on the Hub.

A service must start every time, so for weights that live on the Hub a cached copy, and after it the
bundled starter, answers where the Hub or its weights fail; the checkpoint's `notice` says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import torch

from pawmatch import hub
from pawmatch.checkpoint.config import CONFIG_FILE, TASK_NAME
from pawmatch.checkpoint.folder import (
    CARD_FILE,
    PLOT_FILE,
    Checkpoint,
    listing,
    load_folder,
    missing_file,
    read_config,
)
from pawmatch.checkpoint.weights import WEIGHTS_FILE
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
)
from pawmatch.models import VARIANTS

BUNDLED = "weights"
CACHED_NOTICE = "The Hub could not be reached, so the copy downloaded earlier answers."

Device = str | torch.device


def bundled_weights() -> Path:
    """The folder of the starter weights: PAWMATCH_WEIGHTS if set, else the project's own."""
    given = os.environ.get("PAWMATCH_WEIGHTS")
    return Path(given) if given else Path(__file__).parents[2] / BUNDLED


def load_checkpoint(source: str | Path, *, device: Device = "cpu") -> Checkpoint:
    """Load one checkpoint strictly, from a folder or from the Hub.

    Raises the leaves of CheckpointError and HubError, UnsupportedBackbone, and BadOption for a malformed
    `hf://` source. When the Hub cannot be reached, the copy downloaded last serves, with a notice.
    """
    text = str(source)
    if hub.is_hub_source(text):
        place = hub.parse(text)
        return hub.with_commit(place, lambda commit: load_from_hub(commit, place, text, device))
    return load_folder(local_folder(text), text, device=device)


def find_variants(source: str | Path | None, task: str) -> dict[str, str]:
    """Which variants of `task` the source has, in table order: variant -> source of its checkpoint.

    `source` holds one checkpoint, or one per variant in subfolders named after them, possibly below one
    named after the task; None means the bundled weights.
    """
    check_task(task)
    text = None if source is None else str(source)
    if text is not None and hub.is_hub_source(text):
        place = hub.parse(text)
        parts = parts_on_hub(hub.newest_commit(place), place, text, task)
        return {variant: str(place.below(part)) for variant, part in parts.items()}
    folder, text = task_folder(text, task)
    return {variant: join(text, part) for variant, part in parts_in_folder(folder, text, task).items()}


def load_task(
    source: str | Path | None, task: str, device: Device = "cpu", *, strict: bool = False
) -> list[Checkpoint]:
    """Load all variants of `task` that `source` has, in table order; on the Hub, all from one commit.

    Where the Hub or the weights there fail, the bundled starter serves and each checkpoint's notice says
    why, unless `strict`. A wrong local folder or a malformed source always raises.
    """
    check_task(task)
    text = None if source is None else str(source)
    if text is None or not hub.is_hub_source(text):
        folder, name = task_folder(text, task)

        def load(part: str) -> Checkpoint:
            return load_folder(folder / part, join(name, part), device=device)

        return load_parts(parts_in_folder(folder, name, task), load, task)
    place = hub.parse(text)
    try:
        return hub.with_commit(place, lambda commit: load_task_from_hub(commit, place, task, device))
    except (HubError, CheckpointError, ModelError) as exc:
        if strict or not (bundled_weights() / task).is_dir():
            raise
        notice = fallback_notice(exc, text)
    return [replace(checkpoint, notice=notice) for checkpoint in load_task(None, task, device)]


def check_task(task: str) -> None:
    """Raise UnknownTask for a name that could lead out of a folder."""
    if not TASK_NAME.fullmatch(task):
        raise UnknownTask(f"Task {task[:64]!r} is unknown; use a name such as breed or artist.")


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


def parts_in_folder(folder: Path, source: str, task: str) -> dict[str, str]:
    """Variant -> subfolder, for a local folder."""
    try:
        names = listing(folder) if folder.is_dir() else []
        if CONFIG_FILE in names or not names:
            return {read_config(folder, source).variant: ""}
    except OSError as exc:
        raise NotACheckpoint(f"{source} cannot be read ({exc.strerror}); check its permissions.") from exc
    return parts_among(names, source, task)


def parts_on_hub(commit: hub.Commit, place: hub.HubSource, source: str, task: str) -> dict[str, str]:
    """Variant -> subfolder, for a commit on the Hub."""
    names = commit.names(place)
    if CONFIG_FILE in names:
        return {read_config(hub.download(commit, place, [CONFIG_FILE]), source).variant: ""}
    return parts_among(names, source, task)


def parts_among(names: Sequence[str], source: str, task: str) -> dict[str, str]:
    """Variant -> subfolder, from the names of a place's files."""
    for start in ("", f"{task}/"):
        parts = {
            variant: f"{start}{variant}" for variant in VARIANTS if f"{start}{variant}/{CONFIG_FILE}" in names
        }
        if parts:
            return parts
    raise missing_file(names, CONFIG_FILE, source)


def load_from_hub(commit: hub.Commit, place: hub.HubSource, source: str, device: Device) -> Checkpoint:
    """Load the checkpoint at `place` from one commit; the config is checked before weights are downloaded."""
    names = commit.names(place)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        # What a cached commit lacks says nothing about the repository; download words that.
        if name not in names and not commit.cached:
            raise missing_file(names, name, source)
        folder = hub.download(commit, place, [name])
        read_config(folder, source)  # at once: a config that is wrong saves the download of the weights
    if CARD_FILE in names:
        hub.download(commit, place, [CARD_FILE])
    checkpoint = load_folder(folder, source, device=device)
    return replace(checkpoint, revision=commit.sha, notice=CACHED_NOTICE if commit.cached else None)


def load_task_from_hub(
    commit: hub.Commit, place: hub.HubSource, task: str, device: Device
) -> list[Checkpoint]:
    """Load all variants of a task from one commit."""

    def load(part: str) -> Checkpoint:
        below = place.below(part)
        return load_from_hub(commit, below, str(below), device)

    return load_parts(parts_on_hub(commit, place, str(place), task), load, task)


def load_parts(parts: dict[str, str], load: Callable[[str], Checkpoint], task: str) -> list[Checkpoint]:
    """Load each variant's checkpoint, and raise NotACheckpoint unless they belong together."""
    checkpoints: list[Checkpoint] = []
    for variant, part in parts.items():
        checkpoint = load(part)
        config = checkpoint.config
        if config.task != task:
            raise NotACheckpoint(
                f"{checkpoint.source} is for the task {config.task}, not {task}; give another source."
            )
        if config.variant != variant:
            raise NotACheckpoint(
                f"{checkpoint.source} holds the variant {config.variant}; rename its folder."
            )
        if config.labels != (checkpoints or [checkpoint])[0].config.labels:
            raise NotACheckpoint(
                f"The labels of {checkpoint.source} differ from those of {checkpoints[0].source}; "
                "train the variants on the same classes."
            )
        checkpoints.append(checkpoint)
    return checkpoints


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
    """Upload a checkpoint, or a folder with one per variant, to the Hub and give its web address.

    `repo` is `user/repo`, or a `hf://` place to choose a subfolder. Everything is loaded first, and a
    README.md, the model card, must be there: nothing is published that nobody could use.
    """
    folder = Path(folder)
    place = hub.parse(repo if hub.is_hub_source(repo) else f"{hub.PREFIX}{repo}")
    if place.kind != "model":
        raise BadOption(f"{repo} is a Space; checkpoints go to a model repository such as hf://user/repo.")
    if revision is not None:
        place = hub.parse(str(replace(place, revision=revision)))
    parts = [variant for variant in VARIANTS if (folder / variant / CONFIG_FILE).is_file()]
    if not parts or (folder / CONFIG_FILE).is_file():
        parts = [""]
    configs = [read_config(folder / part, join(str(folder), part)) for part in parts]
    load_parts(
        {config.variant: part for config, part in zip(configs, parts, strict=True)},
        lambda part: load_folder(folder / part, join(str(folder), part)),
        configs[0].task,
    )
    if not (folder / CARD_FILE).is_file():
        raise NotACheckpoint(
            f"{folder} has no {CARD_FILE}; write the model card with data, licence and metrics."
        )
    files = (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, PLOT_FILE)
    names = {CARD_FILE, "LICENSE", *(str(PurePosixPath(part, name)) for part in parts for name in files)}
    summary = message or f"Add {configs[0].task} weights: {', '.join(config.variant for config in configs)}"
    return hub.upload(folder, place, sorted(names), private=private, message=summary)
