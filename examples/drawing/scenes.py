"""The painted scenes: each builds colours and directions, then lays strokes from coarse to fine."""

from __future__ import annotations

import cv2
import numpy as np

from .strokes import Float, Image, Painting, gradient, grid, lay, noise, polygon, ramp


def flat(image: Float, angle: float) -> Float:
    """One direction everywhere."""
    return np.full(image.shape[:2], angle, dtype=np.float32)


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
    bands = cv2.resize(noise(width, max(8, height // 7), 7, rng, 3), (width, height), interpolation=cv2.INTER_CUBIC)
    drift = cv2.resize(noise(max(8, width // 5), height, 4, rng, 3), (width, height), interpolation=cv2.INTER_CUBIC)
    base = gradient(depth, [(0, (0.16, 0.30, 0.27)), (0.35, (0.30, 0.44, 0.50)), (0.7, (0.40, 0.46, 0.66)), (1, (0.30, 0.33, 0.56))])
    lay(base, ramp(0.05, 0.75, bands) * 0.8, (0.13, 0.29, 0.22))
    lay(base, ramp(0.1, 0.9, -bands) * ramp(0.1, 0.5, depth) * 0.75, (0.72, 0.66, 0.80))
    lay(base, ramp(0.45, 1.1, drift - bands * 0.6) * ramp(0.25, 0.5, depth) * 0.6, (0.90, 0.74, 0.72))
    pads, water = base.copy(), base.copy()
    pad_mask = np.zeros((height, width), dtype=np.float32)
    flowers: list[tuple[float, float, float]] = []
    drifts = [(0.20, 0.24, 0.15), (0.68, 0.27, 0.2), (0.92, 0.40, 0.12), (0.38, 0.45, 0.2), (0.12, 0.58, 0.14), (0.72, 0.66, 0.24), (0.26, 0.86, 0.22), (0.9, 0.93, 0.12)]
    for cx, t, spread in drifts:
        size = 0.016 + 0.052 * t**1.2
        for _ in range(round(11 + 46 * spread)):
            px = cx + rng.normal(0, spread * 0.5)
            py = (t + rng.normal(0, 0.022 + 0.028 * t)) * y.max()
            r = size * rng.uniform(0.55, 1.15)
            green = np.array([0.40, 0.56, 0.30]) + rng.normal(0, 0.06, 3) + (0.12, 0.08, -0.04) * rng.uniform(-1, 1, 1)
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
    painting.strokes(bloom, fan, 46 * many, 0.013, 0.0042, where=petals, value=0.05, jitter=(0.02, 0.03, 0.03), order=y)
    heart = np.broadcast_to(np.array((0.97, 0.76, 0.25), dtype=np.float32), base.shape)
    painting.strokes(heart, fan, 4 * many, 0.005, 0.003, where=hearts, value=0.05)
    fronds = np.clip(ramp(0.34, 0.0, depth + 0.13 * np.abs(bands) + 0.14 * np.sin(x * 7.0 + 0.6)), 0, 1)
    leaf = gradient(0.5 + 0.3 * noise(width, height, 18, rng), [(0, (0.10, 0.24, 0.14)), (0.5, (0.34, 0.50, 0.20)), (1, (0.72, 0.76, 0.38))])
    hang = np.pi / 2 + 0.12 * np.sin(x * 9 + 1) + 0.08 * noise(width, height, 4, rng)
    painting.strokes(leaf, hang, 1500, 0.065, 0.0028, where=fronds, value=0.06, jitter=(0.04, 0.05, 0.03), bristles=2)
    painting.strokes(leaf, hang + 0.45 * np.sign(noise(width, height, 60, rng, 1)), 3200, 0.014, 0.0036, where=fronds, value=0.08, bristles=2)
    return painting.finish(0.55)


def starry_field(width: int, height: int, rng: np.random.Generator) -> Image:
    """A night sky in whorls over a wheat field, in thick directed strokes."""
    x, y = grid(width, height)
    bottom = float(y.max())
    whorls = [(0.50, 0.27, 0.13, 1.0), (0.68, 0.335, 0.085, -0.9), (0.30, 0.36, 0.07, 0.7)]
    stars = [(0.10, 0.10, 0.042), (0.27, 0.15, 0.036), (0.40, 0.065, 0.030), (0.60, 0.09, 0.034), (0.73, 0.17, 0.030), (0.235, 0.29, 0.03), (0.94, 0.31, 0.034), (0.80, 0.06, 0.022)]
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
    sky = gradient(tone, [(-1, (0.06, 0.10, 0.30)), (-0.3, (0.11, 0.20, 0.48)), (0.15, (0.20, 0.36, 0.64)), (0.6, (0.45, 0.62, 0.76)), (1.1, (0.84, 0.87, 0.74))])
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
    painting.strokes(sky, flow, 8000, 0.040, 0.0085, value=0.075, jitter=(0.03, 0.03, 0.05), wander=0.08, dry=0.6)
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
    land = gradient(np.clip((y - hill1) / 0.08, 0, 1) + 0.25 * noise(width, height, 12, rng), [(0, (0.10, 0.19, 0.40)), (0.5, (0.13, 0.29, 0.40)), (1, (0.20, 0.38, 0.32))])
    slope = np.arctan(0.18 * np.cos(x * 5.2 + 0.5)) + 0.25 * noise(width, height, 6, rng)
    painting.strokes(land, slope, 2600, 0.034, 0.0085, where=((y > hill1 + 0.005) & (y < hill2 + 0.03)).astype(np.float32), value=0.05, dry=0.6)
    near = np.clip((y - hill2) / (bottom - hill2), 0, 1)
    waves = noise(width, height, 9, rng) * 0.25 + 0.18 * np.sin(x * 24 + y * 30) * near
    wheat = gradient(near + waves, [(0, (0.62, 0.56, 0.26)), (0.35, (0.85, 0.68, 0.24)), (0.75, (0.78, 0.54, 0.16)), (1.1, (0.50, 0.34, 0.16))])
    lane = np.abs(x - 0.60 - 0.10 * np.sin(near * 4.2 + 0.4) * (1.2 - near)) - 0.012 - 0.085 * near**1.3
    lay(wheat, ramp(0.012, -0.004, lane), (0.50, 0.52, 0.42))
    lay(wheat, ramp(0.02, 0.0, np.abs(lane - 0.008)), (0.30, 0.44, 0.22))
    gust = -np.pi / 2 + 0.55 * np.sin(x * 8 + y * 5) + 0.3 * noise(width, height, 5, rng)
    lane_mask = ramp(0.01, -0.002, lane)
    field = (y > hill2 + 0.012).astype(np.float32)
    painting.strokes(wheat, gust, 2200, 0.040, 0.011, where=field * (1 - lane_mask), value=0.06, order=y)
    painting.strokes(wheat, 0.3 * noise(width, height, 4, rng), 700, 0.034, 0.009, where=field * lane_mask, value=0.05)
    painting.strokes(wheat, gust, 5000, 0.030, 0.0055, where=field * (1 - lane_mask), value=0.09, jitter=(0.05, 0.04, 0.03), order=y, dry=0.7)
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
    half = 0.066 * np.clip(1.75 * tall * (1.35 - tall) ** 0.8, 0, 1) + 0.010 * np.sin(y * 46 + np.sign(x - spine) * 1.2) * tall
    tree = ((np.abs(x - spine) < half) & (tall > 1e-3) & (tall < 1)).astype(np.float32)
    bark = gradient((x - spine) / (half + 1e-3) * 0.5 + 0.5 + 0.4 * noise(width, height, 26, rng), [(0, (0.05, 0.10, 0.10)), (0.5, (0.09, 0.20, 0.12)), (1, (0.26, 0.34, 0.14))])
    flame = -np.pi / 2 + 1.9 * (x - spine) / 0.09 * (0.6 - tall) + 0.35 * np.sin(y * 40)
    painting.strokes(bark, flame, 1300, 0.050, 0.009, where=tree, value=0.035, order=-y, dry=0.6)
    painting.strokes(bark, flame, 900, 0.034, 0.005, where=tree, value=0.06, dry=0.6)
    foot = (np.hypot((x - 0.135) / 0.12, (y - 0.635) / 0.035) < 1).astype(np.float32)
    painting.strokes(wheat, gust, 260, 0.034, 0.0065, where=foot, value=0.08, order=y, dry=0.7)
    return np.ascontiguousarray(painting.finish(0.85, soften=0.8)[:, ::-1])


def moonlit_sea(width: int, height: int, rng: np.random.Generator) -> Image:
    """A ship on a swell under a hazy moon, smoothly blended and luminous."""
    x, y = grid(width, height)
    bottom, horizon = float(y.max()), 0.315
    mx, my = 0.60, 0.165
    far = np.hypot(x - mx, (y - my) * 1.15)
    glow = np.exp(-far / 0.13)
    image = gradient(y / horizon, [(0, (0.07, 0.12, 0.21)), (0.5, (0.16, 0.25, 0.34)), (1, (0.40, 0.46, 0.46))])
    lay(image, glow * 1.15, (1.0, 0.86, 0.60))
    stretched = cv2.resize(noise(width, height * 3, 3.5, rng, 7), (width, height), interpolation=cv2.INTER_AREA)
    puff = noise(width, height, 5, rng, 6)
    bank = 0.35 * ramp(0.14, 0.0, y) + 0.45 * np.exp(-(((y - 0.27) / 0.035) ** 2)) - 0.9 * np.exp(-far / 0.06)
    cloud = ramp(-0.25, 1.25, 0.55 * puff + 0.75 * stretched + bank)
    lining = ramp(0.0, 0.35, cloud) * ramp(1.0, 0.35, cloud)
    tone = gradient(glow + 0.12 * puff, [(0, (0.13, 0.17, 0.23)), (0.25, (0.33, 0.33, 0.34)), (0.6, (0.72, 0.60, 0.45)), (1, (0.95, 0.80, 0.56))])
    lay(image, cloud * 0.85, tone)
    lay(image, lining * glow * 0.6, (1.0, 0.92, 0.72))
    lay(image, ramp(0.034, 0.030, far), (1.0, 0.97, 0.86))
    lay(image, np.exp(-((far / 0.05) ** 2)) * 0.5, (1.0, 0.96, 0.80))
    lay(image, np.exp(-(((y - horizon) / 0.03) ** 2)) * (0.35 + 0.5 * np.exp(-(((x - mx) / 0.25) ** 2))), (0.98, 0.84, 0.60))
    angle = 0.15 * noise(width, height, 4, rng)
    count = 17
    ripples = cv2.resize(noise(width, height * 4, 26, rng, 3), (width, height), interpolation=cv2.INTER_AREA)
    for k in range(count):
        t = (k / (count - 1)) ** 1.9
        line_y = horizon + 0.006 + (bottom * 1.06 - horizon) * t
        high = 0.003 + 0.105 * t**0.9
        wave = 2.6 / (0.10 + t)
        phase = rng.uniform(0, 6.28)
        bend = x * wave + phase + 0.8 * np.sin(x * wave * 0.41 + phase * 2) + 0.22 * np.sin(x * wave * 2.3 + phase)
        shape = 1 - np.abs(np.sin(bend * 0.5)) ** 0.9
        swell = 0.6 + 0.4 * np.sin(x * wave * 0.21 + phase * 3)
        tall = shape * swell
        top = line_y - high * tall + 0.0035 * t * noise(width, height, 40, rng, 2)
        below = np.clip((y - top) / (0.012 + 0.15 * t), -1, 4)
        path = np.exp(-((np.abs(x - mx) / (0.035 + 0.17 * t)) ** 1.5))
        deep = gradient(
            np.clip(below + 0.10 * ripples, 0, 1),
            [(0, (0.20, 0.44, 0.45)), (0.3, (0.08, 0.27, 0.32)), (0.7, (0.035, 0.135, 0.19)), (1, (0.02, 0.085, 0.13))],
        )
        lay(deep, np.exp(-np.abs(below) / 0.30) * tall**1.3 * (0.35 + 0.65 * path), (0.50, 0.84, 0.68))
        facing = ramp(0.05, 0.6, ripples + 0.5 * np.sin(bend * 0.5 + 0.6) - 0.3 * below)
        lay(deep, np.exp(-np.abs(below) / 0.8) * path * facing * 0.9, (1.0, 0.88, 0.62))
        lay(deep, np.full_like(x, (1 - t) ** 4 * 0.5), (0.40, 0.47, 0.46))
        edge = ramp(-0.0015, 0.0015, y - top)
        lay(image, edge, deep)
        fleck = 0.30 * noise(width, height, 70, rng, 2)
        foam = np.exp(-(((y - top) / (0.0012 + 0.006 * t)) ** 2)) * ramp(0.50, 0.85, tall + fleck)
        spill = np.exp(-np.abs(below - 0.16) / 0.16) * ramp(0.68, 0.98, tall + fleck - 0.2 * below)
        lay(image, np.clip((foam + 0.7 * spill * edge) * (0.55 + 0.45 * path), 0, 1), (0.96, 0.95, 0.87))
        slope = np.arctan(np.gradient(cv2.GaussianBlur(top, (0, 0), 6), axis=1) * width)
        angle = np.where(edge > 0.5, slope * np.clip(1.2 - below, 0.1, 1), angle)
    painting = Painting(image, rng)
    sky = (y < horizon).astype(np.float32)
    for count, size in ((5000, 0.030), (16000, 0.014)):
        painting.strokes(
            image, angle, count, size, size * 0.22, where=0.25 + 0.75 * sky, value=0.006, jitter=(0.004,) * 3, dry=0.08,
            body=0.3, bristles=4,
        )  # fmt: skip
    painting.strokes(image, angle, 26000, 0.008, 0.0018, where=1 - sky, value=0.012, jitter=(0.008,) * 3, dry=0.15, bristles=2, body=0.6)
    reach = np.clip((y - horizon) / (bottom - horizon), 0, 1)
    spread = np.exp(-((np.abs(x - mx) / (0.022 + 0.13 * reach)) ** 1.7)) * (1 - sky) * (1 - 0.75 * reach)
    shine = np.broadcast_to(np.array((1.0, 0.90, 0.66), dtype=np.float32), image.shape)
    sparkle = spread * ramp(0.0, 0.5, ripples + 0.15)
    painting.strokes(shine, angle * 0.5, 1500, 0.007, 0.0012, where=sparkle * (reach < 0.3), value=0.04, bristles=2)
    painting.strokes(shine, angle * 0.5, 900, 0.015, 0.0022, where=sparkle * (reach >= 0.2), value=0.05, bristles=2)
    canvas = painting.paint[..., :3].astype(np.float32) / 255
    canvas = 0.68 * canvas + 0.32 * image
    lay(canvas, ramp(0.034, 0.030, far) * 0.9, (1.0, 0.975, 0.88))
    _ship(canvas, 0.325, horizon + 0.045, 0.125)
    painting.paint[..., :3] = np.clip(canvas * 255, 0, 255).astype(np.uint8)
    return painting.finish(0.22, 0.012)


def _ship(image: Float, sx: float, sy: float, s: float) -> None:
    height, width = image.shape[:2]
    x, y = grid(width, height)

    def part(points: list[tuple[float, float]], colour: tuple[float, float, float], soft: float = 0.0006) -> None:
        lay(image, polygon(width, height, [(sx + a * s, sy - b * s) for a, b in points], soft), colour)

    mirror = np.exp(-(((x - sx) / (0.45 * s)) ** 2)) * ramp(0, 0.01, y - sy) * ramp(0.55 * s, 0, y - sy)
    lay(image, mirror * 0.6, (0.06, 0.11, 0.13))
    dark, warm, shade = (0.075, 0.065, 0.065), (0.80, 0.64, 0.42), (0.36, 0.31, 0.27)
    for mast, tall in ((-0.27, 1.0), (0.03, 1.2), (0.32, 0.98)):
        part([(mast - 0.008, 0.0), (mast - 0.004, tall), (mast + 0.004, tall), (mast + 0.008, 0.0)], dark, 0.0003)
        for low, high, wide in ((0.22, 0.52, 0.15), (0.54, 0.78, 0.12), (0.80, 0.96, 0.085)):
            a, b = low * tall, high * tall
            sail = [(mast - wide, a), (mast - wide * 0.85, b), (mast + wide * 0.85, b), (mast + wide * 1.05, a), (mast + wide * 0.5, a + 0.035), (mast - wide * 0.4, a + 0.03)]
            part(sail, shade)
            part([(mast + wide * 0.05, b), (mast + wide * 0.85, b), (mast + wide * 1.05, a), (mast + wide * 0.3, a + 0.035)], warm, 0.002)
    part([(0.36, 0.16), (0.74, 0.34), (0.36, 0.80)], shade)
    part([(0.50, 0.24), (0.74, 0.34), (0.37, 0.78)], warm, 0.0012)
    part([(0.42, 0.14), (0.80, 0.36), (0.80, 0.345), (0.44, 0.11)], dark, 0.0003)
    part([(-0.52, 0.22), (-0.44, 0.13), (0.30, 0.12), (0.53, 0.19), (0.43, -0.04), (-0.43, -0.05)], dark)
    part([(-0.46, 0.095), (0.46, 0.095), (0.45, 0.075), (-0.46, 0.075)], (0.55, 0.45, 0.30), 0.0004)
    lay(image, polygon(width, height, [(sx - 0.5 * s, sy + 0.03 * s), (sx + 0.5 * s, sy + 0.03 * s), (sx + 0.46 * s, sy + 0.06 * s), (sx - 0.48 * s, sy + 0.06 * s)], 0.001), (0.62, 0.68, 0.62))


def apples_and_jug(width: int, height: int, rng: np.random.Generator) -> Image:
    """Fruit, a jug and a white cloth, built from slanting patches of colour."""
    x, y = grid(width, height)
    wall = gradient(0.5 + 0.35 * noise(width, height, 4, rng, 3) + 0.25 * (x - 0.5), [(0, (0.24, 0.31, 0.38)), (0.4, (0.34, 0.42, 0.45)), (0.7, (0.43, 0.46, 0.41)), (1, (0.52, 0.46, 0.36))])
    image = wall
    table = ramp(-0.004, 0.004, y - 0.455 - 0.02 * (x - 0.5))
    wood = gradient(0.5 + 0.3 * noise(width, height, 5, rng) + 0.5 * (y - 0.5), [(0, (0.44, 0.25, 0.14)), (0.5, (0.64, 0.40, 0.21)), (1, (0.74, 0.52, 0.28))])
    lay(image, table, wood)
    outline = np.exp(-(((y - 0.455 - 0.02 * (x - 0.5)) / 0.004) ** 2))
    turn = flat(x, -1.05) + 0.5 * np.round(noise(width, height, 5, rng, 2) * 1.5) / 1.5 * 0.6

    def add(mask: Float, colour: Float | tuple[float, float, float]) -> None:
        nonlocal outline
        lay(image, mask, colour)
        soft = cv2.GaussianBlur(mask, (0, 0), 0.0028 * width)
        outline = np.maximum(outline * (1 - mask), 4 * soft * (1 - soft) * (mask > 0.02))

    # the cloth: a long white shape that falls over the table's edge, with folds
    folds = np.sin((x * 15 + y * 11) + 2.2 * np.sin(x * 6 + y * 3) + 0.8 * noise(width, height, 4, rng, 2))
    white = gradient(0.5 + 0.42 * folds, [(0, (0.36, 0.43, 0.58)), (0.35, (0.64, 0.68, 0.75)), (0.65, (0.92, 0.91, 0.86)), (1, (0.99, 0.97, 0.90))])
    cloth = [(0.16, 0.50), (0.27, 0.475), (0.36, 0.535), (0.50, 0.50), (0.70, 0.525), (0.86, 0.49), (0.93, 0.56), (0.88, 0.64), (0.80, 0.665), (0.72, 0.80), (0.55, 0.71), (0.42, 0.80), (0.30, 0.70), (0.20, 0.70), (0.10, 0.60)]
    add(polygon(width, height, cloth, 0.004), white)
    # the jug
    jx, base_y, top_y = 0.285, 0.555, 0.185
    t = np.clip((base_y - y) / (base_y - top_y), 0, 1)
    half = np.interp(t, [0, 0.06, 0.3, 0.5, 0.72, 0.84, 0.95, 1], [0.062, 0.078, 0.118, 0.120, 0.075, 0.052, 0.058, 0.070]).astype(np.float32)
    side = (x - jx) / half
    handle = np.abs(np.hypot((x - jx - 0.085) / 0.075, (y - 0.315) / 0.085) - 1) * 0.075
    grip = ramp(0.017, 0.012, handle) * (x > jx + 0.05)
    clay = gradient(0.5 - 0.55 * side + 0.12 * noise(width, height, 8, rng), [(0, (0.20, 0.24, 0.34)), (0.3, (0.45, 0.50, 0.56)), (0.6, (0.76, 0.76, 0.70)), (0.85, (0.97, 0.94, 0.82)), (1, (0.82, 0.83, 0.78))])
    add(grip, (0.50, 0.53, 0.58))
    inside = (y > top_y) & (y < base_y + 0.018 * np.sqrt(np.clip(1 - side**2, 0, 1)))
    jug = ramp(1.03, 0.97, np.abs(side)) * inside
    add(jug, clay)
    add(ramp(1.05, 0.95, ((x - jx) / 0.070) ** 2 + ((y - top_y) / 0.017) ** 2), (0.72, 0.74, 0.60))
    add(ramp(1.1, 0.9, ((x - jx) / 0.056) ** 2 + ((y - top_y) / 0.011) ** 2), (0.12, 0.16, 0.19))
    glaze = ramp(0.40, 0.44, t + 0.03 * np.sin(x * 60)) * ramp(1.0, 0.95, np.abs(side)) * (t < 1) * inside
    lay(image, glaze * 0.25 * (np.abs(t - 0.62) < 0.03), (0.10, 0.25, 0.55))
    # the plate
    px, py = 0.62, 0.515
    lay(image, ramp(1.5, 0.8, ((x - px - 0.02) / 0.21) ** 2 + ((y - py - 0.035) / 0.062) ** 2) * 0.6, (0.36, 0.40, 0.52))
    add(ramp(1.03, 0.97, ((x - px) / 0.205) ** 2 + ((y - py) / 0.062) ** 2), (0.86, 0.87, 0.84))
    lay(image, ramp(1.05, 0.95, ((x - px) / 0.155) ** 2 + ((y - py + 0.004) / 0.043) ** 2), (0.62, 0.67, 0.74))
    red = [(0, (0.22, 0.07, 0.13)), (0.3, (0.56, 0.11, 0.10)), (0.6, (0.80, 0.24, 0.12)), (0.82, (0.93, 0.52, 0.20)), (1, (0.99, 0.88, 0.55))]
    gold = [(0, (0.34, 0.22, 0.16)), (0.3, (0.70, 0.40, 0.12)), (0.6, (0.91, 0.65, 0.18)), (0.85, (0.97, 0.83, 0.34)), (1, (1.0, 0.96, 0.72))]
    green = [(0, (0.13, 0.21, 0.20)), (0.3, (0.30, 0.42, 0.16)), (0.6, (0.56, 0.64, 0.22)), (0.85, (0.80, 0.80, 0.36)), (1, (0.97, 0.95, 0.68))]
    orange = [(0, (0.36, 0.14, 0.12)), (0.3, (0.74, 0.30, 0.08)), (0.6, (0.93, 0.50, 0.12)), (0.85, (0.98, 0.70, 0.26)), (1, (1.0, 0.92, 0.62))]
    fruit = [
        (0.525, 0.470, 0.056, red), (0.715, 0.470, 0.056, gold), (0.620, 0.462, 0.058, orange), (0.568, 0.392, 0.054, gold),
        (0.668, 0.394, 0.054, red), (0.618, 0.322, 0.052, green), (0.470, 0.590, 0.060, red), (0.352, 0.625, 0.056, green),
        (0.585, 0.640, 0.060, orange), (0.770, 0.610, 0.060, red), (0.845, 0.555, 0.052, gold),
    ]  # fmt: skip
    fruit_mask = np.zeros_like(x)
    for fx, fy, r, stops in fruit:
        if fy > 0.52:
            shadow = ((x - fx - 0.4 * r) / (1.25 * r)) ** 2 + ((y - fy - 0.80 * r) / (0.42 * r)) ** 2
            lay(image, ramp(1.3, 0.5, shadow) * 0.75, (0.27, 0.31, 0.45))
        ux, uy = (x - fx) / r, (y - fy) / (r * 0.94)
        d = np.hypot(ux, uy) * (1 + 0.035 * np.cos(3 * np.arctan2(uy, ux) + fx * 40))
        nz = np.sqrt(np.clip(1 - d**2, 0, 1))
        light = np.clip(0.40 - 0.42 * ux - 0.48 * uy + 0.36 * nz - 0.18, -0.1, 1.1) + 0.07 * noise(width, height, 14, rng, 2)
        mask = ramp(1.03, 0.97, d)
        add(mask, gradient(light, stops))
        lay(image, ramp(0.25, 0.05, np.hypot(ux / 1.2 - 0.05, uy * 1.6 + 0.92)) * mask * 0.7, (0.24, 0.16, 0.10))
        fruit_mask = np.maximum(fruit_mask, mask)
        around = np.arctan2(uy, ux) + np.pi / 2
        bend = np.sin(around - (-1.05)) * 0.55
        turn = np.where(mask > 0.5, -1.05 + bend, turn)
    lay(image, outline * 0.6, (0.14, 0.17, 0.30))
    painting = Painting(image, rng)
    painting.strokes(image, turn, 2400, 0.050, 0.022, value=0.035, jitter=(0.035, 0.03, 0.045), wander=0.06)
    painting.strokes(image, turn, 5200, 0.034, 0.014, value=0.035, jitter=(0.04, 0.035, 0.05), wander=0.06, dry=0.5)
    things = np.clip(fruit_mask + jug + grip + polygon(width, height, cloth), 0.12, 1)
    painting.strokes(image, turn, 6000, 0.020, 0.0085, where=things, value=0.035, jitter=(0.035, 0.03, 0.04), wander=0.06, dry=0.5)
    painting.strokes(image, turn, 6500, 0.013, 0.0055, where=np.clip(fruit_mask + 0.7 * jug + grip + outline, 0, 1), value=0.025, jitter=(0.02, 0.02, 0.025), dry=0.5)
    gx, gy = cv2.Sobel(cv2.GaussianBlur(outline, (0, 0), 2), cv2.CV_32F, 1, 0), cv2.Sobel(cv2.GaussianBlur(outline, (0, 0), 2), cv2.CV_32F, 0, 1)
    smooth = [cv2.GaussianBlur(c, (0, 0), 3) for c in (gx * gx - gy * gy, 2 * gx * gy)]
    along = 0.5 * np.arctan2(smooth[1], smooth[0]) + np.pi / 2
    ink = np.broadcast_to(np.array((0.12, 0.15, 0.27), dtype=np.float32), image.shape)
    painting.strokes(ink, along, 420, 0.016, 0.0022, where=ramp(0.6, 0.95, outline) * (0.25 + 0.75 * (fruit_mask + jug > 0.01)), value=0.05, bristles=2)
    return painting.finish(0.55)
