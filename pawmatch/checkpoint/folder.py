"""Checkpoints in a folder, read strictly: each step only after the one before found nothing wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from pawmatch.checkpoint.build import build, derived_buffers, empty_model
from pawmatch.checkpoint.bundled import find_bundled
from pawmatch.checkpoint.config import CONFIG_FILE, CheckpointConfig, WeightsFile
from pawmatch.checkpoint.format import LARGEST_CONFIG, parse_config
from pawmatch.checkpoint.weights import (
    PICKLE_SUFFIXES,
    WEIGHTS_FILE,
    compare,
    file_digest,
    is_pickle,
    read_header,
    read_tensors,
    united,
)
from pawmatch.errors import CheckpointNotFound, DigestMismatch, NotACheckpoint
from pawmatch.models import VARIANTS, ImageModel

CARD_FILE = "README.md"
PLOTS = "calibration*.png"  # the pictures on the card
LARGEST_CARD = 200_000  # characters


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
    def file_names(self) -> tuple[str, ...]:
        """The names of its files; the config of a checkpoint of format 1 names none."""
        return tuple(file.name for file in self.config.files) or (WEIGHTS_FILE,)


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


def load_stored(entries: Sequence[Stored], device: str | torch.device = "cpu") -> list[Checkpoint]:
    """Load variants whose files are in their folders, or bundled.

    Those with equal feature extractors share one module. Raises the leaves of CheckpointError.
    """
    tensors: dict[str, dict[str, Tensor]] = {}  # of the files read so far, by SHA-256
    shared: dict[str, nn.Module] = {}
    checkpoints: list[Checkpoint] = []
    for entry in entries:
        try:
            checkpoint = _load(entry, tensors, device)
        except OSError as exc:
            reason = exc.strerror or type(exc).__name__
            raise NotACheckpoint(
                f"{entry.source} cannot be read ({reason}); check the path and its permissions."
            ) from exc
        model = checkpoint.model
        own = shared.setdefault(checkpoint.features_digest, model.features())
        setattr(model, model.features_module, own)
        checkpoints.append(checkpoint)
    return checkpoints


def _load(entry: Stored, read_before: dict[str, dict[str, Tensor]], device: str | torch.device) -> Checkpoint:
    config, source = entry.config, entry.source
    named = config.files or tuple(WeightsFile(name, "") for name in entry.file_names)
    paths = {file.name: find_file(entry, file) for file in named}
    headers = {name: read_header(path, source) for name, path in paths.items()}
    model = empty_model(config, source)
    compare(united(headers, source), model, len(config.labels), source)
    files: list[WeightsFile] = []
    for file in named:
        digest = file_digest(paths[file.name])
        if file.sha256 not in ("", digest):
            raise DigestMismatch(
                f"{file.name} of {source} is not the file that its config names; download or copy it again."
            )
        files.append(WeightsFile(file.name, digest))
        if digest not in read_before:
            read_before[digest] = read_tensors(paths[file.name], source)
    tensors = {name: tensor for file in files for name, tensor in read_before[file.sha256].items()}
    if derived_buffers(model):
        model = build(config, source)
        model.load_state_dict(tensors, strict=True)
    else:
        # The tensors become the parameters: no second copy, and no random values to fill first.
        model.load_state_dict(tensors, strict=True, assign=True)
    return Checkpoint(
        config=replace(config, files=tuple(files)),
        model=model.to(device).eval().requires_grad_(False),
        source=source,
        card=read_card(entry.folder),
        paths=tuple(paths.values()),
    )


def find_file(entry: Stored, file: WeightsFile) -> Path:
    """Where a file of a variant lies: in its folder, or by its SHA-256 among the bundled ones."""
    if not (entry.folder / file.name).is_file() and (bundled := find_bundled(file.sha256)):
        return bundled
    return checked_file(entry.folder, file.name, entry.source)


def read_configs(folder: Path, source: str) -> tuple[CheckpointConfig, ...]:
    """The checked configs of the variants in `folder`, in table order."""
    path = checked_file(folder, CONFIG_FILE, source)
    with path.open("rb") as file:
        data = file.read(LARGEST_CONFIG + 1)
    try:
        return parse_config(data)
    except NotACheckpoint as exc:
        raise type(exc)(f"{source}: {exc}") from exc


def read_card(folder: Path) -> str:
    """The text of the model card in `folder`; a card is for reading, so a bad one is no reason to fail."""
    path = folder / CARD_FILE
    if not path.is_file() or not stays_inside(path, folder):
        return ""
    with path.open(encoding="utf-8", errors="replace") as file:
        text = file.read(LARGEST_CARD)
    if text.startswith("---\n"):
        text = text.partition("\n---\n")[2]
    return text.strip()


def checked_file(folder: Path, name: str, source: str) -> Path:
    """The file `name` of a checkpoint folder, or the reason why it cannot be used."""
    if not folder.exists():
        raise CheckpointNotFound(f"There is no checkpoint at {source}; check the spelling.")
    if not folder.is_dir():
        raise not_a_folder(folder, source)
    path = folder / name
    if not path.is_file():
        raise missing_file(listing(folder), name, source)
    if not stays_inside(path, folder):
        raise NotACheckpoint(
            f"{name} of {source} is a link that leads out of its folder; copy the file there."
        )
    return path


def stays_inside(path: Path, folder: Path) -> bool:
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


def not_a_folder(path: Path, source: str) -> NotACheckpoint:
    """The error for a file given in place of a checkpoint folder."""
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(9)
        if is_pickle(start) or path.suffix.lower() in PICKLE_SUFFIXES:
            return NotACheckpoint(
                f"{source} is a pickle, which is never loaded; convert it with `pawmatch import FILE`."
            )
    return NotACheckpoint(f"{source} is a file; give the folder that holds config.json and the weights.")


def listing(folder: Path) -> list[str]:
    """The files of a folder and its subfolders, and the configs one level further down."""
    patterns = ("*", "*/*", f"*/*/{CONFIG_FILE}")
    files = (path for pattern in patterns for path in folder.glob(pattern) if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in files)


def parts_among(names: Sequence[str], source: str, task: str | None) -> list[str]:
    """The subfolders that hold a variant each, from the names of a place's files: its own, or the task's.

    [""] where the place has a config of its own.
    """
    if CONFIG_FILE in names:
        return [""]
    for start in ("", f"{task}/") if task else ("",):
        parts = [f"{start}{variant}" for variant in VARIANTS if f"{start}{variant}/{CONFIG_FILE}" in names]
        if parts:
            return parts
    raise missing_file(names, CONFIG_FILE, source)


def missing_file(names: Sequence[str], name: str, source: str) -> NotACheckpoint:
    """The error for a place that has the files `names` and not `name`, with the likeliest remedy."""
    if any("/" not in entry and entry.lower().endswith(PICKLE_SUFFIXES) for entry in names):
        return NotACheckpoint(
            f"{source} holds no {name} but a pickle, which is never loaded; "
            "convert it with `pawmatch import FILE`."
        )
    return NotACheckpoint(f"{source} holds no {name}; give a place that `pawmatch train` or `import` wrote.")
