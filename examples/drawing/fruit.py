"""Fruit, a jug and a cloth, built from slanting patches of colour."""

from __future__ import annotations

import cv2
import numpy as np

from .strokes import Float, Image, Painting, flat, gradient, grid, lay, noise, polygon, ramp


def apples_and_jug(width: int, height: int, rng: np.random.Generator) -> Image:
    """Fruit, a jug and a white cloth, built from slanting patches of colour."""
    x, y = grid(width, height)
    wall = gradient(
        0.5 + 0.35 * noise(width, height, 4, rng, 3) + 0.25 * (x - 0.5),
        [
            (0, (0.24, 0.31, 0.38)),
            (0.4, (0.34, 0.42, 0.45)),
            (0.7, (0.43, 0.46, 0.41)),
            (1, (0.52, 0.46, 0.36)),
        ],
    )
    image = wall
    table = ramp(-0.004, 0.004, y - 0.455 - 0.02 * (x - 0.5))
    wood = gradient(
        0.5 + 0.3 * noise(width, height, 5, rng) + 0.5 * (y - 0.5),
        [(0, (0.44, 0.25, 0.14)), (0.5, (0.64, 0.40, 0.21)), (1, (0.74, 0.52, 0.28))],
    )
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
    white = gradient(
        0.5 + 0.42 * folds,
        [
            (0, (0.36, 0.43, 0.58)),
            (0.35, (0.64, 0.68, 0.75)),
            (0.65, (0.92, 0.91, 0.86)),
            (1, (0.99, 0.97, 0.90)),
        ],
    )
    cloth = [
        (0.16, 0.50),
        (0.27, 0.475),
        (0.36, 0.535),
        (0.50, 0.50),
        (0.70, 0.525),
        (0.86, 0.49),
        (0.93, 0.56),
        (0.88, 0.64),
        (0.80, 0.665),
        (0.72, 0.80),
        (0.55, 0.71),
        (0.42, 0.80),
        (0.30, 0.70),
        (0.20, 0.70),
        (0.10, 0.60),
    ]
    add(polygon(width, height, cloth, 0.004), white)
    # the jug
    jx, base_y, top_y = 0.285, 0.555, 0.185
    t = np.clip((base_y - y) / (base_y - top_y), 0, 1)
    half = np.interp(
        t, [0, 0.06, 0.3, 0.5, 0.72, 0.84, 0.95, 1], [0.062, 0.078, 0.118, 0.120, 0.075, 0.052, 0.058, 0.070]
    ).astype(np.float32)
    side = (x - jx) / half
    handle = np.abs(np.hypot((x - jx - 0.085) / 0.075, (y - 0.315) / 0.085) - 1) * 0.075
    grip = ramp(0.017, 0.012, handle) * (x > jx + 0.05)
    clay = gradient(
        0.5 - 0.55 * side + 0.12 * noise(width, height, 8, rng),
        [
            (0, (0.20, 0.24, 0.34)),
            (0.3, (0.45, 0.50, 0.56)),
            (0.6, (0.76, 0.76, 0.70)),
            (0.85, (0.97, 0.94, 0.82)),
            (1, (0.82, 0.83, 0.78)),
        ],
    )
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
    lay(
        image,
        ramp(1.5, 0.8, ((x - px - 0.02) / 0.21) ** 2 + ((y - py - 0.035) / 0.062) ** 2) * 0.6,
        (0.36, 0.40, 0.52),
    )
    add(ramp(1.03, 0.97, ((x - px) / 0.205) ** 2 + ((y - py) / 0.062) ** 2), (0.86, 0.87, 0.84))
    lay(
        image, ramp(1.05, 0.95, ((x - px) / 0.155) ** 2 + ((y - py + 0.004) / 0.043) ** 2), (0.62, 0.67, 0.74)
    )
    red = [
        (0, (0.22, 0.07, 0.13)),
        (0.3, (0.56, 0.11, 0.10)),
        (0.6, (0.80, 0.24, 0.12)),
        (0.82, (0.93, 0.52, 0.20)),
        (1, (0.99, 0.88, 0.55)),
    ]
    gold = [
        (0, (0.34, 0.22, 0.16)),
        (0.3, (0.70, 0.40, 0.12)),
        (0.6, (0.91, 0.65, 0.18)),
        (0.85, (0.97, 0.83, 0.34)),
        (1, (1.0, 0.96, 0.72)),
    ]
    green = [
        (0, (0.13, 0.21, 0.20)),
        (0.3, (0.30, 0.42, 0.16)),
        (0.6, (0.56, 0.64, 0.22)),
        (0.85, (0.80, 0.80, 0.36)),
        (1, (0.97, 0.95, 0.68)),
    ]
    orange = [
        (0, (0.36, 0.14, 0.12)),
        (0.3, (0.74, 0.30, 0.08)),
        (0.6, (0.93, 0.50, 0.12)),
        (0.85, (0.98, 0.70, 0.26)),
        (1, (1.0, 0.92, 0.62)),
    ]
    fruit = [
        (0.525, 0.470, 0.056, red),
        (0.715, 0.470, 0.056, gold),
        (0.620, 0.462, 0.058, orange),
        (0.568, 0.392, 0.054, gold),
        (0.668, 0.394, 0.054, red),
        (0.618, 0.322, 0.052, green),
        (0.470, 0.590, 0.060, red),
        (0.352, 0.625, 0.056, green),
        (0.585, 0.640, 0.060, orange),
        (0.770, 0.610, 0.060, red),
        (0.845, 0.555, 0.052, gold),
    ]
    fruit_mask = np.zeros_like(x)
    for fx, fy, r, stops in fruit:
        if fy > 0.52:
            shadow = ((x - fx - 0.4 * r) / (1.25 * r)) ** 2 + ((y - fy - 0.80 * r) / (0.42 * r)) ** 2
            lay(image, ramp(1.3, 0.5, shadow) * 0.75, (0.27, 0.31, 0.45))
        ux, uy = (x - fx) / r, (y - fy) / (r * 0.94)
        d = np.hypot(ux, uy) * (1 + 0.035 * np.cos(3 * np.arctan2(uy, ux) + fx * 40))
        nz = np.sqrt(np.clip(1 - d**2, 0, 1))
        light = np.clip(0.40 - 0.42 * ux - 0.48 * uy + 0.36 * nz - 0.18, -0.1, 1.1) + 0.07 * noise(
            width, height, 14, rng, 2
        )
        mask = ramp(1.03, 0.97, d)
        add(mask, gradient(light, stops))
        lay(
            image,
            ramp(0.25, 0.05, np.hypot(ux / 1.2 - 0.05, uy * 1.6 + 0.92)) * mask * 0.7,
            (0.24, 0.16, 0.10),
        )
        fruit_mask = np.maximum(fruit_mask, mask)
        around = np.arctan2(uy, ux) + np.pi / 2
        bend = np.sin(around - (-1.05)) * 0.55
        turn = np.where(mask > 0.5, -1.05 + bend, turn)
    lay(image, outline * 0.6, (0.14, 0.17, 0.30))
    painting = Painting(image, rng)
    painting.strokes(image, turn, 2400, 0.050, 0.022, value=0.035, jitter=(0.035, 0.03, 0.045), wander=0.06)
    painting.strokes(
        image, turn, 5200, 0.034, 0.014, value=0.035, jitter=(0.04, 0.035, 0.05), wander=0.06, dry=0.5
    )
    things = np.clip(fruit_mask + jug + grip + polygon(width, height, cloth), 0.12, 1)
    painting.strokes(
        image,
        turn,
        6000,
        0.020,
        0.0085,
        where=things,
        value=0.035,
        jitter=(0.035, 0.03, 0.04),
        wander=0.06,
        dry=0.5,
    )
    painting.strokes(
        image,
        turn,
        6500,
        0.013,
        0.0055,
        where=np.clip(fruit_mask + 0.7 * jug + grip + outline, 0, 1),
        value=0.025,
        jitter=(0.02, 0.02, 0.025),
        dry=0.5,
    )
    gx, gy = (
        cv2.Sobel(cv2.GaussianBlur(outline, (0, 0), 2), cv2.CV_32F, 1, 0),
        cv2.Sobel(cv2.GaussianBlur(outline, (0, 0), 2), cv2.CV_32F, 0, 1),
    )
    smooth = [cv2.GaussianBlur(c, (0, 0), 3) for c in (gx * gx - gy * gy, 2 * gx * gy)]
    along = 0.5 * np.arctan2(smooth[1], smooth[0]) + np.pi / 2
    ink = np.broadcast_to(np.array((0.12, 0.15, 0.27), dtype=np.float32), image.shape)
    painting.strokes(
        ink,
        along,
        620,
        0.024,
        0.0015,
        where=ramp(0.6, 0.95, outline) * (fruit_mask + jug + grip > 0.01) * (y > 0.215),
        value=0.05,
        bristles=2,
    )
    return painting.finish(0.55)
