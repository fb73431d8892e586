"""Small signed-distance modeller: soft solids, an orthographic camera, normals and soft light."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Vec = tuple[float, float, float]
Distance = Callable[[Array], Array]


def vec(v: Sequence[float] | Sequence[Vec] | Array) -> Array:
    """A float32 array from three numbers."""
    return np.asarray(v, dtype=np.float32)


def unit(v: Array) -> Array:
    """Rows scaled to length one."""
    return v / (np.linalg.norm(v, axis=-1, keepdims=True) + 1e-6)


def rotation(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> Array:
    """Matrix that turns by roll, then pitch (positive looks down), then yaw (positive looks right)."""
    y, p, r = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return vec(about_y @ about_x @ about_z)


def ellipsoid(centre: Vec, radii: Vec, turn: Array | None = None) -> Distance:
    """An ellipsoid, turned about its own centre."""
    c, r = vec(centre), vec(radii)

    def distance(p: Array) -> Array:
        q = p - c if turn is None else (p - c) @ turn
        k0 = np.linalg.norm(q / r, axis=-1)
        k1 = np.linalg.norm(q / (r * r), axis=-1) + 1e-6
        return k0 * (k0 - 1.0) / k1

    return distance


def limb(start: Vec, end: Vec, r0: float, r1: float) -> Distance:
    """A capsule whose radius runs from r0 to r1."""
    a, ba = vec(start), vec(end) - vec(start)
    length2 = float(ba @ ba)

    def distance(p: Array) -> Array:
        pa = p - a
        h = np.clip(pa @ ba / length2, 0.0, 1.0)
        return np.linalg.norm(pa - h[:, None] * ba, axis=-1) - (r0 + (r1 - r0) * h)

    return distance


def flattened(solid: Distance, centre: Vec, scale: Vec, turn: Array | None = None) -> Distance:
    """A solid modelled about the origin, squeezed by `scale`, turned and set at `centre`."""
    c, s = vec(centre), vec(scale)

    def distance(p: Array) -> Array:
        q = p - c if turn is None else (p - c) @ turn
        return solid(q / s) * float(s.min())

    return distance


def both(make: Callable[[float], Distance]) -> list[Distance]:
    """The same solid on the left (-1) and on the right (+1)."""
    return [make(-1.0), make(1.0)]


def soft_min(a: Array, b: Array, k: float) -> Array:
    """Smooth union of two distances over the width k."""
    h = np.maximum(k - np.abs(a - b), 0.0) / k
    return np.minimum(a, b) - h * h * k * 0.25


@dataclass
class Group:
    """Solids that share a frame, a coat and a way for the hair to lie."""

    name: str
    solids: list[Distance]
    colour: Callable[[Array], Array]
    flow: Callable[[Array], Array]
    length: Callable[[Array], Array] | float = 0.05
    blend: float = 0.12
    turn: Array = field(default_factory=lambda: np.eye(3, dtype=np.float32))
    origin: Vec = (0.0, 0.0, 0.0)
    layer: int = 0
    carve: list[Distance] = field(default_factory=list)
    lift: float = 0.35
    scatter: float = 0.22

    def local(self, p: Array) -> Array:
        """World points in the frame of the group."""
        return (p - vec(self.origin)) @ self.turn

    def world(self, p: Array) -> Array:
        """Points of the group's frame in the world."""
        return p @ self.turn.T + vec(self.origin)

    def distance(self, p: Array) -> Array:
        """Signed distance from world points to the group's surface."""
        q = self.local(p)
        d = self.solids[0](q)
        for solid in self.solids[1:]:
            d = soft_min(d, solid(q), self.blend)
        for solid in self.carve:
            d = -soft_min(-d, solid(q), 0.08)
        return d


@dataclass
class Surface:
    """What the camera sees: hit mask, group, position, normal, light and occlusion per pixel."""

    hit: NDArray[np.bool_]
    group: NDArray[np.int32]
    position: Array
    normal: Array
    light: Array
    occlusion: Array


@dataclass
class Camera:
    """Orthographic view along -z; `height` world units fill the picture from top to bottom."""

    width_px: int
    height_px: int
    centre: tuple[float, float]
    height: float

    @property
    def scale(self) -> float:
        """Pixels per world unit."""
        return self.height_px / self.height

    def project(self, p: Array) -> Array:
        """Pixel positions (x, y) of world points."""
        x = (p[..., 0] - self.centre[0]) * self.scale + self.width_px / 2
        y = (self.centre[1] - p[..., 1]) * self.scale + self.height_px / 2
        return np.stack([x, y], axis=-1)

    def rays(self) -> Array:
        """World positions of the pixel centres on the plane z = 0."""
        j, i = np.meshgrid(np.arange(self.width_px) + 0.5, np.arange(self.height_px) + 0.5)
        x = (j - self.width_px / 2) / self.scale + self.centre[0]
        y = self.centre[1] - (i - self.height_px / 2) / self.scale
        return np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.float32)


def look(groups: list[Group], camera: Camera, to_light: Array, near: float = 2.2) -> Surface:
    """Sphere-trace the groups and gather what the shading needs."""

    def scene(p: Array) -> tuple[Array, NDArray[np.int32]]:
        each = np.stack([g.distance(p) for g in groups])
        d = each[0]
        for other in each[1:]:
            d = soft_min(d, other, 0.05)
        return d, each.argmin(axis=0).astype(np.int32)

    shape = (camera.height_px, camera.width_px)
    p = camera.rays().reshape(-1, 3)
    p[:, 2] = near
    alive = np.arange(len(p))
    hit = np.zeros(len(p), dtype=bool)
    for _ in range(70):
        d, _ = scene(p[alive])
        p[alive, 2] -= np.clip(d * 0.8, 0.0, 0.4)
        hit[alive[d < 0.004]] = True
        alive = alive[(d >= 0.004) & (p[alive, 2] > -2.5)]
        if alive.size == 0:
            break
    q = p[hit]
    _, label = scene(q)
    normal = np.zeros_like(q)
    for corner in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        e = vec(corner)
        normal += e * scene(q + e * 0.01)[0][:, None]
    normal = unit(normal)
    occlusion = np.ones(len(q), dtype=np.float32)
    for step in (0.04, 0.10, 0.2, 0.34):
        occlusion -= np.clip(step - scene(q + normal * step)[0], 0, None) * 0.42 / step**0.6
    light = np.ones(len(q), dtype=np.float32)
    along = np.full(len(q), 0.06, dtype=np.float32)
    for _ in range(14):
        d, _ = scene(q + normal * 0.03 + to_light * along[:, None])
        light = np.minimum(light, 0.5 + 4.0 * d / along)
        along += np.clip(d, 0.05, 0.25)

    def spread(values: Array, fill: float) -> Array:
        out = np.full((len(p), *values.shape[1:]), fill, dtype=np.float32)
        out[hit] = values
        return out.reshape(*shape, *values.shape[1:])

    return Surface(
        hit.reshape(shape),
        spread(label.astype(np.float32), -1).astype(np.int32),
        spread(q, 0.0),
        spread(normal, 0.0),
        spread(np.clip(light, 0.0, 1.0), 1.0),
        spread(np.clip(occlusion, 0.0, 1.0), 1.0),
    )
