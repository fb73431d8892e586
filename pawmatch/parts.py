"""Views into a model's parts: where attention heads look, and what morphological branches add to a logit.

A branch's contribution is its Shapley value (Shapley 1953; Lundberg and Lee 2017, arXiv 1705.07874): the mean
of what it adds over all orders in which the branches may come. With five branches all 32 subsets can be
computed, so it is exact, and the contributions add up to what the branches do together. Leaving one branch
out would not: relation, fusion and normalization mix the branches, and what two say alike would count for
neither. A branch that is left out says 0, as it does where its analyzer finds nothing; the residual and the
fusion go on, so that what they do with the pooled features alone is no branch's.
"""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from pawmatch.errors import BadOption
from pawmatch.heatmaps import INK, PANEL, Letters, Tile, arrange, font, overlay, scaled
from pawmatch.labels import VARIANT_NAMES
from pawmatch.models import Chae, Hybrid, ImageModel
from pawmatch.models.morphology import ANALYZERS
from pawmatch.results import Explanation, Heatmap, Parts

BOX = (260, 260)
LETTERS = Letters(title=20, text=18)
FOR, AGAINST = "#0072B2", "#D55E00"  # Okabe and Ito's, which color-blind eyes tell apart


def look_into(model: ImageModel, feature_map: Tensor, index: int) -> Parts:
    """What the parts of a model do with one feature map (1, C, h, w), for the class `index`."""
    if not isinstance(model, Hybrid | Chae):
        return Parts()
    with torch.no_grad():
        maps = model.attention_maps(feature_map)
        attention = None if maps is None else maps.float().cpu().numpy()
        if model.morphological_extractor is None:
            return Parts(attention)
        subsets = np.array(list(product((0.0, 1.0), repeat=len(ANALYZERS))), dtype=np.float32)  # (32, 5)
        branches = torch.from_numpy(subsets).to(feature_map)
        logits = model.forward_head(feature_map.expand(len(subsets), -1, -1, -1), branches)
        # What all classes gain alike changes no probability.
        values = (logits[:, index] - logits.mean(dim=1)).double().cpu().numpy()
    shares = dict(zip(ANALYZERS, shapley(values).tolist(), strict=True))
    return Parts(attention, shares, float(values[0]), float(values[-1]))


def shapley(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shapley values (n,) of n players from the value of each subset (2^n,), ordered as binary numbers.

    The first player is the highest bit. They add up to the value of all less that of nobody.
    """
    count = len(values).bit_length() - 1
    member = np.array(list(product((False, True), repeat=count)))
    found = np.empty(count)
    for player in range(count):
        within = member[:, player]
        orders = [count * comb(count - 1, int(size)) for size in member[~within].sum(axis=1)]
        found[player] = ((values[within] - values[~within]) / orders).sum()
    return found


def effective_places(attention: NDArray[np.float32]) -> float:
    """Over how many places of a map (h, w) attention is spread: the exponential of its entropy, 1 to h*w."""
    share = attention[attention > 0].astype(np.float64)
    share /= share.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def draw_parts(explanation: Explanation, *, colormap: str = "jet", strength: float = 0.6) -> Image.Image:
    """A sheet with the photo, each variant's branches, and each head of its last layer over the photo.

    A head's map reaches the full color where the head draws most. Raises BadOption where no variant has
    attention over places or branches.
    """
    tiles: list[Tile] = []
    for variant, parts in explanation.parts.items():
        name = VARIANT_NAMES[variant]
        if parts.branches:
            change = f"logit {parts.silent:+.2f} → {parts.logit:+.2f}"
            tiles.append(Tile(draw_branches(parts), ("Branches", name, change)))
        heads = [] if parts.attention is None else parts.attention[-1]
        for number, attention in enumerate(heads, start=1):
            cam, seen = attention / attention.max(), explanation.heatmaps[variant]
            heatmap = Heatmap(variant, seen.label, cam, 1.0, seen.confidence, seen.box, seen.size)
            picture = overlay(explanation.photo, heatmap, colormap=colormap, strength=strength)
            spread = f"on {effective_places(attention):.0f} of {attention.size} places"
            tiles.append(Tile(scaled(picture, BOX), (f"Head {number} of {len(heads)}", name, spread)))
    if not tiles:
        raise BadOption("These weights have no attention over places and no branches; leave out --parts.")
    photo = Tile(scaled(explanation.photo, BOX), ("What the parts do", "logits are for", explanation.name))
    return arrange([photo, *tiles], columns=3, letters=LETTERS, box=BOX)


def draw_branches(parts: Parts) -> Image.Image:
    """A bar for each branch, to the right where it speaks for the class, to the left where against it."""
    picture = Image.new("RGB", BOX, PANEL)
    draw, letter = ImageDraw.Draw(picture), font(17, is_bold=False)
    row, middle = BOX[1] // len(parts.branches), BOX[0] // 2
    longest = max(map(abs, parts.branches.values())) or 1.0
    for place, (name, share) in enumerate(parts.branches.items()):
        top, end = row * place + 4, middle + round((middle - 12) * share / longest)
        draw.text((8, top), name.replace("_", " "), font=letter, fill=INK)
        draw.text((BOX[0] - 8, top), f"{share:+.3f}", font=letter, fill=INK, anchor="ra")
        bar = (min(middle, end), top + 25, max(middle, end), top + 39)
        draw.rectangle(bar, fill=FOR if share > 0 else AGAINST)
    draw.line((middle, 26, middle, BOX[1] - 8), fill=INK)
    return picture
