"""Heatmaps: Grad-CAM of the head alone, its overlay on the photo, and sheets of several side by side.

The gradient runs from a logit back to the feature map and no further: that is all that Grad-CAM needs
(Selvaraju et al. 2017, arXiv 1610.02391), and it costs a fraction of a full backward pass. It is multiplied
with the map position by position, as HiResCAM does (Draelos and Carin 2020, arXiv 2011.08891). Under an
average pool the gradient is the same at every position, and this is Grad-CAM; where positions attend to each
other it is not, and Grad-CAM, which averages it first, finds nothing at all in two photos of five.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pawmatch.errors import BadOption
from pawmatch.labels import COLORMAPS, VARIANT_NAMES, words_of
from pawmatch.models import ImageModel
from pawmatch.phrasing import percent
from pawmatch.results import Explanation, Heatmap, VariantAnswer

# Share of the strength that the coldest colour gets: the photo stays legible where nothing was found.
COLD_SHARE = 0.35
LONG_SIDE = 480  # pixels of one picture on the sheet
SQUARE_BOX = (480, 400)  # pixels of one picture's place where sheets of many photos stand side by side
PANEL = "#f3f1ee"  # around a picture that does not fill its place
GAP = 16
BACKGROUND = "white"
INK = "#1c1c1c"
LINE_HEIGHT = 1.3  # of the size of its letters


class Cam(NamedTuple):
    """A class activation map on the feature map's own grid, scaled to [0, 1], and its raw maximum."""

    values: NDArray[np.float32]
    raw_max: float


class HeadOutput(NamedTuple):
    """A head's logits (V, classes), and the feature maps (V, C, h, w) to which their gradient leads back."""

    source: Tensor
    logits: Tensor


def run_head(model: ImageModel, feature_maps: Tensor) -> HeadOutput:
    """Run the head on feature maps (V, C, h, w), so that a gradient leads from its logits back to them.

    The model must be in evaluation mode. Its parameters get no gradient, and nothing is stored on it, so
    threads may share it.
    """
    with torch.enable_grad():
        source = feature_maps.detach().requires_grad_(True)
        return HeadOutput(source, model.forward_head(source))


def evidence(head: HeadOutput, classes: Tensor | int) -> Tensor:
    """How much each place of a map speaks for a class, (N, h, w), for the first N maps and `classes` (N,).

    It is the part of the class's logit that comes from there, and 0 where that is negative. One class is
    that of the first map.
    """
    wanted = torch.as_tensor(classes, device=head.logits.device).reshape(-1)
    with torch.enable_grad():
        logit = head.logits[: len(wanted)].gather(1, wanted[:, None]).sum()
    (gradient,) = torch.autograd.grad(logit, head.source, retain_graph=True)
    return (gradient * head.source.detach())[: len(wanted)].sum(dim=1).relu()


def grad_cam(model: ImageModel, feature_map: Tensor, index: int) -> Cam:
    """Grad-CAM of class `index` for one feature map (1, C, h, w)."""
    return scaled_cam(evidence(run_head(model, feature_map), index))


def scaled_cam(found: Tensor) -> Cam:
    """Evidence (1, h, w) scaled so that the lowest becomes 0 and the highest 1; all 0 where there is none."""
    raw = found[0].float().cpu()
    span = raw.max() - raw.min()
    values = (raw - raw.min()) / span if span > 0 else torch.zeros_like(raw)
    return Cam(values.numpy(), float(raw.max()))


def relative_strength(most: float, most_of_first: float, odds: float) -> float:
    """How strongly a label's map may glow beside the first choice's, whose map reaches 1.

    `most` and `most_of_first` are the two maps' highest raw values. A label that is ruled out has evidence
    somewhere, too, outweighed elsewhere: the ratio of the two confidences, `odds`, counts with its square
    root, so that a second choice is still seen.
    """
    return min(1.0, most / most_of_first if most_of_first > 0 else 1.0) * math.sqrt(min(1.0, odds))


def overlay(
    image: Image.Image, heatmap: Heatmap, *, colormap: str = "jet", strength: float = 0.6
) -> Image.Image:
    """The photo with the heatmap laid over it, at the photo's own size.

    `strength` in [0, 1] is the opacity of the hottest spot. Where the map found nothing at all
    (`raw_max` is 0) the photo is returned unchanged. Raises BadOption for an unknown colour map or a
    strength out of range.
    """
    _check_strength(strength)
    table = _color_table(colormap)
    if heatmap.raw_max <= 0:
        return image.copy()
    # Bilinear resizing and the opacity are linear, so the opacity is worked out on the coarse map. OpenCV
    # then mixes bytes, several times faster than the same in arrays of fractions.
    pixels = np.array(image, dtype=np.uint8)
    left, top, right, bottom = heatmap.edges
    part = pixels[top:bottom, left:right]
    size = (right - left, bottom - top)
    opacity = cv2.resize(strength * (COLD_SHARE + (1 - COLD_SHARE) * heatmap.cam), size)
    levels = (cv2.resize(heatmap.cam, size) * 255).astype(np.uint8)
    colors = cv2.applyColorMap(levels, table.reshape(-1, 1, 3))
    part[...] = cv2.blendLinear(np.ascontiguousarray(part), colors, 1 - opacity, opacity)
    return Image.fromarray(pixels)


def overlap(one: Heatmap, other: Heatmap) -> float:
    """How much of their heat two heatmaps of one image have in common, in [0, 1]; 0 if one has none.

    It is the intersection of both maps, each scaled to a sum of 1 (Swain and Ballard 1991).
    """
    shares: list[NDArray[Any]] = [
        heatmap.cam / max(float(heatmap.cam.sum()), 1e-9) for heatmap in (one, other)
    ]
    if shares[0].shape != shares[1].shape:
        height, width = shares[0].shape
        fitted = cv2.resize(shares[1], (width, height), interpolation=cv2.INTER_AREA)
        shares[1] = fitted / max(float(fitted.sum()), 1e-9)
    return float(np.minimum(*shares).sum())


class Overlays(Mapping[str, Image.Image]):
    """The photo with each variant's heatmap laid over it, drawn when it is asked for and then kept.

    An overlay of a large photo costs more than the forward pass of a small model, and many who explain
    want one of the three, or the map's values alone.
    """

    def __init__(
        self, photo: Image.Image, heatmaps: Mapping[str, Heatmap], *, colormap: str, strength: float
    ) -> None:
        _check_strength(strength)
        _color_table(colormap)
        self._draw = partial(overlay, photo, colormap=colormap, strength=strength)
        self._heatmaps = heatmaps
        self._drawn: dict[str, Image.Image] = {}

    def __getitem__(self, variant: str) -> Image.Image:
        if variant not in self._drawn:
            self._drawn[variant] = self._draw(self._heatmaps[variant])
        return self._drawn[variant]

    def __iter__(self) -> Iterator[str]:
        return iter(self._heatmaps)

    def __len__(self) -> int:
        return len(self._heatmaps)


def colormap_stops(colormap: str, count: int = 9) -> list[str]:
    """`count` colours from low to high as "#rrggbb", for a legend."""
    table = _color_table(colormap)
    rows = np.linspace(0, 255, count).round().astype(int)
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in table[rows].tolist()]


def _check_strength(strength: float) -> None:
    if not 0 <= strength <= 1:
        raise BadOption(f"Strength {strength} is outside 0 to 1.")


def _color_table(colormap: str) -> NDArray[np.uint8]:
    """RGB (256, 3) of a colour map."""
    if colormap not in COLORMAPS:
        raise BadOption(f"Color map {colormap!r} is unknown; use one of {', '.join(COLORMAPS)}.")
    ramp = np.arange(256, dtype=np.uint8).reshape(-1, 1)
    bgr = cv2.applyColorMap(ramp, getattr(cv2, f"COLORMAP_{colormap.upper()}"))[:, 0]
    return np.ascontiguousarray(bgr[:, ::-1])


@dataclass(frozen=True)
class Letters:
    """Sizes of a caption's first line and of those below it, in pixels."""

    title: int
    text: int


BESIDE = Letters(title=18, text=15)
# Four pictures in a square are shown smaller than a row of three, on a phone at a third of their size.
IN_SQUARE = Letters(title=27, text=25)


@dataclass(frozen=True)
class Tile:
    """A picture and the lines beneath it, the first of which is its title."""

    picture: Image.Image
    lines: tuple[str, ...]


def draw_sheet(explanation: Explanation) -> Image.Image:
    """One row: each variant's overlay, beneath it the variant's name, answer, and the label looked for."""
    tiles = []
    for answer in explanation.prediction.variants:
        heatmap = explanation.heatmaps[answer.variant]
        shown = f"heatmap for: {explanation.name}, {percent(heatmap.confidence)}"
        lines = (title(answer), f"answer: {answer.name}, {percent(answer.confidence)}")
        tiles.append(
            Tile(
                scaled(explanation.overlays[answer.variant]),
                (*lines, found(heatmap, explanation.name, shown)),
            )
        )
    # A tall image leaves too little room for its text.
    widest = max(LONG_SIDE * 3 // 4, *(tile.picture.width for tile in tiles))
    highest = max(tile.picture.height for tile in tiles)
    return arrange(tiles, columns=len(tiles), letters=BESIDE, box=(widest, highest))


def draw_square_sheet(photo: Image.Image, explanation: Explanation, *, is_truth: bool) -> Image.Image:
    """The photo and the three overlays in a square, so that four captions can be read on a phone, too.

    `is_truth` says that the label whose evidence is shown is the true one, and not the first choice.
    """
    noun = words_of(explanation.prediction).noun
    why = f"the true {noun}" if is_truth else "the main model's answer"
    tiles = [Tile(scaled(photo, SQUARE_BOX), ("Heatmaps for", explanation.name, why))]
    for answer in explanation.prediction.variants:
        heatmap = explanation.heatmaps[answer.variant]
        own = f"{answer.name}, {percent(answer.confidence)}"
        other = f"{explanation.name}: {percent(heatmap.confidence)}"
        shown = "" if answer.label == explanation.label else other
        tiles.append(
            Tile(
                scaled(explanation.overlays[answer.variant], SQUARE_BOX),
                (title(answer), own, found(heatmap, explanation.name, shown)),
            )
        )
    return arrange(tiles, columns=2, letters=IN_SQUARE, box=SQUARE_BOX)


def title(answer: VariantAnswer) -> str:
    """The variant's display name."""
    return VARIANT_NAMES.get(answer.variant, answer.variant)


def found(heatmap: Heatmap, name: str, otherwise: str) -> str:
    """A line that says that there is little or nothing to see in the heatmap, if so."""
    if heatmap.raw_max <= 0:
        return f"no evidence for {name} anywhere"
    return f"little evidence for {name}: {percent(heatmap.confidence)}" if heatmap.is_weak else otherwise


def arrange(
    tiles: list[Tile],
    *,
    columns: int,
    letters: Letters,
    box: tuple[int, int],
    write: Callable[..., ImageFont.FreeTypeFont] | None = None,
) -> Image.Image:
    """Tiles in rows from left to right, each picture in the middle of a box (width, height), on white.

    `write` gives another font than `font` does.
    """
    width, height = box
    count = max(len(tile.lines) for tile in tiles)
    sizes = [letters.title if line == 0 else letters.text for line in range(count)]
    cell = height + GAP + round(LINE_HEIGHT * sum(sizes)) + GAP
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (GAP + columns * (width + GAP), GAP + rows * cell), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        left, top = GAP + column * (width + GAP), GAP + row * cell
        if tile.picture.size != box:
            draw.rectangle((left, top, left + width - 1, top + height - 1), fill=PANEL)
        inset = (width - tile.picture.width) // 2, (height - tile.picture.height) // 2
        sheet.paste(tile.picture, (left + inset[0], top + inset[1]))
        top += height + GAP // 2
        for place, (line, size) in enumerate(zip(tile.lines, sizes, strict=False)):
            letter = (write or font)(size, is_bold=place == 0)
            draw.text((left, top), fitting(line, letter, width), font=letter, fill=INK)
            top += round(LINE_HEIGHT * size)
    return sheet


def scaled(picture: Image.Image, box: tuple[int, int] = (LONG_SIDE, LONG_SIDE)) -> Image.Image:
    """The picture as large as it fits into a box (width, height)."""
    scale = min(box[0] / picture.width, box[1] / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


@cache
def font(size: int, *, is_bold: bool) -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib: Pillow's own would write "Cezanne" without its accent."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if is_bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def fitting(text: str, letters: ImageFont.FreeTypeFont, width: int) -> str:
    """The text cut to a width in pixels."""
    if letters.getlength(text) <= width:
        return text
    while text and letters.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"
