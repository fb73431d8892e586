"""The dogs: their solids, coats and faces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import face
from .face import Eye, step
from .fur import Image, Light, base_coat, comb, ripple
from .solids import Array, Camera, Distance, Group, Vec, both, ellipsoid, flattened, limb, look, rotation, unit, vec


def tint(p: Array, colour: Vec) -> Array:
    """One colour for all points."""
    return np.broadcast_to(vec(colour), p.shape).astype(np.float32)


def over(below: Array, colour: Vec, amount: Array) -> Array:
    """Lay a colour over others by an amount per point."""
    return face.mix(below, colour, np.clip(amount, 0, 1))


def toward(direction: Vec) -> Callable[[Array], Array]:
    """Hair that lies in one direction."""
    return lambda p: tint(p, direction)


def head_flow(p: Array) -> Array:
    """Hair that streams away from the nose and hangs below the cheeks."""
    away = unit(p - vec((0, -0.12, 0.95)))
    away[:, 1] += np.where(p[:, 1] < 0.05, -0.35, 0.15)
    return away


@dataclass
class Skull:
    """Proportions of a head: y is up, z points out of the muzzle, the skull is about one unit wide."""

    dome: Vec = (0.46, 0.38, 0.52)
    brow: float = 0.20
    cheek: Vec = (0.23, 0.26, 0.36)
    cheek_x: float = 0.27
    root: Vec = (0, -0.10, 0.22)
    root_r: float = 0.25
    tip: Vec = (0, -0.24, 0.74)
    tip_r: float = 0.175
    flew: Vec = (0.15, 0.17, 0.25)
    flew_at: Vec = (0.12, -0.34, 0.60)
    chin: Vec = (0.13, 0.09, 0.22)
    chin_at: Vec = (0, -0.46, 0.50)
    eye_at: Vec = (0.215, 0.075, 0.40)

    def solids(self) -> list[Distance]:
        """The head without ears."""
        x, y, z = self.tip
        parts = [
            ellipsoid((0, 0.10, -0.12), self.dome),
            limb(self.root, self.tip, self.root_r, self.tip_r),
            ellipsoid(self.chin_at, self.chin),
            ellipsoid((x, y + 0.05, z + 0.11), (0.115, 0.085, 0.1)),
        ]
        for s in (-1, 1):
            fx, fy, fz = self.flew_at
            parts += [
                ellipsoid((0.2 * s, 0.19, 0.15), (0.21, self.brow, 0.25)),
                ellipsoid((self.cheek_x * s, -0.13, 0.05), self.cheek),
                ellipsoid((fx * s, fy, fz), self.flew),
            ]
        return parts

    def sockets(self) -> list[Distance]:
        """Hollows for the eyes."""
        x, y, z = self.eye_at
        return both(lambda s: ellipsoid((x * s, y, z + 0.07), (0.11, 0.08, 0.1)))

    def nose_at(self) -> Vec:
        """Where the nose leather is painted."""
        x, y, z = self.tip
        return (x, y + 0.06, z + 0.19)

    def mouth(self, corner: float = 0.02) -> list[list[Vec]]:
        """Groove under the nose and the line of the lips, ending `corner` above the flews' lower edge."""
        x, y, z = self.tip
        fx, fy, fz = self.flew_at
        low = fy - self.flew[1] * 0.86
        mid = low + 0.075
        lines: list[list[Vec]] = [[(x, y - 0.05, z + 0.18), (x, (y + mid) / 2, z + 0.15), (x, mid, z + 0.1)]]
        for s in (-1, 1):
            lines.append(
                [
                    (0, mid, z + 0.1),
                    (0.05 * s, low + 0.02, z + 0.07),
                    (fx * s, low, fz + 0.1),
                    ((fx + 0.10) * s, low + 0.03 + corner, fz - 0.06),
                ]
            )
        return lines

    def above_lip(self, p: Array) -> Array:
        """Positive over the upper lip of the muzzle."""
        low = self.flew_at[1] - self.flew[1] * 0.86
        curve = low + 0.012 + 0.075 * np.exp(-((p[:, 0] / 0.04) ** 2)) + 0.9 * np.clip(np.abs(p[:, 0]) - 0.16, 0, 1) ** 1.3
        near = (p[:, 2] > self.flew_at[2] - 0.25) & (np.abs(p[:, 0]) > 0.02)
        return np.where(near & (p[:, 1] < curve + 0.10), p[:, 1] - curve - 0.012, -1.0)


@dataclass
class Dog:
    """A posed dog with everything needed to draw it."""

    groups: list[Group]
    head: Group
    skull: Skull
    eye: Eye
    eye_size: float
    nose_size: float
    eye_yaw: float = 16.0
    hairs: int = 90_000
    hair_width: float = 1.0
    after: Callable[[Image, Camera], None] | None = None


def draw_dog(canvas: Image, dog: Dog, camera: Camera, light: Light, rng: np.random.Generator, trace: int) -> None:
    """Trace, coat, comb and give the dog its face; `trace` is the height of the traced picture."""
    small = Camera(round(trace * camera.width_px / camera.height_px), trace, camera.centre, camera.height)
    seen = look(dog.groups, small, light.key)
    image, _, _ = base_coat(canvas, dog.groups, seen, light)
    canvas[:] = image
    pixel = camera.height_px / 1500
    comb(canvas, dog.groups, seen, light, camera, round(dog.hairs * pixel**0.5), rng, width=dog.hair_width * pixel * 1.4)
    x, y, z = dog.skull.eye_at
    for side in (-1.0, 1.0):
        centre = (x * side, y, z)
        paint = face.eye_paint(dog.eye, side)
        face.paint_plane(canvas, camera, dog.head, centre, dog.eye_size, paint, side * dog.eye_yaw)
    for points in dog.skull.mouth():
        face.line(canvas, camera, dog.head, points, (0.06, 0.035, 0.03), 0.024, 0.005, 0.85, seen)
    if dog.after is not None:
        dog.after(canvas, camera)

    def lip(group: Group, p: Array) -> NDArray[np.bool_]:
        return dog.skull.above_lip(p) > 0 if group is dog.head else np.zeros(len(p), dtype=bool)

    comb(canvas, dog.groups, seen, light, camera, dog.hairs // 2, rng, lip, dog.hair_width * pixel * 1.2)
    nose = face.nose_paint()
    face.paint_plane(canvas, camera, dog.head, dog.skull.nose_at(), dog.nose_size, nose, 0.0, 8.0)


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
        "head", skull.solids(), coat, head_flow, lambda p: 0.024 + 0.03 * step(0.5, -0.1, p[:, 2]), turn=turn,
        layer=2, carve=skull.sockets(),
    )  # fmt: skip

    def ear(s: float) -> Group:
        lean = rotation(s * 42, 0, s * 10)
        return Group(
            f"ear{s}",
            [
                ellipsoid((0.53 * s, -0.36, 0.02), (0.05, 0.46, 0.25), lean),
                ellipsoid((0.46 * s, 0.04, -0.04), (0.09, 0.15, 0.19), lean),
            ],
            lambda p: over(tint(p, (0.58, 0.35, 0.18)), (0.36, 0.19, 0.09), step(0.1, -0.7, p[:, 1]) * 0.7),
            toward((0.1 * s, -1, 0.05)), 0.045, turn=turn, layer=3,
        )  # fmt: skip

    def body_coat(p: Array) -> Array:
        x, y, z = p.T
        n = ripple(p, 5.0, 3) * 0.05
        c = tint(p, (0.60, 0.37, 0.19))
        c = over(c, (0.085, 0.075, 0.075), step(-0.10, -0.2, z + n + 0.35 * (y + 0.9)))
        front = step(0.03, -0.05, np.abs(x) - 0.30 - 0.10 * step(-0.3, -0.9, y) + n) * step(-0.25, -0.1, z + 0.1 + n)
        return over(c, (0.95, 0.92, 0.87), np.maximum(front, step(-1.55, -1.75, y)))

    body = Group(
        "body",
        [
            limb((0, -0.1, -0.25), (0, -0.8, -0.25), 0.34, 0.44),
            ellipsoid((0, -1.0, -0.1), (0.47, 0.6, 0.46)),
            ellipsoid((0, -1.5, -0.7), (0.60, 0.8, 0.7)),
            *both(lambda s: limb((0.34 * s, -1.05, -0.05), (0.28 * s, -2.2, 0.2), 0.24, 0.12)),
        ],
        body_coat, toward((0, -1, -0.1)), 0.055, blend=0.22, turn=rotation(-22), layer=1,
    )  # fmt: skip
    return Dog(
        [body, head, ear(-1), ear(1)], head, skull, Eye(), 0.10, 0.125, hairs=170_000, hair_width=0.8,
    )  # fmt: skip


def smile(canvas: Image, camera: Camera, head: Group) -> None:
    """An open mouth with the tongue out, painted under the upper lip."""

    def ring(half: list[tuple[float, float]], z: float) -> list[Vec]:
        right: list[Vec] = [(x, y, z) for x, y in half]
        return right + [(-x, y, z) for x, y in reversed(half) if x > 0]

    inside = [(0.0, -0.36), (0.16, -0.42), (0.225, -0.47), (0.19, -0.56), (0.12, -0.635), (0.0, -0.66)]
    face.shape(canvas, camera, head, ring(inside, 0.52), (0.13, 0.05, 0.05), 0.008)
    tongue = [(0.0, -0.44), (0.09, -0.45), (0.115, -0.55), (0.115, -0.68), (0.085, -0.77), (0.0, -0.80)]
    face.shape(canvas, camera, head, [(x, y - 0.012, z) for x, y, z in ring(tongue, 0.62)], (0.25, 0.1, 0.09), 0.012, 0.5)
    face.shape(canvas, camera, head, ring(tongue, 0.62), (0.85, 0.43, 0.45), 0.003)
    core = [(0.0, -0.52), (0.05, -0.53), (0.075, -0.66), (0.05, -0.74), (0.0, -0.755)]
    face.shape(canvas, camera, head, ring(core, 0.62), (0.95, 0.60, 0.60), 0.025, 0.8)
    face.line(canvas, camera, head, [(0, -0.50, 0.62), (0.004, -0.62, 0.62), (0, -0.73, 0.62)], (0.6, 0.25, 0.28), 0.016, 0.006, 0.7)
    shadow: list[Vec] = [(-0.13, -0.47, 0.62), (0, -0.43, 0.62), (0.13, -0.47, 0.62)]
    face.line(canvas, camera, head, shadow, (0.12, 0.04, 0.05), 0.10, 0.03, 0.75)


def golden_retriever() -> Dog:
    """A Golden Retriever with a soft, feathered chest."""
    turn = rotation(-12, 3, 4)
    skull = Skull(
        dome=(0.48, 0.38, 0.52), brow=0.19, cheek=(0.25, 0.29, 0.36), cheek_x=0.29, root=(0, -0.12, 0.24),
        root_r=0.27, tip=(0, -0.23, 0.82), tip_r=0.185, flew=(0.16, 0.15, 0.29), flew_at=(0.12, -0.33, 0.62),
        chin=(0.15, 0.10, 0.24), chin_at=(0, -0.64, 0.40), eye_at=(0.21, 0.06, 0.41),
    )  # fmt: skip

    def coat(p: Array) -> Array:
        x, y, z = p.T
        c = tint(p, (0.82, 0.63, 0.39))
        c = over(c, (0.91, 0.76, 0.53), step(0.0, -0.3, y + 0.1 * ripple(p, 6.0, 2)) * 0.8)
        c = over(c, (0.72, 0.51, 0.28), 0.45 * step(0.15, 0.0, np.abs(x)) * step(0.0, 0.3, y))
        c = over(c, (0.90, 0.76, 0.54), 0.35 * step(0.22, 0.05, np.hypot(np.abs(x) - 0.2, y - 0.2)))
        return over(c, (0.94, 0.84, 0.67), step(0.40, 0.62, z) * 0.75 * step(0.05, -0.2, y))

    head = Group(
        "head", skull.solids(), coat, head_flow,
        lambda p: 0.03 + 0.09 * step(0.5, -0.1, p[:, 2]) + 0.05 * step(-0.2, -0.4, p[:, 1]) * step(0.4, 0.2, p[:, 2]),
        turn=turn, layer=2, carve=skull.sockets(),
    )  # fmt: skip

    def ear(s: float) -> Group:
        lean = rotation(s * 50, 0, s * 16)
        return Group(
            f"ear{s}",
            [
                ellipsoid((0.53 * s, -0.20, 0.04), (0.06, 0.37, 0.26), lean),
                ellipsoid((0.46 * s, 0.10, -0.02), (0.11, 0.13, 0.2), lean),
            ],
            lambda p: over(tint(p, (0.72, 0.51, 0.28)), (0.62, 0.41, 0.20), step(0.0, -0.5, p[:, 1])),
            toward((0.15 * s, -1, 0.1)), 0.10, turn=turn, layer=3,
        )  # fmt: skip

    body = Group(
        "body",
        [
            limb((0, -0.1, -0.3), (0, -0.9, -0.3), 0.44, 0.58),
            ellipsoid((0, -1.05, -0.1), (0.58, 0.7, 0.5)),
            ellipsoid((0, -1.5, -0.8), (0.75, 0.85, 0.75)),
            *both(lambda s: limb((0.42 * s, -1.1, -0.05), (0.34 * s, -2.3, 0.2), 0.27, 0.15)),
        ],
        lambda p: over(
            tint(p, (0.78, 0.58, 0.34)), (0.92, 0.80, 0.61),
            step(0.55, 0.1, np.abs(p[:, 0]) + 0.08 * ripple(p, 4.0, 3)) * step(-0.3, 0.2, p[:, 2]),
        ),
        lambda p: np.stack([0.35 * p[:, 0], tint(p, (0, -1, 0))[:, 1], 0.1 + 0 * p[:, 0]], axis=1),
        0.17, blend=0.25, turn=rotation(14), layer=1, scatter=0.22,
    )  # fmt: skip
    return Dog(
        [body, head, ear(-1), ear(1)], head, skull, Eye(iris=(0.30, 0.16, 0.07), open=0.66, tilt=0.06), 0.098, 0.13,
        hairs=130_000, hair_width=0.85, after=lambda canvas, camera: smile(canvas, camera, head),
    )  # fmt: skip


def prick_ear(
    s: float, at: Vec, height: float, width: float, out: float, turn: Array, outer: Vec, inner: Vec, hair: float
) -> Group:
    """An upright triangular ear with a paler hollow."""
    lean = rotation(s * 24, -6, -s * out)
    centre = (at[0] * s, at[1], at[2])
    cone = limb((0, 0, 0), (0, height, 0), width, 0.015)

    def colour(p: Array) -> Array:
        q = (p - vec(centre)) @ lean
        reach = np.abs(q[:, 0]) / (width * np.clip(1 - q[:, 1] / height, 0.05, 1))
        return over(tint(p, outer), inner, step(0.72, 0.42, reach) * step(0.92, 0.75, q[:, 1] / height) * (q[:, 2] > -0.02))

    return Group(
        f"ear{s}", [flattened(cone, centre, (1, 1, 0.36), lean)], colour,
        lambda p: tint(p, (0.25 * s, 1.0, 0.05)), hair, turn=turn, layer=0, blend=0.05,
        carve=[ellipsoid((centre[0], centre[1] + 0.28 * height, centre[2] + 0.36 * width), (width * 0.5, height * 0.5, 0.09), lean)],
    )  # fmt: skip


def husky() -> Dog:
    """A grey and white Siberian Husky with blue eyes."""
    turn = rotation(10, 2, 2)
    skull = Skull(
        dome=(0.46, 0.36, 0.50), cheek=(0.24, 0.27, 0.34), cheek_x=0.27, root=(0, -0.10, 0.24), root_r=0.235,
        tip=(0, -0.22, 0.78), tip_r=0.14, flew=(0.12, 0.13, 0.25), flew_at=(0.09, -0.31, 0.62),
        chin=(0.10, 0.08, 0.22), chin_at=(0, -0.41, 0.52), eye_at=(0.205, 0.075, 0.40),
    )  # fmt: skip
    slate, white = (0.23, 0.235, 0.26), (0.95, 0.95, 0.95)

    def coat(p: Array) -> Array:
        x, y, z = p.T
        n = ripple(p, 8.0, 4) * 0.025
        ax = np.abs(x) + n
        c = tint(p, slate)
        c = over(c, (0.42, 0.42, 0.45), 0.5 * step(0.2, 0.45, ax))
        # white mask: cheeks and muzzle up to the eyes, with the dark cap dipping between the brows
        edge = 0.02 + 0.14 * step(0.04, 0.20, ax) - 0.16 * step(0.30, 0.50, ax)
        mask = step(0.03, -0.04, y + n - edge)
        mask = np.maximum(mask, step(0.10, 0.06, np.hypot((ax - 0.16) / 1.5, (y - 0.235) / 0.9)))
        c = over(c, white, mask)
        stripe = step(0.045, 0.01, ax) * step(-0.20, -0.05, y) + step(0.02, 0.0, np.abs(ax - 0.0)) * step(0.2, 0.45, y)
        c = over(c, (0.40, 0.38, 0.38), 0.85 * np.clip(stripe, 0, 1) * (y < 0.12))
        return over(c, (0.93, 0.93, 0.93), step(0.022, 0.0, ax) * step(0.22, 0.27, y))

    head = Group(
        "head", skull.solids(), coat, head_flow,
        lambda p: 0.028 + 0.08 * step(0.5, -0.1, p[:, 2]) + 0.06 * step(0.3, 0.5, np.abs(p[:, 0])),
        turn=turn, layer=2, carve=skull.sockets(),
    )  # fmt: skip
    ears = [
        prick_ear(s, (0.27, 0.26, -0.10), 0.47, 0.245, 12, turn, (0.20, 0.20, 0.22), (0.80, 0.74, 0.71), 0.06)
        for s in (-1.0, 1.0)
    ]

    def body_coat(p: Array) -> Array:
        x, y, z = p.T
        n = ripple(p, 4.0, 6) * 0.07
        front = step(0.05, -0.07, np.abs(x) - 0.33 - 0.12 * step(-0.4, -1.0, y) + n) * step(-0.3, -0.05, z)
        return over(over(tint(p, (0.27, 0.275, 0.30)), (0.5, 0.5, 0.52), 0.4 * step(-0.2, 0.3, n * 8)), white, front)

    body = Group(
        "body",
        [
            limb((0, -0.1, -0.3), (0, -0.9, -0.3), 0.46, 0.60),
            ellipsoid((0, -1.05, -0.1), (0.58, 0.7, 0.5)),
            ellipsoid((0, -1.5, -0.8), (0.75, 0.9, 0.75)),
        ],
        body_coat,
        lambda p: np.stack([0.5 * p[:, 0], -np.ones(len(p), dtype=np.float32), 0.1 + 0 * p[:, 0]], axis=1),
        0.15, blend=0.25, turn=rotation(-16), layer=1, scatter=0.2,
    )  # fmt: skip
    eye = Eye(iris=(0.40, 0.62, 0.80), open=0.62, tilt=0.2, pupil=0.3)
    return Dog([body, *ears, head], head, skull, eye, 0.095, 0.105, hairs=140_000, hair_width=0.8)


def westie() -> Dog:
    """A West Highland White Terrier with a round, brushed-out face."""
    turn = rotation(-10, 2, -5)
    skull = Skull(
        dome=(0.50, 0.42, 0.48), brow=0.22, cheek=(0.30, 0.34, 0.34), cheek_x=0.30, root=(0, -0.12, 0.2), root_r=0.26,
        tip=(0, -0.20, 0.58), tip_r=0.19, flew=(0.16, 0.17, 0.2), flew_at=(0.12, -0.31, 0.46),
        chin=(0.15, 0.12, 0.2), chin_at=(0, -0.44, 0.40), eye_at=(0.20, 0.06, 0.385),
    )  # fmt: skip
    white = (0.955, 0.945, 0.92)

    def coat(p: Array) -> Array:
        c = over(tint(p, white), (0.88, 0.80, 0.68), 0.30 * step(-0.2, -0.45, p[:, 1]) * step(0.3, 0.5, p[:, 2]))
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

    head = Group("head", skull.solids(), coat, flow, length, turn=turn, layer=2, carve=skull.sockets(), scatter=0.2)
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
        0.19, blend=0.22, turn=rotation(12), layer=1, scatter=0.24,
    )  # fmt: skip
    eye = Eye(iris=(0.16, 0.09, 0.05), open=0.72, tilt=0.05, pupil=0.4, liner=0.22)
    return Dog([body, *ears, head], head, skull, eye, 0.088, 0.14, hairs=110_000, hair_width=0.9)


DAYLIGHT = Light(
    unit(vec((-0.5, 0.65, 0.75))), vec((1.05, 0.98, 0.86)), vec((0.34, 0.40, 0.48)), vec((0.26, 0.24, 0.16)),
    unit(vec((0.8, 0.5, -0.5))), vec((1.0, 0.85, 0.6)),
)
EVENING = Light(
    unit(vec((-0.45, 0.55, 0.8))), vec((1.0, 0.90, 0.74)), vec((0.36, 0.36, 0.44)), vec((0.30, 0.24, 0.15)),
    unit(vec((0.9, 0.35, -0.4))), vec((1.9, 1.35, 0.75)),
)
WINTER = Light(
    unit(vec((-0.55, 0.6, 0.75))), vec((0.98, 0.94, 0.88)), vec((0.36, 0.43, 0.54)), vec((0.34, 0.38, 0.44)),
    unit(vec((0.8, 0.5, -0.5))), vec((0.7, 0.8, 1.0)),
)
