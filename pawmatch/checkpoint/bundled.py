"""The weights that come with the program: where they lie, and files among them by their content."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from pawmatch.checkpoint.config import WeightsFile
from pawmatch.checkpoint.weights import describe, file_digest, read_header, read_tensors, stored_form

BUNDLED = "weights"
BACKBONES = "backbone"  # the subfolder of pretrained backbones
BACKBONE_FILE = "backbone.safetensors"


def bundled_weights() -> Path:
    """The folder of the bundled weights: PAWMATCH_WEIGHTS if set, else the project's own."""
    given = os.environ.get("PAWMATCH_WEIGHTS")
    return Path(given) if given else Path(__file__).parents[2] / BUNDLED


def find_bundled(sha256: str) -> Path | None:
    """The bundled file of that SHA-256, or None."""
    for path in sorted(bundled_weights().rglob("*.safetensors")):
        state = path.stat()
        if _known_digest(path, state.st_size, state.st_mtime_ns) == sha256:
            return path
    return None


def bundled_backbone(tensors: Mapping[str, Tensor], *, half: bool) -> WeightsFile | None:
    """The bundled backbone whose tensors are those given, once stored, by its file; None if there is none.

    `tensors` have the names of a hybrid's; `half` says that fractions are to be stored as float16.
    """
    wanted = describe(tensors)
    for path in sorted((bundled_weights() / BACKBONES).glob(f"*/{BACKBONE_FILE}")):
        header = read_header(path, path.parent.name)
        if {name: entry.shape for name, entry in header.items()} != {
            name: entry.shape for name, entry in wanted.items()
        }:
            continue
        bundled = read_tensors(path, path.parent.name)
        if all(
            torch.equal(stored_form(tensor, half=half).to(bundled[name].dtype), bundled[name])
            for name, tensor in tensors.items()
        ):
            return WeightsFile(path.name, file_digest(path))
    return None


def is_bundled_backbone(path: Path) -> bool:
    """Whether a file lies among the bundled backbones, where every checkpoint finds it."""
    return path.resolve().is_relative_to((bundled_weights() / BACKBONES).resolve())


@lru_cache(maxsize=256)
def _known_digest(path: Path, size: int, changed: int) -> str:
    """A file's SHA-256, computed once for each state of it."""
    return file_digest(path)
