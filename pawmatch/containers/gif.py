"""GIF: the first frame alone."""

from __future__ import annotations

from pawmatch.containers.picture import MOST_PIECES, Picture, TooManyPieces


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
