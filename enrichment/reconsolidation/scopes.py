"""What an agent did, what a person and a topic were about, over sessions: from their summaries' sentences. Pure.

A scope (`user/<id>`, `agent/<id>`) is summarised from the newest summaries of its newest sessions in a partition, two
at least. Extractive: the sentences that say most among theirs (`summaries.choose`); or by a language model that reads
them, under the same check as for a session. Each sentence cites the events that its sources cite, and the event names
as its causes the summaries that were read, so there is a way down: scope, session, event. Of a topic only the sentences
count that name one of its entities, and the sessions that have such a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from context_graph.domain.event import SERVICE_SESSION, SUMMARY_TYPE, Envelope, EventId, JsonValue, LedgerEvent, iso
from context_graph.domain.position import Position
from context_graph.domain.text import TEXT_VERSION
from enrichment.reconsolidation.plan import AGENT, ConsolidationPlan, Rules, event_id_of, method_of
from enrichment.reconsolidation.sentences import Sentence
from enrichment.reconsolidation.summaries import MOST_CITED, Quote, choose, joined
from enrichment.reconsolidation.writing import Unwritten, Written
from enrichment.reconsolidation.written import Line

SCOPE_VERSION = 1
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


def told_by(summaries: Sequence[LedgerEvent]) -> Told:
    """What the sources say."""
    sentences: list[Sentence] = []
    cited: dict[str, tuple[str, ...]] = {}
    events = 0
    for summary in summaries:
        payload: Any = summary.envelope.payload
        events += payload["covers"]["events"]
        at = summary.envelope.occurred_at
        for index, said in enumerate(payload["sentences"]):
            name = f"{summary.envelope.event_id}#{index}"
            cited[name] = tuple(said["event_ids"])
            day, order = iso(at)[:10], summary.position.sort_key
            sentences.append(Sentence(said["text"], name, at, order, index, 5, day))
    return Told(tuple(sentences), cited, max(summary.envelope.occurred_at for summary in summaries), events)


def naming(told: Told, sources: Sequence[Source], names: Sequence[str]) -> tuple[Told, tuple[Source, ...]]:
    """Of what is told the sentences that hold any of these names (in lower case), and the sources that have such."""
    sentences = tuple(each for each in told.sentences if any(name in each.text.casefold() for name in names))
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
    quotes = written.quotes if isinstance(written, Written) else choose(told.sentences, rules.sentences)
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
