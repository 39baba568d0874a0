"""Where a quality run plays: an embedded Redis that keeps its data, the API and the workers as processes, a tenant for
each conversation.

Embedding a set takes minutes, so its folder is kept (`.quality/`), named for the versions that documents and vectors
are made by: the next run posts the same events, learns that they are known, and asks at once.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from pydantic import SecretStr

from context_graph.bootstrap import Resources, open_resources
from context_graph.domain.graph import FOLD_VERSION
from context_graph.domain.partition import Tenant
from context_graph.domain.text import TEXT_VERSION
from context_graph.local.redis_server import embedded_redis
from context_graph.settings import Settings
from context_graph.store.documents import INDEX_VERSION
from tests.benchmarks.stage import Stage
from tests.quality.sets import Conversation

RUNS = Path(".quality")
_BATCH = 500
_WAIT_MS = 60_000


@dataclass(frozen=True, slots=True)
class Asked:
    """A conversation in the service: its tenant and a client with its key."""

    conversation: Conversation
    tenant: Tenant
    http: httpx2.AsyncClient

    def turn(self, event_id: str) -> int:
        """The number of the turn that an event id names."""
        return self._places[event_id]

    @property
    def _places(self) -> dict[str, int]:
        name = self.conversation.name
        return {f"{name}/{turn.id}": place for place, turn in enumerate(self.conversation.turns)}


@dataclass(frozen=True, slots=True)
class Stand:
    """A running service with the conversations of a set in it."""

    resources: Resources
    conversations: tuple[Asked, ...]


@asynccontextmanager
async def open_stand(
    name: str, conversations: Sequence[Conversation], folder: Path | None = None
) -> AsyncIterator[Stand]:
    """The service with every turn of the set enriched; `folder`: elsewhere than where the set is kept."""
    folder = folder or folder_of(name)
    folder.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(embedded_redis(folder))
        settings = Settings(redis_url=SecretStr(redis.url), data_dir=folder)
        resources = await stack.enter_async_context(open_resources(settings))
        first = await resources.tenants.ensure(_tenant_name(conversations[0].name), 1)
        stage = Stage(redis.url, folder, resources, first.partitions[0], "")
        port = await stack.enter_async_context(stage.api())
        await stack.enter_async_context(stage.workers("projection", "enrichment"))
        asked = []
        for conversation in conversations:
            tenant = await resources.tenants.ensure(_tenant_name(conversation.name), 1)
            key = await resources.api_keys.create(tenant.name, name="quality")
            http = httpx2.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", headers={"X-Engine-API-Key": key}, timeout=180
            )
            asked.append(Asked(conversation, tenant, await stack.enter_async_context(http)))
        positions = [await _post(one) for one in asked]
        for one, position in zip(asked, positions, strict=True):
            await until_enriched(one, position)
        yield Stand(resources, tuple(asked))


def folder_of(name: str) -> Path:
    """Where a set is kept with its vectors."""
    return (RUNS / f"{name}-t{TEXT_VERSION}-i{INDEX_VERSION}-f{FOLD_VERSION}").absolute()


async def _post(asked: Asked) -> str:
    """Post every turn; the position of the last."""
    envelopes = [turn.envelope(asked.conversation.name) for turn in asked.conversation.turns]
    positions: list[str] = []
    for start in range(0, len(envelopes), _BATCH):
        answer = await asked.http.post("/v1/events/batch", json={"events": envelopes[start : start + _BATCH]})
        results: list[dict[str, Any]] = answer.json()["results"]
        bad = [result for result in results if "position" not in result]
        if bad:
            raise RuntimeError(f"{asked.conversation.name}: {bad[0]}")
        positions += [result["position"] for result in results]
    return max(positions, key=lambda text: tuple(map(int, text.split("-"))))


async def until_enriched(asked: Asked, position: str) -> None:
    """Until every stage has passed the position; the queue is long, so it is asked for again."""
    for _ in range(60):
        body = {"query": "hello", "min_position": position, "wait_ms": _WAIT_MS, "token_budget": 100}
        answer = await asked.http.post("/v1/context", json=body)
        if answer.json()["meta"]["complete"]:
            return
        sys.stderr.write(f"  {asked.conversation.name}: still embedding\n")
        await asyncio.sleep(0)
    raise RuntimeError(f"{asked.conversation.name} was not enriched within an hour")


def _tenant_name(conversation: str) -> str:
    return "q-" + re.sub(r"[^a-z0-9]+", "-", conversation.lower())
