"""Retrieval's use cases: working memory, search and lineage for a tenant.

The order of a context: wait for the stages when asked to → understand → embed the query off the event loop while its
words are asked → nearest vectors → what stands around → rank → weigh → pack exactly → record what was served as a
receipt event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import structlog
from ulid import ULID

from context_graph.domain.event import EventId, SessionId
from context_graph.domain.partition import Tenant
from context_graph.domain.query import Understanding, understand
from context_graph.errors import ConfigurationError, StoreUnavailable
from context_graph.models.tokens import Counters, EstimatedCounter, TokenCounter
from context_graph.observability.metrics import Metrics
from context_graph.resolution.entities import Entities
from context_graph.retrieval import context as assembly
from context_graph.retrieval.asking import Asking
from context_graph.retrieval.candidates import Candidates
from context_graph.retrieval.communities import Communities
from context_graph.retrieval.deadline import CUT, Deadline
from context_graph.retrieval.fact_edges import FactEdges
from context_graph.retrieval.graph_query import Found as GraphFound
from context_graph.retrieval.graph_query import GraphQuery, GraphWalk
from context_graph.retrieval.items import Candidate, Item
from context_graph.retrieval.lineage import Bounds, Direction, Lineage, LineageWalk, Walk
from context_graph.retrieval.links import Links
from context_graph.retrieval.neighbours import Neighbours
from context_graph.retrieval.older_summaries import OlderSummaries, Wanted
from context_graph.retrieval.pack import Packed, pack
from context_graph.retrieval.pinned import Pinned
from context_graph.retrieval.pool import Ask, Pool
from context_graph.retrieval.profile import Profile
from context_graph.retrieval.query_vectors import EmbedderOf, QueryVectors
from context_graph.retrieval.receipts import people_of, receipt_of
from context_graph.retrieval.related_sessions import RelatedSessions
from context_graph.retrieval.render import FORMATS
from context_graph.retrieval.request import AsOf, ContextQuery, SearchQuery, mark, scope
from context_graph.retrieval.same_things import SameThings
from context_graph.retrieval.served import Found, Served, Timings
from context_graph.retrieval.waiting import Waiting
from context_graph.settings import RetrievalSettings
from context_graph.store import codec
from context_graph.store.generations import Generations
from context_graph.store.graph import Graph
from context_graph.store.groups import Groups
from context_graph.store.index import Index
from context_graph.store.learned import LearnedFacts
from context_graph.store.ledger import Appendable, Ledger
from context_graph.store.queries import Searcher
from context_graph.store.receipts import ReceiptIndex

if TYPE_CHECKING:
    from collections.abc import Sequence

log = structlog.get_logger(__name__)

_SEEDS = 8  # best candidates that are named as such
_FINDING, _PACKING = 0.8, 0.7  # of the deadline, and of what finding leaves of it
_MUCH_TEXT = 100_000  # characters whose tokens take a thread: some 20 ms
_TAIL_EVENTS = 40  # newest events of the session that may become its recent tail
_POOL_FOR_PAGES = 5  # times the page: what a search ranks, and pages through


_Gathered: TypeAlias = tuple[list[Candidate], list[Candidate], list[Candidate], list[Candidate]]
"""What the channels find, the session's tail, the profile of the person in scope, and what is pinned."""


@dataclass(frozen=True, slots=True)
class RetrievalParts:
    """What retrieval reads and writes."""

    searcher: Searcher
    index: Index
    graph: Graph
    groups: Groups
    generations: Generations
    ledger: Ledger
    receipts: ReceiptIndex
    learned: LearnedFacts
    neighbours: Neighbours
    entities: Entities
    embedder_of: EmbedderOf
    counters: Counters
    settings: RetrievalSettings
    now_ms: Callable[[], int]
    metrics: Metrics


class Retrieval:
    """Answers for any tenant; a tenant's partitions are the only ones it asks."""

    def __init__(self, parts: RetrievalParts) -> None:
        self._parts = parts
        self._turn = asyncio.Semaphore(1)  # one query at a time computes, and the loop has its break before the next
        self._candidates = Candidates(parts.searcher, parts.index, parts.graph, self._turn)
        self._lineage = LineageWalk(parts.neighbours, parts.index)
        self._same_things = SameThings(parts.entities, parts.neighbours)
        self._asking = Asking(parts.graph, self._candidates, self._same_things, parts.settings.candidates)
        self.communities = Communities(
            parts.graph, parts.neighbours.timelines, parts.neighbours, parts.ledger, self._same_things
        )
        self.related = RelatedSessions(parts.index, parts.searcher, parts.neighbours, parts.entities)
        links = Links(parts.index, parts.searcher, parts.neighbours, self._same_things, self.related)
        self._graph = GraphWalk(parts.neighbours, parts.index, parts.ledger, links, FactEdges(parts.learned))
        self._older = OlderSummaries(parts.receipts, parts.ledger)
        self._profile = Profile(parts.learned, parts.graph)
        self._pinned = Pinned(parts.neighbours.forgotten, self._candidates)
        self._vectors = QueryVectors(parts.embedder_of, parts.settings.embedder_rest_seconds, parts.metrics)
        self._waiting = Waiting(parts.groups, parts.generations)

    async def context(self, tenant: Tenant, query: ContextQuery) -> Served:
        """Working memory within the budget. Raises ConfigurationError for a tokenizer that is not here."""
        counter = self._counter(query.tokenizer)
        timings = Timings()
        with timings.step("total"):
            with timings.step("wait"):
                passed = await self._waiting.until(tenant, query.min_position, query.wait_ms, query.wait_for)
            deadline = self._deadline()
            finding = deadline.part(_FINDING)  # the rest is for packing and for the receipt
            with timings.step("understand"):
                plainly = self._asking.plainly(tenant, query, scope(query), understand(query.query, query.intents))
                ask = await finding.within(self._asking.context(tenant, query, finding.cut), plainly, "understand")
            nothing: _Gathered = ([], [], [], [])
            gathering = self._gather(tenant, query, ask, timings, finding)
            found, tail, known, pinned = await finding.within(gathering, nothing, "candidates")
            found = await finding.within(self._with_older(tenant, found, ask, any_words=True), found, "older")
            seeds = [candidate for candidate in found if candidate.document.kind == "event"][:_SEEDS]
            with timings.step("weigh"):
                uses = await finding.within(self._uses(tenant, found, ask), {}, "feedback")
                async with self._turn:
                    weighed = assembly.weighed(found, ask.understanding, self._parts.now_ms(), uses)
                    ranked = assembly.merged(weighed, known, pinned)
                    bonds = assembly.bonds_of([*ranked, *tail])
                    items = assembly.items_of(ranked, tail, bonds, query.token_budget)
            with timings.step("pack"):
                packed = await self._packed(query, items, counter, deadline.part(_PACKING))
            with timings.step("receipt"):
                receipt_id, recallable = await asyncio.gather(
                    deadline.within(self._receipt(tenant, query, packed), None, "receipt"),
                    deadline.within(self._recallable(tenant, packed), [], "recallable"),
                )
        content = FORMATS[query.format].content(packed.items)
        named = [seed.document.id for seed in seeds]
        return Served(
            receipt_id,
            content,
            packed,
            query,
            ask.understanding,
            named,
            timings.steps,
            passed,
            deadline.truncated,
            recallable,
        )

    async def search(self, tenant: Tenant, query: SearchQuery) -> Found:
        """Documents by meaning, by words, or both; best first."""
        passed = await self._waiting.until(tenant, query.min_position, query.wait_ms, query.wait_for)
        deadline = self._deadline()
        depth = query.depth or max(self._parts.settings.candidates, _POOL_FOR_PAGES * query.limit)
        beside = query.mode == "hybrid"
        plainly = Ask(understand(query.query), query.filters, query.as_of, depth, beside=beside)
        ask = await deadline.within(self._asking.search(tenant, query, plainly, deadline.cut), plainly, "understand")
        vector = self._vectors.for_search(tenant.name, query.mode, ask.understanding.subject, deadline)
        finding = self._candidates.find(tenant, ask, vector=vector, use_text=query.mode != "semantic")
        found = await deadline.within(finding, [], "candidates")
        older = self._with_older(tenant, found, ask, any_words=query.mode != "keyword")
        found = await deadline.within(older, found, "older")
        rest = [one for one in found if mark(one.document.id) not in query.seen] if query.seen else found
        return Found(rest[: query.limit], len(rest) > query.limit, passed, depth, deadline.truncated)

    async def pool(self, tenant: Tenant, query: ContextQuery) -> tuple[Understanding, Pool]:
        """What a context would be chosen from, for those who fit and measure the ranking."""
        ask = await self._asking.context(tenant, query, self._deadline().cut)
        vector = partial(self._vectors.of, tenant.name, ask.understanding.subject)
        return ask.understanding, await self._candidates.pool(tenant, ask, vector=vector)

    async def lineage(
        self, tenant: Tenant, event_id: str, direction: Direction, bounds: Bounds, as_of: AsOf | None
    ) -> Lineage:
        """Causes and effects of an event. Raises UnknownThing."""
        return await self._lineage.walk(event_id, direction, Walk(tenant, bounds, self._deadline(), as_of))

    async def graph(self, tenant: Tenant, query: GraphQuery, bounds: Bounds, as_of: AsOf | None) -> GraphFound:
        """Nodes and edges around the start nodes. Raises UnknownThing when none is there."""
        deadline = self._deadline()
        query = replace(query, filters=await self._same_things.widened(query.filters, tenant, as_of, deadline.cut))
        found = await self._graph.walk(query, Walk(tenant, bounds, deadline, as_of))
        for reason in deadline.truncated:
            found.cut(reason)
        return found

    async def _packed(
        self, query: ContextQuery, items: Sequence[Item], counter: TokenCounter | EstimatedCounter, deadline: Deadline
    ) -> Packed:
        """What fits; taking ends with the deadline. Much text is counted in a thread."""
        shape, count = FORMATS[query.format], counter.count
        packing = partial(
            pack, items, limit=query.token_budget, shares=query.shares, shape=shape, count=count,
            late=lambda: deadline.passed,
        )  # fmt: skip
        if sum(len(item.text) for item in items) > _MUCH_TEXT:
            packed = await asyncio.to_thread(packing)
        else:
            async with self._turn:
                packed = packing()
        if packed.late:
            deadline.cut(f"{CUT}: packing")
        return packed

    def _deadline(self) -> Deadline:
        return Deadline.after(self._parts.settings.deadline_ms)

    async def _gather(
        self, tenant: Tenant, query: ContextQuery, ask: Ask, timings: Timings, deadline: Deadline
    ) -> _Gathered:
        with timings.step("candidates"):
            if query.query.strip():
                vector = partial(self._timed_vector, tenant, ask.understanding.subject, timings, deadline)
                found = self._candidates.find(tenant, ask, vector=vector)
            else:
                found = self._candidates.latest(tenant, ask)
            known = self._profile.of(tenant, query, ask.understanding)
            pinned = self._pinned.of(tenant, ask)
            return await asyncio.gather(found, self._tail(tenant, query, ask), known, pinned)

    async def _timed_vector(self, tenant: Tenant, text: str, timings: Timings, deadline: Deadline) -> bytes | None:
        """Within `candidates`, because the words are asked meanwhile."""
        with timings.step("embed"):
            return await self._vectors.in_time(tenant.name, text, deadline)

    async def _tail(self, tenant: Tenant, query: ContextQuery, ask: Ask) -> list[Candidate]:
        if query.session_id is None:
            return []
        partition = tenant.partition_of(SessionId(query.session_id))
        named = await self._parts.neighbours.members(tenant, "session", [query.session_id], _TAIL_EVENTS, query.as_of)
        newest = [entry.event_id for entry in named[query.session_id][0]]
        return await self._candidates.tail(partition, newest, ask)

    async def _with_older(
        self, tenant: Tenant, found: list[Candidate], ask: Ask, *, any_words: bool
    ) -> list[Candidate]:
        """As of a position, the summaries that were the newest then are found too."""
        if ask.as_of is None:
            return found
        wanted = Wanted(ask.understanding.terms, ask.filters, ask.as_of, any_words)
        return await self._older.beside(tenant, found, wanted)

    async def _uses(self, tenant: Tenant, candidates: Sequence[Candidate], ask: Ask) -> dict[str, int]:
        """What feedback said of these; each of a tenant's partitions may know something of any event."""
        if ask.opinions:  # read with the documents
            return {candidate.document.id: candidate.uses for candidate in candidates if candidate.uses}
        until = None if ask.as_of is None else ask.as_of.last
        return await self._parts.receipts.uses(tenant.partitions, [c.document.id for c in candidates], until)

    async def _recallable(self, tenant: Tenant, packed: Packed) -> list[str]:
        """Sessions of the items of which something is forgotten, in the order of the items; one round trip."""
        sessions = list(dict.fromkeys(item.document.session_id for item in packed.items))
        if not sessions:
            return []
        return await self._parts.neighbours.forgotten.sessions(tenant, sessions)

    def _counter(self, name: str) -> TokenCounter | EstimatedCounter:
        counter = self._parts.counters.get(name)
        if counter is None:
            raise ConfigurationError(f"there is no tokenizer {name!r}; there are {', '.join(self._parts.counters)}")
        return counter

    async def _receipt(self, tenant: Tenant, query: ContextQuery, packed: Packed) -> str | None:
        """Append what was served as an event, so that it can be accounted for later; None when it cannot be kept."""
        if not self._parts.settings.receipts:
            return None
        receipt_id = EventId(f"receipt-{ULID().to_uuid7(compliant=True)}")
        receipt = receipt_of(receipt_id, query, packed, self._parts.now_ms())
        event = Appendable(receipt_id, receipt.session_id, codec.encode(receipt), people=people_of(query, packed))
        try:
            (appended,) = await self._parts.ledger.append(tenant.partition_of(receipt.session_id), [event])
        except StoreUnavailable as error:  # a store that takes no writes (full, or without its replicas) is still read
            log.warning("receipt_not_kept", tenant=tenant.name, receipt_id=receipt_id, reason=str(error))
            return None
        return None if appended.status == "erased" else receipt_id
