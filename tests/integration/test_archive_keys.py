"""Data keys in the archive: a restore reads what was said about the living, and nothing of the erased."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from context_graph.bootstrap import Resources, open_resources
from context_graph.domain.erasure import Erasure, Subject
from context_graph.domain.event import ERASURE_TYPE, EventId
from context_graph.errors import ArchiveDamaged, ConfigurationError, VaultLocked
from context_graph.ingest.erasure import Forgetting
from context_graph.settings import ArchiveSettings, Settings
from context_graph.store.archive_checking import ArchiveChecks
from context_graph.store.archive_keys import ArchivedKeys
from context_graph.store.archive_restoring import Restore, Restored
from context_graph.store.archive_writing import LEASE
from context_graph.store.keys import PEPPER, PartitionKeys
from tests.archives import Archiving
from tests.integration.test_vault import MASTER, OTHER_MASTER, told, with_vault
from tests.ledger_events import append, appendable

PEOPLE = ("nadia", "lena", "omar")


@dataclass(frozen=True, slots=True)
class Archived:
    """A ledger with an archive and a vault, in which three people were spoken about."""

    resources: Resources
    archiving: Archiving
    folder: Path

    @property
    def vault(self) -> str:
        return PartitionKeys(self.archiving.partition).vault

    def key_files(self) -> list[Path]:
        return sorted(self.folder.glob("*.keys"))

    async def erase(self, person: str) -> Erasure:
        """As the API and a worker do it, with every stage caught up."""
        resources = self.resources
        forgetting = Forgetting(resources.erasures, resources.vault, resources.hiding, now_ms=lambda: 1)
        tenant = self.archiving.tenant
        erasure = await forgetting.forget(tenant, Subject("user", person), 0)
        await self.archiving.finish(resources.groups)
        await resources.eraser.finish_all(asyncio.Event())
        return await forgetting.certificate(tenant, erasure.id)

    async def restore(self) -> Restored:
        resources = self.resources
        restoring = Restore(resources.ledger_redis, self.archiving.archive, resources.tenants, resources.vault)
        self.archiving.reopen()
        return await restoring.run(self.archiving.partition)

    async def read(self) -> dict[EventId, bool]:
        """Event id -> whether it can be read, its person being right."""
        events = await self.resources.ledger.after(self.archiving.partition, None, 1000)
        found = {e.envelope.event_id: not e.erased for e in events if e.envelope.event_type != ERASURE_TYPE}
        assert len(found) >= 21
        return found


@pytest.fixture
def with_archive(settings: Settings, tmp_path: Path) -> Settings:
    chosen = ArchiveSettings(url=f"file://{tmp_path}/archive")
    return with_vault(settings).model_copy(update={"archive": chosen})


@pytest.fixture
async def archived(with_archive: Settings, tmp_path: Path) -> AsyncIterator[Archived]:
    """21 events in three segments, the last event also in the stream."""
    async with open_resources(with_archive) as resources:
        assert resources.archive is not None
        tenant = await resources.tenants.ensure("acme", 1)
        archiving = Archiving(resources.ledger_redis, resources.archive.files, tenant)
        made = Archived(resources, archiving, tmp_path / "archive" / "acme" / "0")
        events = [told(n, user_id=PEOPLE[n % 3], session_id=f"s{n % 2}") for n in range(21)]
        await append(resources.ledger, archiving.partition, events)
        await archiving.finish(resources.groups)
        await archiving.run()
        yield made


def about(person: str) -> set[str]:
    return {f"e{n}" for n in range(21) if PEOPLE[n % 3] == person}


async def test_a_restore_into_an_empty_redis_brings_back_the_keys_of_the_living_only(archived: Archived) -> None:
    assert len(archived.key_files()) == 3
    assert (await archived.erase("nadia")).state == "done"
    await archived.archiving.run()  # the tombstone too
    before = await archived.read()
    await archived.resources.ledger_redis.flushall()

    done = await archived.restore()

    assert (done.keys, done.erased) == (4, 1)  # two people, two sessions
    assert await archived.read() == before
    assert {name for name, readable in before.items() if not readable} == about("nadia")
    again = await archived.resources.ledger.append(archived.archiving.partition, [appendable(told(99))])
    assert again[0].status == "erased"
    twice = await archived.resources.ledger.append(
        archived.archiving.partition, [appendable(told(1, user_id="lena", session_id="s1"))]
    )
    assert twice[0].status == "duplicate"


async def test_the_certificate_counts_the_keys_that_left_the_archive(archived: Archived) -> None:
    tag = await archived.resources.vault.tag_of(archived.archiving.partition, Subject("user", "nadia"))
    assert all(tag in path.read_text() for path in archived.key_files())
    # What a process that was killed while it wrote may leave.
    part = archived.folder / f"{archived.key_files()[0].name}.4711.part"
    part.write_bytes(archived.key_files()[0].read_bytes())
    done = await archived.erase("nadia")
    scanned = {name: count for removal in done.removals for name, count in removal.scanned.items()}
    removed = {name: count for removal in done.removals for name, count in removal.removed.items()}
    assert (scanned["archived_key_files"], removed["archived_keys"]) == (3, 3)
    assert not any(tag in path.read_text() for path in archived.folder.glob("*.keys*"))
    assert not part.exists()


async def test_a_key_that_an_old_copy_of_the_archive_brings_back_is_refused(archived: Archived) -> None:
    copies = {path: path.read_bytes() for path in archived.key_files()}
    await archived.erase("nadia")
    for path, data in copies.items():
        path.write_bytes(data)
    await archived.resources.ledger_redis.flushall()
    assert (
        await archived.restore()
    ).erased == 1  # the tombstone event was never archived: the archive's own file says it
    assert {name for name, readable in (await archived.read()).items() if not readable} == about("nadia")


async def test_the_tombstones_among_the_entries_are_enough(archived: Archived) -> None:
    copies = {path: path.read_bytes() for path in archived.key_files()}
    await archived.erase("nadia")
    await archived.archiving.run()
    for path in archived.folder.glob("*.erased"):
        path.unlink()
    for path, data in copies.items():
        path.write_bytes(data)
    await archived.resources.ledger_redis.flushall()
    assert (await archived.restore()).erased == 1
    assert {name for name, readable in (await archived.read()).items() if not readable} == about("nadia")


async def test_an_erasure_is_not_done_while_the_archive_cannot_be_written(archived: Archived) -> None:
    first = archived.key_files()[0]
    data = first.read_bytes()
    first.write_bytes(data[:-10])  # what cannot be read may hold the key
    held = await archived.erase("nadia")
    assert held.state == "running"
    assert held.waits_for is not None
    assert first.name in held.waits_for
    first.write_bytes(data)
    lease = await archived.resources.leases.acquire(archived.archiving.partition, LEASE, "archiver", 60_000)
    assert lease is not None
    held = await archived.erase("nadia")
    assert "is being written" in str(held.waits_for)
    await archived.resources.leases.release(lease)
    done = await archived.erase("nadia")
    assert (done.state, done.waits_for) == ("done", None)


async def test_a_worker_that_does_not_know_the_archive_finishes_no_erasure(
    archived: Archived, settings: Settings
) -> None:
    async with open_resources(with_vault(settings)) as without:
        other = Archived(without, archived.archiving, archived.folder)
        held = await other.erase("nadia")
    assert held.state == "running"
    assert "CG_ARCHIVE__URL" in str(held.waits_for)


async def test_a_key_destroyed_while_its_segment_is_archived_does_not_stay(archived: Archived) -> None:
    """The archiver has read the key, then the subject is erased, then the archiver writes: it looks again."""
    partition = archived.archiving.partition
    tag = await archived.resources.vault.tag_of(partition, Subject("user", "nadia"))
    redis = archived.resources.ledger_redis

    class Late(ArchivedKeys):
        async def _put(self, found: Any) -> None:
            await super()._put(found)
            await redis.hdel(archived.vault, tag)

    assert archived.resources.archive is not None
    late = Late(redis, archived.resources.archive)
    catalogue = await archived.archiving.archive.refresh(partition)
    path = archived.key_files()[0]
    path.unlink()
    assert catalogue.end is not None
    records = [r async for block in archived.archiving.archive.records(partition, None, catalogue.end) for r in block]
    await late.keep(catalogue.segments[0], records)
    assert tag not in path.read_text()


async def test_a_segment_from_before_there_were_key_files_gets_one(archived: Archived) -> None:
    known = [path.read_bytes() for path in archived.key_files()]
    for path in archived.key_files():
        path.unlink()
    report = await ArchiveChecks(archived.resources.ledger_redis, archived.archiving.archive).verify(
        archived.archiving.partition
    )
    assert (report.problems, len(report.notes)) == ((), 3)
    await archived.archiving.run()
    assert [path.read_bytes() for path in archived.key_files()] == known


async def test_after_a_rotation_the_archived_keys_need_the_new_master_key_only(
    archived: Archived, with_archive: Settings
) -> None:
    vault = {"master_key": SecretStr(OTHER_MASTER), "previous_keys": SecretStr(MASTER)}
    async with open_resources(with_vault(with_archive, **vault)) as rotated:
        await rotated.eraser.rewrap_all()
    await archived.resources.ledger_redis.flushall()
    with pytest.raises(VaultLocked, match="another master key"):
        await archived.restore()
    async with open_resources(with_vault(with_archive, master_key=SecretStr(OTHER_MASTER))) as newest:
        back = Archived(newest, archived.archiving, archived.folder)
        assert (await back.restore()).keys == 5
        assert all((await back.read()).values())


async def test_a_rotation_keeps_what_only_the_archive_has(archived: Archived) -> None:
    tag = await archived.resources.vault.tag_of(archived.archiving.partition, Subject("user", "nadia"))
    await archived.resources.ledger_redis.hdel(archived.vault, tag)
    assert archived.resources.archive is not None
    kept = ArchivedKeys(archived.resources.ledger_redis, archived.resources.archive)
    assert await kept.rewrap(archived.archiving.partition) == 0
    assert all(tag in path.read_text() for path in archived.key_files())


async def test_a_redis_that_has_given_people_other_names_since_is_refused(archived: Archived) -> None:
    redis = archived.resources.ledger_redis
    await redis.flushall()
    async with open_resources(archived.resources.settings) as anew:
        tenant = await anew.tenants.ensure("acme", 1)
        await anew.vault.tag_of(tenant.partitions[0], Subject("user", "nadia"))
    assert await redis.hexists(archived.vault, PEPPER)
    with pytest.raises(ConfigurationError, match="empty Redis"):
        await archived.restore()


async def test_verify_tells_of_missing_and_changed_keys(archived: Archived) -> None:
    partition = archived.archiving.partition
    checks = ArchiveChecks(archived.resources.ledger_redis, archived.archiving.archive)
    assert (await checks.verify(partition)).problems == ()
    await archived.erase("nadia")
    assert (await checks.verify(partition)).problems == ()  # an erased one is not missed
    assert archived.resources.archive is not None
    kept = ArchivedKeys(archived.resources.ledger_redis, archived.resources.archive)
    first, second, _ = archived.key_files()
    known = await kept.read(partition, first.name)
    first.write_bytes(known.without([next(iter(known.keys))]).encode())
    second.write_bytes(second.read_bytes().replace(b'"format": 1', b'"format": 2'))
    problems = (await checks.verify(partition)).problems
    assert [problem.split(" lacks ")[0].split(" is damaged")[0] for problem in problems] == [
        f"the key file {first.name}", f"the key file {second.name}"
    ]  # fmt: skip
    with pytest.raises(ArchiveDamaged):
        await kept.destroy(partition, "tag", "erasure-1")
