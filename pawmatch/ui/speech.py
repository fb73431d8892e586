"""In whose language the pages speak: every text by its key, and static ones filled in as a page is sent.

The catalogues stand in pawmatch/translations/. A visitor's language is the one chosen on the page, kept in a
cookie, or the first of the browser's languages that there is a catalogue for, or English. The JSON, the API
and the command line speak English.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from http.cookies import CookieError, SimpleCookie
from importlib.resources import files
from urllib.parse import parse_qs

from gradio.context import LocalContext
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pawmatch.labels import ENGLISH

LANGUAGES = {
    ENGLISH: "English",
    "de": "Deutsch",
    "es": "Español",
    "fr": "Français",
    "ja": "日本語",
    "zh-Hant": "繁體中文",
}
COOKIE = "pawmatch-language"
KEPT_DAYS = 365  # that a chosen language is remembered
TRADITIONAL = ("zh-hant", "zh-tw", "zh-hk", "zh-mo")
MAX_ACCEPTED = 20  # languages of a browser that are looked at
GRADIO_LOCALES = {"zh-Hant": "zh-TW"}  # where Gradio calls a language otherwise
_MARK = re.compile(r"@@text-(\d+)@@")
_static: list[Callable[[], str]] = []
_speaking: ContextVar[str | None] = ContextVar("speaking", default=None)


# --- which language


def language() -> str:
    """The language of the visitor who is being answered: English outside of any request."""
    if chosen := _speaking.get():
        return chosen
    request = LocalContext.request.get(None)
    return ENGLISH if request is None else language_of(dict(request.headers))


def language_of(headers: Mapping[str, str]) -> str:
    """The language that a request's headers ask for; their names are in lower case."""
    try:
        chosen = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        chosen = None
    if chosen and chosen.value in LANGUAGES:
        return chosen.value
    return preferred(headers.get("accept-language", ""))


def preferred(accepted: str) -> str:
    """The best language there is for the value of an Accept-Language header (RFC 9110, section 12.5.4)."""
    wanted: list[tuple[float, str]] = []
    for part in accepted.split(",")[:MAX_ACCEPTED]:
        tag, _, weight = part.strip().lower().partition(";q=")
        try:
            wanted.append((float(weight or 1), tag))
        except ValueError:
            continue
    for share, tag in sorted(wanted, key=lambda one: -one[0]):
        if share > 0 and tag.startswith(TRADITIONAL):
            return "zh-Hant"
        if share > 0 and (base := tag.partition("-")[0]) in LANGUAGES:
            return base
    return ENGLISH


@contextmanager
def speaking(chosen: str) -> Iterator[None]:
    """Whatever is said inside is said in that language."""
    token = _speaking.set(chosen)
    try:
        yield
    finally:
        _speaking.reset(token)


# --- what is said


def say(key: str, **values: object) -> str:
    """The text of that key in the visitor's language, with `values` in their places."""
    return texts(language())[key].format(**values)


@cache
def texts(name: str) -> Mapping[str, str]:
    """All texts of a language as "section.key"."""
    table = tomllib.loads((files("pawmatch") / "translations" / f"{name}.toml").read_text(encoding="utf-8"))
    return {f"{section}.{key}": text for section, entries in table.items() for key, text in entries.items()}


def static(make: Callable[[], str] | str) -> str:
    """A mark for a text that is the same for everybody but for the language: a key, or what makes it.

    Where a language is spoken already, the text in it: that of an app which no Translate stands before.
    """
    text = partial(say, make) if isinstance(make, str) else make
    if _speaking.get():
        return text()
    _static.append(text)
    return f"@@text-{len(_static) - 1}@@"


def filled(page: str, chosen: str) -> str:
    """A page's JSON, or its HTML with JSON inside, with the text of that language for each mark."""

    def text(mark: re.Match[str]) -> str:
        with speaking(chosen):
            said = json.dumps(_static[int(mark[1])](), ensure_ascii=False)[1:-1]
        return said.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")

    return _MARK.sub(text, page)


class Translate:
    """ASGI middleware: sends pages, and the description they are made from, in the visitor's language."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is no page; `?language=de` chooses one and is remembered."""
        if scope["type"] != "http" or scope["method"] != "GET" or "/gradio_api/" in scope["path"]:
            await self.app(scope, receive, send)
            return
        asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("language", [""])[0]
        chosen = asked if asked in LANGUAGES else language_of(Headers(scope=scope))
        start: Message = {}
        parts: list[bytes] = []

        async def collect(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and is_page(message):
                start = message
            elif not start:
                await send(message)
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))
                if not message.get("more_body", False):
                    body = in_language(b"".join(parts).decode(), chosen).encode()
                    headers = MutableHeaders(scope=start)
                    headers["content-length"] = str(len(body))
                    headers["content-language"] = chosen
                    headers["vary"] = "Accept-Language, Cookie"
                    if asked == chosen:
                        age = KEPT_DAYS * 24 * 3600
                        headers.append(
                            "set-cookie", f"{COOKIE}={chosen}; Max-Age={age}; Path=/; SameSite=Lax; HttpOnly"
                        )
                    await send(start)
                    await send({"type": "http.response.body", "body": body})

        await self.app(scope, receive, collect)


def is_page(start: Message) -> bool:
    """Whether an answer is HTML or JSON, by its header: pages, and their description."""
    kind = Headers(raw=start["headers"]).get("content-type", "")
    return kind.startswith(("text/html", "application/json"))


def in_language(page: str, chosen: str) -> str:
    """A page with its texts, and with Gradio's own, in one language."""
    # Gradio asks the browser, whose first language may be one that there is no catalogue for.
    locale = json.dumps(GRADIO_LOCALES.get(chosen, chosen))
    script = f"<script>Object.defineProperty(navigator, 'language', {{ get: () => {locale} }})</script>"
    page = page.replace('lang="en"', f'lang="{chosen}"', 1).replace("<head>", f"<head>{script}", 1)
    return filled(page, chosen)
