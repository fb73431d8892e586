"""Eyes, nose and mouth, painted in planes that stand in the head's own frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from .fur import Image
from .solids import Array, Camera, Group, Surface, Vec, rotation, vec

Paint = Callable[[Array, Array], tuple[Array, Array]]


def step(low: float, high: float, x: Array) -> Array:
    """Smooth ramp from 0 at `low` to 1 at `high`."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mix(a: Array, b: Array | Vec, t: Array) -> Array:
    """Blend colours per pixel."""
    return a * (1 - t[..., None]) + vec(b) * t[..., None]


def paint_plane(
    canvas: Image,
    camera: Camera,
    head: Group,
    centre: Vec,
    size: float,
    paint: Paint,
    yaw: float = 0.0,
    pitch: float = 0.0,
) -> None:
    """Run `paint(u, v)` -> (colour, alpha) over a square of half-width 2 `size` units around `centre`."""
    turn = rotation(yaw, pitch)
    c = vec(centre)
    points = np.stack([c, c + size * turn[:, 0], c + size * turn[:, 1]])
    origin, right, up = camera.project(head.world(points))
    axes = np.stack([right - origin, up - origin], axis=1)
    reach = np.abs(axes).sum(axis=1) * 2
    low = np.maximum(np.floor(origin - reach), 0).astype(int)
    high = np.minimum(np.ceil(origin + reach), (canvas.shape[1], canvas.shape[0])).astype(int)
    j, i = np.meshgrid(np.arange(low[0], high[0]) + 0.5, np.arange(low[1], high[1]) + 0.5)
    uv = np.stack([j - origin[0], i - origin[1]], axis=-1) @ np.linalg.inv(axes).T
    colour, alpha = paint(uv[..., 0].astype(np.float32), uv[..., 1].astype(np.float32))
    patch = canvas[low[1] : high[1], low[0] : high[0]]
    blend = np.clip(alpha, 0, 1)[..., None]
    patch[:] = np.clip(patch * (1 - blend) + np.clip(colour, 0, 1) * 255 * blend, 0, 255).astype(np.uint8)


@dataclass
class Eye:
    """How the breed's eyes look."""

    iris: Vec = (0.36, 0.2, 0.09)
    rim: Vec = (0.07, 0.05, 0.045)
    open: float = 0.66
    tilt: float = 0.12
    pupil: float = 0.34
    liner: float = 0.2


def eye_paint(look: Eye, side: float) -> Paint:
    """An almond eye with rim, iris, pupil, lid shadow and catch-light; `side` is -1 or +1."""

    def paint(u: Array, v: Array) -> tuple[Array, Array]:
        outward = u * side
        v = v - look.tilt * outward
        bow = np.clip(1 - np.abs(outward / 1.05) ** 2.2, 0, None) ** 0.75
        lids = np.minimum(look.open * bow - v, v + 0.56 * bow + 0.04)
        inside = step(-0.02, 0.05, lids)
        corner = np.hypot(np.clip(np.abs(outward) - 0.86, 0, None) / 0.26, v / 0.3)
        around = step(-look.liner - 0.12, -0.06, lids) * step(1.0, 0.6, corner)
        r = np.hypot(u, v - 0.03)
        colour = np.broadcast_to(vec(look.rim), (*u.shape, 3)).astype(np.float32)
        ball = np.broadcast_to(vec((0.30, 0.22, 0.19)), (*u.shape, 3)).astype(np.float32)
        spokes = 0.06 * np.sin(np.arctan2(v, u) * 31 + 3 * np.sin(r * 19))
        glow = 0.75 + 0.65 * step(0.25, -0.55, v) + spokes
        iris = vec(look.iris) * glow[..., None]
        ball = mix(ball, (0.05, 0.035, 0.03), step(0.80, 0.70, r))
        ball = ball * step(0.60, 0.70, r)[..., None] + iris * (1 - step(0.60, 0.70, r))[..., None]
        ball = mix(ball, (0.02, 0.015, 0.015), step(look.pupil + 0.06, look.pupil - 0.04, r))
        ball = ball * (0.35 + 0.65 * step(0.0, 0.42, look.open * bow - v))[..., None]
        ball = mix(
            ball, (0.66, 0.78, 0.92), 0.45 * step(0.5, 0.1, np.hypot((u - 0.02) / 1.5, (v - 0.33) * 1.5))
        )
        ball = mix(ball, (1, 1, 0.97), step(0.19, 0.12, np.hypot(u + 0.22, v - 0.24)))
        ball = mix(ball, (1, 0.97, 0.92), 0.5 * step(0.12, 0.02, np.hypot(u - 0.24, v + 0.25)))
        wet = step(0.05, 0.0, np.abs(v + 0.56 * bow)) * step(0.9, 0.5, np.abs(u))
        colour = colour * (1 - inside[..., None]) + ball * inside[..., None]
        colour = mix(colour, (0.75, 0.6, 0.55), 0.35 * wet)
        return colour, np.maximum(around * 0.96, inside) * step(1.3, 1.0, np.abs(u))

    return paint


def nose_paint(colour: Vec = (0.075, 0.065, 0.07), wide_below: float = 0.6) -> Paint:
    """A leathery nose with two nostrils, a groove and a soft shine."""

    def paint(u: Array, v: Array) -> tuple[Array, Array]:
        width = 0.62 + 0.38 * step(-0.75, 0.15, v) - 0.25 * step(0.35, 0.85, v)
        width = width - (1 - wide_below) * 0.4 * step(0.0, -0.8, v)
        d = 1 - (np.abs(u / width) ** 2.6 + np.abs(v / 0.74) ** 2.4)
        alpha = step(-0.02, 0.12, d)
        tone = np.broadcast_to(vec(colour), (*u.shape, 3)).astype(np.float32)
        pebble = 0.5 + 0.5 * np.sin(u * 41 + 2 * np.sin(v * 37)) * np.sin(v * 43 + 2 * np.sin(u * 35))
        tone = tone * (0.8 + 0.5 * step(-0.6, 0.6, v) + 0.25 * pebble * step(-0.4, 0.5, v))[..., None]
        shine = step(0.75, 0.0, np.hypot((u + 0.12) / 0.8, (v - 0.36) / 0.30))
        tone = mix(tone, (0.62, 0.66, 0.74), 0.55 * shine * (0.8 + 0.4 * pebble))
        wing = step(0.5, 0.1, np.hypot((np.abs(u) - 0.62) / 0.5, (v + 0.18) / 0.5))
        tone = mix(tone, (0.30, 0.29, 0.31), 0.35 * wing)
        bend = v + 0.12 + 0.25 * (np.abs(u) - 0.4)
        hole = step(1.15, 0.8, np.hypot((np.abs(u) - 0.40) / 0.20, bend / 0.17))
        slit = step(
            1.2, 0.7, np.hypot((np.abs(u) - 0.64) / 0.2, (v + 0.24 - 0.3 * (np.abs(u) - 0.64)) / 0.07)
        )
        groove = step(0.055, 0.0, np.abs(u)) * step(0.05, -0.2, v)
        tone = mix(tone, (0.005, 0.004, 0.006), np.maximum(np.maximum(hole, slit), 0.75 * groove))
        return tone, alpha

    return paint


def smooth_line(points: list[Vec], n: int = 14) -> Array:
    """Catmull-Rom curve through 3D points."""
    p = vec(points)
    p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = np.linspace(0, 1, n, endpoint=False, dtype=np.float32)[:, None]
    out = []
    for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:], strict=True):
        out.append(
            0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        )
    return np.concatenate([*out, p[-2:-1]])


def line(
    canvas: Image,
    camera: Camera,
    head: Group,
    points: list[Vec],
    colour: Vec,
    width: float,
    soft: float = 0.0,
    opacity: float = 1.0,
    seen: Surface | None = None,
) -> None:
    """A tapering line through points of the head's frame, `width` in world units."""
    world = head.world(smooth_line(points))
    xy = camera.project(world)
    shown = np.ones(len(xy), dtype=bool)
    if seen is not None:
        ratio = seen.hit.shape[0] / camera.height_px
        col, row = np.clip((xy * ratio).astype(int).T, 0, np.array([seen.hit.shape[::-1]]).T - 1)
        shown = (world[:, 2] > seen.position[row, col, 2] - 0.07) & (seen.normal[row, col, 2] > 0.3)
    mask = np.zeros(canvas.shape[:2], dtype=np.uint8)
    count = len(xy)
    for i in np.flatnonzero(shown[:-1]):
        thick = max(1, round(width * camera.scale * (0.45 + 0.55 * np.sin(np.pi * (0.12 + 0.8 * i / count)))))
        a, b = (np.round(xy[k] * 16).astype(int).tolist() for k in (i, i + 1))
        cv2.line(mask, a, b, 255, thick, cv2.LINE_AA, 4)
    blend(canvas, mask, colour, soft * camera.scale, opacity)


def shape(
    canvas: Image,
    camera: Camera,
    head: Group,
    points: list[Vec],
    colour: Vec,
    soft: float = 0.0,
    opacity: float = 1.0,
) -> None:
    """A smooth closed shape through points of the head's frame."""
    closed = smooth_line([*points, points[0]])
    mask = np.zeros(canvas.shape[:2], dtype=np.uint8)
    xy = np.round(camera.project(head.world(closed)) * 16).astype(np.int32)
    cv2.fillPoly(mask, [xy], 255, cv2.LINE_AA, 4)
    blend(canvas, mask, colour, soft * camera.scale, opacity)


def blend(canvas: Image, mask: Image, colour: Vec, soft: float, opacity: float) -> None:
    """Lay a colour through a mask, softened by `soft` pixels."""
    x, y, w, h = cv2.boundingRect(mask)
    pad = int(3 * soft) + 2
    part = np.s_[max(0, y - pad) : y + h + pad, max(0, x - pad) : x + w + pad]
    cover = mask[part].astype(np.float32) / 255 * opacity
    if soft > 0.3:
        cover = cv2.GaussianBlur(cover, (0, 0), soft)
    canvas[part] = (canvas[part] * (1 - cover[..., None]) + vec(colour) * 255 * cover[..., None]).astype(
        np.uint8
    )
