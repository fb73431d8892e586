"""TIFF: the tags that the picture needs, and bounds on what they make the decoder do."""

from __future__ import annotations

import re
import struct

from pawmatch.containers.picture import MOST_PIECES, Picture, TooManyPieces

# A tile is decoded whole even where the picture covers one corner of it: a file of 1.6 MB with a picture of
# 8 x 8 in a tile of 40,000 x 40,000 took 1.5 GB and 8 s.
LARGEST_TILE = 2**24  # pixels; 4096 x 4096, where writers use 256 or 512 a side
MOST_TILED_PIXELS = 100_000_000  # pixels of all tiles with what sticks out beyond the picture

# The decoder allows 100 passes over a JPEG in a TIFF. Writers make one; these are the headers of the kinds
# with several, or with arithmetic coding, whose passes are the slowest.
_COSTLY_JPEG = re.compile(rb"\xff[\xc2\xc6\xc9-\xcb\xcd-\xcf]\0[\x0b\x0e\x11\x14]")
_JPEG_COMPRESSIONS = {6, 7}

_TIFF_KEPT = {
    *(256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325),
    *(332, 338, 339, 347, 512, 513, 514, 515, 519, 520, 521, 529, 530, 531, 532, 34675, 50674),
}
_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}


def strip_tiff(data: bytes) -> Picture:
    """The same file with a shorter table of tags in the old one's place, so that no position changes."""
    order = "<" if data.startswith(b"II") else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    end = start + 2 + 12 * count
    table, following = data[start + 2 : end], data[end : end + 4]
    if len(table) < 12 * count:
        # Without the tags at its end, such as the kind of number, the picture would come out wrong.
        raise IndexError("a table of tags that is cut short")
    kept: dict[int, bytes] = {}
    claimed, orientation = 0, 1
    for position in range(0, len(table) - 11, 12):
        tag, kind, number = struct.unpack_from(f"{order}HHI", table, position)
        if tag == 0x0112:
            (value,) = struct.unpack_from(f"{order}H", table, position + 8)
            orientation = value if 1 <= value <= 8 else 1
        elif tag in _TIFF_KEPT and tag not in kept and kind in _TIFF_SIZES:
            kept[tag] = table[position : position + 12]
            claimed += number * _TIFF_SIZES[kind]
            if tag in (273, 324) and number > MOST_PIECES:
                raise TooManyPieces(f"more than {MOST_PIECES} strips")
    if claimed > len(data):
        raise TooManyPieces("tags that claim more bytes than the file has")
    _check_tiles(kept, order)
    _check_jpeg(kept, order, data)
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(kept.values()) + b"\0\0\0\0"
    shortened = data[:start] + directory + data[start + len(directory) :]
    return Picture(shortened, orientation, paged=any(following))


def _check_tiles(tags: dict[int, bytes], order: str) -> None:
    """Raise TooManyPieces if decoding whole tiles would cost far more than the picture in them."""
    if 322 not in tags and 323 not in tags:
        return
    width, height, across, down = (max(1, _one(tags.get(tag), order)) for tag in (256, 257, 322, 323))
    tiles = -(-width // across) * -(-height // down)
    if across * down > LARGEST_TILE or tiles * across * down > MOST_TILED_PIXELS:
        raise TooManyPieces(f"tiles of {across} x {down} for {width} x {height} pixels")


def _check_jpeg(tags: dict[int, bytes], order: str, data: bytes) -> None:
    """Raise TooManyPieces for a JPEG inside that may take many passes."""
    if 259 in tags and _one(tags[259], order) in _JPEG_COMPRESSIONS and _COSTLY_JPEG.search(data):
        raise TooManyPieces("a JPEG of several passes")


def _one(entry: bytes | None, order: str) -> int:
    """The number in an entry that must hold just one."""
    if entry is not None:
        _, kind, number = struct.unpack_from(f"{order}HHI", entry)
        if number == 1 and kind in (3, 4):
            (value,) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", entry, 8)
            return int(value)
    raise TooManyPieces("a tag that should hold one number")
