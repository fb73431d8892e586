"""Cut image files down to their picture: what surrounds it is dropped before a decoder sees it.

Metadata is where small files do large harm: five thousand EXIF entries may all point at the same 60 kB
and be read into 300 MB. None of it is needed here but the orientation and what it says about colors. What
remains is counted: a progressive JPEG of 20 MB can repeat a scan of 60 bytes for hours. So no position, name
or date in a photo travels further, and an MPO or Ultra HDR photo is just its main JPEG.

With these gates no file that is accepted took more than 4 s of a processor or 700 MB in measurements of the
worst kinds known (tests/fuzz/costly.py). Limits on a process of its own would hold too, but a file of 220 kB
would cost all the seconds that they allow, and nobody would learn why it is refused.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

from pawmatch.images.color import Samples, cicp_profile, gamma_profile

MAX_PIECES = 50_000  # segments, chunks or blocks; a 20 MB PNG in the usual chunks of 8 kB has 2,500
MAX_PROFILE = 2**20  # bytes of a color profile in a PNG or BMP; Pillow refuses a PNG beyond
MAX_SCANS = 50  # passes over a progressive JPEG; encoders make about ten
MAX_SCANNED_PIXELS = 1_000_000_000  # of all its passes; 65 megapixels in the usual ten have 650 million


class TooManyPieces(Exception):
    """A file would keep its decoder busy out of all proportion to its picture."""


class TooManyPixels(TooManyPieces):
    """A file would make its decoder decode more pixels than are accepted, whatever size it announces."""


class RareKind(Exception):
    """A file may be whole, but is of a kind that its decoder does not read: the message says which."""


@dataclass(frozen=True)
class Picture:
    """A file without its metadata: the bytes, the EXIF orientation (1 to 8), and what else it said.

    `gap` tells that part of the picture is missing, `profile` is an ICC profile that the decoder does not
    find, `frame` the part of the canvas that is painted, and `key` the transparent color of 16-bit samples.
    """

    data: bytes
    orientation: int = 1
    animated: bool = False
    paged: bool = False
    gap: bool = False
    profile: bytes | None = None
    samples: Samples | None = None
    frame: tuple[int, int, int, int] | None = None
    key: tuple[int, int, int] | None = None


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


# --- JPEG

_JPEG_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")  # all but restarts, padding and escaped data
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_SOI, _EOI, _SOS, _DRI = 0xD8, 0xD9, 0xDA, 0xDD
_JPEG_FRAMES = {0xC0, 0xC1, 0xC2}
# Arithmetic coding: no browser shows it, and each pass may visit every coefficient for next to no bytes.
_JPEG_RARE = {
    **dict.fromkeys((0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF), "arithmetic coding"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7), "hierarchical coding"),
    **dict.fromkeys((0xC3, 0xF7), "lossless coding"),
}
# Comments and application segments go, except JFIF (0) and Adobe (14), which settle the color space.
_JPEG_DROPPED = {0xFE, *range(0xE1, 0xEE), 0xEF}


def strip_jpeg(data: bytes) -> Picture:
    """The segments that the picture needs; the number of passes over it is bounded."""
    kept, orientation, scans, position, pixels = [b"\xff\xd8"], 1, 0, 2, 0
    first, restarts, gap, end = 0, False, False, len(data)
    for _ in range(MAX_PIECES):
        found = _JPEG_MARKER.search(data, position)
        if scans and restarts:
            marks = _RESTART.findall(data, position, found.start() if found else end)
            gap |= any(mark[0] & 7 != number % 8 for number, mark in enumerate(marks))
        if found is None or (scans and found[0][1] == _EOI):
            kept += [data[first : found.end() if found else end]] if scans else []
            return Picture(b"".join(kept), orientation, gap=gap or found is None)
        marker, start, position = found[0][1], found.start(), found.end()
        if marker in (_SOI, _EOI):
            continue
        if marker in _JPEG_RARE:
            raise TooManyPieces("a change of coding") if scans else RareKind(_JPEG_RARE[marker])
        content = position + 2
        restarts |= marker == _DRI
        if marker in _JPEG_FRAMES and not scans:
            depth, height, width, parts = struct.unpack_from(">BHHB", data, content)
            pixels = height * width
            if depth != 8 or parts not in (1, 3, 4):
                raise RareKind(f"{parts} channels of {depth} bits")
            if not height:
                raise RareKind("its height told at its end")
            shares = [divmod(data[content + 7 + 3 * part], 16) for part in range(parts)]
            if any(max(side) % each for side in zip(*shares, strict=True) for each in side if each):
                raise RareKind("channels at odd fractions of its size")
        if marker == _SOS:
            scans += 1
            if scans == 1:  # from here on only the decoder proper reads, and it skips metadata
                first = start
            if scans > MAX_SCANS or (scans > 1 and scans * pixels > MAX_SCANNED_PIXELS):
                raise TooManyPieces(f"{scans} scans of {pixels} pixels")
        position += max(2, int.from_bytes(data[position:content]))
        if scans:
            continue
        if marker == 0xE1 and orientation == 1 and data.startswith(b"Exif\0\0", content):
            orientation = exif_orientation(data[content:position])
        if marker not in _JPEG_DROPPED or data.startswith(b"ICC_PROFILE\0", content):
            kept.append(data[start:position])
    raise TooManyPieces(f"more than {MAX_PIECES} segments")


# --- PNG

_PNG_KEPT = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
_RAW_PROFILE = b"Raw profile type exif\0"


def strip_png(data: bytes) -> Picture:
    """The chunks that the picture needs; what others say is read here, each at most once."""
    kept, said, position = [data[:8]], dict[bytes, bytes](), 8
    for _ in range(MAX_PIECES):
        kind = data[position + 4 : position + 8]
        chunk = data[position : position + 12 + int.from_bytes(data[position : position + 4])]
        position += len(chunk)
        if kind == b"CgBI":
            raise RareKind("the form in which Xcode stores PNG in apps")
        if kind == b"tRNS":
            said.setdefault(kind, chunk[8:-4])
            kept.append(_png_transparency(chunk, data[24:26]))
        elif kind in _PNG_KEPT:
            kept.append(chunk)
        elif kind in (b"eXIf", b"acTL") or (kind in (b"tEXt", b"zTXt") and chunk.startswith(_RAW_PROFILE, 8)):
            said.setdefault(kind, chunk[8:-4].removeprefix(_RAW_PROFILE))
        elif kind in (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM") and zlib.crc32(
            chunk[4:-4]
        ) == int.from_bytes(chunk[-4:]):
            said.setdefault(kind, chunk[8:-4])
        if kind == b"IEND" or position >= len(data):
            orientation = exif_orientation(said.get(b"eXIf", b""))
            if orientation == 1 and (
                text := said.get(b"tEXt") or _unpack(said.get(b"zTXt", b"")[1:], 200_000)
            ):
                orientation = _raw_profile_orientation(text)
            key = said.get(b"tRNS", b"") if data[24:26] == b"\x10\2" else b""
            return Picture(
                b"".join(kept),
                orientation,
                animated=int.from_bytes(said.get(b"acTL", b"")[:4]) > 1,
                profile=_png_profile(said),
                key=struct.unpack(">3H", key) if len(key) == 6 else None,
            )
    raise TooManyPieces(f"more than {MAX_PIECES} chunks")


def _png_transparency(chunk: bytes, depth_and_color: bytes) -> bytes:
    """The chunk as Pillow understands it, which compares its value with samples brought to 8 bits."""
    depth, color = depth_and_color.ljust(2, b"\0")
    if color == 0 and depth in (2, 4) and len(chunk) == 14:
        body = chunk[4:8] + struct.pack(">H", chunk[9] % 2**depth * 255 // (2**depth - 1))
        return chunk[:4] + body + zlib.crc32(body).to_bytes(4)
    return b"" if (depth, color) == (16, 2) else chunk


def _png_profile(said: dict[bytes, bytes]) -> bytes | None:
    """The profile that the chunks amount to: cICP goes before iCCP, sRGB, and gAMA with cHRM (PNG 3, 4.3)."""
    code = said.get(b"cICP", b"")
    if len(code) == 4 and code[2] == 0 and (profile := cicp_profile(code[0], code[1])):
        return profile
    packed = said.get(b"iCCP", b"").partition(b"\0")[2]
    if packed.startswith(b"\0") and 0 < len(profile := _unpack(packed[1:], MAX_PROFILE)) < MAX_PROFILE:
        return profile
    gamma, places = said.get(b"gAMA", b""), said.get(b"cHRM")
    if b"sRGB" in said or len(gamma) != 4 or (places is not None and len(places) != 32):
        return None
    numbers = [number / 100_000 for number in struct.unpack(">8I", places)] if places else None
    return gamma_profile(int.from_bytes(gamma) / 100_000, numbers)


def _raw_profile_orientation(text: bytes) -> int:
    """The orientation in an EXIF block that ImageMagick wrote as text: name, length, hexadecimal lines."""
    try:
        return exif_orientation(bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii")))
    except ValueError:
        return 1


def _unpack(packed: bytes, most: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, most)
    except zlib.error:
        return b""


# --- GIF


def strip_gif(data: bytes) -> Picture:
    """Header, the first frame with its control block (which says what is transparent), and the end."""
    position = 13 + _gif_colors(data[10])
    head, control, frame, place = data[:position], b"", b"", None
    for _ in range(MAX_PIECES):
        start, kind = position, data[position : position + 1]
        if kind in (b"", b";") or (kind == b"," and frame):
            return Picture(head + (frame or data[position:]) + b";", animated=kind == b",", frame=place)
        if kind == b"!":
            position = _gif_blocks_end(data, start + 2)
            if data[start + 1 : start + 2] == b"\xf9":
                control = data[start:position]
        elif kind == b",":
            left, top, width, height = struct.unpack_from("<4H", data, start + 1)
            place = (left, top, left + width, top + height)
            position = _gif_blocks_end(data, start + 11 + _gif_colors(data[start + 9]))
            frame = control + data[start:position]
        else:
            position += 1  # stray bytes between blocks are common and skipped by every decoder
    raise TooManyPieces(f"more than {MAX_PIECES} blocks")


def _gif_colors(flags: int) -> int:
    return 3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0


def _gif_blocks_end(data: bytes, position: int) -> int:
    for _ in range(2 * MAX_PIECES):  # blocks hold at most 255 bytes: 20 MB make 80,000
        length = data[position] if position < len(data) else 0
        position += 1 + length
        if length == 0:
            return position
    raise TooManyPieces(f"more than {2 * MAX_PIECES} blocks")


# --- TIFF

# A tile is decoded whole even where the picture covers one corner of it: a file of 1.6 MB with a picture of
# 8 x 8 in a tile of 40,000 x 40,000 took 1.5 GB and 8 s.
MAX_TILE = 2**24  # pixels; 4096 x 4096, where writers use 256 or 512 a side
MAX_TILED_PIXELS = 100_000_000  # pixels of all tiles with what sticks out beyond the picture

# The decoder allows 100 passes over a JPEG in a TIFF. Writers make one; these are the headers of the kinds
# with several, or with arithmetic coding, whose passes are the slowest.
_COSTLY_JPEG = re.compile(rb"\xff[\xc2\xc6\xc9-\xcb\xcd-\xcf]\0[\x0b\x0e\x11\x14]")

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
    ones: dict[int, int] = {}  # the values of tags that hold one number
    claimed = 0
    for position in range(0, len(table) - 11, 12):
        tag, kind, number = struct.unpack_from(f"{order}HHI", table, position)
        fresh = tag in _TIFF_KEPT and tag not in kept and kind in _TIFF_SIZES
        if (fresh or tag == 0x0112) and number == 1 and kind in (3, 4):
            (ones[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), table, position + 8)
        if fresh:
            kept[tag] = table[position : position + 12]
            claimed += number * _TIFF_SIZES[kind]
            if tag in (273, 324) and number > MAX_PIECES:
                raise TooManyPieces(f"more than {MAX_PIECES} strips")
    if claimed > len(data):
        raise TooManyPieces("tags that claim more bytes than the file has")
    tiled = {256, 257, 322, 323} if {322, 323} & kept.keys() else set()
    if (tiled | ({259} & kept.keys())) - ones.keys():
        raise TooManyPieces("a tag that should hold one number")
    if tiled:
        _check_tiles(*(max(1, ones[tag]) for tag in (256, 257, 322, 323)))
    if ones.get(259) in (6, 7) and _COSTLY_JPEG.search(data):
        raise TooManyPieces("a JPEG of several passes")
    gray = ones.get(277, 1) == 1 and ones.get(262) in (0, 1)
    samples = Samples(ones.get(258, 1), signed=ones.get(339) == 2, white_is_zero=ones.get(262) == 0)
    if gray and samples.white_is_zero and (samples.bits > 8 or samples.signed):
        # Pillow does not turn these over, and refuses some; said to be the usual kind, it reads them all.
        kept[262] = struct.pack(f"{order}HHIHH", 262, 3, 1, 1, 0)
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(kept.values()) + b"\0\0\0\0"
    shortened = data[:start] + directory + data[start + len(directory) :]
    orientation = ones.get(0x0112, 1)
    return Picture(
        shortened,
        orientation if 1 <= orientation <= 8 else 1,
        paged=any(following),
        samples=samples if gray else None,
    )


def _check_tiles(width: int, height: int, across: int, down: int) -> None:
    """Raise TooManyPieces if decoding whole tiles would cost far more than the picture in them."""
    tiles = -(-width // across) * -(-height // down)
    if across * down > MAX_TILE or tiles * across * down > MAX_TILED_PIXELS:
        raise TooManyPieces(f"tiles of {across} x {down} for {width} x {height} pixels")


# --- BMP

# Pillow decodes run-length code in Python, pixel by pixel: each pair takes up to 3 microseconds.
MAX_RLE = 2**20  # bytes of a run-length coded file
# An end-of-line code fills the rest of its row one pixel at a time, and a jump code appends up to 255 rows
# at once: 1 kB of such code with rows of 6 million pixels took 2.9 GB, and with 40 megapixels 16 s.
MAX_RLE_PIXELS = 4_000_000
MAX_RLE_ROW = 10_000  # pixels


def check_bmp(data: bytes) -> Picture:
    """The file as it is, unless it is run-length coded beyond what its decoder does quickly."""
    (header,) = struct.unpack_from("<I", data, 14)
    if header < 40:  # the oldest kind has no compression
        return Picture(data)
    width, height = struct.unpack_from("<ii", data, 18)
    (compression,) = struct.unpack_from("<I", data, 30)
    if compression == 1 and (
        len(data) > MAX_RLE or abs(width * height) > MAX_RLE_PIXELS or abs(width) > MAX_RLE_ROW
    ):
        raise TooManyPieces(f"more than {MAX_RLE} bytes or {MAX_RLE_PIXELS} pixels of run-length code")
    if compression not in (0, 1, 3, 6):  # Pillow reads 2, and takes runs of odd length wrongly
        names = {2: "run-length code of 4 bits", 4: "a JPEG inside", 5: "a PNG inside"}
        raise RareKind(names.get(compression, "a rare compression"))
    if header >= 124 and data[70:74] == b"DEBM":  # little-endian: an embedded profile
        place, size = struct.unpack_from("<II", data, 126)
        return Picture(data, profile=data[14 + place :][:size] if size < MAX_PROFILE else None)
    return Picture(data)
