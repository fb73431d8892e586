"""Random views of a batch of images, made at once on the device that trains.

What moves, crops, flips and shrinks an image into a larger scene is one affine map from the view's pixels
back to the image's, so that every pixel is sampled once. Random numbers come from the CPU, the same on any
device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample
from torchvision.transforms.v2 import RandAugment

from pawmatch.preprocess import InputSpec
from pawmatch.training.recipe import Recipe

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
        self.rand_augment = RandAugment(magnitude=recipe.rand_augment) if recipe.rand_augment else None

    def __call__(self, images: Tensor, sizes: Tensor, generator: torch.Generator) -> Tensor:
        """Views of `images` (N, 3, H, W) uint8, each of which fills `sizes` (N, 2) of it: height, width."""
        plain = _uniform(len(images), 0, 1, generator) < self.recipe.plain
        matrix, zoomed_out = self.geometry(sizes.cpu(), plain, generator)
        views = self.sample(images, sizes, matrix, zoomed_out, generator)
        if self.rand_augment is not None:
            levels = views.mul(255).round().to(torch.uint8)
            changed = torch.stack([self.rand_augment(view) for view in levels]).to(torch.float32) / 255
            views = torch.where(plain.to(views.device).view(-1, 1, 1, 1), views, changed)
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
        slant = _uniform(count, -recipe.shear, recipe.shear, generator)
        scale = _uniform(count, 1 - recipe.zoom, 1 + recipe.zoom, generator)
        cos, sin = angle.cos() * scale, angle.sin() * scale
        turn = torch.stack([cos, cos * slant - sin, sin, sin * slant + cos], dim=1).view(-1, 2, 2)
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
        steps = matrix[:, :, :2].abs().amax(dim=(1, 2)) * 2 / self.size  # image pixels to a view pixel
        factors = torch.where(steps > SUPERSAMPLED, 2, 1)
        views = torch.empty(len(images), 3, self.size, self.size, device=device)
        chosen = torch.zeros(len(images), dtype=torch.long)
        if self.backgrounds is not None:
            chosen = torch.randint(len(self.backgrounds), (len(images),), generator=generator)
        for factor in torch.unique(factors).tolist():
            rows = (factors == factor).nonzero().flatten()
            here = rows.to(device)
            views[here] = self._sampled_at(
                factor, images[here], sizes[rows], matrix[rows], zoomed_out[rows], chosen[rows]
            )
        return views

    def _sampled_at(
        self, factor: int, images: Tensor, sizes: Tensor, matrix: Tensor, zoomed_out: Tensor, chosen: Tensor
    ) -> Tensor:
        """Views of which each pixel is the mean of factor x factor samples."""
        device, side = images.device, self.size * factor
        line = (torch.arange(side, device=device) + 0.5) * (2 / side) - 1
        rows, columns = torch.meshgrid(line, line, indexing="ij")
        places = torch.stack([columns, rows, torch.ones_like(rows)], dim=-1).view(1, -1, 3)
        pixels = (places @ matrix.to(device).transpose(1, 2)).view(-1, side, side, 2)  # x, y from the edge
        ends = sizes.to(device).flip(1).view(-1, 1, 1, 2).float()
        inside = torch.minimum(pixels.clamp(min=0.5), ends - 0.5)
        extent = torch.tensor([images.shape[3], images.shape[2]], device=device)
        views = _sampled(images, inside / extent * 2 - 1)
        if self.backgrounds is not None and bool(zoomed_out.any()):
            small = zoomed_out.nonzero().flatten().to(device)
            scenes = _sampled(
                self.backgrounds[chosen.to(device)[small]], places.view(1, side, side, 3)[..., :2]
            )
            outside = ((pixels[small] < 0) | (pixels[small] > ends[small])).any(dim=-1)[:, None]
            views[small] = torch.where(outside, scenes, views[small])
        return avg_pool2d(views, factor) if factor > 1 else views

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


def _sampled(images: Tensor, grid: Tensor) -> Tensor:
    """Bilinear samples in [0, 1] of uint8 images (N, 3, H, W) at a grid of places in [-1, 1]."""
    grid = grid.expand(len(images), *grid.shape[1:])
    return grid_sample(
        images.to(torch.float32).div_(255), grid, mode="bilinear", padding_mode="border", align_corners=False
    )


def padded(images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Images (3, h, w) of any size as one block (N, 3, H, W), each in its upper left corner; (N, 2) sizes."""
    sizes = torch.tensor([image.shape[1:] for image in images])
    height, width = sizes.amax(dim=0).tolist()
    block = torch.zeros(len(images), 3, height, width, dtype=torch.uint8)
    for row, image in zip(block, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    return block, sizes
