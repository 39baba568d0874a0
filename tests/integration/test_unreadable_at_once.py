"""As soon as a DELETE is answered no read returns what was said, with every worker stopped."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from context_graph.bootstrap import Resources, open_resources
from context_graph.domain.partition import Partition
from context_graph.settings import VaultSettings
from enrichment.reconsolidation.run import consolidate
from tests.events import event, post_all
from tests.fact_answers import noted, preference
from tests.integration.conftest import MASTER_KEY
from tests.integration.test_facts import with_model
from tests.llm_server import llm_server
from tests.rebuilding import caught_up, working
from tests.service import own_redis
from tests.serving import serving
from tests.waiting import until


@dataclass(frozen=True, slots=True)
class Stopped:
    """A service whose workers are stopped; `canaries`: a word of what was said about each person."""

    http: httpx2.AsyncClient
    resources: Resources
    partition: Partition
    canaries: dict[str, str]
    receipts: dict[str, str]


@pytest.fixture
async def stopped(tmp_path: Path) -> AsyncIterator[Stopped]:
    """Three sessions of each of two people, with all that is derived from them; another event is not derived yet."""
    vault = VaultSettings(master_key=SecretStr(MASTER_KEY))
    canaries = {person: f"canary{secrets.token_hex(5)}" for person in ("nadia", "omar")}
    async with own_redis(tmp_path, vault=vault) as settings, open_resources(settings) as opened:
        assert settings.redis_url is not None
        own = settings.consolidation.model_copy(update={"scopes": True, "min_events": 3})
        resources = replace(opened, settings=settings.model_copy(update={"consolidation": own}))
        tenant = await resources.tenants.ensure(settings.tenant, 1)
        [partition] = tenant.partitions
        key = await resources.api_keys.create(tenant.name, name="test")
        variables = {"CG_TENANT": settings.tenant, "CG_VAULT__MASTER_KEY": MASTER_KEY}
        headers = {"X-Engine-API-Key": key}
        async with (
            serving(settings.redis_url.get_secret_value(), tmp_path, variables) as url,
            httpx2.AsyncClient(base_url=url, headers=headers, timeout=60) as http,
        ):
            async with working(resources):
                for person, canary in canaries.items():
                    await _tell(http, person, canary)
                await caught_up(resources, partition)
                with llm_server() as server:
                    there, writer = with_model(resources, server, answer_tries=1)
                    facts = {canary: preference(1, f"{canary} tea", f"I drink {canary} tea", predicate="drinks")
                             for canary in canaries.values()}  # fmt: skip
                    server.answer = lambda asked: noted(*(fact for name, fact in facts.items() if name in str(asked)))
                    await consolidate(there, partition, "test", writer=writer)
                await caught_up(resources, partition)
                receipts = {person: (await _context(http, person)).json()["receipt_id"] for person in canaries}
                await caught_up(resources, partition)
            late = [event(90, event_id=f"{person}-late", session_id=f"{person}-0", user_id=person,
                          payload={"text": f"{canary} again"}) for person, canary in canaries.items()]  # fmt: skip
            await post_all(http, late)
            yield Stopped(http, resources, partition, canaries, receipts)


async def _tell(http: httpx2.AsyncClient, person: str, canary: str) -> None:
    for session in range(3):
        await post_all(http, [
            event(n, event_id=f"{person}-{session}-{n}", session_id=f"{person}-{session}", user_id=person,
                  payload={"text": f"The parcel of {canary}@example.com was sent to Berlin, step {n}."})
            for n in range(4)
        ])  # fmt: skip
    said = {"text": f"For breakfast I drink {canary} tea."}
    await post_all(http, [event(0, event_id=f"{person}-tea", session_id=f"{person}-tea", user_id=person, payload=said)])


async def _context(http: httpx2.AsyncClient, person: str) -> httpx2.Response:
    """Asked without the canary: an answer names the words of the query."""
    filters = {"user_id": {"eq": person}}
    return await http.post(
        "/v1/context", json={"query": "which parcel was sent?", "token_budget": 3000, "filters": filters}
    )


async def reads(there: Stopped, person: str) -> dict[str, str]:
    """What each way of reading answers that could tell of a person."""
    http, canary, session = there.http, there.canaries[person], f"{person}-0"
    texts: dict[str, str] = {"context": (await _context(http, person)).text}
    about = await http.post("/v1/context", json={"query": "", "user_id": person, "token_budget": 3000})
    texts["profile"] = about.text
    for mode in ("keyword", "semantic", "hybrid"):
        body = {"query": f"parcel {canary} tea", "mode": mode, "limit": 50}
        texts[mode] = (await http.post("/v1/search", json=body)).text
    only = {"query": f"parcel {canary}", "filters": {"kind": {"eq": "summary"}}, "limit": 50}
    texts["summaries"] = (await http.post("/v1/search", json=only)).text
    for kind, identifier in (("session", session), ("user", person), ("agent", "support"), ("event", f"{person}-0-1")):
        asked: dict[str, Any] = {"start": [{"kind": kind, "id": identifier}], "max_depth": 3}
        texts[f"graph of {kind}"] = (await http.post("/v1/graph/query", json=asked)).text
    for path in (
        f"/v1/events/{person}-0-1", f"/v1/events/{person}-late", f"/v1/events/{person}-0-1/lineage",
        f"/v1/events/{person}-0-1/similar", f"/v1/events?session_id={session}", f"/v1/timeline?session_id={session}",
        f"/v1/timeline?user_id={person}", f"/v1/sessions/{session}", f"/v1/sessions/{session}/related",
        f"/v1/receipts/{there.receipts[person]}", f"/v1/receipts/{there.receipts[person]}/content",
        "/v1/facts", f"/v1/users/{person}/facts", "/v1/entities", "/v1/communities",
    ):  # fmt: skip
        texts[path] = (await http.get(path)).text
    return texts


def telling(texts: dict[str, str], canary: str) -> set[str]:
    return {name for name, text in texts.items() if canary in text}


async def test_no_read_tells_of_who_is_erased_once_that_is_answered(stopped: Stopped) -> None:
    """A person, then the sessions of another; no worker takes part before the last lines."""
    nadia, omar = stopped.canaries["nadia"], stopped.canaries["omar"]
    before = telling(await reads(stopped, "nadia"), nadia)
    receipt = f"/v1/receipts/{stopped.receipts['nadia']}/content"
    assert {"context", "profile", "keyword", "hybrid", "summaries", "/v1/events/nadia-late", receipt} <= before
    assert {"/v1/users/nadia/facts", "/v1/facts", "/v1/sessions/nadia-0", "/v1/entities"} <= before

    answer = await stopped.http.delete("/v1/users/nadia?wait_ms=0")

    assert answer.status_code == 202, answer.text
    assert telling(await reads(stopped, "nadia"), nadia) == set()
    assert "keyword" in telling(await reads(stopped, "omar"), omar)

    for session in ("omar-0", "omar-1", "omar-2", "omar-tea"):
        answer = await stopped.http.delete(f"/v1/sessions/{session}?wait_ms=0")
        assert answer.status_code == 202, answer.text
    assert telling(await reads(stopped, "omar"), omar) == set()

    async with working(stopped.resources):  # the workers finish it, and the certificate counts what went before
        erasure = answer.json()["id"]
        first = answer.json()["removed"]

        async def done() -> bool:
            found = (await stopped.http.get(f"/v1/erasures/{erasure}")).json()
            return bool(found["state"] == "done")

        await until(done, seconds=60)
    certificate = (await stopped.http.get(f"/v1/erasures/{erasure}")).json()
    for kind in ("documents", "vectors", "facts"):
        assert certificate["removed"][kind] == first[kind] == 1, kind
    assert telling(await reads(stopped, "omar"), omar) == set()
