"""The words of texts and questions, alike for every script, and the form of a text whose words the server sees.

RediSearch 2.10 splits a text at spaces, tabs and most ASCII punctuation, and nowhere else: not at line breaks, dashes,
typographic quotes or zero-width spaces; a backslash escapes the separator behind it, NUL ends the text, and only ASCII
is lower-cased. `spaced` therefore writes a text so that words are apart (`unspaced` takes it back exactly: the text is
stored once), and `further_words` names the words that the server still does not see as a question asks for them.

A word is a run of letters, digits, marks and underscores inside. It is asked for without diacritics (`crème` → creme).
Scripts that set no spaces (Chinese, Japanese, Thai, …) are searched by pairs of neighbouring characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

LONGEST_WORD = 64  # characters; what is longer is asked for, and held, by its beginning

_ESCAPED = "\ufffe"  # a noncharacter: stands for a backslash in what is stored
_OTHERS = {"\t": "\n", "\\": _ESCAPED}
_ORIGINALS = {other: found for found, other in _OTHERS.items()}
_UNSEEN = str.maketrans({"\0": " ", _ESCAPED: " "})


def _marks() -> str:
    """Combining marks and vowel signs, as ranges of a character class: `re` knows no categories."""
    ranges: list[list[int]] = []
    for code in range(0x300, 0x1F000):
        if unicodedata.category(chr(code))[0] == "M":
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


_MARKS = _marks()
_UNSPACED_SCRIPTS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_APART = re.compile(rf"[^\w{_MARKS}\t -\[\]-~]|\\|\t")  # where words part and the server does not part them, and tabs
_BACK = re.compile(rf" ([^\w{_MARKS}\t -~]) |\t")
_WORD = re.compile(rf"[^\W_][{_MARKS}]*(?:_*[^\W_][{_MARKS}]*)*")
_RUN = re.compile(rf"[\w{_MARKS}]+")
_LONG = re.compile(rf"\w{{{LONGEST_WORD + 1},}}")
_PIECE = re.compile(rf"[{_UNSPACED_SCRIPTS}]+|[^{_UNSPACED_SCRIPTS}]+")
_UNSPACED_SCRIPT = re.compile(f"[{_UNSPACED_SCRIPTS}]")
_DIACRITIC = re.compile("[\u0300-\u036f]+")


def storable(text: str) -> str:
    """The text without the two characters that no index can hold: NUL and U+FFFE become spaces."""
    return text.translate(_UNSEEN)


def spaced(text: str) -> str:
    """A `storable` text as it is stored: a line break is a tab, and any other character at which words part and the
    server does not part them has a space on either side."""
    return _APART.sub(_written, text)


def unspaced(stored: str) -> str:
    """What `spaced` was given."""
    return _BACK.sub(_read, stored)


def _written(match: re.Match[str]) -> str:
    found = match[0]
    if found == "\n":
        return "\t"
    return f" {_OTHERS.get(found, found)} "


def _read(match: re.Match[str]) -> str:
    found = match[1]
    if found is None:
        return "\n"
    return _ORIGINALS.get(found, found)


def folded(text: str) -> str:
    """Lower case, without diacritics of Latin, Greek and Cyrillic, compatible forms as the plain ones."""
    if text.isascii():
        return text.lower()
    plain = _DIACRITIC.sub("", unicodedata.normalize("NFKD", text.lower()))
    return unicodedata.normalize("NFC", plain)


def words_of(text: str) -> Iterator[str]:
    """Every word of a text as it is asked for, in order."""
    for match in _WORD.finditer(folded(text)):
        word = match[0]
        if word.isascii() or _UNSPACED_SCRIPT.search(word) is None:
            yield word[:LONGEST_WORD]
        else:
            yield from _pieces(word)


def asked_words(text: str) -> Iterator[str]:
    """The words of a question, in order; one with diacritics also as typed, so that a text with them is first."""
    for match in _WORD.finditer(text):
        typed = match[0].lower()[:LONGEST_WORD]
        asked = list(words_of(match[0]))
        yield from asked
        if asked != [typed] and _UNSPACED_SCRIPT.search(typed) is None:
            yield typed


def further_words(text: str, rest: str = "") -> dict[str, None]:
    """The words of a text that the server does not see in its `spaced` form, and all of `rest`; each once, in order."""
    found: dict[str, None] = {}
    for run in (_LONG if text.isascii() and "_" not in text else _RUN).findall(text):
        if not run.isascii() or "_" in run or len(run) > LONGEST_WORD:
            seen = "".join(letter.lower() if letter.isascii() else letter for letter in run)
            found.update((word, None) for word in asked_words(run) if word != seen)
    found.update(dict.fromkeys(words_of(rest)))
    return found


def _pieces(word: str) -> Iterator[str]:
    """Of runs of a script without spaces the pairs of neighbours, a lone character by itself; other runs whole."""
    for match in _PIECE.finditer(word):
        piece = match[0]
        if _UNSPACED_SCRIPT.match(piece) is None or len(piece) < 2:
            yield from (part[0][:LONGEST_WORD] for part in _WORD.finditer(piece))
        else:
            yield from (piece[place : place + 2] for place in range(len(piece) - 1))
