"""Compressed bodies as a stream of bytes in bounded memory, and bodies that are bombs or break refused.

gzip (RFC 1952) and zstd (RFC 8878), also several members or frames one after the other. What one step may produce is
bounded, whatever the input: gzip is asked for 256 KiB at a time, zstd is fed 512 bytes at a time, which hold at most
128 blocks of 128 KiB (16 MiB; 16 times less would be possible at twice the time). The window of a zstd frame, which its
reader must keep in memory, may be 8 MiB, what RFC 8878 asks every reader to support.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Literal, Protocol

import zstandard

from context_graph.errors import PermanentError

Encoding = Literal["identity", "gzip", "zstd"]

_GZIP_OUT = 256 * 1024
_ZSTD_IN = 512
_ZSTD_WINDOW = 8 * 1024 * 1024
_RATIO_COUNTS_FROM = 16 * 1024 * 1024  # decompressed bytes: below, a short and very regular file is no attack


class BrokenBody(PermanentError):
    """The body cannot be read further: damaged, cut off, not JSON, or its sender has gone."""


class BodyTooLarge(PermanentError):
    """A line or the whole decompressed body is over its limit."""


class Unpacker(Protocol):
    """Turns compressed pieces into plain ones."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The plain bytes of a piece, in bounded portions. Raises BrokenBody."""
        ...

    def finish(self) -> None:
        """The body is over. Raises BrokenBody when it was cut off."""
        ...


class _Plain:
    def feed(self, data: bytes) -> Iterator[bytes]:
        yield data

    def finish(self) -> None:
        return


class _Gzip:
    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=31)
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._inflate.eof:  # another member follows
                self._inflate = zlib.decompressobj(wbits=31)
            self._begun = True
            try:
                out = self._inflate.decompress(data, _GZIP_OUT)
            except zlib.error as error:
                raise BrokenBody(f"the gzip data is damaged: {error}") from error
            if out:
                yield out
            data = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail

    def finish(self) -> None:
        if self._begun and not self._inflate.eof:
            raise BrokenBody("the gzip data is cut off before its end")


class _Zstd:
    def __init__(self) -> None:
        self._context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._frame = self._context.decompressobj()
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _ZSTD_IN):
            yield from self._slice(data[start : start + _ZSTD_IN])

    def _slice(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._frame.eof:  # another frame follows
                self._frame = self._context.decompressobj()
            self._begun = True
            try:
                out = self._frame.decompress(data)
            except zstandard.ZstdError as error:
                raise BrokenBody(f"the zstd data is damaged, or its window is over 8 MiB (--long): {error}") from error
            if out:
                yield out
            data = self._frame.unused_data if self._frame.eof else b""

    def finish(self) -> None:
        if self._begun and not self._frame.eof:
            raise BrokenBody("the zstd data is cut off before its end")


class _Capped:
    """An unpacker whose output is counted and refused above its limits."""

    def __init__(self, inner: Unpacker, most: int, ratio: int) -> None:
        self._inner = inner
        self._most = most
        self._ratio = ratio
        self._taken = self._given = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._taken += len(data)
        for out in self._inner.feed(data):
            self._given += len(out)
            if self._given > self._most:
                raise BodyTooLarge(
                    f"the body is over {self._most:,} bytes decompressed: send it in parts, "
                    "or raise CG_IMPORTS__MAX_DECOMPRESSED_BYTES"
                )
            if self._given > max(_RATIO_COUNTS_FROM, self._ratio * self._taken):
                raise BodyTooLarge(
                    f"the body grows over {self._ratio} times when decompressed, as no file of events does: "
                    "send it uncompressed, or raise CG_IMPORTS__MAX_RATIO"
                )
            yield out

    def finish(self) -> None:
        self._inner.finish()


def unpacker(encoding: Encoding, *, most: int, ratio: int) -> Unpacker:
    """An unpacker for this encoding; `most` decompressed bytes in all, `ratio` times the compressed ones.

    A body that is not compressed has no limit in all: its sender pays for each byte.
    """
    match encoding:
        case "identity":
            return _Plain()
        case "gzip":
            return _Capped(_Gzip(), most, ratio)
        case "zstd":
            return _Capped(_Zstd(), most, ratio)
