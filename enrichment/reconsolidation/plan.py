"""The decision: what a session's events amount to, as the derived event that would be appended. Pure.

The event's id follows from everything its content follows from (the events read, how important each is, the rules), so
the same session makes the same event and the ledger answers `duplicate`. Raise `SUMMARY_VERSION` when cutting,
splitting, choosing or the payload's form changes: another content under the same id would be a conflict.

What a language model writes does not follow from anything: the id of a written summary names its input, the model and
the version of the prompt, so whoever has the input knows whether it was written already, and the model is not asked
twice. Without its sentences the summary is extractive, and says instead of whose it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from context_graph.domain.event import SUMMARY_TYPE, Envelope, EventId, JsonValue, SessionId, iso
from context_graph.domain.text import TEXT_VERSION
from context_graph.settings import Settings
from context_graph.store.codec import canonical_json
from enrichment.reconsolidation.episodes import Episode, cut
from enrichment.reconsolidation.reading import SessionReading
from enrichment.reconsolidation.summaries import Quote, choose, joined
from enrichment.reconsolidation.writing import Unwritten, Written
from enrichment.reconsolidation.written import PROMPT_VERSION

SUMMARY_VERSION = 2
AGENT = "context-graph"
_LISTED = 50  # events of an episode that are listed one by one; a longer one names its first, its last and how many


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides a summary beside the events. `gap_seconds` ends an episode, `sentences` bounds the summary."""

    gap_seconds: int
    sentences: int
    min_events: int
    max_payload_bytes: int
    model: str | None = None
    """The language model that writes, if any; it reads at most `model_characters` of a session."""
    model_characters: int = 0

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """The rules that the settings name."""
        own, llm = settings.consolidation, settings.llm
        return cls(
            own.episode_gap_seconds, own.summary_sentences, own.min_events, settings.ledger.max_payload_bytes,
            llm.model, llm.max_input_characters,
        )  # fmt: skip

    @property
    def digest(self) -> str:
        """Changes when the same events would give another summary."""
        parts: tuple[object, ...] = (
            SUMMARY_VERSION, TEXT_VERSION, self.gap_seconds, self.sentences, self.max_payload_bytes
        )  # fmt: skip
        if self.model is not None:
            parts += (self.model, PROMPT_VERSION, self.model_characters)
        return blake2b(repr(parts).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class ConsolidationPlan:
    """What would be appended for a session, and how much of it went in."""

    scope: str
    input_hash: str
    summary: Envelope
    events: int
    episodes: int
    people: tuple[str, ...] = ()
    """Whom the session's events are about: the summary goes with any of them."""
    sessions: tuple[str, ...] = ()
    """Of a summary over sessions: those that were read. It goes with any of them too."""

    def under_another_id(self, behind: str) -> Envelope:
        """The same summary as a new event, for when an older one with this content is no longer the newest.

        `behind` names the summary that came between (its position), which keeps the id deterministic.
        """
        return replace(self.summary, event_id=event_id_of(self.scope, f"{self.input_hash}:{behind}"))


def scope_of(session_id: str) -> str:
    """The scope of a session's summary."""
    return f"session/{session_id}"


def written_id(reading: SessionReading, rules: Rules) -> EventId:
    """The id of the summary that the rules' model would write of this reading."""
    return event_id_of(scope_of(reading.session_id), _input_hash(reading, rules) + ":written")


def existing(reading: SessionReading, rules: Rules, summary: Envelope) -> ConsolidationPlan:
    """The plan whose summary is in the ledger already."""
    scope, episodes = scope_of(reading.session_id), cut(reading.moments, rules.gap_seconds, reading.words)
    return ConsolidationPlan(
        scope, _input_hash(reading, rules), summary, len(reading.moments), len(episodes), tuple(sorted(reading.users))
    )


def plan_session(
    reading: SessionReading, rules: Rules, written: Written | Unwritten | None = None
) -> ConsolidationPlan | None:
    """The summary of a session, or None when it has too few events or says nothing that can be quoted.

    `written`: what came of asking the rules' model, if they name one.
    """
    if len(reading.moments) < rules.min_events:
        return None
    quotes = written.quotes if isinstance(written, Written) else choose(reading.sentences, rules.sentences)
    if not quotes:
        return None
    scope = scope_of(reading.session_id)
    input_hash = _input_hash(reading, rules)
    episodes = cut(reading.moments, rules.gap_seconds, reading.words)
    head: dict[str, JsonValue] = {
        "scope": scope,
        **method_of(rules, written),
        "covers": _covers(reading),
        "input_hash": input_hash,
        "text_version": TEXT_VERSION,
    }
    if isinstance(written, Written):
        event_id = written_id(reading, rules)
    else:
        event_id = event_id_of(scope, input_hash + (f":{written.reason}" if written is not None else ""))
    summary = Envelope(
        event_id=event_id,
        event_type=SUMMARY_TYPE,
        session_id=SessionId(reading.session_id),
        agent_id=AGENT,
        occurred_at=reading.moments[-1].occurred_at,
        user_id=next(iter(reading.users)) if len(reading.users) == 1 else None,
        origin="derived",
        payload=_fitted(head, quotes, episodes, rules.max_payload_bytes),
    )
    return ConsolidationPlan(
        scope, input_hash, summary, len(reading.moments), len(episodes), tuple(sorted(reading.users))
    )


def method_of(rules: Rules, written: Written | Unwritten | None) -> dict[str, JsonValue]:
    """How the sentences were made, and by what."""
    if written is None:
        return {"method": "extractive"}
    by: dict[str, JsonValue] = {"model": rules.model, "prompt_version": PROMPT_VERSION}
    if isinstance(written, Written):
        return {"method": "llm", **by}
    return {"method": "extractive", "instead_of": {**by, "reason": written.reason}}


def _input_hash(reading: SessionReading, rules: Rules) -> str:
    return blake2b(reading.fingerprint + rules.digest.encode(), digest_size=16).hexdigest()


def event_id_of(scope: str, identity: str) -> EventId:
    """The id of a summary that follows from what `identity` says."""
    return EventId("summary-" + blake2b(f"{scope}\x00{identity}".encode(), digest_size=16).hexdigest())


def _covers(reading: SessionReading) -> JsonValue:
    """How many events, and the span of the ledger they stand in (by position, not by time)."""
    positions = [moment.position for moment in reading.moments]
    return {"events": len(positions), "first_position": str(min(positions)), "last_position": str(max(positions))}


def _fitted(
    head: dict[str, JsonValue], quotes: Sequence[Quote], episodes: Sequence[Episode], limit: int
) -> dict[str, JsonValue]:
    """The payload within `limit` bytes of JSON: shorter episode lists first, then fewer episodes, then fewer sentences.

    What is left out is counted. One sentence always stays, so a limit near its own size may be passed by that.
    """
    full = _payload(head, quotes, [_listed(episode) for episode in episodes], 0)
    if _size(full) <= limit:
        return full
    short: list[JsonValue] = [_outlined(episode) for episode in episodes]
    while quotes:
        bare = _payload(head, quotes, [], len(short))
        room = limit - _size(bare)
        kept = _newest_within(short, room)
        if room >= 0 or len(quotes) == 1:
            return _payload(head, quotes, kept, len(short) - len(kept))
        worst = max(quote.rank for quote in quotes)
        quotes = [quote for quote in quotes if quote.rank != worst]
    raise ValueError("a summary needs a sentence")


def _newest_within(episodes: list[JsonValue], room: int) -> list[JsonValue]:
    """The newest episodes whose JSON, commas included, fits into `room` bytes."""
    kept = 0
    for episode in reversed(episodes):
        room -= _size(episode) + 1
        if room < 0:
            break
        kept += 1
    return episodes[len(episodes) - kept :]


def _payload(
    head: dict[str, JsonValue], quotes: Sequence[Quote], episodes: list[JsonValue], left_out: int
) -> dict[str, JsonValue]:
    sentences: list[JsonValue] = [{"text": quote.text, "event_ids": list(quote.event_ids)} for quote in quotes]
    payload = {**head, "text": joined(quotes), "sentences": sentences, "episodes": episodes}
    return {**payload, "episodes_left_out": left_out} if left_out else payload


def _listed(episode: Episode) -> JsonValue:
    if len(episode.event_ids) > _LISTED:
        return _outlined(episode)
    return {**_span(episode), "event_ids": list(episode.event_ids)}


def _outlined(episode: Episode) -> JsonValue:
    first, last = episode.event_ids[0], episode.event_ids[-1]
    return {**_span(episode), "first": first, "last": last, "count": len(episode.event_ids)}


def _span(episode: Episode) -> dict[str, JsonValue]:
    return {"index": episode.index, "started_at": iso(episode.started_at), "ended_at": iso(episode.ended_at)}


def _size(value: JsonValue) -> int:
    return len(canonical_json(value))
