"""A checkpoint in a folder: write one, and load one strictly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pawmatch.checkpoint.config import CONFIG_FILE, LARGEST_CONFIG, CheckpointConfig, parse_config
from pawmatch.checkpoint.weights import (
    PICKLE_SUFFIXES,
    WEIGHTS_FILE,
    compare,
    describe,
    is_pickle,
    read_header,
    read_tensors,
    replace_file,
    write_tensors,
)
from pawmatch.errors import BadOption, CheckpointNotFound, NotACheckpoint, UnsupportedBackbone
from pawmatch.models import VARIANTS, ImageModel, build_model

CARD_FILE = "README.md"
PLOT_FILE = "calibration.png"  # the picture on the card
LARGEST_CARD = 200_000  # characters


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model with its config.

    `model` is in evaluation mode, float32, without gradients. `source` is what the user gave, `revision`
    the Hub commit, and `notice` one line to show when something else than the newest state serves.
    `card` is the model card's Markdown without its metadata block, empty where there is none.
    """

    config: CheckpointConfig
    model: ImageModel
    source: str
    revision: str | None = None
    notice: str | None = None
    card: str = ""


def save_checkpoint(
    folder: str | Path, model: nn.Module, config: CheckpointConfig, *, half: bool = True
) -> Path:
    """Write config.json and model.safetensors into `folder`, fractions as float16 if `half`.

    Each file appears complete or not at all. Raises as loading would if config and model disagree.
    """
    folder = Path(folder)
    check_fits(model, config, folder.name)
    data = json.dumps(config.to_dict(), indent=1, ensure_ascii=False, allow_nan=False).encode()
    parse_config(data)  # what cannot be read back must not be written
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder / WEIGHTS_FILE, model.state_dict(), half=half)
        # Last, for a folder is a checkpoint when it has a config.
        replace_file(folder / CONFIG_FILE, data + b"\n")
    except OSError as exc:
        raise BadOption(f"{folder} cannot be written ({exc.strerror}); choose another folder.") from exc
    return folder


def check_fits(model: nn.Module, config: CheckpointConfig, source: str) -> None:
    """Raise a named error unless `model` is what `config` describes."""
    compare(describe(model.state_dict()), empty_model(config, source), len(config.labels), source)


def load_folder(folder: Path, source: str, *, device: str | torch.device = "cpu") -> Checkpoint:
    """Load the checkpoint in `folder`; messages and the result name it `source`."""
    try:
        return load_checked(folder, source, device)
    except OSError as exc:
        reason = exc.strerror or type(exc).__name__
        raise NotACheckpoint(
            f"{source} cannot be read ({reason}); check the path and its permissions."
        ) from exc


def load_checked(folder: Path, source: str, device: str | torch.device) -> Checkpoint:
    """Load the checkpoint in `folder`, each step only after the one before found nothing wrong."""
    config = read_config(folder, source)
    path = checked_file(folder, WEIGHTS_FILE, source)
    stored = read_header(path, source)
    model = empty_model(config, source)
    compare(stored, model, len(config.labels), source)
    tensors = read_tensors(path, source)
    if derived_buffers(model):
        model = build(config, source)
        model.load_state_dict(tensors, strict=True)
    else:
        # The tensors become the parameters: no second copy, and no random values to fill first.
        model.load_state_dict(tensors, strict=True, assign=True)
    model = model.to(device).eval().requires_grad_(False)
    return Checkpoint(config=config, model=model, source=source, card=read_card(folder))


def read_config(folder: Path, source: str) -> CheckpointConfig:
    """The checked config of the checkpoint in `folder`."""
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
    return NotACheckpoint(
        f"{source} is a file; give the folder that holds config.json and model.safetensors."
    )


def listing(folder: Path) -> list[str]:
    """The files of a folder and its subfolders, and the configs one level further down."""
    patterns = ("*", "*/*", f"*/*/{CONFIG_FILE}")
    files = (path for pattern in patterns for path in folder.glob(pattern) if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in files)


def missing_file(names: Sequence[str], name: str, source: str) -> NotACheckpoint:
    """The error for a place that has the files `names` and not `name`, with the likeliest remedy."""
    if variants := [variant for variant in VARIANTS if f"{variant}/{CONFIG_FILE}" in names]:
        return NotACheckpoint(
            f"{source} holds one checkpoint per variant; name one of them, such as {variants[0]}."
        )
    if any("/" not in entry and entry.lower().endswith(PICKLE_SUFFIXES) for entry in names):
        return NotACheckpoint(
            f"{source} holds no {name} but a pickle, which is never loaded; "
            "convert it with `pawmatch import FILE`."
        )
    return NotACheckpoint(f"{source} holds no {name}; give a place that `pawmatch train` or `import` wrote.")


def empty_model(config: CheckpointConfig, source: str) -> ImageModel:
    """The model that `config` describes, on the meta device: shapes without memory.

    Also checks the scope gate and the input size against it.
    """
    with torch.device("meta"):
        model = build(config, source)
        size = config.input.size
        try:
            with torch.no_grad():
                feature_map = model.eval().forward_features(torch.empty(1, 3, size, size))
        except (RuntimeError, ValueError) as exc:
            raise NotACheckpoint(
                f"{source}: the model cannot read images of input.size {size} pixels."
            ) from exc
    for index, gate in enumerate(config.calibration.scope_gates):
        if len(gate.weight) != feature_map.shape[1]:
            raise NotACheckpoint(
                f"{source}: calibration.scope_gates[{index}].weight has {len(gate.weight)} values "
                f"and the feature map {feature_map.shape[1]} channels; fit the gate again."
            )
    return model


def build(config: CheckpointConfig, source: str) -> ImageModel:
    """The model that `config` describes; every failure to build it is the config's fault."""
    try:
        return build_model(
            family=config.family,
            variant=config.variant,
            num_classes=len(config.labels),
            **config.architecture,
        )
    except UnsupportedBackbone:
        raise
    except (BadOption, ArithmeticError, AssertionError, AttributeError) as exc:
        raise refused(source, exc) from exc
    except (LookupError, RuntimeError, TypeError, ValueError) as exc:
        raise refused(source, exc) from exc


def refused(source: str, exc: Exception) -> NotACheckpoint:
    """The error for an architecture that cannot be built."""
    reason = str(exc) if isinstance(exc, BadOption) else f"it cannot be built ({type(exc).__name__})."
    return NotACheckpoint(f"{source}: the architecture in config.json does not work: {reason}")


def derived_buffers(model: nn.Module) -> list[str]:
    """Names of the buffers that are computed when a model is built and so are in no weights file."""
    kept = model.state_dict().keys()
    return [name for name, _ in model.named_buffers() if name not in kept]
