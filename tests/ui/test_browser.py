"""The page in a real Chromium: what a visitor does, sees and hears."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

pytestmark = pytest.mark.browser

ANSWER = "#answer .card.sure, #answer .card.check"
MAPS = ("cnn", "cnn_transformer", "cnn_transformer_mfe")
PATIENCE = 60_000  # milliseconds; a busy computer runs the models slowly
# No sandbox: tests often run as root in a container. The rest keeps the browser from calling home.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
)


def find_chromium(own: str) -> str:
    """The path of a Chromium: the one that Playwright installed, or the system's."""
    found = [own] if Path(own).is_file() else []
    found += filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    if found:
        return found[0]
    reason = "there is no Chromium; run `playwright install chromium` or install one with the system"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        path = find_chromium(playwright.chromium.executable_path)
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser, service: str) -> Iterator[Callable[..., Page]]:
    """Call to open the page in a window of its own; afterwards nothing may have gone wrong in any."""
    troubles: list[str] = []
    contexts = []

    def open_page(width: int = 1280, height: int = 900, scheme: str = "light", path: str = "") -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,  # type: ignore[arg-type]
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: troubles.append(f"script error: {error}"))
        page.on(
            "console",
            lambda line: troubles.append(f"console: {line.text}") if line.type == "error" else None,
        )
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((service, "data:", "blob:"))
                else troubles.append(f"called another server: {request.url}")
            ),
        )
        page.goto(f"{service}{path}")
        expect(page.locator("#answer .card.empty")).to_be_visible(timeout=PATIENCE)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory, photo_maker: Callable[[], Image.Image]) -> Path:
    path = tmp_path_factory.mktemp("photos") / "dog.png"
    photo_maker().save(path)
    return path


def choose(page: Page, path: Path) -> None:
    page.set_input_files("#photo input[type=file]", path)


def task(page: Page, title: str) -> Locator:
    return page.locator("#task label", has_text=re.compile(rf"^\s*{title}\s*$"))


def await_answer(page: Page) -> None:
    expect(page.locator(ANSWER)).to_be_visible(timeout=PATIENCE)
    for name in MAPS:
        page.locator(f"#map-{name}").scroll_into_view_if_needed()
        expect(page.locator(f"#map-{name} img")).to_be_visible(timeout=PATIENCE)


def sideways(page: Page) -> int:
    width: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return width


def test_a_photo_gets_a_verdict_and_three_described_heatmaps(
    visit: Callable[..., Page], picture: Path
) -> None:
    page = visit()
    title = page.get_by_role("heading", name="Where each model looked")
    before = title.bounding_box()
    choose(page, picture)
    await_answer(page)
    verdict = page.locator("#answer .verdict")
    expect(verdict).to_have_text(re.compile(r"^(Probably|Perhaps) an? .+\s%$"))
    assert page.locator("#answer .bars li").count() == 5
    expect(page.locator("#answer .bars .value").first).to_have_text(re.compile(r"^(under |over )?\d+\s%$"))
    for name in MAPS:
        alt = page.locator(f"#map-{name} img").get_attribute("alt")
        assert alt
        assert alt.startswith("The photo with")
        expect(page.locator(f"#caption-{name} .own")).to_have_text(re.compile(r"\s%$"))
    assert page.locator("#photo img").get_attribute("alt") == "The photo that you chose"
    after = title.bounding_box()
    assert before
    assert after
    assert abs(after["y"] + page.evaluate("scrollY") - before["y"]) < 2, "the page jumped"


def test_another_answer_can_be_explained_in_other_colours(visit: Callable[..., Page], picture: Path) -> None:
    page = visit()
    choose(page, picture)
    await_answer(page)
    picture_of_first = page.locator("#map-cnn img").get_attribute("src")
    field = page.locator("#label input")
    field.click()
    field.fill("maltese")
    page.get_by_role("option", name="Maltese").click()
    expect(page.locator("#explained")).to_contain_text("speak for a Maltese", timeout=PATIENCE)
    expect(page.locator("#map-cnn img")).to_have_attribute("alt", re.compile("Maltese"))

    # The models need not run for this, and the answer stays as it is.
    verdict = page.locator("#answer .verdict").inner_text()
    source = page.locator("#map-cnn img").get_attribute("src")
    ramp = page.locator("#legend .ramp").get_attribute("style")
    page.locator("#colormap label", has_text="Viridis").click()
    expect(page.locator("#map-cnn img")).not_to_have_attribute("src", source or "", timeout=PATIENCE)
    expect(page.locator("#legend .ramp")).not_to_have_attribute("style", ramp or "", timeout=PATIENCE)
    source = page.locator("#map-cnn img").get_attribute("src")
    page.locator("#strength input[type=range]").press("End")
    expect(page.locator("#map-cnn img")).not_to_have_attribute("src", source or "", timeout=PATIENCE)
    assert page.locator("#answer .verdict").inner_text() == verdict
    assert picture_of_first


def test_each_choice_of_a_label_is_explained_once(visit: Callable[..., Page], picture: Path) -> None:
    page = visit()
    choose(page, picture)
    await_answer(page)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "queue/join" in request.url else None)
    field = page.locator("#label input")
    field.click()
    field.press("Tab")  # left as it was: nothing to explain anew
    page.wait_for_timeout(500)
    assert asked == []
    for number, name in enumerate(("Maltese", "Boxer", "Beagle", "Maltese"), 1):
        field.click()
        # The title may name this label already, as the first answer does: only the request tells.
        with page.expect_request("**/queue/join*"):
            page.get_by_role("option", name=name).click()
        expect(page.locator("#explained")).to_contain_text(f"speak for a {name}", timeout=PATIENCE)
        assert len(asked) == number


def test_an_example_works_by_keyboard_and_the_task_can_be_changed(visit: Callable[..., Page]) -> None:
    page = visit()
    expect(page.get_by_role("button", name="Water lilies")).to_be_hidden()
    example = page.get_by_role("button", name="A dog in the grass")
    example.focus()
    example.press("Enter")
    await_answer(page)

    task(page, "Artist").click()
    expect(page.get_by_role("button", name="Water lilies")).to_be_visible(timeout=PATIENCE)
    expect(page.locator("#label input")).to_have_value(
        re.compile("Monet|Goya|Rembrandt|van Gogh|Sisley|Degas"), timeout=PATIENCE
    )
    page.get_by_text("Details", exact=True).click()
    download = page.get_by_role("link", name="Download the answer as JSON")
    expect(download).to_have_attribute("download", "pawmatch-artist.json", timeout=PATIENCE)

    page.locator("#photo").get_by_role("button", name=re.compile("clear|remove", re.I)).click()
    expect(page.locator("#answer .card.empty")).to_contain_text("a painting", timeout=PATIENCE)
    expect(page.locator("#map-cnn img")).to_have_count(0)


def test_a_file_that_is_no_picture_is_explained_in_place(visit: Callable[..., Page], tmp_path: Path) -> None:
    page = visit()
    text = tmp_path / "notes.jpg"
    text.write_text("no picture")
    choose(page, text)
    alert = page.get_by_role("alert").filter(has_text="That did not work")
    expect(alert).to_be_visible(timeout=PATIENCE)
    assert str(tmp_path) not in alert.inner_text()


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 720)])
def test_the_answer_comes_into_view(
    visit: Callable[..., Page], picture: Path, width: int, height: int
) -> None:
    page = visit(width, height)
    choose(page, picture)
    expect(page.locator(ANSWER)).to_be_visible(timeout=PATIENCE)
    expect(page.locator("#answer .verdict")).to_be_in_viewport(ratio=1)
    # From further down, too: the next answer is scrolled to.
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(page.locator("#answer .verdict")).not_to_be_in_viewport()
    choose_again = task(page, "Artist")
    choose_again.evaluate("element => element.querySelector('input').click()")
    expect(page.locator("#answer .bars")).to_contain_text("Rembrandt", timeout=PATIENCE)
    expect(page.locator("#answer .verdict")).to_be_in_viewport(ratio=1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_follows_the_colour_scheme(
    visit: Callable[..., Page], picture: Path, scheme: str
) -> None:
    page = visit(390, 844, scheme)
    assert sideways(page) <= 0
    choose(page, picture)
    await_answer(page)
    assert sideways(page) <= 0
    for selector in (
        "#answer .verdict",
        "#answer .quiet",
        ".colophon p",
        "#caption-cnn h3",
        ".review summary",
    ):
        if page.locator(selector).count():
            assert contrast(page, selector) >= 4.5, selector
    light = sum(map(int, re.findall(r"\d+", style(page, "body", "backgroundColor"))[:3])) > 3 * 128
    assert light == (scheme == "light")


def style(page: Page, selector: str, name: str) -> str:
    value: str = page.locator(selector).first.evaluate(f"element => getComputedStyle(element).{name}")
    return value


def contrast(page: Page, selector: str) -> float:
    """WCAG 2.2 contrast of an element's text and the first opaque background behind it."""
    colours = page.locator(selector).first.evaluate(
        """element => {
          const text = getComputedStyle(element).color;
          let back = element, fill = "";
          do { fill = getComputedStyle(back).backgroundColor; back = back.parentElement; }
          while (back && /, 0\\)$|^transparent$/.test(fill));
          return [text, fill];
        }"""
    )
    levels = []
    for colour in colours:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        levels.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(levels) + 0.05) / (min(levels) + 0.05)


def test_everything_can_be_reached_with_the_tab_key(visit: Callable[..., Page], picture: Path) -> None:
    page = visit()
    choose(page, picture)
    await_answer(page)
    page.evaluate("scrollTo(0, 0); document.activeElement.blur()")
    reached: list[str] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        place = page.evaluate(
            "() => { const e = document.activeElement; const named = e.closest('[id]:not([id^=html-])');"
            " return (named ? named.id : '') + ' ' + e.textContent.trim().slice(0, 20) }"
        )
        reached.append(place)
        if "Use via API" in place:
            break
    wanted = ["task", "photo", "examples-breed", "label", "colormap", "strength", "map-cnn", "Details"]
    text = "\n".join(reached)
    # From the start of a line: the link to this page has a "photo" in its name, too.
    positions = [f"\n{text}".replace("\n ", "\n").find(f"\n{name}") for name in wanted]
    assert -1 not in positions, reached
    assert positions == sorted(positions), reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_photos_are_compared_on_a_phone_too(
    visit: Callable[..., Page], picture: Path, tmp_path: Path, scheme: str
) -> None:
    page = visit(390, 844, scheme, "compare")
    text = tmp_path / "notes.jpg"
    text.write_text("no picture")
    page.set_input_files("#photos input[type=file]", [picture, text, picture])
    field = page.locator("#truth input")
    field.click()
    field.fill("maltese")
    page.get_by_role("option", name="Maltese").click()
    button = page.get_by_role("button", name="Compare")
    expect(button).to_be_enabled()
    button.click()
    expect(page.locator("#answer .verdict")).to_be_in_viewport(timeout=PATIENCE)
    card = page.locator("#answer .card.sure")
    expect(card.locator(".verdict")).to_have_text(
        re.compile(r"^The three models (agree on both|never all agree on these 2) photos$"), timeout=PATIENCE
    )
    expect(card.locator(".refusals li")).to_have_text(re.compile(r"^notes\.jpg: .+\.$"))
    expect(card.locator("table.numbers").first).to_contain_text("of 2")
    assert page.get_by_role("img", name=re.compile(r"^CNN: \d photo")).count() == 1
    assert page.locator("#tables").get_by_role("row", name=re.compile("dog.png")).count() == 2
    expect(page.locator("#sheets img")).to_have_count(2, timeout=PATIENCE)
    for sheet in page.locator("#sheets img").all():
        sheet.scroll_into_view_if_needed()
        expect(sheet).to_be_visible()
        assert (sheet.get_attribute("alt") or "").startswith("dog.png. CNN: ")
    expect(page.get_by_role("link", name="Download the comparison as JSON")).to_be_visible()
    assert sideways(page) <= 0
    texts = (".numbers th", ".numbers td", ".refusals li", ".photos small", ".histogram i", ".scale span")
    for selector in texts:
        assert contrast(page, f"{selector} >> visible=true") >= 4.5, selector


def test_the_pages_lead_to_each_other_and_drawings_can_be_compared(visit: Callable[..., Page]) -> None:
    page = visit()
    page.get_by_role("link", name="Compare").click()
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_role("alert").filter(has_text="Please choose some photos first.")).to_be_visible()
    task(page, "Artist").click()
    expect(page.locator("#answer")).to_contain_text("photos of paintings")
    page.get_by_role("button", name="Or try our drawings").click()
    expect(page.locator("#answer .verdict")).to_contain_text("on this photo", timeout=PATIENCE)
    expect(page.locator(".photos .file")).to_contain_text("lilies.jpg")
    page.get_by_role("link", name="One photo").click()
    expect(page.locator("#photo")).to_be_visible()
