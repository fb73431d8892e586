"""Drawings to measure with: a Border Collie of shapes and hairs, and any picture as by pencil."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

SIDE = 480  # pixels of a drawing
BLACK, WHITE, AMBER, PINK = (28, 27, 30), (243, 241, 236), (150, 92, 32), (224, 128, 136)
Box = tuple[float, float, float, float]
Points = Sequence[tuple[float, float]]

# What stands in front comes later. Coordinates are shares of the side.
HEAD: list[tuple[tuple[int, int, int], Box | Points]] = [
    (BLACK, (0.12, 0.62, 0.88, 1.3)),
    (WHITE, (0.3, 0.6, 0.7, 1.2)),
    (BLACK, [(0.3, 0.36), (0.2, 0.1), (0.29, 0.08), (0.44, 0.22)]),
    (BLACK, [(0.7, 0.36), (0.8, 0.1), (0.71, 0.08), (0.56, 0.22)]),
    (BLACK, [(0.2, 0.1), (0.15, 0.2), (0.25, 0.18), (0.29, 0.08)]),
    (BLACK, [(0.8, 0.1), (0.85, 0.2), (0.75, 0.18), (0.71, 0.08)]),
    (BLACK, (0.26, 0.17, 0.74, 0.66)),
    (WHITE, [(0.47, 0.16), (0.53, 0.16), (0.55, 0.42), (0.62, 0.6), (0.38, 0.6), (0.45, 0.42)]),
    (WHITE, (0.37, 0.46, 0.63, 0.7)),
]
FACE: list[tuple[tuple[int, int, int], Box | Points]] = [
    (PINK, (0.46, 0.62, 0.54, 0.76)),
    (BLACK, (0.45, 0.47, 0.55, 0.54)),
    (BLACK, [(0.495, 0.53), (0.505, 0.53), (0.505, 0.61), (0.495, 0.61)]),
    (BLACK, [(0.41, 0.6), (0.5, 0.615), (0.59, 0.6), (0.5, 0.63)]),
    *((AMBER, (x - 0.032, 0.345, x + 0.032, 0.41)) for x in (0.39, 0.61)),
    *((BLACK, (x - 0.017, 0.358, x + 0.017, 0.395)) for x in (0.39, 0.61)),
    *((WHITE, (x - 0.002, 0.36, x + 0.01, 0.373)) for x in (0.39, 0.61)),
]
BODY: list[tuple[tuple[int, int, int], Box | Points]] = [
    (BLACK, [(0.78, 0.42), (0.95, 0.62), (0.93, 0.78), (0.84, 0.6)]),
    (WHITE, (0.88, 0.72, 0.97, 0.84)),
    *((BLACK, (x, 0.5, x + 0.1, 0.8)) for x in (0.32, 0.42, 0.7, 0.76)),
    *((WHITE, (x + 0.01, 0.68, x + 0.08, 0.9)) for x in (0.32, 0.42, 0.7, 0.76)),
    (BLACK, (0.28, 0.34, 0.88, 0.66)),
    (WHITE, (0.26, 0.32, 0.42, 0.66)),
    (BLACK, [(0.24, 0.2), (0.27, 0.06), (0.36, 0.17)]),
    (BLACK, (0.16, 0.14, 0.4, 0.4)),
    (WHITE, [(0.1, 0.3), (0.22, 0.24), (0.24, 0.16), (0.27, 0.3), (0.24, 0.38), (0.1, 0.37)]),
]
PROFILE: list[tuple[tuple[int, int, int], Box | Points]] = [
    (BLACK, (0.085, 0.295, 0.125, 0.335)),
    (AMBER, (0.21, 0.225, 0.235, 0.25)),
    (BLACK, (0.215, 0.23, 0.23, 0.245)),
]


def border_collie(*, frontal: bool) -> Image.Image:
    """A Border Collie on a meadow: its head from the front, or the dog from the side."""
    rows = np.linspace(0, 1, SIDE)[:, None, None]
    meadow = (1 - rows) * (150, 190, 150) + rows * (88, 138, 62)
    picture = Image.fromarray(np.repeat(meadow, SIDE, axis=1).astype(np.uint8))
    drawn = Image.new("RGBA", picture.size)
    shapes(drawn, HEAD if frontal else BODY)
    picture.paste(drawn, mask=drawn.getchannel("A"))
    hairs(picture, drawn, (0.5, 0.42) if frontal else (0.4, 0.3))
    shapes(picture, FACE if frontal else PROFILE)
    return picture


def shapes(picture: Image.Image, parts: Sequence[tuple[tuple[int, int, int], Box | Points]]) -> None:
    """Fill ellipses, given by their boxes, and polygons, given by their points."""
    draw = ImageDraw.Draw(picture)
    for color, part in parts:
        if isinstance(part, tuple):
            draw.ellipse([SIDE * edge for edge in part], fill=color)
        else:
            draw.polygon([(SIDE * x, SIDE * y) for x, y in part], fill=color)


def hairs(picture: Image.Image, drawn: Image.Image, center: tuple[float, float], count: int = 40_000) -> None:
    """Short strokes away from the center over what is drawn, in its colors, some lighter, some darker."""
    rng = np.random.default_rng(0)
    colors = np.asarray(drawn)
    draw = ImageDraw.Draw(picture)
    for x, y in rng.integers(0, SIDE, (count, 2)).tolist():
        if not colors[y, x, 3]:
            continue
        angle = np.arctan2(y - center[1] * SIDE, x - center[0] * SIDE) + rng.normal(0, 0.35)
        length, shade = rng.uniform(5, 16), rng.normal(0, 13)
        color = tuple(int(min(255, max(0, value + shade))) for value in colors[y, x, :3])
        draw.line((x, y, x + length * np.cos(angle), y + length * np.sin(angle)), fill=color)


def pencil(picture: Image.Image) -> Image.Image:
    """The picture as a pencil drawing: each place's gray, divided by that of its surroundings."""
    gray = cv2.cvtColor(np.asarray(picture.convert("RGB")), cv2.COLOR_RGB2GRAY)
    around = cv2.GaussianBlur(gray, (0, 0), sigmaX=max(2.0, max(gray.shape) / 80))
    return Image.fromarray(cv2.divide(gray, around, scale=256)).convert("RGB")
