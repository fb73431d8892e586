"""One picture of an answer to keep and to share: photo, name, bars, heatmaps, model, date and caveat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import date
from functools import cache

from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from pawmatch.heatmaps import BACKGROUND, GAP, INK, PANEL, Letters, Tile, arrange, fitting, font, scaled
from pawmatch.labels import ENGLISH, VARIANT_NAMES, words_of
from pawmatch.results import Heatmap, Prediction
from pawmatch.ui import retell
from pawmatch.ui.speech import language, say, speaking

MAP_BOX = (480, 400)  # pixels of one heatmap's place; three of them set the width
PHOTO_BOX = (728, 540)
BESIDE_PHOTO = PHOTO_BOX[0] + 3 * GAP
CAPTIONS = Letters(title=25, text=25)
TITLE, VERDICT, TEXT, SMALL = 52, 28, 26, 22  # heights of letters in pixels
BAR = 14  # height of a bar in pixels
FILL, QUIET = "#b0502a", "#5c554e"
# What may be installed where a language needs more letters than the font that comes along has.
MORE_LETTERS = {
    "ja": ("Noto Sans CJK JP", "Noto Sans JP", "IPAexGothic", "Hiragino Sans", "Yu Gothic"),
    "zh-Hant": ("Noto Sans CJK TC", "Noto Sans TC", "PingFang TC", "Microsoft JhengHei", "Noto Sans CJK JP"),
}


def draw_answer(
    prediction: Prediction,
    photo: Image.Image,
    overlays: Mapping[str, Image.Image],
    heatmaps: Mapping[str, Heatmap],
) -> Image.Image:
    """The picture, in the visitor's language where there is a font for it, else in English."""
    with speaking(ENGLISH) if language() in MORE_LETTERS and not more_letters(language()) else nullcontext():
        told = retell.prediction(prediction)
        label = next(iter(heatmaps.values())).label
        tiles = [
            Tile(
                scaled(overlays[one.variant], MAP_BOX),
                (VARIANT_NAMES[one.variant], said(one.name, one.confidence)),
            )
            for one in told.variants
            if one.variant in overlays
        ]
        model = say("share.model", source=told.model.source, classes=told.model.classes)
        caveat = retell.limits([words_of(prediction)])
        said_too = [say("facts.fact", name=one.name, text=one.text) for one in told.facts]
        notes = [
            *([f"{say('facts.given')} · {' · '.join(said_too)}"] if said_too else []),
            say("share.maps", name=retell.class_name(label)),
            f"{model} · {date.today().isoformat()}",
            caveat,
        ]
        return _draw(told, photo, tiles, notes)


def said(name: str, confidence: float) -> str:
    """A name with how sure it is."""
    return f"{name} · {retell.percent(confidence)}"


def _draw(told: Prediction, photo: Image.Image, tiles: Sequence[Tile], notes: Sequence[str]) -> Image.Image:
    row = arrange(list(tiles), columns=len(tiles), letters=CAPTIONS, box=MAP_BOX, write=letters)
    width = max(row.width, GAP + 3 * (MAP_BOX[0] + GAP))
    room = width - 2 * GAP
    lines = [line for note in notes for line in wrapped(note, letters(SMALL), room)]
    below = PHOTO_BOX[1] + 2 * GAP
    card = Image.new("RGB", (width, below + row.height + round(1.4 * SMALL) * len(lines) + GAP), BACKGROUND)
    draw = ImageDraw.Draw(card)
    draw.rectangle((GAP, GAP, GAP + PHOTO_BOX[0] - 1, GAP + PHOTO_BOX[1] - 1), fill=PANEL)
    shown = scaled(photo, PHOTO_BOX)
    card.paste(shown, (GAP + (PHOTO_BOX[0] - shown.width) // 2, GAP + (PHOTO_BOX[1] - shown.height) // 2))
    _write_answer(draw, told, width - GAP)
    card.paste(row, (0, below))
    for number, line in enumerate(lines):
        place = (GAP, below + row.height + number * round(1.4 * SMALL))
        draw.text(place, line, font=letters(SMALL), fill=QUIET)
    return card


def _write_answer(draw: ImageDraw.ImageDraw, told: Prediction, right: int) -> None:
    """The headline, the verdict and the bars, beside the photo."""
    left, top = BESIDE_PHOTO, GAP
    room = right - left
    headline, confidence = retell.headline(told)
    for size, bold, fill, text in (
        (TITLE, True, INK, headline),
        (VERDICT, False, QUIET, "" if confidence is None else retell.percent(confidence)),
        (TEXT, False, INK, "" if told.verdict.text == headline else told.verdict.text),
    ):
        for line in wrapped(text, letters(size, is_bold=bold), room)[:2]:
            draw.text((left, top), line, font=letters(size, is_bold=bold), fill=fill)
            top += round(1.25 * size)
    top += GAP
    for one in told.predictions:
        value = retell.percent(one.confidence)
        length = letters(TEXT).getlength(value)
        draw.text(
            (left, top),
            fitting(one.name, letters(TEXT), int(room - length) - GAP),
            font=letters(TEXT),
            fill=INK,
        )
        draw.text((right - length, top), value, font=letters(TEXT), fill=QUIET)
        top += round(1.25 * TEXT)
        draw.rectangle((left, top, right, top + BAR), fill=PANEL)
        draw.rectangle((left, top, left + max(2, round(room * one.confidence)), top + BAR), fill=FILL)
        top += BAR + GAP


def wrapped(text: str, letter: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The text in lines of at most that width in pixels; text without spaces breaks anywhere."""
    parts = text.split(" ") if " " in text else list(text)
    joint = " " if " " in text else ""
    lines: list[str] = []
    for part in parts:
        longer = joint.join(filter(None, (lines[-1] if lines else "", part)))
        if lines and letter.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return [fitting(line, letter, width) for line in lines if line]


def letters(size: int, *, is_bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font for the visitor's language."""
    if path := more_letters(language()):
        return _opened(path, size)
    return font(size, is_bold=is_bold)


@cache
def more_letters(chosen: str) -> str | None:
    """The file of an installed font for a language that needs one; None if there is none."""
    for family in MORE_LETTERS.get(chosen, ()):
        try:
            return font_manager.findfont(family, fallback_to_default=False)
        except ValueError:
            continue
    return None


@cache
def _opened(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)
