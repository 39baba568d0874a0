"""`context-graph archive` and the archive's worker as an operator runs them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from context_graph.bootstrap import Resources, open_resources
from context_graph.cli.doctor import gather
from context_graph.local.checks import examine
from context_graph.settings import ArchiveSettings, Settings
from context_graph.store.archive_files import open_files
from context_graph.workers import load_worker
from tests.archives import Archiving
from tests.ledger_events import append, envelope
from tests.waiting import until

Command = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
async def archiving(resources: Resources, tmp_path: Path) -> Archiving:
    tenant = await resources.tenants.ensure("acme", 1)
    made = Archiving(resources.ledger_redis, open_files(f"file://{tmp_path}/archive"), tenant)
    await append(made.ledger, made.partition, [envelope(n) for n in range(30)])
    await made.finish(resources.groups)
    return made


@pytest.fixture
def command(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `context-graph archive …` as a process; its exit code and what it says."""
    assert settings.redis_url is not None
    monkeypatch.setenv("CG_REDIS_URL", settings.redis_url.get_secret_value())
    monkeypatch.setenv("CG_ARCHIVE__URL", f"file://{tmp_path}/archive")
    monkeypatch.setenv("CG_ARCHIVE__SEGMENT_EVENTS", "7")
    monkeypatch.setenv("CG_ARCHIVE__SETTLE_SECONDS", "0")
    monkeypatch.setenv("CG_ARCHIVE__KEEP_HOURS", "0")
    monkeypatch.setenv("CG_ARCHIVE__KEEP_EVENTS", "1")

    async def run(*arguments: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "context_graph.cli.main", "archive", *arguments,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, said.decode()

    return run


async def test_an_operator_runs_a_pass_lists_verifies_loses_redis_and_restores(
    archiving: Archiving, resources: Resources, command: Command
) -> None:
    assert await command("run") == (0, "30 events archived in 5 segments, 28 trimmed\n")
    known = [found.envelope for found in await archiving.everything()]
    code, said = await command("list")
    assert code == 0
    assert "acme.0" in said
    assert await command("verify") == (0, said + "Nothing is wrong.\n")
    await resources.ledger_redis.flushall()
    code, said = await command("verify")
    assert code == 1
    assert "wrong  acme.0: the archive of acme.0 ends at" in said
    assert "archive restore" in said
    assert await command("restore") == (0, "acme.0: 30 events restored, 0 were there\n")
    assert await command("restore") == (0, "acme.0: 0 events restored, 30 were there\n")
    archiving.reopen()
    assert [found.envelope for found in await archiving.everything()] == known
    assert (await command("verify"))[0] == 0


async def test_without_an_archive_every_command_says_what_to_set(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CG_ARCHIVE__URL", "")
    for name in ("list", "verify", "run", "restore"):
        code, said = await command(name)
        assert (code, said.partition("set ")[2].partition(",")[0]) == (1, "CG_ARCHIVE__URL")


async def test_a_pass_that_finds_damage_goes_on_with_the_other_partitions(
    archiving: Archiving, resources: Resources, command: Command, tmp_path: Path
) -> None:
    await command("run")
    next((tmp_path / "archive" / "acme" / "0").glob("*.zst")).unlink()
    other = Archiving(resources.ledger_redis, archiving.files, await resources.tenants.ensure("other", 1))
    await append(other.ledger, other.partition, [envelope(n) for n in range(3)])
    code, said = await command("run")
    assert code == 1
    assert "of acme.0 is missing" in said
    assert "3 events archived in 1 segment," in said
    code, said = await command("verify")
    assert code == 1
    assert "wrong  acme.0: the archive misses a file" in said


async def test_the_worker_archives_what_comes_until_it_is_stopped_and_the_doctor_tells(
    archiving: Archiving, settings: Settings, tmp_path: Path
) -> None:
    chosen = ArchiveSettings(
        url=f"file://{tmp_path}/archive", every_seconds=0.05, segment_events=7, settle_seconds=0, keep_hours=0,
        keep_events=1,
    )  # fmt: skip
    with_archive = settings.model_copy(update={"archive": chosen})
    stop = asyncio.Event()
    async with open_resources(with_archive) as resources:
        working = asyncio.create_task(load_worker("archive").run(resources, stop))
        await until(lambda: _hot_is(archiving, 2))
        await append(archiving.ledger, archiving.partition, [envelope(n) for n in range(30, 40)])
        await archiving.finish(resources.groups)
        await until(lambda: _hot_is(archiving, 5))
        stop.set()
        await asyncio.wait_for(working, 10)
        assert len(await resources.ledger.after(archiving.partition, None, 100)) == 40
    findings = {finding.subject: finding for finding in examine(await gather(with_archive))}
    assert findings["archive"].level == "ok"
    assert findings["archive"].words.startswith("35 events in file://")
    assert "; 5 in Redis" in findings["archive"].words
    next((tmp_path / "archive" / "acme" / "0").glob("*.zst")).unlink()
    findings = {finding.subject: finding for finding in examine(await gather(with_archive))}
    assert findings["archive"].level == "wrong"


async def _hot_is(archiving: Archiving, count: int) -> bool:
    return len(await archiving.hot()) == count
