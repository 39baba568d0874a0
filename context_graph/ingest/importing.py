"""Importing NDJSON of any length: one event a line, in bounded memory, each line once however often it is sent.

The body is read piece by piece, unpacked, cut into lines and appended in batches, one after the other so that the
order of lines is the order of the ledger; while Redis works on one batch the next is read. Nothing more is held, so a
slow store slows the sender down. A store that is away or a quota that is used up is waited for, up to the patience of
the settings.

A wrong event is counted and shown with its line and costs no other. A body that breaks (damaged, cut off, a line that
is not JSON, a sender that has gone) ends the import there: what was before is in the ledger, and the error names the
line. Sending the same body again adds nothing: a line with an `event_id` is a duplicate, and one without gets an id
made of its number and its content. So such lines have to be sent again in the same body, from its beginning.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from time import perf_counter

import orjson

from context_graph.domain.partition import Tenant
from context_graph.errors import ContextGraphError, Erased, EventConflict, FieldProblem, InvalidInput, TemporaryError
from context_graph.ingest.exact_json import parse_exactly
from context_graph.ingest.import_summary import ImportSummary, ImportTally
from context_graph.ingest.ingest import Ingest, Outcome
from context_graph.ingest.lines import LineCutter
from context_graph.ingest.unpacking import BodyTooLarge, BrokenBody, Encoding, unpacker
from context_graph.settings import ImportSettings

_PIECE = 256 * 1024  # bytes cut into lines at once, so that the event loop is not held for longer than milliseconds
_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 5.0

Tell = Callable[[ImportSummary], Awaitable[None]]


@dataclass(slots=True)
class _Batch:
    """Lines to append together: their numbers (from 1) and values."""

    numbers: list[int] = field(default_factory=list)
    values: list[object] = field(default_factory=list)
    size: int = 0

    def add(self, number: int, value: object, size: int) -> None:
        self.numbers.append(number)
        self.values.append(value)
        self.size += size


class Importer:
    """The use case behind POST /v1/events/import."""

    def __init__(
        self,
        ingest: Ingest,
        settings: ImportSettings,
        *,
        clock: Callable[[], float] = perf_counter,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._ingest = ingest
        self._settings = settings
        self._clock = clock
        self._sleep = sleep

    async def run(self, tenant: Tenant, body: AsyncIterable[bytes], encoding: Encoding, tell: Tell) -> ImportSummary:
        """Append every line of the body; `tell` hears how far it is after each batch.

        Never raises for what the body or the store does: the summary's `broken` says what ended the import early.
        """
        tally = ImportTally(self._clock, self._settings.errors_shown)
        appending: asyncio.Task[None] | None = None
        try:
            try:
                async for batch in self._batches(body, encoding, tally):
                    if appending is not None:
                        await appending
                        await tell(tally.summary())
                    appending = asyncio.create_task(self._append(tenant, batch, tally), name="import append")
            except (BrokenBody, BodyTooLarge) as error:
                tally.broken = error
            if appending is not None:  # also behind a break: what was before it is kept
                await appending
        except TemporaryError as error:
            tally.broken = error
        finally:
            if appending is not None and not appending.done():
                appending.cancel()
                await asyncio.gather(appending, return_exceptions=True)
        return tally.summary()

    async def _batches(
        self, body: AsyncIterable[bytes], encoding: Encoding, tally: ImportTally
    ) -> AsyncIterator[_Batch]:
        """Full batches, then the last one; a body that breaks gives what was before it, then raises."""
        batch = _Batch()
        broken: ContextGraphError | None = None
        try:
            async for number, line in self._lines(body, encoding, tally):
                batch.add(number, _value(line, number), len(line))
                if len(batch.numbers) >= self._settings.batch_events or batch.size >= self._settings.batch_bytes:
                    yield batch
                    batch = _Batch()
        except (BrokenBody, BodyTooLarge) as error:
            broken = type(error)(f"line {tally.line:,}: {error}")
            broken.__cause__ = error
        if batch.numbers:
            yield batch
        if broken is not None:
            raise broken

    async def _lines(
        self, body: AsyncIterable[bytes], encoding: Encoding, tally: ImportTally
    ) -> AsyncIterator[tuple[int, bytes]]:
        """Lines that hold something, with their number; `tally.line` is the one in hand, also when this raises."""
        limits = self._settings
        unpack = unpacker(encoding, most=limits.max_decompressed_bytes, ratio=limits.max_ratio)
        cutter = LineCutter(limits.max_line_bytes)
        tally.line = 1
        async for data in body:
            for out in unpack.feed(data):
                for start in range(0, len(out), _PIECE):
                    piece = out[start : start + _PIECE]
                    tally.bytes += len(piece)
                    for line in cutter.feed(piece):
                        if line and (text := _text(line, tally.line, cutter)):
                            yield tally.line, text
                        tally.line += 1
                    await asyncio.sleep(0)  # a highly compressed body must not hold the loop
        unpack.finish()
        if text := _text(cutter.rest(), tally.line, cutter):
            yield tally.line, text

    async def _append(self, tenant: Tenant, batch: _Batch, tally: ImportTally) -> None:
        """Append a batch and count what became of it. Raises TemporaryError when patience ends."""
        numbers, values = batch.numbers, batch.values
        waited, pause = 0.0, _FIRST_PAUSE
        while numbers:
            refused: TemporaryError | None = None
            outcomes: list[Outcome] = []
            try:
                outcomes = await self._ingest.batch(tenant, values)
            except TemporaryError as error:
                refused = error
            if refused is None:
                failed = [outcome for outcome in outcomes if outcome.status == "failed"]
                tally.count([(numbers[o.place], o, _problems_of(o)) for o in outcomes if o.status != "failed"])
                if not failed:
                    return
                numbers, values = [numbers[o.place] for o in failed], [values[o.place] for o in failed]
                refused = next((o.error for o in failed if isinstance(o.error, TemporaryError)), None)
            wait = max(pause, float(refused.retry_after) if refused is not None and waited else 0.0)
            if waited + wait > self._settings.patience_seconds:
                raise refused or TemporaryError("the ledger took none of these events")
            await self._sleep(wait)
            waited, pause = waited + wait, min(pause * 2, _LONGEST_PAUSE)


def _text(line: bytes, number: int, cutter: LineCutter) -> bytes:
    cutter.check(line)
    return (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).strip()


def _value(line: bytes, number: int) -> object:
    """The line's value, with an id if it is an event without one. Raises BrokenBody when it is not JSON."""
    try:
        value = parse_exactly(line)
    except orjson.JSONDecodeError as error:
        raise BrokenBody(f"not JSON: {error}") from error
    if isinstance(value, dict) and value.get("event_id") is None:
        value["event_id"] = None
        try:
            content = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        except orjson.JSONEncodeError:  # it will be refused, under an id of what was sent
            content = line
        value["event_id"] = f"line-{number}-{blake2b(content, digest_size=16).hexdigest()}"
    return value


def _problems_of(outcome: Outcome) -> list[FieldProblem]:
    match outcome.error:
        case None:
            return []
        case InvalidInput(problems=problems):
            return problems
        case EventConflict() as error:
            remedy = "use a new event_id, or send exactly the same content"
            return [FieldProblem("/event_id", str(error), remedy, "event-conflict")]
        case Erased() as error:
            remedy = "leave it out: sending it again changes nothing"
            return [FieldProblem("", str(error), remedy, f"{error.kind}-erased")]
        case error:
            return [FieldProblem("", str(error), "leave it out: sending it again changes nothing", "refused")]
