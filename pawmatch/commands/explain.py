"""`pawmatch explain`: show where each of the architectures found its evidence."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pawmatch.commands.console import (
    add_model_options,
    check_label,
    check_out_folder,
    complain,
    load_models,
    missing_files,
    say,
    say_json,
)
from pawmatch.commands.rows import json_record
from pawmatch.errors import BadOption, ImageError
from pawmatch.labels import COLORMAPS, VARIANT_NAMES
from pawmatch.phrasing import listed, percent, verdict_line

if TYPE_CHECKING:
    from PIL import Image

    from pawmatch.results import Explanation

SUMMARY = "Show where each architecture found evidence for an answer."
EPILOG = """\
Writes NAME.<variant>.jpg for each variant, and NAME.sheet.jpg with all of them side by side, where
NAME is the image's name without its ending. Files of that name are replaced.

--parts writes NAME.parts.jpg, too: over the photo, how much each attention head of the last layer draws from
each place; and what each morphological branch adds to the label's logit, as an exact Shapley value.
"""
QUALITY = 92  # of the JPEG files; lower values make edges of the colours visible


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `explain`."""
    parser.add_argument("image", metavar="IMAGE", help="the image to explain, or its web address")
    add_model_options(parser)
    parser.add_argument("--label", metavar="NAME", help="what to look for (default: the first answer)")
    parser.add_argument(
        "--out", type=Path, default=Path(), metavar="DIR", help="where to write (default: this folder)"
    )
    parser.add_argument(
        "--colormap", default="jet", metavar="MAP", help=f"{listed(tuple(COLORMAPS))} (default: jet)"
    )
    parser.add_argument(
        "--strength",
        type=float,
        default=0.6,
        metavar="X",
        help="strength of the colours, 0 to 1 (default: 0.6)",
    )
    parser.add_argument("--parts", action="store_true", help="show what attention heads and branches do")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Explain one image and write the pictures; 1 if the image cannot be used."""
    if args.colormap not in COLORMAPS:
        raise BadOption(f"Color map {args.colormap!r} is unknown; use one of {', '.join(COLORMAPS)}.")
    if not 0 <= args.strength <= 1:
        raise BadOption(f"Strength {args.strength} is outside 0 to 1.")
    check_label(args.label, args.task, args.source)
    for exc in missing_files([args.image], fetched=True).values():
        return refuse(args, exc)
    check_out_folder(args.out)
    classifier = load_models(args)
    from pawmatch.heatmaps import draw_sheet
    from pawmatch.parts import draw_parts

    try:
        explanation = classifier.explain(
            args.image, args.label, colormap=args.colormap, strength=args.strength, parts=args.parts
        )
    except ImageError as exc:
        return refuse(args, exc)
    pictures = {**explanation.overlays, "sheet": draw_sheet(explanation)}
    if args.parts:
        pictures["parts"] = draw_parts(explanation, colormap=args.colormap, strength=args.strength)
    files = write_pictures(pictures, args.out, stem_of(args.image))
    if args.json:
        values = explanation.to_dict()
        values["explanation"]["files"] = {name: str(path) for name, path in files.items()}
        say_json(values, indent=2)
    else:
        describe(args.image, explanation, files)
    return 0


def refuse(args: argparse.Namespace, exc: ImageError) -> int:
    """Say why the image cannot be used."""
    if args.json:
        say_json(json_record(args.image, exc))
    else:
        complain(f"{args.image}: {exc}")
    return 1


def stem_of(image: str) -> str:
    """What the pictures that are written are called after."""
    parts = urlsplit(image)
    return (Path(unquote(parts.path)) if parts.scheme in ("http", "https") else Path(image)).stem or "picture"


def write_pictures(pictures: Mapping[str, Image.Image], out: Path, stem: str) -> dict[str, Path]:
    """Write the pictures, of variants and sheets by name; returns name -> file."""
    out.mkdir(parents=True, exist_ok=True)
    files = {name: out / f"{stem}.{name}.jpg" for name in pictures}
    for name, picture in pictures.items():
        picture.save(files[name], quality=QUALITY)
    return files


def describe(file: str, explanation: Explanation, files: dict[str, Path]) -> None:
    """What was found, and which files were written."""
    say(f"{file}: {verdict_line(explanation.prediction)}")
    for reason in explanation.prediction.review.reasons:
        say(f"  check: {reason.message}")
    say(f"Evidence for {explanation.name}:")
    answers = {answer.variant: answer for answer in explanation.prediction.variants}
    for variant, heatmap in explanation.heatmaps.items():
        found = percent(heatmap.confidence) if heatmap.raw_max > 0 else "none anywhere in the image"
        answer = answers[variant]
        say(f"  {VARIANT_NAMES[variant]}: {found}; its answer is {answer.name}, {percent(answer.confidence)}")
    for variant, parts in explanation.parts.items():
        if parts.branches:
            shares = (f"{name.replace('_', ' ')} {share:+.3f}" for name, share in parts.branches.items())
            say(f"  branches of {VARIANT_NAMES[variant]}: {', '.join(shares)}")
            say(f"    together they bring its logit from {parts.silent:+.2f} to {parts.logit:+.2f}")
    for path in files.values():
        say(f"wrote {path}")
