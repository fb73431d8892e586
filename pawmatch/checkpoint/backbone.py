"""A pretrained backbone as a checkpoint of its own: the CNN, and the ImageNet head that it was trained with.

Runs start from it (`pawmatch train --init efficientnet_lite2`), other checkpoints share its file by content,
and its head says what a picture shows where it does not show what a task is about.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor, nn

from pawmatch.checkpoint.config import (
    CONFIG_FILE,
    FORMAT_VERSION,
    IMAGENET_CLASSES,
    LATER_KEYS,
    checked,
    wrong,
)
from pawmatch.checkpoint.load import Checkpoint
from pawmatch.checkpoint.weights import (
    BACKBONE_FILE,
    bundled_backbone,
    compare,
    file_bytes,
    file_digest,
    find_bundled,
    is_bundled_backbone,
    read_header,
    read_tensors,
)
from pawmatch.errors import CheckpointNotFound, DigestMismatch, NotACheckpoint
from pawmatch.files import replace_file
from pawmatch.images import InputSpec
from pawmatch.labels import BACKBONES, bundled_weights, spelling_key
from pawmatch.models.backbone import NoInit, create_backbone
from pawmatch.models.hybrid import Hybrid
from pawmatch.strict import Name, Text

KIND = "backbone"
HEAD_FILE = "imagenet_head.safetensors"
MAX_GAP = 3  # between the numbers of two classes that are related
PREFIX = "backbone."  # of its keys in a file, so that a hybrid's parameters are a plain union of files


@dataclass(frozen=True, kw_only=True)
class BackboneFile:
    """The config.json of a backbone; `files` are the SHA-256 of the CNN and, if there is one, of the head."""

    format_version: int
    kind: str
    backbone: Name
    input: InputSpec
    license: Text
    about: Text
    files: dict[str, str]


@dataclass(frozen=True)
class Backbone:
    """A pretrained CNN, in evaluation mode and without gradients.

    `network` is timm's, built by `timm_name` without a classifier; `head` maps its pooled map (N, C) to the
    1000 logits of ImageNet-1k, or to none where it was pretrained without labels.
    """

    timm_name: str
    network: nn.Module
    head: nn.Linear
    input: InputSpec
    license: str
    source: str

    def tensors(self) -> dict[str, Tensor]:
        """The network's tensors by the names that they have in a hybrid."""
        return _prefixed(self.network)

    def feature_map(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> the network's last map (N, C, h, w)."""
        feature_map: Tensor = self.network.forward_features(images)  # type: ignore[operator]
        return feature_map

    def classes(self, labels: Iterable[str]) -> dict[str, int]:
        """Which of the head's classes each label is, for those labels that it has."""
        return imagenet_classes(labels) if self.head.out_features else {}

    def pooled(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> the average-pooled map (N, C), which `head` takes."""
        return self.feature_map(images).mean(dim=(2, 3))


def backbone_folder(source: str) -> Path | None:
    """The folder of a backbone, by its path or by the name of a bundled one; None where it is no backbone."""
    path = Path(source).expanduser()
    folder = path if path.is_dir() else bundled_weights() / BACKBONES / source
    try:
        config = json.loads((folder / CONFIG_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return folder if isinstance(config, dict) and config.get("kind") == KIND else None


@dataclass(frozen=True)
class ImagenetHead:
    """What a backbone's own head says, on the feature maps (N, C, h, w) of a model that has that backbone."""

    head: nn.Linear

    def probabilities(self, feature_map: Tensor) -> Tensor:
        """Probabilities (N, 1000) of the average-pooled map."""
        answer: Tensor = self.head(feature_map.mean(dim=(2, 3))).softmax(dim=-1)
        return answer

    def mass(self, feature_map: Tensor, classes: Sequence[int]) -> Tensor:
        """The probability (N, h, w) of some of the classes together, at each position of the map."""
        cells = self.head(feature_map.permute(0, 2, 3, 1)).softmax(dim=-1)  # (N, h, w, 1000)
        mass: Tensor = cells[..., list(classes)].sum(dim=-1)
        return mass


def imagenet_head(checkpoint: Checkpoint, device: str = "cpu") -> ImagenetHead | None:
    """The ImageNet head of the bundled backbone that a checkpoint stands on; None where it has its own."""
    path = next((path for path in checkpoint.paths if is_bundled_backbone(path)), None)
    if path is None and not checkpoint.paths and isinstance(checkpoint.model, Hybrid):  # not written yet
        found = bundled_backbone(_prefixed(checkpoint.model.features()), half=True)
        path = find_bundled(found.sha256) if found else None
    if path is None:
        return None
    width = int(checkpoint.model.features().num_features)  # type: ignore[arg-type]
    return ImagenetHead(load_head(path.parent, path.parent.name, width).to(device))


def _prefixed(network: nn.Module) -> dict[str, Tensor]:
    return {PREFIX + name: tensor for name, tensor in network.state_dict().items()}


@cache
def default_backbone() -> Backbone | None:
    """The first bundled backbone, loaded once; None where there is none."""
    for path in sorted((bundled_weights() / BACKBONES).glob(f"*/{CONFIG_FILE}")):
        return load_backbone(path.parent, path.parent.name)
    return None


def load_backbone(folder: Path, source: str) -> Backbone:
    """Load the backbone in `folder`, which messages call `source`.

    Raises CheckpointNotFound, NotACheckpoint and DigestMismatch.
    """
    config = _described(folder, source)
    network = create_backbone(config.backbone)
    tensors = _tensors(folder, BACKBONE_FILE, config, _prefixed(network), source)
    # The tensors become the parameters: no second copy.
    network.load_state_dict({key.removeprefix(PREFIX): value for key, value in tensors.items()}, assign=True)
    network.eval().requires_grad_(False)
    head = load_head(folder, source, int(network.num_features))  # type: ignore[arg-type]
    return Backbone(config.backbone, network, head, config.input, config.license, source)


def load_head(folder: Path, source: str, width: int) -> nn.Linear:
    """The ImageNet head of the backbone in `folder`, of no class where it has none.

    `width` is the number of channels of its map. Raises as load_backbone.
    """
    config = _described(folder, source)
    classes = IMAGENET_CLASSES if HEAD_FILE in config.files else 0
    with NoInit():  # of no use, and a warning where there is no class
        head = nn.Linear(width, classes)
    if classes:
        head.load_state_dict(_tensors(folder, HEAD_FILE, config, head.state_dict(), source))
    return head.eval().requires_grad_(False)


def _described(folder: Path, source: str) -> BackboneFile:
    """What config.json says of a backbone."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise CheckpointNotFound(f"There is no backbone at {source}; check the spelling.")
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as exc:
        raise NotACheckpoint(f"{source}: config.json is not valid JSON; write it anew.") from exc
    config = checked(BackboneFile, values, optional=LATER_KEYS)
    if config.kind != KIND or config.format_version != FORMAT_VERSION:
        raise wrong(f"kind {config.kind!r} of format {config.format_version} is no backbone.")
    return config


def _tensors(
    folder: Path, name: str, config: BackboneFile, expected: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """The tensors of one of a backbone's files, which are exactly those expected."""
    path = folder / name
    if not path.is_file():
        raise CheckpointNotFound(f"{source} holds no {name}; copy the whole folder.")
    if file_digest(path) != config.files.get(name):
        raise DigestMismatch(f"{name} of {source} is not the file that its config names; copy it again.")
    compare(read_header(path, source), expected, IMAGENET_CLASSES, source)
    return read_tensors(path, source)


def save_backbone(folder: Path, network: nn.Module, head: nn.Linear | None, config: dict[str, Any]) -> Path:
    """Write a backbone's files, in float16, and its config; `config` has all of it but the files."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {BACKBONE_FILE: _prefixed(network)} | ({HEAD_FILE: head.state_dict()} if head else {})
    for name, tensors in parts.items():
        replace_file(folder / name, file_bytes(tensors, folder.name, half=True))
    files = {name: file_digest(folder / name) for name in parts}
    values = {"format_version": FORMAT_VERSION, "kind": KIND, **config, "files": files}
    replace_file(folder / CONFIG_FILE, json.dumps(values, indent=1, ensure_ascii=False).encode() + b"\n")
    return folder


@cache
def imagenet_names() -> tuple[str, ...]:
    """The name of each of the 1000 classes of ImageNet-1k, its first synonym: "tabby"."""
    return tuple(words[0] for words in _synonyms())


@cache
def _synonyms() -> tuple[tuple[str, ...], ...]:
    info = ImageNetInfo()
    return tuple(
        tuple(word.strip() for word in info.index_to_description(index).split(",")) for index in range(1000)
    )


def imagenet_classes(labels: Iterable[str]) -> dict[str, int]:
    """Which ImageNet class each label is, for those labels that are spelt as one of its synonyms.

    A name that two classes have ("Cardigan", an animal and a jacket) means the class whose neighbours in
    ImageNet's order are more often among the labels, since related classes stand side by side.
    """
    meaning: dict[str, set[int]] = {}
    for index, words in enumerate(_synonyms()):
        for word in words:
            meaning.setdefault(spelling_key(word), set()).add(index)
    found = {label: meaning.get(spelling_key(label), set()) for label in labels}
    sure = torch.tensor([min(indices) for indices in found.values() if len(indices) == 1])
    chosen: dict[str, int] = {}
    for label, indices in found.items():
        if indices:
            chosen[label] = min(
                indices,
                key=lambda index: float((sure - index).abs().float().median()) if len(sure) else index,
            )
    return chosen


def subject_classes(labels: Iterable[str]) -> tuple[int, ...]:
    """The ImageNet classes that show what the labels are about; none where ImageNet has few of the labels.

    They are the labels' own and those between them: related classes stand side by side in ImageNet's order,
    so that a gap of one or two is a relative that the labels lack.
    """
    names = list(labels)
    own = sorted(set(imagenet_classes(names).values()))
    if len(own) < max(2, len(names) / 2):
        return ()
    between = [place for a, b in pairwise(own) if b - a <= MAX_GAP for place in range(a + 1, b)]
    return tuple(sorted({*own, *between}))
