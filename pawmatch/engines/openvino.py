"""The OpenVINO engine: forward_features converted once, kept on disk, run by Intel's library on the CPU.

A kept model is a folder named by a digest of all that the conversion depends on. What is wrong with one, or
with the disk, costs a new conversion and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from huggingface_hub import cached_assets_path
from torch import Tensor, nn

from pawmatch.engines.torch import MAX_PIXELS
from pawmatch.images.pool import usable_cores
from pawmatch.models import ImageModel

if TYPE_CHECKING:
    import openvino

log = logging.getLogger(__name__)

TELEMETRY = "openvino_telemetry"
MODEL_FILE = "model.xml"
DIGESTS_FILE = "digests.json"
# What a conversion depends on beside the model's structure and weights.
PACKAGES = ("openvino", "torch", "timm", "pawmatch")
PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}

_importing = threading.Lock()
_converting = threading.Lock()  # tracing silences warnings for the whole process


def is_installed() -> bool:
    """Whether the openvino package is there."""
    return find_spec("openvino") is not None


def import_openvino() -> ModuleType:
    """The openvino package; raises ImportError where it is not installed.

    The first import looks for the package that reports, and is told that there is none: nothing is sent, no
    number for this user is left in the home folder, and no process with a copy of this one's memory is
    forked. What has that package already, or asks for it later, is not kept from it.
    """
    with _importing:
        before = sys.modules.get(TELEMETRY)
        # This is how Python marks what is not to be found.
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]
        try:
            return import_module("openvino")
        finally:
            del sys.modules[TELEMETRY]
            if before is not None:
                sys.modules[TELEMETRY] = before


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


class OpenVinoEngine:
    """Runs `model.forward_features` for images of one size, in batches of any length.

    `precision` is "float32" or "bfloat16"; the feature map is float32 either way. The converted model is
    kept in `folder`, or in memory alone if that is None. What openvino raises is not translated.
    """

    name = "openvino"

    def __init__(
        self,
        model: ImageModel,
        size: int,
        *,
        precision: str = "float32",
        folder: Path | None = None,
        threads: int | None = None,
    ) -> None:
        self.precision = precision
        core = import_openvino().Core()
        compiled = core.compile_model(
            convert_once(core, model, size, folder),
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
                "INFERENCE_NUM_THREADS": threads or min(torch.get_num_threads(), usable_cores()),
            },
        )
        self._max_images = max(1, MAX_PIXELS // size**2)
        # A request holds its tensors, so it serves one caller at a time; as it uses all cores, a second
        # one would only take them from the first.
        self._request = compiled.create_infer_request()
        self._turn = threading.Lock()

    def features(self, images: Tensor) -> Tensor:
        """Prepared images (N, 3, H, W) on the CPU -> float32 feature map (N, C, h, w), no gradient."""
        array = images.detach().contiguous().numpy()
        parts = [array[start : start + self._max_images] for start in range(0, len(array), self._max_images)]
        with self._turn:
            # Each result is a copy of the request's own tensor.
            found = [self._request.infer({0: part}, share_inputs=True)[0] for part in parts]
        return torch.from_numpy(found[0] if len(found) == 1 else np.concatenate(found))


class _Features(nn.Module):
    """A model whose output is the feature map."""

    def __init__(self, model: ImageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.forward_features(images)


def convert_once(core: openvino.Core, model: ImageModel, size: int, folder: Path | None) -> openvino.Model:
    """The converted model: from `folder` if it is there and whole, else made and kept there."""
    if folder is None:
        return convert(model, size)
    module = model.features()
    # The precision is chosen when the model is compiled; what is kept is float32.
    name = digest_of(module, [type(model).__name__, str(size), *map(version_of, PACKAGES)])
    if kept := _read(core, find(folder, name)):
        return kept
    fresh, save = convert(model, size), import_openvino().save_model
    path = keep(folder, name, lambda path: save(fresh, path, compress_to_fp16=False))
    # What was written is used at once: its weights are mapped from the file, not held a second time.
    return _read(core, path) or fresh


def _read(core: openvino.Core, path: Path | None) -> openvino.Model | None:
    """The converted model in a file, or None, the file removed, if it was cut short by a full disk."""
    if path is None:
        return None
    try:
        return core.read_model(path)
    except RuntimeError:
        discard(path)
        return None


def convert(model: ImageModel, size: int) -> openvino.Model:
    """Translate forward_features for images (N, 3, size, size), N open.

    openvino.convert_model would do the same, and tell Intel that it was called.
    """
    openvino = import_openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    device = next(model.parameters()).device
    example = torch.zeros(2, 3, size, size, device=device)
    with _converting, warnings.catch_warnings(), torch.no_grad():
        # torch calls tracing deprecated. Its successor, torch.export, takes twice as long here, and
        # openvino reads a slower model from it.
        warnings.simplefilter("ignore")
        decoder = TorchScriptPythonDecoder(_Features(model), example_input=(example,))
        frontend = FrontEndManager().load_by_framework("pytorch")
        loaded = frontend.load(decoder)
        loaded.set_partial_shape(loaded.get_inputs()[-1], openvino.PartialShape([-1, 3, size, size]))
        return frontend.convert(loaded)


def version_of(package: str) -> str:
    """The installed version of a package, or an empty text."""
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return package
