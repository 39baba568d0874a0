"""Whether a built generation is what the live one is: the hash of both, what differs and how, and what search finds.

Both are compared up to a position that both have passed, so events may arrive meanwhile. Buckets that differ are read
again before anything is told: what is being written while it is read looks different for a moment.

Vectors' numbers are no part of the hash. Where both generations have the same model a sample of vectors is compared by
angle; and with any models a sample of texts is searched in both: whether a document is found by its own first words,
and how many of the ten nearest are the same.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import numpy as np
import structlog

from context_graph.bootstrap import Resources
from context_graph.domain.event import JsonValue
from context_graph.domain.filters import Filters
from context_graph.domain.generations import Recipe
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.position import Position
from context_graph.domain.words import unspaced
from context_graph.errors import ConfigurationError, ModelUnavailable
from context_graph.models.embedder import Vectors
from context_graph.models.embedder_pool import EmbedderPool
from context_graph.store.documents import STORED, TEXT
from context_graph.store.facts import DOCUMENT, EVENT, FACT_KINDS, Fact
from context_graph.store.keys import GraphKeys
from context_graph.store.queries import Searcher
from context_graph.store.state import StateReader, Tally

log = structlog.get_logger(__name__)

SHOWN = 20  # differing facts that a report shows; all are counted up to the limit below
_BUCKETS_AGAIN = 256  # differing buckets that are read again at once, an eighth of all
_LOOKS = 4  # times that differing buckets are read before they count as differing
_PAUSE = 0.5  # seconds between these looks
_SAMPLED = 60  # documents whose vectors and neighbours are compared
_NEAREST = 10
_WORDS = 8  # of a document that it is searched by
_VALUE = 200  # characters of a value that a report shows
# Two runs of the int8 model over the same text in other batches were seen to differ by up to 0.01 in their cosine.
_SAME_ANGLE = 0.98


Side: TypeAlias = Callable[[Collection[int] | None], AsyncIterator[list[Fact]]]
"""Facts in pages, of these buckets or of all; asked more than once."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A fact that one side lacks or has with another content."""

    kind: str
    name: str
    what: str
    left: Mapping[str, str] | None
    right: Mapping[str, str] | None

    def as_json(self) -> dict[str, JsonValue]:
        """For reports."""
        return {
            "kind": self.kind,
            "name": self.name,
            "what": self.what,
            "left": None if self.left is None else dict(self.left),
            "right": None if self.right is None else dict(self.right),
        }


@dataclass(slots=True)
class StateComparison:
    """Two sets of facts: `left` and `right` by their counts and hashes, and what differs between them."""

    left: Tally
    right: Tally
    differences: list[Difference] = field(default_factory=list)
    differing: Counter[str] = field(default_factory=Counter)
    more_buckets: int = 0
    """Buckets that differ beyond those that were looked into."""

    @property
    def equal(self) -> bool:
        return not self.differing and self.more_buckets == 0


async def compare_states(
    reader: StateReader, left: GraphKeys, right: GraphKeys, until: Position | None
) -> StateComparison:
    """Two generations up to a position that both have passed. Raises StoreUnavailable."""
    return await compare_sides(partial(reader.facts, left, until), partial(reader.facts, right, until))


async def compare_sides(left: Side, right: Side) -> StateComparison:
    """Two sources of facts. Raises what reading them raises."""
    comparison = StateComparison(await _tally(left), await _tally(right))
    buckets = comparison.left.differing(comparison.right)
    for look in range(_LOOKS):
        if not buckets:
            break
        if look:
            await asyncio.sleep(_PAUSE)
        chosen = set(sorted(buckets)[:_BUCKETS_AGAIN])
        settle(comparison, chosen, await _collected(left, chosen), await _collected(right, chosen))
        buckets = comparison.left.differing(comparison.right)
        comparison.more_buckets = len(buckets - chosen)
    return comparison


async def _tally(side: Side) -> Tally:
    tally = Tally()
    async for facts in side(None):
        tally.add(facts)
    return tally


async def _collected(side: Side, buckets: set[int]) -> dict[tuple[str, str], Fact]:
    found: dict[tuple[str, str], Fact] = {}
    async for facts in side(buckets):
        found |= {(fact.kind, fact.name): fact for fact in facts}
    return found


def settle(
    comparison: StateComparison,
    buckets: set[int],
    left: Mapping[tuple[str, str], Fact],
    right: Mapping[tuple[str, str], Fact],
) -> None:
    """What these buckets really hold, each fact once, takes the place of what was summed; and what differs in them."""
    for tally, facts in ((comparison.left, left), (comparison.right, right)):
        for bucket in buckets:
            tally.sums[bucket] = 0
        known = tally.counts.copy()
        tally.add(facts.values())
        tally.counts = known
    comparison.differences, comparison.differing = [], Counter()
    for key in sorted(left.keys() | right.keys()):
        one, other = left.get(key), right.get(key)
        if one is not None and other is not None and one.content == other.content:
            continue
        comparison.differing[key[0]] += 1
        if len(comparison.differences) < SHOWN:
            comparison.differences.append(_difference(key, one, other))


def _difference(key: tuple[str, str], one: Fact | None, other: Fact | None) -> Difference:
    kind, name = key[0], key[1].replace("\0", " ")
    if one is None or other is None:
        what = "only on the left" if other is None else "only on the right"
        return Difference(kind, name, what, _shown(one), _shown(other))
    names = sorted(
        field for field in one.content.keys() | other.content.keys()
        if one.content.get(field) != other.content.get(field)
    )  # fmt: skip
    return Difference(kind, name, f"differs in {', '.join(names)}", _shown(one, names), _shown(other, names))


def _shown(fact: Fact | None, names: Sequence[str] | None = None) -> Mapping[str, str] | None:
    if fact is None:
        return None
    chosen = fact.content if names is None else {n: fact.content[n] for n in names if n in fact.content}
    return {name: _text(value)[:_VALUE] for name, value in chosen.items()}


def _text(value: bytes) -> str:
    """A value as it reads; hex digits where it is no text, as digests are."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return f"0x{value.hex()}"


@dataclass(slots=True)
class SearchComparison:
    """A sample of documents searched in both generations. Shares 0..1, None where there was nothing to sample."""

    sampled: int = 0
    found_left: int = 0
    found_right: int = 0
    shared: float = 0.0
    turned: int = 0
    """Vectors of the same model that point elsewhere."""

    def merge(self, other: SearchComparison) -> None:
        """Add what another partition showed."""
        self.sampled += other.sampled
        self.found_left += other.found_left
        self.found_right += other.found_right
        self.shared += other.shared
        self.turned += other.turned

    def as_json(self) -> dict[str, JsonValue]:
        """For reports."""
        if not self.sampled:
            return {"sampled": 0}
        return {
            "sampled": self.sampled,
            "found_by_own_words_live": round(self.found_left / self.sampled, 3),
            "found_by_own_words_shadow": round(self.found_right / self.sampled, 3),
            "same_neighbours": round(self.shared / self.sampled, 3),
            "vectors_that_differ": self.turned,
        }


@dataclass(frozen=True, slots=True)
class Sides:
    """The live generation and the one that was built, with the recipes of both."""

    live: int
    shadow: int
    live_recipe: Recipe | None
    shadow_recipe: Recipe

    @property
    def same_vectors(self) -> bool:
        """Whether both are by the same model from the same rules, so that vectors can be compared."""
        live = self.live_recipe
        return (
            live is not None and live.model_id == self.shadow_recipe.model_id and live.text == self.shadow_recipe.text
        )


async def compare_searches(
    resources: Resources, pool: EmbedderPool, partition: Partition, sides: Sides, documents: Mapping[str, str]
) -> SearchComparison:
    """What both find for these documents (id to text).

    Raises StoreUnavailable, ModelUnavailable, ConfigurationError.
    """
    found = SearchComparison()
    ids = [doc_id for doc_id, text in documents.items() if text.strip()]
    if not ids:
        return found
    left = await resources.index.at(sides.live).read_answers(partition, ids)
    right = await resources.index.at(sides.shadow).read_answers(partition, ids)
    searcher = Searcher(resources.derived_redis)
    queries = [" ".join(documents[doc_id].split()[:_WORDS]) for doc_id in ids]
    asked_right = await (await pool.of(sides.shadow_recipe)).embed(queries)
    asked_left = asked_right if sides.same_vectors else await _queries(pool, sides.live_recipe, queries)
    if asked_left is None:
        return found  # the live generation's model is gone, which may be why it is rebuilt
    for doc_id, one, other, mine, theirs in zip(ids, left, right, asked_left, asked_right, strict=True):
        if one is None or other is None:
            continue  # the state says so
        found.sampled += 1
        if sides.same_vectors and _cosine(one.vector, other.vector) < _SAME_ANGLE:
            found.turned += 1
        near = await _nearest(searcher.at(sides.live), partition, mine.tobytes())
        near_shadow = await _nearest(searcher.at(sides.shadow), partition, theirs.tobytes())
        found.found_left += doc_id in near
        found.found_right += doc_id in near_shadow
        found.shared += len(set(near) & set(near_shadow)) / max(len(near), len(near_shadow), 1)
    return found


async def _queries(pool: EmbedderPool, recipe: Recipe | None, queries: list[str]) -> Vectors | None:
    """None where the model is not here."""
    try:
        return await (await pool.of(recipe)).embed(queries)
    except (ModelUnavailable, ConfigurationError) as error:
        log.warning("searches_not_compared", reason=str(error))
        return None


async def _nearest(searcher: Searcher, partition: Partition, vector: bytes) -> list[str]:
    return list(await searcher.near(partition, vector, Filters(()), _NEAREST))


def _cosine(one: bytes, other: bytes) -> float:
    a, b = np.frombuffer(one, dtype=np.float32), np.frombuffer(other, dtype=np.float32)
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-9))


async def sample_documents(
    reader: StateReader, keys: GraphKeys, until: Position | None, most: int = _SAMPLED
) -> dict[str, str]:
    """Texts of `most` documents of a generation, spread over all of it, the same ones each time."""
    step, chosen = 1, dict[str, str]()
    counted = 0
    async for facts in reader.facts(keys, until):
        for fact in facts:
            if fact.kind != DOCUMENT:
                continue
            counted += 1
            if counted % step == 0:
                chosen[fact.name] = unspaced(fact.content.get(STORED[TEXT], b"").decode())
            if len(chosen) >= 2 * most:  # every second one stays, and from here on half as many are taken
                chosen = dict(list(chosen.items())[::2])
                step *= 2
    return dict(list(chosen.items())[:most])


def counts_json(tally: Tally) -> dict[str, JsonValue]:
    """Facts by kind, in the order of `FACT_KINDS`."""
    return {kind: tally.counts.get(kind, 0) for kind in FACT_KINDS}


async def compare_tenant(
    resources: Resources, pool: EmbedderPool, tenant: Tenant, sides: Sides, until: Mapping[Partition, Position | None]
) -> dict[str, JsonValue]:
    """Everything about two generations of a tenant, as a report. `until`: what both have passed in each partition."""
    reader = StateReader(resources.derived_redis)
    left, right, differing = Tally(), Tally(), Counter[str]()
    differences: list[JsonValue] = []
    more, search = 0, SearchComparison()
    for partition in tenant.partitions:
        live, shadow = GraphKeys(partition, sides.live), GraphKeys(partition, sides.shadow)
        found = await compare_states(reader, live, shadow, until[partition])
        left.merge(found.left)
        right.merge(found.right)
        differing += found.differing
        more += found.more_buckets
        differences += [difference.as_json() for difference in found.differences]
        documents = await sample_documents(reader, live, until[partition])
        search.merge(await compare_searches(resources, pool, partition, sides, documents))
    same_state = not differing and not more
    return {
        "equal": same_state and sides.same_vectors and search.turned == 0,
        "same_state": same_state,
        "same_model": sides.same_vectors,
        "live_hash": left.hash,
        "shadow_hash": right.hash,
        "live_counts": counts_json(left),
        "shadow_counts": counts_json(right),
        "events": left.counts.get(EVENT, 0),
        "until": [str(position) for position in until.values() if position is not None],
        "differing": dict(sorted(differing.items())),
        "differing_buckets_not_read": more,
        "differences": differences[:SHOWN],
        "search": search.as_json(),
    }
