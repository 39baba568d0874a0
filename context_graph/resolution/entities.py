"""Entities as a reader sees them: names that are one thing together, with the evidence, their events and neighbours.

Clusters are made when they are asked for, from the names that share blocks with the one asked about: what is answered
is a function of what is in the ledger now, and a merge or split counts as soon as its event is indexed. Bounded: two
steps from a name to its alikes' alikes, MOST_NAMES around a cluster, NEIGHBOURHOOD events for what is related.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import structlog
from ulid import ULID

from context_graph.domain.entity_names import split_id
from context_graph.domain.event import ENTITY_MERGE_TYPE, ENTITY_SPLIT_TYPE, Envelope, EventId, SessionId, TenantId
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.position import Position
from context_graph.errors import ConfigurationError, FieldProblem, InvalidInput, ModelUnavailable, UnknownThing
from context_graph.models.embedder import Embedder
from context_graph.models.language_model import Breaker
from context_graph.resolution.clusters import Clusters, Decision, Link, cluster, may_mean, pair_of, sharing
from context_graph.resolution.evidence import Likeness, evidence
from context_graph.store import codec
from context_graph.store.entities import EntityEvent, EntityNode, EntityStore
from context_graph.store.ledger import Appendable, Ledger

MOST_NAMES = 400
NEIGHBOURHOOD = 200  # newest events of an entity in which its neighbours are counted
_MOST_PEOPLE = 3  # a name that more people's events mention is nobody's secret
_STEPS = 2
_MANY = 200  # names whose clusters are found off the event loop
_SCANNED = 1000  # names one request reads for a query
_MEANING_SECONDS = 3.0  # for the vectors of names; an embedder that hangs must not take a read's whole deadline
_REST_SECONDS = 5.0  # for which an embedder that did not answer is not asked about names
_SERVICE_SESSION = SessionId("context-graph")
log = structlog.get_logger(__name__)
EmbedderOf = Callable[[TenantId], Awaitable[Embedder]]


@dataclass(frozen=True, slots=True)
class Entity:
    """Names that are one thing. `id` is that of the name shown; `links` say why the others are it too."""

    id: str
    label: str
    name: str
    names: tuple[EntityNode, ...]
    links: tuple[Link, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(node.id for node in self.names)


@dataclass(frozen=True, slots=True)
class EntityPage:
    """Entities in order of their first name's id; `after` is where the next page begins, None at the end."""

    entities: tuple[Entity, ...]
    after: str | None
    complete: bool


@dataclass(frozen=True, slots=True)
class Neighbour:
    """RELATED_TO: another entity's name, and in how many of the events looked at both are mentioned."""

    id: str
    events: int


@dataclass(frozen=True, slots=True)
class EntityDetail:
    """An entity, a page of the events that mention it (newest first), and what is mentioned beside it.

    `candidates`: other names that it may be, or that may be it: a part of a name that fits several is none's.
    """

    entity: Entity
    events: tuple[EntityEvent, ...]
    more: bool
    neighbours: tuple[Neighbour, ...]
    candidates: tuple[Link, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class Then:
    """Another time: which of some names were `known` then, and whether what was decided at a position counts."""

    known: Callable[[Sequence[str]], Awaitable[Collection[str]]]
    said: Callable[[Position], bool]


class Entities:
    """Entities of any tenant."""

    def __init__(
        self, store: EntityStore, ledger: Ledger, now_ms: Callable[[], int], embedder_of: EmbedderOf | None = None
    ) -> None:
        """`embedder_of`: the model for the last tier of evidence; without one there is none."""
        self._store = store
        self._ledger = ledger
        self._now_ms = now_ms
        self._embedder_of = embedder_of
        self._breakers: dict[TenantId, Breaker] = {}

    async def page(self, tenant: Tenant, *, label: str | None, query: str | None, after: str, limit: int) -> EntityPage:
        """Entities of a label, or all, whose name has `query` in it; stable under what is added meanwhile."""
        wanted = query.casefold() if query is not None else ""
        ids: list[str] = []
        scanned, last = 0, after
        while len(ids) <= limit and scanned < _SCANNED:
            found = await self._store.listed(tenant.partitions, last, label, 200)
            scanned += len(found)
            ids += [one for one in found if wanted in split_id(one)[1]]
            if len(found) < 200:
                last = ""
                break
            last = found[-1]
        shown, rest = ids[:limit], ids[limit:]
        clusters = await self._clusters(tenant, shown)
        firsts = [one for one in shown if one == min(n for n in clusters.of[one] if _fits(n, label, wanted))]
        entities = await self._entities(tenant.partitions, clusters, firsts)
        return EntityPage(tuple(entities), shown[-1] if rest else last or None, clusters.complete)

    async def detail(
        self, tenant: Tenant, entity_id: str, *, limit: int, before: tuple[int, str] | None = None
    ) -> EntityDetail:
        """Raises UnknownThing for a name that no event mentions."""
        clusters = await self._clusters(tenant, [entity_id])
        entities = await self._entities(tenant.partitions, clusters, [entity_id])
        if not entities or entity_id not in entities[0].ids:
            raise UnknownThing("entity", entity_id)
        entity = entities[0]
        events = await self._store.events(tenant.partitions, entity.ids, limit + 1, before)
        around = events if before is None and limit >= NEIGHBOURHOOD else await self._around(tenant, entity)
        more = len(events) > limit
        candidates = tuple(one for one in clusters.candidates if {one.left, one.right} & set(entity.ids))
        return EntityDetail(entity, tuple(events[:limit]), more, _neighbours(around), candidates, clusters.complete)

    async def alike(
        self, tenant: Tenant, ids: Sequence[str], then: Then | None = None
    ) -> tuple[Mapping[str, tuple[str, ...]], bool]:
        """Each of these names to all names of its entity, itself included; of one that is not known itself alone.

        And whether that is all: not while the model is away that could join more by what they mean.
        """
        clusters = await self._clusters(tenant, ids, then)
        return {one: clusters.of.get(one, (one,)) for one in ids}, clusters.complete

    async def state(self, tenant: Tenant) -> tuple[int, ...]:
        """Changes whenever other names may be one thing because of a new name or decision."""
        return await self._store.sizes(tenant.partitions)

    async def same_as(self, tenant: Tenant, ids: Sequence[str], then: Then) -> tuple[tuple[Link, ...], bool]:
        """The joins that hold the clusters of these names together, and whether these are all, as of `alike`."""
        wanted = set(ids)
        clusters = await self._clusters(tenant, ids, then)
        links = tuple(link for link in clusters.links if link.left in wanted or link.right in wanted)
        return links, clusters.complete

    async def decide(self, tenant: Tenant, ids: Sequence[str], *, same: bool, note: str | None) -> tuple[str, Position]:
        """Append that these names are one thing, or that each is another; the event's id and position.

        The event names people, so it is sealed with the keys of those whom its names are known from and erased with any
        of them; a name that events about nobody or about many mention is nobody's.
        Raises InvalidInput for a name that no event mentions.
        """
        known = await self._store.nodes(tenant.partitions, ids)
        missing = [place for place, one in enumerate(ids) if one not in known]
        if missing:
            raise InvalidInput([
                FieldProblem(f"/entities/{place}", "no event mentions this name", "use an id from GET /v1/entities")
                for place in missing
            ])  # fmt: skip
        made = Envelope(
            event_id=EventId(f"entity-{ULID().to_uuid7(compliant=True)}"),
            event_type=ENTITY_MERGE_TYPE if same else ENTITY_SPLIT_TYPE,
            session_id=_SERVICE_SESSION,
            agent_id="context-graph",
            occurred_at=self._now_ms(),
            origin="derived",
            payload={"entities": list(ids), "note": note},
        )
        people = await self._people(tenant, ids)
        appendable = Appendable(made.event_id, made.session_id, codec.encode(made), people=people)
        (appended,) = await self._ledger.append(tenant.partition_of(made.session_id), [appendable])
        return made.event_id, appended.position

    async def _people(self, tenant: Tenant, ids: Sequence[str]) -> tuple[str, ...]:
        people: set[str] = set()
        for one in ids:
            about = {event.user_id for event in await self._store.events(tenant.partitions, [one], NEIGHBOURHOOD)}
            if None not in about and len(about) <= _MOST_PEOPLE:
                people |= {user for user in about if user is not None}
        return tuple(sorted(people))

    async def _around(self, tenant: Tenant, entity: Entity) -> Sequence[EntityEvent]:
        return await self._store.events(tenant.partitions, entity.ids, NEIGHBOURHOOD)

    async def _clusters(self, tenant: Tenant, ids: Sequence[str], then: Then | None = None) -> Clusters:
        """Clusters of everything within two steps of these names."""
        said = _anything if then is None else then.said
        known = set(ids)
        frontier = set(ids)
        for _ in range(_STEPS):
            decided = await self._store.decisions(tenant.partitions, sorted(frontier), said)
            near = {name for decision in decided for name in (decision.left, decision.right) if decision.same}
            near |= _with_evidence(frontier, await self._store.alike(tenant.partitions, frontier))
            frontier = set(sorted(near - known)[: max(0, MOST_NAMES + len(ids) - len(known))])
            known |= frontier
            if not frontier:
                break
        # One more look: whatever is alike may make a part ambiguous, even if it belongs to nobody here.
        known |= await self._store.alike(tenant.partitions, known)
        if then is not None:
            known = set(await then.known(sorted(known)))
        decisions = {
            pair_of(one.left, one.right): Decision(one.same, one.event_id, one.note, one.position)
            for one in await self._store.decisions(tenant.partitions, sorted(known), said)
        }
        likeness, complete = await self._likeness(tenant, known)
        if len(known) < _MANY:
            return replace(cluster(known, decisions, likeness), complete=complete)
        return replace(await asyncio.to_thread(cluster, known, decisions, likeness), complete=complete)

    async def _likeness(self, tenant: Tenant, names: Iterable[str]) -> tuple[Likeness | None, bool]:
        """Cosines of the pairs that only their meaning can decide, None where there are none; whether that is all.

        While the model is away these names are told apart. Nothing of that is kept: clusters are made when they are
        asked for, so the first answer with the model again is the one that there would have been without the outage.
        """
        forms = sorted(may_mean(names)) if self._embedder_of is not None else []
        if self._embedder_of is None or not forms:
            return None, True
        breaker = self._breakers.setdefault(tenant.name, Breaker(1, _REST_SECONDS))
        if not breaker.lets_through():
            return None, False
        try:
            async with asyncio.timeout(_MEANING_SECONDS):
                vectors = await (await self._embedder_of(tenant.name)).embed(forms)
        except asyncio.CancelledError:  # a deadline from outside: the next one need not wait for the same
            breaker.failed()
            raise
        except (ModelUnavailable, ConfigurationError, TimeoutError) as error:
            breaker.failed()
            log.warning(
                "names_not_embedded",
                tenant=tenant.name,
                names=len(forms),
                reason=str(error) or "it did not answer in time",
            )
            return None, False
        breaker.succeeded()
        row = {form: number for number, form in enumerate(forms)}

        def cosine(left: str, right: str) -> float | None:
            if left not in row or right not in row:
                return None
            return float(np.dot(vectors[row[left]], vectors[row[right]]))

        return cosine, True

    async def _entities(
        self, partitions: Sequence[Partition], clusters: Clusters, firsts: Sequence[str]
    ) -> list[Entity]:
        wanted = sorted({name for one in firsts for name in clusters.of[one]})
        nodes = await self._store.nodes(partitions, wanted)
        found = []
        for one in firsts:
            names = tuple(nodes[name] for name in clusters.of[one] if name in nodes)
            if names:
                inside = {node.id for node in names}
                links = tuple(link for link in clusters.links if {link.left, link.right} <= inside)
                shown = min(names, key=_shown_first)
                found.append(Entity(shown.id, shown.label, _best_form(shown), names, links))
        return found


def _anything(_position: Position) -> bool:
    return True


def _fits(name: str, label: str | None, wanted: str) -> bool:
    named, rest = split_id(name)
    return (label is None or named == label) and wanted in rest


def _with_evidence(ids: set[str], others: set[str]) -> set[str]:
    near: set[str] = set()
    for left, right in sharing(ids | others):
        if (left in ids or right in ids) and evidence(left, right, _hopeful) is not None:
            near |= {left, right}
    return near


def _hopeful(_left: str, _right: str) -> float:
    """While names are gathered: those that may mean the same are worth a look."""
    return 1.0


def _shown_first(node: EntityNode) -> tuple[bool, int, str]:
    """The name shown of an entity: no acronym if there is another, the longest, then by id."""
    return node.label == "acronym", -len(node.id), node.id


def _best_form(node: EntityNode) -> str:
    """The form as written with most capitals, then the first by bytes: `Mia Li` before `mia li` and `MIA LI` last."""
    title = [form for form in node.forms if form[:1].isupper() and not form.isupper()]
    return min(title or node.forms or (split_id(node.id)[1],))


def _neighbours(events: Sequence[EntityEvent]) -> tuple[Neighbour, ...]:
    counts: Counter[str] = Counter()
    for event in events:
        counts.update(set(event.others))
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Neighbour(one, number) for one, number in ordered[:20])
