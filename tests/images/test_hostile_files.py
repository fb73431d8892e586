"""Files cut at every tenth, altered bit by bit, under wrong names, or two kinds at once."""

from __future__ import annotations

import os
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pawmatch.errors import BrokenImage, ImageError, ImageUnreadable, UnsupportedFormat
from pawmatch.images import open_image, read_image
from tests.fuzz.seeds import seeds
from tests.support.pictures import (
    QUARTERS,
    assert_sentence,
    encode,
    failure,
    png_chunk,
    quarters,
    seen_quarters,
)

SEEDS = seeds()


def test_every_seed_opens() -> None:
    for name, data in SEEDS.items():
        assert min(open_image(data).size) >= 4, name


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_files_cut_at_every_tenth_are_refused_or_lack_only_what_is_not_needed(name: str) -> None:
    data = SEEDS[name]
    whole = open_image(data)
    for tenth in range(10):
        part = data[: tenth * len(data) // 10]
        try:
            opened = open_image(part)
        except ImageError as exc:
            assert_sentence(exc)
        else:
            # A later frame, or what follows the picture, may be missing; the picture itself may not.
            assert opened.tobytes() == whole.tobytes()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(SEEDS)),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=40),
)
def test_flipped_bits_give_an_image_or_one_sentence(name: str, flips: list[tuple[float, int]]) -> None:
    data = bytearray(SEEDS[name])
    for place, bit in flips:
        data[int(place * len(data))] ^= 1 << bit
    opens_or_says_why(bytes(data))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    start=st.sampled_from([data[:16] for data in SEEDS.values()] + [b"", b"RIFF", b"\0\0\0 ftypavif"]),
    rest=st.binary(max_size=400),
)
def test_any_bytes_behind_a_known_start_give_an_image_or_one_sentence(start: bytes, rest: bytes) -> None:
    opens_or_says_why(start + rest)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=40)
)
def test_any_name_is_a_name(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    if name in (".", "..") or len(name.encode()) > 250:
        return
    folder = tmp_path_factory.getbasetemp() / "names"
    folder.mkdir(exist_ok=True)
    path = folder / name
    for data in (SEEDS["plain.png"], b"\1\2\3\4" * 20):
        path.write_bytes(data)
        opens_or_says_why(path)
    path.unlink()


def opens_or_says_why(source: bytes | Path) -> None:
    try:
        image = open_image(source)
    except ImageError as exc:
        assert_sentence(exc)
    else:
        assert image.mode == "RGB"
        assert max(image.size) <= 2048


# --- names and kinds


@pytest.mark.parametrize(
    "name", ["dog", "dog.heic", "dog.svg", "dog.jpg.exe", ".jpg", "-rf", "a\nb", "<b>.png"]
)
@pytest.mark.parametrize(
    "seed", ["plain.jpg", "plain.png", "plain.gif", "exact.webp", "plain.bmp", "plain.avif"]
)
def test_the_content_counts_not_the_name(tmp_path: Path, seed: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(SEEDS[seed])
    assert read_image(path).image.size in {(64, 48), (48, 64)}


def test_a_file_of_two_kinds_is_the_picture_that_it_starts_as() -> None:
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("run.sh", "echo")
    script = b"<script>alert(1)</script><?php system('id'); ?>"
    jpeg, png, gif = (encode(quarters(), kind) for kind in ("JPEG", "PNG", "GIF"))
    for data in (
        jpeg + archive.getvalue(),
        png + archive.getvalue(),
        gif + b"<html>" + script,
        png[:33] + png_chunk(b"tEXt", b"a\0" + script) + png[33:],
        jpeg[:2] + b"\xff\xfe" + (2 + len(script)).to_bytes(2) + script + jpeg[2:],
        encode(quarters(), "BMP") + script,
        encode(quarters(), "WEBP", lossless=True, exif=script),
    ):
        opened = open_image(data)
        assert seen_quarters(opened) == QUARTERS
        # What goes on from here is made of pixels: nothing of the other kind survives.
        assert b"script" not in encode(opened, "PNG")
    for data in (archive.getvalue() + jpeg, script + png, b"%PDF-1.7\n" + jpeg, b"GIF" + gif):
        failure(data, UnsupportedFormat)
    # A GIF whose header doubles as the start of a script.
    failure(b"GIF89a/*" + script + b"*/=1;", BrokenImage)


def test_links_are_followed_to_files_only(tmp_path: Path) -> None:
    picture, link = tmp_path / "real.png", tmp_path / "link.png"
    picture.write_bytes(SEEDS["plain.png"])
    link.symlink_to(picture)
    assert open_image(link).size == (64, 48)
    for target, what in (
        (tmp_path, "folder"),
        (Path("/dev/zero"), "device"),
        (Path("/dev/urandom"), "device"),
    ):
        link.unlink()
        link.symlink_to(target)
        assert what in failure(link, ImageUnreadable)


def test_a_file_without_permission_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(SEEDS["plain.png"])

    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", os.fspath(path))

    monkeypatch.setattr(Path, "open", refuse)  # root, who runs tests in a container, may read anything
    assert "permission" in failure(path, ImageUnreadable)


def test_drawings_and_nothing_say_what_to_do() -> None:
    assert "export it as PNG" in failure(b'<?xml version="1.0"?><svg onload="x()"></svg>', UnsupportedFormat)
    assert "is empty" in failure(b"", UnsupportedFormat)
