"""The real workers, killed with SIGKILL at random moments while events are appended: everything is there once."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.resources import files
from pathlib import Path

import pytest
from pydantic import SecretStr

from context_graph.bootstrap import Resources
from context_graph.domain.event import Envelope
from context_graph.domain.partition import Partition
from context_graph.domain.stages import STAGES
from context_graph.domain.text import indexed
from context_graph.local.process import Child, Program, last_lines
from context_graph.settings import Settings
from context_graph.store import documents as fields
from context_graph.store.connection import open_redis
from context_graph.store.graph import Graph
from projections.worker import Projection
from tests.events import event
from tests.graph_state import graph_state, stage_one
from tests.ledger_events import append, ndjson, only_partition, parsed
from tests.stages import caught_up
from tests.waiting import until

_KILLS = 14
_WORKERS = ("projection", "projection", "enrichment")
_LIVES = {"projection": (0.6, 2.5), "enrichment": (1.0, 7.0)}  # seconds; the models take some to load

pytestmark = pytest.mark.chaos


class Workers:
    """The command line's worker processes; each killed one is replaced."""

    def __init__(self, settings: Settings, folder: Path, chance: random.Random) -> None:
        assert settings.redis_url is not None
        self._chance = chance
        self._folder = folder
        self._environment = os.environ | {
            "CG_REDIS_URL": settings.redis_url.get_secret_value(),
            "CG_DATA_DIR": str(folder / "data"),
            "CG_DELIVERY__POLL_SECONDS": "0.1",
            "CG_DELIVERY__HEARTBEAT_SECONDS": "0.1",
            "CG_DELIVERY__RECLAIM_IDLE_SECONDS": "0.3",
            "CG_DELIVERY__BACKOFF_SECONDS": "0.05",
            "CG_DELIVERY__BATCH_EVENTS": "16",
            "CG_EMBEDDING__BATCH_EVENTS": "8",
        }
        self._children: list[tuple[str, Child]] = []
        self.kills = 0

    def start(self, name: str) -> Child:
        log = self._folder / f"{name}-{len(self._children)}.log"
        command = (sys.executable, "-m", "context_graph.cli.main", "worker", name)
        child = Child.start(Program(name, command, log, self._environment))
        self._children.append((name, child))
        return child

    async def kill_in_turn(self, name: str, busy: Callable[[], Awaitable[bool]], enough: asyncio.Event) -> None:
        """Start, let live for a while, kill, until `enough`; then a last one that stays.

        Every other kill waits a little for a moment at which the stage holds unacknowledged events.
        """
        while not enough.is_set():
            child = self.start(name)
            try:
                async with asyncio.timeout(self._chance.uniform(*_LIVES[name])):
                    await enough.wait()
            except TimeoutError:
                assert child.exit_code is None, last_lines(child.program.log)
                if self._chance.random() < 0.5:
                    await self._busy_moment(busy)
                child.kill()
                self.kills += 1
                if self.kills >= _KILLS:
                    enough.set()
            else:
                return  # it lives on
        self.start(name)

    async def _busy_moment(self, busy: Callable[[], Awaitable[bool]]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(6):  # a worker takes seconds to start on a busy machine
                while not await busy():
                    continue

    def took_over(self) -> int:
        """How often a worker has taken over what a killed one held."""
        return sum(log.read_text().count('"took_over"') for log in self._folder.glob("*.log"))

    async def stop(self) -> None:
        """Stop those that live, gracefully."""
        living = [child for _, child in self._children if child.exit_code is None]
        assert all(await asyncio.gather(*(child.stop(15) for child in living)))
        assert [child.exit_code for child in living] == [0] * len(living)

    def end(self) -> None:
        for _, child in self._children:
            child.kill()


@asynccontextmanager
async def workers(settings: Settings, folder: Path, chance: random.Random) -> AsyncIterator[Workers]:
    made = Workers(settings, folder, chance)
    try:
        yield made
    finally:
        made.end()


def everything() -> list[Envelope]:
    """The sample, and small events that refer forward and back."""
    folder = files("context_graph.local").joinpath("sample")
    texts = [folder.joinpath(name).read_text() for name in ("support.ndjson", "coding.ndjson")]
    sample = [raw for text in texts for raw in ndjson(text)]
    small = [
        event(n, session_id=f"s{n % 5}", user_id=f"u{n % 3}", caused_by=[f"e{(n * 7 + 1) % 240}"] if n % 7 else [])
        for n in range(200)
    ]
    return parsed([*sample, *small])


async def append_slowly(resources: Resources, partition: Partition, events: list[Envelope], chance: random.Random,
                        enough: asyncio.Event) -> None:  # fmt: skip
    """Small batches at random moments for as long as there is killing; the rest at once."""
    rest = list(events)
    while rest and not enough.is_set():
        size = chance.randint(1, 30)
        await append(resources.ledger, partition, rest[:size])
        rest = rest[size:]
        try:
            async with asyncio.timeout(chance.uniform(0.1, 1.0)):
                await enough.wait()
        except TimeoutError:
            continue
    if rest:
        await append(resources.ledger, partition, rest)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", [20260901])
async def test_after_many_kills_everything_is_there_once(resources: Resources, tmp_path: Path, seed: int) -> None:
    partition = await only_partition(resources.tenants)
    events, enough = everything(), asyncio.Event()
    async with workers(resources.settings, tmp_path, random.Random(seed)) as killed:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(append_slowly(resources, partition, events, random.Random(seed + 1), enough))
            for name in _WORKERS:
                busy = partial(holds_events, resources, partition, name)
                tasks.create_task(killed.kill_in_turn(name, busy, enough))
        assert killed.kills >= 10

        async def all_caught_up() -> bool:
            return all([await caught_up(resources.groups, partition, stage.group) for stage in STAGES])

        await until(all_caught_up, seconds=90)
        await killed.stop()

        assert killed.took_over() > 0, "no kill hit a worker at work: this run has shown nothing"

    assert await resources.dead_letters.listed(partition) == []
    state = await graph_state(resources.derived_redis, partition)
    assert stage_one(state) == await undisturbed(resources, partition)
    expected = {known.event_id for known in events if indexed(known)}
    documents = [key.removeprefix("doc:") for key in state if key.startswith("doc:")]
    vectors = [key.split(":", 2)[2] for key in state if key.startswith("vec:")]
    assert sorted(documents) == sorted(vectors) == sorted(expected)
    assert all({fields.META, fields.STORED[fields.TEXT], fields.AT} <= set(state[f"doc:{name}"]) for name in documents)
    assert all(
        {fields.STORED[fields.VECTOR], fields.MODEL, fields.AT} <= set(state[f"vec:0:{name}"]) for name in vectors
    )
    found = await resources.index.statistics(partition)
    assert (found.documents, found.vectors, found.failed) == (len(expected), len(expected), 0)


async def holds_events(resources: Resources, partition: Partition, group: str) -> bool:
    """Whether some worker of the group has events that it has not acknowledged."""
    return (await resources.groups.state(partition, group)).pending > 0


async def undisturbed(resources: Resources, partition: Partition) -> dict[str, dict[str, str]]:
    """Stage 1 of the same ledger into another database of the same Redis, by nobody who is killed."""
    assert resources.settings.redis_url is not None
    url = resources.settings.redis_url.get_secret_value()
    async with open_redis(url.removesuffix("/0") + "/1") as other:
        ledger = await resources.ledger.after(partition, None, 10_000)
        await Projection(Graph(other)).handle(partition, ledger)
        return await graph_state(other, partition)


def test_the_settings_of_the_killed_are_the_settings_of_the_service() -> None:
    """A wrong name in the environment would be ignored: these are the names."""
    names = {"poll_seconds", "heartbeat_seconds", "reclaim_idle_seconds", "backoff_seconds", "batch_events"}
    assert names <= set(type(Settings(redis_url=SecretStr("redis://x")).delivery).model_fields)
