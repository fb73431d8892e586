"""Shuffled, augmented batches of one epoch; every process gets its own share of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pawmatch.errors import TrainingError
from pawmatch.preprocess import InputSpec
from pawmatch.training.augment import training_view
from pawmatch.training.data import LabelledImages
from pawmatch.training.recipe import Recipe


class AugmentedImages(Dataset[tuple[Tensor, int]]):
    """Random views of decoded images as uint8 tensors (3, size, size)."""

    def __init__(
        self, data: LabelledImages, recipe: Recipe, size: int, backgrounds: Sequence[NDArray[np.uint8]] = ()
    ) -> None:
        self.data = data
        self.view = training_view(recipe, size, backgrounds)

    def __len__(self) -> int:
        return len(self.data.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.data.images[index])
        return self.view(image), self.data.targets[index]


def steps_per_epoch(data: LabelledImages, recipe: Recipe) -> int:
    """Batches in an epoch: whole ones, or a single short one where the images fill none."""
    return max(1, len(data.images) // recipe.batch_size)


def epoch_order(targets: Sequence[int], *, balanced: bool, seed: int) -> list[int]:
    """The images of one epoch in their order: each once, or, if `balanced`, every class alike often.

    Balancing draws with replacement, and only where the classes have unlike many images.
    """
    generator = torch.Generator().manual_seed(seed)
    counts = Counter(targets)
    if balanced and len(set(counts.values())) > 1:
        weights = torch.tensor([1 / counts[target] for target in targets])
        return torch.multinomial(weights, len(targets), replacement=True, generator=generator).tolist()
    return torch.randperm(len(targets), generator=generator).tolist()


def train_loader(
    data: LabelledImages,
    recipe: Recipe,
    *,
    epoch: int,
    workers: int,
    backgrounds: Sequence[NDArray[np.uint8]] = (),
    rank: int = 0,
    world: int = 1,
) -> DataLoader[tuple[Tensor, Tensor]]:
    """The batches of process `rank` of `world`; the same seed and epoch give the same batches.

    The recipe's batch is shared out, so the number of processes changes neither the steps nor the images
    of a step. Raises TrainingError where it cannot be shared evenly.
    """
    if recipe.batch_size % world:
        raise TrainingError(
            f"A batch of {recipe.batch_size} cannot be shared among {world} processes; "
            f"use --set batch_size={-(-recipe.batch_size // world) * world}."
        )
    seed = recipe.seed * 100_003 + epoch
    order = epoch_order(data.targets, balanced=recipe.balanced, seed=seed)
    if len(order) >= recipe.batch_size:
        order = order[: steps_per_epoch(data, recipe) * recipe.batch_size]
    else:
        order += (order * world)[: -len(order) % world]  # as many for each process
    return DataLoader(
        AugmentedImages(data, recipe, recipe.size_at(epoch), backgrounds),  # type: ignore[arg-type]
        batch_size=recipe.batch_size // world,
        sampler=order[rank::world],
        num_workers=workers,
        generator=torch.Generator().manual_seed(seed + 7_777_777 * rank),  # seeds the workers
    )


def normalise(images: Tensor, spec: InputSpec) -> Tensor:
    """uint8 images (N, 3, H, W) -> float32, normalised as the spec says."""
    mean = torch.tensor(spec.mean, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(spec.std, device=images.device).view(1, 3, 1, 1)
    return images.to(torch.float32).div_(255).sub_(mean).div_(std)
