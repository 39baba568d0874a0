"""Counting tokens exactly, without network: OpenAI's encodings, from the files that litellm carries.

tiktoken itself downloads its vocabularies; litellm's package holds the same files under the names tiktoken's cache
gives them. They are read here directly and checked against tiktoken's own hashes; litellm is located, not imported.
The split patterns are part of an encoding's definition and are those of tiktoken_ext/openai_public.py; a test
compares both encodings with tiktoken's own.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import tiktoken

from context_graph.errors import ConfigurationError

_FOLDER = Path("litellm_core_utils/tokenizers")
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"


@dataclass(frozen=True, slots=True)
class _Encoding:
    """File name (SHA-1 of the address tiktoken would download), SHA-256 of its content, split pattern."""

    file: str
    sha256: str
    pattern: str


_ENCODINGS: dict[str, _Encoding] = {
    "o200k_base": _Encoding(
        "fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        "|".join(
            (
                rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+{_CONTRACTIONS}",
                rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*{_CONTRACTIONS}",
                r"\p{N}{1,3}",
                r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
                r"\s*[\r\n]+",
                r"\s+(?!\S)",
                r"\s+",
            )
        ),
    ),
    "cl100k_base": _Encoding(
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]"
        r"|\s+(?!\S)|\s",
    ),
}
_KEPT, _SHORT = 20_000, 1_000  # counts kept, of texts of at most so many characters: 10 MB or less
_LINES = re.compile(r"[^\n]*\n+|[^\n]+")  # a line with all the ends behind it
_NO_END = re.compile(r"\n[^\S\n]|\n/|\r")
_CITED = re.compile(r"\A\[[0-9]{1,3}\] ")
TOKENIZERS: tuple[str, ...] = tuple(_ENCODINGS)
ESTIMATED = ("claude",)
_ESTIMATE = 1.2


class TokenCounter:
    """Counts the tokens of a text as a model of that encoding would see them.

    Counts of short texts are kept: the lines of a conversation are counted again with every context made of it.
    """

    estimated = False

    def __init__(self, name: str, encoding: tiktoken.Encoding) -> None:
        self.name = name
        self._encoding = encoding
        self._known = lru_cache(maxsize=_KEPT)(self._counted)

    def count(self, text: str) -> int:
        """Tokens of `text`. What looks like a special token (`<|endoftext|>`) is counted as the text it is.

        Of a long one by its lines, whose counts add up: both encodings end a piece of text at a line's end, unless the
        next line begins with white space or a slash. `[7]` before a line counts as `[999]`, for every number of up to
        three digits is one token: so lines are known again wherever they are cited.
        """
        if len(text) <= _SHORT:
            return self._known(text)
        if _NO_END.search(text):
            return self._counted(text)
        return sum(self._of_line(line) for line in _LINES.findall(text))

    def _of_line(self, line: str) -> int:
        if len(line) > _SHORT:
            return self._counted(line)
        return self._known(_CITED.sub("[999] ", line, 1))

    def _counted(self, text: str) -> int:
        return len(self._encoding.encode_ordinary(text))


class EstimatedCounter:
    """Counts for a model whose tokenizer is not published: those of o200k, raised so that it is rarely too few.

    Anthropic publishes no tokenizer for Claude 3 and later; English prose has up to a fifth more tokens there.
    """

    estimated = True

    def __init__(self, name: str, base: TokenCounter) -> None:
        self.name = name
        self._base = base

    def count(self, text: str) -> int:
        """Tokens of `text`, estimated."""
        return math.ceil(self._base.count(text) * _ESTIMATE)


Counters: TypeAlias = Mapping[str, TokenCounter | EstimatedCounter]


def open_counters() -> Counters:
    """Every counter by name: the encodings that are here, and estimates."""
    exact = {name: open_counter(name) for name in TOKENIZERS}
    return exact | {name: EstimatedCounter(name, exact["o200k_base"]) for name in ESTIMATED}


def open_counter(name: str) -> TokenCounter:
    """A counter for that encoding; takes some 0.3 s, so the caller keeps it.

    Raises ConfigurationError for an encoding that is not known, or whose file is missing or altered.
    """
    encoding = _ENCODINGS.get(name)
    if encoding is None:
        raise ConfigurationError(f"there is no tokenizer {name!r} here; there are: {', '.join(TOKENIZERS)}")
    ranks = _read_ranks(name, encoding)
    return TokenCounter(
        name, tiktoken.Encoding(name, pat_str=encoding.pattern, mergeable_ranks=ranks, special_tokens={})
    )


def _read_ranks(name: str, encoding: _Encoding) -> dict[bytes, int]:
    spec = find_spec("litellm")
    roots = (spec.submodule_search_locations or ()) if spec is not None else ()
    file = next((found for root in roots if (found := Path(root) / _FOLDER / encoding.file).is_file()), None)
    if file is None:
        raise ConfigurationError(f"the vocabulary of {name} is missing: it comes with the package litellm 1.106.2")
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != encoding.sha256:
        raise ConfigurationError(f"the vocabulary of {name} in {file} is not the published one: reinstall litellm")
    pairs = (line.split() for line in content.splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in pairs}
