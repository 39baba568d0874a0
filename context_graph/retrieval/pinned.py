"""The pinned: events that somebody pinned, of a context's scope, as candidates of a section of their own.

A pin has no text: the event's line is what is shown. Pinned events are in scope as all others are, by the request's
session, agent, user and filters, and as of a position those count that were pinned then. The newest pins are looked at,
and of those in scope the ones that the query has most in common with are offered, the newest pin before older ones.

Being pinned gives a place in the section's least share, before anything else is taken (`pack.py`), and hardly any worth
beyond it: what is pinned and also found competes for the rest of the budget with what it is found by.
"""

from __future__ import annotations

from collections.abc import Sequence

from context_graph.domain.document import Document
from context_graph.domain.partition import Tenant
from context_graph.domain.query import terms
from context_graph.retrieval.candidates import Candidates
from context_graph.retrieval.forgotten import ForgottenNodes
from context_graph.retrieval.items import Candidate
from context_graph.retrieval.pool import Ask

_LOOKED_AT = 200  # newest decisions of a partition about pins
_MOST = 10  # events that are offered
_BASE, _MATCHED = 0.01, 0.04  # worth of a pin, and of holding all words of the query: the best event has 1
_STEM = 5  # letters that make two words one


class Pinned:
    """Reads what is pinned of any tenant."""

    def __init__(self, forgotten: ForgottenNodes, candidates: Candidates) -> None:
        self._forgotten = forgotten
        self._candidates = candidates

    async def of(self, tenant: Tenant, ask: Ask) -> list[Candidate]:
        """Pinned events in scope, best first. Raises StoreUnavailable."""
        found: list[Candidate] = []
        for partition, ids in await self._forgotten.pinned(tenant, _LOOKED_AT, ask.as_of):
            found += await self._candidates.tail(partition, ids, ask)
        offered = [_candidate(each, ask.understanding.terms) for each in found]
        return sorted(offered, key=lambda each: -each.score)[:_MOST]


def _candidate(found: Candidate, words: Sequence[str]) -> Candidate:
    share = _share(words, found.document)
    return found._replace(channels={"pinned": share or _BASE}, score=_BASE + _MATCHED * share)


def _share(words: Sequence[str], document: Document) -> float:
    """How many of the query's words the event holds, 0..1."""
    there = {word[:_STEM] for word in terms(document.text)}
    return sum(word[:_STEM] in there for word in words) / len(words) if words else 0.0
