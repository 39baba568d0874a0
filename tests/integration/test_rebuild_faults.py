"""What may happen while a generation is built: erasure, a trimmed ledger, another model, a model that is not there."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from context_graph.bootstrap import Resources, open_resources
from context_graph.delivery.rebuilds import ModelChoice
from context_graph.domain.erasure import Subject
from context_graph.errors import ModelMissing
from context_graph.ingest.erasure import Forgetting
from context_graph.models.embedder import FastembedEmbedder
from context_graph.models.embedder_pool import open_embedders
from context_graph.models.offline import assemble_packaged
from context_graph.operations import load_verify
from context_graph.settings import ArchiveSettings, Settings, VaultSettings
from context_graph.store.documents import model_mark
from context_graph.store.keys import GraphKeys
from projections.archiving import once as archive_once
from tests.events import event
from tests.graph_state import graph_state
from tests.ledger_events import append, parsed
from tests.rebuilding import caught_up, ended, rebuilt, tenant_of, working

CANARY = "zanzibarquartz"


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """Events are sealed, and what is old goes to an archive at once."""
    return settings.model_copy(
        update={
            "vault": VaultSettings(master_key=SecretStr(b64encode(bytes(32)).decode()), cache_seconds=0.1),
            "archive": ArchiveSettings(
                url=f"file://{tmp_path}/archive", segment_events=10, segment_seconds=0, settle_seconds=0,
                keep_hours=0, keep_events=5,
            ),
        }
    )  # fmt: skip


@pytest.fixture
async def resources(settings: Settings) -> AsyncIterator[Resources]:
    async with open_resources(settings) as opened:
        yield opened


def told(start: int, count: int) -> list[dict[str, Any]]:
    """Half of it about nadia, who says a word that nobody else says."""
    return [
        event(
            n,
            session_id=f"s{n % 4}",
            user_id="nadia" if n % 2 else "omar",
            caused_by=[f"e{n - 1}"] if n else [],
            payload={"text": f"Parcel {n} to {CANARY if n % 2 else 'Berlin'}, says Mia Li, by the 3rd of May"},
        )
        for n in range(start, start + count)
    ]


async def traces(resources: Resources, *words: str) -> list[str]:
    """Derived keys that still hold one of these words."""
    found = []
    for generation in (1, 2):
        [partition] = (await tenant_of(resources)).partitions
        for key, fields in (await graph_state(resources.derived_redis, partition, generation)).items():
            text = key + " ".join([*fields, *fields.values()])
            found += [f"g{generation} {key}" for word in words if word in text]
    return found


async def test_who_is_erased_while_a_generation_is_built_is_in_neither(resources: Resources) -> None:
    tenant = await tenant_of(resources)
    [partition] = tenant.partitions
    events = parsed(told(0, 60))
    await append(resources.ledger, partition, events)
    forgetting = Forgetting(resources.erasures, resources.vault, resources.hiding, now_ms=lambda: 1_800_000_000_000)
    async with working(resources):
        await caught_up(resources, partition)
        assert await traces(resources, CANARY)
        begun = await resources.rebuilds.start(tenant, "when equal")
        erasing = asyncio.create_task(forgetting.forget(tenant, Subject("user", "nadia"), 60_000))
        rebuild = await ended(resources, tenant, begun.id)
        assert (await erasing).state == "done"
        assert rebuild.state == "promoted", rebuild.comparison
        assert await traces(resources, CANARY, "nadia") == []
        await caught_up(resources, partition, 2)
        report = await load_verify()(resources, tenant)
    assert report["equal"] is True, report["differences"]
    assert await graph_state(resources.derived_redis, partition, 2) == await graph_state(
        resources.derived_redis, partition, 1
    )


async def test_what_only_the_archive_holds_is_rebuilt_too(resources: Resources) -> None:
    tenant = await tenant_of(resources)
    [partition] = tenant.partitions
    await append(resources.ledger, partition, parsed(told(0, 80)))
    async with working(resources):
        await caught_up(resources, partition)
        await archive_once(resources)
        assert await resources.ledger.length(partition) < 30
        rebuild = await rebuilt(resources, tenant, "when equal")
        assert rebuild.state == "promoted", rebuild.comparison
        report = await load_verify()(resources, tenant)
    assert report["equal"] is True, report["differences"]
    assert report["events"] == 80
    counts: Any = report["live_counts"]
    assert counts["event"] == counts["vector"] == 80


async def test_a_rebuild_asks_no_model_for_what_the_live_generation_knows(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the sample that is searched for the comparison, and nothing that is built."""
    tenant = await tenant_of(resources)
    [partition] = tenant.partitions
    asked: list[str] = []
    embed = FastembedEmbedder._embed_batch

    def counting(self: FastembedEmbedder, texts: list[str]) -> Any:
        asked.extend(texts)
        return embed(self, texts)

    monkeypatch.setattr(FastembedEmbedder, "_embed_batch", counting)
    monkeypatch.setattr("projections.compare._SAMPLED", 5)
    await append(resources.ledger, partition, parsed(told(0, 30)))
    async with working(resources):
        await caught_up(resources, partition)
    async with working(resources):  # other processes: nothing is remembered but what is stored
        asked.clear()
        rebuild = await rebuilt(resources, tenant)
        assert rebuild.comparison is not None
        assert rebuild.comparison["equal"] is True, rebuild.comparison
        assert [text for text in asked if "3rd of May" in text] == []
    assert await graph_state(resources.derived_redis, partition, 2) == await graph_state(
        resources.derived_redis, partition, 1
    )


async def test_a_generation_that_somebody_has_changed_is_not_switched_away_from_unseen(resources: Resources) -> None:
    tenant = await tenant_of(resources)
    [partition] = tenant.partitions
    await append(resources.ledger, partition, parsed(told(0, 12)))
    async with working(resources):
        await caught_up(resources, partition)
        keys = await resources.graph.keys(partition)
        await resources.derived_redis.hset(keys.event("e3"), "agent", "somebody else")
        rebuild = await rebuilt(resources, tenant, "when equal")
    assert rebuild.state == "ready"
    report: Any = rebuild.comparison
    assert report["equal"] is False
    assert report["differing"] == {"event": 1}
    [difference] = report["differences"]
    assert difference["name"] == "e3"
    assert (difference["left"]["agent"], difference["right"]["agent"]) == ("somebody else", "support")


def other_model(folder: Path, cache: Path) -> Path:
    """The packaged model under another digest: a comment is added to its file."""
    packaged = assemble_packaged(cache)
    assert packaged is not None
    folder.mkdir()
    for file in packaged.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    comment = b"another one"
    doc_string = bytes([0x32, len(comment)]) + comment  # field 6 of ONNX' ModelProto
    with (folder / "model.onnx").open("ab") as model:
        model.write(doc_string)
    return folder


async def test_another_model_is_another_generation_compared_before_the_switch(
    resources: Resources, tmp_path: Path
) -> None:
    tenant = await tenant_of(resources)
    [partition] = tenant.partitions
    await append(resources.ledger, partition, parsed(told(0, 20)))
    folder = other_model(tmp_path / "other", resources.settings.data_dir / "models")
    async with working(resources):
        await caught_up(resources, partition)
        begun = await resources.rebuilds.start(tenant, "when equal", ModelChoice(path=folder))
        rebuild = await ended(resources, tenant, begun.id)
        report = rebuild.comparison
        assert rebuild.state == "ready"
        assert report is not None
        assert (report["equal"], report["same_state"], report["same_model"]) == (False, True, False)
        assert report["search"] == {
            "sampled": 20,
            "found_by_own_words_live": 1.0,
            "found_by_own_words_shadow": 1.0,
            "same_neighbours": 1.0,
            "vectors_that_differ": 0,
        }
        await resources.rebuilds.promote(tenant.name, rebuild.id)
        table = await resources.generations.read(tenant.name)
        models = {number: recipe.model_id for number, recipe in table.recipes.items()}
        assert models[1] != models[2]
        stored = await resources.index.read_answers(partition, ["e3"])
        assert [answer.model for answer in stored if answer is not None] == [model_mark(models[2])]

    settings = resources.settings.embedding
    async with open_embedders(settings, resources.settings.data_dir / "models") as pool:
        assert (await pool.of(table.recipes[2])).model_id == models[2]
    (folder / "model.onnx").unlink()
    async with open_embedders(settings, resources.settings.data_dir / "models") as pool:
        with pytest.raises(ModelMissing, match=f"{models[2]}, which this process cannot use.*lacks model.onnx"):
            await pool.of(table.recipes[2])


async def test_a_model_that_is_not_there_ends_the_rebuild_and_nothing_else(
    resources: Resources, tmp_path: Path
) -> None:
    tenant = await tenant_of(resources)
    [partition] = tenant.partitions
    await append(resources.ledger, partition, parsed(told(0, 6)))
    (tmp_path / "empty").mkdir()
    async with working(resources):
        await caught_up(resources, partition)
        begun = await resources.rebuilds.start(tenant, "when equal", ModelChoice(path=tmp_path / "empty"))
        rebuild = await ended(resources, tenant, begun.id)
        assert rebuild.state == "failed"
        assert rebuild.problem is not None
        assert "lacks" in rebuild.problem
        await append(resources.ledger, partition, parsed(told(6, 2)))
        await caught_up(resources, partition)  # the live one goes on, by the same workers


async def test_a_tenant_of_several_buckets_is_rebuilt_as_one(resources: Resources) -> None:
    tenant = await tenant_of(resources, "wide", 3)
    by_partition: dict[Any, list[Any]] = {}
    for known in parsed(told(0, 30)):
        by_partition.setdefault(tenant.partition_of(known.session_id), []).append(known)
    assert len(by_partition) > 1
    for partition, events in by_partition.items():
        await append(resources.ledger, partition, events)
    async with working(resources):
        for partition in by_partition:
            await caught_up(resources, partition)
        rebuild = await rebuilt(resources, tenant, "when equal")
        assert rebuild.state == "promoted", rebuild.comparison
        report = await load_verify()(resources, tenant)
    assert report["equal"] is True, report["differences"]
    assert report["events"] == 30


async def test_what_the_rules_found_is_taken_over_unless_somebody_changed_it(resources: Resources) -> None:
    tenant = await tenant_of(resources)
    [partition] = tenant.partitions
    await append(resources.ledger, partition, parsed(told(0, 30)))
    async with working(resources):
        await caught_up(resources, partition)
        live = GraphKeys(partition)
        right = await resources.derived_redis.hget(live.event("e5"), "mentions")
        await resources.derived_redis.hset(live.event("e5"), "mentions", b"[]")
        rebuild = await rebuilt(resources, tenant, "when equal")
        assert rebuild.comparison is not None
        assert rebuild.comparison["differing"] == {"entities": 1}
        assert await resources.derived_redis.hget(GraphKeys(partition, 2).event("e5"), "mentions") == right


@pytest.mark.parametrize("damaged", ["event:poison-1", "vec:0:e3"])
async def test_a_damaged_live_generation_ends_no_worker(
    resources: Resources, monkeypatch: pytest.MonkeyPatch, damaged: str
) -> None:
    """A key of a wrong type is a difference, and what should be there is another one."""
    monkeypatch.setattr("projections.compare._PAUSE", 0)
    tenant = await tenant_of(resources)
    [partition] = tenant.partitions
    await append(resources.ledger, partition, parsed(told(0, 6)))
    async with working(resources):
        await caught_up(resources, partition)
        keys = await resources.graph.keys(partition)
        await resources.derived_redis.set(f"{keys.tag}:{damaged}", "broken")
        rebuild = await rebuilt(resources, tenant, "when equal")
        await append(resources.ledger, partition, parsed(told(6, 1)))
        await caught_up(resources, partition)  # the live stages go on in the same worker
        report: Any = await load_verify()(resources, tenant)
        assert [found["name"] for found in report["differences"] if found["kind"] == "key"] == [damaged]
    await resources.derived_redis.delete(f"{keys.tag}:{damaged}")
    comparison: Any = rebuild.comparison
    missing = {"vector": 1} if damaged.startswith("vec") else {}
    assert (rebuild.state, comparison["equal"], comparison["differing"]) == ("ready", False, {"key": 1, **missing})


async def test_an_erased_text_is_in_no_index_any_more_while_the_vectors_are_behind(resources: Resources) -> None:
    tenant = await tenant_of(resources)
    [partition] = tenant.partitions
    await append(resources.ledger, partition, parsed(told(0, 20)))
    async with working(resources):
        await caught_up(resources, partition)
    keys = await resources.graph.keys(partition)
    hers = [f"e{n}" for n in range(1, 20, 2)]
    quoting = [key for i in hers for key in (keys.document(i), keys.vector(i))]
    assert await resources.derived_redis.exists(*quoting) == len(quoting)
    await append(resources.ledger, partition, parsed(told(20, 4)))
    forgetting = Forgetting(resources.erasures, resources.vault, resources.hiding, now_ms=lambda: 1_800_000_000_000)
    async with working(resources, ["projection"]):  # nobody embeds, so the erasure cannot be finished
        erasure = await forgetting.forget(tenant, Subject("user", "nadia"), 0)
        assert not await resources.derived_redis.exists(*quoting)
        assert (await forgetting.certificate(tenant, erasure.id)).state == "running"
    async with working(resources):
        done = await forgetting.forget(tenant, Subject("user", "nadia"), 30_000)
    assert done.state == "done"
    assert await traces(resources, CANARY, "nadia") == []
    assert done.hidden["documents"] + sum(removal.removed.get("documents", 0) for removal in done.removals) >= 10
    assert max(removal.scanned.get("events", 0) for removal in done.removals) >= 10
