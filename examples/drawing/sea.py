"""A ship on a moonlit swell, smoothly blended."""

from __future__ import annotations

import cv2
import numpy as np

from .strokes import Float, Image, Painting, gradient, grid, lay, noise, polygon, ramp


def moonlit_sea(width: int, height: int, rng: np.random.Generator) -> Image:
    """A ship on a swell under a hazy moon, smoothly blended and luminous."""
    x, y = grid(width, height)
    bottom, horizon = float(y.max()), 0.315
    mx, my = 0.60, 0.165
    far = np.hypot(x - mx, (y - my) * 1.15)
    glow = np.exp(-far / 0.13)
    image = gradient(
        y / horizon, [(0, (0.07, 0.12, 0.21)), (0.5, (0.16, 0.25, 0.34)), (1, (0.40, 0.46, 0.46))]
    )
    lay(image, glow * 1.15, (1.0, 0.86, 0.60))
    stretched = cv2.resize(
        noise(width, height * 3, 3.5, rng, 7), (width, height), interpolation=cv2.INTER_AREA
    )
    puff = noise(width, height, 5, rng, 6)
    bank = 0.35 * ramp(0.14, 0.0, y) + 0.45 * np.exp(-(((y - 0.27) / 0.035) ** 2)) - 0.9 * np.exp(-far / 0.06)
    cloud = ramp(-0.25, 1.25, 0.55 * puff + 0.75 * stretched + bank)
    lining = ramp(0.0, 0.35, cloud) * ramp(1.0, 0.35, cloud)
    tone = gradient(
        glow + 0.12 * puff,
        [
            (0, (0.13, 0.17, 0.23)),
            (0.25, (0.33, 0.33, 0.34)),
            (0.6, (0.72, 0.60, 0.45)),
            (1, (0.95, 0.80, 0.56)),
        ],
    )
    lay(image, cloud * 0.85, tone)
    lay(image, lining * glow * 0.6, (1.0, 0.92, 0.72))
    lay(image, ramp(0.034, 0.030, far), (1.0, 0.97, 0.86))
    lay(image, np.exp(-((far / 0.05) ** 2)) * 0.5, (1.0, 0.96, 0.80))
    lay(
        image,
        np.exp(-(((y - horizon) / 0.03) ** 2)) * (0.35 + 0.5 * np.exp(-(((x - mx) / 0.25) ** 2))),
        (0.98, 0.84, 0.60),
    )
    angle = 0.15 * noise(width, height, 4, rng)
    count = 17
    ripples = cv2.resize(noise(width, height * 4, 26, rng, 3), (width, height), interpolation=cv2.INTER_AREA)
    for k in range(count):
        t = (k / (count - 1)) ** 1.9
        line_y = horizon + 0.006 + (bottom * 1.06 - horizon) * t
        high = 0.003 + 0.105 * t**0.9
        wave = 2.6 / (0.10 + t)
        phase = rng.uniform(0, 6.28)
        bend = (
            x * wave
            + phase
            + 0.8 * np.sin(x * wave * 0.41 + phase * 2)
            + 0.22 * np.sin(x * wave * 2.3 + phase)
        )
        shape = 1 - np.abs(np.sin(bend * 0.5)) ** 0.9
        swell = 0.6 + 0.4 * np.sin(x * wave * 0.21 + phase * 3)
        tall = shape * swell
        top = line_y - high * tall + 0.0035 * t * noise(width, height, 40, rng, 2)
        below = np.clip((y - top) / (0.012 + 0.15 * t), -1, 4)
        path = np.exp(-((np.abs(x - mx) / (0.035 + 0.17 * t)) ** 1.5))
        deep = gradient(
            np.clip(below + 0.10 * ripples, 0, 1),
            [
                (0, (0.20, 0.44, 0.45)),
                (0.3, (0.08, 0.27, 0.32)),
                (0.7, (0.035, 0.135, 0.19)),
                (1, (0.02, 0.085, 0.13)),
            ],
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
            image,
            angle,
            count,
            size,
            size * 0.22,
            where=0.25 + 0.75 * sky,
            value=0.006,
            jitter=(0.004,) * 3,
            dry=0.08,
            body=0.3,
            bristles=4,
        )
    painting.strokes(
        image,
        angle,
        26000,
        0.008,
        0.0018,
        where=1 - sky,
        value=0.012,
        jitter=(0.008,) * 3,
        dry=0.15,
        bristles=2,
        body=0.6,
    )
    reach = np.clip((y - horizon) / (bottom - horizon), 0, 1)
    spread = np.exp(-((np.abs(x - mx) / (0.022 + 0.13 * reach)) ** 1.7)) * (1 - sky) * (1 - 0.75 * reach)
    shine = np.broadcast_to(np.array((1.0, 0.90, 0.66), dtype=np.float32), image.shape)
    sparkle = spread * ramp(0.0, 0.5, ripples + 0.15)
    painting.strokes(
        shine, angle * 0.5, 1500, 0.007, 0.0012, where=sparkle * (reach < 0.3), value=0.04, bristles=2
    )
    painting.strokes(
        shine, angle * 0.5, 1100, 0.013, 0.0017, where=sparkle * (reach >= 0.2), value=0.05, bristles=2
    )
    canvas = painting.paint[..., :3].astype(np.float32) / 255
    canvas = 0.68 * canvas + 0.32 * image
    lay(canvas, ramp(0.034, 0.030, far) * 0.9, (1.0, 0.975, 0.88))
    _ship(canvas, 0.325, horizon + 0.045, 0.125)
    painting.paint[..., :3] = np.clip(canvas * 255, 0, 255).astype(np.uint8)
    return painting.finish(0.22, 0.012)


def _ship(image: Float, sx: float, sy: float, s: float) -> None:
    height, width = image.shape[:2]
    x, y = grid(width, height)

    def part(
        points: list[tuple[float, float]], colour: tuple[float, float, float], soft: float = 0.0006
    ) -> None:
        lay(image, polygon(width, height, [(sx + a * s, sy - b * s) for a, b in points], soft), colour)

    mirror = np.exp(-(((x - sx) / (0.45 * s)) ** 2)) * ramp(0, 0.01, y - sy) * ramp(0.55 * s, 0, y - sy)
    lay(image, mirror * 0.6, (0.06, 0.11, 0.13))
    dark, warm, shade = (0.075, 0.065, 0.065), (0.80, 0.64, 0.42), (0.36, 0.31, 0.27)
    for mast, tall in ((-0.27, 1.0), (0.03, 1.2), (0.32, 0.98)):
        part(
            [(mast - 0.008, 0.0), (mast - 0.004, tall), (mast + 0.004, tall), (mast + 0.008, 0.0)],
            dark,
            0.0003,
        )
        for low, high, wide in ((0.22, 0.52, 0.15), (0.54, 0.78, 0.12), (0.80, 0.96, 0.085)):
            a, b = low * tall, high * tall
            sail = [
                (mast - wide, a),
                (mast - wide * 0.85, b),
                (mast + wide * 0.85, b),
                (mast + wide * 1.05, a),
                (mast + wide * 0.5, a + 0.035),
                (mast - wide * 0.4, a + 0.03),
            ]
            part(sail, shade)
            part(
                [
                    (mast + wide * 0.05, b),
                    (mast + wide * 0.85, b),
                    (mast + wide * 1.05, a),
                    (mast + wide * 0.3, a + 0.035),
                ],
                warm,
                0.002,
            )
    part([(0.36, 0.16), (0.74, 0.34), (0.36, 0.80)], shade)
    part([(0.50, 0.24), (0.74, 0.34), (0.37, 0.78)], warm, 0.0012)
    part([(0.42, 0.14), (0.80, 0.36), (0.80, 0.345), (0.44, 0.11)], dark, 0.0003)
    part([(-0.52, 0.22), (-0.44, 0.13), (0.30, 0.12), (0.53, 0.19), (0.43, -0.04), (-0.43, -0.05)], dark)
    part([(-0.46, 0.095), (0.46, 0.095), (0.45, 0.075), (-0.46, 0.075)], (0.55, 0.45, 0.30), 0.0004)
    lay(
        image,
        polygon(
            width,
            height,
            [
                (sx - 0.5 * s, sy + 0.03 * s),
                (sx + 0.5 * s, sy + 0.03 * s),
                (sx + 0.46 * s, sy + 0.06 * s),
                (sx - 0.48 * s, sy + 0.06 * s),
            ],
            0.0025,
        )
        * 0.7,
        (0.50, 0.60, 0.58),
    )
