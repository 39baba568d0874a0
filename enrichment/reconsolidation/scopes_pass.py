"""Summaries of agents, people and topics, within a pass: after its sessions, from what these were summarised to.

Whose sessions there are, and which summary is the newest of each, is read in one go over the sessions; only a scope
whose sources changed is looked at further.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

from context_graph.bootstrap import Resources
from context_graph.domain.event import LedgerEvent
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.domain.text import cited_events
from context_graph.store.consolidation import ConsolidationStore
from enrichment.reconsolidation.plan import ConsolidationPlan, Rules
from enrichment.reconsolidation.scopes import (
    FEWEST_SESSIONS,
    MOST_SESSIONS,
    Source,
    concerning,
    fingerprint,
    input_of,
    naming,
    plan_scope,
    told_by,
    written_id,
)
from enrichment.reconsolidation.shared_topics import topics_of
from enrichment.reconsolidation.writing import Unwritten, Written
from enrichment.reconsolidation.written import Line, lines_of

_MOST_PEOPLE = 100  # in a session: one of more says little about any of them, and would be sealed with every key

Append = Callable[[ConsolidationPlan], Awaitable[bool]]
"""Appends the plan's summary; whether it is new."""
AskOf: TypeAlias = Callable[[Sequence[Line]], Awaitable[Written | Unwritten]]
Ask: TypeAlias = AskOf | None
"""Asks the language model for a summary of lines, where there is one; the lease is renewed meanwhile."""
Newest = Mapping[str, tuple[str, Position]]
"""Summaries that this pass has appended, which Stage 1 may not have seen: by session, id and position."""


class ScopesPass:
    """Summarises the agents and people of one partition, and its topics, as the settings say."""

    def __init__(self, resources: Resources, partition: Partition, rules: Rules, append: Append, ask: Ask) -> None:
        self._resources = resources
        self._ledger = resources.ledger
        self._partition = partition
        self._rules = rules
        self._append = append
        self._ask = ask
        self._answers: dict[str, Written | Unwritten] = {}
        self._store = ConsolidationStore(resources.derived_redis, resources.graph, resources.ledger)

    async def run(self, newest: Newest, stop: asyncio.Event) -> tuple[int, int]:
        """How many summaries were written, and for how many the model is to be asked again."""
        settings = self._resources.settings.consolidation
        known, scopes = await self._sources(newest)
        written = waiting = 0
        for scope, sources in scopes.items() if settings.scopes else ():
            if len(sources) < FEWEST_SESSIONS or stop.is_set():
                continue
            new, again = await self._scope(scope, sources)
            written, waiting = written + new, waiting + again
        topics = await topics_of(self._resources, self._partition, settings.topics) if settings.topics else []
        for topic in topics:
            sources = [known[name] for name in topic.sessions if name in known]
            if len(sources) < FEWEST_SESSIONS or stop.is_set():
                continue
            new, again = await self._scope(topic.scope, sources, topic.names)
            written, waiting = written + new, waiting + again
        return written, waiting

    async def _sources(self, newest: Newest) -> tuple[dict[str, Source], dict[str, list[Source]]]:
        """The newest summaries by session, and by agent and person those of their newest sessions."""
        known: dict[str, Source] = {}
        scopes: dict[str, list[Source]] = {}
        async for page in self._store.sources(self._partition):
            for session_id, names, seen in page:
                summary = newest.get(session_id, seen)
                people = tuple(name.removeprefix("user:") for name in names if name.startswith("user:"))
                if summary is None or len(people) > _MOST_PEOPLE:
                    continue
                source = known[session_id] = Source(session_id, *summary, people)
                for name in names:
                    kind, _, identifier = name.partition(":")
                    if kind in ("user", "agent") and len(scopes.setdefault(f"{kind}/{identifier}", [])) < MOST_SESSIONS:
                        scopes[f"{kind}/{identifier}"].append(source)
        return known, scopes

    async def _scope(self, scope: str, sources: Sequence[Source], names: Sequence[str] = ()) -> tuple[bool, bool]:
        """Whether a summary is new, and whether to ask again. `names`: only sentences that hold one of these count."""
        seen = fingerprint(sources, self._rules, names)
        if await self._store.scope_seen(self._partition, scope) == seen:
            return False, False
        found = await self._ledger.at(self._partition, [source.position.stream_id for source in sources])
        readable = {event.envelope.event_id: event for event in found if not event.erased}
        if any(source.event_id not in readable for source in sources):
            return False, False  # an erasure is under way: its sweep takes that source away
        events = await self._cited(list(readable.values()))
        told, input_hash = told_by(list(readable.values()), events), seen
        told, sources = naming(told, sources, names) if names else concerning(scope, told, sources, events)
        if len(sources) < FEWEST_SESSIONS:
            return await self._done(scope, seen, new=False)
        if names:
            input_hash = fingerprint(sources, self._rules, list(told.cited))
        answer: Written | Unwritten | None = None
        if self._ask is not None:
            known = await self._ledger.get(self._partition, written_id(scope, input_hash))
            if known is not None and not known.erased:
                return await self._done(scope, seen, new=False)
            lines = lines_of(told.sentences, self._rules.model_characters)
            answer = await self._answer(lines, self._ask)
        plan = plan_scope(scope, sources, told, self._rules, answer, input_hash=input_hash)
        new = plan is not None and await self._append(plan)
        if isinstance(answer, Unwritten) and answer.again:
            return new, True
        return await self._done(scope, seen, new=new)

    async def _cited(self, summaries: Sequence[LedgerEvent]) -> dict[str, LedgerEvent]:
        """The events that these summaries cite, as far as they can be read."""
        ids = {event_id for summary in summaries for event_id in cited_events(summary.envelope)}
        found = [await self._ledger.get(self._partition, event_id) for event_id in sorted(ids)]
        return {event.envelope.event_id: event for event in found if event is not None and not event.erased}

    async def _answer(self, lines: Sequence[Line], ask: AskOf) -> Written | Unwritten:
        """One question for all scopes of a pass that are made of the same lines."""
        asked = input_of(lines, self._rules)
        if asked not in self._answers:
            self._answers[asked] = await ask(lines)
        return self._answers[asked]

    async def _done(self, scope: str, seen: str, *, new: bool) -> tuple[bool, bool]:
        await self._store.remember_scope(self._partition, scope, seen)
        return new, False
