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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pawmatch.images.color import Samples, cicp_profile, gamma_profile, nclx_profile

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
_PNG_CHANNELS = {2: 3, 4: 2, 6: 4}  # of the kinds of color that have several
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


def png_lacks_rows(data: bytes) -> bool:
    """Whether the code of a PNG ends in good order before its last row, of which zlib says nothing.

    `data` is from strip_png. Of interlaced files, the decoder tells.
    """
    width, height, depth, color, *_, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    row = 1 + (width * depth * _PNG_CHANNELS.get(color, 1) + 7) // 8
    unpack, found, position = zlib.decompressobj(), 0, 8
    while position < len(data) and not interlaced:
        end = position + 8 + int.from_bytes(data[position : position + 4])
        rest = data[position + 8 : end] if data[position + 4 : position + 8] == b"IDAT" else b""
        while rest and not unpack.eof:
            found += len(unpack.decompress(rest, 2**20))
            rest = unpack.unconsumed_tail
        position = end + 4
    return unpack.eof and found < row * height


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


# --- AVIF

# The size that a file announces is not the size of what is decoded: the decoder scales whatever the AV1 code
# holds, up to 268 megapixels, to the announced size, and decodes each frame of the code to show the first. A
# file of 3 kB that announced 100 x 100 pixels made it decode 100 megapixels. So the code itself is asked.
MAX_FRAME = 42_000_000  # pixels; a little above what the announced size may be, for padding
MAX_CODED_PIXELS = 200_000_000  # of all frames together: color, transparency, layers, thumbnail
MAX_EXTENTS = 5_000  # parts that pictures lie in; one each is usual, and a grid has hundreds

Box = tuple[bytes, int, int]

# Under another name the decoder passes over the EXIF item. An AVIF image is turned by a property of its own;
# its standard says to ignore EXIF there.
_EXIF_ENTRY = re.compile(rb"(infe\x02.{7}|infe\x03.{9})Exif", re.DOTALL)
_SEQUENCE_HEADER, _FRAMES = 1, (3, 6)


def strip_avif(data: bytes) -> Picture:
    """The file without its film and with its EXIF item hidden; every other position stays the same.

    An AVIF film has its first frame, or a better still, as an ordinary picture too.
    """
    altered = bytearray(data)
    animated, coded, profile = False, 0, None
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind == b"ftyp":
            brands = [data[place : place + 4] for place in range(start, end, 4)]
            altered[start:end] = b"".join(b"avif" if brand == b"avis" else brand for brand in brands)
        elif kind == b"moov":
            animated = True
            altered[start - 4 : start] = b"skip"
        elif kind == b"meta":
            parts = list(_boxes(data, start + 4, end))
            coded += sum(_coded_pixels(item) for item in _items(data, parts))
            profile = profile or _profile(data, parts)
    if coded > MAX_CODED_PIXELS:
        raise TooManyPixels(f"more than {MAX_CODED_PIXELS} coded pixels")
    return Picture(_EXIF_ENTRY.sub(rb"\1skip", bytes(altered)), animated=animated, profile=profile)


# --- boxes: ISO 14496-12 and 23008-12


def _boxes(data: bytes, start: int, end: int) -> Iterator[Box]:
    """Kind, start and end of the content of each box between two positions."""
    for _ in range(MAX_PIECES):
        if end - start < 8:
            return
        size, kind = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, content)
            content += 8
        after = start + size if size else end
        if after < content or after > end:
            # A last box that is cut short is the decoder's to judge; nothing can follow it.
            after = end
        yield kind, content, after
        start = after
    raise TooManyPieces(f"more than {MAX_PIECES} boxes")


def _inside(data: bytes, boxes: Iterable[Box], wanted: bytes) -> Iterator[Box]:
    """The boxes in those of one kind."""
    for kind, start, end in boxes:
        if kind == wanted:
            if kind == b"iinf":  # begins with a version and a count
                start += 6 if data[start] == 0 else 8
            yield from _boxes(data, start, end)


def _profile(data: bytes, parts: list[Box]) -> bytes | None:
    """The profile of the first code points for colors (nclx) among the properties in a meta box."""
    for kind, start, _ in _inside(data, _inside(data, parts, b"iprp"), b"ipco"):
        if kind == b"colr" and data.startswith(b"nclx", start):
            return nclx_profile(*struct.unpack_from(">HH", data, start + 4))
    return None


def _items(data: bytes, parts: list[Box]) -> Iterator[bytes]:
    """The code of each picture that a meta box lists and locates."""
    pictures = set()
    for kind, start, _ in _inside(data, parts, b"iinf"):
        if kind == b"infe":
            number, _, what = struct.unpack_from(">HH4s" if data[start] < 3 else ">IH4s", data, start + 4)
            if what == b"av01":
                pictures.add(number)
    inner = next((start for kind, start, _ in parts if kind == b"idat"), 0)
    for kind, start, end in parts:
        if kind == b"iloc":
            yield from _located(data, start, end, inner, pictures)


def _located(data: bytes, position: int, end: int, inner: int, wanted: set[int]) -> Iterator[bytes]:
    """The content of the `wanted` items that an iloc box locates; `inner` is where the idat box begins."""
    version, sizes, more = data[position], data[position + 4], data[position + 5]
    offset_size, length_size, base_size = sizes >> 4, sizes & 15, more >> 4
    index_size = more & 15 if version else 0
    number_size = 2 if version < 2 else 4
    position += 6
    extents = total = 0

    def read(size: int) -> int:
        nonlocal position
        if position + size > end:
            raise IndexError("an iloc box that is cut short")
        position += size
        return int.from_bytes(data[position - size : position])

    for _ in range(read(number_size)):
        number = read(number_size)
        inside = version > 0 and read(2) & 15 == 1
        read(2)  # which file: the decoder accepts this one only
        base = read(base_size) + (inner if inside else 0)
        count = read(2)
        # An extent may take no bytes here, so their number is not bounded by the size of the box.
        extents += count
        if extents > MAX_EXTENTS:
            raise TooManyPieces(f"more than {MAX_EXTENTS} extents")
        content = []
        for _ in range(count):
            read(index_size)
            first, length = base + read(offset_size), read(length_size)
            if number in wanted:
                content.append(data[first : first + length if length else None])
                total += len(content[-1])
                if total > 2 * len(data):
                    raise TooManyPieces("pictures that share their code")
        if number in wanted:
            yield b"".join(content)


# --- AV1: Bitstream Specification, sections 5.3 and 5.5; only the fields on the way to the frame size


def _coded_pixels(item: bytes) -> int:
    frames, pixels = frames_and_pixels(item)
    if pixels > MAX_FRAME:
        raise TooManyPixels(f"a frame of {pixels} pixels")
    return frames * pixels


def frames_and_pixels(data: bytes) -> tuple[int, int]:
    """The number of frames that a decoder meets in `data`, and the pixels of the largest that it allows.

    Raises IndexError for data that ends too early, and TooManyPieces for more units than any picture has.
    """
    frames, pixels, position = 0, 0, 0
    for _ in range(MAX_PIECES):
        if position >= len(data):
            return frames, pixels
        head = data[position]
        kind, start, size = head >> 3 & 15, position + (2 if head & 4 else 1), 0
        if head & 2:
            for place in range(8):
                size |= (data[start] & 127) << 7 * place
                start += 1
                if data[start - 1] < 128:
                    break
        else:
            size = len(data) - start  # no size: the unit reaches to the end
        position = start + size
        if position > len(data):
            raise IndexError("a unit of AV1 that is cut short")
        if kind == _SEQUENCE_HEADER:
            pixels = max(pixels, _frame_pixels(data[start:position]))
        frames += kind in _FRAMES
    raise TooManyPieces(f"more than {MAX_PIECES} units of AV1")


def _frame_pixels(header: bytes) -> int:
    """The largest frame that a sequence header allows, in pixels."""
    bits = "".join(f"{byte:08b}" for byte in header[:200])  # it has a few dozen bytes
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        if place > len(bits):
            raise IndexError("a sequence header that is cut short")
        return int(bits[place - count : place] or "0", 2)

    read(4)  # profile, still picture
    if read(1):  # the short header of still pictures
        read(5)
    else:  # timing and operating points
        delay_bits = 0
        if read(1):
            read(64)
            if read(1):  # equal intervals, with a count in Exp-Golomb code
                zeros = 0
                while not read(1):
                    zeros += 1
                read(zeros)
            if read(1):
                delay_bits = read(5) + 1
                read(42)
        has_display_delay = read(1)
        for _ in range(read(5) + 1):
            read(12)
            if read(5) > 7:
                read(1)
            if delay_bits and read(1):
                read(2 * delay_bits + 1)
            if has_display_delay and read(1):
                read(4)
    width_bits, height_bits = read(4) + 1, read(4) + 1
    return (read(width_bits) + 1) * (read(height_bits) + 1)
