"""Soft painted landscapes that stand behind the dogs."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .strokes import Float, Image, Painting, gradient, grid, lay, noise, ramp

Stops = list[tuple[float, tuple[float, float, float]]]
Colour = tuple[float, float, float]


@dataclass
class Backdrop:
    """A sky, ranges of hills from far to near, a meadow and out-of-focus specks."""

    sky: Stops
    hills: list[tuple[float, float, float, Colour]]
    ground: Stops
    ground_at: float
    specks: list[Colour]
    sun: tuple[float, float]
    sun_colour: Colour
    trees: Colour | None = None
    peaks: bool = False


MEADOW = Backdrop(
    [(0, (0.52, 0.71, 0.86)), (0.6, (0.80, 0.87, 0.86)), (1, (0.97, 0.91, 0.76))],
    [
        (0.50, 0.05, 2.0, (0.58, 0.70, 0.72)),
        (0.57, 0.06, 3.1, (0.47, 0.61, 0.50)),
        (0.66, 0.04, 2.4, (0.44, 0.57, 0.32)),
    ],
    [(0, (0.62, 0.70, 0.36)), (0.5, (0.46, 0.58, 0.24)), (1, (0.24, 0.38, 0.15))],
    0.74,
    [(0.98, 0.93, 0.66), (0.96, 0.98, 0.92), (0.92, 0.66, 0.50)],
    (0.15, 0.15),
    (1.0, 0.95, 0.78),
    (0.30, 0.44, 0.28),
)
SUNSET = Backdrop(
    [(0, (0.42, 0.49, 0.66)), (0.45, (0.83, 0.66, 0.62)), (0.8, (0.98, 0.78, 0.54)), (1, (1.0, 0.88, 0.64))],
    [
        (0.56, 0.05, 2.2, (0.62, 0.50, 0.56)),
        (0.63, 0.05, 3.3, (0.48, 0.42, 0.42)),
        (0.72, 0.03, 2.0, (0.42, 0.40, 0.28)),
    ],
    [(0, (0.80, 0.66, 0.34)), (0.5, (0.58, 0.48, 0.22)), (1, (0.28, 0.27, 0.14))],
    0.79,
    [(1.0, 0.86, 0.52), (1.0, 0.94, 0.76), (0.98, 0.70, 0.42)],
    (0.84, 0.52),
    (1.0, 0.88, 0.58),
    (0.34, 0.30, 0.26),
)
SNOW = Backdrop(
    [(0, (0.36, 0.56, 0.78)), (0.6, (0.66, 0.80, 0.90)), (1, (0.92, 0.90, 0.88))],
    [
        (0.48, 0.15, 1.9, (0.50, 0.62, 0.76)),
        (0.66, 0.06, 3.0, (0.52, 0.65, 0.76)),
        (0.72, 0.04, 2.2, (0.26, 0.38, 0.42)),
    ],
    [(0, (0.90, 0.93, 0.97)), (0.5, (0.80, 0.87, 0.95)), (1, (0.66, 0.76, 0.89))],
    0.80,
    [(1.0, 1.0, 1.0), (0.97, 0.98, 1.0)],
    (0.12, 0.22),
    (1.0, 0.95, 0.85),
    (0.16, 0.28, 0.30),
    True,
)
HEATHER = Backdrop(
    [(0, (0.52, 0.64, 0.74)), (0.6, (0.76, 0.81, 0.82)), (1, (0.90, 0.87, 0.82))],
    [
        (0.44, 0.09, 2.3, (0.52, 0.59, 0.68)),
        (0.56, 0.08, 3.2, (0.44, 0.48, 0.56)),
        (0.67, 0.05, 2.1, (0.45, 0.42, 0.46)),
    ],
    [(0, (0.54, 0.44, 0.52)), (0.5, (0.46, 0.34, 0.46)), (1, (0.26, 0.27, 0.20))],
    0.76,
    [(0.80, 0.54, 0.74), (0.68, 0.42, 0.64), (0.88, 0.74, 0.84)],
    (0.2, 0.1),
    (1.0, 0.96, 0.86),
    None,
    True,
)


def paint_backdrop(look: Backdrop, width: int, height: int, rng: np.random.Generator) -> Image:
    """Paint the landscape with broad strokes and throw it slightly out of focus."""
    x, y = grid(width, height)
    y = y / y.max()
    image = gradient(y / look.ground_at, look.sky)
    cloud = cv2.resize(noise(width, height * 2, 2.5, rng, 5), (width, height), interpolation=cv2.INTER_AREA)
    lay(image, ramp(0.1, 1.2, cloud) * ramp(0.6, 0.2, y) * 0.6, (0.99, 0.97, 0.94))
    sun = np.hypot(x - look.sun[0], (y - look.sun[1]) * height / width)
    lay(image, np.exp(-sun / 0.28) * 0.8, look.sun_colour)
    angle = 0.25 * noise(width, height, 3, rng)
    for at, amount, waves, colour in look.hills:
        offset = rng.uniform(0, 6.28)
        ridge = np.sin(x * waves * 1.6 + offset) + 0.4 * np.sin(x * waves * 4.1 + offset * 2)
        if look.peaks:
            ridge = (
                ridge
                + 0.9
                - 1.6 * np.abs(np.sin(x * waves * 1.7 + offset))
                + 0.16 * noise(width, height, 14, rng)[:1]
            )
        top = at - amount * ridge * 0.5
        mask = ramp(-0.004, 0.004, y - top)
        tone = (
            np.broadcast_to(np.array(colour, dtype=np.float32), image.shape)
            * (1 + 0.10 * noise(width, height, 9, rng))[..., None]
        )
        lay(tone, ramp(0.0, 0.16, y - top) * 0.35, look.sky[-1][1])
        if look.peaks and at < 0.5 and look.ground[0][1][2] > 0.9:
            drift = 0.28 * noise(width, height, 7, rng, 2) + 0.25 * np.sin(x * 34 + 18 * (y - top))
            lay(tone, ramp(1.1, 0.5, (y - top) / 0.14 + drift), (0.95, 0.96, 1.0))
        lay(image, mask, tone)
    if look.trees is not None:
        for _ in range(46):
            tx, tall = rng.uniform(-0.05, 1.05), rng.uniform(0.05, 0.12)
            foot = look.ground_at + 0.01
            if look.peaks:
                half = 0.30 * np.clip((y - foot + tall) / tall, 0, 1) * tall * (0.75 + 0.25 * np.sin(y * 190))
                mask = ramp(0.004, -0.004, np.abs(x - tx) - half) * (y < foot) * (y > foot - tall)
            else:
                lumps = 1 + 0.22 * noise(width, height, 22, rng, 2)
                mask = ramp(
                    1.1, 0.9, np.hypot((x - tx) / tall, (y - foot + 0.3 * tall) / (0.62 * tall)) * lumps
                ) * (y < foot)
            shade = np.array(look.trees) * rng.uniform(0.8, 1.35)
            lay(image, mask * 0.85, tuple(shade))
    t = np.clip((y - look.ground_at) / (1 - look.ground_at), 0, 1)
    ground = gradient(t + 0.16 * noise(width, height, 5, rng), look.ground)
    lay(image, ramp(-0.006, 0.012, y - look.ground_at - 0.008 * np.sin(x * 5)), ground)
    lay(image, np.exp(-sun / 0.5) * 0.25, look.sun_colour)
    painting = Painting(image, rng)
    painting.strokes(image, angle, 1800, 0.07, 0.026, value=0.012, jitter=(0.012,) * 3, dry=0.2)
    painting.strokes(image, angle, 4200, 0.035, 0.012, value=0.014, jitter=(0.014,) * 3, dry=0.2)
    out: Float = cv2.GaussianBlur(painting.paint[..., :3].astype(np.float32) / 255, (0, 0), width / 420)
    for colour in look.specks:
        for _ in range(34):
            px, py = rng.uniform(0, 1), rng.uniform(look.ground_at + 0.02, 1.0)
            r = rng.uniform(0.004, 0.012) * (0.4 + 1.6 * (py - look.ground_at) / (1 - look.ground_at))
            d = np.hypot(x - px, (y - py) * height / width) / r
            lay(out, ramp(1.15, 0.8, d) * rng.uniform(0.25, 0.75), colour)
    for _ in range(16):
        px, py, r = rng.uniform(0, 1), rng.uniform(0.45, 0.85), rng.uniform(0.012, 0.04)
        d = np.hypot(x - px, (y - py) * height / width) / r
        lay(
            out,
            (ramp(1.05, 0.9, d) * (0.6 + 0.4 * ramp(0.5, 1.0, d))) * rng.uniform(0.04, 0.16),
            look.sun_colour,
        )
    return np.clip(out * 255, 0, 255).astype(np.uint8)
