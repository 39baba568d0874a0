"""The profile: what holds of the person whom a context is about, as candidates of a section of their own.

The person is the one that the request names, else the one person in its session; where a session has several, nobody
is told about any of them. Only facts that hold (as of the moment asked for) are offered, each citing the event that
says it. They are in scope wherever that event was, because they are about the person and not about a session; the
request's own filters hold for them as for everything.

They are ranked by what the query has in common with them, the newest before older ones. Their worth beside events is
set: half of the best event's at most, all of it when the query asks for what somebody likes (`personalize`).
"""

from __future__ import annotations

from collections.abc import Sequence

from context_graph.domain.document import Document
from context_graph.domain.event import FACT_TYPE, SERVICE_AGENT, SessionId
from context_graph.domain.filters import holds
from context_graph.domain.learned import LearnedFact
from context_graph.domain.partition import Tenant
from context_graph.domain.query import Understanding, terms
from context_graph.retrieval.items import Candidate
from context_graph.retrieval.older_summaries import filter_values
from context_graph.retrieval.request import ContextQuery
from context_graph.store.graph import Graph
from context_graph.store.learned import LearnedFacts

_MOST = 60  # facts that are offered
_LOOKED_AT = 300  # newest facts of a person among which those are
_IMPORTANCE = 5
_SPEAKER = "memory"
_BASE, _MATCHED, _PERSONAL = 0.2, 0.3, 0.5  # worth of a fact, of holding all words of the query, of being asked for
_STEM = 5  # letters that make two words one


class Profile:
    """Reads what holds of the people of any tenant."""

    def __init__(self, learned: LearnedFacts, graph: Graph) -> None:
        self._learned = learned
        self._graph = graph

    async def of(self, tenant: Tenant, query: ContextQuery, understanding: Understanding) -> list[Candidate]:
        """Facts that hold of the person in scope, best first. Raises StoreUnavailable."""
        person = query.user_id or await self._person_in(tenant, query)
        if person is None:
            return []
        until = None if query.as_of is None else query.as_of.last
        facts = await self._learned.listed(tenant.partitions, ("user", person), _LOOKED_AT, until=until)
        standing = await self._learned.standing(tenant.partitions, facts, until)
        current = [each.fact for each in standing if each.current]
        found = [self._candidate(tenant, fact, understanding) for fact in current]
        allowed = [each for each in found if holds(query.filters, filter_values(each.document))]
        return sorted(allowed, key=lambda each: (-each.score, -each.document.occurred_at, each.document.id))[:_MOST]

    async def _person_in(self, tenant: Tenant, query: ContextQuery) -> str | None:
        if query.session_id is None:
            return None
        partition = tenant.partition_of(SessionId(query.session_id))
        until = None if query.as_of is None else query.as_of.last(partition.bucket)
        people = await self._graph.people_in(partition, query.session_id, until)
        return people[0] if len(people) == 1 else None

    def _candidate(self, tenant: Tenant, fact: LearnedFact, understanding: Understanding) -> Candidate:
        share = _share(understanding.terms, fact)
        score = _BASE + _MATCHED * share + _PERSONAL * understanding.weight("personalize")
        partition = tenant.partitions[fact.position.bucket]
        return Candidate(partition, document_of_fact(fact), {"profile": share or _BASE}, score)


def document_of_fact(fact: LearnedFact) -> Document:
    """A fact as it is shown: the same that `domain/text.py` makes of its event."""
    return Document(
        id=fact.id,
        kind="fact",
        text=fact.text,
        speaker=_SPEAKER,
        event_ids=(fact.event_id,),
        position=fact.position,
        event_type=FACT_TYPE,
        session_id=fact.session_id,
        agent_id=SERVICE_AGENT,
        occurred_at=fact.valid_from,
        origin="derived",
        user_id=fact.user_id,
        importance=_IMPORTANCE,
    )


def _share(words: Sequence[str], fact: LearnedFact) -> float:
    """How many of the query's words the fact or its quote holds, 0..1."""
    there = {word[:_STEM] for word in terms(f"{fact.text} {fact.quote}")}
    return sum(word[:_STEM] in there for word in words) / len(words) if words else 0.0
