"""The quick way through the gate takes nothing that the whole gate refuses, and makes the same bytes of the rest."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from context_graph.domain.event import ORIGINS, STATUSES, iso
from context_graph.errors import InvalidInput
from context_graph.ingest.quick_check import quick_check, quick_ms
from context_graph.ingest.validation import Validator
from context_graph.settings import LedgerSettings
from context_graph.store import codec
from tests.benchmarks.workload import Workload
from tests.laws.strategies import JSON

_NOW = 1_790_000_000_000
_GATE = Validator(LedgerSettings(max_payload_bytes=1024), lambda: _NOW)
_LATEST = _GATE.latest_ms()

_ODD: st.SearchStrategy[Any] = st.sampled_from(
    [
        None, "", " ", "x" * 128, "x" * 129, "x" * 256, "x" * 257, "x" * 1000, "x" * 1023, "a\nb", "a\x7f", "\xa0",
        "ü", "\U0001f600", "\ud800", 0, 1, 10, 11, 10_000, 10_001, 2**70, -1, 1.0, True, False, [], ["e2"], ["e1"],
        ["e2", 3], ["x"] * 65, [""], {}, "summary:1", "memory.summary", "memory.note", "User.message", "user",
        "user.message\n", "derived", "done", "e1", "2026-09-01", "2026-09-01T09:30:00", "2026-09-01T09:30:00+02:00",
        "2026-09-01t09:30:00z", "2026-09-01 09:30:00Z", "2026-09-01T09:30:60Z", "2026-09-01T24:00:00Z",
        "2026-02-30T09:30:00Z", "2026-09-01T09:30:00.1Z", "2026-09-01T09:30:00.123Z", "2026-09-01T09:30:00,123Z",
        "2026-09-01T09:30:0\u0663Z", "1969-12-31T23:59:59Z", "1970-01-01T00:00:00Z", "2126-09-01T09:30:00Z",
        "2026-09-01T09:60:00Z", "2026-09-01T09:30:+1Z", "2026-09-01T09:30: 1Z",
    ]
)  # fmt: skip
_TIME = st.integers(0, _LATEST + 5000).map(lambda ms: iso(ms) if ms % 3 else iso(ms)[:-5] + "Z")
_NAMES = (
    "event_type", "session_id", "agent_id", "occurred_at", "event_id", "trace_id", "user_id", "parent_event_id",
    "caused_by", "tool_name", "ended_at", "status", "schema_version", "importance_hint", "origin", "payload",
    "payload_ref", "position", "",
)  # fmt: skip
_PLAIN = st.fixed_dictionaries(
    {
        "event_type": st.sampled_from(["user.message", "tool.result", "a.b-c.d_e"]),
        "session_id": st.just("s1"),
        "agent_id": st.just("support"),
        "occurred_at": _TIME,
        "event_id": st.just("e1"),
    },
    optional={
        "user_id": st.sampled_from(["nadia", None]),
        "parent_event_id": st.just("e0"),
        "caused_by": st.lists(st.sampled_from(["e0", "e2"]), max_size=3),
        "tool_name": st.just("refund"),
        "ended_at": _TIME,
        "status": st.sampled_from(STATUSES),
        "schema_version": st.integers(1, 3),
        "importance_hint": st.integers(1, 10),
        "origin": st.sampled_from(ORIGINS),
        "payload": JSON,
    },
)


def whole(raw: object) -> bytes | None:
    """What the whole gate makes of it; None when it refuses."""
    try:
        return codec.encode(_GATE.envelope(raw))
    except InvalidInput:
        return None


@settings(max_examples=400)
@given(
    raw=_PLAIN,
    odd=st.dictionaries(st.sampled_from(_NAMES), _ODD, max_size=2),
    left_out=st.sets(st.sampled_from(_NAMES), max_size=1),
)
def test_whatever_the_quick_way_takes_the_whole_gate_takes_with_the_same_bytes(
    raw: dict[str, Any], odd: dict[str, Any], left_out: set[str]
) -> None:
    event = {name: value for name, value in (raw | odd).items() if name not in left_out}
    before = dict(event)
    found = quick_check(event, _LATEST, _GATE.settings.max_payload_bytes)
    assert event == before
    if found is not None:
        assert found.body == whole(event)
        stored = codec.decode(found.body)
        assert (found.event_id, found.session_id, found.event_type) == (
            stored.event_id, stored.session_id, stored.event_type
        )  # fmt: skip
        assert (found.schema_version, found.payload_ref) == (stored.schema_version, stored.payload_ref)
        assert codec.canonical_json(found.payload) == codec.canonical_json(stored.payload)


@given(raw=_PLAIN)
def test_an_ordinary_event_takes_the_quick_way(raw: dict[str, Any]) -> None:
    body = whole(raw)
    if body is not None and len(body) <= _GATE.settings.max_payload_bytes:
        assert quick_check(raw, _LATEST, _GATE.settings.max_payload_bytes) is not None


@given(raw=st.none() | st.integers() | st.text() | st.lists(JSON) | JSON)
def test_what_is_no_event_is_left_to_the_whole_gate(raw: object) -> None:
    assert quick_check(raw, _LATEST, 10_000) is None


@pytest.mark.parametrize(("levels", "quick"), [(100, True), (300, False)])
def test_a_payload_that_nests_deep_is_left_to_the_whole_gate(levels: int, quick: bool) -> None:
    payload: Any = 1
    for _ in range(levels):
        payload = [payload]
    (raw,) = Workload(("one sentence",)).events(1, "n")
    assert (quick_check(raw | {"payload": payload}, _LATEST, 10_000) is not None) is quick


@given(ms=st.integers(0, 4_102_444_800_000))
def test_times_are_read_to_the_millisecond(ms: int) -> None:
    assert quick_ms(iso(ms)) == ms


@given(raw=_PLAIN)
def test_an_event_without_an_id_gets_one_and_is_otherwise_the_same(raw: dict[str, Any]) -> None:
    nameless = {name: value for name, value in raw.items() if name != "event_id"}
    try:
        checked = _GATE.checked(nameless, _LATEST)
    except InvalidInput:
        assert whole(nameless) is None
        return
    assert UUID(checked.event_id).version == 7
    assert checked.body == whole(nameless | {"event_id": checked.event_id})
