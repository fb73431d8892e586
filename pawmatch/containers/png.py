"""PNG: the chunks that the picture needs; profiles and text are read here, each at most once."""

from __future__ import annotations

import zlib

from pawmatch.containers.picture import MOST_PIECES, Picture, TooManyPieces, exif_orientation

LARGEST_PROFILE = 2**20  # bytes of a colour profile; Pillow refuses the file beyond

_PNG_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_RAW_PROFILE = b"Raw profile type exif\0"


def strip_png(data: bytes) -> Picture:
    kept, orientation, animated, position = [data[:8]], 1, False, 8
    unread = {b"iCCP", b"eXIf", b"acTL", b"tEXt", b"zTXt"}  # once each: a second one has no meaning
    for _ in range(MOST_PIECES):
        kind = data[position + 4 : position + 8]
        chunk = data[position : position + 12 + int.from_bytes(data[position : position + 4])]
        position += len(chunk)
        body = chunk[8:-4]
        is_text = kind in (b"tEXt", b"zTXt")
        if kind in _PNG_KEPT:
            kept.append(chunk)
        elif kind in unread and (not is_text or body.startswith(_RAW_PROFILE)):
            unread.remove(kind)
            if kind == b"iCCP" and _is_sane_profile(chunk):
                kept.append(chunk)
            elif kind == b"eXIf":
                orientation = exif_orientation(body)
            elif kind == b"acTL":
                animated = int.from_bytes(body[:4]) > 1
            elif is_text and orientation == 1:
                orientation = _raw_profile_orientation(body, packed=kind == b"zTXt")
        if kind == b"IEND" or position >= len(data):
            return Picture(b"".join(kept), orientation, animated=animated)
    raise TooManyPieces(f"more than {MOST_PIECES} chunks")


def _is_sane_profile(chunk: bytes) -> bool:
    packed = chunk[8:-4].partition(b"\0")[2]
    intact = packed.startswith(b"\0") and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])
    return intact and 0 < len(_unpack(packed[1:], LARGEST_PROFILE)) < LARGEST_PROFILE


def _raw_profile_orientation(body: bytes, *, packed: bool) -> int:
    """The orientation in an EXIF block that ImageMagick wrote as text: name, length, hexadecimal lines."""
    text = body.removeprefix(_RAW_PROFILE)
    lines = (_unpack(text[1:], 200_000) if packed else text).split(b"\n")
    try:
        return exif_orientation(bytes.fromhex(b"".join(lines[3:]).decode("ascii")))
    except ValueError:
        return 1


def _unpack(packed: bytes, most: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, most)
    except zlib.error:
        return b""
