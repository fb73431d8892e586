"""Files of weights: read a header before trusting it, compare with the model, read and write tensors.

Names and shapes are compared with a model on the meta device, so files that announce more than they
hold, or more than their config describes, are refused before memory is taken for them. Some files come
with the program and are found by their content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pawmatch.checkpoint.config import WeightsFile
from pawmatch.errors import (
    KeyMismatch,
    LabelCountMismatch,
    NotACheckpoint,
    ShapeMismatch,
    TruncatedFile,
)
from pawmatch.labels import BACKBONES, bundled_weights

WEIGHTS_FILE = "model.safetensors"  # of checkpoints of format 1, and of timm's on the Hub
MAX_HEADER = 2 * 2**20  # bytes; the largest model here needs 60 kB
PICKLE_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".pkl")
FLOAT_TYPES = frozenset({"F16", "BF16", "F32"})
STORED_TYPES = {torch.int64: "I64", torch.int32: "I32", torch.bool: "BOOL"}
# How safetensors says that a file is shorter or longer than its header announces.
CUT_SHORT = ("header too small", "invalid header length", "not fully covered")
MAX_HALF = torch.finfo(torch.float16).max

BACKBONE_FILE = "backbone.safetensors"


class StoredTensor(NamedTuple):
    """What a weights file says about one tensor."""

    dtype: str
    shape: tuple[int, ...]


def is_pickle(path: Path) -> bool:
    """Whether a file is a zip archive or a pickle, as torch.save writes them."""
    with path.open("rb") as file:
        start = file.read(9)
    # The length that opens a safetensors file may begin with any byte; its header begins with a brace.
    return (start[8:9] != b"{" and start[:1] == b"\x80") or start[:4] == b"PK\x03\x04"


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_header(path: Path, source: str) -> dict[str, StoredTensor]:
    """Names, types and shapes in a safetensors file, whose size is exactly what its header announces."""
    if is_pickle(path):
        raise NotACheckpoint(
            f"The weights of {source} are a pickle, which is never loaded; "
            "convert it with `pawmatch import FILE`."
        )
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if MAX_HEADER < length < path.stat().st_size:  # of a web page or a text, it is larger than the file
        raise NotACheckpoint(
            f"The weights of {source} have a header above {MAX_HEADER:,} bytes; download them again."
        )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            return {
                name: StoredTensor(str(part.get_dtype()), tuple(part.get_shape()))
                for name, part in parts.items()
            }
    except SafetensorError as exc:
        if any(said in str(exc) for said in CUT_SHORT):
            raise TruncatedFile(
                f"The weights of {source} have {path.stat().st_size:,} bytes, which is not what their header "
                "announces; download or copy them again."
            ) from exc
        raise _unreadable(source) from exc


def _unreadable(source: str) -> NotACheckpoint:
    return NotACheckpoint(f"The weights of {source} are no safetensors file; download them again.")


def united(headers: Mapping[str, Mapping[str, StoredTensor]], source: str) -> dict[str, StoredTensor]:
    """What several files hold together, by file name; raises KeyMismatch for a key that is in two of them."""
    places: dict[str, str] = {}
    union: dict[str, StoredTensor] = {}
    for file, header in headers.items():
        for name, entry in header.items():
            if places.setdefault(name, file) != file:
                raise KeyMismatch(
                    f"The parameter {name[:100]} of {source} is in {places[name]} and in {file}; "
                    "leave it in one of them."
                )
            union[name] = entry
    return union


def compare(
    stored: Mapping[str, StoredTensor], expected: Mapping[str, Tensor], labels: int, source: str
) -> None:
    """Raise a named error, the gravest first, unless the file has exactly the tensors of a model's state."""
    missing = [name for name in expected if name not in stored]
    unexpected = [name for name in stored if name not in expected]
    if missing or unexpected:
        parts = [("lack", missing), ("hold the unexpected", unexpected)]
        found = " and ".join(f"{verb} {_some(names)}" for verb, names in parts if names)
        raise KeyMismatch(
            f"The weights of {source} {found}; the variant or architecture in the config does not fit."
        )
    head = [name for name in expected if name.startswith("classifier.")][-2:]
    for name, tensor in expected.items():
        shape, wanted = stored[name].shape, tuple(tensor.shape)
        if shape == wanted:
            continue
        if name in head and shape[1:] == wanted[1:] and len(shape) == len(wanted):
            raise LabelCountMismatch(
                f"The classifier of {source} has {shape[0]} outputs and there are {labels} labels; "
                "give the list of labels that the weights were trained with."
            )
        raise ShapeMismatch(
            f"The parameter {name} of {source} has shape {list(shape)}, not {list(wanted)}; "
            "the architecture in the config does not fit the weights."
        )
    for name, tensor in expected.items():
        dtype = stored[name].dtype
        known = FLOAT_TYPES if tensor.is_floating_point() else {_stored_type(tensor.dtype)}
        if dtype not in known:
            raise NotACheckpoint(
                f"The parameter {name} of {source} is stored as {dtype[:20]}; "
                "store fractions as F16, BF16 or F32 and counts as I64."
            )


def _stored_type(dtype: torch.dtype) -> str:
    return STORED_TYPES.get(dtype, str(dtype))


def _some(names: list[str]) -> str:
    """Up to three names and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(name[:100] for name in names[:3]) + more


def describe(tensors: Mapping[str, Tensor]) -> dict[str, StoredTensor]:
    """What a weights file would say about tensors in memory; all fractions count as F32."""
    return {
        name: StoredTensor(
            "F32" if tensor.is_floating_point() else _stored_type(tensor.dtype), tuple(tensor.shape)
        )
        for name, tensor in tensors.items()
    }


def read_tensors(path: Path, source: str) -> dict[str, Tensor]:
    """All tensors of a file whose header was compared: fractions as float32, none of them insane."""
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                tensor = file.get_tensor(name)
                dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
                tensors[name] = tensor.to(dtype, copy=True)  # off the mapped file
    except SafetensorError as exc:
        raise _unreadable(source) from exc
    check_sane(tensors, source)
    return tensors


def check_sane(tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise NotACheckpoint for NaN, infinity or a negative variance: with one, every answer would be NaN."""
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise NotACheckpoint(f"The parameter {name} of {source} holds NaN or infinity; train it again.")
        if name.endswith("running_var") and tensor.numel() and tensor.min() < 0:
            raise NotACheckpoint(
                f"The parameter {name} of {source} holds a negative variance; train it again."
            )


def file_bytes(tensors: Mapping[str, Tensor], source: str, *, half: bool) -> bytes:
    """The bytes of a safetensors file, fractions as float16 if `half`; raises as `check_sane` does."""
    check_sane(tensors, source)
    return save({name: stored_form(tensor, half=half) for name, tensor in tensors.items()})


def stored_form(tensor: Tensor, *, half: bool) -> Tensor:
    """The tensor as it goes to disk, in memory of its own."""
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        # A BatchNorm variance may exceed what float16 holds; such a tensor stays float32.
        fits = half and (tensor.numel() == 0 or float(tensor.abs().max()) <= MAX_HALF)
        tensor = tensor.to(torch.float16 if fits else torch.float32)
    return tensor.clone(memory_format=torch.contiguous_format)


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
    wanted = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for path in sorted((bundled_weights() / BACKBONES).glob(f"*/{BACKBONE_FILE}")):
        header = read_header(path, path.parent.name)
        if {name: entry.shape for name, entry in header.items()} != wanted:
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
