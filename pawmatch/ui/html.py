"""What the two pages say: results as sentences, and as HTML by the macros of parts.html. No gradio in here.

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

from pawmatch import phrasing
from pawmatch.evaluation.compare import Comparison, ImageAnswers, VariantSummary
from pawmatch.heatmaps import overlap
from pawmatch.labels import VARIANT_NAMES, display_name, words_of
from pawmatch.phrasing import (
    MAX_NAMES,
    headline,
    headline_confidence,
    no_proof,
    percent,
    thing,
    verdict_told,
    with_article,
)
from pawmatch.results import Heatmap, Prediction, Task, VariantAnswer

TITLE = "pawmatch"
MAIN_PAGE = "One photo"
CHOOSE_PHOTO = "Choose a photo first."
CHECK = "A person should check this"
MAX_COMPARED = 12  # photos on the page that compares the models
NUMBERS = ("no", "one", "two", "three")
CAUTION = "So few photos show how the models differ, not which of them is better."
EVERY_PHOTO_REFUSED = "None of these photos can be used"
JPEG_QUALITY = 88
SENT_SIDE = 2048  # pixels; what is larger the browser scales down before it sends it
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
    return Markup(escaped.translate({ord(sign): f"&#{ord(sign)};" for sign in "{}$`"}))


_environment = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, finalize=safe, undefined=StrictUndefined
)
_environment.filters["percent"] = percent
_parts: Any = _environment.get_template("parts.html").module


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
    return " ".join(f"Which {noun}?" for noun in distinct(task.noun for task in tasks))


def head(tasks: Iterable[Task]) -> str:
    """What the page tells search engines and link previews, and its icon."""
    plurals = phrasing.listed(distinct(task.plural for task in tasks), "and")
    description = f"Names {plurals} from a photo, says how sure it is, and shows where the models looked."
    return str(
        Markup('<meta name="description" content="{}"><link rel="icon" href="data:image/svg+xml,{}">').format(
            description, quote(ICON)
        )
    )


def header(tasks: Iterable[Task]) -> str:
    """The page's title."""
    return str(_parts.header(Markup(MARK), TITLE, tagline(tasks)))


def footer(tasks: Iterable[Task]) -> str:
    """What the answers are not."""
    proofs = distinct(no_proof(task.subject) for task in tasks)
    limits = f"{', '.join(['This is a guess from looks', *proofs])}. Please base no decision on it alone."
    return str(_parts.footer(limits, "Photos serve for the answer only and are deleted within the hour."))


def intake(limit: int, *, reads_heic: bool, opens_links: bool) -> str:
    """The place where a photo comes in, of at most `limit` bytes."""
    return str(_parts.intake(limit, SENT_SIDE, "yes" if reads_heic else "no", opens_links))


def gallery(task: Task, pictures: Sequence[tuple[str, str]]) -> str:
    """Examples to click on, given as address and description each; none, no row."""
    line = f"Any photo of {with_article(task.subject)} will do. Or try one of these:"
    return str(_parts.gallery(line, pictures))


def notice(text: str | None) -> str:
    """A line that says that another model than the intended one answers."""
    return str(_parts.notice(text))


def card_text(card: str) -> str:
    """A model card as Markdown without front matter, HTML and pictures: it may come from a stranger.

    Its headings go two levels down, below those of the page.
    """
    if card.startswith("---\n") and "\n---\n" in card[4:]:
        card = card[4:].partition("\n---\n")[2]
    # A picture becomes a link: this page itself must not make visitors call other servers.
    card = re.sub(r"(?m)^(#{1,4}) ", r"##\1 ", card)
    return re.sub(r"!+\[", "[", card).replace("<", "&lt;").strip() or "This model comes without a card."


# --- the answer's place


def empty(task: Task) -> str:
    """Before there is a photo."""
    return str(_parts.empty("No photo yet", f"The closest {task.plural} appear here."))


def working(step: str) -> str:
    """While the answer is being found."""
    return str(_parts.working(step))


def problem(message: object) -> str:
    """An error, read out at once."""
    return str(_parts.problem(str(message)))


def answer(prediction: Prediction) -> str:
    """The name, the verdict in a line, the badge that asks for a check, and the confidence bars."""
    confidence = headline_confidence(prediction)
    return str(
        _parts.answer(
            prediction,
            headline(prediction),
            "" if confidence is None else percent(confidence),
            json.dumps([[box.x, box.y, box.width, box.height] for box in prediction.boxes]),
            verdict_told(prediction),
            CHECK,
            listed(prediction),
            above_bars(prediction),
            below_bars(prediction),
        )
    )


def listed(prediction: Prediction) -> str:
    """The members of a group too large for the verdict, or what else is seen where the subject is missing."""
    if prediction.group and len(prediction.group.labels) > MAX_NAMES:
        names = sorted(display_name(label) for label in prediction.group.labels)
        return f"These look alike: {phrasing.listed(names, 'and')}."
    others = [f"{one.name} {percent(one.confidence)}" for one in prediction.looks_like[1:]]
    return f"Or like: {', '.join(others)}." if others else ""


def above_bars(prediction: Prediction) -> str:
    """What the confidences below a verdict mean where the verdict is none of them."""
    task = words_of(prediction)
    if prediction.verdict.code == "unknown":
        return f"The closest {task.plural} that the model knows:"
    if prediction.verdict.code in ("outside", "poor_image"):
        return f"If it is {with_article(task.subject)} after all:"
    return ""


def below_bars(prediction: Prediction) -> str:
    """How much confidence is left for the labels without a bar."""
    task = words_of(prediction)
    left = prediction.model.classes - len(prediction.predictions)
    if left <= 0:
        return ""
    rest = max(0.0, 1 - sum(candidate.confidence for candidate in prediction.predictions))
    others = f"The other {left} {task.plural}" if left > 1 else f"The other {task.noun}"
    return f"{others} together: {percent(rest)}."


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
    title, line = "Where each model looks", "Each model paints the regions that speak for one answer."
    if prediction:
        task = words_of(prediction)
        title = looked(list(heatmaps.values()), name) if heatmaps else title
        shown = thing(name or prediction.top.name, subject=task.subject, noun=task.noun)
        line = f"Colored regions speak for {shown}. The models see a coarse grid: sharp edges mean nothing."
    figures = []
    for variant, model in VARIANT_NAMES.items():
        heatmap = heatmaps.get(variant)
        told = alt_text(heatmap, name) if heatmap else ""
        own = (
            next((one for one in prediction.variants if one.variant == variant), None) if prediction else None
        )
        lines = caption(own, heatmap, name) if prediction else []
        figures.append((model, pictures.get(variant, ""), told, own, lines))
    return str(_parts.maps(title, line, figures, stops))


def caption(own: VariantAnswer | None, heatmap: Heatmap | None, name: str) -> list[str]:
    """Below one heatmap and the variant's own answer: its view of the label that is explained."""
    if own is None:
        return ["These weights come without this model."]
    if heatmap is None:
        return []
    lines = [f"{name}: {percent(heatmap.confidence)}"] if own.label != heatmap.label else []
    return [*lines, f"No region speaks for {name}."] if heatmap.raw_max <= 0 else lines


def looked(heatmaps: Sequence[Heatmap], name: str) -> str:
    """In a sentence, whether the models look at the same place for the label called `name`."""
    seen = [heatmap for heatmap in heatmaps if heatmap.raw_max > 0]
    if not seen:
        return f"No model finds anything that speaks for {name}"
    names = [model_name(heatmap.variant) for heatmap in seen]
    if len(seen) == 1:
        return f"{names[0]} looks mostly {place(seen[0].cam)}"
    count = NUMBERS[len(seen)]
    pairs = list(combinations(range(len(seen)), 2))
    shared = [(one, other) for one, other in pairs if overlap(seen[one], seen[other]) >= SAME_PLACE]
    if not shared:
        return f"The {count} look at different places"
    if shared == pairs:
        who = "Both" if len(seen) == 2 else f"All {count}"
        return f"{who} look at the same place, mostly {place(seen[0].cam)}"
    alone = set(range(len(seen))).difference(*shared)
    if alone:
        lone = alone.pop()
        return f"{names[lone]} looks elsewhere, mostly {place(seen[lone].cam)}"
    return f"The {count} look at places that overlap"


def why(task: Task, choices: Sequence[tuple[str, str]]) -> str:
    """The field that asks for another label's heatmaps; `choices` are names and labels; none, no field."""
    return str(_parts.why(f"Why not another {task.noun}?", choices)) if choices else ""


def alt_text(heatmap: Heatmap, name: str) -> str:
    """A heatmap for those who do not see it; `name` is that of its label."""
    model = model_name(heatmap.variant)
    if heatmap.raw_max <= 0:
        return f"The photo without colours: {model} found no region that speaks for {name}"
    return f"The photo with a heatmap: {model} found its evidence for {name} mostly {place(heatmap.cam)}"


def place(cam: NDArray[Any]) -> str:
    """Where a coarse map (rows, columns) is hottest: "at the top left", "in the center"."""
    row, column = divmod(int(cam.argmax()), cam.shape[1])
    vertical = ("top", "", "bottom")[3 * row // cam.shape[0]]
    horizontal = ("left", "", "right")[3 * column // cam.shape[1]]
    side = f"{vertical} {horizontal}".strip()
    return f"at the {side}" if side else "in the center"


# --- details


def details(prediction: Prediction, answer_json: Mapping[str, Any]) -> str:
    """The 90 % candidates, the timings, the model, and the whole answer as a file."""
    plural, model = words_of(prediction).plural, prediction.model
    coverage = (
        f"On photos like those it was checked with, the truth is among these {plural} nine times in ten."
    )
    return str(
        _parts.details(
            ", ".join(prediction.candidates_90),
            coverage,
            prediction.timing_ms,
            f"{model.source}, {model.backbone}, {model.classes} {plural}",
            f"It asks for a check below {percent(prediction.review.threshold)}.",
            json_file(f"pawmatch-{prediction.task}", answer_json, "Download the answer as JSON"),
        )
    )


def no_details() -> str:
    """Where details will be."""
    return str(_parts.paragraph(CHOOSE_PHOTO, "quiet"))


# --- the page "Compare"


def model_name(variant: str) -> str:
    """The variant's display name."""
    return VARIANT_NAMES.get(variant, variant)


def photos(count: int) -> str:
    """The count with its noun."""
    return "1 photo" if count == 1 else f"{count} photos"


def comparison_introduction() -> str:
    """The page's own title."""
    line = (
        f"Choose up to {MAX_COMPARED} photos to see how sure each of the models is, where they agree, "
        "and where they looked."
    )
    return str(_parts.part("Compare the models", line))


def comparison_empty(task: Task) -> str:
    """Before there is a comparison."""
    how = (
        f"Choose photos of {task.subject}s, up to {MAX_COMPARED}, and press Compare. Each model names the "
        f"{task.noun} on its own, and says how sure it is."
    )
    return str(_parts.empty("Nothing compared yet", how))


def comparing(title: str, text: str = "", share: float | None = None) -> str:
    """While photos are looked at, with how far that is."""
    return str(_parts.comparing(title, text, share))


def nothing_usable(refused: Sequence[tuple[str, str]]) -> str:
    """When no photo could be used: a file's name and a sentence about it, for each."""
    return str(_parts.nothing_usable(EVERY_PHOTO_REFUSED, refused))


def comparison(found: Comparison, refused: Sequence[tuple[str, str]], warning: str | None) -> str:
    """What there is to say about the models together, and the tables of their numbers."""
    names = [model_name(summary.variant) for summary in found.variants]
    models = [
        (
            name,
            [
                percent(summary.confidence.mean),
                percent(summary.confidence.median),
                f"{summary.confidence.at_half} of {summary.confidence.count}",
                *([right(summary)] if found.judged else []),
            ],
        )
        for name, summary in zip(names, found.variants, strict=True)
    ]
    pairs = [
        (f"{names[one]} and {names[other]}", [f"{found.agreement[one][other]} of {found.images}"])
        for one, other in combinations(range(len(names)), 2)
    ]
    columns = ["Model", "Mean", "Median", "50 % or more", *(["Right"] if found.judged else [])]
    return str(
        _parts.comparison(verdict(found), warning, surest(found), columns, models, pairs, list(refused))
    )


def verdict(found: Comparison) -> str:
    """In how many photos the models agree."""
    count, total, alike = len(found.variants), found.images, found.unanimous
    if count == 1:
        return f"One model looked at {photos(total)}"
    models = f"The {NUMBERS[count] if count < len(NUMBERS) else count} models"
    if total == 1:
        return f"{models} {'agree' if alike else 'disagree'} on this photo"
    if alike == 0:
        return f"{models} never all agree on these {total} photos"
    everything = "both photos" if total == 2 else f"all {total} photos"
    return f"{models} agree on {everything if alike == total else f'{alike} of {total} photos'}"


def surest(found: Comparison) -> str:
    """Which model is the surest on average, with the caution that belongs to it."""
    if len(found.variants) < 2:
        return CAUTION
    first = max(found.variants, key=lambda summary: summary.confidence.mean)
    sure = f"{model_name(first.variant)} is the surest, {percent(first.confidence.mean)} on average."
    return f"{sure} To be sure is not to be right. {CAUTION}"


def right(summary: VariantSummary) -> str:
    """How many of a model's answers are right."""
    return f"{summary.accuracy.right} of {summary.accuracy.judged}" if summary.accuracy else "not known"


def histograms(found: Comparison) -> str:
    """How often each model is how sure: one small histogram per model, all of one scale."""
    line = "How many photos there are for each confidence; the coloured ones are 50 % or more."
    panels = [
        (model_name(summary.variant), histogram_told(summary), summary.confidence.histogram)
        for summary in found.variants
    ]
    return str(_parts.histograms(line, panels, max(max(counts) for _, _, counts in panels)))


def histogram_told(summary: VariantSummary) -> str:
    """A histogram for those who do not see it."""
    counts = ", ".join(
        f"{photos(count)} from {10 * tenth} to {10 * (tenth + 1)} %"
        for tenth, count in enumerate(summary.confidence.histogram)
        if count
    )
    return f"{model_name(summary.variant)}: {counts}"


def photo_table(rows: Iterable[tuple[str, ImageAnswers]], truth_name: str) -> str:
    """One row per photo, given with its thumbnail's address: what each model sees in it.

    Right answers are marked where the truth is known. On a narrow screen a row is a block.
    """
    rows = list(rows)
    models = [model_name(answer.variant) for answer in rows[0][1].answers]
    told = [(address, image, [*photo_cells(image, truth_name)]) for address, image in rows]
    return str(_parts.photo_table(models, told, CHECK))


def photo_cells(image: ImageAnswers, truth_name: str) -> Iterable[tuple[str, str, float, bool, str]]:
    """For each model its name, its answer, how sure it is, whether it is right, and its view of the truth."""
    for index, answer in enumerate(image.answers):
        is_right = image.truth is not None and answer.label == image.truth
        is_wrong = image.truth is not None and not is_right
        other = f"{truth_name}: {percent(image.truth_confidences[index])}" if is_wrong else ""
        yield model_name(answer.variant), answer.name, answer.confidence, is_right, other


def sheets_title() -> str:
    """The title above the heatmap sheets."""
    line = "Click a sheet to enlarge it. All heatmaps of a sheet are for one answer."
    return str(_parts.part("Where they looked", line))


def sheet_told(image: ImageAnswers) -> str:
    """A heatmap sheet for those who do not see it, and the name under which it stands."""
    told = "; ".join(
        f"{model_name(answer.variant)}: {answer.name}, {percent(answer.confidence)}"
        for answer in image.answers
    )
    return f"{image.file}. {told}"


def comparison_file(values: Mapping[str, Any], task: str) -> str:
    """The comparison as a file."""
    file = json_file(f"pawmatch-compare-{task}", values, "Download the comparison as JSON")
    return str(_parts.comparison_file(file))
