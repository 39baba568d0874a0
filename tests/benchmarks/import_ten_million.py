"""A large import: `python -m tests.benchmarks.import_ten_million [--events N] [--out FILE]`; on demand, not in CI.

Small events go through POST /v1/events/import into the ledger alone (no worker runs). Half-way the sending process is
killed with SIGKILL and started again with the same body from its beginning: what is there comes back as duplicates.
Said: events a second over time, bytes of Redis memory an event beside its JSON, the memory of the API process, and
whether the ledger holds each event once.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson

from context_graph.local.process import Child, Program, last_lines
from tests.benchmarks.api_cost import peak_bytes
from tests.benchmarks.stage import Stage, open_stage

_SESSION_EVENTS = 50
_PIECE_LINES = 500
_LOOK_SECONDS = 1.0
_SAMPLES = 10  # rows of the rate over time


@dataclass(frozen=True, slots=True)
class Look:
    """The ledger at one moment."""

    seconds: float
    events: int


@dataclass(slots=True)
class Report:
    """What a run says. Rates are events a second, sizes bytes."""

    events: int
    json_bytes_an_event: float
    redis_bytes_an_event: float = 0.0
    redis_to_json: float = 0.0
    import_seconds: float = 0.0
    rate: float = 0.0
    rates_over_time: list[dict[str, int]] = field(default_factory=list)
    killed_at: int = 0
    repeated: int = 0
    repeated_rate: float = 0.0
    in_ledger: int = 0
    in_ids: int = 0
    api_peak_bytes: int = 0


def line(number: int) -> bytes:
    """One event as a caller would write it: small, some 200 bytes, its id and time by its number."""
    second = number // 20
    at = f"2026-01-{1 + second // 86400 % 28:02d}T"
    at += f"{second // 3600 % 24:02d}:{second // 60 % 60:02d}:{second % 60:02d}.{number % 20 * 50:03d}Z"
    return (
        f'{{"event_id":"i-{number}","event_type":"user.message","session_id":"s-{number // _SESSION_EVENTS}",'
        f'"agent_id":"importer","occurred_at":"{at}","payload":{{"text":"{number % 997} of sensor {number % 13}"}}}}\n'
    ).encode()


def pieces(events: int) -> Iterator[bytes]:
    """The body, some hundred lines at once."""
    for start in range(0, events, _PIECE_LINES):
        yield b"".join(map(line, range(start, min(start + _PIECE_LINES, events))))


async def send(port: int, key: str, events: int) -> dict[str, Any]:
    """POST the whole body in one chunked request, as fast as the service reads it; its summary."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"POST /v1/events/import HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Engine-API-Key: {key}\r\nConnection: close\r\n"
        "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    )
    for piece in pieces(events):
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise RuntimeError(answer.decode(errors="replace")[:2000])
    summary: dict[str, Any] = orjson.loads(body)
    return summary


async def measured(events: int) -> Report:
    """Import, kill the sender half-way, import again, count."""
    sample = [len(line(number)) - 1 for number in range(0, events, max(1, events // 1000))]
    report = Report(events, sum(sample) / len(sample))
    async with open_stage() as stage, stage.api() as port:
        await stage.resources.ledger_redis.config_set("auto-aof-rewrite-percentage", 0)  # measured without rewrites
        empty = await _used(stage)
        first = await _watched(stage, port, events, stop_at=events // 2)
        report.killed_at = first[-1].events
        second = await _watched(stage, port, events, stop_at=None)
        grew = next((number for number, look in enumerate(second) if look.events > second[0].events), len(second) - 1)
        report.repeated = second[0].events
        report.repeated_rate = second[0].events / max(second[max(grew - 1, 0)].seconds, _LOOK_SECONDS)
        report.rates_over_time = _rates([first, second[max(grew - 1, 0) :]])
        report.import_seconds = _seconds(first) + _seconds(second[max(grew - 1, 0) :])
        report.rate = events / report.import_seconds
        report.redis_bytes_an_event = (await _used(stage) - empty) / events
        report.redis_to_json = report.redis_bytes_an_event / report.json_bytes_an_event
        report.in_ledger = await stage.resources.ledger.length(stage.partition)
        report.in_ids = await stage.resources.ledger_redis.hlen(f"cg:{stage.partition.tag}:ids")
        report.api_peak_bytes = peak_bytes(port)
    return report


async def _watched(stage: Stage, port: int, events: int, stop_at: int | None) -> list[Look]:
    """A sender process, watched by the length of the ledger; killed at `stop_at` events, else until it ends."""
    log = stage.folder / "sender.log"
    argv = (sys.executable, "-m", "tests.benchmarks.import_ten_million", "--events", str(events), "--send", str(port))
    child = Child.start(Program("sender", argv, log, os.environ | {"CG_KEY": stage.key}))
    began, looks = time.perf_counter(), []
    try:
        while True:
            length = await stage.resources.ledger.length(stage.partition)
            looks.append(Look(time.perf_counter() - began, length))
            if stop_at is not None and length >= stop_at:
                child.kill()
                return [*looks, await _settled(stage, began)]
            if child.exit_code is not None:
                if child.exit_code != 0:
                    raise RuntimeError(f"the sender ended with {child.exit_code}:\n{last_lines(log)}")
                return looks
            sys.stderr.write(f"\r{looks[-1].seconds:6.0f} s {length:>12,} events")
            await asyncio.sleep(min(_LOOK_SECONDS, events / 200_000))
    finally:
        child.kill()
        sys.stderr.write("\n")


async def _settled(stage: Stage, began: float) -> Look:
    """The ledger when the service has finished what it had read from the killed sender."""
    last = -1
    while (length := await stage.resources.ledger.length(stage.partition)) != last:
        last = length
        await asyncio.sleep(0.5)
    return Look(time.perf_counter() - began, last)


def _seconds(looks: Sequence[Look]) -> float:
    return max(looks[-1].seconds - looks[0].seconds, 0.001)


def _rates(runs: Sequence[Sequence[Look]]) -> list[dict[str, int]]:
    """Events a second for each tenth of the events, out of the looks at each run's ledger."""
    rows: list[dict[str, int]] = []
    for looks in runs:
        step = max(1, len(looks) * len(runs) // _SAMPLES)
        marks = [*looks[::step], looks[-1]]
        for one, other in pairwise(marks):
            if other.seconds > one.seconds and other.events > one.events:
                rate = (other.events - one.events) / (other.seconds - one.seconds)
                rows.append({"events": other.events, "rate": round(rate)})
    return rows


async def _used(stage: Stage) -> int:
    """Bytes of data in Redis, its clients' and its log's buffers left out."""
    facts: dict[str, Any] = await stage.resources.ledger_redis.info("memory")
    return int(facts["used_memory"]) - sum(int(facts.get(n, 0)) for n in ("mem_clients_normal", "mem_aof_buffer"))


def main() -> None:
    """Measure, or (`--send`, used by itself) be the sending process."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.import_ten_million", description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--out", type=Path, default=Path(".benchmarks/import.json"))
    parser.add_argument("--send", type=int, metavar="PORT", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.send is not None:
        summary = asyncio.run(send(asked.send, os.environ["CG_KEY"], asked.events))
        sys.stdout.write(orjson.dumps(summary).decode() + "\n")
        return
    report = orjson.dumps(asdict(asyncio.run(measured(asked.events))), option=orjson.OPT_INDENT_2)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_bytes(report + b"\n")
    sys.stdout.write(report.decode() + "\n")


if __name__ == "__main__":
    main()
