"""Redis was lost and the archive was not: no second history begins, and the way back needs no Redis of one's own."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr

from context_graph.bootstrap import Resources, open_resources
from context_graph.cli.doctor import gather
from context_graph.domain.erasure import Subject
from context_graph.errors import ArchiveDamaged, LedgerBehind
from context_graph.ingest.erasure import Forgetting
from context_graph.local.checks import examine
from context_graph.local.data_folder import DataFolder, write_secret
from context_graph.local.redis_server import embedded_redis, running_url
from context_graph.settings import ArchiveSettings, Settings
from context_graph.store.archive_continuity import ArchiveWatch
from context_graph.store.archive_restoring import Restore
from context_graph.workers import load_worker
from tests.events import event
from tests.integration.test_vault import MASTER, told, with_vault
from tests.ledger_events import append, appendable
from tests.serving import serving
from tests.waiting import until


@pytest.fixture
def with_archive(settings: Settings, tmp_path: Path) -> Settings:
    chosen = ArchiveSettings(url=f"file://{tmp_path}/archive", settle_seconds=0)
    return with_vault(settings).model_copy(update={"archive": chosen})


async def archive_some(resources: Resources) -> None:
    """Six events of nadia and lena, sealed; nadia is erased; all of it goes to the archive."""
    tenant = await resources.tenants.ensure("acme", 1)
    (partition,) = tenant.partitions
    people = ("nadia", "lena")
    await append(resources.ledger, partition, [told(n, user_id=people[n % 2]) for n in range(6)])
    forgetting = Forgetting(resources.erasures, resources.vault, resources.hiding, now_ms=lambda: 1)
    await forgetting.forget(tenant, Subject("user", "nadia"), 0)
    await archive_pass(resources)


async def archive_pass(resources: Resources) -> str:
    once = load_worker("archive").once
    assert once is not None
    return await once(resources)


async def command(folder: Path, data: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """`context-graph …` as a process without CG_REDIS_URL; its exit code and what it says."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CG_")}
    named = {"CG_DATA_DIR": str(data), "CG_ARCHIVE__URL": f"file://{folder}/archive"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "context_graph.cli.main", *arguments, env=kept | named | environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


@pytest.mark.xdist_group("up")
async def test_without_any_redis_a_restore_fills_the_data_folder_s_own_and_up_waits_for_it(
    with_archive: Settings, tmp_path: Path
) -> None:
    async with open_resources(with_archive) as resources:
        await archive_some(resources)
    data = tmp_path / "new"
    folder = DataFolder.at(data)

    code, said = await command(tmp_path, data, "up", "--port", "0", "--no-sample")
    assert code == 1
    assert "the archive of acme.0 ends at" in said
    assert "archive restore" in said
    assert "Traceback" not in said
    assert not folder.master_key.exists()

    code, said = await command(tmp_path, data, "archive", "restore")
    assert code == 1
    assert "set CG_VAULT__MASTER_KEY" in said

    write_secret(folder.master_key, MASTER + "\n")
    code, said = await command(tmp_path, data, "archive", "restore")
    assert (code, said.partition(";")[0]) == (0, "acme.0: 7 events restored, 0 were there")
    assert running_url(data) is None

    async with embedded_redis(data) as server:
        found = with_archive.model_copy(update={"redis_url": SecretStr(server.url)})
        async with open_resources(found) as resources:
            (partition,) = (await resources.tenants.ensure("acme", 1)).partitions
            answers = [
                await resources.ledger.append(partition, [appendable(told(number, user_id=person))])
                for number, person in ((1, "lena"), (9, "nadia"))
            ]
    assert [answer.status for (answer,) in answers] == ["duplicate", "erased"]


async def test_over_an_empty_redis_nothing_is_taken_until_the_archive_was_restored(
    with_archive: Settings, tmp_path: Path
) -> None:
    url = with_archive.redis_url
    assert url is not None
    environment = {
        "CG_API__AUTH": "false",
        "CG_TENANT": "acme",
        "CG_ARCHIVE__URL": f"file://{tmp_path}/archive",
        "CG_VAULT__MASTER_KEY": MASTER,
    }
    async with open_resources(with_archive) as resources:
        redis = resources.ledger_redis
        await archive_some(resources)
        files = sorted((tmp_path / "archive").rglob("*"))
        await redis.flushall()
        async with (
            serving(url.get_secret_value(), tmp_path, environment) as at,
            httpx2.AsyncClient(base_url=at) as http,
        ):
            ready = await http.get("/health/ready")
            assert ready.status_code == 503
            assert any("archive restore" in problem for problem in ready.json()["problems"])
            sent = [
                await http.post("/v1/events", json=event(1)),
                await http.post("/v1/events/batch", json={"events": [event(2), event(3)]}),
                await http.delete("/v1/users/lena"),
            ]
            assert [(one.status_code, one.json()["code"]) for one in sent] == [(503, "ledger-behind")] * 3
            assert "archive restore" in sent[0].json()["remedy"]
            assert await redis.exists("cg:{acme.0}:ledger", "cg:{acme.0}:ids") == 0
            findings = [found for found in examine(await gather(with_archive)) if found.subject == "archive"]
            assert [found.level for found in findings] == ["wrong"]
            assert "archive restore" in findings[0].words
            with pytest.raises(ArchiveDamaged, match="archive restore"):
                await archive_pass(resources)
            assert sorted((tmp_path / "archive").rglob("*")) == files

            assert resources.archive is not None
            restoring = Restore(redis, resources.archive, resources.tenants, resources.vault)
            for partition in await resources.archive.files.partitions():
                await restoring.run(partition)

            async def taken() -> bool:
                return (await http.post("/v1/events", json=event(9))).status_code in (200, 201)

            await until(taken, seconds=10)
            gone = await http.post("/v1/events", json=event(10) | {"user_id": "nadia"})
            assert gone.status_code == 410


async def test_a_loss_while_the_service_runs_is_seen_within_a_second_and_the_archive_is_asked_once(
    with_archive: Settings, tmp_path: Path
) -> None:
    now = [0.0]
    async with open_resources(with_archive) as resources:
        await archive_some(resources)
        assert resources.archive is not None
        watch = ArchiveWatch(resources.ledger_redis, resources.archive, lambda: now[0])
        (partition,) = (await resources.tenants.ensure("acme", 1)).partitions
        await watch.check(partition)
        (tmp_path / "archive").rename(tmp_path / "elsewhere")
        now[0] = 100.0
        await resources.ledger_redis.delete("cg:{acme.0}:ledger")  # seen only by who asks the archive
        await watch.check(partition)
        (tmp_path / "elsewhere").rename(tmp_path / "archive")
        await resources.ledger_redis.flushall()
        await watch.check(partition)  # what was seen holds for a second
        now[0] = 101.0
        with pytest.raises(LedgerBehind, match="archive restore"):
            await watch.check(partition)
