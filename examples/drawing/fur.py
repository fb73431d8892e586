"""Hair by hair: turn a traced surface into a lit, tapered, combed coat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .solids import Array, Camera, Group, Surface, unit, vec

Image = NDArray[Any]


@dataclass
class Light:
    """A key light, a sky fill and a rim light, each with a direction and a colour."""

    key: Array
    key_colour: Array
    fill_colour: Array
    bounce_colour: Array
    rim: Array
    rim_colour: Array


def lit(colour: Array, normal: Array, shadow: Array, occlusion: Array, light: Light) -> Array:
    """Shade sRGB colours in linear light and return sRGB again."""
    linear = np.clip(colour, 0, 1) ** 2.2
    facing = np.clip((normal @ light.key + 0.25) / 1.25, 0, 1) * (0.12 + 0.88 * shadow)
    up = 0.5 + 0.5 * normal[:, 1]
    edge = np.clip(1 - normal[:, 2], 0, 1) ** 2.2 * np.clip(normal @ light.rim + 0.2, 0, 1)
    total = (
        facing[:, None] * light.key_colour
        + (occlusion * up)[:, None] * light.fill_colour
        + (occlusion * (1 - up))[:, None] * light.bounce_colour
    )
    out = linear * total + (edge * occlusion)[:, None] * light.rim_colour * (0.06 + linear)
    return np.clip(out, 0, 1) ** (1 / 2.2)


def ripple(p: Array, scale: float, seed: int = 0) -> Array:
    """Smooth pseudo-noise in about -1..1 at 3D points."""
    r = np.random.default_rng(seed)
    total = np.zeros(len(p), dtype=np.float32)
    for octave in range(4):
        k = r.normal(size=3) * scale * (1.0 + 0.6 * octave)
        total += np.sin(p @ vec(k) + r.uniform(0, 6.28)) / (1 + 0.5 * octave)
    return total / 2.2


def base_coat(
    canvas: Image, groups: list[Group], seen: Surface, light: Light
) -> tuple[Image, Array, NDArray[np.int32]]:
    """Lay the lit, hairless surface onto the canvas; return it with the lit colours and hit pixels."""
    rows, cols = np.nonzero(seen.hit)
    position, label = seen.position[rows, cols], seen.group[rows, cols]
    colour = np.zeros_like(position)
    for index, group in enumerate(groups):
        mine = label == index
        if mine.any():
            colour[mine] = group.colour(group.local(position[mine]))
    shade = lit(colour, seen.normal[rows, cols], seen.light[rows, cols], seen.occlusion[rows, cols], light)
    small = np.zeros((*seen.hit.shape, 3), dtype=np.float32)
    small[rows, cols] = shade
    size = (canvas.shape[1], canvas.shape[0])
    mask = cv2.GaussianBlur(seen.hit.astype(np.float32), (0, 0), 1.0)
    spread = cv2.GaussianBlur(small, (0, 0), 1.0) / np.maximum(mask, 1e-3)[..., None]
    alpha = np.clip(cv2.resize(mask, size, interpolation=cv2.INTER_CUBIC) * 2.4 - 1.2, 0, 1)[..., None]
    big = cv2.resize(spread, size, interpolation=cv2.INTER_LINEAR)
    canvas = (canvas * (1 - alpha) + np.clip(big, 0, 1) * 255 * alpha).astype(np.uint8)
    return canvas, shade, np.stack([rows, cols], axis=1).astype(np.int32)


def comb(
    canvas: Image,
    groups: list[Group],
    seen: Surface,
    light: Light,
    camera: Camera,
    count: int,
    rng: np.random.Generator,
    only: Callable[[Group, Array], NDArray[np.bool_]] | None = None,
    width: float = 1.0,
) -> None:
    """Draw `count` hairs on the canvas, far ones first; `only` may restrict where they are rooted."""
    rows, cols = np.nonzero(seen.hit)
    pick = rng.integers(0, len(rows), count)
    rows, cols = rows[pick], cols[pick]
    root = seen.position[rows, cols].copy()
    normal, label = seen.normal[rows, cols], seen.group[rows, cols]
    shadow, occlusion = seen.light[rows, cols], seen.occlusion[rows, cols]
    root[:, :2] += rng.uniform(-0.5, 0.5, (count, 2)).astype(np.float32) * camera_step(seen, camera)
    colour, flow = np.zeros_like(root), np.zeros_like(root)
    length, order = np.zeros(count, dtype=np.float32), np.zeros(count, dtype=np.float32)
    keep = np.ones(count, dtype=bool)
    scatter, lift = np.zeros((count, 1), dtype=np.float32), np.zeros((count, 1), dtype=np.float32)
    for index, group in enumerate(groups):
        mine = label == index
        if not mine.any():
            continue
        local = group.local(root[mine])
        colour[mine] = group.colour(local)
        flow[mine] = group.flow(local) @ group.turn.T
        length[mine] = group.length(local) if callable(group.length) else group.length
        order[mine] = group.layer * 10.0
        scatter[mine], lift[mine] = group.scatter, group.lift
        if only is not None:
            keep[mine] = only(group, local)
    clump = ripple(root, 22.0, 5)[:, None] * unit(np.cross(normal, flow))
    lie = unit(flow)
    flow = unit(lie - (lie * normal).sum(axis=1, keepdims=True) * normal) + 0.5 * lie
    flow = unit(unit(flow) + scatter * (rng.normal(size=flow.shape).astype(np.float32) * 0.8 + 1.1 * clump))
    order += root[:, 2] - 0.7 * np.clip(2 * flow[:, 1], -1, 1) * root[:, 1] + rng.normal(0, 0.03, count)
    length *= rng.uniform(0.6, 1.25, count).astype(np.float32)
    streak = rng.normal(0, 0.11, count) + 0.07 * ripple(root, 30.0, 9)
    normal_jitter = unit(normal + 0.35 * flow * rng.normal(0, 1, (count, 1)).astype(np.float32))
    shade = lit(colour * (1 + streak[:, None]), normal_jitter, shadow, occlusion, light)
    reach = flow + lift * normal
    sag = vec((0, -0.25, 0))
    middle = root + length[:, None] * 0.5 * reach
    tip = root + length[:, None] * (0.92 * flow + 0.4 * lift * normal + sag * lift)
    a, b, c = camera.project(root), camera.project(middle), camera.project(tip)
    side = c - a
    side = np.stack([-side[:, 1], side[:, 0]], axis=1) / (np.linalg.norm(side, axis=1, keepdims=True) + 1e-3)
    half = (width * rng.uniform(0.6, 1.3, (count, 1)) * np.clip(length[:, None] / 0.08, 0.75, 1.5)).astype(
        np.float32
    )
    outline = np.stack([a - side * half * 0.6, b - side * half, c, b + side * half, a + side * half * 0.6], 1)
    outline = np.round(outline * 16).astype(np.int32)
    ink = np.round(shade * 255).astype(int)
    for i in np.argsort(order, kind="stable"):
        if keep[i] and length[i] > 0:
            cv2.fillPoly(canvas, [outline[i]], ink[i].tolist(), cv2.LINE_AA, 4)


def camera_step(seen: Surface, camera: Camera) -> float:
    """World size of one traced pixel."""
    return float(camera.height / seen.hit.shape[0])


DAYLIGHT = Light(
    unit(vec((-0.5, 0.65, 0.75))),
    vec((1.05, 0.98, 0.86)),
    vec((0.34, 0.40, 0.48)),
    vec((0.26, 0.24, 0.16)),
    unit(vec((0.8, 0.5, -0.5))),
    vec((1.0, 0.85, 0.6)),
)
EVENING = Light(
    unit(vec((-0.45, 0.55, 0.8))),
    vec((1.0, 0.90, 0.74)),
    vec((0.36, 0.36, 0.44)),
    vec((0.30, 0.24, 0.15)),
    unit(vec((0.9, 0.35, -0.4))),
    vec((1.9, 1.35, 0.75)),
)
WINTER = Light(
    unit(vec((-0.55, 0.6, 0.75))),
    vec((0.98, 0.94, 0.88)),
    vec((0.36, 0.43, 0.54)),
    vec((0.34, 0.38, 0.44)),
    unit(vec((0.8, 0.5, -0.5))),
    vec((0.7, 0.8, 1.0)),
)
SOFT = Light(
    unit(vec((-0.4, 0.6, 0.8))),
    vec((0.92, 0.88, 0.80)),
    vec((0.40, 0.43, 0.48)),
    vec((0.42, 0.40, 0.40)),
    unit(vec((0.8, 0.5, -0.5))),
    vec((0.8, 0.75, 0.65)),
)
