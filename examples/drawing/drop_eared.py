"""Dogs whose ears hang: the Beagle and the Golden Retriever."""

from __future__ import annotations

import numpy as np

from . import face
from .anatomy import Dog, Skull, head_flow, over, tint, toward
from .face import Eye, step
from .fur import Image, ripple
from .solids import Array, Camera, Group, Vec, both, ellipsoid, limb, rotation


def beagle() -> Dog:
    """A tricolour Beagle sitting, head turned a little."""
    turn = rotation(14, 5, -3)
    skull = Skull()

    def coat(p: Array) -> Array:
        x, y, z = p.T
        n = ripple(p, 9.0, 1) * 0.02
        c = tint(p, (0.66, 0.43, 0.24))
        c = over(c, (0.45, 0.26, 0.13), 0.6 * step(0.1, -0.5, z) + 0.3 * step(0.35, 0.5, y))
        c = over(c, (0.80, 0.62, 0.42), 0.6 * step(0.14, 0.05, np.abs(np.abs(x) - 0.17) + np.abs(y - 0.24)))
        blaze = 0.05 + 0.035 * step(0.3, 0.5, y) + 0.34 * step(0.08, -0.2, y) * step(0.28, 0.5, z)
        white = step(0.03, -0.03, np.abs(x) + n - blaze)
        white = np.maximum(white, step(-0.36, -0.44, y + n))
        return over(c, (0.96, 0.93, 0.88), white)

    head = Group(
        "head",
        skull.solids(),
        coat,
        head_flow,
        lambda p: 0.024 + 0.03 * step(0.5, -0.1, p[:, 2]),
        turn=turn,
        layer=2,
        carve=skull.sockets(),
    )

    def ear(s: float) -> Group:
        lean = rotation(s * 42, 0, s * 10)
        return Group(
            f"ear{s}",
            [
                ellipsoid((0.53 * s, -0.36, 0.02), (0.05, 0.46, 0.25), lean),
                ellipsoid((0.46 * s, 0.04, -0.04), (0.09, 0.15, 0.19), lean),
            ],
            lambda p: over(tint(p, (0.58, 0.35, 0.18)), (0.36, 0.19, 0.09), step(0.1, -0.7, p[:, 1]) * 0.7),
            toward((0.1 * s, -1, 0.05)),
            0.045,
            turn=turn,
            layer=3,
        )

    def body_coat(p: Array) -> Array:
        x, y, z = p.T
        n = ripple(p, 5.0, 3) * 0.05
        c = tint(p, (0.60, 0.37, 0.19))
        c = over(c, (0.085, 0.075, 0.075), step(-0.10, -0.2, z + n + 0.35 * (y + 0.9)))
        front = step(0.03, -0.05, np.abs(x) - 0.30 - 0.10 * step(-0.3, -0.9, y) + n) * step(
            -0.25, -0.1, z + 0.1 + n
        )
        return over(c, (0.95, 0.92, 0.87), np.maximum(front, step(-1.55, -1.75, y)))

    body = Group(
        "body",
        [
            limb((0, -0.1, -0.25), (0, -0.8, -0.25), 0.34, 0.44),
            ellipsoid((0, -1.0, -0.1), (0.47, 0.6, 0.46)),
            ellipsoid((0, -1.5, -0.7), (0.60, 0.8, 0.7)),
            *both(lambda s: limb((0.34 * s, -1.05, -0.05), (0.28 * s, -2.2, 0.2), 0.24, 0.12)),
        ],
        body_coat,
        toward((0, -1, -0.1)),
        0.055,
        blend=0.22,
        turn=rotation(-22),
        layer=1,
    )
    return Dog(
        [body, head, ear(-1), ear(1)], head, skull, Eye(tilt=0.04), 0.10, 0.125, hairs=170_000, hair_width=0.8
    )


def smile(canvas: Image, camera: Camera, head: Group) -> None:
    """An open mouth with the tongue out, painted under the upper lip."""

    def ring(half: list[tuple[float, float]], z: float) -> list[Vec]:
        right: list[Vec] = [(x, y, z) for x, y in half]
        return right + [(-x, y, z) for x, y in reversed(half) if x > 0]

    inside = [(0.0, -0.36), (0.16, -0.42), (0.225, -0.47), (0.19, -0.56), (0.12, -0.635), (0.0, -0.66)]
    face.shape(canvas, camera, head, ring(inside, 0.52), (0.13, 0.05, 0.05), 0.008)
    tongue = [(0.0, -0.44), (0.09, -0.45), (0.115, -0.55), (0.115, -0.68), (0.085, -0.77), (0.0, -0.80)]
    face.shape(
        canvas,
        camera,
        head,
        [(x, y - 0.012, z) for x, y, z in ring(tongue, 0.62)],
        (0.25, 0.1, 0.09),
        0.012,
        0.5,
    )
    face.shape(canvas, camera, head, ring(tongue, 0.62), (0.85, 0.43, 0.45), 0.003)
    core = [(0.0, -0.52), (0.05, -0.53), (0.075, -0.66), (0.05, -0.74), (0.0, -0.755)]
    face.shape(canvas, camera, head, ring(core, 0.62), (0.95, 0.60, 0.60), 0.025, 0.8)
    face.line(
        canvas,
        camera,
        head,
        [(0, -0.50, 0.62), (0.004, -0.62, 0.62), (0, -0.73, 0.62)],
        (0.6, 0.25, 0.28),
        0.016,
        0.006,
        0.7,
    )
    shadow: list[Vec] = [(-0.13, -0.47, 0.62), (0, -0.43, 0.62), (0.13, -0.47, 0.62)]
    face.line(canvas, camera, head, shadow, (0.12, 0.04, 0.05), 0.10, 0.03, 0.75)


def golden_retriever() -> Dog:
    """A Golden Retriever with a soft, feathered chest."""
    turn = rotation(-12, 3, 4)
    skull = Skull(
        dome=(0.48, 0.345, 0.52),
        brow=0.18,
        cheek=(0.25, 0.29, 0.36),
        cheek_x=0.29,
        root=(0, -0.12, 0.24),
        root_r=0.27,
        tip=(0, -0.23, 0.82),
        tip_r=0.185,
        flew=(0.16, 0.15, 0.29),
        flew_at=(0.12, -0.33, 0.62),
        chin=(0.15, 0.10, 0.24),
        chin_at=(0, -0.64, 0.40),
        eye_at=(0.21, 0.06, 0.41),
    )

    def coat(p: Array) -> Array:
        x, y, z = p.T
        c = tint(p, (0.82, 0.63, 0.39))
        c = over(c, (0.91, 0.76, 0.53), step(0.0, -0.3, y + 0.1 * ripple(p, 6.0, 2)) * 0.8)
        c = over(c, (0.72, 0.51, 0.28), 0.45 * step(0.15, 0.0, np.abs(x)) * step(0.0, 0.3, y))
        c = over(c, (0.90, 0.76, 0.54), 0.35 * step(0.22, 0.05, np.hypot(np.abs(x) - 0.2, y - 0.2)))
        return over(c, (0.94, 0.84, 0.67), step(0.40, 0.62, z) * 0.75 * step(0.05, -0.2, y))

    head = Group(
        "head",
        skull.solids(),
        coat,
        head_flow,
        lambda p: (
            0.03
            + 0.09 * step(0.5, -0.1, p[:, 2])
            + 0.05 * step(-0.2, -0.4, p[:, 1]) * step(0.4, 0.2, p[:, 2])
        ),
        turn=turn,
        layer=2,
        carve=skull.sockets(),
    )

    def ear(s: float) -> Group:
        lean = rotation(s * 50, 0, s * 16)
        return Group(
            f"ear{s}",
            [
                ellipsoid((0.53 * s, -0.20, 0.04), (0.06, 0.37, 0.26), lean),
                ellipsoid((0.46 * s, 0.10, -0.02), (0.11, 0.13, 0.2), lean),
            ],
            lambda p: over(tint(p, (0.72, 0.51, 0.28)), (0.62, 0.41, 0.20), step(0.0, -0.5, p[:, 1])),
            toward((0.15 * s, -1, 0.1)),
            0.10,
            turn=turn,
            layer=3,
        )

    body = Group(
        "body",
        [
            limb((0, -0.1, -0.3), (0, -0.9, -0.3), 0.44, 0.58),
            ellipsoid((0, -1.05, -0.1), (0.58, 0.7, 0.5)),
            ellipsoid((0, -1.5, -0.8), (0.75, 0.85, 0.75)),
            *both(lambda s: limb((0.42 * s, -1.1, -0.05), (0.34 * s, -2.3, 0.2), 0.27, 0.15)),
        ],
        lambda p: over(
            tint(p, (0.78, 0.58, 0.34)),
            (0.92, 0.80, 0.61),
            step(0.55, 0.1, np.abs(p[:, 0]) + 0.08 * ripple(p, 4.0, 3)) * step(-0.3, 0.2, p[:, 2]),
        ),
        lambda p: np.stack([0.35 * p[:, 0], tint(p, (0, -1, 0))[:, 1], 0.1 + 0 * p[:, 0]], axis=1),
        0.17,
        blend=0.25,
        turn=rotation(14),
        layer=1,
        scatter=0.22,
    )
    return Dog(
        [body, head, ear(-1), ear(1)],
        head,
        skull,
        Eye(iris=(0.30, 0.16, 0.07), open=0.66, tilt=0.06),
        0.098,
        0.13,
        hairs=130_000,
        hair_width=0.85,
        after=lambda canvas, camera: smile(canvas, camera, head),
    )
