"""Turn a .pth file of the original system into a checkpoint. The only place that reads pickles.

It reads them with torch's restricted unpickler, which builds tensors and plain containers and refuses
everything else, and only when a person asks for it: serving and loading never come here.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pawmatch.calibration import Calibration
from pawmatch.checkpoint import Checkpoint, CheckpointConfig, hub, load_checkpoint, save_checkpoint
from pawmatch.checkpoint.budget import empty_model
from pawmatch.checkpoint.weights import check_sane, compare, describe, file_digest
from pawmatch.errors import BadOption, CheckpointNotFound, KeyMismatch, NotACheckpoint
from pawmatch.images import InputSpec
from pawmatch.labels import known_tasks, new_task, read_labels

ORIGINAL_TASK = known_tasks()[0]
ORIGINAL = "hf://spaces/DawnC/PawMatchAI/ConvNextV2Base_best_model.pth"
STATE_KEYS = ("base_model", "model_state_dict")
WRAPPERS = ("module.", "_orig_mod.")  # left in the names by DataParallel and torch.compile
# What torch.load raises for files that are cut short, altered, or something else altogether.
DAMAGE = (
    *(OSError, EOFError, RuntimeError, LookupError, TypeError, ValueError, AttributeError, MemoryError),
    zipfile.BadZipFile,  # NotImplementedError, of archives in many parts, is a RuntimeError
)
# A restricted unpickler also builds tensors without values (meta), sparse ones and 8-bit fractions, which
# no further step knows how to check.
DTYPES = {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.int32, torch.bool}
NOT_FITTED = "not fitted: imported weights come without validation data, so thresholds are the defaults"


def import_checkpoint(
    file: str | Path,
    out: str | Path,
    *,
    labels: Sequence[str] | None = None,
    backbone: str = "convnextv2_base",
    backbone_config: Mapping[str, Any] | None = None,
    task: str = ORIGINAL_TASK,
    input_spec: InputSpec | None = None,
    license: str = "other",
    half: bool = True,
) -> Checkpoint:
    """Convert the pickled weights in `file` to a checkpoint in the folder `out`, and load that.

    `file` is a path, `hf://user/repo/file.pth` or `hf://spaces/user/repo/file.pth`. `labels` default to
    the original's 124. The variant is read off the parameter names. Raises the leaves of
    CheckpointError and HubError; nothing is written then, and no code in the file runs.
    """
    source = str(file)
    path = local_file(source)
    state = read_state(path, source)
    variant = variant_of(state)
    architecture: dict[str, Any] = {"backbone": backbone}
    if backbone_config:
        architecture["backbone_config"] = dict(backbone_config)
    if variant != "cnn":
        architecture["attention_mode"] = "published"
    config = CheckpointConfig(
        task=new_task(task),
        family="hybrid",
        variant=variant,
        architecture=architecture,
        labels=tuple(read_labels(ORIGINAL_TASK) if labels is None else labels),
        input=input_spec or InputSpec(),
        license=license,
        calibration=Calibration(review_rule=NOT_FITTED),
        training={"recipe": "imported", "file": Path(source).name, "sha256": file_digest(path)},
    )
    model = empty_model(config, source)
    compare(describe(state), model.state_dict(), len(config.labels), source)
    check_sane(state, source)
    model.load_state_dict(state, strict=True, assign=True)
    save_checkpoint(out, model, config, half=half)
    return load_checkpoint(out)


def local_file(source: str) -> Path:
    """The file that `source` names, downloaded first if it is on the Hub."""
    if not hub.is_hub_source(source):
        path = Path(source).expanduser()
        if not path.is_file():
            raise CheckpointNotFound(f"There is no file {source}; check the spelling.")
        return path
    place = hub.parse(source)
    folder, _, name = place.subfolder.rpartition("/")
    if not name:
        raise BadOption(f"{source} names no file; add its name, as in {ORIGINAL}.")
    found, _ = hub.fetch(replace(place, subfolder=folder), [name])
    return found / name


def read_state(path: Path, source: str) -> dict[str, Tensor]:
    """The tensors in a file that torch.save wrote, under their names without wrappers."""
    content = unpickle(path, source)
    for key in STATE_KEYS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content:
        raise NotACheckpoint(f"{source} holds no dictionary of tensors; export the model's state_dict().")
    state: dict[str, Tensor] = {}
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise NotACheckpoint(
                f"{source} holds {str(name)[:100]!r}, which is no tensor; export the model's state_dict()."
            )
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.dtype not in DTYPES:
            raise NotACheckpoint(
                f"{source} holds {name[:100]!r} in a rare form; save plain tensors of 16 or 32 bits."
            )
        state[unwrapped(name)] = tensor
    if len(state) != len(content):
        raise KeyMismatch(f"{source} holds a parameter both with and without a wrapper's prefix.")
    return state


def unpickle(path: Path, source: str) -> Any:
    """What torch's restricted unpickler makes of the file."""
    try:
        if is_compressed(path):
            raise NotACheckpoint(
                f"{source} is a compressed archive, not a file that torch.save wrote; unpack it first."
            )
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        # "... GLOBAL os.system was not an allowed global by default ..."
        culprit = re.search(r"GLOBAL (\S{1,200})", str(exc))
        what = f"needs {culprit[1]}" if culprit else "is damaged or needs code"
        raise NotACheckpoint(
            f"{source} {what} to be read, and nothing was executed; "
            "save the model's state_dict() alone and import that."
        ) from exc
    except DAMAGE as exc:
        raise NotACheckpoint(f"{source} is damaged or was not written by torch.save; get it again.") from exc


def is_compressed(path: Path) -> bool:
    """Whether a zip archive holds what could unpack to any size; torch.save stores without compression."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())


def unwrapped(name: str) -> str:
    """The parameter's name without the prefixes that wrappers add."""
    while name.startswith(WRAPPERS):
        name = name.partition(".")[2]
    return name


def variant_of(names: Mapping[str, object]) -> str:
    """The variant that has modules of these names."""
    if any(name.startswith("morphological_extractor.") for name in names):
        return "cnn_transformer_mfe"
    return "cnn_transformer" if any(name.startswith("attention.") for name in names) else "cnn"
