"""How important an event is, 1 to 10, by rule.

The sum of one value from each row, clamped to 1..10; an `importance_hint` of the caller wins over all of it.

| what | value |
|---|---|
| type has decision, handover, handoff, escalation, error, failure (the last such segment counts) | 8 |
| type has summary, preference, feedback | 6 |
| type has result | 4 |
| type has call | 3 |
| other types: user.* 5, agent.* 4, system.* 3, any other | 5 |
| status `failed` or `timeout`, an `error` in the payload, or a tool's text that begins with "error" | +3 |
| … unless the type says error already | 0 |
| not a tool's: words that ask for action or hold for long (urgent, refund, deadline, always, prefer …) | +1 |
| not a tool's: nothing but a greeting, thanks or an acknowledgement | −3 |
| not a tool's: any other text under 12 characters | −1 |

The scale is that of generative agents (Park et al. 2023, section 4.1: 1 mundane, 10 poignant), without the language
model that rates there: the same event always rates the same, and rating costs microseconds.
"""

from __future__ import annotations

import re

from context_graph.domain.event import Envelope
from context_graph.domain.text import Searchable, searchable

_BY_SEGMENT = {
    "decision": 8,
    "handover": 8,
    "handoff": 8,
    "escalation": 8,
    "error": 8,
    "failure": 8,
    "summary": 6,
    "preference": 6,
    "feedback": 6,
    "result": 4,
    "call": 3,
}
_MESSAGE_BY_FIRST = {"user": 5, "agent": 4, "system": 3}
_OTHER = 5
_ERRORS = frozenset(("error", "failure"))
_FAILED = frozenset(("failed", "timeout"))

_WEIGHTY = re.compile(
    r"\b(?:urgent(?:ly)?|asap|immediately|critical|emergency|outage|breach|security|password|refund(?:ed)?|cancel(?:led)?|"
    r"complain(?:t|ed)?|deadline|legal|lawyer|allerg(?:y|ic)|broken|crash(?:ed)?|fail(?:s|ed|ure)?|root cause|"
    r"always|never|prefer(?:s|red|ence)?|remember|important|decided|must not|promise[ds]?)\b",
    re.IGNORECASE,
)
_SMALL_TALK = re.compile(
    r"(?:\W*(?:hi|hello|hey|good (?:morning|afternoon|evening|day)|thanks?(?: you)?(?: so much| very much| a lot)?|thx|"
    r"ok(?:ay)?|yes|yeah|yep|no|nope|sure|great|perfect|cool|nice|alright|got it|sounds good|you'?re welcome|"
    r"no problem|bye|goodbye|have a (?:great|nice|good) day|please|there|everyone|all|again)\b)+\W*",
    re.IGNORECASE,
)


def importance_of(envelope: Envelope, found: Searchable | None = None) -> int:
    """1 to 10, by the table above. `found`: what of the event is searched, where it is known."""
    if envelope.importance_hint is not None:
        return min(max(envelope.importance_hint, 1), 10)
    segments = envelope.event_type.split(".")
    text = (found or searchable(envelope)).text
    score = _by_type(segments) + _by_outcome(envelope, segments, text) + _by_text(text, is_tool=segments[0] == "tool")
    return min(max(score, 1), 10)


def _by_type(segments: list[str]) -> int:
    for segment in reversed(segments):
        if segment in _BY_SEGMENT:
            return _BY_SEGMENT[segment]
    return _MESSAGE_BY_FIRST.get(segments[0], _OTHER)


def _by_outcome(envelope: Envelope, segments: list[str], text: str) -> int:
    has_error = isinstance(envelope.payload, dict) and bool(envelope.payload.get("error"))
    says_error = segments[0] == "tool" and text[:20].lower().startswith(("error", "traceback", "exception"))
    failed = envelope.status in _FAILED or has_error or says_error
    return 3 if failed and _ERRORS.isdisjoint(segments) else 0


def _by_text(text: str, *, is_tool: bool) -> int:
    if is_tool:  # arguments and results: short is normal, and a word in data asks for nothing
        return 0
    if len(text) <= 60 and _SMALL_TALK.fullmatch(text):
        return -3
    if len(text) < 12:
        return -1
    return 1 if _WEIGHTY.search(text) else 0
