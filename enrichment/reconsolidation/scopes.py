"""What an agent did, what a person and a topic were about, over sessions: from their summaries' sentences. Pure.

A scope (`user/<id>`, `agent/<id>`) is summarised from the newest summaries of its newest sessions in a partition, two
at least. Extractive: the sentences that say most among theirs (`summaries.choose`); or by a language model that reads
them, under the same check as for a session. Each sentence cites the events that its sources cite, and the event names
as its causes the summaries that were read, so there is a way down: scope, session, event. Of a topic only the sentences
count that name one of its entities, of a person those about this person, of an agent those of what it took part in;
and the sessions that have such a sentence. A sentence that is quoted says who said it (`Maria: …`): over sessions
nothing else would tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from context_graph.domain.event import SERVICE_SESSION, SUMMARY_TYPE, Envelope, EventId, JsonValue, LedgerEvent, iso
from context_graph.domain.position import Position
from context_graph.domain.text import TEXT_VERSION, searchable
from enrichment.reconsolidation.plan import AGENT, ConsolidationPlan, Rules, event_id_of, method_of
from enrichment.reconsolidation.sentences import Sentence
from enrichment.reconsolidation.summaries import MOST_CITED, Quote, choose, joined
from enrichment.reconsolidation.writing import Unwritten, Written
from enrichment.reconsolidation.written import Line

SCOPE_VERSION = 2
FEWEST_SESSIONS = 2
MOST_SESSIONS = 50  # newest ones of a scope that are read; each is one more key that the summary is sealed with
USER, AGENT_SCOPE = "user/", "agent/"


@dataclass(frozen=True, slots=True)
class Source:
    """A session's newest summary: where it stands, and whom the session is about."""

    session_id: str
    event_id: str
    position: Position
    people: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """The sentences of a scope's sources, each under a name of its own, and the events that each rests on."""

    sentences: tuple[Sentence, ...]
    cited: dict[str, tuple[str, ...]]
    who: dict[str, str]
    """Who says a sentence; empty where a model put it in its own words."""
    occurred_at: int
    events: int


def fingerprint(sources: Sequence[Source], rules: Rules, part: Sequence[str] = ()) -> str:
    """32 hex digits: the same input by the same rules has the same. `part`: what of the sources counts, if not all."""
    parts: list[object] = [SCOPE_VERSION, rules.digest]
    parts += sorted((source.session_id, source.event_id) for source in sources)
    parts += [sorted(part)] if part else []
    return blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def input_of(lines: Sequence[Line], rules: Rules) -> str:
    """32 hex digits: equal for the same lines, whichever scopes they are asked about for."""
    said = [(line.speaker, line.text, line.event_ids) for line in lines]
    return blake2b(repr((SCOPE_VERSION, rules.digest, said)).encode(), digest_size=16).hexdigest()


def written_id(scope: str, input_hash: str) -> EventId:
    """The id of the summary that the rules' model would write of this input."""
    return event_id_of(scope, input_hash + ":written")


def told_by(summaries: Sequence[LedgerEvent], events: Mapping[str, LedgerEvent]) -> Told:
    """What the sources say. `events`: those that they cite."""
    sentences: list[Sentence] = []
    cited: dict[str, tuple[str, ...]] = {}
    who: dict[str, str] = {}
    count = 0
    for summary in summaries:
        payload: Any = summary.envelope.payload
        count += payload["covers"]["events"]
        at = summary.envelope.occurred_at
        for index, said in enumerate(payload["sentences"]):
            name = f"{summary.envelope.event_id}#{index}"
            cited[name] = tuple(said["event_ids"])
            who[name] = "" if payload["method"] == "llm" else _speakers(cited[name], events)
            day, order = iso(at)[:10], summary.position.sort_key
            sentences.append(Sentence(said["text"], name, at, order, index, 5, f"{day} {who[name]}".strip()))
    return Told(tuple(sentences), cited, who, max(summary.envelope.occurred_at for summary in summaries), count)


def _speakers(event_ids: Sequence[str], events: Mapping[str, LedgerEvent]) -> str:
    """Who says what these events hold: by their own names where the events know people and agents by role alone."""
    said = (events[event_id].envelope for event_id in event_ids if event_id in events)
    return ", ".join(dict.fromkeys(_speaker(envelope) for envelope in said))


def _speaker(envelope: Envelope) -> str:
    name = searchable(envelope).speaker
    if name == "user":
        return envelope.user_id or name
    return envelope.agent_id if name in ("agent", "assistant") else name


def concerning(
    scope: str, told: Told, sources: Sequence[Source], events: Mapping[str, LedgerEvent]
) -> tuple[Told, tuple[Source, ...]]:
    """Of what is told the sentences that concern a person or an agent, and the sources that have such.

    A sentence concerns a person when an event that it cites is about this person, or about nobody in particular, or
    when it names the person; an agent when the agent took part in such an event.
    """
    kind, _, identifier = scope.partition("/")

    def holds(sentence: Sentence) -> bool:
        cited = [events[each].envelope for each in told.cited[sentence.event_id] if each in events]
        if kind == "agent":
            return any(envelope.agent_id == identifier for envelope in cited)
        about = any(envelope.user_id in (None, identifier) for envelope in cited)
        return about or identifier.casefold() in sentence.text.casefold()

    return _only(told, sources, holds)


def naming(told: Told, sources: Sequence[Source], names: Sequence[str]) -> tuple[Told, tuple[Source, ...]]:
    """Of what is told the sentences that hold any of these names (in lower case), and the sources that have such."""
    return _only(told, sources, lambda sentence: any(name in sentence.text.casefold() for name in names))


def _only(told: Told, sources: Sequence[Source], holds: Callable[[Sentence], bool]) -> tuple[Told, tuple[Source, ...]]:
    sentences = tuple(filter(holds, told.sentences))
    there = {each.event_id.rpartition("#")[0] for each in sentences}
    cited = {each.event_id: told.cited[each.event_id] for each in sentences}
    return replace(told, sentences=sentences, cited=cited), tuple(s for s in sources if s.event_id in there)


def plan_scope(
    scope: str,
    sources: Sequence[Source],
    told: Told,
    rules: Rules,
    written: Written | Unwritten | None,
    *,
    input_hash: str,
) -> ConsolidationPlan | None:
    """The summary of a scope, or None when nothing can be quoted. `written`: what came of asking the rules' model."""
    quotes = (
        written.quotes if isinstance(written, Written) else _attributed(choose(told.sentences, rules.sentences), told)
    )
    if not quotes:
        return None
    event_id = written_id(scope, input_hash)
    if not isinstance(written, Written):
        event_id = event_id_of(scope, input_hash + (f":{written.reason}" if written is not None else ""))
    people = tuple(sorted({person for source in sources for person in source.people}))
    summary = Envelope(
        event_id=event_id,
        event_type=SUMMARY_TYPE,
        session_id=SERVICE_SESSION,
        agent_id=scope.removeprefix(AGENT_SCOPE) if scope.startswith(AGENT_SCOPE) else AGENT,
        occurred_at=told.occurred_at,
        user_id=scope.removeprefix(USER) if scope.startswith(USER) else None,
        caused_by=tuple(EventId(source.event_id) for source in sources),
        origin="derived",
        payload={
            "scope": scope,
            **method_of(rules, written),
            "covers": _covers(sources, told),
            "input_hash": input_hash,
            "text_version": TEXT_VERSION,
            "sessions": [source.session_id for source in sources],
            "people": list[JsonValue](people),
            "text": joined(quotes),
            "sentences": [_sentence(quote, told) for quote in quotes],
        },
    )
    sessions = tuple(source.session_id for source in sources)
    return ConsolidationPlan(scope, input_hash, summary, told.events, 0, people, sessions)


def _attributed(quotes: Sequence[Quote], told: Told) -> list[Quote]:
    """Each with who says it before it."""
    named = []
    for quote in quotes:
        names = dict.fromkeys(told.who[name] for name in quote.event_ids if told.who[name])
        named.append(replace(quote, text=f"{', '.join(names)}: {quote.text}") if names else quote)
    return named


def _covers(sources: Sequence[Source], told: Told) -> JsonValue:
    positions = [source.position for source in sources]
    return {
        "sessions": len(sources),
        "events": told.events,
        "first_position": str(min(positions)),
        "last_position": str(max(positions)),
    }


def _sentence(quote: Quote, told: Told) -> JsonValue:
    ids = dict.fromkeys(event_id for name in quote.event_ids for event_id in told.cited[name])
    return {"text": quote.text, "event_ids": list[JsonValue](ids)[:MOST_CITED]}
