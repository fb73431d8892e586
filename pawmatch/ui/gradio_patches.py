"""Pictures for the page: as files in Gradio's cache, which cleans them up, or as part of the page."""

from __future__ import annotations

import base64
import hashlib
import tempfile
from io import BytesIO
from pathlib import Path

from gradio.utils import get_upload_folder
from PIL import Image

QUALITY = 88


def keep_jpeg(image: Image.Image, name: str) -> str:
    """Write an image under a name made from its content, and give its path.

    Gradio would write it too, in place: who fetches a picture just when somebody else is given the same
    one (an example, say) then gets an empty file. Here it appears whole or not at all.
    """
    data = as_jpeg(image)
    folder = Path(get_upload_folder()) / hashlib.sha256(data).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"pawmatch-{name}.jpg"
    file = tempfile.NamedTemporaryFile(dir=folder, delete=False)  # noqa: SIM115 - closed below
    try:
        with file:
            file.write(data)
        Path(file.name).replace(path)
    except BaseException:
        Path(file.name).unlink(missing_ok=True)  # a full disk must not fill up with halves
        raise
    return str(path)


def data_address(image: Image.Image) -> str:
    """A small image as a data: address, for which the page needs no further request."""
    return "data:image/jpeg;base64," + base64.b64encode(as_jpeg(image)).decode()


def as_jpeg(image: Image.Image) -> bytes:
    """An image as the bytes of a JPEG file."""
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
