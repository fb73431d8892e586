"""The pages in people's own language: every text in every catalogue, and one language on a page."""

from __future__ import annotations

import re
import string
import tomllib
from dataclasses import replace
from importlib.resources import files
from typing import Any

import httpx
import pytest

from pawmatch import errors
from pawmatch.evaluation.report import VERDICTS
from pawmatch.images import reading
from pawmatch.labels import ENGLISH, bundled_tasks, display_name, new_task, read_labels, translated
from pawmatch.results import Group, LookAlike, ReviewReason, Verdict
from pawmatch.ui import retell
from pawmatch.ui.speech import (
    COOKIE,
    LANGUAGES,
    filled,
    language,
    language_of,
    preferred,
    say,
    speaking,
    static,
    texts,
)
from tests.ui.made import make_explanation, make_prediction

OTHERS = [name for name in LANGUAGES if name != ENGLISH]
CJK = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
REASONS = ("poor_image", "out_of_scope", "unknown_class", "low_confidence", "close_call", "variants_disagree")
# What only other languages need: in English results come with their sentences, and tasks with their words.
RETOLD = ("retold", "reason", "error", "warning", "task")


def named(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("name", OTHERS)
def test_a_language_has_every_text_with_the_values_that_it_may_use(name: str) -> None:
    english, other, german = texts(ENGLISH), texts(name), texts("de")
    assert set(other) == set(german)
    assert {key for key in other if not key.startswith(RETOLD)} == set(english)
    for key, text in other.items():
        assert text, key
        assert named(text) <= named(english.get(key, german[key])) | {"subject", "name"}, key
        # Names and figures alone may be the same; in scripts of their own nothing is.
        words = re.sub(r"\{\w+\}|pawmatch|JSON|EXIF|JPEG|PNG|WebP|MB|Shift|Enter|%", "", text)
        if name in ("ja", "zh-Hant") and re.search(r"[a-z]", words):
            pytest.fail(f"{key}: {text}")
        if len(text) > 40:
            assert text != english.get(key), key


@pytest.mark.parametrize("name", OTHERS)
def test_a_language_has_a_name_for_every_class_and_kind(name: str) -> None:
    labels = {label for entry in ("breed", "artist") for label in read_labels(entry)}
    assert set(translated("classes", name)) == labels
    kinds = {
        kind
        for entry in (files("pawmatch") / "labels" / "groups").iterdir()
        for kind in tomllib.loads(entry.read_text(encoding="utf-8"))
    }
    assert set(translated("kinds", name)) == kinds
    names = [display_name(label, name) for label in sorted(labels)]
    assert len(set(names)) == len(names)
    if name in ("ja", "zh-Hant"):
        assert all(CJK.search(one) for one in names)
    assert {f"task.{task}.title" for task in bundled_tasks()} <= set(texts(name))


def test_every_error_is_told_by_its_kind() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    with speaking("de"):
        told = {kind.__name__: retell.error(kind("an English sentence")) for kind in kinds}
    assert not [name for name, text in told.items() if "English" in text]
    assert told["ImageTooLarge"].startswith("Dieses Bild ist zu groß")
    assert told["AccessDenied"] == told["PawMatchError"]
    assert retell.error(errors.Busy("an English sentence")) == "an English sentence"


def test_every_warning_is_told() -> None:
    told = (reading.ROTATED, reading.ANIMATED, reading.PAGED, reading.INCOMPLETE)
    assert {f"warning.{text}" for text in told} == {key for key in texts("ja") if key.startswith("warning.")}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("code", VERDICTS)
def test_an_answer_is_retold_whole(name: str, code: str) -> None:
    group = Group("sled dog", ("Samoyed", "Malamute", "Siberian_Husky", "Eskimo_Dog", "Keeshond"), 0.9)
    reasons = [ReviewReason(one, "In English.") for one in REASONS]
    english = replace(
        make_prediction(0.7, 0.2, names=("Great Dane", "Pug"), reasons=reasons),
        verdict=Verdict(code, "In English"),
        group=group if code == "group" else None,
        looks_like=(LookAlike("tabby", 0.4), LookAlike("abacus", 0.3)),
        warnings=(reading.ROTATED,),
        words=new_task("breed"),
    )
    with speaking(name):
        told = retell.explanation(make_explanation(english)).prediction
    assert len(told.review.reasons) == len(REASONS)
    assert "English" not in str([told.verdict, told.review, told.warnings])
    assert told.top.name == display_name("Great_Dane", name) == told.candidates_90[0]
    assert told.predictions[0].label == "Great_Dane"
    assert len(told.looks_like) == 1  # of things there are no names
    assert told.words is not None
    assert told.words.subject != "dog"
    assert retell.prediction(english) is english


@pytest.mark.parametrize(
    ("accepted", "wanted"),
    [
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("it,fr;q=0.5,es;q=0.7", "es"),
        ("zh-TW,zh;q=0.9", "zh-Hant"),
        ("zh-HK", "zh-Hant"),
        ("zh-CN,zh;q=0.9", "en"),
        ("ja;q=0,de;q=0.1", "de"),
        ("ja;q=x, *", "en"),
        ("", "en"),
        ("fr" + ",xx" * 1000 + ",de", "fr"),
    ],
)
def test_the_browser_says_which_language(accepted: str, wanted: str) -> None:
    assert preferred(accepted) == wanted


def test_a_chosen_language_goes_before_the_browsers() -> None:
    accepted = {"accept-language": "ja"}
    assert language_of({**accepted, "cookie": f"a=b; {COOKIE}=fr"}) == "fr"
    assert language_of({**accepted, "cookie": f"{COOKIE}=xx"}) == "ja"
    assert language_of({**accepted, "cookie": "\x00;;=,"}) == "ja"
    assert language() == ENGLISH


def test_marks_are_filled_without_breaking_what_they_stand_in() -> None:
    mark = static(lambda: f'<b class="x">{say("compare.mean")}</b>')
    told = filled(f'{{"value": "{mark}"}}', "de")
    assert "<b" not in told  # nothing that could end a script
    assert httpx.Response(200, text=told).json() == {"value": '<b class="x">Mittel</b>'}


def test_a_page_comes_in_one_language(http: httpx.Client) -> None:
    for path in ("", "compare", "known"):
        page = http.get(path, headers={"Accept-Language": "ja"})
        assert (page.headers["content-language"], "Cookie" in page.headers["vary"]) == ("ja", True)
        assert '<html\n\tlang="ja"' in page.text
        assert "@@text-" not in page.text
        assert texts("ja")["page.privacy"] in page.text
        assert texts(ENGLISH)["page.privacy"] not in page.text
    described: dict[str, Any] = http.get("config", headers={"Accept-Language": "de"}).json()
    assert texts("de")["page.task"] in str(described)


def test_a_language_that_was_chosen_is_remembered(http: httpx.Client) -> None:
    chosen = http.get("?language=fr", headers={"Accept-Language": "ja"})
    assert f"{COOKIE}=fr" in chosen.headers["set-cookie"]
    assert texts("fr")["page.privacy"] in http.get("").text
    http.cookies.clear()
    assert "set-cookie" not in http.get("?language=xx").headers
