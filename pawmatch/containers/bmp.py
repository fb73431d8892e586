"""BMP: bounds on run-length code, which Pillow decodes in Python, pixel by pixel."""

from __future__ import annotations

import struct

from pawmatch.containers.picture import Picture, TooManyPieces

LARGEST_RLE = 2**20  # bytes of a run-length coded file; each pair takes up to 3 microseconds
# An end-of-line code fills the rest of its row one pixel at a time, and a jump code appends up to 255 rows
# at once: 1 kB of such code with rows of 6 million pixels took 2.9 GB, and with 40 megapixels 16 s.
MOST_RLE_PIXELS = 4_000_000
LONGEST_RLE_ROW = 10_000  # pixels

_RLE = {1, 2}  # of 8 and of 4 bits a pixel


def check_bmp(data: bytes) -> Picture:
    """The file as it is, unless it is run-length coded beyond what its decoder does quickly."""
    width, height = struct.unpack_from("<ii", data, 18)
    (compression,) = struct.unpack_from("<I", data, 30)
    if compression in _RLE:
        if len(data) > LARGEST_RLE:
            raise TooManyPieces(f"more than {LARGEST_RLE} bytes of run-length code")
        if abs(width * height) > MOST_RLE_PIXELS or abs(width) > LONGEST_RLE_ROW:
            raise TooManyPieces(f"more than {MOST_RLE_PIXELS} pixels of run-length code")
    return Picture(data)
