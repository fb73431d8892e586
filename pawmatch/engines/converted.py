"""Converted models on disk: written whole, checked when read, and never the reason for a failure.

An entry is a folder named by a digest of all that the conversion depends on. What is wrong with one, or
with the disk, costs a new conversion and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from huggingface_hub import cached_assets_path
from torch import nn

log = logging.getLogger(__name__)

MODEL_FILE = "model.xml"
DIGESTS_FILE = "digests.json"


def default_folder() -> Path | None:
    """Where converted models are kept: beside the Hub's downloads, so HF_HOME moves them too.

    None where no folder can be made.
    """
    try:
        return cached_assets_path("pawmatch", namespace="engines", subfolder="openvino")
    except (OSError, ValueError, RuntimeError):  # RuntimeError: a user without a home
        return None


def digest_of(module: nn.Module, facts: Sequence[str]) -> str:
    """A digest of a module's structure and weights and of `facts`, in hexadecimal."""
    digest = hashlib.blake2b(digest_size=20)
    for text in (*facts, repr(module)):
        digest.update(text.encode() + b"\0")
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().numpy()).cast("B"))
    return digest.hexdigest()


def find(folder: Path, name: str) -> Path | None:
    """The model file of an entry of which every byte is as it was written, or None."""
    entry = folder / name
    try:
        digests = json.loads((entry / DIGESTS_FILE).read_bytes())
        if MODEL_FILE in digests and digests == digests_in(entry):
            return entry / MODEL_FILE
        log.info("The converted model in %s is damaged and will be made again.", entry)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError, TypeError):
        log.info("The converted model in %s cannot be read and will be made again.", entry)
    return None


def keep(folder: Path, name: str, write: Callable[[Path], object]) -> Path | None:
    """Make an entry, `write` being called with the path of its model file; None if that fails.

    The entry appears complete or not at all, and replaces a damaged one.
    """
    entry, scratch = folder / name, None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".", dir=folder))
        write(scratch / MODEL_FILE)
        (scratch / DIGESTS_FILE).write_text(json.dumps(digests_in(scratch)), encoding="ascii")
        scratch.chmod(0o755)  # as any folder; a scratch one is private
        if find(folder, name) is None:  # else another process was faster
            shutil.rmtree(entry, ignore_errors=True)
            scratch.replace(entry)
        return entry / MODEL_FILE
    # A full or read-only disk, and what the library that writes makes of it: the model is in memory anyway.
    except (OSError, RuntimeError) as exc:
        reason = getattr(exc, "strerror", None) or type(exc).__name__
        log.info("Converted models cannot be kept in %s (%s); each start makes them anew.", folder, reason)
        return None
    finally:
        if scratch is not None:
            with suppress(OSError):
                shutil.rmtree(scratch, ignore_errors=True)


def digests_in(entry: Path) -> dict[str, str]:
    """The digests of an entry's files by their names."""
    digests = {}
    for path in sorted(entry.iterdir()):
        if path.name != DIGESTS_FILE:
            with path.open("rb") as file:
                digests[path.name] = hashlib.file_digest(file, "blake2b").hexdigest()
    return digests


def discard(path: Path) -> None:
    """Remove the entry that a model file belongs to."""
    shutil.rmtree(path.parent, ignore_errors=True)
