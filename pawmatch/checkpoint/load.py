"""Checkpoints from a folder, the bundled weights or a `hf://` place, read strictly.

Each step is taken only after the one before found nothing wrong. A place holds one config.json with all
variants of a task, or a subfolder for each variant, possibly below one named after the task. A service must
start every time, so for weights that live on the Hub a cached copy, and after it the bundled weights, answer
where the Hub or its weights fail; the checkpoint's `notice` says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TypeVar

import torch
from torch import Tensor, nn

from pawmatch.checkpoint import hub
from pawmatch.checkpoint.budget import build, empty_model
from pawmatch.checkpoint.config import (
    CONFIG_FILE,
    MAX_CONFIG,
    TASK_NAME,
    CheckpointConfig,
    WeightsFile,
    main_variant,
    parse_config,
)
from pawmatch.checkpoint.weights import (
    PICKLE_SUFFIXES,
    WEIGHTS_FILE,
    compare,
    file_digest,
    find_bundled,
    is_pickle,
    read_header,
    read_tensors,
    united,
)
from pawmatch.errors import (
    AccessDenied,
    CheckpointError,
    CheckpointNotFound,
    DigestMismatch,
    HubError,
    HubUnavailable,
    ModelError,
    NotACheckpoint,
    PawMatchError,
    RepoNotFound,
    UnknownTask,
    UnknownVariant,
)
from pawmatch.images import InputSpec
from pawmatch.labels import BUNDLED, bundled_weights, known_tasks, local_folder
from pawmatch.models import VARIANTS, ImageModel

CARD_FILE = "README.md"
PLOTS = "calibration*.png"  # the pictures on the card
MAX_CARD = 200_000  # characters
CACHED_NOTICE = "The Hub could not be reached, so the copy downloaded earlier answers."

Device = str | torch.device
Result = TypeVar("Result")


@dataclass(frozen=True)
class Stored:
    """A variant as a folder describes it, before its weights are read.

    `source` is what messages call the folder, `part` its path below the place that was asked for.
    """

    folder: Path
    source: str
    config: CheckpointConfig
    part: str = ""

    @property
    def files(self) -> tuple[WeightsFile, ...]:
        """Its files; the config of a checkpoint of format 1 names none, and so no SHA-256."""
        return self.config.files or (WeightsFile(WEIGHTS_FILE, ""),)


@dataclass(frozen=True)
class Checkpoint:
    """One variant of a task: a loaded model with its config.

    `model` is in evaluation mode, float32, without gradients. `source` is what the user gave, `revision`
    the Hub commit, and `notice` one line to show when something else than the newest state serves.
    `card` is the model card's Markdown without its metadata block, empty where there is none. `paths` are
    where `config.files` were read from.
    """

    config: CheckpointConfig
    model: ImageModel
    source: str
    revision: str | None = None
    notice: str | None = None
    card: str = ""
    paths: tuple[Path, ...] = ()

    @cached_property
    def features_digest(self) -> str:
        """SHA-256 of the feature extractor's structure, tensor names and float32 values.

        Where it and the input are equal, so are the feature maps. Computed once, when loading.
        """
        features = self.model.features()
        digest = hashlib.sha256(repr(features).encode())
        for name, tensor in features.state_dict().items():
            digest.update(f"\0{name} {tuple(tensor.shape)}\0".encode())
            digest.update(tensor.detach().cpu().to(torch.float32).contiguous().numpy().tobytes())
        return digest.hexdigest()


def load_checkpoint(source: str | Path, variant: str | None = None) -> Checkpoint:
    """Load one checkpoint strictly, from a folder or from the Hub.

    It is the source's variant of that name, or else its only one or the one that answers. Raises
    UnknownVariant where the source lacks it, the leaves of CheckpointError and HubError,
    UnsupportedBackbone, and BadOption for a malformed `hf://` source. When the Hub cannot be reached, the
    copy downloaded last serves, with a notice.
    """
    text = str(source)

    def load_one(entries: list[Stored], commit: hub.Commit | None) -> Checkpoint:
        wanted = variant or main_variant([entry.config for entry in entries])
        chosen = [entry for entry in entries if entry.config.variant == wanted]
        if not chosen:
            has = ", ".join(entry.config.variant for entry in entries)
            raise UnknownVariant(f"{text} has no variant {wanted[:40]!r}; use one of {has}.")
        return _load_all(chosen, commit, "cpu")[0]

    found = _with_variants(text, None, load_one)
    is_whole = hub.is_hub_source(text) and found.source == str(hub.parse(text))
    return replace(found, source=text) if is_whole else found


def load_task(
    source: str | Path | None, task: str, device: Device = "cpu", *, strict: bool = False
) -> list[Checkpoint]:
    """Load all variants of `task` that `source` has, in table order; on the Hub, all from one commit.

    Variants with equal feature extractors share one module. Where the Hub or the weights there fail, the
    bundled weights serve and each checkpoint's notice says why, unless `strict`. A wrong local folder or a
    malformed source always raises.
    """
    if not isinstance(task, str) or not TASK_NAME.fullmatch(task):  # it could lead out of a folder
        raise UnknownTask(f"Task {str(task)[:64]!r} is unknown; use a name such as {known_tasks()[0]}.")
    bundled = bundled_weights() / task
    if source is None:
        if not bundled.is_dir():
            raise CheckpointNotFound(
                f"There are no bundled weights for {task}; name a folder or a hf:// source."
            )
        return load_stored(stored_in_folder(bundled, f"{BUNDLED}/{task}", task), device)
    text = str(source)
    try:
        return _with_variants(text, task, lambda entries, commit: _load_all(entries, commit, device))
    except (HubError, CheckpointError, ModelError) as exc:
        if strict or not hub.is_hub_source(text) or not bundled.is_dir():
            raise
        notice = _fallback_notice(exc, text)
    return [replace(checkpoint, notice=notice) for checkpoint in load_task(None, task, device)]


def read_configs(source: str, task: str) -> list[CheckpointConfig]:
    """The configs of the variants that `source` has for `task`, in table order; no weights are fetched."""

    def configs(entries: list[Stored], commit: hub.Commit | None) -> list[CheckpointConfig]:
        return [entry.config for entry in entries]

    return _with_variants(source, task, configs, complete=False)


def _with_variants(
    source: str,
    task: str | None,
    use: Callable[[list[Stored], hub.Commit | None], Result],
    *,
    complete: bool = True,
) -> Result:
    """Give `use` the variants that a folder describes, or a place on the Hub with the commit they are of."""
    if not hub.is_hub_source(source):
        return use(stored_in_folder(local_folder(source), source, task), None)
    place = hub.parse(source)
    return hub.with_commit(
        place, lambda commit: use(_stored_on_hub(commit, place, task), commit), complete=complete
    )


def load_stored(entries: Sequence[Stored], device: Device = "cpu") -> list[Checkpoint]:
    """Load variants whose files are in their folders, or bundled.

    Those with equal feature extractors share one module. Each has answered for a picture before it counts as
    loaded. Raises the leaves of CheckpointError.
    """
    tensors: dict[str, dict[str, Tensor]] = {}  # of the files read so far, by SHA-256
    shared: dict[str, nn.Module] = {}
    maps: dict[tuple[str, InputSpec], Tensor] = {}
    checkpoints: list[Checkpoint] = []
    for entry in entries:
        try:
            checkpoint = _load(entry, tensors)
        except OSError as exc:
            reason = exc.strerror or type(exc).__name__
            raise NotACheckpoint(
                f"{entry.source} cannot be read ({reason}); check the path and its permissions."
            ) from exc
        model, key = checkpoint.model, (checkpoint.features_digest, checkpoint.config.input)
        setattr(model, model.features_module, shared.setdefault(key[0], model.features()))
        if key not in maps:
            maps[key] = model.forward_features(_grain(checkpoint.config.input))
        check_finite(model.forward_head(maps[key]), checkpoint)
        model.to(device)
        checkpoints.append(checkpoint)
    return checkpoints


def _grain(spec: InputSpec) -> Tensor:
    """A picture of pixels of any color, always the same, as a model takes it: (1, 3, size, size)."""
    generator = torch.Generator().manual_seed(0)
    return spec.normalise(torch.randint(256, (1, spec.size, spec.size, 3), generator=generator))


def check_finite(values: Tensor, checkpoint: Checkpoint) -> None:
    """Raise NotACheckpoint where what a model computed holds NaN or infinity: it is no answer.

    Weights may be finite and overflow all the same.
    """
    if not torch.isfinite(values).all():
        raise NotACheckpoint(
            f"The variant {checkpoint.config.variant} of {checkpoint.source} computes NaN or infinity; "
            "train it again, or give other weights."
        )


def _load(entry: Stored, read_before: dict[str, dict[str, Tensor]]) -> Checkpoint:
    config, source = entry.config, entry.source
    paths = {file.name: _find_file(entry, file) for file in entry.files}
    headers = {name: read_header(path, source) for name, path in paths.items()}
    model = empty_model(config, source)
    compare(united(headers, source), model.state_dict(), len(config.labels), source)
    files: list[WeightsFile] = []
    for file in entry.files:
        digest = file_digest(paths[file.name])
        if file.sha256 not in ("", digest):
            raise DigestMismatch(
                f"{file.name} of {source} is not the file that its config names; download or copy it again."
            )
        files.append(WeightsFile(file.name, digest))
        if digest not in read_before:
            read_before[digest] = read_tensors(paths[file.name], source)
    tensors = {name: tensor for file in files for name, tensor in read_before[file.sha256].items()}
    # Buffers that are computed when a model is built are in no file.
    if any(name not in tensors for name, _ in model.named_buffers()):
        model = build(config, source)
        model.load_state_dict(tensors, strict=True)
    else:
        # The tensors become the parameters: no second copy, and no random values to fill first.
        model.load_state_dict(tensors, strict=True, assign=True)
    return Checkpoint(
        config=replace(config, files=tuple(files)),
        model=model.eval().requires_grad_(False),
        source=source,
        card=_read_card(entry.folder),
        paths=tuple(paths.values()),
    )


def _find_file(entry: Stored, file: WeightsFile) -> Path:
    """Where a file of a variant lies: in its folder, or by its SHA-256 among the bundled ones."""
    if not (entry.folder / file.name).is_file() and (bundled := find_bundled(file.sha256)):
        return bundled
    return checked_file(entry.folder, file.name, entry.source)


def _read_card(folder: Path) -> str:
    """The text of the model card in `folder`; a card is for reading, so a bad one is no reason to fail."""
    path = folder / CARD_FILE
    if not path.is_file() or not _stays_inside(path, folder):
        return ""
    with path.open(encoding="utf-8", errors="replace") as file:
        text = file.read(MAX_CARD)
    if text.startswith("---\n"):
        text = text.partition("\n---\n")[2]
    return text.strip()


def checked_file(folder: Path, name: str, source: str) -> Path:
    """The file `name` of a checkpoint folder, or the reason why it cannot be used."""
    if not folder.exists():
        raise CheckpointNotFound(f"There is no checkpoint at {source}; check the spelling.")
    if not folder.is_dir():
        if folder.is_file() and (is_pickle(folder) or folder.suffix.lower() in PICKLE_SUFFIXES):
            raise NotACheckpoint(
                f"{source} is a pickle, which is never loaded; convert it with `pawmatch import FILE`."
            )
        raise NotACheckpoint(f"{source} is a file; give the folder that holds config.json and the weights.")
    path = folder / name
    if not path.is_file():
        raise _missing_file(_listing(folder), name, source)
    if not _stays_inside(path, folder):
        raise NotACheckpoint(
            f"{name} of {source} is a link that leads out of its folder; copy the file there."
        )
    return path


def _stays_inside(path: Path, folder: Path) -> bool:
    """Whether a file of a checkpoint lies in its folder, or where the Hub's cache keeps its files."""
    target, home = path.resolve(), folder.resolve()
    if target.is_relative_to(home):
        return True
    for snapshots in home.parents:
        # The cache holds models--user--repo/snapshots/COMMIT/FILE, a link into models--user--repo/blobs,
        # and newer versions share the blobs of all repositories one folder further up.
        repository = snapshots.parent
        if snapshots.name == "snapshots" and repository.name.startswith(("models--", "spaces--")):
            blobs = (repository / "blobs", repository.parent / "blobs")
            return any(target.is_relative_to(place) for place in blobs)
    return False


def _listing(folder: Path) -> list[str]:
    """The files of a folder and its subfolders, and the configs one level further down."""
    patterns = ("*", "*/*", f"*/*/{CONFIG_FILE}")
    files = (path for pattern in patterns for path in folder.glob(pattern) if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in files)


def _parts_among(names: Sequence[str], source: str, task: str | None) -> list[str]:
    """The subfolders that hold a variant each, from the names of a place's files: its own, or the task's.

    [""] where the place has a config of its own.
    """
    if CONFIG_FILE in names:
        return [""]
    for start in ("", f"{task}/") if task else ("",):
        parts = [f"{start}{variant}" for variant in VARIANTS if f"{start}{variant}/{CONFIG_FILE}" in names]
        if parts:
            return parts
    raise _missing_file(names, CONFIG_FILE, source)


def _missing_file(names: Sequence[str], name: str, source: str) -> NotACheckpoint:
    """The error for a place that has the files `names` and not `name`, with the likeliest remedy."""
    if any("/" not in entry and entry.lower().endswith(PICKLE_SUFFIXES) for entry in names):
        return NotACheckpoint(
            f"{source} holds no {name} but a pickle, which is never loaded; "
            "convert it with `pawmatch import FILE`."
        )
    return NotACheckpoint(f"{source} holds no {name}; give a place that `pawmatch train` or `import` wrote.")


def stored_in_folder(folder: Path, source: str, task: str | None) -> list[Stored]:
    """The variants that a local folder describes, in table order; of any task if that is None."""
    try:
        names = _listing(folder) if folder.is_dir() else []
        parts = _parts_among(names, source, task) if names else [""]
        named = {part: f"{source.rstrip('/')}/{part}" if part else source for part in parts}
        return _together([entry for p in parts for entry in stored_in_part(folder / p, named[p], p)], task)
    except OSError as exc:
        raise NotACheckpoint(f"{source} cannot be read ({exc.strerror}); check its permissions.") from exc


def stored_in_part(folder: Path, source: str, part: str) -> list[Stored]:
    """The variants of one config.json; of a subfolder named after a variant, that one alone."""
    with checked_file(folder, CONFIG_FILE, source).open("rb") as file:
        data = file.read(MAX_CONFIG + 1)
    try:
        entries = [Stored(folder, source, config, part) for config in parse_config(data)]
    except NotACheckpoint as exc:
        raise type(exc)(f"{source}: {exc}") from exc
    if not part:
        return entries
    name = PurePosixPath(part).name
    if own := [entry for entry in entries if entry.config.variant == name]:
        return own
    raise NotACheckpoint(f"{source} holds the variant {entries[0].config.variant}; rename its folder.")


def _together(entries: list[Stored], task: str | None) -> list[Stored]:
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


def _load_all(entries: list[Stored], commit: hub.Commit | None, device: Device) -> list[Checkpoint]:
    """Load variants, after their files have come, where they are of a commit on the Hub."""
    if commit is None:
        return load_stored(entries, device)
    for entry in entries:
        below = commit.source.below(entry.part)
        names = commit.names(below)
        for file in entry.files:
            if file.name not in names and find_bundled(file.sha256):
                continue
            # What a cached commit lacks says nothing about the repository; download words that.
            if file.name not in names and not commit.cached:
                raise _missing_file(names, file.name, entry.source)
            hub.download(commit, below, [file.name])
        if CARD_FILE in names:
            hub.download(commit, below, [CARD_FILE])
    notice = CACHED_NOTICE if commit.cached else None
    return [replace(found, revision=commit.sha, notice=notice) for found in load_stored(entries, device)]


def _stored_on_hub(commit: hub.Commit, place: hub.HubSource, task: str | None) -> list[Stored]:
    """The variants that a commit describes, in table order; downloads the configs."""
    try:
        parts = _parts_among(commit.names(place), str(place), task)
    except NotACheckpoint:
        if not commit.cached:
            raise
        parts = [""]
    entries: list[Stored] = []
    for part in parts:
        below = place.below(part)
        entries += stored_in_part(hub.download(commit, below, [CONFIG_FILE]), str(below), part)
    return _together(entries, task)


def _fallback_notice(exc: PawMatchError, source: str) -> str:
    """One line that says why the bundled starter answers."""
    reasons: dict[type[PawMatchError], str] = {
        HubUnavailable: "The Hub could not be reached",
        RepoNotFound: f"{source} was not found on the Hub",
        AccessDenied: f"The Hub does not give access to {source}",
    }
    reason = reasons.get(type(exc), f"The weights of {source} cannot be used ({exc.code})")
    return f"{reason}, so the bundled starter model answers."
