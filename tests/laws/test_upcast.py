"""Laws of upcasting: total, idempotent at the newest, chains compose, identity and order never change."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from context_graph.domain.event import Envelope, JsonValue, LedgerEvent, TenantId
from context_graph.domain.position import Position
from context_graph.domain.upcast import UPCASTERS, Upcaster, Upcasters
from tests.laws.strategies import ENVELOPES


def _text_in_an_object(payload: JsonValue) -> JsonValue:
    return payload if isinstance(payload, dict) else {"text": payload}


def _named_body(payload: JsonValue) -> JsonValue:
    return {"body": payload}


def _call_in_arguments(payload: JsonValue) -> JsonValue:
    return {"arguments": payload}


TABLE = Upcasters(
    (
        Upcaster("user.message", 1, _text_in_an_object),
        Upcaster("user.message", 2, _named_body),
        Upcaster("tool.*", 1, _call_in_arguments),
        Upcaster("tool.result", 1, _named_body),
    )
)
_NEWEST = {"user.message": 3, "agent.message": 1, "tool.call": 2, "tool.result": 2}


def _event(envelope: Envelope) -> LedgerEvent:
    return LedgerEvent(TenantId("default"), Position(0, 1_700_000_000_000, 0), envelope)


@given(ENVELOPES, st.sampled_from([UPCASTERS, TABLE]))
def test_every_stored_version_has_a_newest_and_the_newest_stays(envelope: Envelope, table: Upcasters) -> None:
    newest = table.newest(_event(envelope))
    assert table.step(newest.envelope.event_type, newest.envelope.schema_version) is None
    assert table.newest(newest) == newest


@given(ENVELOPES)
def test_only_payload_and_version_change_and_the_stored_version_is_told(envelope: Envelope) -> None:
    newest = TABLE.newest(_event(envelope))
    version = max(envelope.schema_version, _NEWEST[envelope.event_type])
    assert newest.envelope.schema_version == version
    assert newest.stored_schema_version == (envelope.schema_version if version > envelope.schema_version else None)
    same = replace(newest.envelope, payload=envelope.payload, schema_version=envelope.schema_version)
    assert same == envelope
    assert newest.position == _event(envelope).position


@given(ENVELOPES)
def test_chains_compose_step_by_step(envelope: Envelope) -> None:
    first = replace(envelope, event_type="user.message", schema_version=1)
    second = replace(first, payload=_text_in_an_object(first.payload), schema_version=2)
    assert TABLE.newest(_event(first)).envelope == TABLE.newest(_event(second)).envelope
    assert TABLE.newest(_event(first)).stored_schema_version == 1


def test_a_row_for_the_very_type_goes_before_one_for_a_pattern() -> None:
    result = Envelope(
        event_id="e", event_type="tool.result", session_id="s", agent_id="a", occurred_at=0, payload=1,  # type: ignore[arg-type]
    )  # fmt: skip
    assert TABLE.newest(_event(result)).envelope.payload == {"body": 1}
    assert TABLE.newest(_event(replace(result, event_type="tool.call"))).envelope.payload == {"arguments": 1}
    assert TABLE.newest(_event(replace(result, event_type="toolbox.call"))).envelope.payload == 1


def test_two_rows_from_the_same_version_are_refused() -> None:
    with pytest.raises(ValueError, match="same version"):
        Upcasters((Upcaster("a.b", 1, _named_body), Upcaster("a.b", 1, _named_body)))
