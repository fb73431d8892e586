"""Cut image files down to their picture: what surrounds it is dropped before a decoder sees it.

Metadata is where small files do large harm: five thousand EXIF entries may all point at the same 60 kB
and be read into 300 MB. None of it is needed here but the orientation and a colour profile of sane size.
What remains is counted: a progressive JPEG of 20 MB can repeat a scan of 60 bytes for hours. So no
position, name or date in a photo travels further, and an MPO or Ultra HDR photo is just its main JPEG.

With these gates no file that is accepted took more than 4 s of a processor or 700 MB in measurements of the
worst kinds known (tests/fuzz/costly.py), so decoding needs no process of its own.
"""

from collections.abc import Callable

from pawmatch.containers.avif import strip_avif
from pawmatch.containers.bmp import check_bmp
from pawmatch.containers.gif import strip_gif
from pawmatch.containers.jpeg import strip_jpeg
from pawmatch.containers.picture import Picture, TooManyPieces, TooManyPixels
from pawmatch.containers.png import strip_png
from pawmatch.containers.tiff import strip_tiff

__all__ = ["Picture", "TooManyPieces", "TooManyPixels", "strip"]

_STRIP: dict[str, Callable[[bytes], Picture]] = {
    "JPEG": strip_jpeg,
    "PNG": strip_png,
    "GIF": strip_gif,
    "TIFF": strip_tiff,
    "AVIF": strip_avif,
    "BMP": check_bmp,
}


def strip(data: bytes, image_format: str) -> Picture:
    """The picture in `data`, of the format that Pillow calls so.

    Raises TooManyPieces for a file that would cost too much; struct.error and IndexError mean damage.
    """
    return _STRIP.get(image_format, Picture)(data)
