"""Whether a text is in the language that a pipeline was made for: by its function words, against other languages'.

A recogniser labels whatever it is given: English's takes "días de retraso" for a company. A text counts as foreign when
another language's stop words (spaCy's lists) clearly outnumber the pipeline's own in it. Texts of few words, names and
figures alone are nobody's and pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from importlib import import_module

_LANGUAGES = ("en", "de", "fr", "es", "it", "nl", "pt", "sv", "da", "nb", "pl", "ro", "fi", "tr", "id", "cs", "hu")
_CLEARLY = 1.3  # times the pipeline's own function words, and at least two more
_READ = 400  # words: enough to tell


class LanguageTest:
    """Tells texts in `language` (spaCy's code) from those in other languages of the Latin script."""

    def __init__(self, language: str) -> None:
        self._language = language
        self._languages_of: dict[str, tuple[str, ...]] = {}
        if language in _LANGUAGES:
            for code in _LANGUAGES:
                for word in import_module(f"spacy.lang.{code}.stop_words").STOP_WORDS:
                    self._languages_of[word] = (*self._languages_of.get(word, ()), code)

    @property
    def latin(self) -> bool:
        """Whether the language is one of those told apart, all written in the Latin script."""
        return bool(self._languages_of)

    def fits(self, words: Iterable[str]) -> bool:
        """Whether a text of these words (lower case) may be in the language. True where it cannot be told."""
        counts: Counter[str] = Counter()
        for word, _ in zip(words, range(_READ), strict=False):
            counts.update(self._languages_of.get(word, ()))
        if not counts:
            return True
        most = max(counts.values())
        own = counts[self._language]
        return most < max(own * _CLEARLY, own + 2)
