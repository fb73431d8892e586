"""What all the dogs share: skulls, hair lie, and the steps that draw one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import face
from .face import Eye
from .fur import Image, Light, base_coat, comb
from .solids import Array, Camera, Distance, Group, Vec, both, ellipsoid, limb, look, unit, vec


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

    dome: Vec = (0.46, 0.355, 0.52)
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
    smile: float = 0.02

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

    def mouth(self) -> list[list[Vec]]:
        """Groove under the nose and the line of the lips, whose corners rise by `smile`."""
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
                    (fx * s, low + self.smile * 0.3, fz + 0.1),
                    ((fx + 0.10) * s, low + 0.03 + self.smile, fz - 0.06),
                ]
            )
        return lines

    def above_lip(self, p: Array) -> Array:
        """Positive over the upper lip of the muzzle."""
        low = self.flew_at[1] - self.flew[1] * 0.86
        curve = (
            low
            + 0.012
            + 0.075 * np.exp(-((p[:, 0] / 0.04) ** 2))
            + 0.9 * np.clip(np.abs(p[:, 0]) - 0.16, 0, 1) ** 1.3
        )
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


def draw_dog(
    canvas: Image, dog: Dog, camera: Camera, light: Light, rng: np.random.Generator, trace: int
) -> None:
    """Trace, coat, comb and give the dog its face; `trace` is the height of the traced picture."""
    small = Camera(round(trace * camera.width_px / camera.height_px), trace, camera.centre, camera.height)
    seen = look(dog.groups, small, light.key)
    image, _, _ = base_coat(canvas, dog.groups, seen, light)
    canvas[:] = image
    pixel = camera.height_px / 1500
    comb(
        canvas,
        dog.groups,
        seen,
        light,
        camera,
        round(dog.hairs * pixel**0.5),
        rng,
        width=dog.hair_width * pixel * 1.4,
    )
    x, y, z = dog.skull.eye_at
    for side in (-1.0, 1.0):
        centre = (x * side, y, z)
        paint = face.eye_paint(dog.eye, side)
        face.paint_plane(canvas, camera, dog.head, centre, dog.eye_size, paint, side * dog.eye_yaw)
    lips = dog.skull.mouth() if dog.after is None else dog.skull.mouth()[:1]
    for points in lips:
        face.line(canvas, camera, dog.head, points, (0.06, 0.035, 0.03), 0.024, 0.005, 0.85, seen)
    if dog.after is not None:
        dog.after(canvas, camera)

    def lip(group: Group, p: Array) -> NDArray[np.bool_]:
        return dog.skull.above_lip(p) > 0 if group is dog.head else np.zeros(len(p), dtype=bool)

    comb(canvas, dog.groups, seen, light, camera, dog.hairs // 2, rng, lip, dog.hair_width * pixel * 1.2)
    nose = face.nose_paint()
    face.paint_plane(canvas, camera, dog.head, dog.skull.nose_at(), dog.nose_size, nose, 0.0, 8.0)
