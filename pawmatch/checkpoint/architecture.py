"""A figure of a model's stages, drawn from its config on shapes alone, for the model card and the docs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import torch
from torch import Tensor, nn

from pawmatch.checkpoint.budget import build
from pawmatch.checkpoint.config import CheckpointConfig
from pawmatch.labels import VARIANT_NAMES
from pawmatch.models.backbone import NoInit
from pawmatch.models.compiler import without_compiler

# What each stage is called, and its attributes of the model; one without a number only changes the width.
STAGES = {
    "Backbone": ("backbone",),
    "Stem": ("stem",),
    "Projection": ("projection",),
    "Attention": ("attention",),
    "Transformer encoder": ("encoder", "cls_token", "position_embedding"),
    "Morphology, five branches": ("morphological_extractor",),
    "Fusion": ("feature_fusion",),
    "Classifier": ("norm", "classifier"),
}
UNNUMBERED = ("Projection",)
WIDTH, ROW, GAP, LEFT, MAX_TITLE = 290, 54, 18, 4, 36  # pixels, as wide as a phone has room for
# The page's own colors, light or dark; elsewhere those after the commas.
PAPER, INK, QUIET, LINE, BOX = (
    f"var(--{name}, {color})"
    for name, color in (
        ("block-background-fill", "#ffffff"),
        ("body-text-color", "#1f2937"),
        ("body-text-color-subdued", "#374151"),
        ("border-color-primary", "#9ca3af"),
        ("background-fill-secondary", "#f3f4f6"),
    )
)


@dataclass(frozen=True)
class Stage:
    """A part of a model: its name, the shape that leaves it for one picture, and its number of parameters."""

    name: str
    shape: tuple[int, ...]
    parameters: int


def find_stages(config: CheckpointConfig) -> tuple[Stage, ...]:
    """The stages of the model that `config` describes, in the order in which a picture passes them.

    Nothing is computed: the model is on the meta device. Raises what budget.build raises; a config that
    has not been loaded yet is for budget.empty_model to check.
    """
    with torch.device("meta"), without_compiler(), NoInit():
        model = build(config, config.task.name).eval()
    size = config.input.size
    shapes: dict[str, tuple[int, ...]] = {}

    def note(stage: str, whole: nn.Module) -> Callable[[nn.Module, Any, Any], None]:
        def hook(part: nn.Module, given: Any, made: Any) -> None:
            shapes.setdefault(stage, (model.feature_dim,))  # of parts that are used otherwise than called
            if part is whole:
                shapes[stage] = tuple((made if isinstance(made, Tensor) else made[0]).shape[1:])

        return hook

    counts = dict.fromkeys(STAGES, 0)
    for stage, names in STAGES.items():
        for part in (getattr(model, name, None) for name in names):
            if isinstance(part, nn.Module):
                for inner in part.modules():
                    inner.register_forward_hook(note(stage, part))
                counts[stage] += sum(value.numel() for value in part.parameters())
            elif part is not None:
                counts[stage] += part.numel()
    with torch.device("meta"), torch.no_grad():
        feature_map = model.forward_features(torch.empty(1, 3, size, size))
        first = next(iter(shapes))
        model.forward_head(feature_map)
    shapes[first] = tuple(feature_map.shape[1:])
    return tuple(Stage(name, shape, counts[name]) for name, shape in shapes.items())


def draw_architecture(config: CheckpointConfig) -> str:
    """An SVG of the stages of the model that `config` describes; raises as find_stages."""
    title = " ".join(f"{config.task.title}: {VARIANT_NAMES[config.variant]}".split())
    title = title if len(title) <= MAX_TITLE else f"{title[: MAX_TITLE - 1]}…"
    size, number = config.input.size, 0
    rows = [("Picture", f"3 x {size} x {size}")]
    for one in find_stages(config):
        number += one.name not in UNNUMBERED
        name = one.name if one.name in UNNUMBERED else f"{number}. {one.name}"
        rows.append((name, f"{' x '.join(map(str, one.shape))}, {one.parameters:,} parameters"))
    return svg(title, rows)


def svg(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """Boxes of a name and a line each, one below the other, with an arrow between each two."""
    height = 44 + len(rows) * (ROW + GAP)
    told = "; ".join(map(": ".join, rows))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}. {escape(told)}" font-family="sans-serif" font-size="14">',
        f'<rect width="{WIDTH}" height="{height}" fill="{PAPER}"/>',
        f'<text x="{LEFT}" y="28" font-weight="bold" fill="{INK}">{escape(title)}</text>',
    ]
    for number, (name, line) in enumerate(rows):
        top = 44 + number * (ROW + GAP)
        if number:
            arrow = f"M{WIDTH // 2} {top - GAP + 1}v{GAP - 6}m-4 -4l4 5l4 -5"
            lines.append(f'<path d="{arrow}" stroke="{QUIET}" fill="none"/>')
        lines += [
            f'<rect x="{LEFT}" y="{top}" width="{WIDTH - 2 * LEFT}" height="{ROW}" rx="8" fill="{BOX}" '
            f'stroke="{LINE}"/>',
            f'<text x="{LEFT + 12}" y="{top + 23}" font-weight="bold" fill="{INK}">{escape(name)}</text>',
            f'<text x="{LEFT + 12}" y="{top + 45}" fill="{QUIET}">{escape(line)}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
