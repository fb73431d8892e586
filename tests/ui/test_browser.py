"""The page in a real Chromium: what a visitor does, sees and hears."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from pawmatch.classifier import Classifier
from pawmatch.errors import ImageNotFound
from pawmatch.images import ImageFile
from pawmatch.labels import ENGLISH
from pawmatch.results import Group, LookAlike, Prediction, Review, ReviewReason, Verdict
from pawmatch.ui.handlers import Handlers
from pawmatch.ui.speech import texts

pytestmark = pytest.mark.browser

ANSWER = "#answer .card.sure, #answer .card.check"
PATIENCE = 120_000  # milliseconds; a busy computer runs the models slowly
# What Gradio's client says of streams that end because a visitor goes to another page.
LEAVING = ("AbortError", "errored out", "network error")
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

    def open_page(
        width: int = 1280,
        height: int = 900,
        scheme: str = "light",
        path: str = "",
        touch: bool = False,
        locale: str = "en-US",
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,  # type: ignore[arg-type]
            has_touch=touch,
            locale=locale,
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: troubles.append(f"script error: {error}"))
        page.on(
            "console",
            lambda line: (
                troubles.append(f"console: {line.text}")
                if line.type == "error" and not any(text in line.text for text in LEAVING)
                else None
            ),
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
        expect(page.locator(".colophon")).to_be_visible()
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
    page.set_input_files("[data-part=choose]", path)


def task(page: Page, title: str) -> Locator:
    return page.locator("#task label", has_text=re.compile(rf"^\s*{title}\s*$"))


def await_answer(page: Page) -> None:
    expect(page.locator(ANSWER)).to_be_visible()
    expect(page.locator("#maps figure img")).to_have_count(3)


def sideways(page: Page) -> int:
    width: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return width


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The sizes of the photos that the page asks about, as they come."""
    sizes: list[tuple[int, int]] = []
    look = Handlers.look

    def noted(handlers: Handlers, image: Any, *arguments: Any) -> Any:
        with Image.open(image["path"]) as photo:
            sizes.append(photo.size)
        return look(handlers, image, *arguments)

    monkeypatch.setattr(Handlers, "look", noted)
    return sizes


LARGEST = """() => {
  const size = (each) => each.checkVisibility() ? parseFloat(getComputedStyle(each).fontSize) : 0;
  return [...document.querySelectorAll("h1, h2, h3, p, b")].sort((a, b) => size(b) - size(a))[0].className;
}"""
VERDICTS = {
    "answer": {},
    "group": {"group": Group("scent hound", ("Beagle", "Collie"), 0.9)},
    "unknown": {},
    "outside": {"looks_like": (LookAlike("tabby cat", 0.4),)},
    "poor_image": {},
}


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 720)])
def test_the_name_is_above_the_fold_for_every_verdict(
    visit: Callable[..., Page], picture: Path, width: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = visit(width, height)
    answer = Classifier.to_prediction
    reasons = tuple(ReviewReason("close_call", f"Reason {number} to check.") for number in range(4))
    for code, given in VERDICTS.items():

        def told(*arguments: Any, code: str = code, given: Any = given) -> Prediction:
            prediction = answer(*arguments)
            verdict = Verdict(code, f"The verdict {code} in words")
            return replace(prediction, verdict=verdict, review=Review(True, reasons, 0.4), **given)

        monkeypatch.setattr(Classifier, "to_prediction", told)
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        choose(page, picture)
        expect(page.locator("#answer .verdict")).to_contain_text(f"The verdict {code}")
        name = page.locator("#answer .headline")
        expect(name).to_be_in_viewport(ratio=1)
        largest = page.evaluate(LARGEST)
        assert largest == "headline"
        # The flag is quiet, and its reasons one tap away.
        expect(page.get_by_text("Reason 3 to check.")).to_be_hidden()
        page.locator(".review summary").click()
        expect(page.get_by_text("Reason 3 to check.")).to_be_visible()
        assert sideways(page) <= 0


def test_the_answer_comes_before_the_heatmaps_and_nothing_jumps(
    visit: Callable[..., Page], picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, paint = threading.Event(), Handlers.paint
    monkeypatch.setattr(Handlers, "paint", lambda *arguments: seen.wait(240) and paint(*arguments))
    page = visit(390, 844)
    choose(page, picture)
    expect(page.locator(ANSWER)).to_be_visible()
    expect(page.locator("#maps .wait")).to_have_count(3)
    places = ("#answer .headline", "#answer .bars", "#maps .strip", "#why", ".colophon")
    before = [
        page.locator(place).evaluate("(each) => each.getBoundingClientRect().top") for place in places[:3]
    ]
    seen.set()
    expect(page.locator("#maps figure img")).to_have_count(3)
    after = [
        page.locator(place).evaluate("(each) => each.getBoundingClientRect().top") for place in places[:3]
    ]
    assert after == before


def test_a_crop_is_asked_about_by_keyboard_and_by_touch(
    visit: Callable[..., Page], picture: Path, looks: list[tuple[int, int]]
) -> None:
    page = visit(390, 844, touch=True)
    choose(page, picture)
    await_answer(page)
    page.get_by_role("button", name="Crop").tap()
    for key in ("Shift+ArrowLeft", "Shift+ArrowUp", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    expect(page.locator(".before")).to_be_visible()
    await_answer(page)
    whole, part = looks
    assert part[0] < whole[0]
    assert part[1] < whole[1]
    name = page.locator("#answer .headline").inner_text().replace("\n", " ")
    expect(page.locator("[data-part=now]")).to_have_text(name)

    page.get_by_role("button", name="Back to the whole photo").tap()
    expect(page.locator(".before")).to_be_hidden()
    await_answer(page)
    page.get_by_role("button", name="Crop").tap()
    corner = page.locator("[data-corner=se]").bounding_box()
    assert corner
    drag(page, corner["x"] + 22, corner["y"] + 22, -100, -60)
    page.get_by_role("button", name="Look again").tap()
    expect(page.locator(".before")).to_be_visible()
    assert looks[2] == whole
    assert looks[3][0] < whole[0] * 0.7


def drag(page: Page, x: float, y: float, right: float, down: float) -> None:
    """Move a finger."""
    touch = page.context.new_cdp_session(page)
    for kind, share in (("touchStart", 0.0), ("touchMove", 0.5), ("touchMove", 1.0), ("touchEnd", None)):
        if share is None:
            page.wait_for_timeout(
                400
            )  # a finger lifted in full speed makes a fling, which swallows the next tap
        points = [] if share is None else [{"x": x + share * right, "y": y + share * down}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def paste(page: Page, script: str, *arguments: Any) -> None:
    page.evaluate(
        """([script, given]) => {
          const data = new DataTransfer();
          new Function("data", "given", script)(data, given);
          document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
        }""",
        [script, list(arguments)],
    )


def test_a_question_is_answered_by_keyboard_and_by_touch_and_taken_back(
    visit: Callable[..., Page], picture: Path, looks: list[tuple[int, int]]
) -> None:
    page = visit(390, 844, touch=True)
    choose(page, picture)
    await_answer(page)
    shown, question = page.locator("#answer .card"), page.locator("#answer .ask h3")
    before, first = shown.inner_text(), question.inner_text()
    buttons = page.locator("#answer .ask button")
    assert 3 <= buttons.count() <= 6
    expect(buttons.last).to_have_text("not sure")
    buttons.first.focus()
    page.keyboard.press("Enter")
    chips = page.locator("#answer .facts button")
    expect(chips).to_have_count(1)
    # Who answers by keyboard goes on at the next question, and sees what has changed.
    expect(page.locator("#answer :is(.ask, .facts) button").first).to_be_focused()
    expect(page.locator("#answer .headline")).to_be_in_viewport(ratio=1)
    assert shown.inner_text() != before
    assert first not in shown.inner_text()
    if buttons.count():
        buttons.last.tap()
        expect(chips).to_have_count(2)
        expect(chips.last).to_contain_text("not sure")
    assert sideways(page) <= 0
    for button in [*chips.all(), *buttons.all(), *page.locator(".words button").all()]:
        box = button.bounding_box()
        assert box is not None
        assert box["height"] >= 44
    while chips.count():
        left = chips.count() - 1
        chips.last.tap()
        expect(chips).to_have_count(left)
    expect(question).to_have_text(first)
    assert shown.inner_text() == before
    assert len(looks) == 1


def test_a_picture_can_be_pasted(
    visit: Callable[..., Page], picture: Path, looks: list[tuple[int, int]]
) -> None:
    page = visit()
    content = list(picture.read_bytes())
    paste(
        page, 'data.items.add(new File([new Uint8Array(given[0])], "a.png", { type: "image/png" }))', content
    )
    await_answer(page)
    assert looks == [(240, 180)]


def test_a_link_can_be_pasted_and_is_refused_in_place(
    visit: Callable[..., Page], picture: Path, looks: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(handlers: Handlers, address: str) -> ImageFile:
        if "inside" in address:
            raise ImageNotFound("There is no public web server at this address.")
        return ImageFile(picture.read_bytes(), "PNG")

    monkeypatch.setattr(Handlers, "fetch", fetch)
    page = visit()
    paste(page, 'data.setData("text/plain", given[0])', "https://inside.example/dog.png")
    alert = page.get_by_role("alert").filter(has_text="no public web server")
    expect(alert).to_be_visible()
    field = page.get_by_label("Link to a picture")
    field.fill("https://site.example/dog.png")
    field.press("Enter")
    await_answer(page)
    expect(alert).to_be_hidden()
    assert looks == [(240, 180)]


def test_a_large_photo_is_sent_small_and_upright(
    visit: Callable[..., Page], tmp_path: Path, looks: list[tuple[int, int]]
) -> None:
    page = visit()
    large = Image.new("RGB", (6000, 3000), "tan")
    exif = large.getexif()
    exif[0x0112] = 6  # a phone held upright: the sensor's picture lies on its side
    large.save(tmp_path / "large.jpg", exif=exif)
    choose(page, tmp_path / "large.jpg")
    await_answer(page)
    assert looks == [(1024, 2048)]


def test_the_photo_is_there_again_after_another_page(visit: Callable[..., Page], picture: Path) -> None:
    page = visit()
    task(page, "Artist").click()
    choose(page, picture)
    await_answer(page)
    name = page.locator("#answer .headline").inner_text()
    page.get_by_role("link", name="Compare").click()
    expect(page.locator("#photos")).to_be_visible()
    page.get_by_role("link", name="One photo").click()
    await_answer(page)
    expect(page.locator("#answer .headline")).to_have_text(name)
    page.get_by_role("button", name="Another photo").click()
    expect(page.get_by_role("button", name="Choose a photo")).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="Choose a photo")).to_be_visible()
    expect(page.locator("#answer")).to_be_hidden()


def test_a_bar_and_a_name_ask_for_their_heatmaps(visit: Callable[..., Page], picture: Path) -> None:
    page = visit()
    choose(page, picture)
    await_answer(page)
    second = page.locator("#answer .bars button").nth(1)
    name = second.locator(".name").inner_text()
    second.press("Enter")
    expect(page.locator("#maps figure img").first).to_have_attribute("alt", re.compile(name))
    expect(second).to_have_attribute("aria-pressed", "true")
    field = page.get_by_label("Why not another breed?")
    field.fill("maltese")
    field.press("Enter")
    expect(page.locator("#maps")).to_contain_text("speak for a Maltese")
    field.fill("Wolpertinger")
    field.press("Enter")
    assert not field.evaluate("(each) => each.checkValidity()")
    expect(page.locator("#maps")).to_contain_text("speak for a Maltese")

    # The models need not run for other colors, and the answer stays as it is.
    page.get_by_role("button", name="Display").click()
    first = page.locator("#maps figure img").first
    source, ramp = first.get_attribute("src"), page.locator(".ramp").get_attribute("style")
    page.locator("#colormap label", has_text="Viridis").click()
    expect(first).not_to_have_attribute("src", source or "")
    expect(page.locator(".ramp")).not_to_have_attribute("style", ramp or "")
    expect(first).to_have_attribute("alt", re.compile("Maltese"))


def test_an_example_works_by_keyboard_and_the_task_can_be_changed(visit: Callable[..., Page]) -> None:
    page = visit()
    example = page.get_by_role("button", name="A dog in the grass")
    example.focus()
    example.press("Enter")
    await_answer(page)
    task(page, "Artist").click()
    expect(page.get_by_role("button", name="Water lilies")).to_be_visible()
    expect(page.locator("#answer .bars")).to_contain_text("Rembrandt")
    page.get_by_role("button", name="Details").click()
    download = page.get_by_role("link", name="Download the answer as JSON")
    expect(download).to_have_attribute("download", "pawmatch-artist.json")
    page.get_by_role("button", name="Model card").click()
    figure = page.get_by_role("img", name="1. Stem")  # the models of this test are CHAE's
    expect(figure).to_be_visible()
    page.set_viewport_size({"width": 390, "height": 844})
    box = figure.bounding_box()
    assert box is not None
    assert 240 < box["width"] <= 390
    assert sideways(page) <= 0


def test_a_file_that_cannot_be_used_is_explained_in_place(visit: Callable[..., Page], tmp_path: Path) -> None:
    page = visit()
    alert = page.get_by_role("alert").filter(has_text="That did not work")
    for name, told in (("notes.jpg", ""), ("notes.pdf", "notes.pdf is no picture")):
        (tmp_path / name).write_text("no picture")
        choose(page, tmp_path / name)
        expect(alert).to_be_visible()
        expect(alert).to_contain_text(told)
        assert str(tmp_path) not in alert.inner_text()
    expect(page.get_by_role("button", name="Choose a photo")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_follows_the_color_scheme(
    visit: Callable[..., Page], picture: Path, scheme: str
) -> None:
    page = visit(390, 844, scheme)
    assert sideways(page) <= 0
    choose(page, picture)
    await_answer(page)
    assert sideways(page) <= 0
    for selector in (
        ".headline",
        ".headline .figure",
        "#answer .verdict",
        ".colophon p",
        "#maps h3",
        "#maps .quiet",
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_photos_are_compared_on_a_phone_too(
    visit: Callable[..., Page], picture: Path, tmp_path: Path, scheme: str
) -> None:
    page = visit(390, 844, scheme, "compare")
    text = tmp_path / "notes.jpg"
    text.write_text("no picture")
    page.set_input_files("#photos input[type=file]", [picture, text, picture])
    expect(page.locator("#photos li")).to_have_count(3)
    expect(page.locator("#truth-names option")).to_have_count(5)
    page.locator("#truth input").fill("maltese")
    button = page.get_by_role("button", name="Compare the models")
    expect(button).to_be_in_viewport()  # however many photos are listed
    button.click()
    card = page.locator("#answer .card.sure")
    expect(card.locator(".headline")).to_have_text(
        re.compile(r"^The 3 models (agree on all|never all agree on these) 2 photos$")
    )
    expect(card.locator(".refusals li")).to_have_text(re.compile(r"^notes\.jpg: .+\.$"))
    expect(card.locator("table.numbers").first).to_contain_text("of 2")
    assert page.get_by_role("img", name=re.compile(r"^CNN: \d+ to \d+ %: \d")).count() == 1
    expect(page.locator(".photo")).to_have_count(2)
    expect(page.locator(".photo figure img")).to_have_count(6)
    expect(page.get_by_role("link", name="Download the comparison as JSON")).to_be_visible()
    assert sideways(page) <= 0
    assert faults(page) == []


def test_the_pages_lead_to_each_other_and_drawings_can_be_compared(visit: Callable[..., Page]) -> None:
    page = visit()
    page.get_by_role("link", name="Compare models").click()
    page.get_by_role("button", name="Compare the models").click()
    expect(page.get_by_role("alert").filter(has_text="Please choose some photos first.")).to_be_visible()
    task(page, "Artist").click()
    expect(page.locator("#answer")).to_contain_text("Nothing compared yet")
    page.get_by_role("button", name="Or try our drawings").click()
    expect(page.locator("#answer .headline")).to_contain_text("on this photo", timeout=PATIENCE)
    expect(page.locator(".photo h3")).to_contain_text("lilies.jpg")
    page.get_by_role("link", name="One photo").click()
    expect(page.locator(".stage")).to_be_visible()


def faults(page: Page) -> list[str]:
    """What axe-core finds wrong with a page for those who hear it, use its keys or see it badly."""
    axe = pytest.importorskip("axe_playwright_python")
    # Gradio's own word outside every landmark, until all of its page has come.
    expect(page.locator("p.loading")).to_have_count(0)
    page.evaluate(Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    return [f"{fault['id']}: {fault['nodes'][0]['html'][:200]}" for fault in found]


def test_words_of_ones_own_become_chips_and_what_is_not_understood_is_said(
    visit: Callable[..., Page], picture: Path, looks: list[tuple[int, int]]
) -> None:
    page = visit(390, 844)
    choose(page, picture)
    await_answer(page)
    field, chips = page.get_by_label("Or in your own words"), page.locator("#answer .facts button")
    field.fill("my friend Rex")
    field.press("Enter")
    expect(page.locator("#missed")).to_contain_text("Nothing new was understood")
    expect(field).to_have_value("my friend Rex")
    expect(field).to_be_focused()
    assert faults(page) == []
    field.fill("a tiny thing, upright ears")
    page.locator(".words button").click()
    expect(chips).to_have_count(2)
    expect(page.locator("#missed")).to_have_count(0)
    assert sideways(page) <= 0
    page.get_by_role("button", name="Take back: Ears: upright").click()
    expect(chips).to_have_count(1)
    assert len(looks) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_any_page(visit: Callable[..., Page], picture: Path, scheme: str) -> None:
    page = visit(390, 844, scheme)
    assert faults(page) == []
    choose(page, picture)
    await_answer(page)
    page.locator("#answer .ask button").first.click()
    expect(page.locator("#answer .facts button")).to_have_count(1)
    for summary in page.locator("summary").all():
        summary.click()
    assert faults(page) == []
    for path in ("compare", "known"):
        assert faults(visit(1280, 720, scheme, path)) == []


# What stands in attributes is read out, or shown where there is nothing yet.
SAID = """() => {
  const names = ["aria-label", "alt", "placeholder", "title"];
  const named = [...document.querySelectorAll(names.map((name) => `[${name}]`).join())];
  const said = named.flatMap((one) => names.map((name) => one.getAttribute(name)));
  return [document.body.innerText, ...said].join("\\n");
}"""


@pytest.mark.parametrize("locale", ["de-AT", "ja"])
def test_a_page_speaks_one_language(visit: Callable[..., Page], picture: Path, locale: str) -> None:
    own = texts(locale[:2])
    english = {
        piece.strip(" .,:")
        for key, text in texts(ENGLISH).items()
        for piece in re.split(r"\{\w+\}", text)
        if piece not in own.get(key, "")
    }
    pages = [visit(path=path, locale=locale) for path in ("", "known", "compare")]
    choose(pages[0], picture)
    await_answer(pages[0])
    expect(pages[1].locator(".known li").first).to_be_visible()
    for page, key in zip(pages, ("answer.confidence", "known.search", "compare.how"), strict=True):
        said = page.evaluate(SAID)
        assert re.split(r"\{", own[key])[0] in said
        assert [text for text in english if len(text) > 8 and text in said] == []
        assert not re.search("Use via API|Drop Image|Click to|Loading|Settings", said)
        assert page.evaluate("document.documentElement.lang") == locale[:2]
    page.get_by_role("link", name="Français").click()
    expect(page.get_by_text(texts("fr")["page.privacy"])).to_be_visible()  # chosen, whatever the browser's is
    page.goto(pages[1].url)
    expect(page.get_by_text(texts("fr")["page.privacy"])).to_be_visible()


def test_classes_are_searched_for_by_any_name(visit: Callable[..., Page]) -> None:
    page = visit(path="known", locale="de")
    rows = page.locator(".known li:visible")
    expect(rows).to_have_count(5)
    page.get_by_label("Suchen").fill("maltese")
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("Malteser")
    expect(page.locator("output")).to_have_text("1")
    link = rows.first.get_by_role("link")
    assert (link.get_attribute("href") or "").startswith(
        "https://de.wikipedia.org/w/index.php?search=Malteser"
    )
    assert link.get_attribute("rel") == "noopener noreferrer"
    task(page, "Maler").click()
    expect(page.locator(".known")).to_contain_text("Claude Monet")


def test_an_answer_is_kept_as_a_picture_and_remembered_only_if_asked(
    visit: Callable[..., Page], picture: Path
) -> None:
    page = visit(390, 844)
    choose(page, picture)
    await_answer(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as a picture").click()
    with Image.open(download.value.path()) as card:
        assert (card.format, card.width > 1000) == ("JPEG", True)
    storage = "localStorage.getItem('pawmatch-history')"
    assert page.evaluate(storage) is None
    page.get_by_text("What I asked before").click()
    page.get_by_label("Remember my answers").check()
    expect(page.locator(".history li")).to_have_count(1)
    name = page.locator("#answer .headline").inner_text().split()[0]
    expect(page.locator(".history li")).to_contain_text(name)
    page.locator("#answer .ask button").first.click()  # the same photo, with what is known beside it
    expect(page.locator("#answer .facts button")).to_have_count(1)
    expect(page.locator(".history li")).to_have_count(1)
    page.get_by_role("button", name="Erase all").click()
    expect(page.locator(".history li")).to_have_count(0)
    page.get_by_label("Remember my answers").uncheck()
    assert page.evaluate(storage) is None
