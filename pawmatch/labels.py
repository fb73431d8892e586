"""Class names: the lists in checkpoint order, how they are written for people, and how to find one."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files

from pawmatch.errors import BadOption, UnknownLabel
from pawmatch.phrasing import listed

LABEL_LISTS = {
    "breed": "the 124 breeds of the published checkpoint, in its order",
    "breed120": "the 120 breeds of Stanford Dogs, in alphabetical order",
    "artist": "11 painters, in alphabetical order",
}

# Labels follow ImageNet and WikiArt, whose names are partly old, cut short, or without accents. These are
# the names in use today, mostly those of the kennel clubs. "Eskimo_Dog" and "Toy_Terrier" stay as they
# are: the pictures under them show several breeds, none of which is the one that such a name means now.
DISPLAY_NAMES = {
    "African_Hunting_Dog": "African Wild Dog",
    "Airedale": "Airedale Terrier",
    "Appenzeller": "Appenzeller Sennenhund",
    "Basset": "Basset Hound",
    "Bluetick": "Bluetick Coonhound",
    "Boston_Bull": "Boston Terrier",
    "Bouvier_Des_Flandres": "Bouvier des Flandres",
    "Brabancon_Griffon": "Brussels Griffon",
    "Brittany_Spaniel": "Brittany",
    "Bull_Mastiff": "Bullmastiff",
    "Cairn": "Cairn Terrier",
    "Cardigan": "Cardigan Welsh Corgi",
    "Chow": "Chow Chow",
    "Clumber": "Clumber Spaniel",
    "Dandie_Dinmont": "Dandie Dinmont Terrier",
    "English_Springer": "English Springer Spaniel",
    "EntleBucher": "Entlebucher Mountain Dog",
    "German_Short-Haired_Pointer": "German Shorthaired Pointer",
    "Groenendael": "Belgian Sheepdog (Groenendael)",
    "Japanese_Spaniel": "Japanese Chin",
    "Kelpie": "Australian Kelpie",
    "Leonberg": "Leonberger",
    "Lhasa": "Lhasa Apso",
    "Malamute": "Alaskan Malamute",
    "Malinois": "Belgian Malinois",
    "Maltese_Dog": "Maltese",
    "Mexican_Hairless": "Xoloitzcuintli (Mexican Hairless)",
    "Paul_Cezanne": "Paul Cézanne",
    "Pekinese": "Pekingese",
    "Pembroke": "Pembroke Welsh Corgi",
    "Redbone": "Redbone Coonhound",
    "Scotch_Terrier": "Scottish Terrier",
    "Soft-Coated_Wheaten_Terrier": "Soft Coated Wheaten Terrier",
    "Staffordshire_Bullterrier": "Staffordshire Bull Terrier",
    "Walker_Hound": "Treeing Walker Coonhound",
    "Wire-Haired_Fox_Terrier": "Wire Fox Terrier",
}

SUGGESTIONS = 3
_LONGEST_SHOWN = 60  # characters; no name is longer, and what was typed is repeated in the message


@cache
def read_labels(name: str) -> tuple[str, ...]:
    """A list of labels in the order of a classifier's outputs; `name` is a key of LABEL_LISTS."""
    if name not in LABEL_LISTS:
        raise BadOption(f"Label list {name[:40]!r} is unknown; use one of {', '.join(LABEL_LISTS)}.")
    text = (files("pawmatch") / "labels" / f"{name}.txt").read_text(encoding="utf-8")
    return tuple(text.split())


def display_name(label: str) -> str:
    """What people call the class: "Border_Collie" -> "Border Collie", "Pekinese" -> "Pekingese"."""
    return DISPLAY_NAMES.get(label) or label.replace("_", " ").strip()


def find_label(labels: Sequence[str], text: str) -> str:
    """The label that `text` means: a label or a display name, whatever its case, accents and separators.

    Raises UnknownLabel, which names up to three classes that are spelt alike.
    """
    # Labels come last, so that one which is spelt like another's display name still means itself.
    known = {spelling_key(display_name(label)): label for label in labels} | {
        spelling_key(label): label for label in labels
    }
    wanted = spelling_key(text)
    if wanted in known:
        return known[wanted]
    names = [display_name(known[key]) for key in _alike(wanted, known)]
    suggested = list(dict.fromkeys(names))[:SUGGESTIONS]
    shown = repr(text.strip()[:_LONGEST_SHOWN])
    if not suggested:
        example = f", such as {display_name(labels[0])}" if labels else ""
        raise UnknownLabel(f"{shown} is not among the {len(labels)} classes; use one of them{example}.")
    raise UnknownLabel(f"{shown} is not among the {len(labels)} classes; did you mean {listed(suggested)}?")


def _alike(wanted: str, known: Iterable[str]) -> list[str]:
    """First the keys that hold the wanted one whole ("corgi"), then those that resemble it ("corgy")."""
    whole = [key for key in known if len(wanted) > 2 and wanted in key]
    return whole + difflib.get_close_matches(wanted[:_LONGEST_SHOWN], known, n=2 * SUGGESTIONS)


def spelling_key(text: str) -> str:
    """The letters and digits of a name, without case, accents and separators."""
    return "".join(char for char in unicodedata.normalize("NFKD", text).casefold() if char.isalnum())
