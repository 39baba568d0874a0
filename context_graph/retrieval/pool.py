"""The pool of a question: what the channels found and what stands around it, and what follows from that. Pure.

`candidates.py` asks the store and fills it; here are its values, the laws by which matches become scores, causes are
followed and filters are held against documents, and the ranking of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from context_graph.domain.document import filter_tag
from context_graph.domain.filters import Condition, Filters, TagCondition, holds
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.position import Position
from context_graph.domain.query import Understanding
from context_graph.retrieval import ranking
from context_graph.retrieval.items import Candidate
from context_graph.retrieval.ranking import Match, Placed
from context_graph.retrieval.request import AsOf
from context_graph.store.documents import StoredDocument
from context_graph.store.index import Turn

DocumentKey = tuple[Partition, str]

_FALL_OFF = 0.6  # of a seed's match, for each causal step


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to the channels: what is understood, filters, as-of, how many of each channel.

    `depth` causal steps from the best matches, at most `max_nodes` events that way; `beside`: also the turns beside
    matches that match nothing themselves; `opinions`: with what feedback said of each, as its own partition knows.
    """

    understanding: Understanding
    filters: Filters
    as_of: AsOf | None
    limit: int
    depth: int = 0
    max_nodes: int = 200
    beside: bool = True
    opinions: bool = False

    def last(self, partition: Partition) -> Position | None:
        """The last position of a partition that counts; None: all."""
        return self.as_of.last(partition.bucket) if self.as_of is not None else None

    @property
    def unbounded(self) -> bool:
        """Whether neither filters nor a moment leave anything out."""
        return self.as_of is None and not self.filters.conditions and not self.filters.alternatives

    @property
    def by_entity(self) -> bool:
        """Whether the filters name entities."""
        return any(condition.field == "entity" for condition in self.filters.conditions)

    @property
    def checked(self) -> Filters:
        """The filters as documents are checked with: entities are kept as digests."""

        def digested(condition: Condition) -> Condition:
            if isinstance(condition, TagCondition) and condition.field == "entity":
                return replace(condition, values=tuple(filter_tag(value) for value in condition.values))
            return condition

        return Filters(tuple(map(digested, self.filters.conditions)), self.filters.alternatives)


@dataclass(slots=True)
class Pool:
    """What is known so far for one question: turns by key, channel scores by key.

    `there`: for an as-of read, the events of each session that were there then, in order.
    """

    turns: dict[DocumentKey, Turn]
    matches: dict[DocumentKey, Match]
    there: dict[str, list[str]] = field(default_factory=dict)

    def placed(self) -> tuple[list[DocumentKey], list[Placed]]:
        """Everything in the order of the ledger, so that nothing depends on who answered first."""
        keys = sorted(self.turns, key=lambda key: (key[0], self.turns[key].stored.document.position, key[1]))
        rows = [
            Placed(turn.stored.document, turn.place, turn.turns, self.matches.get(key, Match()))
            for key, turn in ((key, self.turns[key]) for key in keys)
        ]
        return keys, rows


def ranked(pool: Pool, understanding: Understanding) -> list[Candidate]:
    """The pool as candidates, best first. Scores are chances relative to the best's."""
    keys, placed = pool.placed()
    if not placed:
        return []
    features = ranking.features_of(placed, understanding)
    chances = ranking.chances_of(features)
    best = float(chances.max())
    found = [
        Candidate(
            partition=key[0],
            document=p.document,
            channels=added,
            score=float(chance) / best,
            causes=pool.turns[key].causes,
            uses=pool.turns[key].uses,
        )
        for key, p, added, chance in zip(keys, placed, ranking.channels_of(features), chances, strict=True)
    ]
    return sorted(found, key=lambda c: (-c.score, c.document.position, c.document.id))


def within(scores: Mapping[DocumentKey, float], turns: Mapping[DocumentKey, Turn]) -> dict[DocumentKey, float]:
    return {key: score for key, score in scores.items() if key in turns}


def matches_of(text: Mapping[DocumentKey, float], near: Mapping[DocumentKey, float]) -> dict[DocumentKey, Match]:
    """Channel scores over all partitions brought to 0..1 within the query.

    BM25 by the best; cosines between the worst and the best hit, because a cosine of unrelated texts is not 0.
    """
    best_text = max(text.values(), default=1.0) or 1.0
    best, worst = max(near.values(), default=1.0), min(near.values(), default=0.0)
    span = best - worst
    found: dict[DocumentKey, Match] = {}
    for key in dict.fromkeys((*near, *text)):
        vector = ((near[key] - worst) / span if span > 0 else 1.0) if key in near else 0.0
        found[key] = Match(vector=vector, text=text.get(key, 0.0) / best_text)
    return found


def keyed(tenant: Tenant, found: Sequence[Mapping[str, float]]) -> dict[DocumentKey, float]:
    pairs = zip(tenant.partitions, found, strict=True)
    return {(partition, doc_id): score for partition, scores in pairs for doc_id, score in scores.items()}


def by_partition(
    keys: Sequence[DocumentKey], placed: Sequence[Placed], places: Sequence[tuple[str, int]]
) -> dict[Partition, list[tuple[str, int]]]:
    """A session lies in one partition: that of its documents."""
    home = {p.document.session_id: key[0] for key, p in zip(keys, placed, strict=True)}
    found: dict[Partition, list[tuple[str, int]]] = {}
    for session, place in places:
        found.setdefault(home[session], []).append((session, place))
    return found


def linked_from(pool: Pool, frontier: Mapping[DocumentKey, float]) -> dict[DocumentKey, float]:
    """Causes and effects of these, each with a fixed part of the match it is reached from."""
    reached: dict[DocumentKey, float] = {}
    for key, score in frontier.items():
        for other in (*pool.turns[key].causes, *pool.turns[key].effects):
            linked = (key[0], other)
            reached[linked] = max(reached.get(linked, 0.0), score * _FALL_OFF)
    return reached


def halves_missing(pool: Pool, linked: Mapping[DocumentKey, float]) -> dict[DocumentKey, float]:
    """What the pool has only half of: results of its calls and calls of its results, which are not to be parted."""
    missing: dict[DocumentKey, float] = {}
    for key, turn in pool.turns.items():
        if is_tool(turn):
            others = turn.effects if turn.stored.document.event_type == "tool.call" else turn.causes
            score = max(pool.matches.get(key, Match()).own, linked.get(key, 0.0)) * _FALL_OFF
            missing |= {(key[0], other): score for other in others if (key[0], other) not in pool.turns}
    return missing


def is_tool(turn: Turn) -> bool:
    return turn.stored.document.event_type in ("tool.call", "tool.result")


def occurrence(turn: Turn) -> tuple[int, str, str]:
    document = turn.stored.document
    return document.occurred_at, document.position.sort_key, document.id


def recent(key: DocumentKey, turn: Turn, place: int) -> Candidate:
    """The newest is half as good as the best match; those before it fall off."""
    recency = 0.5 / (1 + place)
    return Candidate(key[0], turn.stored.document, {"recency": recency}, recency, turn.causes)


def is_allowed(stored: StoredDocument, ask: Ask, checked: Filters) -> bool:
    document = stored.document
    if ask.as_of is not None and not ask.as_of.includes(document.position):
        return False
    if not checked.conditions and not checked.alternatives:
        return True
    values: dict[str, Sequence[str] | float | None] = {
        "event_type": [document.event_type],
        "tool_name": [document.tool_name] if document.tool_name else [],
        "agent_id": [document.agent_id],
        "user_id": [document.user_id] if document.user_id else [],
        "session_id": [document.session_id],
        "entity": stored.entity_tags,
        "status": [document.status] if document.status else [],
        "origin": [document.origin],
        "kind": [document.kind],
        "occurred_at": float(document.occurred_at),
        "importance": float(document.importance),
    }
    return holds(checked, values)
