"""Write the variants of a task into one folder, each tensor once.

Each file appears complete or not at all, and config.json last: a folder is a checkpoint when it has one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import torch
from huggingface_hub import metadata_load
from torch import Tensor, nn

from pawmatch.checkpoint import hub
from pawmatch.checkpoint.budget import empty_model
from pawmatch.checkpoint.config import CONFIG_FILE, CheckpointConfig, WeightsFile, config_bytes
from pawmatch.checkpoint.load import CARD_FILE, PLOTS, Checkpoint, load_stored, stored_in_folder
from pawmatch.checkpoint.weights import (
    BACKBONE_FILE,
    WEIGHTS_FILE,
    bundled_backbone,
    compare,
    describe,
    file_bytes,
    is_bundled_backbone,
)
from pawmatch.errors import BadOption, DigestMismatch, NotACheckpoint
from pawmatch.files import replace_file
from pawmatch.models import ImageModel

# The file of a feature extractor that several variants share.
FEATURE_FILES = {"hybrid": BACKBONE_FILE, "chae": "stem.safetensors"}

# What a Space runs and shows.
SPACE_FILES = (
    *("README.md", "LICENSE", "SECURITY.md", "app.py", "requirements.txt", ".gitattributes"),
    *("pawmatch/*", "weights/*", "examples/*", "docs/*"),
)
NO_SPACE_FILES = ("*/.*", "*/__pycache__/*")

Tensors = Mapping[str, Tensor]


def save_task(
    folder: str | Path,
    models: Mapping[str, nn.Module],
    configs: Mapping[str, CheckpointConfig],
    *,
    half: bool = True,
) -> Path:
    """Write config.json and the weights of a task's variants into `folder`, fractions as float16 if `half`.

    A feature extractor that variants share bit by bit goes to a file of its own, or to none where it is a
    bundled backbone's; the rest of each to `<variant>.safetensors`. Raises as loading would if a config and
    its model disagree, and NotACheckpoint if the configs differ in what is written once.
    """
    folder = Path(folder)
    for name, model in models.items():
        config = configs[name]
        expected = empty_model(config, folder.name).state_dict()
        compare(describe(model.state_dict()), expected, len(config.labels), folder.name)
    contents: dict[str, bytes] = {}
    written: list[CheckpointConfig] = []
    features = {name: _features(model) for name, model in models.items()}
    for name, model in models.items():
        files: list[WeightsFile] = []
        own, shared = dict(model.state_dict()), features[name]
        bundled = bundled_backbone(shared, half=half)
        if bundled is not None:
            files.append(bundled)
        elif sum(_equal(shared, other) for other in features.values()) > 1:
            data = file_bytes(shared, folder.name, half=half)
            files.append(_add(contents, FEATURE_FILES[configs[name].family], data))
        if files:
            own = {key: tensor for key, tensor in own.items() if key not in shared}
        files.append(_add(contents, f"{name}.safetensors", file_bytes(own, folder.name, half=half)))
        written.append(replace(configs[name], files=tuple(files)))
    return _write(folder, contents, written)


def save_checkpoint(
    folder: str | Path, model: nn.Module, config: CheckpointConfig, *, half: bool = True
) -> Path:
    """Write one variant into `folder`; see `save_task`."""
    return save_task(folder, {config.variant: model}, {config.variant: config}, half=half)


def save_again(
    folder: str | Path, checkpoints: Sequence[Checkpoint], configs: Mapping[str, CheckpointConfig]
) -> Path:
    """Write loaded variants into `folder` with other configs, their weights byte by byte as they were read.

    Files of bundled backbones are not copied. Raises DigestMismatch if a file has changed since.
    """
    contents: dict[str, bytes] = {}
    written: list[CheckpointConfig] = []
    for checkpoint in checkpoints:
        variant = checkpoint.config.variant
        files: list[WeightsFile] = []
        for file, path in zip(checkpoint.config.files, checkpoint.paths, strict=True):
            if is_bundled_backbone(path):
                files.append(file)
                continue
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != file.sha256:
                raise DigestMismatch(f"{file.name} of {checkpoint.source} has changed; start again.")
            name = f"{variant}.safetensors" if file.name == WEIGHTS_FILE else file.name
            if contents.get(name, data) != data:  # of another run
                name = f"{variant}-{name}"
            files.append(_add(contents, name, data))
        written.append(replace(configs[variant], files=tuple(files)))
    return _write(Path(folder), contents, written)


def _features(model: nn.Module) -> Tensors:
    """The feature extractor's tensors by their names in the model."""
    assert isinstance(model, ImageModel)
    prefix = f"{model.features_module}."
    return {key: tensor for key, tensor in model.state_dict().items() if key.startswith(prefix)}


def _equal(ours: Tensors, theirs: Tensors) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def _add(contents: dict[str, bytes], name: str, data: bytes) -> WeightsFile:
    """Note a file to write, under a name that no other content has."""
    stem, number = name.removesuffix(".safetensors"), 1
    while contents.get(name, data) != data:
        number += 1
        name = f"{stem}-{number}.safetensors"
    contents[name] = data
    return WeightsFile(name, hashlib.sha256(data).hexdigest())


def _write(folder: Path, contents: Mapping[str, bytes], configs: Sequence[CheckpointConfig]) -> Path:
    config = config_bytes(configs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in contents.items():
            path = folder / name
            if not path.is_file() or path.read_bytes() != data:
                replace_file(path, data)
        replace_file(folder / CONFIG_FILE, config)
    except OSError as exc:
        raise BadOption(f"{folder} cannot be written ({exc.strerror}); choose another folder.") from exc
    return folder


def push(
    folder: str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
) -> str:
    """Upload a checkpoint folder to the Hub and give its web address.

    `repo` is `user/repo`, or a `hf://` place to choose a subfolder. Everything is loaded first, and a
    README.md, the model card, must be there: nothing is published that nobody could use.
    """
    folder = Path(folder)
    place = hub.parse(repo if hub.is_hub_source(repo) else f"{hub.PREFIX}{repo}")
    if place.kind != "model":
        raise BadOption(f"{repo} is a Space; checkpoints go to a model repository such as hf://user/repo.")
    if revision is not None:
        place = hub.parse(str(replace(place, revision=revision)))
    entries = stored_in_folder(folder, str(folder), None)
    load_stored(entries)
    if not (folder / CARD_FILE).is_file():
        raise NotACheckpoint(
            f"{folder} has no {CARD_FILE}; write the model card with data, licence and metrics."
        )
    names = [CARD_FILE, "LICENSE"]
    for entry in entries:
        own = (CONFIG_FILE, CARD_FILE, PLOTS, *(file.name for file in entry.files))
        names += [str(PurePosixPath(entry.part, name)) for name in own]
    variants = ", ".join(entry.config.variant for entry in entries)
    summary = message or f"Add {entries[0].config.task.name} weights: {variants}"
    return hub.upload(folder, place, names, private=private, message=summary)


def push_space(
    root: Path,
    repo: str,
    *,
    private: bool = False,
    variables: Mapping[str, str] | None = None,
    hardware: str | None = None,
    message: str | None = None,
) -> str:
    """Upload the app at `root`, a checkout of the project, as a Gradio Space, and give its web address.

    `variables` are the Space's public ones, such as PAWMATCH_SOURCES. Raises BadOption where `root`
    holds no app or its README.md no front matter that a Space needs, and the leaves of HubError; hardware is
    asked for last, so that an account without it has the Space all the same.
    """
    place = hub.parse(repo if hub.is_hub_source(repo) else f"{hub.PREFIX}spaces/{repo}")
    if place.kind != "space" or place.subfolder:
        raise BadOption(f"{repo} names no Space; write you/name or hf://spaces/you/name.")
    try:
        front_matter = metadata_load(root / CARD_FILE) or {}
    except Exception as exc:  # of the file, or of the library's YAML parser
        raise BadOption(f"{root} holds no {CARD_FILE} with front matter; give a checkout.") from exc
    if front_matter.get("sdk") != "gradio" or not (root / str(front_matter.get("app_file", ""))).is_file():
        raise BadOption(f"The front matter of {root / CARD_FILE} names no app of Gradio; give a checkout.")
    address = hub.upload(
        root, place, SPACE_FILES, but=NO_SPACE_FILES, private=private, message=message or "Add the app"
    )
    hub.set_up_space(place, variables or {}, hardware)
    return address.removesuffix(f"/tree/{hub.DEFAULT_REVISION}")
