"""What is left of a file, what is too much, and the one thing in metadata that matters: the orientation."""

from __future__ import annotations

import struct
from dataclasses import dataclass

MOST_PIECES = 50_000  # segments, chunks or blocks; a 20 MB PNG in the usual chunks of 8 kB has 2,500


class TooManyPieces(Exception):
    """A file would keep its decoder busy out of all proportion to its picture."""


class TooManyPixels(TooManyPieces):
    """A file would make its decoder decode more pixels than are accepted, whatever size it announces."""


@dataclass(frozen=True)
class Picture:
    """A file without its metadata: the bytes, the EXIF orientation (1 to 8), and what was cut off."""

    data: bytes
    orientation: int = 1
    animated: bool = False
    paged: bool = False


def exif_orientation(exif: bytes) -> int:
    """The orientation that an EXIF block states, or 1 where it states none that makes sense."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for position in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", exif, position)
            if tag == 0x0112:
                layout = {1: "B", 3: "H", 4: "I"}.get(kind, "H")
                (value,) = struct.unpack_from(f"{order}{layout}", exif, position + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass  # a damaged EXIF block says nothing, and must not cost the photo
    return 1
