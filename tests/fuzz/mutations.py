"""Damage files as networks, disks and attackers do: by bits, by cuts, by exchanged parts and by lies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

# Values at which counts and lengths go wrong.
EDGES = (0, 1, 2, 7, 127, 128, 255, 256, 2**15 - 1, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
HEADER = 128  # bytes in which most formats say what follows

Mutation = Callable[[bytearray, Random, Sequence[bytes]], bytearray]


def mutate(data: bytes, rng: Random, others: Sequence[bytes]) -> tuple[str, bytes]:
    """The damaged file and the names of what was done to it: one to four mutations, one after another."""
    damaged, done = bytearray(data), []
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        name = rng.choice(sorted(MUTATIONS))
        if damaged:
            damaged = MUTATIONS[name](damaged, rng, others)
            done.append(name)
    return "+".join(done), bytes(damaged)


def flip_bits(data: bytearray, rng: Random, others: Sequence[bytes]) -> bytearray:
    """Turn over up to sixteen bits."""
    for _ in range(rng.randint(1, 16)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def truncate(data: bytearray, rng: Random, others: Sequence[bytes]) -> bytearray:
    """End the file early."""
    return data[: rng.randrange(len(data))]


def splice(data: bytearray, rng: Random, others: Sequence[bytes]) -> bytearray:
    """Go on with the end of another file."""
    other = rng.choice(others)
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def edit_header(data: bytearray, rng: Random, others: Sequence[bytes]) -> bytearray:
    """Give a few bytes at the front other values."""
    for _ in range(rng.randint(1, 6)):
        data[rng.randrange(min(len(data), HEADER))] = rng.randrange(256)
    return data


def edit_length(data: bytearray, rng: Random, others: Sequence[bytes]) -> bytearray:
    """Put a number that is easily got wrong where a count or a length may be."""
    size = rng.choice((2, 4))
    place = rng.randrange(min(len(data), rng.choice((HEADER, len(data)))))
    value = rng.choice(EDGES) % 2 ** (8 * size)
    data[place : place + size] = value.to_bytes(size, rng.choice(("big", "little")))
    return data


def repeat_part(data: bytearray, rng: Random, others: Sequence[bytes]) -> bytearray:
    """Insert a part of the file again, up to a thousand times."""
    start = rng.randrange(len(data))
    part = data[start : start + rng.choice((4, 16, 64, 1024))]
    return data[:start] + part * rng.choice((1, 2, 10, 1000)) + data[start:]


def drop_part(data: bytearray, rng: Random, others: Sequence[bytes]) -> bytearray:
    """Leave out a part."""
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.choice((1, 4, 16, 64, 512)) :]


def blank_part(data: bytearray, rng: Random, others: Sequence[bytes]) -> bytearray:
    """Overwrite a part with zeros or ones, as a failed disk block is."""
    start = rng.randrange(len(data))
    length = min(rng.choice((1, 8, 64, 512)), len(data) - start)
    data[start : start + length] = rng.choice((b"\0", b"\xff")) * length
    return data


MUTATIONS: dict[str, Mutation] = {
    "flip": flip_bits,
    "truncate": truncate,
    "splice": splice,
    "header": edit_header,
    "length": edit_length,
    "repeat": repeat_part,
    "drop": drop_part,
    "blank": blank_part,
}
