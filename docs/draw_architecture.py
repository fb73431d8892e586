"""Draw the architecture of a bundled task's largest variant, from the model itself, as an SVG file.

PYTHONPATH=. python docs/draw_architecture.py [breed] [docs/architecture.svg]

Shapes are those that one picture of the checkpoint's input size has on its way; parameters are counted.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

import torch
from torch import Tensor, nn

from pawmatch.checkpoint import load_task

# What each part of the hybrid is called in the figure, in the order in which a picture passes them.
STAGES = {
    "backbone": "1. Backbone",
    "projection": "Projection, 1 x 1",
    "attention": "2. Attention",
    "morphological_extractor": "3. Morphology, five branches",
    "feature_fusion": "4. Fusion",
    "classifier": "5. Classifier",
}
WIDTH, ROW, GAP, LEFT = 360, 58, 18, 20


def stages(task: str) -> tuple[str, list[tuple[str, str, str]]]:
    """A title, and of each stage that the model has the name, the shape that leaves it and its parameters."""
    checkpoint = load_task(None, task)[-1]
    model, config = checkpoint.model.eval(), checkpoint.config
    seen: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> None:
        def hook(part: nn.Module, given: object, made: Tensor) -> None:
            seen[name] = tuple(made.shape[1:])

        model.get_submodule(name).register_forward_hook(hook)

    names = [name for name, part in model.named_children() if name in STAGES and part is not None]
    for name in names:
        note(name)
    size = config.input.size
    with torch.no_grad():
        feature_map = model.forward_features(torch.zeros(1, 3, size, size))
        model.forward_head(feature_map)
    seen.setdefault("backbone", tuple(feature_map.shape[1:]))
    rows = [("Picture", f"3 x {size} x {size}", "")]
    for name in [name for name in STAGES if name in names]:
        count = sum(value.numel() for value in model.get_submodule(name).parameters())
        shape = " x ".join(map(str, seen.get(name, (model.feature_dim,))))
        rows.append((STAGES[name], shape, f"{count:,} parameters"))
    return f"{config.task.title}: {checkpoint.config.variant}", rows


def svg(title: str, rows: list[tuple[str, str, str]]) -> str:
    """The stages one below the other, with an arrow between each two."""
    height = 50 + len(rows) * (ROW + GAP)
    told = "; ".join(", ".join(filter(None, row)) for row in rows)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'font-family="sans-serif" font-size="14">',
        f"<title>{escape(title)}</title><desc>{escape(told)}</desc>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="28" font-weight="bold" fill="#1f2937">{escape(title)}</text>',
    ]
    for number, (name, shape, count) in enumerate(rows):
        top, line = 44 + number * (ROW + GAP), f"{shape}, {count}" if count else shape
        if number:
            lines.append(
                f'<path d="M{WIDTH // 2} {top - GAP + 1}v{GAP - 6}m-4 -4l4 5l4 -5" '
                'stroke="#4b5563" fill="none"/>'
            )
        lines += [
            f'<rect x="{LEFT}" y="{top}" width="{WIDTH - 2 * LEFT}" height="{ROW}" rx="8" fill="#eef2ff" '
            'stroke="#4f46e5"/>',
            f'<text x="{LEFT + 12}" y="{top + 23}" font-weight="bold" fill="#1f2937">{escape(name)}</text>',
            f'<text x="{LEFT + 12}" y="{top + 45}" fill="#374151">{escape(line)}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    task, out = (*sys.argv[1:], *("breed", "docs/architecture.svg")[len(sys.argv) - 1 :])[:2]
    Path(out).write_text(svg(*stages(task)), encoding="utf-8")
