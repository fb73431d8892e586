"""Measure the dearest files that are accepted: 40 megapixels or 20 MB, in the slowest form of each format.

    python -m tests.fuzz.costly

Prints one line per file: seconds of the processor, and the peak of memory above the idle process. To make the
files takes some minutes and a gigabyte.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from pawmatch.images.color import cicp_profile
from tests.support.pictures import encode, png, png_chunk, with_png_chunk

SIDE = 6324  # squared, a little below 40 megapixels
LARGEST = 20 * 2**20
# First column, first row, and the steps to the next of each.
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def noise(contrast: int) -> Image.Image:
    """Random pixels around grey; the larger the contrast, the larger the file."""
    rng = np.random.default_rng(0)
    low, high = 128 - contrast // 2, 128 + (contrast + 1) // 2
    return Image.fromarray(rng.integers(low, high, (SIDE, SIDE, 3), dtype=np.uint8))


def flat(mode: str) -> Image.Image:
    """One colour all over, which packs small: all cost is the decoder's."""
    return Image.new(mode, (SIDE, SIDE))


def passes(image: Image.Image, count: int, **options: object) -> bytes:
    """A progressive JPEG with its last pass repeated up to `count` passes or the largest size."""
    data = encode(image, "JPEG", progressive=True, subsampling=0, **options)
    places = [found.start() for found in re.finditer(rb"\xff\xda\0", data)]
    last = data[places[-1] : -2]
    more = min(count - len(places), (LARGEST - len(data)) // len(last))
    return data[:-2] + last * more + data[-2:]


def interlaced_png() -> bytes:
    """16 bits a channel with transparency, in the seven passes of Adam7."""
    packer, parts = zlib.compressobj(6), []
    for x, y, across, down in ADAM7:
        row = b"\4" + bytes(8 * ((SIDE - x + across - 1) // across))
        parts += [packer.compress(row) for _ in range((SIDE - y + down - 1) // down)]
    head = png((SIDE, SIDE), 16, 6, b"")
    header = head[16:28] + b"\1"  # the last byte says that it is interlaced
    body = b"".join(parts) + packer.flush()
    return head[:8] + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def palette_png() -> bytes:
    """A palette with transparency."""
    image = noise(8).getchannel(0).convert("P")
    return encode(image, "PNG", transparency=bytes(range(200)), compress_level=1)


FILES: dict[str, Callable[[], bytes]] = {
    "noise.jpg": lambda: encode(noise(120), "JPEG", quality=50, subsampling=0),
    "65 megapixels.jpg": lambda: encode(
        flat("RGB").resize((8062, 8062)), "JPEG", progressive=True, subsampling=0
    ),
    "25 passes over gray.jpg": lambda: passes(Image.new("RGB", (SIDE, SIDE), "gray"), 25),
    "25 passes over noise.jpg": lambda: passes(noise(32), 25, quality=60),
    "four colours, progressive.jpg": lambda: passes(
        Image.merge("CMYK", [*noise(32).split(), noise(32).getchannel(0)]), 10, quality=40
    ),
    "four colours, 65 megapixels.jpg": lambda: encode(
        flat("CMYK").resize((8062, 8062)), "JPEG", progressive=True, subsampling=0
    ),
    "16 bits, alpha, linear, interlaced.png": lambda: with_png_chunk(
        interlaced_png(), b"gAMA", b"\0\1\x86\xa0"
    ),
    "lossless, alpha, profile.webp": lambda: encode(
        flat("RGBA"), "WEBP", lossless=True, method=0, quality=0, icc_profile=cicp_profile(12, 13)
    ),
    "16 bits, alpha.png": lambda: png((SIDE, SIDE), 16, 6, (b"\4" + bytes(8 * SIDE)) * SIDE),
    "16 bits, alpha, interlaced.png": interlaced_png,
    "palette, transparency.png": palette_png,
    "one row.png": lambda: png((40_000_000, 1), 1, 0, b"\0" + bytes(5_000_000)),
    "noise.gif": lambda: encode(noise(4).convert("L").convert("P"), "GIF", transparency=1),
    "lossy.webp": lambda: encode(noise(32), "WEBP", quality=60, method=0),
    "lossless, alpha.webp": lambda: encode(flat("RGBA"), "WEBP", lossless=True, method=0, quality=0),
    "lossless noise.webp": lambda: encode(noise(2), "WEBP", lossless=True, method=0, quality=0),
    "one bit.bmp": lambda: encode(noise(120).convert("1"), "BMP"),
    "lzw.tif": lambda: encode(noise(2), "TIFF", compression="tiff_lzw"),
    "deflate, alpha.tif": lambda: encode(flat("RGBA"), "TIFF", compression="tiff_adobe_deflate"),
    "floating point.tif": lambda: encode(flat("F"), "TIFF", compression="tiff_adobe_deflate"),
    "four colours.tif": lambda: encode(flat("CMYK"), "TIFF", compression="tiff_lzw"),
    "jpeg.tif": lambda: encode(noise(32), "TIFF", compression="jpeg", quality=70),
    "fax.tif": lambda: encode(noise(120).convert("1"), "TIFF", compression="group4"),
    "lzma.tif": lambda: encode(flat("RGBA"), "TIFF", compression="lzma"),
    "noise.avif": lambda: encode(noise(255), "AVIF", speed=10, max_threads=1, quality=45),
}


# Opens a small file, then the one to measure, in a process of its own: one that held more before would hide
# what this file takes.
MEASURE = """
import json, sys, time
from pathlib import Path
from pawmatch.errors import ImageError
from pawmatch.images import read_image
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
read_image(sys.argv[1])
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here (Linux)
idle, used, said = peak(), time.process_time(), "opened"
try:
    read_image(sys.argv[2])
except ImageError as exc:
    said = str(exc)
print(json.dumps([time.process_time() - used, peak() - idle, said]))
"""


def main() -> int:
    """Make, open and measure each file."""
    wanted = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        small, path = Path(folder) / "small", Path(folder) / "file"
        small.write_bytes(encode(Image.new("RGB", (8, 8)), "PNG"))
        for name, make in FILES.items():
            if wanted and name not in wanted:
                continue
            path.write_bytes(make())
            command = [sys.executable, "-c", MEASURE, str(small), str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
            cpu, memory, said = json.loads(done.stdout)
            size = path.stat().st_size / 2**20
            print(f"| {name} | {size:.1f} MB | {cpu:.1f} s | {memory:.0f} MB | {said} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
