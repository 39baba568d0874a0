"""Claude Code sessions (JSON Lines, one entry a line) as events.

An entry's uuid is the event's id, its further content blocks get ids of their own from it. A tool's result is caused by
its call; everything else by its parent entry, through entries that became no event. A sub-agent's entries carry the
sub-agent's id as their agent and hang on an `agent.started` event, whose id both files can tell: the main session,
which has the call, and the sub-agent's own, in whatever order they come.

What is skipped is counted with its reason: hooks and partial outputs say nothing that the entries do not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from context_graph.domain.event import JsonValue, Origin
from context_graph.ingest.transcript_envelopes import (
    Draft,
    JsonObject,
    derived_id,
    envelopes_of,
    moment_of,
    parsed_json,
    type_word,
)
from context_graph.ingest.transcript_turns import text_and_parts

_KINDS = frozenset(("user", "assistant", "system", "progress", "summary", "queue-operation", "file-history-snapshot"))
# Members of every entry that say where it stands, not what it holds.
_WIRE = frozenset(
    "type subtype uuid parentUuid logicalParentUuid sessionId timestamp isSidechain userType cwd version gitBranch "
    "agentId slug isMeta level requestId toolUseID parentToolUseID content entrypoint".split()
)
_SUB_AGENT_PROGRESS = "agent_progress"
_DEFAULT_AGENT = "claude-code"


def is_claude_entry(record: JsonObject) -> bool:
    """Whether a record looks like a line of a Claude Code session."""
    return isinstance(record.get("type"), str) and (
        ("sessionId" in record and ("uuid" in record or "timestamp" in record))
        or record.get("type") in ("file-history-snapshot", "summary")
    )


@dataclass(slots=True, kw_only=True)
class ClaudeSession:
    """The state of one file: entries seen, the event that stands for each, the calls still open.

    `sub_agents` are those with a file of their own: their progress reports here would only repeat it.
    """

    session: str | None
    agent: str | None
    user: str | None
    stem: str
    skipped: Counter[str]
    sub_agents: frozenset[str] = frozenset()
    _stands_for: dict[str, str | None] = field(default_factory=dict)
    _calls: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    _started: set[str] = field(default_factory=set)
    _last_at: int = 0

    def events(self, entry: JsonObject) -> Iterator[JsonObject]:
        """The events of one entry; none when it is skipped, which is counted."""
        uuid = entry.get("uuid")
        if isinstance(uuid, str) and uuid in self._stands_for:
            self.skipped["entries that are repeated (the same uuid)"] += 1
            return
        parent = self._parent(entry)
        last: str | None = None
        for envelope in self._of_kind(entry, parent):
            last = str(envelope["event_id"])
            yield envelope
        if isinstance(uuid, str):
            self._stands_for[uuid] = last or parent

    def _of_kind(self, entry: JsonObject, parent: str | None) -> Iterator[JsonObject]:
        kind = entry.get("type")
        if kind in ("user", "assistant") and isinstance(entry.get("message"), dict):
            yield from self._message(entry, parent)
        elif kind == "progress":
            yield from self._progress(entry, parent)
        elif kind == "file-history-snapshot":
            self.skipped["file-history-snapshot entries: the editor's backups, no content"] += 1
        elif moment_of(entry.get("timestamp")) is None and not self._last_at:
            self.skipped[f"{kind} entries without a time"] += 1
        else:
            yield from self._system(entry, parent)

    def _parent(self, entry: JsonObject) -> str | None:
        """The event that an entry follows from; a sub-agent's first entry follows from that agent's start."""
        named = entry.get("parentUuid") or entry.get("logicalParentUuid")
        if isinstance(named, str):
            return self._stands_for.get(named, named)
        agent = entry.get("agentId")
        return self._start_id(entry, agent) if isinstance(agent, str) else None

    def _start_id(self, entry: JsonObject, agent: str) -> str:
        return derived_id("claude-code", str(entry.get("sessionId")), agent, "started")

    def _message(self, entry: JsonObject, parent: str | None) -> Iterator[JsonObject]:
        message = entry["message"]
        content = message.get("content") if isinstance(message, dict) else None
        listed: list[JsonValue] = content if isinstance(content, list) else [content]
        blocks: list[JsonObject] = [
            item if isinstance(item, dict) else {"type": "text", "text": item} for item in listed
        ]
        yield from self._sub_agent_start(entry)
        previous = parent
        for number, block in enumerate(blocks):
            draft = self._of_block(entry, block, number)
            if draft is None:
                continue
            if not draft.caused_by and previous is not None:
                draft = replace(draft, caused_by=(previous,))
            for envelope in envelopes_of(draft):
                yield envelope
                previous = str(envelope["event_id"])
            if draft.event_type == "tool.call":
                call_id = str(draft.payload["tool_call_id"])
                self._calls.setdefault(call_id, []).append((str(previous), draft.tool_name or ""))

    def _of_block(self, entry: JsonObject, block: JsonObject, number: int) -> Draft | None:
        kind = block.get("type")
        if kind == "tool_use":
            payload: JsonObject = {"tool_call_id": block.get("id"), "arguments": block.get("input")}
            name = block.get("name")
            draft = self._draft(entry, "tool.call", payload, content="arguments", origin="agent", number=number)
            return replace(draft, tool_name=name if isinstance(name, str) else None)
        if kind == "tool_result":
            return self._result(entry, block, number)
        text, parts = text_and_parts([block])
        if kind == "thinking":
            text, parts = str(block.get("thinking") or ""), ()
        if not (text or "").strip() and not parts:
            self.skipped["messages without any text"] += 1
            return None
        message: JsonObject = {"text": text or ""}
        if parts:
            message["parts"] = list(parts)
        event_type, origin = self._kind_of_message(entry, kind == "thinking")
        return self._draft(entry, event_type, message, content="text", origin=origin, number=number)

    @staticmethod
    def _kind_of_message(entry: JsonObject, thinking: bool) -> tuple[str, Origin]:
        if entry.get("type") == "assistant":
            return ("agent.thinking" if thinking else "agent.message"), "agent"
        # Reminders and summaries that the program writes in the user's name.
        if entry.get("isMeta") is True or entry.get("isCompactSummary") is True:
            return "system.message", "system"
        # A sub-agent's user is the agent that started it.
        return "user.message", "agent" if entry.get("isSidechain") is True else "user"

    def _result(self, entry: JsonObject, block: JsonObject, number: int) -> Draft:
        call_id = str(block.get("tool_use_id"))
        known = self._calls.get(call_id, [])
        call = known.pop() if len(known) > 1 else (known[0] if known else None)
        text, parts = text_and_parts(block.get("content"))
        payload: JsonObject = {"tool_call_id": call_id, "result": parsed_json(text) if text is not None else None}
        if parts:
            payload["parts"] = list(parts)
        failed = block.get("is_error") is True or (text or "").startswith("Error")
        return replace(
            self._draft(entry, "tool.result", payload, content="result", origin="tool", number=number),
            tool_name=(call[1] or None) if call is not None else None,
            caused_by=(call[0],) if call is not None else (),
            status="failed" if failed else "completed",
        )

    def _progress(self, entry: JsonObject, parent: str | None) -> Iterator[JsonObject]:
        data = entry.get("data")
        report = data if isinstance(data, dict) else {}
        inner, agent = report.get("message"), report.get("agentId")
        if report.get("type") != _SUB_AGENT_PROGRESS or not isinstance(inner, dict) or not isinstance(agent, str):
            self.skipped[f"progress entries ({report.get('type')}): a hook or a partial output"] += 1
            return
        yield from self._start(entry, agent, report.get("prompt"))
        if agent in self.sub_agents:
            self.skipped["progress entries of a sub-agent whose own file lies beside this one: ingest that too"] += 1
            return
        uuid = inner.get("uuid")
        if isinstance(uuid, str) and uuid in self._stands_for:
            self.skipped["entries that are repeated (the same uuid)"] += 1
            return
        first = self._start_id(entry, agent)
        said = entry | inner | {"agentId": agent, "isSidechain": True}
        standing = self._stands_for.get(f"agent {agent}") or first
        last: str | None = None
        for envelope in self._message(said, standing):
            last = str(envelope["event_id"])
            yield envelope
        self._stands_for[f"agent {agent}"] = last or standing
        if isinstance(uuid, str):
            self._stands_for[uuid] = last or parent

    def _sub_agent_start(self, entry: JsonObject) -> Iterator[JsonObject]:
        """The start of a sub-agent that only the answer to its call names."""
        result = entry.get("toolUseResult")
        agent = result.get("agentId") if isinstance(result, dict) else None
        if isinstance(agent, str) and isinstance(result, dict):
            yield from self._start(entry, agent, result.get("prompt"))

    def _start(self, entry: JsonObject, agent: str, prompt: object) -> Iterator[JsonObject]:
        if agent in self._started:
            return
        self._started.add(agent)
        payload: JsonObject = {"text": str(prompt or ""), "agent": agent}
        call = self._calls.get(str(entry.get("parentToolUseID") or self._answered_call(entry)))
        draft = replace(
            self._draft(entry, "agent.started", payload, content="text", origin="agent"),
            event_id=self._start_id(entry, agent),
            caused_by=(call[-1][0],) if call else (),
        )
        yield from envelopes_of(draft)

    @staticmethod
    def _answered_call(entry: JsonObject) -> str | None:
        message = entry.get("message")
        content = message.get("content") if isinstance(message, dict) else None
        for block in content if isinstance(content, list) else ():
            if isinstance(block, dict) and block.get("type") == "tool_result":
                return str(block.get("tool_use_id"))
        return None

    def _system(self, entry: JsonObject, parent: str | None) -> Iterator[JsonObject]:
        name = entry.get("subtype") if entry.get("type") == "system" else entry.get("type")
        payload: JsonObject = {key: value for key, value in entry.items() if key not in _WIRE}
        text = entry.get("content") if isinstance(entry.get("content"), str) else entry.get("summary")
        payload["text"] = text if isinstance(text, str) else ""
        event_type = f"system.{type_word(str(name or 'message'))}"
        draft = self._draft(entry, event_type, payload, content="text", origin="system")
        yield from envelopes_of(replace(draft, caused_by=(parent,) if parent is not None else ()))

    def _draft(
        self, entry: JsonObject, event_type: str, payload: JsonObject, *, content: str, origin: Origin, number: int = 0
    ) -> Draft:
        uuid, session = entry.get("uuid"), entry.get("sessionId")
        session_id = str(session) if isinstance(session, str) else self.stem
        moment = moment_of(entry.get("timestamp"))
        self._last_at = moment if moment is not None else self._last_at
        own = uuid if isinstance(uuid, str) else derived_id("claude-code", session_id, _fingerprint(entry))
        agent = entry.get("agentId")
        return Draft(
            event_id=own if number == 0 else derived_id(own, "block", str(number)),
            event_type=event_type,
            session_id=self.session or session_id,
            agent_id=agent if isinstance(agent, str) else self.agent or _DEFAULT_AGENT,
            user_id=self.user,
            occurred_at=self._last_at,
            origin=origin,
            content=content,
            payload=payload,
        )


def _text_block(text: JsonValue) -> JsonObject:
    return {"type": "text", "text": text}


def _fingerprint(entry: JsonObject) -> str:
    return "\n".join(f"{key}={entry[key]}" for key in sorted(entry))
