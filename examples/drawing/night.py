"""A night sky in whorls over a wheat field, in thick directed strokes."""

from __future__ import annotations

import numpy as np

from .strokes import Image, Painting, flat, gradient, grid, lay, noise, polygon, ramp


def starry_field(width: int, height: int, rng: np.random.Generator) -> Image:
    """A night sky in whorls over a wheat field, in thick directed strokes."""
    x, y = grid(width, height)
    bottom = float(y.max())
    whorls = [(0.50, 0.27, 0.13, 1.0), (0.68, 0.335, 0.085, -0.9), (0.30, 0.36, 0.07, 0.7)]
    stars = [
        (0.10, 0.10, 0.042),
        (0.27, 0.15, 0.036),
        (0.40, 0.065, 0.030),
        (0.60, 0.09, 0.034),
        (0.73, 0.17, 0.030),
        (0.235, 0.29, 0.03),
        (0.94, 0.31, 0.034),
        (0.80, 0.06, 0.022),
    ]
    moon = (0.88, 0.13, 0.075)
    u = np.ones_like(x) + 0.15 * np.cos(x * 5)
    v = 0.35 * np.sin(x * 6.5 + 1.0) - 0.1
    tone = 0.32 * noise(width, height, 4, rng) + 0.25 * np.sin((y - 0.04 * np.sin(x * 6.5 + 0.3)) * 62)
    for cx, cy, r, spin in whorls:
        dx, dy = x - cx, y - cy
        d = np.hypot(dx, dy) + 1e-4
        pull = 2.6 * np.exp(-((d / (r * 1.15)) ** 2))
        u += spin * pull * (-dy / d - 0.25 * dx / d)
        v += spin * pull * (dx / d - 0.25 * dy / d)
        coil = np.cos(np.arctan2(dy, dx) * np.sign(spin) + d / r * 9.0)
        t = np.exp(-((d / (r * 1.0)) ** 2))
        tone = tone * (1 - t) + (0.25 + 0.75 * coil) * t
    for cx, cy, r in [*stars, moon]:
        dx, dy = x - cx, y - cy
        d = np.hypot(dx, dy) + 1e-4
        pull = 3.5 * np.exp(-((d / (r * 1.5)) ** 4))
        u += pull * -dy / d
        v += pull * dx / d
    sky = gradient(
        tone,
        [
            (-1, (0.06, 0.10, 0.30)),
            (-0.3, (0.11, 0.20, 0.48)),
            (0.15, (0.20, 0.36, 0.64)),
            (0.6, (0.45, 0.62, 0.76)),
            (1.1, (0.84, 0.87, 0.74)),
        ],
    )
    lay(sky, 0.55 * ramp(0.36, 0.47, y), (0.50, 0.66, 0.66))
    for cx, cy, r in [*stars, moon]:
        d = np.hypot(x - cx, y - cy) / r
        rings = 0.80 + 0.20 * np.cos(d * 9)
        lay(sky, ramp(1.6, 0.5, d) * 0.85 * rings, (0.80, 0.82, 0.50))
        lay(sky, ramp(0.75, 0.35, d), (0.98, 0.86, 0.40))
        lay(sky, ramp(0.3, 0.1, d), (1.0, 0.97, 0.80))
    mx, my, mr = moon
    disc = np.hypot(x - mx, y - my) / mr
    bite = np.hypot(x - mx + 0.024, y - my + 0.006) / mr
    lay(sky, ramp(0.62, 0.54, disc), (0.97, 0.80, 0.34))
    lay(sky, ramp(0.48, 0.42, bite) * ramp(0.66, 0.6, disc), (0.84, 0.80, 0.46))
    lay(sky, ramp(0.62, 0.54, disc) * ramp(0.47, 0.53, bite), (1.0, 0.74, 0.20))
    painting = Painting(sky, rng)
    flow = np.arctan2(v, u)
    painting.strokes(sky, flow, 3000, 0.060, 0.015, value=0.05)
    painting.strokes(
        sky, flow, 8000, 0.040, 0.0085, value=0.075, jitter=(0.03, 0.03, 0.05), wander=0.08, dry=0.6
    )
    glow = np.zeros_like(x)
    for cx, cy, r in [*stars, moon]:
        np.maximum(glow, ramp(1.5, 0.9, np.hypot(x - cx, y - cy) / r), out=glow)
    painting.strokes(sky, flow, 2600, 0.020, 0.006, where=glow, value=0.05, wander=0.05)
    lune = ramp(0.62, 0.56, disc) * ramp(0.47, 0.53, bite)
    gold = np.broadcast_to(np.array((1.0, 0.76, 0.22), dtype=np.float32), sky.shape)
    painting.strokes(gold, np.arctan2(x - mx, my - y), 130, 0.018, 0.006, where=lune, value=0.05, wander=0.03)
    # hills, wheat and the lane
    hill1 = 0.425 + 0.035 * np.sin(x * 5.2 + 0.5) + 0.012 * np.sin(x * 13)
    hill2 = 0.515 + 0.018 * np.sin(x * 4.1 + 2.6)
    land = gradient(
        np.clip((y - hill1) / 0.08, 0, 1) + 0.25 * noise(width, height, 12, rng),
        [(0, (0.10, 0.19, 0.40)), (0.5, (0.13, 0.29, 0.40)), (1, (0.20, 0.38, 0.32))],
    )
    slope = np.arctan(0.18 * np.cos(x * 5.2 + 0.5)) + 0.25 * noise(width, height, 6, rng)
    painting.strokes(
        land,
        slope,
        2600,
        0.034,
        0.0085,
        where=((y > hill1 + 0.005) & (y < hill2 + 0.03)).astype(np.float32),
        value=0.05,
        dry=0.6,
    )
    near = np.clip((y - hill2) / (bottom - hill2), 0, 1)
    waves = noise(width, height, 9, rng) * 0.25 + 0.18 * np.sin(x * 24 + y * 30) * near
    wheat = gradient(
        near + waves,
        [
            (0, (0.62, 0.56, 0.26)),
            (0.35, (0.85, 0.68, 0.24)),
            (0.75, (0.78, 0.54, 0.16)),
            (1.1, (0.50, 0.34, 0.16)),
        ],
    )
    lane = np.abs(x - 0.60 - 0.10 * np.sin(near * 4.2 + 0.4) * (1.2 - near)) - 0.012 - 0.085 * near**1.3
    lay(wheat, ramp(0.012, -0.004, lane), (0.50, 0.52, 0.42))
    lay(wheat, ramp(0.02, 0.0, np.abs(lane - 0.008)), (0.30, 0.44, 0.22))
    gust = -np.pi / 2 + 0.55 * np.sin(x * 8 + y * 5) + 0.3 * noise(width, height, 5, rng)
    lane_mask = ramp(0.01, -0.002, lane)
    field = (y > hill2 + 0.012).astype(np.float32)
    painting.strokes(wheat, gust, 2200, 0.040, 0.011, where=field * (1 - lane_mask), value=0.06, order=y)
    painting.strokes(
        wheat, 0.3 * noise(width, height, 4, rng), 700, 0.034, 0.009, where=field * lane_mask, value=0.05
    )
    painting.strokes(
        wheat,
        gust,
        5000,
        0.030,
        0.0055,
        where=field * (1 - lane_mask),
        value=0.09,
        jitter=(0.05, 0.04, 0.03),
        order=y,
        dry=0.7,
    )
    # a cottage with a lit window on the ridge
    house = np.zeros_like(sky)
    house[:] = (0.38, 0.44, 0.56)
    wall = polygon(width, height, [(0.765, 0.505), (0.765, 0.465), (0.845, 0.465), (0.845, 0.505)])
    roof = polygon(width, height, [(0.752, 0.468), (0.782, 0.432), (0.830, 0.432), (0.858, 0.468)])
    painting.strokes(house, flat(x, np.pi / 2), 260, 0.016, 0.005, where=wall, value=0.04)
    house[:] = (0.42, 0.24, 0.20)
    painting.strokes(house, flat(x, -0.9), 240, 0.016, 0.005, where=roof, value=0.05)
    house[:] = (1.0, 0.82, 0.30)
    for wx in (0.785, 0.815):
        pane = polygon(width, height, [(wx, 0.478), (wx + 0.013, 0.478), (wx + 0.013, 0.494), (wx, 0.494)])
        painting.strokes(house, flat(x, np.pi / 2), 16, 0.007, 0.003, where=pane, value=0.03)
    # the cypress: a dark flame on the left
    tall = np.clip((y - 0.06) / (0.63 - 0.06), 1e-4, 1)
    spine = 0.135 + 0.012 * np.sin(y * 22)
    half = (
        0.066 * np.clip(1.75 * tall * (1.35 - tall) ** 0.8, 0, 1)
        + 0.010 * np.sin(y * 46 + np.sign(x - spine) * 1.2) * tall
    )
    tree = ((np.abs(x - spine) < half) & (tall > 1e-3) & (tall < 1)).astype(np.float32)
    bark = gradient(
        (x - spine) / (half + 1e-3) * 0.5 + 0.5 + 0.4 * noise(width, height, 26, rng),
        [(0, (0.05, 0.10, 0.10)), (0.5, (0.09, 0.20, 0.12)), (1, (0.26, 0.34, 0.14))],
    )
    flame = -np.pi / 2 + 1.9 * (x - spine) / 0.09 * (0.6 - tall) + 0.35 * np.sin(y * 40)
    painting.strokes(bark, flame, 1300, 0.050, 0.009, where=tree, value=0.035, order=-y, dry=0.6)
    painting.strokes(bark, flame, 900, 0.034, 0.005, where=tree, value=0.06, dry=0.6)
    foot = (np.hypot((x - 0.135) / 0.12, (y - 0.635) / 0.035) < 1).astype(np.float32)
    painting.strokes(wheat, gust, 260, 0.034, 0.0065, where=foot, value=0.08, order=y, dry=0.7)
    return np.ascontiguousarray(painting.finish(0.85, soften=0.8)[:, ::-1])
