"""Facts: what a generation holds, one by one, and how each kind of key is read as facts.

The same facts come from two sides: from keys in Redis (`KINDS`) and from what a replay says should be there
(`facts_of_delta`, `document_fact` …). Both use the very functions that write the keys, so they cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, TypeAlias

from context_graph.domain.document import Document
from context_graph.domain.forgetting import Decision
from context_graph.domain.graph import GraphDelta, SummaryNode, timeline_member
from context_graph.domain.position import Position
from context_graph.store import documents as fields
from context_graph.store.entities import EVENT_ENTITIES, EVENT_MENTIONS
from context_graph.store.forgotten import decision_row
from context_graph.store.graph import event_fields, summary_fields
from context_graph.store.learned_records import learned_fields, lists_of, lists_of_end, superseded_row

BUCKETS = 2048
MEMBERS = 5000  # members of a sorted set read at once
Content: TypeAlias = Mapping[str, bytes]

# What each kind of fact is called, in the order in which reports list them.
EVENT, TIMELINE, REGISTERED, EFFECT, SUMMARY = "event", "timeline", "registered", "effect", "summary"
FIRST_SEEN, RECEIPT, VERSION, OPINION = "first seen", "receipt", "version", "opinion"
DOCUMENT, VECTOR, ENTITIES = "document", "vector", "entities"
FORGOTTEN, PINNED, PIN_DECISION = "forgotten", "pinned", "pin decision"
LEARNED, LISTED, SUPERSEDED = "learned", "listed", "superseded"
GRAPH_KINDS = (
    EVENT, TIMELINE, REGISTERED, EFFECT, SUMMARY, FIRST_SEEN, RECEIPT, VERSION, OPINION, FORGOTTEN, PINNED,
    PIN_DECISION, LEARNED, LISTED, SUPERSEDED,
)  # fmt: skip
UNREADABLE = "key"  # of a type that nothing of ours has: no generation should hold it
FACT_KINDS = (*GRAPH_KINDS, DOCUMENT, VECTOR, ENTITIES)

_STAGE_TWO = (EVENT_ENTITIES, EVENT_MENTIONS)
_NOT_COMPARED = (
    fields.STORED[fields.VECTOR], fields.MODEL, fields.SPANS, fields.PROOF, fields.STORED[fields.ENTITY],
)  # fmt: skip
_OPINION_PREFIX = "at:"


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that a generation holds. `at`: the sort key of the position it comes from; empty where unknown."""

    kind: str
    name: str
    content: Content
    at: str = ""

    @property
    def bucket(self) -> int:
        """Which of `BUCKETS` it counts in: by kind and name alone."""
        return int.from_bytes(blake2b(f"{self.kind}\0{self.name}".encode(), digest_size=4).digest()) % BUCKETS

    @property
    def digest(self) -> int:
        """128 bits over all of it."""
        hashed = blake2b(f"{self.kind}\0{self.name}".encode(), digest_size=16)
        for name in sorted(self.content):
            value = self.content[name]
            hashed.update(f"\0{name}\0{len(value)}\0".encode())
            hashed.update(value)
        return int.from_bytes(hashed.digest())


def registered(owner: str, *, known: bool = True) -> Fact:
    """That the registry lists a thing (`session:s1`) which has a timeline, at its latest occurrence.

    Of an entity also that it has a node with a form of its name, and is found under every word it is looked up by.
    """
    return Fact(REGISTERED, owner, {"known": b"1" if known else b"0"})


def facts_of_delta(delta: GraphDelta) -> Iterator[Fact]:
    """What a delta leaves in the graph, without its summaries: of these only the newest stays (`summary_fact`)."""
    for node in delta.events.values():
        words = event_fields(node)
        content = {str(words[i]): _bytes(words[i + 1]) for i in range(0, len(words), 2)}
        yield Fact(EVENT, node.id, content, node.position.sort_key)
    for (kind, identifier), members in delta.timelines.items():
        for member, occurred in members.items():
            yield _member_fact(TIMELINE, f"{kind}:{identifier}", member, occurred)
    for cause, effects in delta.effects.items():
        for member, occurred in effects.items():
            yield _member_fact(EFFECT, cause, member, occurred)
    yield from _facts_of_records(delta)
    for pin in delta.pins.values():
        yield Fact(PINNED, pin.event_id, {"value": pin.value.encode()}, pin.order)
    yield from (_member_fact(PIN_DECISION, "", member, 0) for member in delta.pin_decisions)
    yield from _facts_of_learned(delta)


def _facts_of_records(delta: GraphDelta) -> Iterator[Fact]:
    for session_id, seen in delta.first_seen.items():
        for what, position in seen.items():
            yield _first_seen_fact(session_id, what, position.sort_key)
    for (of, identifier), receipts in delta.receipts.items():
        yield from (_member_fact(RECEIPT, f"{of}:{identifier}", member, 0) for member in receipts)
    for scope, summaries in delta.versions.items():
        yield from (_member_fact(VERSION, scope, member, 0) for member in summaries)
    for event_id, opinions in delta.opinions.items():
        for opinion in opinions:
            yield _opinion_fact(event_id, opinion.position.sort_key + opinion.origin_id, b"%d" % opinion.verdict)


def _facts_of_learned(delta: GraphDelta) -> Iterator[Fact]:
    for learned in delta.learned.values():
        content = {name: _bytes(value) for name, value in learned_fields(learned).items()}
        yield Fact(LEARNED, learned.id, content, learned.position.sort_key)
        for of, identifier in lists_of(learned):
            yield _member_fact(LISTED, f"{of}:{identifier}", learned.position.sort_key + learned.id, 0)
    for supersession in delta.superseded:
        at = supersession.position.sort_key
        yield _superseded_fact(supersession.old, at, superseded_row(supersession))
        for of, identifier in lists_of_end(supersession):
            yield _member_fact(LISTED, f"{of}:{identifier}", at + supersession.old, 0)


def decision_fact(decision: Decision) -> Fact:
    """That stretches of a session are forgotten, or not any more."""
    return _decision_fact(decision.session_id, decision.order, decision_row(decision))


def summary_fact(summary: SummaryNode) -> Fact:
    """A scope's newest summary."""
    order, *words = summary_fields(summary)
    content = {"order": _bytes(order), **{str(words[i]): _bytes(words[i + 1]) for i in range(0, len(words), 2)}}
    return Fact(SUMMARY, summary.scope, content, summary.position.sort_key)


def document_fact(document: Document) -> Fact:
    """A search document."""
    content = {name: _bytes(value) for name, value in fields.document_fields(document).items()}
    return Fact(DOCUMENT, document.id, content, document.position.sort_key)


def vector_fact(document: Document, text_hash: str) -> Fact:
    """What a document's vector was made from, and what it is filtered by."""
    content = {name: _bytes(value) for name, value in fields.filter_fields(document).items()}
    content |= {fields.TEXT_HASH: bytes.fromhex(text_hash), fields.AT: document.position.sort_key.encode()}
    return Fact(VECTOR, document.id, content, document.position.sort_key)


def entity_facts(document: Document, shown: Mapping[str, bytes], entities: Iterable[str]) -> list[Fact]:
    """What an event mentions: as its hash shows it, and its place on each entity's timeline."""
    if not shown:
        return []
    at, member = document.position.sort_key, timeline_member(document.position, document.id)
    facts = [Fact(ENTITIES, document.id, shown, at)]
    for owner in (f"entity:{entity_id}" for entity_id in entities):
        facts += (_member_fact(TIMELINE, owner, member, document.occurred_at), registered(owner))
    return facts


# How keys are read


@dataclass(frozen=True, slots=True)
class KeyKind:
    """A row: keys with this prefix, the command that reads one, the facts in the answer up to a sort key."""

    prefix: str
    read: Callable[[Any, str], Any]
    facts: Callable[[str, Any, str], list[Fact]]
    members: bool = False


def _hash(pipe: Any, name: str) -> None:
    pipe.hgetall(name)


def _set(pipe: Any, name: str) -> None:
    pipe.zrange(name, 0, MEMBERS - 1, withscores=True)


def _event_facts(name: str, answer: Mapping[bytes, bytes], until: str) -> list[Fact]:
    content = {key.decode(): value for key, value in answer.items()}
    position = content.get("pos")
    if position is None:
        return []  # Stage 1 has not been here: it comes behind `until`, or it is missing, which its timelines tell
    at = Position.parse(position.decode()).sort_key
    if at > until:
        return []
    found = [Fact(EVENT, name, {k: v for k, v in content.items() if k not in _STAGE_TWO}, at)]
    entities = {k: content[k] for k in (EVENT_ENTITIES, EVENT_MENTIONS) if k in content}
    if entities:
        found.append(Fact(ENTITIES, name, entities, at))
    return found


def _versioned(kind: str, version: str, left_out: Sequence[str] = ()) -> Callable[[str, Any, str], list[Fact]]:
    def facts(name: str, answer: Mapping[bytes, bytes], until: str) -> list[Fact]:
        content = {key.decode(): value for key, value in answer.items()}
        at = content.get(version, b"").decode()
        if not at or at > until:
            return []
        return [Fact(kind, name, {k: v for k, v in content.items() if k not in left_out}, at)]

    return facts


def _vector_facts(name: str, answer: Any, until: str) -> list[Fact]:
    chunk, _, doc_id = name.partition(":")
    if chunk != "0":
        return []  # further passages follow from the text, as the first does
    return _versioned(VECTOR, fields.AT, _NOT_COMPARED)(doc_id, answer, until)


def _members(kind: str) -> Callable[[str, Any, str], list[Fact]]:
    def facts(name: str, answer: Sequence[tuple[bytes, float]], until: str) -> list[Fact]:
        found = [_member_fact(kind, name, member.decode(), int(score)) for member, score in answer]
        return [fact for fact in found if fact.at <= until]

    return facts


def _member_fact(kind: str, owner: str, member: str, occurred: int) -> Fact:
    return Fact(kind, f"{owner}\0{member}", {"occurred": b"%d" % occurred}, member[:17])


def _session_facts(name: str, answer: Mapping[bytes, bytes], until: str) -> list[Fact]:
    found = [_first_seen_fact(name, what.decode(), at.decode()) for what, at in answer.items()]
    return [fact for fact in found if fact.at <= until]


def _first_seen_fact(session_id: str, what: str, at: str) -> Fact:
    return Fact(FIRST_SEEN, f"{session_id}\0{what}", {"at": at.encode()}, at)


def _feedback_facts(name: str, answer: Mapping[bytes, bytes], until: str) -> list[Fact]:
    """Every opinion there was; which of them counts, and their sum, follows from them."""
    said = ((key.decode(), verdict) for key, verdict in answer.items())
    found = [_opinion_fact(name, key[len(_OPINION_PREFIX) :], v) for key, v in said if key.startswith(_OPINION_PREFIX)]
    return [fact for fact in found if fact.at <= until]


def _decision_facts(name: str, answer: Mapping[bytes, bytes], until: str) -> list[Fact]:
    said = ((order.decode(), row) for order, row in answer.items())
    return [_decision_fact(name, order, row) for order, row in said if order <= until]


def _decision_fact(session_id: str, order: str, row: bytes) -> Fact:
    return Fact(FORGOTTEN, f"{session_id}\0{order}", {"row": row}, order)


def _superseded_facts(name: str, answer: Mapping[bytes, bytes], until: str) -> list[Fact]:
    said = ((order.decode(), row) for order, row in answer.items())
    return [_superseded_fact(name, order, row) for order, row in said if order <= until]


def _superseded_fact(fact_id: str, order: str, row: bytes) -> Fact:
    return Fact(SUPERSEDED, f"{fact_id}\0{order}", {"row": row}, order)


def _pin_facts(_name: str, answer: Mapping[bytes, bytes], until: str) -> list[Fact]:
    """One whose newest decision is behind `until` is left out: what was decided before is not known any more."""
    said = ((event_id.decode(), value) for event_id, value in answer.items())
    facts = [Fact(PINNED, event_id, {"value": value}, value[:-1].decode()) for event_id, value in said]
    return [fact for fact in facts if fact.at <= until]


def _opinion_fact(event_id: str, place: str, verdict: bytes) -> Fact:
    return Fact(OPINION, f"{event_id}\0{place}", {"verdict": verdict}, place[:17])


def _bytes(value: str | bytes | int) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


TIMELINE_PREFIX = "timeline:"
KINDS: tuple[KeyKind, ...] = (
    KeyKind("event:", _hash, _event_facts),
    KeyKind(TIMELINE_PREFIX, _set, _members(TIMELINE), members=True),
    KeyKind("effects:", _set, _members(EFFECT), members=True),
    KeyKind("session:", _hash, _session_facts),
    KeyKind("receipts:", _set, _members(RECEIPT), members=True),
    KeyKind("versions:", _set, _members(VERSION), members=True),
    KeyKind("feedback:", _hash, _feedback_facts),
    KeyKind("forgotten:", _hash, _decision_facts),
    KeyKind("fact:", _hash, _versioned(LEARNED, "at")),
    KeyKind("facts:", _set, _members(LISTED), members=True),
    KeyKind("superseded:", _hash, _superseded_facts),
    KeyKind("pins", _hash, _pin_facts),
    KeyKind("pin-decisions", _set, _members(PIN_DECISION), members=True),
    KeyKind("summary:", _hash, _versioned(SUMMARY, "order")),
    KeyKind("doc:", _hash, _versioned(DOCUMENT, fields.AT)),
    KeyKind("vec:", _hash, _vector_facts),
)
