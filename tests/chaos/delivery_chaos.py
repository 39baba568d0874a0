"""Delivery under `kill -9`: `python -m tests.chaos.delivery_chaos [--kills 50] [--events 20000] [--seed N]`.

Workers project a growing ledger. They are ended between read, write and acknowledgement, Redis (durable profile) is
killed and started again, one event in a thousand is poison (it raises, or it ends its process each time), and while all
workers sleep the stream is archived and trimmed behind their group. Afterwards the graph must equal that of an
undisturbed run over the same ledger, the poison must be in the dead letters and nothing else, and nothing may be left
to do.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from context_graph.bootstrap import Resources, open_resources
from context_graph.domain.event import Envelope
from context_graph.domain.partition import Partition
from context_graph.domain.stages import PROJECTION
from context_graph.errors import StoreUnavailable
from context_graph.local.data_folder import DataFolder
from context_graph.local.process import Child, Program, last_lines
from context_graph.local.redis_server import EmbeddedRedis, prepared_redis, until_answering
from context_graph.settings import ArchiveSettings, Settings
from context_graph.store.archive_writing import Archiver, Retention
from context_graph.store.connection import open_redis
from context_graph.store.graph import Graph
from context_graph.store.keys import PartitionKeys
from projections.worker import Projection
from tests.chaos.mortal_worker import KILLED, KILLER, PLANNED, POISON
from tests.events import event
from tests.graph_state import State, graph_state, state_hash
from tests.ledger_events import appendable, only_partition, parsed
from tests.waiting import until

_POINTS = ("read", "write", "ack")
_DELIVERY = {
    "CG_DELIVERY__POLL_SECONDS": "0.1",
    "CG_DELIVERY__HEARTBEAT_SECONDS": "0.1",
    "CG_DELIVERY__RECLAIM_IDLE_SECONDS": "0.3",
    "CG_DELIVERY__BACKOFF_SECONDS": "0.02",
    "CG_DELIVERY__AGAIN_SECONDS": "2",
    "CG_DELIVERY__BATCH_EVENTS": "32",
    "CG_DELIVERY__STALL_SECONDS": "60",
}
_SEGMENTS = Retention(
    segment_events=2_000, segment_bytes=1 << 24, segment_age_ms=0, settle_ms=0, keep_ms=0, keep_events=1
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happened, and what is wrong with the outcome: the last six should be 0 or empty."""

    events: int
    poison: int
    seconds: float
    kills: dict[str, int]
    """Planned ends by point, and those by an event."""
    redis_kills: int
    trimmed_unread: int
    took_over: int
    recovered: int
    hash: str
    differing_keys: int
    missing_letters: int
    wrong_letters: int
    lost: int
    left_to_do: int
    unexpected_ends: tuple[str, ...]

    @property
    def faults(self) -> int:
        return (
            self.differing_keys + self.missing_letters + self.wrong_letters + self.lost + self.left_to_do
            + len(self.unexpected_ends)
        )  # fmt: skip

    def table(self) -> str:
        """One line for each."""
        names = self.__slots__
        return "\n".join(f"{name.replace('_', ' '):<16} {getattr(self, name)}" for name in names)


@dataclass(slots=True)
class Course:
    """What is still to happen, and what has happened."""

    planned: int
    kills: Counter[str] = field(default_factory=Counter)
    started: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    awake: asyncio.Event = field(default_factory=asyncio.Event)
    unexpected: list[str] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Planned ends so far."""
        return sum(count for point, count in self.kills.items() if point in (*_POINTS, "asleep"))


class Slot:
    """A worker that is started again whenever it has ended."""

    def __init__(self, number: int, folder: Path, environment: dict[str, str], chance: random.Random) -> None:
        self._number = number
        self._folder = folder
        self._environment = environment
        self._chance = chance
        self.child: Child | None = None

    async def run(self, course: Course) -> None:
        """Until the course is over; the last worker is stopped gracefully."""
        while not course.over.is_set():
            await course.awake.wait()
            self.child = child = self._start(course)
            ended = asyncio.create_task(child.wait())
            over = asyncio.create_task(course.over.wait())
            await asyncio.wait({ended, over}, return_when=asyncio.FIRST_COMPLETED)
            over.cancel()
            if not ended.done() and not await child.stop(20):
                course.unexpected.append("a worker did not stop")
            await ended
            self._count(child, course)

    def _start(self, course: Course) -> Child:
        course.started += 1
        mortal = course.done < course.planned
        point = self._chance.choice(_POINTS) if mortal else "never"
        log = self._folder / f"worker-{self._number}-{course.started}.log"
        command = (sys.executable, "-m", "tests.chaos.mortal_worker", point, str(self._chance.randint(2, 9)))
        return Child.start(Program(f"worker {self._number}", command, log, self._environment))

    @staticmethod
    def _count(child: Child, course: Course) -> None:
        said = child.program.log.read_text()
        if PLANNED in said:
            course.kills[said[said.index(PLANNED) + len(PLANNED) + 2 :].split()[0]] += 1
        elif KILLED in said:
            course.kills["by an event"] += 1
        elif not course.awake.is_set():
            course.kills["asleep"] += 1
        elif child.exit_code != 0 and not (
            course.over.is_set() and child.exit_code == -signal.SIGTERM
        ):  # while starting
            course.unexpected.append(f"{child.program.name}: {child.exit_code}: {last_lines(child.program.log)}")


def ledger_of(count: int, every: int) -> list[Envelope]:
    """Events of a hundred sessions that name each other as causes, and poison now and then."""
    raws = []
    for number in range(count):
        kind = "user.message"
        if number % every == every // 2:
            kind = POISON if number // every % 2 else KILLER
        causes = [f"e{(number * 7 + 3) % count}"] if number % 5 == 0 else []
        raws.append(
            event(number, event_type=kind, session_id=f"s{number % 100}", user_id=f"u{number % 7}", caused_by=causes)
        )
    return parsed(raws)


async def run(
    folder: Path, *, kills: int, events: int, workers: int, every: int, seed: int, deliveries: int = 8
) -> Verdict:
    """The whole course in `folder`; one poison event in `every`.

    `deliveries`: CG_DELIVERY__MAX_DELIVERIES. The planned ends hit events by chance, and none must be hit that often.
    """
    began, chance = time.monotonic(), random.Random(seed)
    data = DataFolder.at(folder / "data")
    logs = folder / "workers"
    logs.mkdir()
    archive = (folder / "archive").as_uri()
    async with prepared_redis(data, durability="durable") as redis:
        server = Server(redis)
        await server.start()
        environment = (
            os.environ
            | _DELIVERY
            | {
                "CG_REDIS_URL": redis.url,
                "CG_ARCHIVE__URL": archive,
                "CG_DATA_DIR": str(folder / "none"),
                "CG_DELIVERY__MAX_DELIVERIES": str(deliveries),
            }
        )
        course, known = Course(kills), ledger_of(events, every)
        slots = [Slot(n, logs, environment, random.Random(seed + n)) for n in range(workers)]
        try:
            settings = Settings(redis_url=SecretStr(redis.url), archive=ArchiveSettings(url=archive))
            async with open_resources(settings) as resources:
                partition = await only_partition(resources.tenants)
                course.awake.set()
                async with asyncio.TaskGroup() as tasks:
                    for slot in slots:
                        tasks.create_task(slot.run(course))
                    trimmed = await _disturb(resources, partition, known, course, server, slots, chance)
                    await until(lambda: _finished(resources, partition), seconds=900)
                    course.over.set()
                return await _judged(
                    resources, partition, known, course,
                    seconds=time.monotonic() - began, redis_kills=server.kills, trimmed=trimmed, logs=logs,
                )  # fmt: skip
        finally:
            for slot in slots:
                if slot.child is not None:
                    slot.child.kill()
            await server.stop()


class Server:
    """The Redis, which is killed and started again."""

    def __init__(self, redis: EmbeddedRedis) -> None:
        self._redis = redis
        self._child: Child | None = None
        self.kills = 0

    async def start(self) -> None:
        self._child = Child.start(self._redis.program)
        await until_answering(self._redis, self._child)

    async def kill(self) -> None:
        assert self._child is not None
        self._child.kill()
        self.kills += 1
        await self.start()

    async def stop(self) -> None:
        if self._child is not None:
            await self._child.stop(10)


async def _disturb(
    resources: Resources, partition: Partition, known: Sequence[Envelope], course: Course, server: Server,
    slots: Sequence[Slot], chance: random.Random,
) -> int:  # fmt: skip
    """Append as the kills go on; kill Redis at each quarter, trim behind the sleeping group in the middle.

    Returns how many events were trimmed unread.
    """
    rest, trimmed = list(known), 0
    redis_at = [course.planned * quarter // 4 for quarter in (1, 2, 3)]
    sleep_at = course.planned * 3 // 5
    for step in range(course.planned):
        share = len(known) // (course.planned + 1)
        await _append(resources, partition, rest[:share], chance)
        rest = rest[share:]
        if step in redis_at:
            await server.kill()
        if step == sleep_at:
            trimmed = await _trim_asleep(resources, partition, rest[:share], course, slots, chance)
            rest = rest[share:]
        await until(lambda step=step: course.done > step, seconds=120)  # type: ignore[misc]
    await _append(resources, partition, rest, chance)
    return trimmed


async def _append(
    resources: Resources, partition: Partition, events: Sequence[Envelope], chance: random.Random
) -> None:
    """In batches of any size, each until the ledger has answered."""
    rest = list(events)
    while rest:
        size = chance.randint(1, 60)
        while True:
            try:
                await resources.ledger.append(partition, [appendable(one) for one in rest[:size]])
                break
            except StoreUnavailable:
                await asyncio.sleep(0.05)
        rest = rest[size:]


async def _trim_asleep(
    resources: Resources, partition: Partition, more: Sequence[Envelope], course: Course, slots: Sequence[Slot],
    chance: random.Random,
) -> int:  # fmt: skip
    """All workers are gone, more events come, everything is archived, and the stream is cut behind the group."""
    course.awake.clear()
    for slot in slots:
        if slot.child is not None:
            slot.child.kill()
    await _append(resources, partition, more, chance)
    assert resources.archive is not None
    archiver = Archiver(resources.ledger_redis, resources.archive, resources.leases, _SEGMENTS)
    [tenant] = await resources.tenants.all()
    await archiver.run(tenant, partition, "chaos", asyncio.Event(), flush=True)
    behind = await resources.groups.state(partition, PROJECTION.group)
    last = await resources.ledger.last(partition)
    assert last is not None
    await resources.ledger_redis.xtrim(PartitionKeys(partition).ledger, minid=last.stream_id, approximate=False)
    course.awake.set()
    return behind.lag + behind.pending


async def _finished(resources: Resources, partition: Partition) -> bool:
    try:
        state = await resources.groups.state(partition, PROJECTION.group)
    except StoreUnavailable:
        return False
    open_work = state.lag + state.pending + state.again + len(state.gaps) + len(state.gap_problems)
    return open_work == 0


async def _judged(
    resources: Resources, partition: Partition, known: Sequence[Envelope], course: Course, *, seconds: float,
    redis_kills: int, trimmed: int, logs: Path,
) -> Verdict:  # fmt: skip
    state = await graph_state(resources.derived_redis, partition)
    expected = await _undisturbed(resources, partition, known)
    letters = await resources.dead_letters.listed(partition, limit=10_000)
    poison = {str(one.event_id): one.event_type for one in known if one.event_type in (POISON, KILLER)}
    buried = {letter.event_id: letter.reason for letter in letters}
    wrong = [
        letter for letter in letters
        if letter.event_id not in poison
        or (poison[letter.event_id] == KILLER) != ("killed its worker" in letter.reason)
    ]  # fmt: skip
    said = await asyncio.to_thread(_logs_of, logs)
    counts = await resources.dead_letters.counts(partition)
    return Verdict(
        events=len(known),
        poison=len(poison),
        seconds=round(seconds, 1),
        kills=dict(course.kills),
        redis_kills=redis_kills,
        trimmed_unread=trimmed,
        took_over=sum(text.count("took_over") for text in said),
        recovered=sum(text.count("read_from_archive") for text in said),
        hash=state_hash(state),
        differing_keys=sum(state.get(key) != expected.get(key) for key in state.keys() | expected.keys()),
        missing_letters=len(poison.keys() - buried.keys()),
        wrong_letters=len(wrong) + len(letters) - len(buried),
        lost=sum(counts.lost.values()),
        left_to_do=0 if await _finished(resources, partition) else 1,
        unexpected_ends=tuple(course.unexpected),
    )


def _logs_of(folder: Path) -> list[str]:
    return [log.read_text() for log in folder.glob("*.log")]


async def _undisturbed(resources: Resources, partition: Partition, known: Sequence[Envelope]) -> State:
    """Stage 1 of the same ledger, archive and stream, by one worker that nobody disturbs, into another database."""
    assert resources.settings.redis_url is not None
    url = resources.settings.redis_url.get_secret_value()
    async with open_redis(url.removesuffix("/0") + "/1") as other:
        projection = Projection(Graph(other))
        for start in range(0, len(known), 500):
            places = [await resources.ledger.position_of(partition, one.event_id) for one in known[start : start + 500]]
            assert None not in places, "an acknowledged event is not in the ledger"
            found = await resources.ledger.entries_anywhere(partition, [place for place in places if place])
            assert len(found) == len(places)
            batch = await resources.source.events(partition, found)
            good = [one for one in batch if one.envelope.event_type not in (POISON, KILLER)]
            await projection.handle(partition, good)
        return await graph_state(other, partition)


def main() -> None:
    """Run it and print the table; exit code 1 when anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.delivery_chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--every", type=int, default=1_000, help="one poison event in so many")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    asked = parser.parse_args()
    sys.stderr.write(f"seed {asked.seed}\n")
    with tempfile.TemporaryDirectory(prefix="context-graph-chaos-") as name:
        verdict = asyncio.run(
            run(Path(name), kills=asked.kills, events=asked.events, workers=asked.workers, every=asked.every,
                seed=asked.seed)
        )  # fmt: skip
    sys.stdout.write(verdict.table() + "\n")
    sys.exit(1 if verdict.faults else 0)


if __name__ == "__main__":
    main()
