"""Dogs whose ears stand: the Siberian Husky and the West Highland White Terrier."""

from __future__ import annotations

import numpy as np

from .anatomy import Dog, Skull, head_flow, over, tint
from .face import Eye, step
from .fur import ripple
from .solids import Array, Group, Vec, both, ellipsoid, flattened, limb, rotation, unit, vec


def prick_ear(
    s: float,
    at: Vec,
    height: float,
    width: float,
    out: float,
    turn: Array,
    outer: Vec,
    inner: Vec,
    hair: float,
) -> Group:
    """An upright triangular ear with a paler hollow."""
    lean = rotation(s * 24, -6, -s * out)
    centre = (at[0] * s, at[1], at[2])
    cone = limb((0, 0, 0), (0, height, 0), width, 0.015)

    def colour(p: Array) -> Array:
        q = (p - vec(centre)) @ lean
        reach = np.abs(q[:, 0]) / (width * np.clip(1 - q[:, 1] / height, 0.05, 1))
        return over(
            tint(p, outer),
            inner,
            step(0.72, 0.42, reach) * step(0.92, 0.75, q[:, 1] / height) * (q[:, 2] > -0.02),
        )

    return Group(
        f"ear{s}",
        [flattened(cone, centre, (1, 1, 0.36), lean)],
        colour,
        lambda p: tint(p, (0.25 * s, 1.0, 0.05)),
        hair,
        turn=turn,
        layer=0,
        blend=0.05,
        carve=[
            ellipsoid(
                (centre[0], centre[1] + 0.28 * height, centre[2] + 0.36 * width),
                (width * 0.5, height * 0.5, 0.09),
                lean,
            )
        ],
    )


def husky() -> Dog:
    """A grey and white Siberian Husky with blue eyes."""
    turn = rotation(10, 2, 2)
    skull = Skull(
        dome=(0.46, 0.36, 0.50),
        cheek=(0.24, 0.27, 0.34),
        cheek_x=0.27,
        root=(0, -0.10, 0.24),
        root_r=0.235,
        tip=(0, -0.22, 0.78),
        tip_r=0.14,
        flew=(0.12, 0.13, 0.25),
        flew_at=(0.09, -0.31, 0.62),
        chin=(0.10, 0.08, 0.22),
        chin_at=(0, -0.41, 0.52),
        eye_at=(0.205, 0.075, 0.40),
        smile=0.08,
    )
    slate, white = (0.23, 0.235, 0.26), (0.95, 0.95, 0.95)

    def coat(p: Array) -> Array:
        x, y, _ = p.T
        n = ripple(p, 8.0, 4) * 0.025
        ax = np.abs(x) + n
        c = tint(p, slate)
        c = over(c, (0.42, 0.42, 0.45), 0.5 * step(0.2, 0.45, ax))
        # white mask: cheeks and muzzle up to the eyes, with the dark cap dipping between the brows
        edge = 0.02 + 0.14 * step(0.04, 0.20, ax) - 0.16 * step(0.30, 0.50, ax)
        mask = step(0.03, -0.04, y + n - edge)
        mask = np.maximum(mask, step(0.10, 0.06, np.hypot((ax - 0.16) / 1.5, (y - 0.235) / 0.9)))
        c = over(c, white, mask)
        stripe = step(0.045, 0.01, ax) * step(-0.20, -0.05, y) + step(0.02, 0.0, np.abs(ax - 0.0)) * step(
            0.2, 0.45, y
        )
        c = over(c, (0.40, 0.38, 0.38), 0.85 * np.clip(stripe, 0, 1) * (y < 0.12))
        return over(c, (0.93, 0.93, 0.93), step(0.022, 0.0, ax) * step(0.22, 0.27, y))

    head = Group(
        "head",
        skull.solids(),
        coat,
        head_flow,
        lambda p: 0.028 + 0.08 * step(0.5, -0.1, p[:, 2]) + 0.06 * step(0.3, 0.5, np.abs(p[:, 0])),
        turn=turn,
        layer=2,
        carve=skull.sockets(),
    )
    ears = [
        prick_ear(s, (0.27, 0.26, -0.10), 0.47, 0.245, 12, turn, (0.20, 0.20, 0.22), (0.80, 0.74, 0.71), 0.06)
        for s in (-1.0, 1.0)
    ]

    def body_coat(p: Array) -> Array:
        x, y, z = p.T
        n = ripple(p, 4.0, 6) * 0.07
        front = step(0.05, -0.07, np.abs(x) - 0.33 - 0.12 * step(-0.4, -1.0, y) + n) * step(-0.3, -0.05, z)
        return over(
            over(tint(p, (0.27, 0.275, 0.30)), (0.5, 0.5, 0.52), 0.4 * step(-0.2, 0.3, n * 8)), white, front
        )

    body = Group(
        "body",
        [
            limb((0, -0.1, -0.3), (0, -0.9, -0.3), 0.46, 0.60),
            ellipsoid((0, -1.05, -0.1), (0.58, 0.7, 0.5)),
            ellipsoid((0, -1.5, -0.8), (0.75, 0.9, 0.75)),
        ],
        body_coat,
        lambda p: np.stack([0.5 * p[:, 0], -np.ones(len(p), dtype=np.float32), 0.1 + 0 * p[:, 0]], axis=1),
        0.15,
        blend=0.25,
        turn=rotation(-16),
        layer=1,
        scatter=0.2,
    )
    eye = Eye(iris=(0.40, 0.62, 0.80), open=0.62, tilt=0.2, pupil=0.3)
    return Dog([body, *ears, head], head, skull, eye, 0.095, 0.105, hairs=140_000, hair_width=0.8)


def westie() -> Dog:
    """A West Highland White Terrier with a round, brushed-out face."""
    turn = rotation(-10, 2, -5)
    skull = Skull(
        dome=(0.50, 0.42, 0.48),
        brow=0.22,
        cheek=(0.30, 0.34, 0.34),
        cheek_x=0.30,
        root=(0, -0.12, 0.2),
        root_r=0.26,
        tip=(0, -0.20, 0.58),
        tip_r=0.19,
        flew=(0.16, 0.17, 0.2),
        flew_at=(0.12, -0.31, 0.46),
        chin=(0.15, 0.12, 0.2),
        chin_at=(0, -0.44, 0.40),
        eye_at=(0.20, 0.06, 0.385),
    )
    white = (0.955, 0.945, 0.92)

    def coat(p: Array) -> Array:
        c = over(
            tint(p, white), (0.88, 0.80, 0.68), 0.30 * step(-0.2, -0.45, p[:, 1]) * step(0.3, 0.5, p[:, 2])
        )
        near = np.hypot(np.abs(p[:, 0]) - 0.20, p[:, 1] - 0.05)
        return over(c, (0.72, 0.66, 0.60), 0.5 * step(0.14, 0.06, near))

    def flow(p: Array) -> Array:
        away = p * vec((1.25, 1.0, 0.0)) - vec((0, -0.06, -0.25))
        away[:, 2] = 0.1
        return unit(away)

    def length(p: Array) -> Array:
        ring = np.hypot(p[:, 0], p[:, 1] + 0.08)
        clear = step(0.08, 0.17, np.hypot(np.abs(p[:, 0]) - 0.2, p[:, 1] - 0.06))
        return (0.05 + 0.15 * step(0.18, 0.5, ring) - 0.08 * step(0.2, 0.4, p[:, 1])) * (0.4 + 0.6 * clear)

    head = Group(
        "head", skull.solids(), coat, flow, length, turn=turn, layer=2, carve=skull.sockets(), scatter=0.2
    )
    ears = [
        prick_ear(s, (0.28, 0.33, 0.0), 0.46, 0.22, 13, turn, (0.92, 0.90, 0.86), (0.86, 0.68, 0.62), 0.07)
        for s in (-1.0, 1.0)
    ]
    body = Group(
        "body",
        [
            limb((0, -0.2, -0.3), (0, -0.8, -0.3), 0.42, 0.5),
            ellipsoid((0, -0.95, -0.1), (0.52, 0.6, 0.46)),
            ellipsoid((0, -1.3, -0.75), (0.66, 0.75, 0.7)),
            *both(lambda s: limb((0.34 * s, -1.1, 0.0), (0.32 * s, -1.95, 0.15), 0.25, 0.19)),
        ],
        lambda p: over(tint(p, white), (0.86, 0.82, 0.76), 0.35 * step(-0.2, 0.6, ripple(p, 4.0, 7))),
        lambda p: np.stack([0.4 * p[:, 0], -np.ones(len(p), dtype=np.float32), 0.1 + 0 * p[:, 0]], axis=1),
        0.19,
        blend=0.22,
        turn=rotation(12),
        layer=1,
        scatter=0.24,
    )
    eye = Eye(iris=(0.16, 0.09, 0.05), open=0.72, tilt=0.05, pupil=0.4, liner=0.22)
    return Dog([body, *ears, head], head, skull, eye, 0.088, 0.14, hairs=110_000, hair_width=0.9)
