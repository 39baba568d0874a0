"""Asking the language model within a pass: an answer that cannot be believed is asked for again, a few times.

Each refused answer is an event in the ledger (`memory.answer_refused`) whose id names what was asked and the how
manieth try it was. So the tries are counted the same after a restart, a rebuild or by another worker, and a replay asks
nobody. Between two tries `llm.answer_backoff_seconds` pass, doubled each time; after `llm.answer_tries` the question is
given up until its input changes, or somebody asks to read the session again: that begins the count anew.

The next try is told what was wrong: at temperature 0 the same prompt would get the same answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Literal, TypeVar

from context_graph.bootstrap import Resources
from context_graph.domain.event import ANSWER_REFUSED_TYPE, Envelope, EventId, LedgerEvent, SessionId
from context_graph.models.language_model import Prompt
from context_graph.store import codec
from context_graph.store.consolidation import ConsolidationStore
from context_graph.store.leases import Lease
from context_graph.store.ledger import Appendable
from context_graph.store.retention import RetentionStore
from enrichment.reconsolidation.plan import AGENT
from enrichment.reconsolidation.writing import Unwritten, Writer

_AGAIN = "\nAn earlier answer was refused ({reason}). Answer with the JSON asked for alone, from the lines alone."

_T = TypeVar("_T")

Held = Callable[[Coroutine[Any, Any, Any]], Awaitable[Any]]
"""Runs something that may take longer than the lease lives, while the lease is renewed."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for, in which session; `digest` is equal for the same input."""

    of: Literal["summary", "facts"]
    session_id: str
    digest: str


class Asking:
    """The model, asked about one partition while a pass has its lease."""

    def __init__(self, resources: Resources, lease: Lease, writer: Writer, held: Held) -> None:
        self._settings = resources.settings.llm
        self._ledger = resources.ledger
        self._lease = lease
        self._partition = lease.partition
        self._writer = writer
        self._held = held
        self._store = ConsolidationStore(resources.derived_redis, resources.graph, resources.ledger)
        self._retention = RetentionStore(resources.derived_redis, resources.graph, resources.ledger_redis)

    @property
    def model(self) -> str:
        """As litellm names it."""
        return self._writer.model

    async def ask(self, question: Question, prompt: Prompt, read: Callable[[str], _T]) -> _T | Unwritten:
        """What `read` makes of the answer, as `Writer.ask`; or why there is none, and whether to come again."""
        started = await self._store.rereads(self._partition, question.session_id)
        tries = await self._tries(question, started)
        if tries:
            reason = _reason(tries[-1])
            if len(tries) >= self._settings.answer_tries:
                return Unwritten(reason, again=False)
            pause = self._settings.answer_backoff_seconds * 1000 * 2 ** (len(tries) - 1)
            if pause and self._writer.now_ms() < tries[-1].position.ms + pause:
                return Unwritten(reason, again=True)
            prompt = replace(prompt, rules=prompt.rules + _AGAIN.format(reason=reason))
        answer: _T | Unwritten = await self._held(self._writer.ask(self._partition.tenant, prompt, read))
        if not isinstance(answer, Unwritten) or not answer.refused:
            return answer
        number = len(tries) + 1
        given_up = number >= self._settings.answer_tries
        await self._note(question, started, number, answer.reason, given_up=given_up)
        return replace(answer, again=not given_up)

    async def _tries(self, question: Question, started: int) -> list[LedgerEvent]:
        found: list[LedgerEvent] = []
        while event := await self._ledger.get(self._partition, _id(question, started, len(found) + 1)):
            found.append(event)
        return found

    async def _note(self, question: Question, started: int, number: int, reason: str, *, given_up: bool) -> None:
        event = Envelope(
            event_id=_id(question, started, number),
            event_type=ANSWER_REFUSED_TYPE,
            session_id=SessionId(question.session_id),
            agent_id=AGENT,
            occurred_at=self._writer.now_ms(),
            origin="derived",
            payload={
                "of": question.of, "reason": reason, "try": number, "given_up": given_up, "model": self._writer.model,
            },
        )  # fmt: skip
        said = Appendable(event.event_id, event.session_id, codec.encode(event), clear=True)
        (appended,) = await self._ledger.append(self._partition, [said], self._lease)
        if appended.status == "created":
            outcome = "given_up" if given_up else "again"
            await self._retention.count(self._partition, {f"answers_refused:{question.of}:{outcome}": 1}, {})


def _id(question: Question, started: int, number: int) -> EventId:
    name = "\0".join((question.of, question.session_id, question.digest, str(started), str(number)))
    return EventId("refused-" + blake2b(name.encode(), digest_size=16).hexdigest())


def _reason(event: LedgerEvent) -> str:
    payload: Any = event.envelope.payload
    return str(payload["reason"])
