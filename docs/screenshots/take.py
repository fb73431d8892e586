"""Take the screenshots of the README from a running service, with the example drawings.

python app.py &
python docs/screenshots/take.py http://127.0.0.1:7860
"""

from __future__ import annotations

import shutil
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "examples" / "bernese_mountain_dog.jpg"
SHOTS = {"desktop": (1280, 900, "light"), "dark": (1280, 900, "dark"), "phone": (390, 844, "light")}


def take(address: str) -> None:
    """Write desktop.png, dark.png, phone.png and compare.png beside this file."""
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or playwright.chromium.executable_path
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for name, (width, height, scheme) in SHOTS.items():
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
            page.set_default_timeout(300_000)
            page.goto(address)
            page.set_input_files("#photo input[type=file]", EXAMPLE)
            page.wait_for_selector("#answer .card.sure, #answer .card.check")
            for place in page.locator(".maps .column").all():  # pictures load when they come into view
                place.scroll_into_view_if_needed()
                place.locator("img").wait_for()
            write(page, name)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(300_000)
        page.goto(f"{address.rstrip('/')}/compare")
        page.click("#drawings")
        page.wait_for_selector("#answer .card.sure")
        page.locator("#sheets img").first.wait_for()
        for sheet in page.locator("#sheets img").all():
            sheet.scroll_into_view_if_needed()
        page.mouse.move(0, 0)
        page.evaluate("scrollTo(0, 0)")
        first = page.locator("#sheets img").first.bounding_box() or {"y": 0, "height": 900}
        write(page, "compare", round(first["y"] + first["height"]) + 24)  # further sheets look alike
        browser.close()


def write(page: Page, name: str, height: int | None = None) -> None:
    """Write the page, down to a height or the whole of it, as a PNG file, and close it."""
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(3000)  # until the bars have grown and the seconds have gone
    picture = Image.open(BytesIO(page.screenshot(full_page=True))).convert("RGB")
    picture = picture.crop((0, 0, picture.width, height or picture.height))
    # 64 levels a channel do not show, and spare a third of the file.
    picture.point([round(level * 63 / 255) * 255 // 63 for level in range(256)] * 3).save(
        HERE / f"{name}.png", optimize=True
    )
    page.close()


if __name__ == "__main__":
    take(sys.argv[1])
