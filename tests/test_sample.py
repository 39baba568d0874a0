"""The sample is what its description says: a story of two agents whose events hang together."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from importlib.resources import files
from itertools import pairwise

import orjson
import pytest

from context_graph.domain.event import Envelope
from context_graph.ingest.validation import Validator
from context_graph.settings import LedgerSettings

_FOLDER = files("context_graph.local").joinpath("sample")
# For each question the sessions that its answer needs, and events that hold it.
_EVIDENCE = {
    "Why was Nadia Brandt refunded twice for order LF-20817?": (
        {"support-nadia-0824", "support-nadia-0902"},
        {"nadia-0824-13", "nadia-0824-20", "nadia-0902-11", "nadia-0902-20"},
    ),
    "What did we promise Ingrid Solheim about her stove, and did we keep it?": (
        {"support-ingrid-0827", "support-ingrid-0904"},
        {"ingrid-0827-31", "ingrid-0827-36", "ingrid-0904-10", "ingrid-0904-14"},
    ),
    "What caused the double charges in the checkout and how was it fixed?": (
        {"support-tomas-0824", "coding-checkout-0825"},
        {"tomas-0824-29", "chk412-07", "chk412-31", "chk412-36", "chk412-72"},
    ),
}


@pytest.fixture(scope="module")
def events() -> list[Envelope]:
    """Every event of the sample in file order, through the service's own gate."""
    validator = Validator(LedgerSettings(), lambda: int(datetime.now(UTC).timestamp() * 1000))
    lines = [line for name in ("support", "coding") for line in _lines(name)]
    return [validator.envelope(orjson.loads(line)) for line in lines]


def _lines(name: str) -> list[bytes]:
    return _FOLDER.joinpath(f"{name}.ndjson").read_bytes().splitlines()


def test_it_has_two_agents_in_seven_sessions_over_twelve_days(events: list[Envelope]) -> None:
    assert 220 <= len(events) <= 300
    assert {event.agent_id for event in events} == {"larkfield-support", "checkout-coder"}
    assert len({event.session_id for event in events}) == 7
    days = [datetime.fromtimestamp(event.occurred_at / 1000, UTC).date() for event in events]
    assert (min(days).isoformat(), max(days).isoformat()) == ("2026-08-24", "2026-09-04")


def test_ids_are_unique_and_every_cause_is_in_the_sample(events: list[Envelope]) -> None:
    by_id = {event.event_id: event for event in events}
    assert len(by_id) == len(events)
    for event in events:
        for cause in event.causes:
            assert by_id[cause].occurred_at <= event.occurred_at, f"{event.event_id} before its cause {cause}"


def test_every_call_has_its_result_and_every_result_ends(events: list[Envelope]) -> None:
    calls = {event.event_id: event for event in events if event.event_type == "tool.call"}
    results = [event for event in events if event.event_type == "tool.result"]
    assert sorted(result.causes[0] for result in results) == sorted(calls)
    for result in results:
        assert result.tool_name == calls[result.causes[0]].tool_name
        assert result.ended_at is not None and result.ended_at > result.occurred_at
        assert result.status in {"completed", "failed", "timeout"}


def test_it_has_failures_decisions_handovers_and_people(events: list[Envelope]) -> None:
    kinds = Counter(event.event_type for event in events)
    assert kinds["tool.result"] >= 80
    assert kinds["user.message"] >= 20 and kinds["agent.message"] >= 30
    assert kinds["agent.decision"] >= 20 and kinds["agent.handover"] == 2
    statuses = Counter(event.status for event in events)
    assert statuses["timeout"] == 2 and statuses["failed"] >= 8
    assert {event.user_id for event in events} >= {"nadia-brandt", "tomas-rivera", "ingrid-solheim"}
    assert all(event.trace_id for event in events)
    assert 30 <= sum(event.importance_hint is not None for event in events) < len(events) / 2
    for event in events:
        if event.event_type == "agent.decision":
            assert isinstance(event.payload, dict) and event.payload["decision"] and event.payload["reason"]


def test_causes_cross_sessions_and_agents(events: list[Envelope]) -> None:
    by_id = {event.event_id: event for event in events}
    pairs = [(event, by_id[cause]) for event in events for cause in event.causes]
    assert sum(event.session_id != cause.session_id for event, cause in pairs) >= 10
    handed = [event for event, cause in pairs if cause.event_type == "agent.handover"]
    assert any(event.agent_id == "checkout-coder" for event in handed)


def test_an_effect_arrives_before_its_cause_and_the_rest_in_order_of_occurrence(events: list[Envelope]) -> None:
    place = {event.event_id: index for index, event in enumerate(events)}
    early = [(e.event_id, c) for e in events for c in e.causes if place[c] > place[e.event_id]]
    assert ("tomas-0824-30", "tomas-0824-29") in early
    for name in ("support", "coding"):
        times = [orjson.loads(line)["occurred_at"] for line in _lines(name)]
        assert sum(later < earlier for earlier, later in pairwise(times)) == 1


def test_no_text_is_said_twice(events: list[Envelope]) -> None:
    texts = [
        str(event.payload["text"]) for event in events if isinstance(event.payload, dict) and "text" in event.payload
    ]
    assert max(Counter(texts).values()) == 1
    assert all(len(text) > 8 for text in texts)


def test_each_question_needs_several_sessions(events: list[Envelope]) -> None:
    by_id: dict[str, Envelope] = {event.event_id: event for event in events}
    questions = orjson.loads(_FOLDER.joinpath("questions.json").read_bytes())
    assert [question["question"] for question in questions] == list(_EVIDENCE)
    for sessions, evidence in _EVIDENCE.values():
        assert len(sessions) > 1
        assert {by_id[event_id].session_id for event_id in evidence} == sessions
