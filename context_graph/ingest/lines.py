"""Bytes as they come, cut into lines of bounded length."""

from __future__ import annotations

from typing import NoReturn

from context_graph.ingest.unpacking import BodyTooLarge


class LineCutter:
    """Collects bytes and gives whole lines; holds at most one unfinished line of `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that this piece completes, without their line feeds.

        Raises BodyTooLarge when what was fed before is an unfinished line over the limit; a finished one is for
        `check`, so that the lines before it are not lost.
        """
        if self._size > self._limit:
            self._refuse()
        first, *others = data.split(b"\n")
        self._take(first)
        if not others:
            return []
        lines = [b"".join(self._parts), *others[:-1]]
        self._parts, self._size = [], 0
        self._take(others[-1])
        return lines

    def rest(self) -> bytes:
        """What follows the last line feed."""
        return b"".join(self._parts)

    def check(self, line: bytes) -> None:
        """Raises BodyTooLarge when the line is over the limit."""
        if len(line) > self._limit:
            self._refuse()

    def _take(self, part: bytes) -> None:
        if part:
            self._parts.append(part)
            self._size += len(part)

    def _refuse(self) -> NoReturn:
        raise BodyTooLarge(
            f"the line is over {self._limit:,} bytes: split the event, store its payload elsewhere and send "
            "payload_ref, or raise CG_IMPORTS__MAX_LINE_BYTES"
        )
