"""What a check concludes: a level, words, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "wrong"]
"""`wrong`: a promise cannot be kept now, readiness fails. `warn`: an operator should know."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One conclusion about one subject."""

    level: Level
    subject: str
    words: str
    remedy: str = ""

    @property
    def sentence(self) -> str:
        """The words and the remedy."""
        return f"{self.words}: {self.remedy}" if self.remedy else self.words
