"""What the page for one photo says: texts of the catalogue, as HTML by the macros of parts.html.

Labels, messages and file names may come from strangers: the templates escape every value, by `safe`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from io import BytesIO
from itertools import combinations
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from pawmatch.calibration.words import MAX_WORDS
from pawmatch.heatmaps import overlap
from pawmatch.labels import VARIANT_NAMES, words_of
from pawmatch.phrasing import MAX_NAMES, with_article
from pawmatch.results import Heatmap, Prediction, Task, VariantAnswer
from pawmatch.ui import retell
from pawmatch.ui.retell import percent
from pawmatch.ui.speech import LANGUAGES, language, say, texts

TITLE = "pawmatch"
MAX_COMPARED = 12  # photos on the page that compares the models
JPEG_QUALITY = 88
SENT_SIDE = 2048  # pixels; what is larger the browser scales down before it sends it
HARMLESS = {ord(sign): f"&#{ord(sign)};" for sign in "{}$`"}  # what Gradio's templates give a meaning
SAME_PLACE = 0.6  # of the heat in common, from which two models look at the same place
# A paw in a picture frame.
MARK = (
    '<svg class="mark" viewBox="0 0 48 48" aria-hidden="true">'
    '<rect x="3" y="3" width="42" height="42" rx="9" fill="none" stroke="currentColor" stroke-width="3.4"/>'
    '<g fill="currentColor"><ellipse cx="14.6" cy="22.4" rx="3.1" ry="4.2"/>'
    '<ellipse cx="20.8" cy="16.4" rx="3.1" ry="4.4"/><ellipse cx="27.8" cy="16.4" rx="3.1" ry="4.4"/>'
    '<ellipse cx="33.6" cy="22.4" rx="3.1" ry="4.2"/>'
    '<path d="M24.2 22.8c4.2 0 8.2 4.6 8.2 8.6 0 3-2.4 4-4.4 4-1.6 0-2.4-.7-3.8-.7s-2.2.7-3.8.7c-2 0'
    '-4.4-1-4.4-4 0-4 4-8.6 8.2-8.6z"/></g></svg>'
)
ICON = MARK.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ').replace("currentColor", "#b0502a")


def safe(text: object) -> Markup:
    """Text for use inside HTML, quotes included; markup of our own stays as it is.

    Braces, dollar signs and backticks too: Gradio fills its HTML as a template, where they mean something.
    """
    if isinstance(text, Markup):
        return text
    escaped = escape(str(text), quote=True).replace(" %", "&nbsp;%")
    return Markup(escaped.translate(HARMLESS))


_environment = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, finalize=safe, undefined=StrictUndefined
)
_environment.filters["percent"] = percent
_environment.globals |= {"say": say, "max_words": MAX_WORDS}
parts: Any = _environment.get_template("parts.html").module


def as_jpeg(image: Image.Image) -> bytes:
    """An image as the bytes of a JPEG file."""
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def data_address(image: Image.Image) -> str:
    """A small image as a data: address, for which the page needs no further request."""
    return "data:image/jpeg;base64," + base64.b64encode(as_jpeg(image)).decode()


def json_file(name: str, values: Mapping[str, Any], text: str) -> tuple[str, str, str]:
    """A file to download, as the name it gets, its content as an address, and the words of the link."""
    packed = base64.b64encode(json.dumps(values, indent=1).encode()).decode()
    return f"{name}.json", f"data:application/json;base64,{packed}", text


# --- around the answers


def distinct(words: Iterable[str]) -> list[str]:
    """Words as often as they come, each once: several tasks may share theirs."""
    return list(dict.fromkeys(filter(None, words)))


def tagline(tasks: Iterable[Task]) -> str:
    """What the page answers: "Which species? Which author?"."""
    return " ".join(
        say("page.which", noun=noun) for noun in distinct(retell.task(task).noun for task in tasks)
    )


def head(tasks: Iterable[Task]) -> str:
    """What the page tells search engines and link previews, and its icon."""
    plurals = retell.listed(distinct(retell.task(task).plural for task in tasks), "and")
    return str(
        Markup('<meta name="description" content="{}"><link rel="icon" href="data:image/svg+xml,{}">').format(
            say("page.description", plurals=plurals), quote(ICON)
        )
    )


def header(tasks: Iterable[Task]) -> str:
    """The page's title."""
    return str(parts.header(Markup(MARK), TITLE, tagline(tasks)))


def footer(tasks: Iterable[Task]) -> str:
    """What the answers are not, and the languages to choose from."""
    return str(parts.footer(retell.limits(tasks), say("page.privacy"), LANGUAGES, language()))


def intake(limit: int, *, reads_heic: bool, opens_links: bool) -> str:
    """The place where a photo comes in, of at most `limit` bytes."""
    return str(parts.intake(limit, SENT_SIDE, "yes" if reads_heic else "no", opens_links))


def gallery(task: Task, pictures: Sequence[tuple[str, str]]) -> str:
    """Examples to click on, given as address and description each; none, no row."""
    subject = retell.task(task).subject
    line = say("page.try_one", subject=subject, a_subject=with_article(subject))
    return str(parts.gallery(line, pictures))


def notice(text: str | None) -> str:
    """A line that says that another model than the intended one answers."""
    return str(parts.notice(text))


def card_text(card: str) -> str:
    """A model card as Markdown without front matter, HTML and pictures: it may come from a stranger.

    Its headings go two levels down, below those of the page.
    """
    if card.startswith("---\n") and "\n---\n" in card[4:]:
        card = card[4:].partition("\n---\n")[2]
    # A picture becomes a link: this page itself must not make visitors call other servers.
    card = re.sub(r"(?m)^(#{1,4}) ", r"##\1 ", card)
    return re.sub(r"!+\[", "[", card).replace("<", "&lt;").strip() or say("page.no_card")


def architecture(drawing: str) -> str:
    """A figure of a model, given as SVG, above its card."""
    return str(parts.architecture(Markup(drawing.translate(HARMLESS))))


# --- the answer's place


def empty(task: Task) -> str:
    """Before there is a photo."""
    return str(parts.empty(say("answer.none"), say("answer.appear", plural=retell.task(task).plural)))


def working(step: str) -> str:
    """While the answer is being found."""
    return str(parts.working(step))


def problem(message: object) -> str:
    """An error, read out at once."""
    return str(parts.problem(retell.error(message) if isinstance(message, Exception) else str(message)))


def answer(prediction: Prediction, missed: str = "") -> str:
    """The name, the verdict in a line, the badge that asks for a check, and the confidence bars.

    `missed` are words beside the photo of which nothing was understood.
    """
    told = retell.prediction(prediction)
    headline, confidence = retell.headline(told)
    return str(
        parts.answer(
            told,
            headline,
            "" if confidence is None else percent(confidence),
            json.dumps([[box.x, box.y, box.width, box.height] for box in told.boxes]),
            retell.verdict(told),
            listed(told),
            above_bars(told),
            below_bars(told),
            missed,
        )
    )


def listed(told: Prediction) -> str:
    """The members of a group too large for the verdict, or what else is seen where the subject is missing."""
    if told.group and len(told.group.labels) > MAX_NAMES:
        names = sorted(retell.class_name(label) for label in told.group.labels)
        return say("answer.alike", names=retell.listed(names, "and"))
    others = [f"{one.name} {percent(one.confidence)}" for one in told.looks_like[1:]]
    return say("answer.or_like", names=", ".join(others)) if others else ""


def above_bars(told: Prediction) -> str:
    """What the confidences below a verdict mean where the verdict is none of them."""
    task = words_of(told)
    if told.verdict.code == "unknown":
        return say("answer.closest", plural=task.plural)
    if told.verdict.code in ("outside", "poor_image"):
        return say("answer.after_all", subject=task.subject, a_subject=with_article(task.subject))
    return ""


def below_bars(told: Prediction) -> str:
    """How much confidence is left for the labels without a bar."""
    task = words_of(told)
    left = told.model.classes - len(told.predictions)
    if left <= 0:
        return ""
    rest = percent(max(0.0, 1 - sum(candidate.confidence for candidate in told.predictions)))
    if left == 1:
        return say("answer.other", noun=task.noun, confidence=rest)
    return say("answer.others", count=left, plural=task.plural, confidence=rest)


# --- the heatmaps


def maps(
    stops: Sequence[str],
    prediction: Prediction | None = None,
    heatmaps: Mapping[str, Heatmap] = MappingProxyType({}),
    name: str = "",
    pictures: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The heatmaps side by side below what they show in a sentence, or the places that are held for them.

    `stops` are the colors of the legend; `heatmaps` and the addresses of their `pictures`, for the label
    called `name`, go by variant.
    """
    title, line = say("maps.title"), say("maps.line")
    if prediction:
        prediction = retell.prediction(prediction)
        shown = name or prediction.top.name
        line = say("maps.shown", thing=retell.thing(shown, words_of(prediction)), name=shown)
        title = looked(list(heatmaps.values()), name) if heatmaps else title
    figures = []
    for variant, model in VARIANT_NAMES.items():
        heatmap = heatmaps.get(variant)
        told = alt_text(heatmap, name) if heatmap else ""
        own = (
            next((one for one in prediction.variants if one.variant == variant), None) if prediction else None
        )
        lines = caption(own, heatmap, name) if prediction else []
        figures.append((model, pictures.get(variant, ""), told, own, lines))
    return str(parts.maps(title, line, figures, stops))


def caption(own: VariantAnswer | None, heatmap: Heatmap | None, name: str) -> list[str]:
    """Below one heatmap and the variant's own answer: its view of the label that is explained."""
    if own is None:
        return [say("maps.missing")]
    if heatmap is None:
        return []
    lines = [f"{name}: {percent(heatmap.confidence)}"] if own.label != heatmap.label else []
    return [*lines, say("maps.no_region", name=name)] if heatmap.raw_max <= 0 else lines


def looked(heatmaps: Sequence[Heatmap], name: str) -> str:
    """In a sentence, whether the models look at the same place for the label called `name`."""
    seen = [heatmap for heatmap in heatmaps if heatmap.raw_max > 0]
    if not seen:
        return say("maps.nothing", name=name)
    if len(seen) == 1:
        return say("maps.one", model=model_name(seen[0].variant), place=place(seen[0].cam))
    count = say("maps.two" if len(seen) == 2 else "maps.three")
    pairs = list(combinations(range(len(seen)), 2))
    shared = [(one, other) for one, other in pairs if overlap(seen[one], seen[other]) >= SAME_PLACE]
    if not shared:
        return say("maps.different", count=count)
    if shared == pairs:
        key = "maps.both" if len(seen) == 2 else "maps.same"
        return say(key, count=count, place=place(seen[0].cam))
    alone = set(range(len(seen))).difference(*shared)
    if alone:
        lone = seen[alone.pop()]
        return say("maps.alone", model=model_name(lone.variant), place=place(lone.cam))
    return say("maps.overlap", count=count)


def why(task: Task, choices: Sequence[tuple[str, str]]) -> str:
    """The field that asks for another label's heatmaps; `choices` are names and labels; none, no field."""
    return str(parts.why(say("maps.why", noun=retell.task(task).noun), choices)) if choices else ""


def alt_text(heatmap: Heatmap, name: str) -> str:
    """A heatmap for those who do not see it; `name` is that of its label."""
    model = model_name(heatmap.variant)
    if heatmap.raw_max <= 0:
        return say("maps.alt_none", model=model, name=name)
    return say("maps.alt", model=model, name=name, place=place(heatmap.cam))


def place(cam: NDArray[Any]) -> str:
    """Where a coarse map (rows, columns) is hottest: "at the top left", "in the center"."""
    row, column = divmod(int(cam.argmax()), cam.shape[1])
    vertical = ("top", "", "bottom")[3 * row // cam.shape[0]]
    horizontal = ("left", "", "right")[3 * column // cam.shape[1]]
    return say(f"maps.{'_'.join(filter(None, (vertical, horizontal))) or 'center'}")


def model_name(variant: str) -> str:
    """The variant's display name."""
    return VARIANT_NAMES.get(variant, variant)


# --- details


def details(prediction: Prediction, answer_json: Mapping[str, Any]) -> str:
    """The 90 % candidates, the timings, the model, and the whole answer as a file."""
    told = retell.prediction(prediction)
    plural, model = words_of(told).plural, told.model
    line = say(
        "details.model_line", source=model.source, backbone=model.backbone, count=model.classes, plural=plural
    )
    known = texts(language())
    return str(
        parts.details(
            ", ".join(told.candidates_90),
            say("details.coverage", plural=plural),
            {known.get(f"details.{step}", step): spent for step, spent in told.timing_ms.items()},
            line,
            say("details.threshold", confidence=percent(told.review.threshold)),
            json_file(f"pawmatch-{told.task}", answer_json, say("details.download")),
        )
    )


def no_details() -> str:
    """Where details will be."""
    return str(parts.paragraph(say("page.choose_first"), "quiet"))


def keep() -> str:
    """What can be done with an answer: keep it, share it, remember it."""
    return str(parts.keep())


def known(task: Task, rows: Sequence[tuple[str, ...]], images: object) -> str:
    """The list of a task's classes; `images` were measured on, None if nothing was measured."""
    measured = say("known.unmeasured") if images is None else say("known.measured", images=images)
    return str(parts.known(say("known.count", count=len(rows), plural=task.plural), measured, rows))
