"""Which stretches of a long text have vectors of their own beside the first.

The model reads 256 tokens, some 1,000 characters, so the vector of a text is that of its head. Of a longer text up to
`most` further passages are embedded: the tail, where a log or a traceback has its conclusion, then those of the middle
that say most that no chosen one says (by words of four letters or more, and of figures). Two cores embed some twenty
full passages a second: hence a limit, and not all of a text. Pure.
"""

from __future__ import annotations

import re

PASSAGE = 1000  # characters: what the model reads of most texts
_BORDERS = ("\n\n", "\n", ". ", "? ", "! ", " ")  # where a passage ends, if there is one in its last third
_WORD = re.compile(r"\w{4,}|\d\w*")


def further_passages(text: str, most: int) -> tuple[str, ...]:
    """At most `most` passages behind the head, in the order of the text; none of a text that the model reads whole."""
    pieces = _pieces(text)
    if len(pieces) < 2 or most < 1:
        return ()
    chosen = {len(pieces) - 1}
    said = _words(pieces[0]) | _words(pieces[-1])
    while len(chosen) < min(most, len(pieces) - 1):
        rest = [number for number in range(1, len(pieces)) if number not in chosen]
        best = max(rest, key=lambda number: (len(_words(pieces[number]) - said), -number))
        chosen.add(best)
        said |= _words(pieces[best])
    return tuple(pieces[number] for number in sorted(chosen))


def _pieces(text: str) -> list[str]:
    pieces: list[str] = []
    start = 0
    while len(text) - start > PASSAGE:
        end = _border(text, start, start + PASSAGE)
        pieces.append(text[start:end].strip())
        start = end
    pieces.append(text[start:].strip())
    return [piece for piece in pieces if piece]


def _border(text: str, start: int, end: int) -> int:
    for border in _BORDERS:
        found = text.rfind(border, end - PASSAGE // 3, end)
        if found > start:
            return found + len(border)
    return end


def _words(piece: str) -> set[str]:
    return set(_WORD.findall(piece.casefold()))
