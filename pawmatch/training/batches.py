"""Shuffled, augmented batches of one epoch; every process gets its own share of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pawmatch.errors import TrainingError
from pawmatch.preprocess import InputSpec
from pawmatch.training.augment import Augment, padded
from pawmatch.training.data import LabelledImages
from pawmatch.training.recipe import Recipe


class TrainingBatches:
    """All training images on the device, and the batches of any epoch.

    Memory on the device: 3 bytes a pixel of the largest height times the largest width, for each image.
    """

    def __init__(
        self,
        data: LabelledImages,
        recipe: Recipe,
        device: str = "cpu",
        backgrounds: Sequence[NDArray[np.uint8]] = (),
    ) -> None:
        self.recipe, self.device = recipe, device
        block, self.sizes = padded([_channels_first(image) for image in data.images])
        self.images = block.to(device)
        self.targets = torch.tensor(data.targets)
        self.backgrounds = None
        if backgrounds and recipe.zoom_out:
            scenes = [_squared(image, block.shape[-1]) for image in backgrounds]
            self.backgrounds = torch.stack(scenes).to(device)

    def epoch(self, number: int, *, rank: int = 0, world: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """Views in [0, 1] and targets of epoch `number`, counted from 0, for process `rank` of `world`.

        The same seed and number give the same batches, on any device. The recipe's batch is shared out, so
        the number of processes changes neither the steps nor the images of a step. Raises TrainingError
        where it cannot be shared evenly.
        """
        augment, generator = self._augment(number, rank)
        for rows in self.order(number, rank=rank, world=world):
            images = self.images[torch.tensor(rows, device=self.device)]
            yield augment(images, self.sizes[rows], generator), self.targets[rows].to(self.device)

    def in_order(self, number: int, batch_size: int = 64) -> Iterator[Tensor]:
        """A view of every image once and in order, in [0, 1]; the same ones whatever the recipe's seed."""
        augment, generator = self._augment(number, 0)
        generator.manual_seed(number)
        for rows in torch.split(torch.arange(len(self.targets)), batch_size):
            yield augment(self.images[rows.to(self.device)], self.sizes[rows], generator)

    def order(self, number: int, *, rank: int = 0, world: int = 1) -> list[list[int]]:
        """Which images each batch of epoch `number` has, for process `rank` of `world`."""
        recipe = self.recipe
        if recipe.batch_size % world:
            raise TrainingError(
                f"A batch of {recipe.batch_size} cannot be shared among {world} processes; "
                f"use --set batch_size={-(-recipe.batch_size // world) * world}."
            )
        seed = self._seed(number)
        order = epoch_order(self.targets.tolist(), balanced=recipe.balanced, seed=seed)
        if len(order) >= recipe.batch_size:
            order = order[: steps_per_epoch(len(order), recipe) * recipe.batch_size]
        else:
            order += (order * world)[: -len(order) % world]  # as many for each process
        mine, size = order[rank::world], recipe.batch_size // world
        return [mine[start : start + size] for start in range(0, len(mine), size)]

    def _seed(self, number: int) -> int:
        return self.recipe.seed * 100_003 + number

    def _augment(self, number: int, rank: int) -> tuple[Augment, torch.Generator]:
        generator = torch.Generator().manual_seed(self._seed(number) + 7_777_777 * rank)
        return Augment(self.recipe, self.recipe.size_at(number), self.backgrounds), generator


def steps_per_epoch(images: int, recipe: Recipe) -> int:
    """Batches in an epoch: whole ones, or a single short one where the images fill none."""
    return max(1, images // recipe.batch_size)


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


def normalise(images: Tensor, spec: InputSpec) -> Tensor:
    """Images (N, 3, H, W) in [0, 1], normalised as the spec says."""
    mean = torch.tensor(spec.mean, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(spec.std, device=images.device).view(1, 3, 1, 1)
    return images.sub(mean).div_(std)


def _channels_first(image: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)


def _squared(image: NDArray[np.uint8], side: int) -> Tensor:
    """An image squashed to a square, uint8 (3, side, side)."""
    whole = _channels_first(image)[None].to(torch.float32)
    scaled = torch.nn.functional.interpolate(whole, (side, side), mode="bilinear", antialias=True)
    return scaled[0].round().to(torch.uint8)
