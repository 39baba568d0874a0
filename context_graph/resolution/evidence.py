"""Whether two names are one thing, tier by tier: normal form, part, initials, spelling, meaning.

A pure, symmetric function of the two ids (and for the last tier of their vectors): no name depends on when another
came. Thresholds were set on the development part of the labelled pairs (`tests/quality/entities`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rapidfuzz import fuzz
from rapidfuzz.distance import DamerauLevenshtein

from context_graph.domain.entity_names import (
    FUZZY_LABELS,
    INITIALS_OF,
    PARTIAL_LABELS,
    normal,
    parts,
    split_id,
)

Tier = Literal["decided", "alias", "part", "initials", "fuzzy", "embedding"]
Likeness = Callable[[str, str], float | None]
"""Cosine similarity of two names, None where it is not known."""

_FUZZY = 90.0  # rapidfuzz's token_sort_ratio, 0..100
_WEAK = 70.0  # from here on the vectors may speak
_ALIKE = 0.86  # cosine of MiniLM; of its 384 numbers unrelated names reach 0.5
_SHORTEST = 8  # letters of a name that may be misspelled: of "mei li" another letter is another person


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why two names are one thing; `confidence` 0..1; `short`: of a part, the shorter name's id."""

    tier: Tier
    confidence: float
    why: str
    short: str | None = None


def evidence(left: str, right: str, likeness: Likeness | None = None) -> Evidence | None:
    """What speaks for two entity ids being one thing, or None."""
    if left > right:
        left, right = right, left
    (label, name), (other_label, other) = split_id(left), split_id(right)
    if label != other_label:
        return _across(label, name, other_label, other)
    form, other_form = normal(label, name), normal(label, other)
    if form == other_form:
        return Evidence("alias", 1.0, f"both are {form!r}")
    if label in PARTIAL_LABELS:
        return _part(label, (left, name, form), (right, other, other_form))
    if label == "id":
        return _numbered(form, other_form)
    if label in FUZZY_LABELS:
        initials = _initialled((left, form), (right, other_form)) if label == "person" else None
        return initials or _spelled(label, form, other_form) or _meant(label, form, other_form, likeness)
    return None


def _across(label: str, name: str, other_label: str, other: str) -> Evidence | None:
    """An acronym and what it may stand for; other labels are other things."""
    if other_label == "acronym":
        label, name, other_label, other = other_label, other, label, name
    if label != "acronym" or other_label not in (*INITIALS_OF, "id"):
        return None
    form = normal(other_label, other)
    if normal(label, name) == form:
        return Evidence("alias", 0.95, f"both are {form!r}")
    words = form.split()
    if len(words) > 1 and "".join(word[0] for word in words) == name:
        return Evidence("initials", 0.8, f"{name!r} are the initials of {other!r}")
    return None


def _part(label: str, left: tuple[str, str, str], right: tuple[str, str, str]) -> Evidence | None:
    for (short_id, _, short), (_, name, form) in ((left, right), (right, left)):
        if short in parts(label, name):
            return Evidence("part", 0.85, f"{short!r} is how {form!r} ends", short_id)
    return None


def _initialled(left: tuple[str, str], right: tuple[str, str]) -> Evidence | None:
    """`m kowalczyk` and `marta kowalczyk`: the same surname, as many names, and one has initials where they differ.

    As with any part, initials that fit two people are nobody's (`clusters.py`). Of a surname of three letters or fewer
    they are not looked for: such names share no block.
    """
    for (short_id, short), (_, form) in ((left, right), (right, left)):
        *initials, surname = short.split()
        *names, other = form.split()
        if surname != other or len(surname) < 4 or not names or len(names) != len(initials):
            continue
        if all(a == b or (len(a) == 1 and b.startswith(a)) for a, b in zip(initials, names, strict=True)):
            return Evidence("initials", 0.8, f"{short!r} has initials of {form!r}", short_id)
    return None


def _numbered(form: str, other: str) -> Evidence | None:
    """`certificate 4856383` and 4856383: one has the other's whole number, of six digits or more, behind a word."""
    short, long = sorted((form, other), key=len)
    if len(short) > 5 and short.isdigit() and re.fullmatch(rf"[a-z]+{short}", long):
        return Evidence("part", 0.85, f"{long!r} is {short!r} with its kind")
    return None


def _spelled(label: str, form: str, other: str) -> Evidence | None:
    if _digits(form) != _digits(other):
        return None
    if form.replace(" ", "").replace("-", "") == other.replace(" ", "").replace("-", ""):
        return Evidence("fuzzy", 0.95, "they differ in blanks alone")
    likely = fuzz.token_sort_ratio(form, other)
    distance = DamerauLevenshtein.distance(form, other)
    shortest = min(len(form), len(other))
    if likely == 100 and " " in form:
        return Evidence("fuzzy", 0.9, "they differ in the order of words alone")
    if (
        likely >= _FUZZY
        and shortest >= _SHORTEST
        and distance <= 1 + (shortest > 14)
        and _one_word_differs(form, other)
    ):
        return Evidence("fuzzy", round(likely / 100 * 0.9, 3), f"spelled alike: {likely:.0f} of 100")
    return None


def _one_word_differs(form: str, other: str) -> bool:
    """Misspelling leaves the beginnings of words alone, and other words whole."""
    words, others = form.split(), other.split()
    if len(words) != len(others):
        return False
    wrong = [(word, also) for word, also in zip(words, others, strict=True) if word != also]
    return len(wrong) == 1 and wrong[0][0][0] == wrong[0][1][0] and min(map(len, wrong[0])) > 4


def _meant(label: str, form: str, other: str, likeness: Likeness | None) -> Evidence | None:
    """Names of things that are written alike and mean the same. Persons are not told apart by meaning."""
    if likeness is None or label in ("person", "place") or _digits(form) != _digits(other):
        return None
    if fuzz.token_sort_ratio(form, other) < _WEAK:
        return None
    cosine = likeness(form, other)
    if cosine is None or cosine < _ALIKE:
        return None
    return Evidence("embedding", round(cosine * 0.85, 3), f"cosine {cosine:.2f} of their names")


def _digits(form: str) -> Sequence[str]:
    return re.findall(r"\d+", form)
