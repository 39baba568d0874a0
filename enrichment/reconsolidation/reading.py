"""What a pass has read of a session: page by page, in bounded memory. Pure.

Of each event only its time, place, user and the stems of its words stay; of the texts only the sentences that can still
enter the summary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b

from context_graph.domain.event import Envelope, LedgerEvent
from context_graph.domain.text import searchable
from enrichment.reconsolidation.episodes import Moment
from enrichment.reconsolidation.sentences import Sentence, most_important, split, terms
from enrichment.reconsolidation.summaries import MOST_SENTENCES
from enrichment.reconsolidation.topics import Words, words_of


@dataclass(slots=True)
class SessionReading:
    """A session so far: its events in order of occurrence, its users, a bounded sample of its sentences."""

    session_id: str
    moments: list[Moment] = field(default_factory=list)
    words: list[Words] = field(default_factory=list)
    users: set[str] = field(default_factory=set)
    sentences: list[Sentence] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)
    _digest: blake2b = field(default_factory=lambda: blake2b(digest_size=32))

    def add(self, events: Iterable[LedgerEvent], importance: Callable[[Envelope], int]) -> None:
        """The next events in order of occurrence. Derived events, and events seen already, change nothing."""
        for event in events:
            envelope = event.envelope
            if envelope.is_derived or envelope.event_id in self._seen:
                continue
            self._seen.add(envelope.event_id)
            if event.erased:  # without it the same session would be another's summary under the same id
                self._digest.update(f"{event.position}\x00erased\x00".encode())
                continue
            self.moments.append(Moment(envelope.event_id, event.position, envelope.occurred_at))
            if envelope.user_id is not None:
                self.users.add(envelope.user_id)
            self._quote(event, importance(envelope))
        self.sentences = most_important(self.sentences, MOST_SENTENCES)

    def _quote(self, event: LedgerEvent, importance: int) -> None:
        envelope = event.envelope
        self._digest.update(f"{event.position}\x00{envelope.event_id}\x00{importance}\x00".encode())
        found = searchable(envelope)
        self.words.append(words_of(terms(found.text)))
        order = event.position.sort_key
        self.sentences += (
            Sentence(text, envelope.event_id, envelope.occurred_at, order, index, importance, found.speaker)
            for index, text in enumerate(split(found.text))
        )

    @property
    def fingerprint(self) -> bytes:
        """32 bytes over which events these are, in which order, how important; what they say cannot change."""
        return self._digest.digest()
