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
from context_graph.errors import ConfigurationError, ModelMissing, ModelUnavailable
from context_graph.models.embedder import Embedder
from context_graph.models.language_model import Breaker
from context_graph.observability.metrics import Metrics
from context_graph.retrieval.deadline import AWAY, CUT, Deadline

log = structlog.get_logger(__name__)

EmbedderOf: TypeAlias = Callable[[TenantId], Awaitable[Embedder]]
"""The embedder of a tenant's live generation. Raises ConfigurationError where its model cannot be loaded."""

VectorOf: TypeAlias = Callable[[], Awaitable[bytes | None]]
"""Begins to embed a query: one whose deadline has passed before is never begun."""

_FOR_THE_MODEL = 0.6  # of what is left of the deadline: the rest is for what the words find


class QueryVectors:
    """Embeds queries of any tenant; float32 bytes, None for a query without text."""

    def __init__(self, embedder_of: EmbedderOf, rest_seconds: float, metrics: Metrics) -> None:
        """`rest_seconds`: an embedder that did not answer is not asked for so long."""
        self._embedder_of = embedder_of
        self._rest_seconds = rest_seconds
        self._metrics = metrics
        self._breakers: dict[str, Breaker] = {}

    async def of(self, tenant: TenantId, text: str) -> bytes | None:
        """Raises ModelUnavailable and ModelMissing."""
        if not text.strip():
            return None
        # By tenant: which model it is may be what the server did not say.
        breaker = self._breakers.setdefault(tenant, Breaker(1, self._rest_seconds))
        if not breaker.lets_through():
            self._metrics.not_embedded.labels("resting").inc()
            raise ModelUnavailable(
                f"the embedder did not answer; it is asked again within {self._rest_seconds:g} seconds"
            )
        try:
            vectors = await (await self._embedder_of(tenant)).embed([text])
        except ModelUnavailable:
            self._metrics.not_embedded.labels("away").inc()
            breaker.failed()
            raise
        except ConfigurationError as error:
            breaker.succeeded()  # it answered, as another one: an operator may put the right one back at any time
            raise ModelMissing(str(error)) from error
        breaker.succeeded()
        return bytes(vectors[0].tobytes())

    async def in_time(self, tenant: TenantId, text: str, deadline: Deadline) -> bytes | None:
        """None as well when the model is away or too slow, which the deadline then names as cut."""
        try:
            async with asyncio.timeout(deadline.left * _FOR_THE_MODEL):
                return await self.of(tenant, text)
        except ModelUnavailable as error:
            log.warning("query_not_embedded", tenant=tenant, reason=str(error))
            deadline.cut(AWAY)
        except ModelMissing as error:
            log.warning("query_not_embedded", tenant=tenant, reason=str(error))
            deadline.cut("vectors: this generation's embedding model is not here")
        except TimeoutError:
            self._late(tenant)
            deadline.cut(f"{CUT}: vectors")
        return None

    async def or_fail(self, tenant: TenantId, text: str, deadline: Deadline) -> bytes | None:
        """Where nothing but meaning was asked for. Raises ModelUnavailable, also when it does not come in time."""
        try:
            async with asyncio.timeout(deadline.left * _FOR_THE_MODEL):
                return await self.of(tenant, text)
        except TimeoutError as error:
            self._late(tenant)
            raise ModelUnavailable("the embedder did not answer within the deadline") from error

    def _late(self, tenant: TenantId) -> None:
        """One that hangs is left alone for a while, like one that is away."""
        self._metrics.not_embedded.labels("late").inc()
        self._breakers[tenant].failed()

    def for_search(self, tenant: TenantId, mode: str, text: str, deadline: Deadline) -> VectorOf | None:
        """As the mode of a search has it; None: by words alone."""
        if mode == "keyword":
            return None
        embed = self.or_fail if mode == "semantic" else self.in_time
        return partial(embed, tenant, text, deadline)
