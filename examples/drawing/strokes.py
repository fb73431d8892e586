"""Oil-paint rendering: bristled strokes laid along a direction field, then lit as relief on canvas."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Float = NDArray[Any]
Image = NDArray[Any]


def grid(width: int, height: int) -> tuple[Float, Float]:
    """Picture coordinates: x runs 0..1 across, y runs 0..height/width down."""
    j, i = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return (j + 0.5) / width, (i + 0.5) / width


def flat(image: Float, angle: float) -> Float:
    """One direction everywhere."""
    return np.full(image.shape[:2], angle, dtype=np.float32)


def ramp(low: float, high: float, x: Float) -> Float:
    """Smooth step from `low` to `high`."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def noise(width: int, height: int, cells: float, rng: np.random.Generator, octaves: int = 4) -> Float:
    """Smooth noise in about -1..1 with `cells` features across the width."""
    total = np.zeros((height, width), dtype=np.float32)
    for octave in range(octaves):
        n = max(2, round(cells * 2**octave))
        small = rng.normal(size=(max(2, round(n * height / width)) + 1, n + 1)).astype(np.float32)
        total += cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC) * 0.5**octave
    return total / 1.5


def gradient(t: Float, stops: list[tuple[float, tuple[float, float, float]]]) -> Float:
    """Colours read off a list of (position, colour) stops."""
    at = [s[0] for s in stops]
    return np.stack([np.interp(t, at, [s[1][c] for s in stops]) for c in range(3)], axis=-1).astype(
        np.float32
    )


def lay(image: Float, mask: Float, colour: Float | tuple[float, float, float]) -> None:
    """Blend a colour, or a picture of the same size, into an image through a mask."""
    m = np.clip(mask, 0, 1)[..., None]
    image += (np.asarray(colour, dtype=np.float32) - image) * m


def polygon(width: int, height: int, points: list[tuple[float, float]], soft: float = 0.0) -> Float:
    """Mask of a polygon given in picture coordinates."""
    mask = np.zeros((height, width), dtype=np.uint8)
    cv2.fillPoly(mask, [np.round(np.array(points) * width * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    out = mask.astype(np.float32) / 255
    return cv2.GaussianBlur(out, (0, 0), soft * width) if soft else out


class Painting:
    """A canvas of colour and paint thickness that takes strokes."""

    def __init__(self, ground: Float, rng: np.random.Generator) -> None:
        """Start from a ground colour picture."""
        self.height, self.width = ground.shape[:2]
        self.rng = rng
        self.paint: Image = np.zeros((self.height, self.width, 4), dtype=np.uint8)
        self.paint[..., :3] = np.clip(ground * 255, 0, 255).astype(np.uint8)

    def strokes(
        self,
        colour: Float,
        angle: Float,
        count: int,
        length: float,
        width: float,
        *,
        jitter: tuple[float, float, float] = (0.03, 0.03, 0.03),
        value: float = 0.05,
        where: Float | None = None,
        wander: float = 0.15,
        bristles: int = 6,
        order: Float | None = None,
        body: float = 1.0,
        dry: float = 0.35,
    ) -> None:
        """Lay strokes: `length` and `width` are fractions of the picture width, `where` is a density.

        `order` gives a depth per pixel (low is painted first); `body` scales the paint thickness and
        `dry` how much bristles differ from the stroke's own colour.
        """
        rng = self.rng
        if where is None:
            x, y = rng.uniform(0, self.width, count), rng.uniform(0, self.height, count)
        else:
            share = np.cumsum(np.clip(where, 0, 1), dtype=np.float64)
            at = np.searchsorted(share, rng.uniform(0, share[-1], count)).clip(0, where.size - 1)
            x, y = at % self.width + rng.uniform(0, 1, count), at // self.width + rng.uniform(0, 1, count)
            x, y = x.clip(0, self.width - 1), y.clip(0, self.height - 1)
        if order is not None:
            rank = np.argsort(
                order[y.astype(int), x.astype(int)] + rng.normal(0, 0.02, len(x)), kind="stable"
            )
            x, y = x[rank], y[rank]
        n, steps = len(x), 5
        stride = length * self.width / (steps - 1) * rng.uniform(0.6, 1.3, n)
        px, py = x.copy(), y.copy()
        cosine, sine = np.cos(angle), np.sin(angle)
        wiggle = rng.normal(0, wander, n)
        path = np.zeros((n, steps, 2))
        # start half a stroke upstream so that the stroke is centred on its colour sample
        for k in range(-(steps // 2), steps):
            i = np.clip(py, 0, self.height - 1).astype(int)
            j = np.clip(px, 0, self.width - 1).astype(int)
            c, s = cosine[i, j], sine[i, j]
            c, s = c * np.cos(wiggle) - s * np.sin(wiggle), c * np.sin(wiggle) + s * np.cos(wiggle)
            if k < 0:
                px, py = px - c * stride, py - s * stride
            else:
                path[:, k, 0], path[:, k, 1] = px, py
                px, py = px + c * stride, py + s * stride
        tone = colour[y.astype(int), x.astype(int)] + rng.normal(0, 1, (n, 3)) * np.array(jitter)
        tone = tone + rng.normal(0, value, (n, 1))
        side = np.asarray(np.gradient(path, axis=1))
        side = np.stack([-side[..., 1], side[..., 0]], axis=-1)
        side /= np.linalg.norm(side, axis=-1, keepdims=True) + 1e-6
        half = width * self.width / 2 * rng.uniform(0.7, 1.25, n)
        offsets = np.linspace(-1, 1, bristles) if bristles > 1 else np.zeros(1)
        taper = np.array([0.75, 1, 1, 0.9, 0.55])
        hairs = path[:, None] + side[:, None] * (half[:, None] * offsets)[:, :, None, None] * taper[:, None]
        hairs[..., 0, :] += rng.normal(0, 0.5, (n, bristles, 1)) * (path[:, 1] - path[:, 0])[:, None]
        hairs[..., -1, :] += rng.normal(0, 0.75, (n, bristles, 1)) * (path[:, -1] - path[:, -2])[:, None]
        hair_tone = tone[:, None] + rng.normal(0, 1, (n, bristles, 1)) * dry * 0.09
        thick = np.clip(rng.uniform(70, 235, (n, bristles)) * body, 0, 255)
        ink = np.concatenate([np.clip(hair_tone, 0, 1) * 255, thick[..., None]], axis=-1).round().astype(int)
        points = np.round(hairs * 16).astype(np.int32)
        wide = np.maximum(1, np.round(2 * half / max(bristles - 1, 1) * 1.35)).astype(int)
        sequence = rng.permuted(np.tile(np.arange(bristles), (n, 1)), axis=1)
        for i in range(n):
            for b in sequence[i]:
                cv2.polylines(
                    self.paint, [points[i, b]], False, ink[i, b].tolist(), int(wide[i]), cv2.LINE_AA, 4
                )

    def finish(self, relief: float = 0.5, weave: float = 0.02, soften: float = 0.6) -> Image:
        """Light the relief from the upper left and add the canvas weave."""
        rgb = self.paint[..., :3].astype(np.float32) / 255
        high = cv2.GaussianBlur(
            self.paint[..., 3].astype(np.float32) / 255, (0, 0), soften * self.width / 1000
        )
        slope = cv2.Sobel(high, cv2.CV_32F, 1, 0, ksize=3) + 1.3 * cv2.Sobel(high, cv2.CV_32F, 0, 1, ksize=3)
        shade = np.tanh(slope * 0.6) * relief
        j, i = np.meshgrid(np.arange(self.width), np.arange(self.height))
        cloth = np.sin(j * 2.1) * np.sin(i * 2.1) * weave * (1.2 - high) + self.rng.normal(
            0, weave * 0.4, high.shape
        )
        out = rgb * (1 + shade[..., None] * 0.36) + np.clip(shade, 0, 1)[..., None] * 0.10 + cloth[..., None]
        return np.clip(out * 255, 0, 255).astype(np.uint8)
