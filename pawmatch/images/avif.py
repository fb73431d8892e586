"""AVIF: the still picture alone, and a bound on what its code makes the decoder do.

The size that a file announces is not the size of what is decoded: the decoder scales whatever the AV1 code
holds, up to 268 megapixels, to the announced size, and decodes each frame of the code to show the first.
A file of 3 kB that announced 100 x 100 pixels made it decode 100 megapixels. So the code itself is asked.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator

from pawmatch.images.color import nclx_profile
from pawmatch.images.containers import MAX_PIECES, Picture, TooManyPieces, TooManyPixels

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
