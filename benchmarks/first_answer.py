"""From choosing a photo on the page to reading its name, against a script that uploads and asks /predict.

    python app.py &
    python -m benchmarks.first_answer http://127.0.0.1:7860 [--photo FILE]

Both get the same photo, each time with another pixel, since one that comes twice is looked at once. The page
runs in Chromium at a phone's size; the script is gradio_client.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

from gradio_client import Client, handle_file
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from benchmarks.side_by_side import Result, arguments

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCRIPT, PAGE = "upload and /predict", "the page, to the name"


def variations(photo: Path, folder: Path) -> Iterator[Path]:
    """Copies of a photo that differ in one pixel."""
    with Image.open(photo) as image:
        picture = image.convert("RGB")
    for number in count():
        picture.putpixel((number % picture.width, 0), (number % 256, 0, 0))
        path = folder / f"{number}.jpg"
        picture.save(path, quality=90)
        yield path


def await_name(page: Page, path: Path) -> None:
    """Choose a photo on the page and wait until its name is there to read."""
    page.set_input_files("[data-part=choose]", path)
    named = "#answer .card:is(.sure, .check) .headline:not([data-old])"
    page.wait_for_function("named => document.querySelector(named)", arg=named)  # asks with every frame


def main() -> None:
    """Print both times and their ratio."""
    options = arguments(__doc__, rounds=15)
    options.add_argument("address")
    options.add_argument("--photo", type=Path, default=EXAMPLES / "beagle.jpg")
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        photos = variations(args.photo, Path(folder))
        path = shutil.which("chromium") or playwright.chromium.executable_path
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.goto(args.address)
        page.locator("h1").wait_for()
        seconds: dict[str, list[float]] = {SCRIPT: [], PAGE: []}
        with closing(Client(args.address, verbose=False)) as client:
            for _ in range(args.rounds + 1):
                photo = next(photos)
                started = time.perf_counter()
                client.predict(handle_file(photo), api_name="/predict")
                seconds[SCRIPT].append(time.perf_counter() - started)
                page.evaluate("document.querySelector('#answer .headline')?.setAttribute('data-old', '')")
                photo = next(photos)
                started = time.perf_counter()
                await_name(page, photo)
                seconds[PAGE].append(time.perf_counter() - started)
                # The heatmaps, which come afterwards, must not run beside the script.
                page.wait_for_function("document.querySelectorAll('#maps figure img').length > 2")
        browser.close()
    result = Result({name: tuple(values[1:]) for name, values in seconds.items()})  # the first warm up
    print(result.table(SCRIPT))
    if args.json:
        result.write_json(args.json)


if __name__ == "__main__":
    main()
