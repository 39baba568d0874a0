"""Reading sessions for facts, within a pass: what is new in a session goes to the language model once, in stretches.

What came of a stretch is appended in one step under the pass' lease: facts, what they take the place of, and a mark
that says up to where the session was read. The marks lie in the session's own list in the ledger, behind what they
cover, so whoever reads on from where somebody was known to have been meets them: a lost remark in derived state costs
reading, never a second call. Where no answer can be believed, after some tries (`asking.py`), the stretch is marked as
given up, and read anew when somebody asks to read the session again; an outage marks nothing, and is tried again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from context_graph.bootstrap import Resources
from context_graph.domain.event import FACT_TYPE, FACTS_READ_TYPE, Envelope, LedgerEvent
from context_graph.domain.learned import LearnedFact, fact_of, supersession_of
from context_graph.domain.position import Position
from context_graph.store import codec
from context_graph.store.consolidation import ConsolidationStore, SessionState
from context_graph.store.learned import LearnedFacts
from context_graph.store.leases import Lease
from context_graph.store.ledger import Appendable
from context_graph.store.retention import RetentionStore
from enrichment.reconsolidation.asking import Asking, Question
from enrichment.reconsolidation.facts import (
    PROMPT_VERSION,
    Known,
    Read,
    Said,
    prompt_of,
    read_answer,
    said_in,
    stretch,
)
from enrichment.reconsolidation.noted import Mark, counted, events_of, mark_of
from enrichment.reconsolidation.writing import Unwritten
from enrichment.reconsolidation.written import Refused

_PAGE = 500  # events read at once
_STRETCH = 3  # a stretch is such a part of what the model may read: its facts take more room than a summary
_HELD = 20  # stretches of a session that are held at once; the rest comes with the next pass
_MOST_KNOWN = 40  # facts of a person that the model is told
_LOOKED_AT = 200  # newest facts of a person among which those are


class FactsPass:
    """Notes facts of the sessions of one partition, while a pass has its lease."""

    def __init__(self, resources: Resources, lease: Lease, asking: Asking) -> None:
        self._resources = resources
        self._lease = lease
        self._partition = lease.partition
        self._asking = asking
        self._store = ConsolidationStore(resources.derived_redis, resources.graph, resources.ledger)
        self._learned = LearnedFacts(resources.derived_redis, resources.graph)
        self._retention = RetentionStore(resources.derived_redis, resources.graph, resources.ledger_redis)
        self._noted: dict[str, dict[str, LearnedFact]] = {}
        self._ended: dict[str, int] = {}
        self._characters = max(1000, resources.settings.llm.max_input_characters // _STRETCH)
        self._rules = f"{asking.model} {PROMPT_VERSION}"

    async def session(self, state: SessionState, stop: asyncio.Event) -> tuple[int, bool]:
        """Read what is new; how many facts were noted, and whether the model is to be asked again soon."""
        seen = state.facts_seen(self._rules)
        if state.facts == seen:
            return 0, False
        noted = 0
        again = await self._store.rereads(self._partition, state.session_id)
        for given_up in await self._given_up(state.session_id, again) if again else ():
            count = await self._read(state.session_id, given_up, again)
            if count is None or stop.is_set():
                return noted + (count or 0), True
            noted += count
        said, through, whole = await self._unread(state)
        while said and not stop.is_set():
            lines = stretch(said, self._characters)
            count = await self._read(state.session_id, lines, again)
            if count is None:
                return noted, True
            noted += count
            said, through = said[len(lines) :], lines[-1].position
            await self._store.remember_facts(self._partition, state.session_id, through, None)
        if through is not None:
            await self._store.remember_facts(
                self._partition, state.session_id, through, None if said or not whole else seen
            )
        return noted, False

    async def _unread(self, state: SessionState) -> tuple[list[Said], Position | None, bool]:
        """What nobody has read yet, as much as is held at once; up to where all is read; whether this is the rest."""
        bucket = self._partition.bucket
        through = None if state.facts_through is None else Position.of_sort_key(bucket, state.facts_through)
        after, unread, skipped, newest = through, list[Said](), through, through
        while page := await self._resources.ledger.of_session(self._partition, state.session_id, after, _PAGE):
            after = page[-1].position
            for event in page:
                mark = mark_of(event)
                marked = None if mark is None else mark.last
                if marked is not None:
                    through = marked if through is None else max(through, marked)
                    unread = [said for said in unread if said.position > through]
                said = said_in(event)
                full = sum(said.size for said in unread) > _HELD * self._characters
                if said is not None and not full and not _is_behind(skipped, through):
                    unread.append(said)
                elif said is not None:
                    skipped = said.position
                newest = newest if event.envelope.is_derived else event.position
        whole = not _is_behind(skipped, through)
        return unread, newest if whole and not unread else through, whole

    async def _given_up(self, session_id: str, again: int) -> list[list[Said]]:
        """The stretches that were given up before somebody asked the `again`-th time to read the session again."""
        marks: dict[Position, Mark] = {}
        said: list[Said] = []
        after: Position | None = None
        while page := await self._resources.ledger.of_session(self._partition, session_id, after, _PAGE):
            after = page[-1].position
            marks |= {mark.first: mark for event in page if (mark := mark_of(event)) is not None}
            said += (line for event in page if (line := said_in(event)) is not None)
        pending = sorted((m for m in marks.values() if m.given_up and m.again < again), key=lambda mark: mark.first)
        stretches = [[line for line in said if mark.first <= line.position <= mark.last] for mark in pending]
        return [lines for lines in stretches if lines]

    async def _read(self, session_id: str, lines: Sequence[Said], again: int) -> int | None:
        """Ask about a stretch and append what came of it; None when the model is to be asked again later."""
        known, faults = await self._known(lines), Counter[str]()

        def read(text: str) -> Read:
            found = read_answer(text, lines)
            if found.refused and not found.claims:
                faults.update(f"facts_refused:{fault}" for fault in found.refused)
                raise Refused("unsupported")
            return found

        question = Question("facts", session_id, f"{lines[0].position} {self._rules}")
        answer = await self._asking.ask(question, prompt_of(lines, known), read)
        await self._retention.count(self._partition, faults, {})
        if isinstance(answer, Unwritten):
            if answer.again:
                return None
            answer = Read(reason=answer.reason)
        events = events_of(session_id, lines, answer, known, self._asking.model, again=again)
        appended = await self._resources.ledger.append(self._partition, [_appendable(e) for e in events], self._lease)
        for event, where in zip(events, appended, strict=True):
            if where.status in ("created", "duplicate"):
                self._remember(event, where.position)
        created = [event for event, where in zip(events, appended, strict=True) if where.status == "created"]
        await self._retention.count(self._partition, counted(created, answer), {})
        return sum(event.event_type == FACT_TYPE for event in events)

    async def _known(self, lines: Sequence[Said]) -> Known:
        """What was known of those whom the lines are about and had not ended when these were said, newest first, with
        what this pass has just noted.

        What ended later is told too: the lines may say what came between (adr/0040).
        """
        people = {line.event.envelope.user_id for line in lines} - {None}
        since = min(line.event.envelope.occurred_at for line in lines)
        tenant = await self._resources.tenants.get(self._partition.tenant)
        partitions = (self._partition,) if tenant is None else tenant.partitions
        found: list[LearnedFact] = []
        for person in sorted(str(person) for person in people):
            facts = await self._learned.listed(partitions, ("user", person), _LOOKED_AT)
            standing = await self._learned.standing(partitions, facts)
            by_id = {each.fact.id: each.fact for each in standing if each.ended is None or each.ended.valid_to >= since}
            by_id |= self._noted.get(person, {})
            found += [fact for fact in by_id.values() if self._ended.get(fact.id, since) >= since]
        return Known.of(sorted(found, key=lambda fact: (fact.valid_from, fact.id), reverse=True), _MOST_KNOWN)

    def _remember(self, envelope: Envelope, position: Position) -> None:
        """Stage 1 may not have seen it when the next session is read."""
        event = LedgerEvent(self._partition.tenant, position, envelope)
        fact, ended = fact_of(event), supersession_of(event)
        if fact is not None and fact.user_id is not None:
            self._noted.setdefault(fact.user_id, {})[fact.id] = fact
        if ended is not None:
            self._ended[ended.old] = min(ended.valid_to, self._ended.get(ended.old, ended.valid_to))


def _is_behind(position: Position | None, through: Position | None) -> bool:
    return position is not None and (through is None or position > through)


def _appendable(event: Envelope) -> Appendable:
    """A mark says nothing about anybody, and has to outlive those whom the session is about."""
    return Appendable(event.event_id, event.session_id, codec.encode(event), clear=event.event_type == FACTS_READ_TYPE)
