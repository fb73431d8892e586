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
            coded += _coded_pixels(data, parts)
            profile = profile or _profile(data, parts)
    if coded > MAX_CODED_PIXELS:
        raise TooManyPixels(f"more than {MAX_CODED_PIXELS} coded pixels")
    # Under another name the decoder passes over the EXIF item. An AVIF image is turned by a property of
    # its own; its standard says to ignore EXIF there.
    entry = re.compile(rb"(infe\x02.{7}|infe\x03.{9})Exif", re.DOTALL)
    return Picture(entry.sub(rb"\1skip", bytes(altered)), animated=animated, profile=profile)


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
            yield from _boxes(data, start, end)


def _profile(data: bytes, parts: Iterable[Box]) -> bytes | None:
    """The profile of the first code points for colors (nclx) among the properties in a meta box."""
    for kind, start, _ in _inside(data, _inside(data, parts, b"iprp"), b"ipco"):
        if kind == b"colr" and data.startswith(b"nclx", start):
            return nclx_profile(*struct.unpack_from(">HH", data, start + 4))
    return None


def _coded_pixels(data: bytes, parts: list[Box]) -> int:
    """The pixels of all frames of all pictures that a meta box lists."""
    pictures: set[int] = set()
    for kind, first, last in parts:
        if kind == b"iinf":
            entries = first + (6 if data[first] == 0 else 8)
            pictures.update(_pictures(data, _boxes(data, entries, last)))
    total = 0
    for kind, first, last in parts:
        if kind == b"iloc":
            inner = next(((low, high) for name, low, high in parts if name == b"idat"), (0, 0))
            total += sum(_item_pixels(item) for item in _items(data, first, last, inner, pictures))
    return total


def _pictures(data: bytes, entries: Iterator[Box]) -> Iterator[int]:
    """The numbers of the items that are AV1 code."""
    for kind, first, _ in entries:
        if kind == b"infe":
            layout = ">HH4s" if data[first] < 3 else ">IH4s"
            number, _, what = struct.unpack_from(layout, data, first + 4)
            if what == b"av01":
                yield number


def _item_pixels(item: bytes) -> int:
    frames, pixels = frames_and_pixels(item)
    if pixels > MAX_FRAME:
        raise TooManyPixels(f"a frame of {pixels} pixels")
    return frames * pixels


def _items(data: bytes, position: int, end: int, inner: tuple[int, int], wanted: set[int]) -> Iterator[bytes]:
    """The content of the `wanted` items that an iloc box locates; `inner` is where the idat box lies."""
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
        base = read(base_size) + (inner[0] if inside else 0)
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


# --- AV1, the code of the pictures: AV1 Bitstream Specification, sections 5.3 and 5.5

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6


def frames_and_pixels(data: bytes) -> tuple[int, int]:
    """The number of frames that a decoder meets in `data`, and the pixels of the largest that it allows.

    Raises IndexError for data that ends too early, and TooManyPieces for more units than any picture has.
    """
    frames, pixels, position = 0, 0, 0
    for _ in range(MAX_PIECES):
        if position >= len(data):
            return frames, pixels
        kind, start, position = _unit(data, position)
        if kind == _SEQUENCE_HEADER:
            pixels = max(pixels, _frame_pixels(data[start:position]))
        elif kind in (_FRAME_HEADER, _FRAME):
            frames += 1
    raise TooManyPieces(f"more than {MAX_PIECES} units of AV1")


def _unit(data: bytes, position: int) -> tuple[int, int, int]:
    """Type, start and end of the content of the unit (OBU) at a position."""
    head = data[position]
    position += 2 if head & 4 else 1
    if not head & 2:  # no size: the unit reaches to the end
        return head >> 3 & 15, position, len(data)
    size = 0
    for place in range(8):
        byte = data[position]
        position += 1
        size |= (byte & 127) << 7 * place
        if byte < 128:
            break
    if position + size > len(data):
        raise IndexError("a unit of AV1 that is cut short")
    return head >> 3 & 15, position, position + size


def _frame_pixels(header: bytes) -> int:
    """The largest frame that a sequence header allows, in pixels."""
    bits = _Bits(header)
    bits.read(4)  # profile, still picture
    if bits.read(1):  # the short header of still pictures
        bits.read(5)
    else:
        _skip_timing(bits)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    return (bits.read(width_bits) + 1) * (bits.read(height_bits) + 1)


def _skip_timing(bits: _Bits) -> None:
    """Pass over timing and operating points, which lie before the frame size in a full header."""
    delay_bits = 0
    if bits.read(1):
        bits.read(64)
        if bits.read(1):  # equal intervals, with a count in Exp-Golomb code
            zeros = 0
            while not bits.read(1):
                zeros += 1
            bits.read(zeros)
        if bits.read(1):
            delay_bits = bits.read(5) + 1
            bits.read(42)
    has_display_delay = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if delay_bits and bits.read(1):
            bits.read(2 * delay_bits + 1)
        if has_display_delay and bits.read(1):
            bits.read(4)


class _Bits:
    """Bits of a byte string from its front; IndexError beyond its end."""

    def __init__(self, data: bytes) -> None:
        self.value = int.from_bytes(data[:200])  # a sequence header has a few dozen bytes
        self.left = 8 * min(len(data), 200)

    def read(self, count: int) -> int:
        self.left -= count
        if self.left < 0:
            raise IndexError("a sequence header that is cut short")
        return self.value >> self.left & (1 << count) - 1
