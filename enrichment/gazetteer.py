"""Known names in a text: the longest name of the gazetteer at each word, and persons by their given name.

Pure and cheap: one pass over the words, sets instead of patterns. A name must be written like one: every word with a
capital (particles apart), or all in capitals; a long name of more than one word, or one that is nothing else, also in
lower case, as people type.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from enrichment.known_names import (
    CITIES_AND_REGIONS,
    COUNTRIES,
    GIVEN_NAMES,
    NEVER_NAMES,
    ONLY_BEFORE_A_SURNAME,
    ORGANISATIONS,
    PARTICLES,
    PRODUCTS,
)

_WORD = re.compile(r"(?<![\w@#/.])[^\W_](?:[\w'’&-]*[^\W_])?(?:\.(?:[A-Za-z]\.)+)?")
_MOST_WORDS = 4
_BY_LABEL = (("org", ORGANISATIONS), ("product", PRODUCTS), ("place", COUNTRIES), ("place", CITIES_AND_REGIONS))
KNOWN: Mapping[str, str] = {name: label for label, names in reversed(_BY_LABEL) for name in names}
# Everyday words among the known names, which only a capital makes a name.
_EVERYDAY = frozenset(
    """
    america apple austin bali bath bern boston buffalo charlotte chad chile china colombo cologne columbus congo cuba
    devon emirates essex excel florence gambia georgia guinea hague intel jordan kent kindle lego lima maine mali mets
    mit mobile naples nike niger notion oman orlando outlook oxford panama paris phoenix pixar porto puma python
    reading riga rome sap sofia spain splunk stripe sydney togo turkey uber ups victoria virginia wales washington
    yelp airflow chrome docker linux redis pandas flask prometheus jupyter kafka android debian lahore surrey
    alexandria cambridge valencia delhi trinidad montana santiago san juan turin venice tripoli""".split()
)
# In this way written they are names, in another they are words.
_IN_CAPITALS = frozenset(("us", "it", "who", "la", "mit", "ups", "sap", "cia", "uk", "usa", "uae", "fda", "nba", "nfl"))
_REPEATED = re.compile(r"(.)\1\1", re.IGNORECASE)
_INITIAL = re.compile(r"[A-Z]\.?")
_SURNAME = re.compile(r"(?:Mc|Mac|O['’]|De|Di|Le|La|Van|Al-|El-)?[A-ZÀ-Þ][a-zà-ÿ'’]+(?:-[A-ZÀ-Þ][a-zà-ÿ]+)?")


@dataclass(frozen=True, slots=True)
class KnownName:
    """A stretch of a text (characters, end exclusive) and what it is known as."""

    label: str
    start: int
    end: int


def known_names(text: str) -> Iterator[KnownName]:
    """The known names of a text, in order, without overlaps."""
    words = list(_WORD.finditer(text))
    index = 0
    while index < len(words):
        found = _known_at(text, words, index) or _person_at(text, words, index)
        if found is None:
            index += 1
        else:
            name, count = found
            yield name
            index += count


def is_given(word: str) -> bool:
    """Whether a word is a given name and nothing else."""
    folded = word.casefold()
    return folded in GIVEN_NAMES and folded not in ONLY_BEFORE_A_SURNAME


def known_label(name: str) -> str | None:
    """What a name as a whole is known as."""
    return KNOWN.get(" ".join(name.casefold().split()))


def looks_like_a_name(name: str) -> bool:
    """Whether every word begins with a capital (particles apart), none is stretched like thiiis or a chat word."""
    words = name.split()
    capital = all(word[:1].isupper() or word.casefold() in PARTICLES for word in words)
    plain = all(word.strip(".'’-").casefold() not in NEVER_NAMES for word in words)
    return capital and plain and words[0][:1].isupper() and _REPEATED.search(name) is None


def _known_at(text: str, words: list[re.Match[str]], index: int) -> tuple[KnownName, int] | None:
    for count in range(min(_MOST_WORDS, len(words) - index), 0, -1):
        start, end = words[index].start(), words[index + count - 1].end()
        written = text[start:end]
        folded = " ".join(written.casefold().split())
        label = KNOWN.get(folded) if len(written) <= len(folded) + 2 else None
        if label is not None and _written_so(written, folded):
            return KnownName(label, start, end), count
    return None


def _written_so(written: str, folded: str) -> bool:
    words = written.split()
    if folded in _IN_CAPITALS:
        return written.isupper()
    if all(word[:1].isupper() or word.casefold() in PARTICLES or word[:1].isdigit() for word in words):
        return True
    return folded not in _EVERYDAY and (len(folded) > 4 or any(letter.isupper() for letter in written))


def _person_at(text: str, words: list[re.Match[str]], index: int) -> tuple[KnownName, int] | None:
    """A given name with what follows of initials and surnames, at most three words more."""
    first = words[index].group().removesuffix("'s").removesuffix("’s")
    folded = first.casefold()
    if folded not in GIVEN_NAMES or not first[:1].isupper() or (first.isupper() and len(first) < 4):
        return None
    end, count = words[index].start() + len(first), 1
    if first == words[index].group():
        end, count = _with_surname(text, words, index)
    if count == 1 and folded in ONLY_BEFORE_A_SURNAME:
        return None
    return KnownName("person", words[index].start(), end), count


def _with_surname(text: str, words: list[re.Match[str]], index: int) -> tuple[int, int]:
    end, count = words[index].end(), 1
    whole = words[index].group()
    for word in words[index + 1 : index + 4]:
        written = word.group().removesuffix("'s").removesuffix("’s")
        shaped = _SURNAME.fullmatch(written) or _INITIAL.fullmatch(written) or (whole.isupper() and written.isupper())
        between = (" ", ". ") if text[end - 2 : end - 1] in " ." else (" ",)  # a full stop only behind an initial
        if text[end : word.start()] not in between or not shaped or not _may_be_surname(written):
            break
        end, count = word.start() + len(written), count + 1
        if written != word.group():
            break
    return end, count


def _may_be_surname(word: str) -> bool:
    folded = word.casefold()
    return folded not in NEVER_NAMES and (folded not in KNOWN or folded in _EVERYDAY) and folded not in _AFTER_NAMES


# Capitalised words that often follow a given name without belonging to it.
_AFTER_NAMES = frozenset(
    """
    i and is was the a an of in at on for with from to my your his her our their this that what when where why how who
    rt day show tour award awards album fans party live road street university college church hospital airport hotel
    center centre park school inc llc ltd you we they he she it so but not will can has have had do does did if or as
    be by""".split()
)
