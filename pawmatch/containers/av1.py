"""AV1, the code of the pictures in an AVIF file: how many frames it has, and how large they may be.

Only the few fields on the way to the frame size are read; AV1 Bitstream Specification, sections 5.3 and 5.5.
"""

from __future__ import annotations

from pawmatch.containers.picture import MOST_PIECES, TooManyPieces

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6


def frames_and_pixels(data: bytes) -> tuple[int, int]:
    """The number of frames that a decoder meets in `data`, and the pixels of the largest that it allows.

    Raises IndexError for data that ends too early, and TooManyPieces for more units than any picture has.
    """
    frames, pixels, position = 0, 0, 0
    for _ in range(MOST_PIECES):
        if position >= len(data):
            return frames, pixels
        kind, start, position = _unit(data, position)
        if kind == _SEQUENCE_HEADER:
            pixels = max(pixels, _frame_pixels(data[start:position]))
        elif kind in (_FRAME_HEADER, _FRAME):
            frames += 1
    raise TooManyPieces(f"more than {MOST_PIECES} units of AV1")


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
