"""The ledger under `kill -9`: `python -m tests.chaos.ledger_chaos [--kills 20] [--seconds 240] [--seed N]`.

Writers post single events and batches over HTTP while the API process and Redis (durable profile) are killed and
started again. A writer repeats a request, byte for byte, until it is acknowledged, and only then sends its next one.
Afterwards the ledger is read from Redis itself and compared with what was acknowledged: nothing missing, nothing twice,
no conflict, every acknowledged position true, and every session in the order in which it was sent.

SIGKILL shows what a process can lose. What a machine's end can lose is `appendfsync`, which the profile sets and
readiness checks; no test here cuts the power.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from pydantic import SecretStr

from context_graph.bootstrap import open_resources
from context_graph.domain.partition import Partition, Tenant
from context_graph.local.data_folder import DataFolder
from context_graph.local.process import Child
from context_graph.local.redis_server import EmbeddedRedis, free_port, prepared_redis, until_answering
from context_graph.settings import Settings
from context_graph.store.ledger import Ledger
from tests.events import event
from tests.serving import start_api, until_listening
from tests.waiting import until

_WRITERS = 6
_LARGEST_BATCH = 40
_TARGETS = ("api", "redis", "redis", "both")  # Redis is the one that could forget; it also starts faster


@dataclass(slots=True)
class Sent:
    """What the writers know: the position of each acknowledged event, and how hard it was to get."""

    positions: dict[str, str] = field(default_factory=dict)
    requests: int = 0
    repeated: int = 0
    duplicates: int = 0
    conflicts: int = 0
    unexpected: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the ledger says beside what was acknowledged. All but the first four should be 0."""

    kills: dict[str, int]
    seconds: float
    acknowledged: int
    repeated_requests: int
    missing: int
    twice: int
    conflicts: int
    unacknowledged: int
    wrong_positions: int
    wrong_order: int
    unexpected_answers: int

    @property
    def faults(self) -> int:
        return (
            self.missing + self.twice + self.conflicts + self.unacknowledged + self.wrong_positions
            + self.wrong_order + self.unexpected_answers
        )  # fmt: skip

    def table(self) -> str:
        """One line each."""
        rows: list[tuple[str, str]] = [
            ("kills", ", ".join(f"{name} {count}" for name, count in sorted(self.kills.items()))),
            ("seconds", f"{self.seconds:.0f}"),
            ("acknowledged events", f"{self.acknowledged:,}"),
            ("repeated requests", f"{self.repeated_requests:,}"),
            ("missing", str(self.missing)),
            ("twice", str(self.twice)),
            ("conflicts", str(self.conflicts)),
            ("never acknowledged", str(self.unacknowledged)),
            ("at another position than acknowledged", str(self.wrong_positions)),
            ("sessions out of order", str(self.wrong_order)),
            ("answers other than 200, 201, 207, 503", str(self.unexpected_answers)),
        ]
        return "\n".join(f"{name:40} {value}" for name, value in rows)


class Service:
    """One Redis and one API process, killed and started again at the same addresses."""

    def __init__(self, redis: EmbeddedRedis, folder: Path) -> None:
        self._redis = redis
        self._folder = folder
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._running: dict[str, Child] = {}
        self.kills: Counter[str] = Counter()

    async def start(self, *names: str) -> None:
        if "redis" in names:
            self._running["redis"] = Child.start(self._redis.program)
            await until_answering(self._redis, self._running["redis"])
        if "api" in names:
            self._running["api"] = start_api(
                self._redis.url, self._folder, self._port, {"CG_LEDGER__DURABILITY": "durable"}
            )
            await until_listening(self._running["api"], self._port)

    async def kill(self, target: str) -> None:
        """SIGKILL, and start again."""
        names = ("redis", "api") if target == "both" else (target,)
        for name in names:
            self._running[name].kill()
            self.kills[name] += 1
        await self.start(*names)

    async def stop(self) -> None:
        for name in ("api", "redis"):
            if name in self._running:
                await self._running[name].stop(20)


async def write(http: httpx2.AsyncClient, lane: int, sent: Sent, enough: asyncio.Event, chance: random.Random) -> None:
    """Post events of one session, in order, until told to stop; each request until it is acknowledged."""
    number = 0
    while not enough.is_set():
        size = chance.choice((1, 1, 1, chance.randint(2, _LARGEST_BATCH)))
        events = [event(n, event_id=f"w{lane}-{n}", session_id=f"session-{lane}") for n in range(number, number + size)]
        number += size
        if size == 1:
            await acknowledged(http, "/v1/events", events[0], sent)
        else:
            await acknowledged(http, "/v1/events/batch", {"events": events}, sent)


async def acknowledged(http: httpx2.AsyncClient, path: str, body: dict[str, Any], sent: Sent) -> None:
    """Post until there is an answer that says the events are in the ledger."""
    sent.requests += 1
    while True:
        try:
            answer = await http.post(path, json=body)
        except httpx2.TransportError:
            answer = None
        if answer is not None and answer.status_code in (200, 201, 207) and _took(answer.json(), sent):
            return
        if answer is not None and answer.status_code == 409:
            sent.conflicts += 1
            return
        if answer is not None and answer.status_code not in (207, 503):
            sent.unexpected[answer.status_code] += 1
        sent.repeated += 1
        await asyncio.sleep(0.05)


def _took(answer: dict[str, Any], sent: Sent) -> bool:
    """Remember what the answer acknowledges; whether that is everything."""
    results: list[dict[str, Any]] = answer.get("results", [answer])
    for result in results:
        sent.conflicts += result["status"] == "conflict"
        sent.duplicates += result["status"] == "duplicate"
        if result["status"] in ("created", "duplicate"):
            sent.positions[result["event_id"]] = result["position"]
    return all(result["status"] in ("created", "duplicate", "conflict") for result in results)


async def kill_often(service: Service, sent: Sent, kills: int, seconds: float, chance: random.Random) -> None:
    """Kill at random moments, each time after the writers have got something through, until it is enough."""
    ends = time.monotonic() + seconds
    for _ in range(kills):
        seen = len(sent.positions)
        await until(lambda seen=seen: len(sent.positions) > seen + _WRITERS, seconds=60)  # type: ignore[misc]
        await asyncio.sleep(chance.uniform(0.0, 0.6))
        await service.kill(chance.choice(_TARGETS))
        if time.monotonic() > ends:
            return


async def judged(ledger: Ledger, partition: Partition, sent: Sent) -> tuple[int, int, int, int, int]:
    """Missing, twice, never acknowledged, wrong positions, sessions out of order: from the ledger itself."""
    found: dict[str, list[str]] = {}
    order: dict[str, list[int]] = {}
    after = None
    while page := await ledger.after(partition, after, 5000):
        after = page[-1].position
        for known in page:
            found.setdefault(known.envelope.event_id, []).append(str(known.position))
            order.setdefault(known.envelope.session_id, []).append(int(known.envelope.event_id.partition("-")[2]))
    return (
        sum(event_id not in found for event_id in sent.positions),
        sum(len(positions) - 1 for positions in found.values()),
        sum(event_id not in sent.positions for event_id in found),
        sum(sent.positions.get(event_id, places[0]) != places[0] for event_id, places in found.items()),
        sum(numbers != list(range(len(numbers))) for numbers in order.values()),
    )


async def run(folder: Path, *, kills: int, seconds: float, seed: int) -> Verdict:
    """The whole thing, in that folder."""
    chance, sent, enough, began = random.Random(seed), Sent(), asyncio.Event(), time.monotonic()
    data = DataFolder.at(folder / "redis")
    with data.held():
        async with prepared_redis(data, durability="durable") as redis:
            service = Service(redis, folder)
            try:
                await service.start("redis")
                settings = Settings(redis_url=SecretStr(redis.url))
                async with open_resources(settings) as resources:
                    tenant: Tenant = await resources.tenants.ensure(settings.tenant, 1)
                    key = await resources.api_keys.create(tenant.name, name="chaos")
                await service.start("api")
                headers = {"X-Engine-API-Key": key}
                async with (
                    httpx2.AsyncClient(base_url=service.url, headers=headers, timeout=10) as http,
                    asyncio.TaskGroup() as tasks,
                ):
                    for lane in range(_WRITERS):
                        tasks.create_task(write(http, lane, sent, enough, random.Random(seed + lane)))
                    await kill_often(service, sent, kills, seconds, chance)
                    enough.set()
                async with open_resources(settings) as resources:
                    counts = await judged(resources.ledger, tenant.partitions[0], sent)
            finally:
                await service.stop()
    missing, twice, unacknowledged, positions, order = counts
    return Verdict(
        kills=dict(service.kills),
        seconds=time.monotonic() - began,
        acknowledged=len(sent.positions),
        repeated_requests=sent.repeated,
        missing=missing,
        twice=twice,
        conflicts=sent.conflicts,
        unacknowledged=unacknowledged,
        wrong_positions=positions,
        wrong_order=order,
        unexpected_answers=sent.unexpected.total(),
    )


def main() -> None:
    """Run it and print the table; exit code 1 when anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.ledger_chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=240.0, help="no further kill after that")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    asked = parser.parse_args()
    sys.stderr.write(f"seed {asked.seed}\n")
    with tempfile.TemporaryDirectory(prefix="context-graph-chaos-") as name:
        verdict = asyncio.run(run(Path(name), kills=asked.kills, seconds=asked.seconds, seed=asked.seed))
    sys.stdout.write(verdict.table() + "\n")
    sys.exit(1 if verdict.faults else 0)


if __name__ == "__main__":
    main()
