"""A text's keywords, by rule and without a model: found when an event is shown, so nothing of them is stored.

The score of a word is its count, doubled when it is written like a name (a capital inside a sentence, a digit, an
underscore) and multiplied by 1 + ln(length / 4) for words longer than four letters: long words are rarer and say more
(Zipf's law of abbreviation). Stop words and words under three letters do not count. Two neighbouring words that occur
together at least twice are one keyword, at the sum of their scores, and take the place of both. Ties go to the
word that comes first.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import pairwise

MAX_KEYWORDS = 8
_READ = 4000  # characters: what follows in a longer text seldom changes the first eight
_WORD = re.compile(r"[^\W_][\w'’-]*[^\W_]|[^\W_]")
_SENTENCE_END = ".!?:\n"
STOP_WORDS = frozenset(
    """a about above after again all also am an and any are aren't as ask at back be because been before being below
    between both but by can can't cannot could couldn't currently did didn't do does doesn't doing don't done down
    during each either else even ever every few first for found from further get gets getting give given go goes going
    gone good got great had hadn't has hasn't have haven't having he hello help her here here's hers hey hi him his how
    however i i'd i'll i'm i've if in into is isn't it it's its itself just know last let let's like look looking made
    make makes making many may maybe me might more most much must my myself need needs never new next no nor not now of
    off ok okay on once one only or other our ours out over own per please provide put really right same say says see
    seem she should shouldn't since so some something soon still such sure take than thank thanks that that's the their
    theirs them then there there's these they they're thing things think this those though through to too true false
    two under until up upon us use used user using very via want wants was wasn't way we we'll we're we've well were
    weren't what what's when where whether which while who whom whose why will with within without won't would wouldn't
    yeah yes yet you you'd you'll you're you've your yours yourself null none""".split()
)


def keywords_of(text: str) -> tuple[str, ...]:
    """At most MAX_KEYWORDS words or pairs of words, lower case, the weightiest first."""
    scores, firsts = _score_words(text[:_READ])
    pairs = _repeated_pairs(text[:_READ])
    for pair in pairs:
        left, right = pair.split(" ")
        scores[pair] = scores[left] + scores[right]
        firsts[pair] = firsts[left]
    parts = {word for pair in pairs for word in pair.split(" ")}
    kept = [word for word in scores if word not in parts]
    kept.sort(key=lambda word: (-scores[word], firsts[word]))
    return tuple(kept[:MAX_KEYWORDS])


def _score_words(text: str) -> tuple[dict[str, float], dict[str, int]]:
    counts: Counter[str] = Counter()
    firsts: dict[str, int] = {}
    named: set[str] = set()
    for match in _WORD.finditer(text):
        word = _plain(match.group())
        if not _counts(word):
            continue
        counts[word] += 1
        firsts.setdefault(word, match.start())
        before = text[: match.start()].rstrip(" \"'“(")[-1:] if match.group()[0].isupper() else "."
        if any(letter.isdigit() or letter == "_" for letter in word) or (before and before not in _SENTENCE_END):
            named.add(word)
    weigh = {word: count * (2 if word in named else 1) * _length_factor(word) for word, count in counts.items()}
    return weigh, firsts


def _length_factor(word: str) -> float:
    return 1 + math.log(max(min(len(word), 16), 4) / 4)


def _repeated_pairs(text: str) -> list[str]:
    """Neighbours that occur together at least twice; a word belongs to its most frequent pair alone."""
    pairs: Counter[tuple[str, str]] = Counter()
    for left, right in pairwise(_WORD.finditer(text)):
        words = _plain(left.group()), _plain(right.group())
        if text[left.end() : right.start()] == " " and words[0] != words[1] and all(map(_counts, words)):
            pairs[words] += 1
    taken: set[str] = set()
    kept: list[str] = []
    for pair, count in pairs.most_common():
        if count > 1 and not taken.intersection(pair):
            taken.update(pair)
            kept.append(" ".join(pair))
    return kept


def _plain(word: str) -> str:
    return word.lower().removesuffix("'s").removesuffix("’s")


def _counts(word: str) -> bool:
    return len(word) >= 3 and word not in STOP_WORDS and not word.replace("-", "").isdigit()
