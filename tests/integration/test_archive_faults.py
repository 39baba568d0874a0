"""Damage to the archive is seen and said, and nothing is trimmed for it; a crash at any step leaves a sound state."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from context_graph.bootstrap import Resources
from context_graph.errors import ArchiveDamaged, ArchiveUnavailable, StoreUnavailable
from context_graph.settings import Settings
from context_graph.store.archive_files import ArchiveFiles, open_files
from context_graph.store.archive_writing import Archiver, ArchiverLost
from context_graph.store.connection import open_redis
from context_graph.store.keys import PartitionKeys
from context_graph.store.leases import Leases
from tests.archives import Archiving
from tests.ledger_events import append, envelope
from tests.waiting import until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
async def archiving(resources: Resources, folder: Path) -> Archiving:
    tenant = await resources.tenants.ensure("acme", 1)
    made = Archiving(resources.ledger_redis, open_files(f"file://{folder}"), tenant)
    await append(made.ledger, made.partition, [envelope(n) for n in range(30)])
    await made.finish(resources.groups)
    return made


def files_of(folder: Path, ending: str) -> list[Path]:
    return sorted((folder / "acme" / "0").glob(f"*{ending}"))


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def shorten(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


DAMAGES: list[tuple[str, int, Callable[[Path], None], str]] = [
    (".zst", 0, flip, "damaged: its SHA-256 does not match"),
    (".zst", 1, shorten, "bytes; its manifest says"),
    (".zst", 1, Path.unlink, "misses? a file|is missing"),
    (".json", 1, flip, "the manifest .* is damaged"),
    (".json", 1, shorten, "the manifest .* is damaged"),
    (".json", 0, Path.unlink, "misses a segment: no manifest covers what follows the beginning"),
    (".json", 1, Path.unlink, "misses a segment: no manifest covers what follows"),
]


@pytest.mark.parametrize(("ending", "index", "harm", "words"), DAMAGES)
async def test_every_damage_is_seen_by_verify_and_nothing_is_trimmed_for_it(
    archiving: Archiving, folder: Path, ending: str, index: int, harm: Callable[[Path], None], words: str
) -> None:
    assert (await archiving.run(keep_ms=3_600_000)).segments == 5
    harm(files_of(folder, ending)[index])
    archiving.reopen()
    report = await archiving.verify()
    assert any(_matches(words, problem) for problem in report.problems), report.problems
    before = await archiving.hot()
    try:
        done = await archiving.run()
    except ArchiveDamaged as error:
        assert _matches(words, str(error)) or "missing" in str(error)
        assert await archiving.hot() == before
    else:
        pytest.fail(f"the pass did not see it: {done}")


async def test_damage_that_only_reading_shows_stops_the_trim_at_the_damaged_segment(
    archiving: Archiving, folder: Path
) -> None:
    await archiving.run(keep_ms=3_600_000)
    flip(files_of(folder, ".zst")[2])  # same size, so the listing cannot tell
    with pytest.raises(ArchiveDamaged, match="SHA-256"):
        await archiving.run()
    assert len(await archiving.hot()) == 30 - 14  # the two segments before it were sound


@pytest.mark.parametrize("harm", [flip, Path.unlink])
async def test_a_reader_of_damaged_events_gets_an_error_and_never_less_than_there_was(
    archiving: Archiving, folder: Path, harm: Callable[[Path], None]
) -> None:
    assert (await archiving.run()).trimmed == 28
    known = [found.position for found in await archiving.everything()]
    harm(files_of(folder, ".zst")[1])
    archiving.reopen()
    with pytest.raises(ArchiveDamaged):
        await archiving.everything()
    with pytest.raises(ArchiveDamaged):
        await archiving.ledger.get(archiving.partition, "e8")
    with pytest.raises(ArchiveDamaged):
        async for _ in archiving.ledger.replay(archiving.partition, None):
            continue
    found = await archiving.ledger.after(archiving.partition, known[13], 100)
    assert [event.position for event in found] == known[14:]


async def test_a_missing_manifest_is_an_error_for_readers_too(archiving: Archiving, folder: Path) -> None:
    await archiving.run()
    last = await archiving.ledger.last(archiving.partition)
    assert last is not None
    files_of(folder, ".json")[1].unlink()
    archiving.reopen()
    with pytest.raises(ArchiveDamaged, match="misses a segment"):
        await archiving.everything()
    with pytest.raises(ArchiveDamaged, match="misses a segment"):
        await archiving.ledger.get(archiving.partition, "e8")
    with pytest.raises(ArchiveDamaged, match="misses a segment"):
        await archiving.ledger.before(archiving.partition, last, 100)
    assert len(await archiving.ledger.before(archiving.partition, last, 10)) == 10


async def test_missing_last_manifests_are_seen_whether_the_stream_was_trimmed_or_not(
    archiving: Archiving, folder: Path
) -> None:
    await archiving.run(keep_ms=3_600_000)
    files_of(folder, ".json")[-1].unlink()
    archiving.reopen()
    report = await archiving.verify()
    assert any("manifests are missing" in problem for problem in report.problems), report
    assert any("belongs to no manifest" in note for note in report.notes)
    assert (await archiving.run()).events == 2  # still in the stream: archived again
    assert (await archiving.verify()).problems == ()
    for file in files_of(folder, ".json")[-2:]:
        file.unlink()
    archiving.reopen()
    assert any("but the stream was trimmed through" in problem for problem in (await archiving.verify()).problems)
    with pytest.raises(ArchiveDamaged, match="but the stream was trimmed through"):
        await archiving.run()


async def test_a_stream_that_lost_what_is_archived_is_not_continued(archiving: Archiving, resources: Resources) -> None:
    await archiving.run(keep_ms=3_600_000)
    await resources.ledger_redis.flushall()
    await append(archiving.ledger, archiving.partition, [envelope(100)])
    with pytest.raises(ArchiveDamaged, match="Redis lost events"):
        await archiving.run()
    assert any("Redis lost events" in problem for problem in (await archiving.verify()).problems)


async def test_the_archive_is_right_although_redis_forgot_how_far_it_is(archiving: Archiving) -> None:
    await archiving.run(keep_ms=3_600_000)
    await archiving.redis.delete(PartitionKeys(archiving.partition).archived)
    archiving.reopen()
    assert (await archiving.run()).words == "0 events archived in 0 segments, 28 trimmed"
    assert (await archiving.verify()).problems == ()


class Failing(MemoryFileSystem):  # type: ignore[misc]
    """An object store that fails at the n-th write, before or after it, or changes a byte on the way."""

    store: dict[str, Any] = {}  # noqa: RUF012 - fsspec's own shape: one store a class
    pseudo_dirs = [""]  # noqa: RUF012
    cachable = False

    def __init__(self, fail_at: int, how: str) -> None:
        super().__init__()
        self.left = fail_at
        self.how = how

    def pipe_file(self, path: str, value: bytes, **options: Any) -> None:
        self.left -= 1
        if self.left == 0 and self.how == "before":
            raise OSError("the store is away")
        if self.left == 0 and self.how == "changed":
            value = bytes([value[0] ^ 1]) + value[1:]
        super().pipe_file(path, value, **options)
        if self.left == 0 and self.how == "after":
            raise OSError("the store is away")


@pytest.mark.parametrize("how", ["before", "after", "changed"])
@pytest.mark.parametrize("step", range(1, 10))
async def test_a_failure_at_any_write_leaves_a_sound_archive_that_the_next_pass_completes(
    resources: Resources, step: int, how: str
) -> None:
    tenant = await resources.tenants.ensure("acme", 1)
    store = Failing(step, how)
    store.store.clear()
    archiving = Archiving(resources.ledger_redis, ArchiveFiles(store, "/archive"), tenant)
    await append(archiving.ledger, archiving.partition, [envelope(n) for n in range(20)])
    await archiving.finish(resources.groups)
    known = await archiving.everything()
    with pytest.raises((ArchiveUnavailable, ArchiveDamaged)):
        await archiving.run()
    assert len(await archiving.hot()) == 20
    assert await archiving.everything() == known
    archiving.reopen()
    if how == "changed" and step % 3 == 0:
        return  # a manifest was written wrong: `verify` and the next pass say so until it is removed
    done = await archiving.run()
    assert done.trimmed == 14
    assert await archiving.everything() == known
    assert (await archiving.verify()).problems == ()


async def test_an_archiver_that_lost_its_lease_trims_nothing(archiving: Archiving, resources: Resources) -> None:
    """As if it had been suspended longer than its lease, and another had archived meanwhile."""

    class Losing(Leases):
        async def renew(self, lease: Any) -> bool:
            await resources.ledger_redis.delete(PartitionKeys(archiving.partition).lease("archive"))
            assert await self.acquire(archiving.partition, "archive", "another", 60_000)
            return await super().renew(lease)

    await archiving.run(keep_ms=3_600_000)
    late = Archiver(archiving.redis, archiving.archive, Losing(archiving.redis), archiving.retention)
    with pytest.raises(ArchiverLost):
        await late.run(archiving.tenant, archiving.partition, "late", asyncio.Event())
    assert len(await archiving.hot()) == 30


async def test_overlapping_segments_of_two_archivers_are_read_once(archiving: Archiving, folder: Path) -> None:
    await archiving.run(keep_ms=3_600_000)
    known = await archiving.everything()
    other = Archiving(archiving.redis, open_files(f"file://{folder}-other"), archiving.tenant)
    await other.run(keep_ms=3_600_000, segment_events=10)
    for file in (Path(f"{folder}-other") / "acme" / "0").iterdir():
        file.rename(folder / "acme" / "0" / file.name)
    archiving.reopen()
    assert (await archiving.run()).trimmed == 21  # by whole segments, and the newest event stays
    assert await archiving.everything() == known
    replayed = [entry async for batch in archiving.ledger.replay(archiving.partition, None) for entry in batch]
    assert [stream_id.decode() for stream_id, _ in replayed] == [found.position.stream_id for found in known]
    assert (await archiving.verify()).problems == ()


async def test_a_worker_killed_at_random_moments_never_loses_or_repeats_an_event(
    archiving: Archiving, resources: Resources, settings: Settings, folder: Path
) -> None:
    """kill -9 of the real worker, again and again, while events come in; then everything is read back."""
    chance = random.Random(5)
    known = [found.envelope for found in await archiving.everything()]
    assert settings.redis_url is not None
    environment = dict(os.environ) | {
        "CG_REDIS_URL": settings.redis_url.get_secret_value(),
        "CG_ARCHIVE__URL": f"file://{folder}",
        "CG_ARCHIVE__SEGMENT_EVENTS": "5",
        "CG_ARCHIVE__SETTLE_SECONDS": "0",
        "CG_ARCHIVE__KEEP_HOURS": "0",
        "CG_ARCHIVE__KEEP_EVENTS": "3",
        "CG_ARCHIVE__EVERY_SECONDS": "0.01",
    }
    async with open_redis(settings.redis_url.get_secret_value()) as client:
        for _ in range(6):
            worker = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "context_graph.cli.main", "worker", "archive", env=environment,
                stdout=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            ends = len(known) + 200
            while len(known) < ends:
                fresh = [envelope(n, session_id=f"s{n % 3}") for n in range(len(known), len(known) + 20)]
                await append(archiving.ledger, archiving.partition, fresh)
                known += fresh
                await archiving.finish(resources.groups)
            hot_goal = chance.randrange(5, 150)

            async def is_busy(goal: int = hot_goal) -> bool:
                return int(await client.xlen(PartitionKeys(archiving.partition).ledger)) < goal

            await until(is_busy, seconds=60)
            worker.send_signal(signal.SIGKILL)
            await worker.wait()
            archiving.reopen()
            assert [found.envelope for found in await archiving.everything()] == known
            await client.delete(PartitionKeys(archiving.partition).lease("archive"))  # as time would
    report = await archiving.verify()
    assert report.problems == ()
    assert report.trimmed is not None
    manifests = [json.loads(file.read_bytes()) for file in files_of(folder, ".json")]
    assert sum(manifest["count"] for manifest in manifests) == report.events


async def test_a_folder_that_cannot_be_written_is_an_outage(archiving: Archiving, folder: Path) -> None:
    folder.write_text("a file where the folder should be")  # noqa: ASYNC240 - a test's own small file
    with pytest.raises(StoreUnavailable, match="the archive does not answer"):
        await archiving.run()
    assert len(await archiving.hot()) == 30


def _matches(words: str, text: str) -> bool:
    return re.search(words, text) is not None
