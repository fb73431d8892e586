"""Opening images: every kind of source, every limit, and one sentence for what cannot be opened."""

from __future__ import annotations

import os
import socket
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from pawmatch.errors import (
    BrokenImage,
    ImageNotFound,
    ImageTooLarge,
    ImageUnreadable,
    UnsupportedFormat,
)
from pawmatch.images import ImageSource, open_image, read_image
from tests.support.pictures import (
    BLUE,
    FORMATS,
    GREEN,
    QUARTERS,
    RED,
    encode,
    exif,
    failure,
    png,
    quarters,
    seen,
    seen_quarters,
)

# --- sources


def test_every_kind_of_source_gives_the_same_image(tmp_path: Path) -> None:
    data = encode(quarters(), "PNG")
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    read_to_its_end = BytesIO(data)
    read_to_its_end.read()
    sources: list[ImageSource] = [path, str(path), data, bytearray(data), memoryview(data)]
    sources += [BytesIO(data), read_to_its_end]
    with path.open("rb") as file, Image.open(path) as lazy:
        sources += [file, lazy, quarters()]
        images = [open_image(source) for source in sources]
    assert {(image.mode, image.tobytes()) for image in images} == {("RGB", quarters().tobytes())}


def test_an_array_is_a_picture(photo: Image.Image) -> None:
    array = np.array(photo)
    opened = open_image(array)
    assert opened.tobytes() == photo.tobytes()
    opened.putpixel((0, 0), (1, 2, 3))
    assert np.array_equal(array, np.asarray(photo))
    assert open_image(array[::2, ::-1]).size == ((photo.width, (photo.height + 1) // 2))


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4)), np.zeros((3, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.array("x")]
)
def test_other_arrays_say_what_is_accepted(array: np.ndarray) -> None:
    assert "uint8 array of shape (height, width, 3) in RGB, not as one of" in failure(
        array, UnsupportedFormat
    )


def test_a_pillow_image_is_not_changed_and_not_shared() -> None:
    image = quarters()
    image.info["exif"] = exif(6)
    opened = open_image(image)
    assert opened.size == (32, 48)
    opened.paste("black", (0, 0, 32, 48))
    assert (image.size, seen_quarters(image)) == ((48, 32), QUARTERS)
    plain = quarters()
    open_image(plain).paste("black", (0, 0, 48, 32))
    assert seen_quarters(plain) == QUARTERS


def test_the_pixels_of_a_file_are_taken_over_without_the_file() -> None:
    data = encode(quarters(), "PNG")
    found = open_image(data)
    assert type(found) is Image.Image
    assert found.format is None
    assert found.info == {}
    with Image.open(BytesIO(data)) as whole:
        np.testing.assert_array_equal(np.asarray(found), np.asarray(whole.convert("RGB")))


def test_a_pillow_image_that_was_turned_before_is_not_turned_again() -> None:
    with Image.open(BytesIO(encode(quarters(), "JPEG", exif=exif(6)))) as image:
        turned = ImageOps.exif_transpose(image)
    assert open_image(turned).size == turned.size == (32, 48)


def test_missing_files_are_not_found(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for source in (tmp_path / "none.jpg", file / "picture.jpg", "a\0b", "\ud800", "", None):
        failure(source, ImageNotFound)
    assert "web address" in failure("https://example.org/dog.jpg", ImageNotFound)


def test_paths_that_lead_nowhere_say_why(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert "symbolic links" in failure(loop, ImageUnreadable)
    assert "too long" in failure("x" * 5000, ImageUnreadable)


@pytest.mark.timeout(20)
def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        (tmp_path / "link").symlink_to("/dev/urandom")
        for name in ("pipe", "socket", "/dev/zero", "/dev/null", "link"):
            assert "device, pipe or socket" in failure(tmp_path / name, ImageUnreadable)
    assert "folder" in failure(tmp_path, ImageUnreadable)
    (tmp_path / "picture").write_bytes(encode(quarters(), "PNG"))
    (tmp_path / "to picture").symlink_to(tmp_path / "picture")
    assert seen_quarters(open_image(tmp_path / "to picture")) == QUARTERS


def test_a_file_without_permission_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "picture.png"
    path.touch()

    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", os.fspath(path))

    monkeypatch.setattr(Path, "open", refuse)  # root, who runs tests in a container, may read anything
    assert "permission" in failure(path, ImageUnreadable)


def test_names_never_reach_the_message(tmp_path: Path) -> None:
    for name in ("two\nlines.jpg", "<b onclick=x>.jpg", "quote'\".tga", "…é.jpg"):
        path = tmp_path / name
        path.write_bytes(b"\1\2\3\4" * 9)
        text = failure(path, UnsupportedFormat)
        assert not any(part in text for part in ("lines", "onclick", "quote", "é", str(tmp_path)))


def test_other_objects_are_refused() -> None:
    assert "list" in failure([1, 2], UnsupportedFormat)
    assert "binary mode" in failure(StringIO("text"), ImageUnreadable)
    closed = BytesIO(b"")
    closed.close()
    failure(closed, ImageUnreadable)
    shut = quarters()
    shut.close()
    failure(shut, BrokenImage)
    failure(Image.new("RGB", (0, 5)), BrokenImage)


# --- limits


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    with path.open("wb") as file:
        file.truncate(20 * 2**20 + 1)
    tracemalloc.start()
    assert "20 MB" in failure(path, ImageTooLarge)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**20


def test_the_limit_is_20_megabytes_wherever_they_come_from() -> None:
    assert "zeros" in failure(b"\0" * 20 * 2**20, UnsupportedFormat)
    failure(b"\0" * (20 * 2**20 + 1), ImageTooLarge)


def test_a_stream_is_read_no_further_than_the_limit() -> None:
    class Endless:
        given = 0

        def read(self, size: int) -> bytes:
            self.given += min(size, 100_000)
            return b"x" * min(size, 100_000)

    stream = Endless()
    with pytest.raises(ImageTooLarge):
        read_image(stream)  # type: ignore[arg-type]
    assert stream.given == 20 * 2**20 + 1


@pytest.mark.parametrize("megapixels", [41, 100, 4000])
def test_the_pixel_limit_holds_before_decoding(megapixels: int) -> None:
    size = (1000 * megapixels, 1000)
    header = png(size, 8, 2, b"")
    screen = b"GIF89a" + bytes([255, 255, 255, 255, 0x80, 0, 0]) + bytes(6)
    screen += b"," + bytes([0, 0, 0, 0, 255, 255, 255, 255, 0]) + b"\2\1\x44\0;"
    for data in (header, screen):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns below its own limit; pytest makes that an error
            assert "megapixels" in failure(data, ImageTooLarge)
        assert "megapixels" in failure(data, ImageTooLarge)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((1, 1), (1, 1)),
        ((1, 20000), (1, 2048)),
        ((20000, 1), (2048, 1)),
        ((2048, 2048), (2048, 2048)),
        ((3000, 1500), (2048, 1024)),
    ],
)
@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "GIF", "BMP", "TIFF"])
def test_results_are_bounded(given: tuple[int, int], expected: tuple[int, int], image_format: str) -> None:
    loaded = read_image(encode(Image.new("RGB", given, "red"), image_format))
    assert loaded.image.size == expected
    assert (loaded.width, loaded.height) == given
    assert seen(loaded.image) == RED


def test_large_jpegs_are_decoded_at_a_fraction_of_their_size() -> None:
    data = encode(quarters(4032, 3024), "JPEG", exif=exif(6))
    loaded = read_image(data)
    assert loaded.image.size == (1512, 2016)
    assert (loaded.width, loaded.height) == (3024, 4032)
    small = read_image(data, min_side=300)
    assert small.image.size == (378, 504)
    assert seen_quarters(small.image) == seen_quarters(loaded.image) == (BLUE, RED, QUARTERS[3], GREEN)


# --- the company that images keep


def test_nothing_but_pixels_comes_out(tmp_path: Path) -> None:
    position = b"N 52 31 12"
    block = exif(1, (0x010E, 2, len(position), 38), tail=position)
    for image_format in ("JPEG", "PNG", "WEBP", "TIFF"):
        data = encode(quarters(), image_format, exif=block)
        assert position in data
        opened = open_image(data)
        assert (opened.info, dict(opened.getexif())) == ({}, {})
        assert position not in encode(opened, image_format)


def test_pillow_and_python_are_left_as_they_were() -> None:
    before = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS, list(warnings.filters))
    open_image(encode(quarters(), "JPEG"))
    failure(encode(quarters(), "JPEG")[:300], BrokenImage)
    assert (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before


def test_a_lack_of_memory_is_not_called_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(image: ImageFile.ImageFile) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", no_room)
    assert "not enough memory" in failure(encode(quarters(), "PNG"), ImageTooLarge)


def test_threads_do_not_disturb_each_other(photo: Image.Image) -> None:
    sources = [encode(photo, name) for name in FORMATS] * 6
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(open_image, sources))
    assert all(
        np.array_equal(np.asarray(image), np.asarray(open_image(source)))
        for image, source in zip(together, sources, strict=True)
    )
