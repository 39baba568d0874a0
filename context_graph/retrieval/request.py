"""What is asked of retrieval, as values: already valid, with times and positions parsed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from context_graph.domain.filters import NO_FILTERS, Filters, TagCondition
from context_graph.domain.position import LAST_MS, LAST_SEQ, Position
from context_graph.domain.query import Intent
from context_graph.retrieval.items import DEFAULT_SHARES, Section, Share
from context_graph.retrieval.waiting import WaitFor


@dataclass(frozen=True, slots=True)
class AsOf:
    """The ledger as it was: up to a position, or up to a time of recording (ms UTC)."""

    ms: int
    position: Position | None = None

    def includes(self, position: Position) -> bool:
        """Whether something recorded at `position` was there."""
        if self.position is not None and self.position.bucket == position.bucket:
            return position <= self.position
        return position.ms <= self.ms

    def last(self, bucket: int) -> Position:
        """The last position of a bucket that is included, whether or not something stands there."""
        if self.position is not None and self.position.bucket == bucket:
            ms, seq = self.position.ms, self.position.seq
        else:
            ms, seq = self.ms, LAST_SEQ
        if ms < 0:
            return Position(bucket, 0, 0)  # nothing: no stream id is 0-0
        return Position(bucket, min(ms, LAST_MS), min(seq, LAST_SEQ))


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextQuery:
    """A request for working memory (the body of POST /v1/context)."""

    query: str = ""
    session_id: str | None = None
    agent_id: str | None = None
    user_id: str | None = None
    token_budget: int = 2000
    format: str = "json"
    tokenizer: str = "o200k_base"
    shares: Mapping[Section, Share] = field(default_factory=lambda: DEFAULT_SHARES)
    intents: Mapping[Intent, float] | None = None
    filters: Filters = NO_FILTERS
    as_of: AsOf | None = None
    min_position: Position | None = None
    wait_ms: int = 5000
    wait_for: WaitFor = "vectors"
    max_depth: int = 1
    max_nodes: int = 200
    explain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuery:
    """A request for documents (the body of POST /v1/search).

    `seen`: marks of results that earlier pages held; `depth` is how many of each channel the first page asked for
    (0: this is it).
    """

    query: str
    mode: str = "hybrid"
    limit: int = 10
    filters: Filters = NO_FILTERS
    as_of: AsOf | None = None
    min_position: Position | None = None
    wait_ms: int = 5000
    wait_for: WaitFor = "vectors"
    seen: frozenset[bytes] = frozenset()
    depth: int = 0


MARK_BYTES = 6


def mark(document_id: str) -> bytes:
    """A result in a cursor, short: of 1,000 two are alike once in half a billion searches."""
    return blake2b(document_id.encode(), digest_size=MARK_BYTES).digest()


def scope(query: ContextQuery) -> Filters:
    """The filters that the request's session, agent and user mean.

    A session alone is the whole scope. With a user, everything about that user is in scope as well as the session, so
    that memory crosses sessions but never users. An agent narrows what is not the session itself.
    """
    wide = tuple(
        TagCondition(name, "eq", (value,))
        for name, value in (("user_id", query.user_id), ("agent_id", query.agent_id))
        if value is not None
    )
    if query.session_id is None:
        return query.filters.plus(*wide)
    session = TagCondition("session_id", "eq", (query.session_id,))
    if query.user_id is None:
        return query.filters.plus(session)
    return Filters(query.filters.conditions, ((session,), wide))
