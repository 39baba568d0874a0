"""Sessions: which there are, who was in them, from when to when, their newest summary. As of any position.

The list is ordered by each session's first position, which no later event changes: pages have neither gap nor repeat
while events come in. New sessions stand in front of the first page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from context_graph.domain.event import LedgerEvent, SessionId
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.position import Position
from context_graph.domain.text import session_scope
from context_graph.errors import UnknownThing
from context_graph.retrieval.request import AsOf
from context_graph.store.ledger import Ledger
from context_graph.store.receipts import ReceiptIndex
from context_graph.store.sessions import SessionFacts, SessionPlace, SessionStore


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Sessions in which each of these appeared; times of their events (ms UTC): any at or after, any before."""

    agent_id: str | None = None
    user_id: str | None = None
    tool_name: str | None = None
    event_type: str | None = None
    active_from: int | None = None
    active_to: int | None = None

    def holds(self, facts: SessionFacts) -> bool:
        """Whether the session is wanted."""
        named = (
            (self.agent_id, facts.agents),
            (self.user_id, facts.users),
            (self.tool_name, facts.tools),
            (self.event_type, facts.types),
        )
        if any(wanted is not None and wanted not in there for wanted, there in named):
            return False
        if self.active_from is not None and facts.last_at < self.active_from:
            return False
        return self.active_to is None or facts.first_at < self.active_to


@dataclass(frozen=True, slots=True)
class SessionPage:
    """Sessions, latest begun first; `next`: behind which the next page begins, None at the end."""

    sessions: tuple[SessionFacts, ...]
    next: SessionPlace | None
    scanned: int


@dataclass(frozen=True, slots=True)
class Session:
    """One session with its newest summary, if it has one, as the event that it is."""

    facts: SessionFacts
    summary: LedgerEvent | None


class Sessions:
    """Reads the sessions of any tenant."""

    def __init__(self, store: SessionStore, index: ReceiptIndex, ledger: Ledger, max_scanned: int) -> None:
        """`max_scanned`: sessions that one page looks at for its filters."""
        self._store = store
        self._index = index
        self._ledger = ledger
        self._max_scanned = max_scanned

    async def page(
        self, tenant: Tenant, wanted: SessionFilter, limit: int, behind: SessionPlace | None, as_of: AsOf | None
    ) -> SessionPage:
        """The next page. One that had to look at too many sessions is short, and says where to go on."""
        found: list[SessionFacts] = []
        scanned = 0
        while True:
            places = await self._store.started(tenant.partitions, limit + 1, behind)
            facts = await self._facts(tenant, places[:limit], as_of)
            for place, session in zip(places[:limit], facts, strict=True):
                behind = place
                scanned += 1
                if session is not None and wanted.holds(session):
                    found.append(session)
                    if len(found) == limit:
                        more = place != places[-1]
                        return SessionPage(tuple(found), behind if more else None, scanned)
            if len(places) <= limit:
                return SessionPage(tuple(found), None, scanned)
            if scanned >= self._max_scanned:
                return SessionPage(tuple(found), behind, scanned)

    async def session(self, tenant: Tenant, session_id: str, as_of: AsOf | None) -> Session:
        """One session. Raises UnknownThing when nothing happened in it (by then)."""
        partition = tenant.partition_of(SessionId(session_id))
        until = None if as_of is None else as_of.last
        [facts] = await self._store.facts(partition, [session_id], until)
        if facts is None:
            raise UnknownThing("session", session_id)
        scope = session_scope(session_id)
        listed = (await self._index.newest_versions(partition, [scope], until)).get(scope)
        return Session(facts, None if listed is None else await self._summary(partition, listed.position))

    async def _summary(self, partition: Partition, position: Position) -> LedgerEvent | None:
        events = await self._ledger.at(partition, [position.stream_id])
        return events[0] if events else None

    async def _facts(
        self, tenant: Tenant, places: Sequence[SessionPlace], as_of: AsOf | None
    ) -> list[SessionFacts | None]:
        until = None if as_of is None else as_of.last
        found: dict[str, SessionFacts | None] = {}
        for partition in tenant.partitions:
            mine = [place.session_id for place in places if place.bucket == partition.bucket]
            found |= dict(zip(mine, await self._store.facts(partition, mine, until), strict=True))
        return [found.get(place.session_id) for place in places]
