"""Masked autoencoding of unlabelled images with any timm CNN: a backbone that has seen a folder, no labels.

FCMAE (Woo et al. 2023, arXiv 2301.00808) computes convolutions at the visible positions alone, by a CUDA
extension. Here the maps stay dense, as in SparK (Tian et al. 2023, arXiv 2301.03580): see `Masked`. A light
decoder, one ConvNeXt V2 block, predicts the pixels of the hidden patches, each normalized to its own mean
and deviation (He et al. 2022, arXiv 2111.06377); the loss is of these patches alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from timm.layers.eca import EcaModule
from timm.layers.grn import GlobalResponseNorm
from timm.layers.squeeze_excite import EffectiveSEModule, SEModule, SqueezeExciteCl
from timm.models._efficientnet_blocks import SqueezeExcite
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d, interpolate, pixel_shuffle
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.transforms.v2.functional import normalize
from tqdm import tqdm

from pawmatch.checkpoint.backbone import save_backbone
from pawmatch.errors import TrainingError
from pawmatch.images import InputSpec
from pawmatch.models.backbone import create_backbone
from pawmatch.training.augment import TrainingBatches, steps_per_epoch
from pawmatch.training.data import (
    DECODED_SIDE,
    LabelledImages,
    ValidationBatches,
    decode_all,
    fingerprint,
    list_images,
)
from pawmatch.training.distributed import sole_writer
from pawmatch.training.loop import RunState, Settings, write_curve
from pawmatch.training.optim import Optimization
from pawmatch.training.recipe import parse_recipe

HIDDEN = 0.6  # share of the patches, as the paper found best
PATCH, SMALL_PATCH = 32, 16  # pixels
SMALL_IMAGE = 128  # pixels; images below it have the smaller patches
DECODER_WIDTH = 128  # the paper has 512, for images of 224 px
MIN_IMAGES = 16
MAX_HELD_OUT = 64  # images that the run is followed by
SHEET_IMAGES = 8
SHEET_FILE = "reconstructions.png"
SETTINGS = Settings()
DEFAULTS: dict[str, Any] = {
    "name": "fcmae",
    "task": "pretraining",
    "family": "hybrid",
    "license": "not stated; whoever owns the training images decides",
    "epochs": 100,
    "learning_rate": 2e-3,
    "warmup": 0.1,
    "color_jitter": 0.0,  # colors are what is predicted
    "input": {"size": 96, "resize": "squash", "mean": [0.5] * 3, "std": [0.5] * 3},
}
# What mixes positions, or takes statistics over them, beside BatchNorm. Layers of one position need nothing.
MIXING = (
    nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.GroupNorm, nn.InstanceNorm2d,
    GlobalResponseNorm, SqueezeExcite, SqueezeExciteCl, SEModule, EffectiveSEModule, EcaModule,
)  # fmt: skip


@dataclass(frozen=True)
class PretrainingEpoch:
    """What one epoch came to; losses are mean squared errors of normalized pixels."""

    number: int
    size: int
    train_loss: float | None
    val_loss: float
    seconds: float
    learning_rate: float

    def line(self, total: int) -> str:
        """The epoch as the one line that a run prints."""
        loss = "none" if self.train_loss is None else f"{self.train_loss:.3f}"
        return (
            f"epoch {self.number:3d}/{total}  {self.size} px  loss {loss}  val loss {self.val_loss:.3f}  "
            f"{self.seconds:.0f} s"
        )


class Masked(nn.Module):
    """A CNN whose maps at visible positions depend on visible pixels alone, and on nothing at hidden ones.

    Before each layer that mixes positions, the map is multiplied by the mask, brought to the map's grid:
    there a hidden position is a zero, as outside the image. BatchNorm gets the visible positions as a list,
    so that its statistics, the running ones too, count nothing else. Global response normalization is a sum
    over positions, to which zeros add nothing. Squeeze and excitation takes a mean in which hidden
    positions count as zeros. Where a position of a coarse map covers several patches, it is visible as soon
    as one of them is; the finer maps below it have hidden the others.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.visible: Tensor | None = None  # (N, 1, g, g) of the forward pass under way
        self._places: Tensor | None = None  # visible positions (N, h, w) of a BatchNorm's map
        for layer in network.modules():
            if isinstance(layer, _BatchNorm):
                layer.register_forward_pre_hook(self._listed)
                layer.register_forward_hook(self._placed)
            elif isinstance(layer, MIXING) and getattr(layer, "kernel_size", None) != (1, 1):
                layer.register_forward_pre_hook(self._hidden)

    def forward(self, images: Tensor, visible: Tensor) -> Tensor:
        """Images (N, 3, H, W) and which patches are visible, bool (N, 1, g, g) -> last map (N, C, h, w)."""
        self.visible = visible.float()
        try:
            feature_map: Tensor = self.network.forward_features(images)  # type: ignore[operator]
            return feature_map * self.mask(*feature_map.shape[2:])
        finally:
            self.visible = None

    def mask(self, height: int, width: int) -> Tensor:
        """The mask (N, 1, height, width) on a map's grid, 1 where it is visible."""
        assert self.visible is not None
        side = self.visible.shape[-1]
        if height == width and height % side == 0:
            return interpolate(self.visible, (height, width))
        if height == width and side % height == 0:
            return adaptive_max_pool2d(self.visible, (height, width))
        raise TrainingError(
            f"The network has a map of {height} x {width} positions, on which {side} x {side} patches do not "
            "lie; take another backbone, such as convnextv2_atto."
        )

    def _hidden(self, layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        (maps,) = inputs
        if self.visible is None or maps.ndim != 4:
            return None
        if getattr(layer, "channel_dim", 1) == -1 or isinstance(layer, SqueezeExciteCl):
            return (maps * self.mask(*maps.shape[1:3]).permute(0, 2, 3, 1),)
        return (maps * self.mask(*maps.shape[2:]),)

    def _listed(self, layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        (maps,) = inputs
        self._places = None
        if self.visible is None or maps.shape[2:] == (1, 1):  # a pooled vector has no hidden positions
            return None
        self._places = self.mask(*maps.shape[2:])[:, 0] > 0  # (N, h, w)
        return (maps.permute(0, 2, 3, 1)[self._places][:, :, None, None],)  # (visible positions, C, 1, 1)

    def _placed(self, layer: nn.Module, inputs: tuple[Tensor], rows: Tensor) -> Tensor | None:
        if self._places is None:
            return None
        maps = rows.new_zeros(*self._places.shape, rows.shape[1])
        maps[self._places] = rows[:, :, 0, 0]
        return maps.permute(0, 3, 1, 2)


@torch.no_grad()
def check_masking(network: nn.Module, size: int, side: int) -> None:
    """Raise TrainingError where noise at hidden positions of a convolution's map changes the last one.

    Scales and weights that begin at zero get random values: they would hide what is yet to come.
    """

    def disturb(layer: nn.Module, inputs: tuple[Tensor], maps: Tensor) -> Tensor | None:
        if maps.shape[2:] == (1, 1):
            return None
        return maps + (1 - masked.mask(*maps.shape[2:])) * torch.randn_like(maps)

    masked = Masked(network).eval()
    for values in network.parameters():
        if values.ndim == 1 or not values.any():
            values.normal_()
    images, visible = torch.randn(2, 3, size, size), random_masks(2, side)
    try:
        expected = masked(images, visible)
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(disturb)
        same = torch.equal(expected, masked(images, visible))
    except RuntimeError:  # of networks that take one size alone
        same = False
    if not same:
        raise TrainingError(
            f"The network's maps cannot be masked at {size} px: it has layers that mix positions in ways "
            "that are not known here; take another backbone, such as convnextv2_atto."
        )


class Autoencoder(nn.Module):
    """A masked CNN, and the decoder that predicts what it has not seen."""

    def __init__(self, network: nn.Module, *, size: int) -> None:
        super().__init__()
        self.patch = patch_of(size)
        self.side = size // self.patch
        self.encoder = Masked(network)
        with torch.no_grad():  # in evaluation mode, so that BatchNorm's statistics stay as they are
            last: Tensor = network.eval().forward_features(torch.zeros(1, 3, size, size))  # type: ignore[operator]
        width, self.stride = DECODER_WIDTH, size // last.shape[-1]
        self.projection = nn.Conv2d(last.shape[1], width, 1)
        self.token = nn.Parameter(torch.zeros(1, width, 1, 1))
        nn.init.normal_(self.token, std=0.02)
        self.block = ConvNeXtBlock(width, use_grn=True, ls_init_value=None)
        self.prediction = nn.Conv2d(width, 3 * self.stride**2, 1)

    def forward(self, images: Tensor, visible: Tensor) -> Tensor:
        """Images (N, 3, H, W), visible patches (N, 1, g, g) -> normalized pixels (N, g, g, 3 * patch**2)."""
        maps = self.projection(self.encoder(images, visible))
        seen = adaptive_max_pool2d(visible.float(), maps.shape[2:]) > 0
        maps = self.block(torch.where(seen, maps, self.token.to(maps.dtype)))
        return self.patches(pixel_shuffle(self.prediction(maps), self.stride))

    def patches(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> their patches (N, g, g, 3 * patch**2)."""
        n, g, p = len(images), self.side, self.patch
        return images.reshape(n, 3, g, p, g, p).permute(0, 2, 4, 1, 3, 5).reshape(n, g, g, -1)

    def image(self, patches: Tensor) -> Tensor:
        """The images of which `patches` gives the patches."""
        n, g, p = len(patches), self.side, self.patch
        return patches.reshape(n, g, g, 3, p, p).permute(0, 3, 1, 4, 2, 5).reshape(n, 3, g * p, g * p)

    def loss(self, images: Tensor, visible: Tensor) -> Tensor:
        """Mean squared error of the hidden patches' normalized pixels; 1.0 for a guess of their means."""
        target, _, _ = normalized(self.patches(images))
        hidden = ~visible[:, 0]
        error: Tensor = self(images, visible).float()[hidden] - target[hidden]
        return error.square().mean()

    @torch.no_grad()
    def reconstruction(self, images: Tensor, visible: Tensor) -> Tensor:
        """Images (N, 3, H, W) whose hidden patches are predicted, with their own mean and deviation."""
        patches = self.patches(images)
        _, mean, deviation = normalized(patches)
        predicted = self(images, visible).float() * deviation + mean
        return self.image(torch.where(visible[:, 0, :, :, None], patches, predicted))


def patch_of(size: int) -> int:
    """Side in pixels of the patches of images of `size` px."""
    return SMALL_PATCH if size < SMALL_IMAGE else PATCH


def normalized(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Patches (..., pixels) with mean 0 and deviation 1, and the mean and deviation that they had."""
    mean, deviation = patches.mean(dim=-1, keepdim=True), (patches.var(dim=-1, keepdim=True) + 1e-6).sqrt()
    return (patches - mean) / deviation, mean, deviation


def random_masks(count: int, side: int, generator: torch.Generator | None = None) -> Tensor:
    """Which patches are visible, bool (count, 1, side, side): the same number of each image."""
    order = torch.rand(count, side * side, generator=generator).argsort(dim=1).argsort(dim=1)
    return (order >= round(HIDDEN * side * side)).view(count, 1, side, side)


def pretrain(
    data: Sequence[Path],
    backbone: str,
    out: Path,
    *,
    overrides: Sequence[str] = (),
    settings: Settings = SETTINGS,
    report: Callable[[str], None] = print,
) -> Path:
    """Pretrain timm's CNN `backbone` on folders of images, nested or not, and write it to `out`.

    The folder is one that `--init` takes, with history.csv and a sheet of reconstructions of images that
    were held out. `overrides` are `key=value` texts for the recipe that DEFAULTS are. Cut at any moment, the
    same call goes on after its last whole epoch. Raises TrainingError for too few images, sizes that do not
    fit and networks that cannot be masked, UnsupportedBackbone for what is no CNN.
    """
    recipe = parse_recipe(deepcopy(DEFAULTS), overrides)
    spec = InputSpec.from_dict(recipe.input)
    if spec.size % PATCH:
        raise TrainingError(f"Images of {spec.size} px hold no whole patches; use a multiple of {PATCH}.")
    torch.manual_seed(recipe.seed)
    check_masking(create_backbone(backbone), spec.size, spec.size // patch_of(spec.size))
    model = Autoencoder(create_backbone(backbone), size=spec.size)
    with sole_writer(out):
        everything = decode_all(list_images(data), long_side=max(DECODED_SIDE, spec.size))
        train, held_out = hold_out(everything)
        counts = (len(part) for part in (train.images, held_out.images, everything.skipped))
        report("{} images, {} held out, {} skipped".format(*counts))
        model.to(settings.device).to(memory_format=torch.channels_last)
        steps = steps_per_epoch(len(train.images), recipe) * recipe.epochs
        optimization = Optimization(
            model, recipe, steps=steps, device=settings.device, precision=settings.autocast
        )
        identity = {"backbone": backbone, "data": fingerprint(everything)}
        state = RunState(out, recipe, identity, model, optimization, entry=PretrainingEpoch)
        history, batches = state.resume(), TrainingBatches(train, recipe, settings.device)
        judge = Judge(ValidationBatches(held_out, spec), model.side, settings.device)
        while len(history) < recipe.epochs:
            started, index = time.monotonic(), len(history)
            torch.manual_seed(recipe.seed * 100_003 + index)
            model.train()
            total, seen = 0.0, 0
            for views, _ in tqdm(batches.epoch(index), f"epoch {index + 1}", leave=False, disable=None):
                images = normalize(views, list(spec.mean), list(spec.std))
                images = images.contiguous(memory_format=torch.channels_last)
                visible = random_masks(len(images), model.side).to(settings.device)
                with optimization.autocast():
                    loss = model.loss(images, visible)
                if optimization.step(loss):
                    total, seen = total + loss.item() * len(images), seen + len(images)
            epoch = PretrainingEpoch(
                number=index + 1,
                size=spec.size,
                train_loss=total / seen if seen else None,
                val_loss=judge.loss(model),
                seconds=time.monotonic() - started,
                learning_rate=optimization.learning_rate,
            )
            if not math.isfinite(epoch.val_loss):
                raise TrainingError(
                    f"The loss is no finite number any more in epoch {index + 1}; lower learning_rate and "
                    "start again with another --out."
                )
            history.append(epoch)
            report(epoch.line(recipe.epochs))
            judge.sheet(model, spec).save(out / SHEET_FILE)
            write_curve(history, out)
            state.save(history)
        about = (
            f"{backbone}, pretrained without labels on {len(train.images)} images as a masked autoencoder "
            f"(FCMAE, Woo et al. 2023) for {recipe.epochs} epochs at {spec.size} px; loss "
            f"{history[-1].val_loss:.3f} on hidden patches of {model.patch} px of images that were held out."
        )
        config = {"backbone": backbone, "input": spec.to_dict(), "license": recipe.license, "about": about}
        save_backbone(out, model.encoder.network, None, config)
        report(f"wrote {out}; start from it with --init {out}")
    return out


def hold_out(images: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
    """Images to learn from, and a tenth or fewer to follow the run by."""
    count = len(images.images)
    if count < MIN_IMAGES:
        raise TrainingError(f"There are {count} images that can be read; give {MIN_IMAGES} or more.")
    held = images.sample(min(MAX_HELD_OUT, count // 10))
    rows = [row for row, file in enumerate(images.files) if file not in set(held.files)]
    rest = replace(
        images,
        images=tuple(images.images[row] for row in rows),
        targets=tuple(images.targets[row] for row in rows),
        files=tuple(images.files[row] for row in rows),
    )
    return rest, held


class Judge:
    """Follows a run by images that it does not learn from, always with the same patches hidden."""

    def __init__(self, batches: Sequence[Tensor], side: int, device: str) -> None:
        self.images = torch.cat(list(batches)).to(device, memory_format=torch.channels_last)
        generator = torch.Generator().manual_seed(0)
        self.visible = random_masks(len(self.images), side, generator).to(device)

    @torch.no_grad()
    def loss(self, model: Autoencoder) -> float:
        """The loss of all of them."""
        model.eval()
        return float(model.loss(self.images, self.visible))

    def sheet(self, model: Autoencoder, spec: InputSpec) -> Image.Image:
        """Three rows of pictures: what is visible, what the model makes of it, what it is."""
        images, visible = self.images[:SHEET_IMAGES], self.visible[:SHEET_IMAGES]
        seen = model.image(model.patches(images) * visible[:, 0, :, :, None])  # the hidden ones are grey
        rows = [torch.cat(list(row), dim=2) for row in (seen, model.reconstruction(images, visible), images)]
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (spec.mean, spec.std))
        pixels = (torch.cat(rows, dim=1).cpu() * std + mean).clamp(0, 1).mul(255).round()
        return Image.fromarray(pixels.byte().permute(1, 2, 0).numpy())
