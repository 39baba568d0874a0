"""What a pass of forgetting reads of a session, as facts to decide by.

Events come from the session's timeline, episodes and what is cited from its newest summary as the ledger has it. A
summary covers a session when it read every event of it, names the sources of each sentence, and nothing is on its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from context_graph.bootstrap import Resources
from context_graph.domain.event import LedgerEvent
from context_graph.domain.forgetting import Decisions, Member
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.domain.stages import stages_of
from context_graph.domain.text import searchable
from context_graph.store.consolidation import ConsolidationStore
from context_graph.store.forgotten import Forgotten
from context_graph.store.group_state import GroupState
from context_graph.store.retention import HeldEvent, RetentionStore
from enrichment.reconsolidation.forgetting import EventFacts, SessionFacts, cut_like
from enrichment.reconsolidation.plan import scope_of

_UNKNOWN = 10  # importance of what the index does not hold: nothing is forgotten that was not looked at
_NONE = Decisions()


@dataclass(frozen=True, slots=True)
class FactsReader:
    """Of a partition. `held`: sessions that a stage gave an event of up; `states`: how far the stages are."""

    _resources: Resources
    _partition: Partition
    _pinned: set[str]
    _states: Sequence[GroupState]
    _held: set[str]
    _store: RetentionStore
    _sessions: ConsolidationStore
    _forgotten: Forgotten

    @classmethod
    async def at_now(cls, resources: Resources, partition: Partition, pinned: set[str]) -> FactsReader:
        """By how far the stages are now. Raises StoreUnavailable."""
        groups = [stage.group for stage in stages_of(await resources.generations.live(partition.tenant))]
        states = [await resources.groups.state(partition, group) for group in groups]
        redis, graph = resources.derived_redis, resources.graph
        store = RetentionStore(redis, graph, resources.ledger_redis)
        held = await store.sessions_with_dead_letters(partition, groups)
        sessions = ConsolidationStore(redis, graph, resources.ledger)
        return cls(resources, partition, pinned, states, held, store, sessions, Forgotten(redis, graph))

    async def facts(self, session_id: str) -> SessionFacts:
        """What there is to decide about. Raises StoreUnavailable."""
        held = await self._store.held(self._partition, session_id)
        known = (await self._forgotten.of(self._partition, [session_id])).get(session_id, _NONE)
        summary = await self._summary(session_id)
        cited = set() if summary is None else {i for sentence in _sentences(summary) for i in sentence}
        there = [
            EventFacts(
                event_id=event.event_id,
                place=event.place,
                since=max(event.place.occurred_at, known.recalled_at(event.place) or 0),
                importance=_UNKNOWN if event.importance is None else event.importance,
                uses=event.uses + (event.event_id in cited),
                pinned=event.event_id in self._pinned,
            )
            for event in held
            if not known.forgotten(event.place)
        ]
        order = "" if summary is None else summary.position.sort_key
        of_summary = known.deciding_summary(order) if order else None
        times = [max(event.place.occurred_at, known.recalled_at(event.place) or 0) for event in held]
        covered = summary is not None and await self._covers(summary, session_id, held)
        summary_gone = of_summary is not None and of_summary.forgotten
        left = tuple(Member(event.event_id, event.place) for event in held)
        return SessionFacts(
            session_id=session_id,
            episodes=cut_like(there, [event.event_id for event in held], _firsts(summary)),
            summary=summary.envelope.event_id if covered and summary is not None else None,
            decided=known.known[0].order if known.known else "",
            gone=len(held) - len(there),
            summary_gone=summary_gone,
            left=left if covered and summary_gone and not there else (),
            newest=max([*times, 0 if of_summary is None or of_summary.forgotten else of_summary.at]),
        )

    def has_passed(self, position: Position) -> bool:
        """Whether every stage has, as they were when this was made."""
        return all(state.has_passed(position) for state in self._states)

    async def _summary(self, session_id: str) -> LedgerEvent | None:
        """The newest summary of a session as the ledger has it, one that can be read."""
        node = await self._resources.graph.summary(self._partition, scope_of(session_id))
        if node is None:
            return None
        found = await self._resources.ledger.at(self._partition, [node.position.stream_id])
        return found[0] if found and not found[0].erased else None

    async def _covers(self, summary: LedgerEvent, session_id: str, held: Sequence[HeldEvent]) -> bool:
        """Whether it read every event of the session, names the sources of each sentence, and nothing is on its way."""
        last = max(event.place.order for event in held)
        newest = Position.of_sort_key(self._partition.bucket, last)
        if session_id in self._held or not self.has_passed(newest):
            return False
        covers: Any = summary.envelope.payload.get("covers") if isinstance(summary.envelope.payload, dict) else None
        if not isinstance(covers, dict) or not all(_sentences(summary)) or not _sentences(summary):
            return False
        if Position.parse(covers["last_position"]) > newest:
            return False
        missing = len(held) - int(covers["events"])
        return missing == 0 or missing == await self._erased(session_id)

    async def _erased(self, session_id: str) -> int:
        """Events of a session that nobody can read any more: no summary has them."""
        count = 0
        async for events in self._sessions.events(self._partition, session_id):
            count += sum(event.erased for event in events)
        return count

    async def texts(self, events: Sequence[EventFacts]) -> list[str]:
        """What these events say, as the ledger has it; nothing of one that is erased."""
        ids = [Position.of_sort_key(self._partition.bucket, event.place.order).stream_id for event in events]
        found = await self._resources.ledger.at(self._partition, ids)
        texts: dict[str, str] = {e.envelope.event_id: "" if e.erased else searchable(e.envelope).text for e in found}
        return [texts.get(event.event_id, "") for event in events]


def _payload(summary: LedgerEvent | None) -> dict[str, Any]:
    payload: Any = None if summary is None else summary.envelope.payload
    return payload if isinstance(payload, dict) else {}


def _sentences(summary: LedgerEvent) -> list[list[str]]:
    """Of each sentence the events that it names."""
    return [list(sentence["event_ids"]) for sentence in _payload(summary).get("sentences", [])]


def _firsts(summary: LedgerEvent | None) -> set[str]:
    """The events that begin an episode, as the summary has them; without one the session is one episode."""
    episodes: list[dict[str, Any]] = _payload(summary).get("episodes", [])
    return {episode["event_ids"][0] if "event_ids" in episode else episode["first"] for episode in episodes}
