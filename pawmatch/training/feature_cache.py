"""Feature maps computed once for layers that do not learn, so that an epoch costs only those that do.

With a frozen backbone, new classes are learnt in minutes on a CPU: what is slow has run before the first
epoch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.transforms.v2.functional import normalize
from tqdm import tqdm

from pawmatch.engines import create_engine
from pawmatch.errors import TrainingError
from pawmatch.images import InputSpec
from pawmatch.models import Hybrid, ImageModel
from pawmatch.training.augment import TrainingBatches
from pawmatch.training.distill import Teachers
from pawmatch.training.optim import Together, first_member, stages
from pawmatch.training.recipe import Recipe


@dataclass(frozen=True)
class CachedBatch:
    """What a step needs of a batch: maps (N, C, h, w), targets (N,), and the teachers' logits, if any."""

    maps: Tensor
    targets: Tensor
    taught: Tensor | None


class FeatureCache:
    """For `cached_views` random views of each training image, the map before the first layer that learns.

    Epochs take turns with the views. They are kept in `folder`, where a run that goes on, or another one with
    the same images, views and frozen layers, finds them. Disk: 2 bytes a value; a map of 7 x 7 x 1280 has
    125 kB.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: TrainingBatches,
        recipe: Recipe,
        spec: InputSpec,
        teachers: Teachers | None,
        folder: Path,
        *,
        engine: str,
        device: str,
        report: Callable[[str], None],
    ) -> None:
        member = first_member(model)
        learning = recipe.stages_at(0)
        changing = (
            len({(recipe.stages_at(epoch), recipe.size_at(epoch)) for epoch in range(recipe.epochs)}) > 1
        )
        if learning is None or changing or recipe.mixup or recipe.cutmix:
            raise TrainingError(
                "cached_views needs layers that never learn, and images of one size that are not mixed; use "
                '--set "unfreeze=[[0.0, 0]]" --set sizes=[] --set mixup=0.0 --set cutmix=0.0, or --set '
                "cached_views=0."
            )
        model.eval()
        self.device, self.learning, self.targets = device, learning, batches.targets
        self._frozen, tail = split(member, learning)
        if learning == 0 and device == "cpu":
            self._frozen = create_engine(engine, [member], device, spec).features
        self._own_head = teachers.on_map(member) if teachers is not None and learning == 0 else None
        asked = teachers if self._own_head is None else None
        place = folder / _key(member, tail, batches, recipe, engine)
        place.mkdir(parents=True, exist_ok=True)
        self._maps: list[NDArray[np.float16]] = []
        self._taught: list[Tensor] = []
        for number in range(recipe.cached_views):
            path = place / f"view{number}.npy"
            with FileLock(place / ".lock"):  # another run may be making the same
                if not path.is_file():
                    report(f"view {number + 1} of {recipe.cached_views}: running {len(self.targets)} images")
                    self._write(path, batches.in_order(number), spec)
            self._maps.append(np.load(path, mmap_mode="r"))
            if asked is not None:
                with torch.inference_mode():
                    answers = [asked.logits(self._ready(views, spec)) for views in batches.in_order(number)]
                self._taught.append(torch.cat(answers))

    def _ready(self, views: Tensor, spec: InputSpec) -> Tensor:
        ready: Tensor = normalize(views, list(spec.mean), list(spec.std))
        return ready.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def _write(self, path: Path, batches: Iterator[Tensor], spec: InputSpec) -> None:
        """Write the maps of all images; the file has its name only once it is whole."""
        partial = path.with_suffix(".part")
        with partial.open("wb") as file:  # mapping it into memory would end in SIGBUS on a full disk
            for views in tqdm(batches, leave=False, disable=None, unit="batch"):
                found = self._frozen(self._ready(views, spec)).to(torch.float16).cpu().numpy()
                if file.tell() == 0:
                    header = np.lib.format.header_data_from_array_1_0(found)
                    header |= {"shape": (len(self.targets), *found.shape[1:]), "fortran_order": False}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(np.ascontiguousarray(found).tobytes())
        partial.replace(path)

    def epoch(self, order: list[list[int]], number: int) -> Iterator[CachedBatch]:
        """The batches of epoch `number`, counted from 0, of the images that `order` lists for each."""
        turn = number % len(self._maps)
        for rows in order:
            maps = torch.from_numpy(self._maps[turn][rows]).to(self.device, torch.float32)
            taught: Tensor | None = self._taught[turn][rows].to(self.device) if self._taught else None
            if self._own_head is not None:
                with torch.no_grad():
                    taught = self._own_head(maps)
            maps = maps.contiguous(memory_format=torch.channels_last)
            yield CachedBatch(maps, self.targets[rows].to(self.device), taught)

    def maps_of(self, batches: Sequence[Tensor]) -> list[Tensor]:
        """The maps of prepared batches, kept as those of the training images are."""
        with torch.inference_mode():
            return [self._frozen(batch.to(self.device)).to(torch.float16) for batch in batches]

    def heads(self, model: nn.Module) -> nn.Module:
        """What takes cached maps of `model`, which is the one that trains or a copy of it."""
        return Heads(model, split(first_member(model), self.learning)[1])


class Heads(nn.Module):
    """What learns of one model or of variants together: the rest of the shared extractor, and the heads."""

    def __init__(self, model: nn.Module, tail: nn.Module) -> None:
        super().__init__()
        self.model, self.tail = model, tail

    def forward(self, maps: Tensor) -> Tensor:
        """Cached maps -> logits (N, classes), or (V, N, classes) of variants together."""
        feature_map = self.tail(maps.float())
        if isinstance(self.model, Together):
            return torch.stack(
                [member.forward_head(feature_map) for member in self.model.variants().values()]
            )
        assert isinstance(self.model, ImageModel)
        return self.model.forward_head(feature_map)


def split(model: ImageModel, learning: int) -> tuple[Callable[[Tensor], Tensor], nn.Module]:
    """`forward_features` in two: what is frozen, and the last `learning` stages as a module.

    Raises TrainingError where some stages learn and the backbone is not one of timm's EfficientNets.
    """
    if learning == 0:
        return model.forward_features, nn.Identity()
    backbone = model.backbone if isinstance(model, Hybrid) else None
    blocks = getattr(backbone, "blocks", None)
    head = [getattr(backbone, name, None) for name in ("conv_head", "bn2")]
    count = len(stages(model.features()))
    if not isinstance(blocks, nn.Sequential) or None in head or learning >= count:
        raise TrainingError(
            "cached_views with stages that learn works for EfficientNets, and not for all of their stages; "
            "use --set cached_views=0."
        )
    first = len(blocks) - learning
    stem = [getattr(backbone, name) for name in ("conv_stem", "bn1")]
    return nn.Sequential(*stem, *blocks[:first]), nn.Sequential(*blocks[first:], *head)


VIEW_KEYS = (
    "input", "crop_scale", "crop_ratio", "rotation", "shear", "zoom", "plain", "flip", "color_jitter",
    "zoom_out", "zoom_out_factor", "unfreeze",
)  # fmt: skip


def _key(member: ImageModel, tail: nn.Module, batches: TrainingBatches, recipe: Recipe, engine: str) -> str:
    """A name for everything that cached maps depend on; the `tail`, which learns, is no part of it."""
    digest = hashlib.sha256(repr([engine, *(getattr(recipe, key) for key in VIEW_KEYS)]).encode())
    for image in batches.streamed or ():
        digest.update(image.tobytes())
    tensors = [] if batches.streamed else [batches.images]
    tensors += [batches.backgrounds] if batches.backgrounds is not None else []
    learning = {tensor.data_ptr() for tensor in tail.state_dict().values()}
    frozen = [t for t in member.features().state_dict().values() if t.data_ptr() not in learning]
    for tensor in (*tensors, *frozen):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
