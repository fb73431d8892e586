"""Cut image files down to their picture: what surrounds it is dropped before a decoder sees it.

Metadata is where small files do large harm: five thousand EXIF entries may all point at the same 60 kB
and be read into 300 MB. None of it is needed here but the orientation and a colour profile of sane size.
What remains is counted: a progressive JPEG of 20 MB can repeat a scan of 60 bytes for hours. So no
position, name or date in a photo travels further, and an MPO or Ultra HDR photo is just its main JPEG.

With these gates no file that is accepted took more than 4 s of a processor or 700 MB in measurements of the
worst kinds known (tests/fuzz/costly.py), so decoding needs no process of its own.
"""

from __future__ import annotations

import re
import struct
import zlib
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


def strip_gif(data: bytes) -> Picture:
    """Header, the first frame with its control block (which says what is transparent), and the end."""
    position = 13 + _gif_colours(data[10])
    head, control, frame = data[:position], b"", b""
    for _ in range(MOST_PIECES):
        start, kind = position, data[position : position + 1]
        if kind in (b"", b";"):
            return Picture(head + (frame or data[position:]) + b";")
        if kind == b"!":
            position = _gif_blocks_end(data, start + 2)
            if data[start + 1 : start + 2] == b"\xf9":
                control = data[start:position]
        elif kind == b"," and frame:
            return Picture(head + frame + b";", animated=True)
        elif kind == b",":
            position = _gif_blocks_end(data, start + 11 + _gif_colours(data[start + 9]))
            frame = control + data[start:position]
        else:
            position += 1  # stray bytes between blocks are common and skipped by every decoder
    raise TooManyPieces(f"more than {MOST_PIECES} blocks")


def _gif_colours(flags: int) -> int:
    return 3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0


def _gif_blocks_end(data: bytes, position: int) -> int:
    for _ in range(2 * MOST_PIECES):  # blocks hold at most 255 bytes: 20 MB make 80,000
        length = data[position] if position < len(data) else 0
        position += 1 + length
        if length == 0:
            return position
    raise TooManyPieces(f"more than {2 * MOST_PIECES} blocks")


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
