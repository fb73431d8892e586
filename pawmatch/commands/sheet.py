"""The heatmaps of one image side by side, with what each variant answered beneath."""

from __future__ import annotations

import unicodedata

from PIL import Image, ImageDraw, ImageFont

from pawmatch.results import Explanation, Heatmap, VariantAnswer
from pawmatch.tasks import VARIANT_NAMES
from pawmatch.ui.words import percent

LONG_SIDE = 480  # pixels of one picture on the sheet
GAP = 16
TITLE_SIZE = 20
TEXT_SIZE = 16
LINE_HEIGHT = 26
LINES = 3
BACKGROUND = "white"
INK = "#1c1c1c"


def draw_sheet(explanation: Explanation) -> Image.Image:
    """One row: each variant's overlay, beneath it the variant's name, answer, and the label looked for."""
    tiles = {name: scaled(picture) for name, picture in explanation.overlays.items()}
    answers = {answer.variant: answer for answer in explanation.prediction.variants}
    # A tall image leaves too little room for its text.
    columns = [max(tile.width, LONG_SIDE * 3 // 4) for tile in tiles.values()]
    height = max(tile.height for tile in tiles.values())
    size = (sum(columns) + GAP * (len(columns) + 1), height + LINES * LINE_HEIGHT + 3 * GAP)
    sheet = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    left = GAP
    for column, (variant, tile) in zip(columns, tiles.items(), strict=True):
        sheet.paste(tile, (left, GAP + (height - tile.height) // 2))
        lines = caption(answers[variant], explanation.heatmaps[variant], explanation.name)
        for row, line in enumerate(lines):
            font = ImageFont.load_default(TITLE_SIZE if row == 0 else TEXT_SIZE)
            top = 2 * GAP + height + row * LINE_HEIGHT
            draw.text((left, top), fitting(line, font, column), font=font, fill=INK)
        left += column + GAP
    return sheet


def scaled(picture: Image.Image) -> Image.Image:
    """The picture with its longer side at LONG_SIDE."""
    scale = LONG_SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def caption(answer: VariantAnswer, heatmap: Heatmap, name: str) -> list[str]:
    """The variant's name, its answer, and how it sees the label whose evidence is shown."""
    shown = f"heatmap for: {name}, {percent(heatmap.confidence)}"
    if heatmap.raw_max <= 0:
        shown = f"no evidence for {name} anywhere"
    return [VARIANT_NAMES[answer.variant], f"answer: {answer.name}, {percent(answer.confidence)}", shown]


def fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text in letters that the font has, cut to a width in pixels."""
    # Pillow's own font has ASCII and little else: "Cézanne" is written without its accent.
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    if font.getlength(plain) <= width:
        return plain
    while plain and font.getlength(f"{plain}...") > width:
        plain = plain[:-1]
    return f"{plain.rstrip()}..."
