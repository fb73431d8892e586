"""Take the screenshots, of the example pictures and what is made of them, from a running service.

python app.py &
python docs/screenshots/take.py http://127.0.0.1:7860 [name ...]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from base64 import b64encode
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageFilter
from playwright.sync_api import Browser, Page, sync_playwright

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
SIZES = {"desktop": (1280, 720), "phone": (390, 844)}
PATIENCE = 120_000  # milliseconds
QUALITY = 82


def answer(name: str) -> Callable[[Page, Path], None]:
    """Ask about a picture, and wait for the answer and its heatmaps."""

    def ask(page: Page, folder: Path) -> None:
        page.set_input_files("[data-part=choose]", folder / name)
        page.wait_for_function("document.querySelectorAll('#maps figure img').length > 2")

    return ask


def maps(page: Page, folder: Path) -> None:
    """The heatmaps of an answer."""
    answer("beagle.jpg")(page, folder)
    page.evaluate("document.querySelector('#maps').scrollIntoView()")


def crop(page: Page, folder: Path) -> None:
    """The frame that is proposed for a closer look."""
    answer("beagle.jpg")(page, folder)
    page.get_by_role("button", name="Crop").click()


def cropped(page: Page, folder: Path) -> None:
    """The answer for a part, with the one before."""
    crop(page, folder)
    page.get_by_role("button", name="Look again").click()
    page.locator("[data-part=now]").wait_for()
    page.wait_for_function("document.querySelectorAll('#maps figure img').length > 2")


def compared(page: Page, folder: Path) -> None:
    """A comparison of the models."""
    page.get_by_role("button", name="Or try our drawings").click()
    page.locator(".photo figure img").nth(5).wait_for()


def kept(page: Page, folder: Path) -> None:
    """The picture that an answer is kept as."""
    answer("golden_retriever.jpg")(page, folder)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as a picture").click()
    data = b64encode(Path(download.value.path()).read_bytes()).decode()
    page.set_content(f'<body style="margin: 0"><img src="data:image/jpeg;base64,{data}" width="100%">')


def nothing(page: Page, folder: Path) -> None:
    """The page as it opens."""


# By file name: the size, the color scheme, the page, and what to do there.
SHOTS: dict[str, tuple[str, str, str, Callable[[Page, Path], None]]] = {
    "start": ("phone", "light", "", nothing),
    "phone": ("phone", "light", "", answer("beagle.jpg")),
    "phone-dark": ("phone", "dark", "", answer("beagle.jpg")),
    "desktop": ("desktop", "light", "", answer("beagle.jpg")),
    "desktop-dark": ("desktop", "dark", "", answer("beagle.jpg")),
    "group": ("phone", "light", "", answer("group.jpg")),
    "unknown": ("phone", "light", "", answer("unknown.jpg")),
    "outside": ("phone", "light", "", answer("cat.jpg")),
    "poor": ("phone", "light", "", answer("poor.jpg")),
    "outside-desktop": ("desktop", "light", "", answer("cat.jpg")),
    "maps": ("phone", "light", "", maps),
    "maps-desktop": ("desktop", "light", "", maps),
    "crop": ("phone", "light", "", crop),
    "cropped": ("desktop", "light", "", cropped),
    "known": ("phone", "light", "known", nothing),
    "kept": ("desktop", "light", "", kept),
    "compare": ("desktop", "light", "compare", compared),
}


def prepare(folder: Path) -> None:
    """Copy the examples, and make of them what the models are less sure of."""
    for path in EXAMPLES.glob("*.jpg"):
        shutil.copy(path, folder)
    for name, source in (("group", "husky"), ("unknown", "bernese_mountain_dog")):
        with Image.open(EXAMPLES / f"{source}.jpg") as photo:
            photo.convert("L").save(folder / f"{name}.jpg")
    with Image.open(EXAMPLES / "beagle.jpg") as photo:
        photo.filter(ImageFilter.GaussianBlur(6)).save(folder / "poor.jpg")


def shoot(browser: Browser, address: str, folder: Path, name: str) -> None:
    """Write one screenshot beside this file."""
    size, scheme, place, act = SHOTS[name]
    width, height = SIZES[size]
    page = browser.new_page(
        viewport={"width": width, "height": height},
        color_scheme=scheme,  # type: ignore[arg-type]
        has_touch=size == "phone",
        is_mobile=size == "phone",
        device_scale_factor=2 if size == "phone" else 1,
    )
    page.set_default_timeout(PATIENCE)
    page.goto(f"{address.rstrip('/')}/{place}")
    page.locator("h1").wait_for()
    act(page, folder)
    page.mouse.move(0, 0)
    page.wait_for_timeout(1500)  # until pictures are drawn and scrolling has ended
    picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
    picture.save(HERE / f"{name}.jpg", quality=QUALITY, optimize=True)
    page.close()


def take(address: str, *names: str) -> None:
    """Take some of the screenshots, or all of them."""
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as made:
        prepare(Path(made))
        path = shutil.which("chromium") or playwright.chromium.executable_path
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for name in names or SHOTS:
            shoot(browser, address, Path(made), name)
        browser.close()


if __name__ == "__main__":
    take(*sys.argv[1:])
