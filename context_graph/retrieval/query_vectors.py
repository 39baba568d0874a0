"""The vector of a query, within its deadline, and what becomes of an answer when there is none.

A model that is away or slow takes the meaning from an answer, which then says that it is incomplete; what the words
find is served all the same. Where nothing but meaning was asked for, there is nothing else to serve: that is an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

import structlog

from context_graph.domain.event import TenantId
from context_graph.errors import ModelUnavailable
from context_graph.models.embedder import Embedder
from context_graph.retrieval.deadline import CUT, Deadline

log = structlog.get_logger(__name__)

EmbedderOf: TypeAlias = Callable[[TenantId], Awaitable[Embedder]]
"""The embedder of a tenant's live generation. Raises ConfigurationError where its model cannot be loaded."""

VectorOf: TypeAlias = Callable[[], Awaitable[bytes | None]]
"""Begins to embed a query: one whose deadline has passed before is never begun."""

_FOR_THE_MODEL = 0.6  # of what is left of the deadline: the rest is for what the words find


class QueryVectors:
    """Embeds queries of any tenant; float32 bytes, None for a query without text."""

    def __init__(self, embedder_of: EmbedderOf) -> None:
        self._embedder_of = embedder_of

    async def of(self, tenant: TenantId, text: str) -> bytes | None:
        """Raises ModelUnavailable."""
        if not text.strip():
            return None
        embedder = await self._embedder_of(tenant)
        vectors = await embedder.embed([text])
        return bytes(vectors[0].tobytes())

    async def in_time(self, tenant: TenantId, text: str, deadline: Deadline) -> bytes | None:
        """None as well when the model is away or too slow, which the deadline then names as cut."""
        try:
            async with asyncio.timeout(deadline.left * _FOR_THE_MODEL):
                return await self.of(tenant, text)
        except ModelUnavailable as error:
            log.warning("query_not_embedded", tenant=tenant, reason=str(error))
            deadline.cut("vectors: the embedder did not answer")
        except TimeoutError:
            deadline.cut(f"{CUT}: vectors")
        return None

    def for_search(self, tenant: TenantId, mode: str, text: str, deadline: Deadline) -> VectorOf | None:
        """As the mode of a search has it; None: by words alone."""
        if mode == "keyword":
            return None
        return partial(self.of, tenant, text) if mode == "semantic" else partial(self.in_time, tenant, text, deadline)
