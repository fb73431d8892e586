"""The heatmaps of one image side by side, with what each variant answered beneath."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from pawmatch.phrasing import percent
from pawmatch.results import Explanation, Heatmap, VariantAnswer
from pawmatch.tasks import VARIANT_NAMES, find_task

LONG_SIDE = 480  # pixels of one picture on the sheet
SQUARE_BOX = (480, 400)  # pixels of one picture's place where sheets of many photos stand side by side
PANEL = "#f3f1ee"  # around a picture that does not fill its place
GAP = 16
BACKGROUND = "white"
INK = "#1c1c1c"
LINE_HEIGHT = 1.3  # of the size of its letters


@dataclass(frozen=True)
class Letters:
    """Sizes of a caption's first line and of those below it, in pixels."""

    title: int
    text: int


BESIDE = Letters(title=18, text=15)
# Four pictures in a square are shown smaller than a row of three, on a phone at a third of their size.
IN_SQUARE = Letters(title=27, text=25)


@dataclass(frozen=True)
class Tile:
    """A picture and the lines beneath it, the first of which is its title."""

    picture: Image.Image
    lines: tuple[str, ...]


def draw_sheet(explanation: Explanation) -> Image.Image:
    """One row: each variant's overlay, beneath it the variant's name, answer, and the label looked for."""
    tiles = []
    for answer in explanation.prediction.variants:
        heatmap = explanation.heatmaps[answer.variant]
        shown = f"heatmap for: {explanation.name}, {percent(heatmap.confidence)}"
        lines = (title(answer), f"answer: {answer.name}, {percent(answer.confidence)}")
        tiles.append(
            Tile(
                scaled(explanation.overlays[answer.variant]),
                (*lines, found(heatmap, explanation.name, shown)),
            )
        )
    # A tall image leaves too little room for its text.
    widest = max(LONG_SIDE * 3 // 4, *(tile.picture.width for tile in tiles))
    highest = max(tile.picture.height for tile in tiles)
    return arrange(tiles, columns=len(tiles), letters=BESIDE, box=(widest, highest))


def draw_square_sheet(photo: Image.Image, explanation: Explanation, *, is_truth: bool) -> Image.Image:
    """The photo and the three overlays in a square, so that four captions can be read on a phone, too.

    `is_truth` says that the label whose evidence is shown is the true one, and not the first choice.
    """
    noun = find_task(explanation.prediction.task).noun
    why = f"the true {noun}" if is_truth else "the main model's answer"
    tiles = [Tile(scaled(photo, SQUARE_BOX), ("Heatmaps for", explanation.name, why))]
    for answer in explanation.prediction.variants:
        heatmap = explanation.heatmaps[answer.variant]
        own = f"{answer.name}, {percent(answer.confidence)}"
        other = f"{explanation.name}: {percent(heatmap.confidence)}"
        shown = "" if answer.label == explanation.label else other
        tiles.append(
            Tile(
                scaled(explanation.overlays[answer.variant], SQUARE_BOX),
                (title(answer), own, found(heatmap, explanation.name, shown)),
            )
        )
    return arrange(tiles, columns=2, letters=IN_SQUARE, box=SQUARE_BOX)


def title(answer: VariantAnswer) -> str:
    """The variant's display name."""
    return VARIANT_NAMES.get(answer.variant, answer.variant)


def found(heatmap: Heatmap, name: str, otherwise: str) -> str:
    """A line that says that there is nothing to see in the heatmap, if so."""
    return otherwise if heatmap.raw_max > 0 else f"no evidence for {name} anywhere"


def arrange(tiles: list[Tile], *, columns: int, letters: Letters, box: tuple[int, int]) -> Image.Image:
    """Tiles in rows from left to right, each picture in the middle of a box (width, height), on white."""
    width, height = box
    count = max(len(tile.lines) for tile in tiles)
    sizes = [letters.title if line == 0 else letters.text for line in range(count)]
    cell = height + GAP + round(LINE_HEIGHT * sum(sizes)) + GAP
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (GAP + columns * (width + GAP), GAP + rows * cell), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        left, top = GAP + column * (width + GAP), GAP + row * cell
        if tile.picture.size != box:
            draw.rectangle((left, top, left + width - 1, top + height - 1), fill=PANEL)
        inset = (width - tile.picture.width) // 2, (height - tile.picture.height) // 2
        sheet.paste(tile.picture, (left + inset[0], top + inset[1]))
        top += height + GAP // 2
        for place, (line, size) in enumerate(zip(tile.lines, sizes, strict=False)):
            letter = font(size, is_bold=place == 0)
            draw.text((left, top), fitting(line, letter, width), font=letter, fill=INK)
            top += round(LINE_HEIGHT * size)
    return sheet


def scaled(picture: Image.Image, box: tuple[int, int] = (LONG_SIDE, LONG_SIDE)) -> Image.Image:
    """The picture as large as it fits into a box (width, height)."""
    scale = min(box[0] / picture.width, box[1] / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


@cache
def font(size: int, *, is_bold: bool) -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib: Pillow's own would write "Cezanne" without its accent."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if is_bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def fitting(text: str, letters: ImageFont.FreeTypeFont, width: int) -> str:
    """The text cut to a width in pixels."""
    if letters.getlength(text) <= width:
        return text
    while text and letters.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"
