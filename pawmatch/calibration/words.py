"""Free words beside the picture: which values of an attribute are meant by them, and nothing else."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import permutations

MAX_WORDS = 300  # characters that are read
# Between the words of one phrase, in one clause: so many characters, and fewer where no spaces are written.
GAP, SPACELESS_GAP = r"[^,;:.!?()]{1,20}?", r"[^,;:.!?()。、]{0,4}?"
_SPACELESS = re.compile("[\u3040-\u30ff\u3400-\u9fff]")
# What takes back a phrase after it, with one word between them at most; in Japanese, before it.
_NOT = re.compile(
    r"(?<!\w)(not?|non|never|without|nor|\w+n t|isnt|before|until|nicht|kein\w*|ohne|nie|weder|vor|bis|sin|ni"
    r"|nunca|antes|hasta|pas|sans|jamais|avant|jusqu\w*)([^\w,;.:]+\w+)?[^\w,;.:]+$|[不沒没無非].?$"
)
_NOT_AFTER = re.compile("^[^、。,]{0,6}?(ない|なし|無し|ません)")


@dataclass(frozen=True)
class Said:
    """How people put the values of one attribute, in any language.

    `phrases` has, for each value, phrases between semicolons: words that stand near each other in any order,
    "|" between those that do as well, "*" for any ending, "_" for a space within one. Value "" has phrases
    that mean no value, and keep their words from others. `measures` are regular expressions of a number with
    the factor to the unit of `bounds`: the n-th value is up to the n-th bound.
    """

    values: tuple[str, ...] = ()
    phrases: Mapping[str, str] = field(default_factory=dict)
    measures: Mapping[str, float] = field(default_factory=dict)
    bounds: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Claim:
    """That the words at `spans` mean a value; `gap` characters between them may mean something else."""

    attribute: str
    value: str
    spans: tuple[tuple[int, int], ...]

    @property
    def length(self) -> int:
        return sum(end - start for start, end in self.spans)

    @property
    def gap(self) -> int:
        return self.spans[-1][1] - self.spans[0][0] - self.length

    def hits(self, spans: tuple[tuple[int, int], ...]) -> bool:
        return any(start < end and begin < stop for start, stop in self.spans for begin, end in spans)


def plain(text: str) -> str:
    """Text in small letters, with a space for dashes and apostrophes, and without accents."""
    spread = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(sign for sign in spread if not "\u0300" <= sign <= "\u036f")
    return re.sub(r"[-‐-―'’_\s]+", " ", bare)


def understood(attributes: Mapping[str, Said], words: str) -> dict[str, str]:
    """The values that `words` mean, by attribute; of more than MAX_WORDS characters only the first count.

    A word belongs to the phrase that has most words, closest to each other. Nothing is given for an attribute
    of which two values are named, nor for what is taken back ("not big").
    """
    text = plain(words[:MAX_WORDS])[: 2 * MAX_WORDS]  # one sign may be spelt out as many
    claims = [claim for key, said in attributes.items() for claim in _claims(key, said, text)]
    taken: list[tuple[tuple[int, int], ...]] = []
    found: dict[str, set[str]] = {}
    for one in sorted(claims, key=lambda one: (-len(one.spans), one.gap, -one.length)):
        if one.spans not in taken and any(map(one.hits, taken)):
            continue
        taken.append(one.spans)
        before, after = text[: one.spans[0][0]], text[one.spans[-1][1] :]
        if one.value and not _NOT.search(before) and not _NOT_AFTER.search(after):
            found.setdefault(one.attribute, set()).add(one.value)
    return {key: values.pop() for key, values in found.items() if len(values) == 1}


def _claims(key: str, said: Said, text: str) -> Iterator[_Claim]:
    for value, phrases in said.phrases.items():
        for pattern in (pattern for phrase in phrases.split(";") for pattern in _patterns(phrase)):
            for match in pattern.finditer(text):
                yield _Claim(key, value, tuple(map(match.span, range(1, pattern.groups + 1))))
    for measure, factor in said.measures.items():
        for match in re.finditer(measure, text):
            above = sum(float(match[1].replace(",", ".")) * factor > bound for bound in said.bounds)
            yield _Claim(key, said.values[above], (match.span(),))


@cache
def _patterns(phrase: str) -> tuple[re.Pattern[str], ...]:
    """One expression for each order of a phrase's words, each of these a group, that finds all overlaps."""
    spaceless = _SPACELESS.search(phrase)
    gap, start, end = (SPACELESS_GAP, "", "") if spaceless else (GAP, r"(?<!\w)", r"(?!\w)")
    words = []
    for word in phrase.split():
        longest_first = sorted(map(plain, word.split("|")), key=len, reverse=True)
        anyhow = "|".join(longest_first).replace("*", r"\w*")
        words.append(f"{start}({anyhow}){end}")
    return tuple(re.compile(f"(?={gap.join(order)})") for order in permutations(words))
