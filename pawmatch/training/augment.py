"""Shuffled batches of random views, made on the device that trains; every process gets its own share."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample
from torchvision.transforms.v2 import InterpolationMode, RandAugment

from pawmatch.errors import TrainingError
from pawmatch.images import InputSpec
from pawmatch.training.data import LabelledImages
from pawmatch.training.recipe import Recipe
from pawmatch.training.shards import Streamed

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
# From this many image pixels a view pixel on, each view pixel is the mean of 2x2 samples.
SUPERSAMPLED = 1.3


class Augment:
    """A recipe's random views, (N, 3, size, size) float32 in [0, 1]; call it with a batch.

    `backgrounds` (B, 3, H, W) uint8 are the scenes that images are shrunk into; without any, what lies
    outside an image repeats its nearest pixel.
    """

    def __init__(self, recipe: Recipe, size: int, backgrounds: Tensor | None = None) -> None:
        self.recipe, self.size, self.backgrounds = recipe, size, backgrounds
        self.spec = replace(InputSpec.from_dict(recipe.input), size=size)

    def __call__(self, images: Tensor, sizes: Tensor, generator: torch.Generator) -> Tensor:
        """Views of `images` (N, 3, H, W) uint8, each of which fills `sizes` (N, 2) of it: height, width."""
        plain = _uniform(len(images), 0, 1, generator) < self.recipe.plain
        matrix, zoomed_out = self.geometry(sizes.cpu(), plain, generator)
        views = self.sample(images, sizes, matrix, zoomed_out, generator)
        if self.recipe.rand_augment:
            views = self.change(views, plain, generator)
        if self.recipe.color_jitter:
            views = self.jitter(views, plain, generator)
        return views

    def geometry(self, sizes: Tensor, plain: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Maps (N, 2, 3) from view coordinates in [-1, 1] to image pixels; which images are zoomed out."""
        recipe, count = self.recipe, len(sizes)
        height, width = sizes[:, 0].float(), sizes[:, 1].float()
        boxes = torch.tensor([self.spec.box(int(w), int(h)) for h, w in sizes.tolist()])
        whole = recipe.crop_scale[0] >= 1
        if whole:
            wide, tall = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        else:
            area = height * width * _uniform(count, *recipe.crop_scale, generator)
            low, high = (math.log(edge) for edge in recipe.crop_ratio)
            ratio = _uniform(count, low, high, generator).exp()
            wide = torch.minimum((area * ratio).sqrt(), width)
            tall = torch.minimum((area / ratio).sqrt(), height)
        at_x, at_y = (_uniform(count, 0, 1, generator) for _ in range(2))
        zoomed_out = _uniform(count, 0, 1, generator) < recipe.zoom_out
        factor = _uniform(count, 1, recipe.zoom_out_factor, generator)
        # A scene is a region larger than the image: the image then lies at a random place of it.
        wide = torch.where(zoomed_out, width * factor, wide)
        tall = torch.where(zoomed_out, height * factor, tall)
        # Where the region is larger than the image, width - wide is below 0 and the image lies inside.
        x, y = at_x * (width - wide) + wide / 2, at_y * (height - tall) + tall / 2
        if whole:
            x = torch.where(zoomed_out, x, (boxes[:, 0] + boxes[:, 2]) / 2)
            y = torch.where(zoomed_out, y, (boxes[:, 1] + boxes[:, 3]) / 2)
        flip = torch.where(_uniform(count, 0, 1, generator) < recipe.flip, -1.0, 1.0)
        angle = _uniform(count, -recipe.rotation, recipe.rotation, generator).deg2rad()
        slant = _uniform(count, -recipe.shear, recipe.shear, generator).deg2rad()
        scale_x = _uniform(count, 1 - recipe.zoom, 1 + recipe.zoom, generator)
        # Not drawn where nothing zooms: recipes without zoom keep the views that they had.
        scale_y = _uniform(count, 1 - recipe.zoom, 1 + recipe.zoom, generator) if recipe.zoom else scale_x
        # Rotation, shear, zoom, as in Keras 2's `apply_affine_transform`; its shear tilts the columns alone.
        cos, sin = angle.cos(), angle.sin()
        column_x, column_y = cos * slant.cos() + sin * slant.sin(), sin * slant.cos() - cos * slant.sin()
        turn = torch.stack([column_x * scale_x, -sin * scale_y, column_y * scale_x, cos * scale_y], dim=1)
        turn = turn.view(-1, 2, 2)
        # Angles are those of the view, a square; its sides may stand for unlike numbers of image pixels.
        half = torch.stack([wide, tall], dim=1) / 2
        linear = half[:, :, None] * turn
        linear = torch.stack([linear[:, :, 0] * flip[:, None], linear[:, :, 1]], dim=2)
        matrix = torch.cat([linear, torch.stack([x, y], dim=1)[:, :, None]], dim=2)
        as_is = torch.zeros_like(matrix)
        as_is[:, 0, 0], as_is[:, 1, 1] = (boxes[:, 2] - boxes[:, 0]) / 2, (boxes[:, 3] - boxes[:, 1]) / 2
        as_is[:, 0, 2], as_is[:, 1, 2] = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
        return torch.where(plain[:, None, None], as_is, matrix), zoomed_out & ~plain

    def sample(
        self, images: Tensor, sizes: Tensor, matrix: Tensor, zoomed_out: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Read the views' pixels; `matrix` (N, 2, 3) is of `geometry`."""
        device = images.device
        cut = zoomed_out if self.backgrounds is not None else torch.zeros_like(zoomed_out)
        spread = matrix[:, :, :2].abs().amax(dim=(1, 2)) * (2 / self.size)  # image pixels a view pixel
        fine = spread > SUPERSAMPLED
        views = torch.empty(len(images), 3, self.size, self.size, device=device)
        uncovered = torch.zeros(len(images), 1, self.size, self.size, device=device)
        for factor, chosen in ((1, ~fine), (2, fine)):
            if bool(chosen.any()):
                rows = chosen.to(device)
                views[rows], uncovered[rows] = self._read(
                    images[rows], sizes[chosen], matrix[chosen], cut[chosen], factor
                )
        if self.backgrounds is not None and bool(cut.any()):
            drawn = torch.randint(len(self.backgrounds), (len(images),), generator=generator)[cut]
            line = _line(self.size, device)
            whole = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)[None]
            scenes = _sampled(self.backgrounds[drawn.to(device)], whole)
            rows = cut.to(device)
            views[rows] += uncovered[rows] * scenes
        return views

    def _read(
        self, images: Tensor, sizes: Tensor, matrix: Tensor, cut: Tensor, factor: int
    ) -> tuple[Tensor, Tensor]:
        """Views as means of `factor` x `factor` samples, and which share of each pixel an image leaves free.

        Only images that are `cut` out leave any, and there they are black; the edges of others repeat.
        """
        device, side = images.device, self.size * factor
        extent = torch.tensor([images.shape[3], images.shape[2]], device=device)
        to_grid = (matrix.to(device) * (2 / extent)[:, None])[:, None, None]  # (N, 1, 1, x and y, 3)
        line = _line(side, device)
        grid = to_grid[..., 0] * line[:, None] + (to_grid[..., 1] * line[:, None, None] + to_grid[..., 2] - 1)
        ends = (sizes.to(device).flip(1) * (2 / extent) - 1).view(-1, 1, 1, 2)
        uncovered = torch.zeros(len(images), 1, 1, 1, device=device)
        if bool(cut.any()):
            outside = ((grid < -1) | (grid > ends)).any(dim=-1)[:, None]
            uncovered = (outside & cut.to(device).view(-1, 1, 1, 1)).float()
        grid = torch.minimum(torch.maximum(grid, 1 / extent - 1), ends - 1 / extent)
        views = _sampled(images, grid)
        if bool(cut.any()):
            views *= 1 - uncovered
            uncovered = avg_pool2d(uncovered, factor)
        return avg_pool2d(views, factor) if factor > 1 else views, uncovered

    def change(self, views: Tensor, plain: Tensor, generator: torch.Generator) -> Tensor:
        """Two random changes of each view, of shape or color."""
        transform = RandAugment(magnitude=self.recipe.rand_augment, interpolation=InterpolationMode.BILINEAR)
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the generator of all
            torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
            changed = torch.stack([transform(view) for view in views.mul(255).round().byte()])
        return torch.where(plain.to(views.device).view(-1, 1, 1, 1), views, changed.float().div(255))

    def jitter(self, views: Tensor, plain: Tensor, generator: torch.Generator) -> Tensor:
        """Brightness, contrast and saturation, each times a random factor near 1."""
        change = self.recipe.color_jitter
        factors = _uniform(3 * len(views), max(0.0, 1 - change), 1 + change, generator).view(3, -1, 1, 1, 1)
        factors = torch.where(plain.view(1, -1, 1, 1, 1), 1.0, factors).to(views.device)
        luma = torch.tensor(LUMA, device=views.device).view(1, 3, 1, 1)
        views = (views * factors[0]).clamp(0, 1)
        mean = (views * luma).sum(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True)
        views = (mean + (views - mean) * factors[1]).clamp(0, 1)
        grey = (views * luma).sum(dim=1, keepdim=True)
        return (grey + (views - grey) * factors[2]).clamp(0, 1)


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator) * (high - low) + low


def _line(side: int, device: torch.device) -> Tensor:
    """The centres of a view's pixels along one side, in [-1, 1]."""
    return (torch.arange(side, device=device) + 0.5) * (2 / side) - 1


def _sampled(images: Tensor, grid: Tensor) -> Tensor:
    """Bilinear samples in [0, 1] of uint8 images (N, 3, H, W) at a grid of places in [-1, 1]."""
    grid = grid.expand(len(images), *grid.shape[1:])
    return grid_sample(
        images.to(torch.float32).div_(255), grid, mode="bilinear", padding_mode="border", align_corners=False
    )


def padded(images: Sequence[Tensor], extent: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
    """Images (3, h, w) of any size as one block (N, 3, H, W), each in its upper left corner; (N, 2) sizes.

    H and W are the `extent`, or the largest height and width.
    """
    sizes = torch.tensor([image.shape[1:] for image in images])
    height, width = extent or sizes.amax(dim=0).tolist()
    block = torch.zeros(len(images), 3, height, width, dtype=torch.uint8)
    for row, image in zip(block, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    return block, sizes


class TrainingBatches:
    """All training images on the device, and the batches of any epoch.

    Memory on the device: 3 bytes a pixel of the largest height times the largest width, for each image. Of
    images that are streamed, which give the same batches, there is one batch at a time.
    """

    def __init__(
        self,
        data: LabelledImages,
        recipe: Recipe,
        device: str = "cpu",
        backgrounds: Sequence[NDArray[np.uint8]] = (),
    ) -> None:
        self.recipe, self.device, self.labels = recipe, device, data.labels
        self.streamed = data.images if isinstance(data.images, Streamed) else None
        if self.streamed is None:
            block, self.sizes = padded([_channels_first(image) for image in data.images])
            self.images = block.to(device)
        self.targets = torch.tensor(data.targets)
        self.backgrounds = None
        if backgrounds and recipe.zoom_out:
            side = self.images.shape[-1] if self.streamed is None else self.streamed.extent[1]
            scenes = [_squared(image, side) for image in backgrounds]
            self.backgrounds = torch.stack(scenes).to(device)

    def epoch(self, number: int, *, rank: int = 0, world: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """Views in [0, 1] and targets of epoch `number`, counted from 0, for process `rank` of `world`.

        The same seed and number give the same batches, on any device. The recipe's batch is shared out, so
        the number of processes changes neither the steps nor the images of a step. Raises TrainingError
        where it cannot be shared evenly.
        """
        augment, generator = self._augment(number, rank)
        order = self.order(number, rank=rank, world=world)
        for rows, (images, sizes) in zip(order, self._read(order), strict=True):
            yield augment(images, sizes, generator), self.targets[rows].to(self.device)

    def in_order(self, number: int, batch_size: int = 64) -> Iterator[Tensor]:
        """A view of every image once and in order, in [0, 1]; the same ones whatever the recipe's seed."""
        augment, generator = self._augment(number, 0)
        generator.manual_seed(number)
        rows = torch.split(torch.arange(len(self.targets)), batch_size)
        for images, sizes in self._read([some.tolist() for some in rows]):
            yield augment(images, sizes, generator)

    def _read(self, order: Sequence[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """The images of each batch as one block on the device, and their sizes."""
        if self.streamed is None:
            for rows in order:
                yield self.images[torch.tensor(rows, device=self.device)], self.sizes[rows]
            return
        images = iter(self.streamed.pick(chain.from_iterable(order)))
        for rows in order:
            block, sizes = padded([_channels_first(next(images)) for _ in rows], self.streamed.extent)
            yield block.to(self.device), sizes

    def order(self, number: int, *, rank: int = 0, world: int = 1) -> list[list[int]]:
        """Which images each batch of epoch `number` has, for process `rank` of `world`."""
        recipe = self.recipe
        if recipe.batch_size % world:
            raise TrainingError(
                f"A batch of {recipe.batch_size} cannot be shared among {world} processes; "
                f"use --set batch_size={-(-recipe.batch_size // world) * world}."
            )
        seed = self._seed(number)
        targets = self.targets.tolist()
        order: list[int] = []
        for again in range(recipe.repeats):
            order += epoch_order(targets, balanced=recipe.balanced, seed=seed + 5_000_011 * again)
        if len(order) >= recipe.batch_size:
            order = order[: len(order) // recipe.batch_size * recipe.batch_size]
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
    return max(1, images * recipe.repeats // recipe.batch_size)


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


def _channels_first(image: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)


def _squared(image: NDArray[np.uint8], side: int) -> Tensor:
    """An image squashed to a square, uint8 (3, side, side)."""
    whole = _channels_first(image)[None].to(torch.float32)
    scaled = torch.nn.functional.interpolate(whole, (side, side), mode="bilinear", antialias=True)
    return scaled[0].round().to(torch.uint8)
