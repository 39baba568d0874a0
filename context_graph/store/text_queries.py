"""FT.SEARCH of words, so that a document's score is the same whatever else is asked for.

Where a union of words stands beside another condition, RediSearch 2.10 moves it to the next document that satisfies
both and leaves there in the document's score one of the words, not all that it has (seen for 422 of 1,244 documents of
a test index); the same inside a union, for the forms of each word. A tag, on the other hand, adds a score of its own.
So a query with a condition names

- all forms of all words in one flat union (VERBATIM: the forms are asked for once, by FT.EXPLAIN, and remembered),
- that union once more before it, of no weight: it is moved first, to a document at which the other is then complete,
- the condition, of no weight.

`tests/laws/test_filtered_words.py` holds scores with and without conditions against each other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from context_graph.store import documents as fields
from context_graph.store.keys import GraphKeys

ANY_TEXT = "|".join(fields.TEXT_FIELDS)
# RediSearch's older "BM25" ranks a union of words close to random (R@10 0.07 where BM25STD has 0.59 on the development
# conversations); BM25STD is Okapi BM25 as published, k1 = 1.2.
_SCORER = "BM25STD"
_REMEMBERED = 20_000  # words
_FORM = re.compile(rf"(?m)^\s*@{re.escape(ANY_TEXT)}:(.*?)(?:\(expanded\))?$")
Command = tuple[str | int | bytes, ...]


class Forms:
    """The forms in which an index looks for a word: itself and what its stem makes of it. One process knows them."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, ...]] = {}

    def unknown(self, terms: Sequence[str]) -> list[str]:
        """The terms whose forms have to be asked for, with `explain`."""
        return [term for term in dict.fromkeys(terms) if term not in self._known]

    def learn(self, term: str, explained: bytes) -> None:
        """Keep what FT.EXPLAIN said of a term."""
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        found = [form for form in _FORM.findall(explained.decode()) if form != "UNION {"]
        self._known[term] = tuple(found) or (term,)

    def of(self, terms: Sequence[str]) -> list[str]:
        """All forms of these terms, one after the other; what is unknown is its own form."""
        return [form for term in terms for form in self._known.get(term, (term,))]


def explain(index: str, term: str) -> Command:
    """The command that tells the forms of a term."""
    return ("FT.EXPLAIN", index, f"@{ANY_TEXT}:($t0)", "PARAMS", 2, "t0", term, "DIALECT", 2)


def text_query(keys: GraphKeys, terms: Sequence[str], limit: int, *options: str) -> Command:
    """Documents that have any of the terms, with scores."""
    return (
        "FT.SEARCH", keys.text_index, _words(len(terms)),
        "NOCONTENT", "WITHSCORES", *options, "SCORER", _SCORER, "LIMIT", 0, limit, *_parameters(terms), "DIALECT", 2,
    )  # fmt: skip


def narrowed_query(
    keys: GraphKeys, condition: str, forms: Sequence[str], limit: int, within: Sequence[str] | None, *options: str
) -> Command:
    """The same of those that satisfy a condition (`*`: all), by the forms of the terms. `within`: only these keys."""
    first = weightless(_words(len(forms)))
    # What is expected to have most is moved last: with the first one inside, the scored words are expected to.
    scored = "|".join([*(f"@{ANY_TEXT}:$t{number}" for number in range(len(forms))), first])
    beside = first if condition == "*" else f"{first} {weightless(condition)}"
    chosen: Command = () if within is None else ("INKEYS", len(within), *within)
    return (
        "FT.SEARCH", keys.text_index, f"{beside} ({scored})", *chosen, "VERBATIM",
        "NOCONTENT", "WITHSCORES", *options, "SCORER", _SCORER, "LIMIT", 0, limit, *_parameters(forms), "DIALECT", 2,
    )  # fmt: skip


def weightless(query: str) -> str:
    """A part of a query that decides what is found and adds nothing to its score.

    Twice in a union, because what is alone in one keeps its own weight.
    """
    return f"(({query})|({query}))=>{{$weight:0}}"


def _words(count: int) -> str:
    return f"@{ANY_TEXT}:(" + "|".join(f"$t{number}" for number in range(count)) + ")"


def _parameters(terms: Sequence[str]) -> Command:
    pairs = [item for number, term in enumerate(terms) for item in (f"t{number}", term)]
    return ("PARAMS", len(pairs), *pairs)
