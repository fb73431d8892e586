"""The figure of an architecture: its stages in order, their shapes and numbers, from the config alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pawmatch.checkpoint import load_task
from pawmatch.checkpoint.architecture import MAX_TITLE, UNNUMBERED, WIDTH, draw_architecture, find_stages
from tests.support.checkpoints import CHAE

STAGES = {
    ("breed", "cnn"): "Backbone 16x2x2, Classifier 5",
    ("breed", "cnn_transformer"): "Backbone 16x2x2, Attention 16, Classifier 5",
    ("breed", "cnn_transformer_mfe"): (
        "Backbone 16x2x2, Morphology, five branches 16, Fusion 16, Attention 16, Classifier 5"
    ),
    ("artist", "cnn"): "Stem 8x2x2, Classifier 5",
    ("artist", "cnn_transformer"): "Stem 8x2x2, Transformer encoder 8, Classifier 5",
    ("artist", "cnn_transformer_mfe"): (
        "Stem 8x2x2, Transformer encoder 8, Morphology, five branches 8, Fusion 8, Classifier 5"
    ),
}


@pytest.mark.parametrize(("task", "variant"), list(STAGES))
def test_stages_are_those_that_a_picture_passes_with_all_parameters(
    tiny_checkpoints: Callable[..., Path], task: str, variant: str
) -> None:
    (checkpoint,) = (one for one in load_task(tiny_checkpoints(task), task) if one.config.variant == variant)
    stages = find_stages(checkpoint.config)
    told = ", ".join(f"{one.name} {'x'.join(map(str, one.shape))}" for one in stages)
    assert told == STAGES[task, variant]
    counted = sum(value.numel() for value in checkpoint.model.parameters())
    assert sum(one.parameters for one in stages) == counted
    drawn = draw_architecture(checkpoint.config)
    for number, one in enumerate(stages, start=1):
        assert f">{number}. {one.name}<" in drawn
        assert f"{one.parameters:,} parameters" in drawn


def test_tokens_pass_attention_before_morphology_and_a_projection_has_no_number() -> None:
    architecture = {
        "backbone": "resnet18d",
        "backbone_config": {"channels": [8, 8, 16, 16], "stem_width": 8},
        "projection": 8,
        "attention_mode": "tokens",
        "morphology_channels": 4,
        "morphology_width": 8,
    }
    config = replace(
        CHAE,
        family="hybrid",
        variant="cnn_transformer_mfe",
        architecture=architecture,
        input=replace(CHAE.input, size=64),
    )
    names = [one.name for one in find_stages(config)]
    assert names[:4] == ["Backbone", "Projection", "Attention", "Morphology, five branches"]
    drawn = draw_architecture(config)
    assert ">Projection<" in drawn
    assert ">5. Classifier<" in drawn
    assert UNNUMBERED == ("Projection",)


def test_the_drawing_is_one_picture_with_words_for_those_who_do_not_see_it() -> None:
    title = 'A & <b>"B"</b> ' + "very " * 20
    drawn = draw_architecture(replace(CHAE, task=replace(CHAE.task, title=title)))
    root = ElementTree.fromstring(drawn)
    assert root.get("role") == "img"
    label = root.get("aria-label") or ""
    assert label.startswith('A & <b>"B"</b> very')
    assert "1. Stem: 8 x 8 x 8, " in label
    texts = [each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert len(texts[0]) <= MAX_TITLE
    boxes = list(root.iter("{http://www.w3.org/2000/svg}rect"))
    assert len(boxes) == 4  # the paper, the picture and two stages
    assert all(float(each.get("x", 0)) + float(each.get("width", 0)) <= WIDTH for each in boxes)
    # Titles need not have spaces.
    assert "犬" * (MAX_TITLE - 1) + "…" in draw_architecture(
        replace(CHAE, task=replace(CHAE.task, title="犬" * 40))
    )
    # The page's colors where it has any.
    colors = set(re.findall(r'(?:fill|stroke)="([^"]+)"', drawn)) - {"none"}
    assert len(colors) == 5
    assert all(re.fullmatch(r"var\(--[a-z-]+, #[0-9a-f]{6}\)", one) for one in colors)
