"""JPEG: the segments that the picture needs, and the number of passes over it."""

from __future__ import annotations

import re

from pawmatch.containers.picture import MOST_PIECES, Picture, TooManyPieces, exif_orientation

MOST_SCANS = 50  # passes over a progressive JPEG; encoders make about ten

_JPEG_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")  # all but restarts, padding and escaped data
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
# Arithmetic coding: no browser shows it, and each pass may visit every coefficient for next to no bytes.
_ARITHMETIC = {0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
# Comments and application segments go, except JFIF (0) and Adobe (14), which settle the colour space.
_JPEG_DROPPED = {0xFE, *range(0xE1, 0xEE), 0xEF}


def strip_jpeg(data: bytes) -> Picture:
    kept, orientation, scans, position = [b"\xff\xd8"], 1, 0, 2
    for _ in range(MOST_PIECES):
        found = _JPEG_MARKER.search(data, position)
        if found is None or (scans and found[0][1] == _EOI):
            return Picture(b"".join(kept), orientation)
        marker, start, position = found[0][1], found.start(), found.end()
        if marker in (_SOI, _EOI):
            continue
        if marker in _ARITHMETIC:
            raise TooManyPieces("arithmetic coding")
        if marker == _SOS:
            scans += 1
            if scans == 1:  # from here on only the decoder proper reads, and it skips metadata
                kept.append(data[start:])
            if scans > MOST_SCANS:
                raise TooManyPieces(f"more than {MOST_SCANS} scans")
        content = position + 2
        position += max(2, int.from_bytes(data[position:content]))
        if scans:
            continue
        if marker == 0xE1 and orientation == 1 and data.startswith(b"Exif\0\0", content):
            orientation = exif_orientation(data[content:position])
        if marker not in _JPEG_DROPPED or data.startswith(b"ICC_PROFILE\0", content):
            kept.append(data[start:position])
    raise TooManyPieces(f"more than {MOST_PIECES} segments")
