"""The cases of the write-up on breeds, of one class: docs/cases.md with its figures, by one command.

python -m benchmarks.cases --photos dogs_whole [--crops dogs] [--drawings drawings/] [--label Border_Collie]

--photos and --crops have a folder per class, --drawings any pictures. Only numbers of them go onto the page.
The pictures that it shows are drawn by benchmarks/drawings.py, whatever the label is.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageOps

from benchmarks.drawings import border_collie, pencil
from pawmatch import load
from pawmatch.classifier import Classifier
from pawmatch.commands.compare import Walk
from pawmatch.errors import PawMatchError
from pawmatch.evaluation.compare import BINS, EDGES, ImageAnswers, compare
from pawmatch.evaluation.figures import COLORS, MARKS, MUTED, headline, percent_axis, style
from pawmatch.evaluation.folders import find_images, labelled_files
from pawmatch.heatmaps import draw_square_sheet
from pawmatch.images import ImageSource, read_image
from pawmatch.labels import VARIANT_NAMES, display_name, find_label
from pawmatch.metrics import mean
from pawmatch.parts import draw_parts, effective_places
from pawmatch.phrasing import percent, tenths
from pawmatch.results import Parts

DRAWN = "Border_Collie"  # what the pictures show
OTHERS = "drawings, label unknown"
FIRST, *_, LAST = VARIANT_NAMES
SAID_F1 = (87.83, 89.48, 88.70)  # in the write-up, by variant
SHEET_WIDTH = 640
WIDE = 5.0  # inches of a chart: its letters can then be read on a phone

Picture = tuple[str, ImageSource]
CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "turned by 30°": lambda picture: turned(picture, 30),
    "turned by -30°": lambda picture: turned(picture, -30),
    "turned by 90°": lambda picture: picture.rotate(90, expand=True),
    "in gray": lambda picture: ImageOps.grayscale(picture).convert("RGB"),
    "as a pencil drawing": pencil,
}


def turned(picture: Image.Image, degrees: float) -> Image.Image:
    """The picture turned within its frame; corners that become empty get its mean color."""
    mean_color = tuple(int(value) for value in np.asarray(picture).mean(axis=(0, 1)))
    return picture.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=mean_color)


def ask(classifier: Classifier, pictures: Iterable[Picture], truth: str | None) -> list[ImageAnswers]:
    """What the variants answer to each picture that can be read."""
    walk = Walk(classifier, None, 0, differ=False)
    names: list[str] = []

    def images() -> Iterator[ImageSource]:
        for name, picture in pictures:
            names.append(name)
            yield picture

    entries = classifier.run_batches(images())
    return [
        walk.answered(names[place], entry, truth)
        for place, entry in enumerate(entries)
        if not isinstance(entry, PawMatchError)
    ]


def of_class(folder: Path, classifier: Classifier, label: str) -> list[Path]:
    """The files of one class."""
    files = labelled_files(folder, classifier.labels)
    return [file.path for file in files if classifier.labels[file.target] == label]


def collected(args: argparse.Namespace, classifier: Classifier, label: str) -> dict[str, list[ImageAnswers]]:
    """The sets of pictures by name, with what the variants answer."""

    def asked(paths: Iterable[Path], truth: str | None) -> list[ImageAnswers]:
        return ask(classifier, ((path.stem, path) for path in paths), truth)

    photos = of_class(args.photos, classifier, label)
    sets = {"photos": asked(photos, label)}
    if args.crops:
        sets["crops"] = asked(of_class(args.crops, classifier, label), label)
    for name, change in CHANGES.items():
        pictures = ((path.stem, change(read_image(path).image)) for path in photos)
        sets[f"photos {name}"] = ask(classifier, pictures, label)
    if args.drawings:
        drawings = (Path(path) for path, refused in find_images([str(args.drawings)]) if refused is None)
        sets[OTHERS] = asked(drawings, None)
    return sets


# --- the figures


def sure(image: ImageAnswers) -> tuple[float, ...]:
    """Each variant's confidence in the true label, or where that is unknown in its first choice."""
    return image.truth_confidences or tuple(answer.confidence for answer in image.answers)


def draw_samples(images: list[ImageAnswers], name: str) -> Figure:
    """Figure 1: a row per photo, a mark per variant, hollow where its first choice is wrong."""
    images = sorted(images, key=lambda image: np.mean(sure(image)))
    figure = Figure(figsize=(WIDE, 1.5 + 0.24 * len(images)))
    axes = figure.subplots()
    for row, image in enumerate(images):
        axes.plot([min(sure(image)), max(sure(image))], [row, row], color=MUTED, linewidth=0.8)
        for answer, confidence in zip(image.answers, sure(image), strict=True):
            color = COLORS[answer.variant]
            face = color if answer.label == image.truth else "white"
            axes.plot(
                confidence,
                row,
                marker=MARKS[answer.variant],
                linestyle="none",
                markersize=7,
                markeredgecolor=color,
                markerfacecolor=face,
            )
    axes.set_yticks(range(len(images)), [image.file for image in images])
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.7, len(images) - 0.3))
    percent_axis(axes, x=True)
    marks = [
        Line2D([], [], linestyle="none", marker=MARKS[variant], color=COLORS[variant], label=told)
        for variant, told in VARIANT_NAMES.items()
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=3, handletextpad=0.1, columnspacing=0.8)
    headline(figure, f"Confidence in {name}", "a row per photo; hollow: the first choice is wrong")
    return figure


def draw_spread(sets: dict[str, list[ImageAnswers]]) -> Figure:
    """Figure 2: how the confidence is spread, a row per set and a column per variant."""
    figure = Figure(figsize=(WIDE, 1.2 + 1.15 * len(sets)))
    rows = figure.subplots(len(sets), len(VARIANT_NAMES), sharex=True, sharey="row", squeeze=False)
    for axes, name in zip(rows[0], VARIANT_NAMES.values(), strict=True):
        axes.annotate(name, (0, 1), (0, 17), xycoords="axes fraction", textcoords="offset points", fontsize=8)
    for row, (told, images) in zip(rows, sets.items(), strict=True):
        values = np.array([sure(image) for image in images])
        row[0].set_title(f"{told} ({len(images)})", loc="left", fontsize=9, fontweight="bold")
        for column, (axes, variant) in enumerate(zip(row, VARIANT_NAMES, strict=True)):
            counts, _ = np.histogram(values[:, column], bins=EDGES)
            axes.bar(EDGES[:-1], counts, 0.86 / BINS, align="edge", color=COLORS[variant])
            axes.axvline(values[:, column].mean(), color="black", linewidth=1.2)
            axes.set_xticks((0, 0.5, 1))
            axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
            percent_axis(axes, x=True)
    headline(
        figure, "How confidence is spread", "in the true label; of drawings in the first choice. Line: mean"
    )
    return figure


def save_sheet(picture: Image.Image, path: Path) -> None:
    """Write a sheet as wide as a page shows it."""
    height = round(picture.height * SHEET_WIDTH / picture.width)
    picture.resize((SHEET_WIDTH, height), Image.Resampling.LANCZOS).save(path, quality=80, optimize=True)


def drawn_cases(classifier: Classifier, out: Path) -> tuple[dict[str, ImageAnswers], int, int]:
    """Write sheets of heatmaps of drawings: from the front, wrong by the CNN, wrong by all, by pencil.

    Returns these cases, how many pictures there were, and how many of them the app turns away.
    """
    own = {"the head": border_collie(frontal=True), "the dog from the side": border_collie(frontal=False)}
    pictures = dict(own)
    for name, picture in own.items():
        pictures |= {f"{name}, {told}": change(picture) for told, change in CHANGES.items()}
    answers = {image.file: image for image in ask(classifier, pictures.items(), DRAWN)}
    front = answers["the head"]
    corrected = [a for a in answers.values() if FIRST not in a.right and a.right]
    hard = [a for a in answers.values() if not a.right]
    cases = {"frontal": front, "drawing": answers["the dog from the side, as a pencil drawing"]}
    if corrected:
        cases["wrong"] = max(corrected, key=lambda image: max(sure(image)[1:]))
    if hard:
        cases["hard"] = min(hard, key=lambda image: max(sure(image)))
    for name, image in cases.items():
        picture = pictures[image.file]
        explanation = classifier.explain(picture, DRAWN, colormap="viridis", parts=name == "frontal")
        save_sheet(draw_square_sheet(picture, explanation, is_truth=True), out / f"{name}.jpg")
        if explanation.parts:
            save_sheet(draw_parts(explanation, colormap="viridis"), out / "parts.jpg")
    verdicts = [entry.verdict.code for entry in map(classifier.predict, pictures.values())]
    return cases, len(pictures), verdicts.count("outside")


# --- the page


def each(values: Iterable[float | int | None]) -> str:
    """A value per variant, as "0.80, 0.79, 0.77"."""
    return ", ".join("" if value is None else f"{value:.2f}" if value % 1 else f"{value}" for value in values)


def statistics(sets: dict[str, list[ImageAnswers]]) -> Iterator[str]:
    """Table 3: a row per set, and in each cell a value per variant."""
    yield "| pictures | mean | median | std | lowest | 50 % or more | right |\n|---|---|---|---|---|---|---|"
    for name, images in sets.items():
        told = compare(images).variants
        first = [summary.confidence for summary in told]
        cells = [
            f"{name} ({len(images)})",
            *(each(getattr(one, key) for one in first) for key in ("mean", "median", "std", "min")),
            each(one.at_half_or_more.images for one in first),
            each(one.accuracy.right for one in told if one.accuracy),
        ]
        yield f"| {' | '.join(cells)} |"


def rise(sets: dict[str, list[ImageAnswers]]) -> Iterator[str]:
    """How sure each variant is of the truth, and by how much the last one is surer than the first."""
    yield "| pictures | in the true label | MFE less CNN | rises |\n|---|---|---|---|"
    for name, images in sets.items():
        if name == OTHERS:
            continue
        values = np.array([sure(image) for image in images])
        means, gain = values.mean(axis=0), mean(values[:, -1] - values[:, 0])
        told = f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
        answer = "yes" if (np.diff(means) > 0).all() else "no"
        yield f"| {name} ({len(images)}) | {each(means)} | {told} | {answer} |"


def row_of(image: ImageAnswers) -> str:
    """A picture's answers as a row; in brackets what a wrong variant has for the truth."""
    cells = [image.file]
    for answer, true in zip(image.answers, sure(image), strict=True):
        instead = "" if answer.label == image.truth else f" ({percent(true)})"
        cells.append(f"{answer.name} {percent(answer.confidence)}{instead}")
    return f"| {' | '.join(cells)} |"


def views(classifier: Classifier, photos: list[Path], label: str) -> Iterator[str]:
    """What heads and branches do over all photos."""
    found: dict[str, list[Parts]] = {}
    for photo in photos:
        outputs = classifier.run_models([classifier.prepare(photo)])[0]
        for variant, parts in classifier.parts(outputs, label).items():
            found.setdefault(variant, []).append(parts)
    yield "| variant | places that a head is spread over | on the edge | overlap of two heads |"
    yield "|---|---|---|---|"
    for variant, several in found.items():
        maps = [parts.attention[-1] for parts in several if parts.attention is not None]
        if maps:
            spread = np.array([[effective_places(head) for head in heads] for heads in maps])
            shared = [np.minimum(a, b).sum() for heads in maps for a, b in combinations(heads, 2)]
            edge = 1 - np.mean([heads[:, 1:-1, 1:-1].sum(axis=(1, 2)) for heads in maps])
            even = 1 - maps[0][0, 1:-1, 1:-1].size / maps[0][0].size
            low, high = spread.mean(axis=0).min(), spread.mean(axis=0).max()
            told = f"{low:.0f} to {high:.0f} of {maps[0][0].size}, by head"
            outer = f"{edge:.2f} (even: {even:.2f})"
            yield f"| {VARIANT_NAMES[variant]} | {told} | {outer} | {np.mean(shared):.2f} |"
    yield "\n| branch | mean contribution to the logit | mean size |\n|---|---|---|"
    several = [parts for parts in next(reversed(found.values())) if parts.branches]
    for name in several[0].branches if several else ():
        values = np.array([parts.branches[name] for parts in several])
        yield f"| {name.replace('_', ' ')} | {values.mean():+.3f} | {np.abs(values).mean():.3f} |"
    together = np.array([parts.logit - parts.silent for parts in several])
    logit, size = np.mean([parts.logit for parts in several]), np.abs(together).mean()
    yield f"| all together | {together.mean():+.3f} | {size:.3f} |"
    yield f"\nThe logit is {logit:.2f} on average: the branches together move it by {tenths(size / logit)}."


def claims(classifier: Classifier, sets: dict[str, list[ImageAnswers]]) -> Iterator[str]:
    """What else the write-up claims, whether it holds, and what was measured."""
    metrics = [member.checkpoint.config.metrics for member in classifier.members.values()]
    scores = [100 * float(values.get("macro_f1", float("nan"))) for values in metrics]
    same = np.array_equal(np.argsort(scores), np.argsort(SAID_F1))
    order = "the order holds" if same else "the order does not hold"
    yield f"- Macro-F1 is {each(SAID_F1)}: {order}. Here it is {each(scores)}, over all classes."
    images = [image for name, several in sets.items() if name != OTHERS for image in several]
    first, last = (np.array([name in image.right for image in images]) for name in (FIRST, LAST))
    righted, spoiled = int((last & ~first).sum()), int((first & ~last).sum())
    does = "does" if righted > spoiled else "does not"
    yield f"- {VARIANT_NAMES[LAST]} rights what the CNN gets wrong: it {does}. Of all {len(images)} labelled"
    yield f"  pictures it rights {righted}, and gets {spoiled} wrong that the CNN has right."


def page(args: argparse.Namespace, classifier: Classifier, label: str, out: Path) -> str:
    """The page; its figures go into the folder `out`."""
    name, sets = display_name(label), collected(args, classifier, label)
    with style():
        draw_samples(sets["photos"], name).savefig(out / "samples.png", dpi=130)
        draw_spread(sets).savefig(out / "spread.png", dpi=130)
    cases, drawn, refused = drawn_cases(classifier, out)
    photos = sets["photos"]
    hardest = min(photos, key=lambda image: max(sure(image)))
    differing = sorted((one for one in photos if not one.agreed), key=lambda one: -one.difference)
    wrong = [one for one in photos if FIRST not in one.right]
    shown = {one.file: one for one in (*differing, *wrong, hardest)}
    head = f"| picture | {' | '.join(VARIANT_NAMES.values())} |\n|---|---|---|---|"
    sheets = [
        f"**{title}**: {cases[kind].file}.\n\n{figure(f'{kind}.jpg', f'{title}, with three heatmaps')}\n"
        for kind, title in TITLES.items()
        if kind in cases
    ]
    return TEXT.format(
        name=name,
        true=display_name(DRAWN),
        command=f"python -m benchmarks.cases {shlex.join(sys.argv[1:])}",
        photos=len(photos),
        rise="\n".join(rise(sets)),
        claims="\n".join(claims(classifier, sets)),
        statistics="\n".join(statistics(sets)),
        cases="\n".join([head, *map(row_of, shown.values())]),
        hardest=hardest.file,
        differing=len(differing),
        samples=figure("samples.png", "Confidence of the three variants in the true label, photo by photo"),
        spread=figure("spread.png", "Histograms of the confidence, for each variant and set of pictures"),
        parts=figure("parts.jpg", "A map of each attention head, and bars for the five branches"),
        own="\n".join([head, *map(row_of, cases.values())]),
        drawn=drawn,
        refused=refused,
        sheets="\n".join(sheets),
        views="\n".join(views(classifier, of_class(args.photos, classifier, label), label)),
    )


def figure(file: str, told: str) -> str:
    """A figure as the page shows it, described for those who do not see it."""
    return f'<img src="cases/{file}" alt="{told}" width="480">'


TITLES = {
    "frontal": "A frontal view",
    "wrong": "A case that the CNN gets wrong",
    "hard": "A case that all get wrong",
    "drawing": "A pencil drawing",
}
TEXT = """\
# Cases: {name}

What the write-up on breeds shows of its three variants on single pictures, measured anew with the bundled
weights by one command, which writes this page and its figures:

```bash
{command}
```

`--photos` and `--crops` have a folder per class. The {photos} photos are ones that no weight has seen; crops
may have been seen by the pretrained backbone (those of Stanford Dogs have), but not by the heads. Only their
numbers are shown; the pictures on this page are drawn by `benchmarks/drawings.py`. The command also turns the
photos, makes them gray, and makes pencil drawings of them: the gray of each place over that around it.
Confidence is calibrated, as the app shows it. Where a cell has three values, they are those of CNN,
CNN + Transformer, and CNN + Transformer + MFE.

## What holds of the write-up

Confidence rises by the variant, 0.46, 0.52, 0.61. Here, with 95 % intervals of the paired differences:

{rise}

{claims}

Data and weights are others than the write-up's: what does not hold here may have held there.

## Figure 1: photo by photo

{samples}

## Figure 2: how confidence is spread

{spread}

## Table 3: statistics

Of the confidence in the first choice; at how many pictures it is 50 % or more; how many answers are right:

{statistics}

## Cases among the photos

The {differing} of {photos} on which the variants differ (`pawmatch compare FOLDER --differ`), any other that
the CNN gets wrong, and {hardest}, the hardest for all. In brackets: what a wrong variant has for the truth.

{cases}

## Cases, drawn

Two drawings, each turned, in gray and by pencil, too: of these {drawn} pictures the app turns {refused}
away as something else, whatever the variants say.

{own}

Heatmaps are for the truth, {true}; yellow is high.

{sheets}
## Views into the parts

`pawmatch explain PICTURE --parts`, of the frontal view: how much each attention head draws from each place,
and what each morphological branch contributes to the logit, counted from the mean of all classes (an exact
Shapley value). What fusion does with the features alone is no branch's, and is not counted.

{parts}

Over the {photos} photos; the edge of the map is where most photos show no more of the dog, and the overlap of
two maps is 1 where they are equal:

{views}
"""


def main() -> None:
    """Measure, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="photos that no weight has seen")
    parser.add_argument("--crops", type=Path, help="other labelled pictures")
    parser.add_argument("--drawings", type=Path, help="drawings of which the label is not known")
    parser.add_argument("--label", default=DRAWN)
    parser.add_argument("--source", help="weights (default: the bundled ones)")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    args = parser.parse_args()
    classifier = load("breed", args.source)
    figures = args.out / "cases"
    figures.mkdir(parents=True, exist_ok=True)
    text = page(args, classifier, find_label(classifier.labels, args.label), figures)
    (args.out / "cases.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
