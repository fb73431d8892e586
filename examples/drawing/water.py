"""A lily pond under willows, in short broken touches of colour."""

from __future__ import annotations

import cv2
import numpy as np

from .strokes import Float, Image, Painting, gradient, grid, lay, noise, ramp


def window(x: Float, cx: float, cy: float, reach: float) -> tuple[slice, slice] | None:
    """The part of the picture within `reach` of a point, or None where that is outside."""
    height, width = x.shape
    left, right = (int(np.clip((cx + s * reach) * width, 0, width)) for s in (-1, 1))
    top, low = (int(np.clip((cy + s * reach) * width, 0, height)) for s in (-1, 1))
    return (slice(top, low), slice(left, right)) if right > left and low > top else None


def water_garden(width: int, height: int, rng: np.random.Generator) -> Image:
    """A lily pond under willows, in short broken touches."""
    x, y = grid(width, height)
    depth = y / y.max()
    bands = cv2.resize(
        noise(width, max(8, height // 7), 7, rng, 3), (width, height), interpolation=cv2.INTER_CUBIC
    )
    drift = cv2.resize(
        noise(max(8, width // 5), height, 4, rng, 3), (width, height), interpolation=cv2.INTER_CUBIC
    )
    base = gradient(
        depth,
        [
            (0, (0.16, 0.30, 0.27)),
            (0.35, (0.30, 0.44, 0.50)),
            (0.7, (0.40, 0.46, 0.66)),
            (1, (0.30, 0.33, 0.56)),
        ],
    )
    lay(base, ramp(0.05, 0.75, bands) * 0.8, (0.13, 0.29, 0.22))
    lay(base, ramp(0.1, 0.9, -bands) * ramp(0.1, 0.5, depth) * 0.75, (0.72, 0.66, 0.80))
    lay(base, ramp(0.45, 1.1, drift - bands * 0.6) * ramp(0.25, 0.5, depth) * 0.6, (0.90, 0.74, 0.72))
    pads, water = base.copy(), base.copy()
    pad_mask = np.zeros((height, width), dtype=np.float32)
    flowers: list[tuple[float, float, float]] = []
    drifts = [
        (0.20, 0.24, 0.15),
        (0.68, 0.27, 0.2),
        (0.92, 0.40, 0.12),
        (0.38, 0.45, 0.2),
        (0.12, 0.58, 0.14),
        (0.72, 0.66, 0.24),
        (0.26, 0.86, 0.22),
        (0.9, 0.93, 0.12),
    ]
    for cx, t, spread in drifts:
        size = 0.016 + 0.052 * t**1.2
        for _ in range(round(11 + 46 * spread)):
            px = cx + rng.normal(0, spread * 0.5)
            py = (t + rng.normal(0, 0.022 + 0.028 * t)) * y.max()
            r = size * rng.uniform(0.55, 1.15)
            green = (
                np.array([0.40, 0.56, 0.30])
                + rng.normal(0, 0.06, 3)
                + (0.12, 0.08, -0.04) * rng.uniform(-1, 1, 1)
            )
            blooms, scale = rng.uniform() < 0.24, rng.uniform(0.38, 0.52)
            box = window(x, px, py, 1.3 * r)
            if box is None:
                continue
            part, dx, dy = pads[box], (x[box] - px) / r, (y[box] - py) / (r * 0.30)
            e = dx**2 + dy**2
            lay(part, ramp(1.35, 1.0, dx**2 + (dy - 0.33) ** 2), (0.07, 0.16, 0.20))
            lay(part, ramp(1.1, 0.95, e), tuple(green))
            lay(part, ramp(1.1, 0.95, e) * ramp(0.0, -1.0, dy) * 0.55, (0.70, 0.80, 0.72))
            pad_mask[box] = np.maximum(pad_mask[box], ramp(1.5, 1.0, e))
            if blooms:
                flowers.append((px, py - r * 0.12, r * scale))
    upright = np.pi / 2 + 0.35 * noise(width, height, 5, rng)
    level = 0.12 * noise(width, height, 6, rng)
    painting = Painting(base, rng)
    painting.strokes(water, upright, 1800, 0.075, 0.026, value=0.05, jitter=(0.04, 0.04, 0.05))
    painting.strokes(water, upright, 4200, 0.040, 0.012, value=0.06, jitter=(0.05, 0.04, 0.06))
    painting.strokes(water, level, 3200, 0.034, 0.007, value=0.07, jitter=(0.06, 0.05, 0.06))
    painting.strokes(pads, level, 5200, 0.030, 0.009, where=pad_mask, value=0.05, jitter=(0.05, 0.05, 0.04))
    painting.strokes(pads, level, 6500, 0.016, 0.0055, where=pad_mask, value=0.06, jitter=(0.05, 0.05, 0.05))
    bloom, fan = base.copy(), np.zeros_like(x)
    petals, hearts = np.zeros_like(x), np.zeros_like(x)
    for fx, fy, r in sorted(flowers, key=lambda f: f[1]):
        petal = [(0.99, 0.95, 0.92), (0.96, 0.70, 0.77), (1.0, 0.92, 0.78)][int(rng.integers(3))]
        box = window(x, fx, fy, 1.1 * r)
        if box is None:
            continue
        dx, dy = (x[box] - fx) / r, (y[box] - fy) / (0.66 * r)
        inside = dx**2 + dy**2 < 1
        shaded = np.array(petal) * (1 - 0.38 * ramp(0.0, 0.9, dy))[..., None]
        bloom[box] = np.where(inside[..., None], shaded, bloom[box])
        fan[box] = np.where(inside, np.arctan2(dy - 0.9, dx), fan[box])
        petals[box] = np.where(inside, 1, petals[box])
        hearts[box] = np.where(dx**2 + (dy - 0.1) ** 2 < 0.07, 1, hearts[box])
    many = len(flowers)
    painting.strokes(
        bloom, fan, 46 * many, 0.013, 0.0042, where=petals, value=0.05, jitter=(0.02, 0.03, 0.03), order=y
    )
    heart = np.broadcast_to(np.array((0.97, 0.76, 0.25), dtype=np.float32), base.shape)
    painting.strokes(heart, fan, 4 * many, 0.005, 0.003, where=hearts, value=0.05)
    fronds = np.clip(ramp(0.34, 0.0, depth + 0.13 * np.abs(bands) + 0.14 * np.sin(x * 7.0 + 0.6)), 0, 1)
    leaf = gradient(
        0.5 + 0.3 * noise(width, height, 18, rng),
        [(0, (0.10, 0.24, 0.14)), (0.5, (0.34, 0.50, 0.20)), (1, (0.72, 0.76, 0.38))],
    )
    hang = np.pi / 2 + 0.12 * np.sin(x * 9 + 1) + 0.08 * noise(width, height, 4, rng)
    painting.strokes(
        leaf, hang, 1500, 0.065, 0.0028, where=fronds, value=0.06, jitter=(0.04, 0.05, 0.03), bristles=2
    )
    painting.strokes(
        leaf,
        hang + 0.45 * np.sign(noise(width, height, 60, rng, 1)),
        3200,
        0.014,
        0.0036,
        where=fronds,
        value=0.08,
        bristles=2,
    )
    return painting.finish(0.55)
