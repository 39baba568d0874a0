"""What BM25 said of documents as of a position: the index's own explanation of its scores, with the numbers of then.

The index weighs a word by how many documents have it now, and a document by the mean length now. Its explanation of a
score names everything else: how often each word stands in the document, how long that is, and both constants. With the
number of documents, of documents with the word, and the mean length as of a position, the score of then follows by the
same formula (Okapi BM25; Robertson and Zaragoza, The Probabilistic Relevance Framework, 2009). Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_LEAF = re.compile(
    rb"(?s)(.+): \(\S+ = IDF \S+ \* \(F (\d+)[.\d]* \* \(k1 ([\d.]+) \+ 1\)\) / \(F \S+ \+ k1 \S+ \* "
    rb"\(1 - b ([\d.]+) \+ b \S+ \* Doc Len (\d+) / Average Doc Len ([\d.]+)\)\)\)"
)
# What ends a word in the index: its marks and blanks, not line breaks; a backslash keeps what follows. Words of nothing
# but control characters are none. `tests/integration/test_words_then.py` holds this against the index itself.
_WORD = re.compile(r"(?:\\.|[^ \t,./(){}\[\]:;\\~!@#$%^&*\-=+|'`\"<>?])+", re.DOTALL)
_EMPTY = re.compile(r"[\x00-\x20\x7f\\]*")


_NOTHING = b"(Weight 0.00 "


class Leaf(NamedTuple):
    """What a document's score has of one word: how often it is there, of how many words; k1, b; the mean length now."""

    word: bytes
    often: int
    length: int
    k1: float
    b: float
    mean_length: float


class Then(NamedTuple):
    """The index as of a position: documents, documents with each word, words in a document on average."""

    documents: int
    having: Mapping[bytes, int]
    mean_length: float


def leaves_of(explained: Any) -> list[Leaf]:
    """All leaves of an explanation (nested lists of bytes). Empty when it is in a form that is not known here."""
    if isinstance(explained, bytes):
        found = _LEAF.fullmatch(explained)
        if found is None:
            return []
        word, often, k1, b, length, mean = found.groups()
        return [Leaf(word, int(often), int(length), float(k1), float(b), float(mean))]
    if (
        isinstance(explained, list)
        and explained
        and isinstance(explained[0], bytes)
        and explained[0].startswith(_NOTHING)
    ):
        return []  # it decides what is found, not how well
    if isinstance(explained, list):
        return [leaf for part in explained for leaf in leaves_of(part)]
    return []


def score_of(leaves: Sequence[Leaf], then: Then) -> float:
    """BM25 as of then, 0 and up."""
    return sum(_idf(then, leaf.word) * _weight(leaf, then.mean_length) for leaf in leaves)


def _idf(then: Then, word: bytes) -> float:
    having = max(1, then.having.get(word, 1))
    return math.log(1 + (max(then.documents, having) - having + 0.5) / (having + 0.5))


def _weight(leaf: Leaf, mean_length: float) -> float:
    long = 1 - leaf.b + leaf.b * leaf.length / mean_length
    return leaf.often * (leaf.k1 + 1) / (leaf.often + leaf.k1 * long)


def words_in(text: str) -> int:
    """As the index counts the words of a text."""
    return sum(_EMPTY.fullmatch(word) is None for word in _WORD.findall(text))
