"""Turns to events, each with what it was caused by.

A message answers what came before it, a call follows from the words beside it or else from what prompted it, a result
from its call. A call id is not unique even within a session (agents reuse them), so a result belongs to the nearest
earlier call of that id that has no answer yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import orjson

from context_graph.domain.event import Status
from context_graph.ingest.transcript_envelopes import (
    Draft,
    JsonObject,
    derived_id,
    envelopes_of,
    parsed_json,
    type_word,
)
from context_graph.ingest.transcript_turns import Call, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Whose turns these are. `key` seeds the ids; `begins_at` (ms UTC) counts when no turn has a time of its own."""

    key: str
    session_id: str
    agent_id: str
    begins_at: int
    user_id: str | None = None


@dataclass(slots=True)
class _OpenCall:
    turn: int
    call: Call
    event_id: str
    answered: bool = False


@dataclass(slots=True)
class _Thread:
    """What the next turn can follow from: unanswered words and results, the assistant's last events, the calls."""

    pending: list[str] = field(default_factory=list)
    assistant: list[str] = field(default_factory=list)
    calls: list[_OpenCall] = field(default_factory=list)

    @property
    def prompts(self) -> tuple[str, ...]:
        return tuple(self.pending or self.assistant)

    def answer(self, turn: Turn) -> _OpenCall | None:
        """The call that a result belongs to, marked as answered; None when no call fits.

        Nearest earlier message first; within one message the tool's name decides, then the order of the calls. A second
        result of a call goes to the same call.
        """
        of_id = [call for call in self.calls if turn.call_id is None or call.call.call_id == turn.call_id]
        waiting = [call for call in of_id if not call.answered] or (of_id if turn.call_id is not None else [])
        if not waiting:
            return None
        nearest = [call for call in waiting if call.turn == waiting[-1].turn]
        named = [call for call in nearest if turn.tool_name is not None and call.call.tool_name == turn.tool_name]
        found = (named or nearest)[0]
        found.answered = True
        return found


def events_of_turns(turns: Sequence[Turn], conversation: Conversation) -> Iterator[JsonObject]:
    """The events of a conversation in order, as JSON-ready envelopes."""
    thread = _Thread()
    timed = any(turn.at is not None for turn in turns)
    for index, (turn, at) in enumerate(zip(turns, occurrences(turns, conversation.begins_at), strict=True)):
        seed = [conversation.key, str(index), turn.name, _digest_text(turn), str(at) if timed else ""]
        maker = _Maker(conversation, seed, at, thread, index)
        yield from maker.events(turn)


def occurrences(turns: Sequence[Turn], begins_at: int) -> list[int]:
    """When each turn occurred, ms UTC.

    Without any time: `begins_at` plus a second a turn. With some: a turn without one comes 1 ms behind the turn before
    it, and turns ahead of the first known time lie a second apart before it. Known times are never changed.
    """
    first = next((index for index, turn in enumerate(turns) if turn.at is not None), None)
    if first is None:
        return [begins_at + 1000 * index for index in range(len(turns))]
    known = turns[first].at or 0
    moments = [known - 1000 * (first - index) for index in range(first)]
    for turn in turns[first:]:
        moments.append(turn.at if turn.at is not None else moments[-1] + 1)
    return moments


def _digest_text(turn: Turn) -> str:
    calls = [[call.call_id, call.tool_name, call.arguments] for call in turn.calls]
    return orjson.dumps([turn.text, turn.call_id, turn.tool_name, calls, list(turn.parts)]).decode()


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes the events of one turn and moves the thread on."""

    conversation: Conversation
    seed: list[str]
    at: int
    thread: _Thread
    index: int

    def events(self, turn: Turn) -> Iterator[JsonObject]:
        if turn.role == "assistant":
            yield from self._assistant(turn)
        elif turn.role == "tool":
            yield from self._result(turn)
        elif turn.role == "user":
            draft = replace(self._message("user.message", turn), caused_by=tuple(self.thread.assistant), origin="user")
            yield from self._emit(draft, self.thread.pending)
        else:
            kind = "system.message" if turn.role == "system" else f"system.{type_word(turn.name)}"
            draft = replace(self._message(kind, turn), origin="system")
            causes = () if turn.role == "system" else self.thread.prompts
            yield from envelopes_of(replace(draft, caused_by=causes))

    def _assistant(self, turn: Turn) -> Iterator[JsonObject]:
        prompts, said = self.thread.prompts, list[str]()
        self.thread.pending.clear()
        self.thread.assistant.clear()
        if turn.text or turn.parts or not turn.calls:
            yield from self._emit(replace(self._message("agent.message", turn), caused_by=prompts), said)
        for number, call in enumerate(turn.calls):
            payload: JsonObject = {"tool_call_id": call.call_id, "arguments": call.arguments}
            if call.inferred:
                payload["inferred"] = "the transcript shows the result of this call, not the call"
            draft = replace(
                self._draft("tool.call", "arguments", payload, f"call-{number}"),
                caused_by=tuple(said) or prompts,
                tool_name=call.tool_name,
            )
            ids: list[str] = []
            yield from self._emit(draft, ids)
            self.thread.calls.append(_OpenCall(self.index, call, ids[-1]))
            self.thread.assistant.append(ids[-1])
        self.thread.assistant[:0] = said if not turn.calls else []

    def _result(self, turn: Turn) -> Iterator[JsonObject]:
        call = self.thread.answer(turn)
        text = turn.text
        payload: JsonObject = {
            "tool_call_id": turn.call_id,
            "result": parsed_json(text) if text is not None else None,
        }
        if turn.parts:
            payload["parts"] = list(turn.parts)
        failed = turn.failed if turn.failed is not None else (text or "").startswith("Error")
        status: Status = "failed" if failed else "completed"
        draft = replace(
            self._draft("tool.result", "result", payload, "result"),
            caused_by=(call.event_id,) if call is not None else self.thread.prompts,
            tool_name=turn.tool_name or (call.call.tool_name if call is not None else None),
            status=status,
            origin="tool",
        )
        yield from self._emit(draft, self.thread.pending)

    def _message(self, event_type: str, turn: Turn) -> Draft:
        payload: JsonObject = {"text": turn.text or ""}
        if turn.parts:
            payload["parts"] = list(turn.parts)
        if turn.reasoning:
            payload["reasoning"] = turn.reasoning
        return self._draft(event_type, "text", payload, "message")

    def _draft(self, event_type: str, content: str, payload: JsonObject, part: str) -> Draft:
        return Draft(
            event_id=derived_id(*self.seed, part),
            event_type=event_type,
            session_id=self.conversation.session_id,
            agent_id=self.conversation.agent_id,
            user_id=self.conversation.user_id,
            occurred_at=self.at,
            origin="agent",
            content=content,
            payload=payload,
        )

    @staticmethod
    def _emit(draft: Draft, into: list[str]) -> Iterator[JsonObject]:
        """The draft's envelopes; the id of the last goes `into`, so that what follows reaches all of its parts."""
        last = draft.event_id
        for envelope in envelopes_of(draft):
            last = str(envelope["event_id"])
            yield envelope
        into.append(last)
