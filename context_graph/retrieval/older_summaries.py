"""Summaries as of a position: the index holds the newest of each scope alone, the ledger all of them.

Where the newest came later than the position asked for, the one that was the newest then is read from the ledger and
offered beside what the index finds. It is ranked by the share of the query's words that it holds: its vector is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from context_graph.domain.document import Document
from context_graph.domain.event import SessionId
from context_graph.domain.filters import Filters, TagCondition, holds
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.query import terms
from context_graph.domain.text import document_of, session_scope
from context_graph.retrieval.items import Candidate
from context_graph.retrieval.request import AsOf
from context_graph.store.ledger import Ledger
from context_graph.store.receipts import ReceiptIndex

_MOST_SESSIONS = 100
_MOST_SCOPES = 50  # people and agents
_SCOPE_KINDS = {"user_id": "user", "agent_id": "agent"}
_IMPORTANCE = 5  # as for any event that nothing else is known of


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which summaries count: words of the query, filters, as of when; `any_words`: also those that hold none."""

    words: Sequence[str]
    filters: Filters
    as_of: AsOf
    any_words: bool


class OlderSummaries:
    """Reads superseded summaries of any tenant."""

    def __init__(self, index: ReceiptIndex, ledger: Ledger) -> None:
        self._index = index
        self._ledger = ledger

    async def beside(self, tenant: Tenant, found: Sequence[Candidate], wanted: Wanted) -> list[Candidate]:
        """What was found, best first, with the summaries of its sessions, people and agents as they were."""
        known = {(candidate.partition, candidate.document.id) for candidate in found}
        best = max((candidate.score for candidate in found), default=1.0)
        more = []
        for partition, document in await self._documents(tenant, found, wanted):
            share = _share(wanted.words, document)
            if (
                (partition, document.id) not in known
                and (share > 0 or wanted.any_words)
                and holds(wanted.filters, filter_values(document))
            ):
                more.append(Candidate(partition, document, {"text": share}, share * best))
        return sorted([*found, *more], key=lambda c: (-c.score, c.document.position, c.document.id))

    async def _documents(
        self, tenant: Tenant, found: Sequence[Candidate], wanted: Wanted
    ) -> list[tuple[Partition, Document]]:
        sessions = list(dict.fromkeys(candidate.document.session_id for candidate in found))[:_MOST_SESSIONS]
        documents: list[tuple[Partition, Document]] = []
        for partition in tenant.partitions:
            scopes = [session_scope(name) for name in sessions if tenant.partition_of(SessionId(name)) == partition]
            scopes += _scopes_of(found, wanted.filters)  # each partition has its own summary of a person or an agent
            then = await self._index.newest_versions(partition, scopes, wanted.as_of.last)
            now = await self._index.newest_versions(partition, list(then), None)
            older = [listed.position.stream_id for scope, listed in then.items() if now.get(scope) != listed]
            events = await self._ledger.at(partition, older)
            documents += [(partition, document_of(event, _IMPORTANCE)) for event in events if not event.erased]
        return documents


def _scopes_of(found: Sequence[Candidate], filters: Filters) -> list[str]:
    """The people and agents whom the filters name, and those of what was found; the best first."""
    named = [*filters.conditions, *(condition for group in filters.alternatives for condition in group)]
    names = [
        f"{_SCOPE_KINDS[condition.field]}/{value}"
        for condition in named
        if isinstance(condition, TagCondition) and condition.field in _SCOPE_KINDS and condition.operator != "ne"
        for value in condition.values
    ]
    for candidate in found:
        document = candidate.document
        names += [f"user/{document.user_id}"] if document.user_id is not None else []
        names.append(f"agent/{document.agent_id}")
    return list(dict.fromkeys(names))[:_MOST_SCOPES]


def _share(words: Sequence[str], document: Document) -> float:
    """How many of the query's words the summary holds, 0..1."""
    there = set(terms(document.text))
    return sum(word in there for word in words) / len(words) if words else 0.0


def filter_values(document: Document) -> dict[str, Sequence[str] | float | None]:
    """As filters see it. Its entities are not known any more: a filter by entity leaves it out."""
    return {
        "event_type": [document.event_type],
        "tool_name": [document.tool_name] if document.tool_name else [],
        "agent_id": [document.agent_id],
        "user_id": [document.user_id] if document.user_id else [],
        "session_id": [document.session_id],
        "entity": [],
        "status": [document.status] if document.status else [],
        "origin": [document.origin],
        "kind": [document.kind],
        "occurred_at": float(document.occurred_at),
        "importance": float(document.importance),
    }
