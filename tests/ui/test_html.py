"""Words and HTML: articles, percentages, reasons, and nothing unescaped."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from pawmatch.labels import VARIANT_NAMES, new_task
from pawmatch.results import Choice, Fact, Group, LookAlike, Prediction, Question, ReviewReason, Verdict
from pawmatch.ui import html
from pawmatch.ui.speech import speaking
from tests.ui.conftest import TASKS
from tests.ui.made import make_explanation, make_prediction


def spaced(shown: str) -> str:
    """HTML with its unbreakable spaces as plain ones."""
    return shown.replace("&nbsp;", " ")


EVIL = "<img src=x onerror=alert(1)>\"'{{this}}${value}`"


def head(shown: str) -> str:
    """The headline of an answer."""
    found = re.search(r'<h2 class="headline">(.+?)</h2>', spaced(shown))
    assert found
    return found[1]


def test_the_name_comes_first_with_its_confidence_and_the_verdict_below() -> None:
    sure = html.answer(replace(make_prediction(0.914), candidates_90=("Border Collie",)))
    assert head(sure) == 'Border Collie <span class="figure">91 %</span>'
    assert "check" not in sure
    assert 'class="verdict"' not in sure  # the name says it all
    told = Verdict("answer", "Probably a Border Collie")
    probable = html.answer(replace(make_prediction(0.714, 0.2), verdict=told))
    assert '<p class="verdict">Probably a Border Collie; Akita is close</p>' in probable


def test_a_check_is_asked_for_below_the_verdict_with_all_reasons() -> None:
    reasons = [
        ReviewReason("low_confidence", "The model is unsure."),
        ReviewReason("close_call", "It is a close call between Akita and Pug."),
    ]
    shown = spaced(html.answer(make_prediction(0.31, reasons=reasons)))
    assert (
        shown.index("Border Collie")
        < shown.index("A person should")
        < shown.index("<li>The model is unsure.")
    )


def test_a_figure_goes_through_gradios_templates_unharmed() -> None:
    shown = html.architecture("<svg><text>${1} `{{x}}`</text></svg>")
    assert "<svg><text>" in shown
    assert not set("{}$`") & set(shown)


def test_a_question_and_what_was_said_stand_below_the_bars_in_the_readers_language() -> None:
    facts = (
        Fact("coat", "long", "Coat length", "long"),
        Fact("ears", "unsure", "Ears", "not sure"),
    )
    question = Question("tail", "What does the tail look like?", (Choice("short", "short or none"),))
    asked = replace(make_prediction(0.31), facts=facts, question=question)
    shown = html.answer(asked)
    assert shown.index("data-label") < shown.index("data-fact") < shown.index("data-ask")
    assert 'aria-label="Take back: Coat length: long"' in shown
    assert 'aria-label="Take back: Ears: not sure"' in shown
    assert ">not sure</button>" in shown
    with speaking("de"):
        told = html.answer(asked)
    for text in (
        "Zurücknehmen: Felllänge: lang",
        "Ohren: weiß nicht",
        "Wie sieht die Rute aus?",
        "kurz oder keine",
    ):
        assert text in told
    assert "data-ask" not in html.answer(make_prediction(0.9))


def test_another_subject_is_named_and_the_bars_say_what_they_mean() -> None:
    prediction = replace(
        make_prediction(0.7),
        verdict=Verdict("outside", "No dog here: this looks like a tabby cat"),
        looks_like=(LookAlike("tabby cat", 0.41), LookAlike("Egyptian cat", 0.2)),
        words=new_task("breed"),
    )
    shown = spaced(html.answer(prediction))
    assert head(shown) == 'Tabby cat <span class="figure">41 %</span>'
    assert '<p class="verdict">No dog here: this looks like a tabby cat</p>' in shown
    assert "Or like: Egyptian cat 20 %." in shown
    assert shown.index("If it is a dog after all:") < shown.index('class="bars"')
    unknown = html.answer(replace(prediction, verdict=Verdict("unknown", "A dog, but"), looks_like=()))
    assert head(unknown) == "A dog"
    assert "The closest breeds" in unknown
    assert head(html.answer(replace(prediction, verdict=Verdict("poor_image", "Small")))) == "I cannot tell"
    nothing = html.answer(replace(prediction, verdict=Verdict("outside", "No dog here"), looks_like=()))
    assert head(nothing) == "No dog here"
    assert 'class="verdict"' not in nothing


def test_a_group_that_the_verdict_cannot_hold_is_listed() -> None:
    labels = ("Beagle", "Basset", "Bloodhound", "Walker_Hound", "Redbone")
    large = replace(
        make_prediction(0.4, 0.3), verdict=Verdict("group", "A hound"), group=Group("hound", labels, 0.93)
    )
    shown = html.answer(large)
    assert head(shown) == 'Hound <span class="figure">93 %</span>'
    assert "These look alike: Basset Hound, Beagle, Bloodhound" in shown
    small = replace(large, group=Group("", labels[:4], 0.93))
    assert "Basset Hound" not in html.answer(small)
    assert head(html.answer(small)) == 'Border Collie or Akita <span class="figure">93 %</span>'


def test_bars_show_calibrated_confidence_and_what_is_left() -> None:
    shown = spaced(html.answer(make_prediction(0.7, 0.2, 0.05)))
    assert re.findall(r'class="value">([^<]+)<', shown) == ["70 %", "20 %", "5 %"]
    assert "width:70.0%" in shown
    assert "The other 7 breeds together: 5 %." in shown


def test_no_other_classes_need_no_line() -> None:
    prediction = make_prediction(0.7, 0.2, 0.1)
    whole = replace(prediction, model=replace(prediction.model, classes=3))
    assert "together" not in html.answer(whole)
    one_left = replace(prediction, model=replace(prediction.model, classes=4))
    assert "The other breed together: under 1 %." in spaced(html.answer(one_left))


def shown_maps(prediction: Prediction, raw_max: float = 1.0, **pictures: str) -> str:
    heatmaps = make_explanation(prediction, raw_max=raw_max).heatmaps
    return spaced(html.maps(["red"], prediction, heatmaps, "Border Collie", pictures))


def test_a_heatmap_stands_above_the_variants_own_answer_and_its_view_of_the_label() -> None:
    shown = shown_maps(make_prediction(0.7), cnn="cnn.jpg")
    first, second, third = re.findall("<figure>.+?</figure>", shown)
    assert 'src="cnn.jpg"' in first
    assert "<h3>CNN</h3>" in first
    assert "Akita <b>56 %</b>" in first
    assert "Border Collie: 30 %" in first
    assert "Border Collie: " not in second
    assert 'class="wait"' in second  # its place is held
    assert "without this model" in third
    assert "speak for a Border Collie" in shown
    assert html.maps(["red"]).count('class="wait"') == 3


def test_a_map_of_nothing_is_called_that() -> None:
    shown = shown_maps(make_prediction(0.7), raw_max=0.0)
    assert "No region speaks for Border Collie." in shown
    assert "No model finds anything that speaks for Border Collie" in shown
    explanation = make_explanation(make_prediction(0.7), raw_max=0.0)
    assert "no region that speaks for Pug" in html.alt_text(explanation.heatmaps["cnn"], "Pug")


@pytest.mark.parametrize(
    ("hot", "sentence"),
    [
        ("aaa", "All three look at the same place, mostly at the top left"),
        ("aab", "CNN + Transformer + MFE looks elsewhere, mostly at the bottom right"),
        ("abb", "CNN looks elsewhere, mostly at the top left"),
        ("abc", "The three look at different places"),
        ("aca", "CNN + Transformer looks elsewhere, mostly in the center"),
        ("mab", "The three look at places that overlap"),
        ("aa", "Both look at the same place, mostly at the top left"),
        ("a", "CNN looks mostly at the top left"),
        ("aa-", "Both look at the same place, mostly at the top left"),
    ],
)
def test_the_maps_say_whether_the_models_look_at_the_same_place(hot: str, sentence: str) -> None:
    one = make_explanation(make_prediction(0.7)).heatmaps["cnn"]
    top_left, center, bottom_right = np.eye(9, dtype=np.float32).reshape(9, 3, 3)[[0, 4, 8]]
    cams = {
        "a": top_left + 0.6 * center,
        "b": bottom_right + 0.6 * center,
        "c": center,
        "m": top_left + bottom_right + center,
        "-": 0 * center,
    }
    heatmaps = [
        replace(one, variant=variant, cam=cams[name], raw_max=float(cams[name].max()))
        for variant, name in zip(VARIANT_NAMES, hot, strict=False)
    ]
    assert html.looked(heatmaps, "Pug") == sentence


def test_any_other_label_can_be_asked_for() -> None:
    shown = html.why(new_task("breed"), [("Pug", "Pug"), ("Basset Hound", "Basset")])
    assert "Why not another breed?" in shown
    assert '<option value="Basset Hound" data-label="Basset">' in shown
    assert html.why(new_task("breed"), []) == ""


def test_alt_texts_say_where_the_evidence_is() -> None:
    explanation = make_explanation(make_prediction(0.7))
    assert html.alt_text(explanation.heatmaps["cnn"], explanation.name) == (
        "The photo with a heatmap: CNN found its evidence for Border Collie mostly at the top right"
    )


class Tags(HTMLParser):
    """The tags of a piece of HTML, and whether they are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs
        if tag not in ("img", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def everything_shown() -> list[str]:
    reasons = [ReviewReason("a", f"The {EVIL}."), ReviewReason("b", EVIL)]
    prediction = replace(
        make_prediction(0.4, 0.3, reasons=reasons, names=[EVIL, EVIL]),
        verdict=Verdict("outside", EVIL),
        looks_like=(LookAlike(EVIL, 0.5),),
        warnings=(EVIL,),
        candidates_90=(EVIL,),
        timing_ms={EVIL: 1.0},
    )
    prediction = replace(
        prediction,
        model=replace(prediction.model, source=EVIL, backbone=EVIL),
        variants=tuple(replace(answer, name=EVIL) for answer in prediction.variants),
    )
    explanation = make_explanation(prediction, raw_max=0.0)
    group = Group(EVIL, (EVIL,) * 5, 0.9)
    return [
        html.answer(prediction),
        html.answer(replace(prediction, verdict=Verdict("group", EVIL), group=group)),
        html.problem(EVIL),
        html.notice(EVIL),
        html.maps([EVIL], prediction, explanation.heatmaps, EVIL, {"cnn": EVIL}),
        html.why(new_task("breed"), [(EVIL, EVIL)]),
        html.details(prediction, {"x": EVIL}),
        html.gallery(TASKS["breed"], [(EVIL, EVIL)]),
        html.empty(TASKS["breed"]),
        html.header(TASKS.values()),
        html.intake(1, reads_heic=True, opens_links=True),
        html.footer(TASKS.values()),
        html.keep(),
        html.known(TASKS["breed"], [(EVIL, EVIL, EVIL, EVIL, EVIL)], EVIL),
    ]


def test_images_have_alt_text() -> None:
    shown = html.gallery(TASKS["breed"], [("data:,", "A dog in the grass"), ("data:,", "A pug")])
    assert re.findall(r'alt="([^"]*)"', shown) == ["A dog in the grass", "A pug"]
    assert html.gallery(TASKS["breed"], []) == ""


def test_the_download_holds_the_answer() -> None:
    shown = html.details(make_prediction(0.7, 0.2), {"task": "breed", "name": "Löwchen"})
    packed = re.search(r'href="data:application/json;base64,([^"]+)"', shown)
    assert packed
    assert json.loads(base64.b64decode(packed[1])) == {"task": "breed", "name": "Löwchen"}
    assert "Border Collie, Akita" in shown
    assert "41 ms" in shown


def test_a_card_loses_front_matter_html_and_pictures() -> None:
    card = "---\nlicense: x\n---\n# Title\n<script>alert(1)</script>\n![a picture](https://example.org/a.png)"
    assert html.card_text(card) == (
        "### Title\n&lt;script>alert(1)&lt;/script>\n[a picture](https://example.org/a.png)"
    )
    assert html.card_text("!!![a](https://example.org/a.png)") == "[a](https://example.org/a.png)"
    assert html.card_text("") == "This model comes without a card."


def test_a_broken_notice_takes_no_place() -> None:
    assert html.notice(None) == ""
    assert 'role="status"' in html.notice("The Hub could not be reached.")


@pytest.mark.parametrize("shown", everything_shown())
def test_nothing_from_strangers_is_taken_for_html_or_a_template(shown: str) -> None:
    harmless(shown)


def harmless(shown: str) -> None:
    """Fail where a piece of HTML holds more than our own tags."""
    tags = Tags(shown)
    assert not tags.open
    assert not {"script", "iframe"} & set(tags.names)
    assert not [name for name, _ in tags.attributes if name.startswith("on")]
    assert "<img src=x" not in shown
    assert not any(sign in shown for sign in "{}`$")
