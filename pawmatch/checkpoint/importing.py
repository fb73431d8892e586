"""Turn a .pth file of the original system into a checkpoint. The only place that reads pickles.

It reads them with torch's restricted unpickler, which builds tensors and plain containers and refuses
everything else, and only when a person asks for it: serving and loading never come here.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

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
MAX_NESTING = 20  # tuples within each other; a tensor's description has three
LEGACY_PICKLES = 5  # one after the other, in files of torch before 1.6
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
            shown = repr(name[:100]) if isinstance(name, str) else f"a key of type {type(name).__name__}"
            raise NotACheckpoint(
                f"{source} holds {shown}, which is no tensor; export the model's state_dict()."
            )
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.dtype not in DTYPES:
            raise NotACheckpoint(
                f"{source} holds {name[:100]!r} in a rare form; save plain tensors of 16 or 32 bits."
            )
        state[unwrapped(name)] = tensor
    if len(state) != len(content):
        raise KeyMismatch(f"{source} holds a parameter both with and without a wrapper's prefix.")
    return state


class _Nest(tuple[Any, ...]):
    """A tuple whose hash does not look at what is in it."""

    __hash__ = object.__hash__
    depth = 1


class _Nothing:
    """In place of whatever a pickle names: takes all that is done to it, and does nothing."""

    def __init__(self, *args: object) -> None: ...

    __setstate__ = __setitem__ = append = extend = __init__


def _counted(load: Callable[[Any], None]) -> Callable[[Any], None]:
    """The step that makes a tuple, and refuses one of too many levels."""

    def load_counted(unpickler: Any) -> None:
        load(unpickler)
        made = unpickler.stack[-1] = _Nest(unpickler.stack[-1])
        made.depth = 1 + max((part.depth for part in made if isinstance(part, _Nest)), default=0)
        if made.depth > MAX_NESTING:
            raise NotACheckpoint(f"more than {MAX_NESTING} tuples are within each other")

    return load_counted


class _Outline(pickle._Unpickler):
    """Goes through a pickle and builds nothing that it names, only to see how deep tuples are nested.

    One that holds another twice, which holds another twice, and so on, is a few bytes a level, and its hash,
    which a dictionary asks of its keys, takes twice as long with each: forty levels take days.
    """

    dispatch = pickle._Unpickler.dispatch | {
        code[0]: _counted(pickle._Unpickler.dispatch[code[0]])
        for code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)
    }

    def find_class(self, module: str, name: str) -> type[_Nothing]:
        return _Nothing

    def persistent_load(self, pid: object) -> None: ...


def check_nesting(path: Path, source: str) -> None:
    """Raise NotACheckpoint for a file whose tuples would keep an unpickler busy for ever."""
    with ExitStack() as stack:
        files: list[IO[bytes]] = [stack.enter_context(path.open("rb"))]
        if zipfile.is_zipfile(path):
            archive = stack.enter_context(zipfile.ZipFile(path))
            files = [archive.open(name) for name in archive.namelist() if name.endswith("data.pkl")]
        for file in files:
            try:
                for _ in range(LEGACY_PICKLES):
                    _Outline(file).load()
            except NotACheckpoint as exc:
                raise NotACheckpoint(f"{source} is no file of weights: {exc}; get it again.") from exc
            except Exception:
                pass


def unpickle(path: Path, source: str) -> Any:
    """What torch's restricted unpickler makes of the file."""
    try:
        if is_compressed(path):
            raise NotACheckpoint(
                f"{source} is a compressed archive, not a file that torch.save wrote; unpack it first."
            )
        check_nesting(path, source)
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
