"""Which words of a question decide nothing: those that stand in so many documents that rarer ones already say enough.

BM25 looks at every document of every word it is asked for, 0.1 microseconds each on Redis' only thread: a word in half
of a million documents takes 50 ms and is worth a tenth of one in a thousand. So where an index is large, words are
taken from the rarest on until they stand in `most` documents together. A small index is asked for all words.

How many documents there are and how many a word is in is asked once (LIMIT 0 0, which costs as much as a search for it)
and kept for a while: it only decides what is asked, never what is shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

MOST_DOCUMENTS = 50_000  # some 4 ms, within what embedding the question takes
_KEPT = 50_000  # counts
ALL = "*"
"""In the place of a word: all documents."""
_SECONDS = 600.0  # that a count is believed


class CommonWords:
    """What one process knows of any index."""

    def __init__(self, most: int = MOST_DOCUMENTS, clock: Callable[[], float] = time.monotonic) -> None:
        """`most`: documents of the words of a question together, except that one word is always asked for."""
        self._most = most
        self._clock = clock
        self._counts: dict[tuple[str, str], tuple[int, float]] = {}

    def unknown(self, index: str, words: Sequence[str]) -> list[str]:
        """What should be counted before the index is asked for these: `ALL`, then the words of a large index."""
        now = self._clock()
        all_documents, until = self._counts.get((index, ALL), (0, 0.0))
        if until <= now:
            return [ALL]
        if all_documents <= self._most:
            return []
        return [word for word in words if self._counts.get((index, word), (0, 0.0))[1] <= now]

    def learn(self, index: str, counts: Mapping[str, int]) -> None:
        """Keep what was counted."""
        if len(self._counts) + len(counts) > _KEPT:
            self._counts.clear()
        until = self._clock() + _SECONDS
        self._counts.update({(index, word): (count, until) for word, count in counts.items()})

    def deciding(self, index: str, words: Sequence[str]) -> list[str]:
        """The words to ask for, in their order; what is not known counts as rare."""
        counts = {word: self._counts.get((index, word), (0, 0.0))[0] for word in words}
        taken: set[str] = set()
        documents = found = 0
        for word in sorted(words, key=lambda word: counts[word]):
            documents += counts[word]
            if documents > self._most and found:
                break
            taken.add(word)
            found += counts[word]
        return [word for word in words if word in taken]
