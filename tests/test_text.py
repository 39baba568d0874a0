"""What of an event is searched: content, readable, bounded, and whose words they are."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from context_graph.domain.event import Envelope, EventId, JsonValue, LedgerEvent, SessionId, TenantId
from context_graph.domain.position import Position
from context_graph.domain.text import MAX_TEXT, document_of, indexed, name_parts, searchable


def envelope(event_type: str, payload: JsonValue, *, tool_name: str | None = None) -> Envelope:
    return Envelope(
        event_id=EventId("e1"),
        event_type=event_type,
        session_id=SessionId("s1"),
        agent_id="support",
        occurred_at=1_700_000_000_000,
        payload=payload,
        tool_name=tool_name,
    )


def text_of(event_type: str, payload: JsonValue, *, tool_name: str | None = None) -> str:
    return searchable(envelope(event_type, payload, tool_name=tool_name)).text


@pytest.mark.parametrize("key", ["text", "content", "message"])
def test_a_message_is_its_words_and_nothing_else(key: str) -> None:
    assert text_of("user.message", {key: "Where is my order?", "id": "m-1", "channel": "web"}) == "Where is my order?"


def test_a_message_of_parts_is_read_part_by_part() -> None:
    parts: JsonValue = [
        {"type": "text", "text": "Look:"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "tool_use", "id": "t1", "name": "grep", "input": {"pattern": "def main"}},
    ]
    assert text_of("agent.message", {"content": parts}) == "Look:\n[image]\ngrep(pattern: def main)"


def test_the_caption_of_an_image_is_searched_with_its_message() -> None:
    text = text_of("user.message", {"text": "My new dog!", "speaker": "Ann", "image_caption": "a puppy on a sofa"})
    assert text == "My new dog!\n[image: a puppy on a sofa]"


@pytest.mark.parametrize(
    "arguments", [{"user_id": "mia_li_3668", "limit": 5}, '{"user_id": "mia_li_3668", "limit": 5}']
)
def test_a_tool_call_reads_like_a_call_whether_its_arguments_are_json_or_text(arguments: JsonValue) -> None:
    assert (
        text_of("tool.call", {"arguments": arguments}, tool_name="get_user")
        == "get_user(user id: mia_li_3668, limit: 5)"
    )


def test_calls_in_the_chat_form_are_read_like_calls() -> None:
    call: JsonValue = {"id": "c1", "type": "function", "function": {"name": "pay", "arguments": '{"amount": 5}'}}
    assert text_of("agent.message", {"role": "assistant", "content": None, "tool_calls": [call]}) == "pay(amount: 5)"


def test_a_result_in_json_becomes_lines_without_syntax() -> None:
    result = json.dumps({"flight_number": "HAT136", "seats": {"economy": 7}, "stops": [], "credit_card_44": "visa"})
    text = text_of("tool.result", {"content": result, "tool_call_id": "c1"}, tool_name="search")
    assert text == "flight number: HAT136\nseats: (economy: 7)\ncredit_card_44: visa"


def test_a_result_of_zero_is_a_result() -> None:
    assert text_of("tool.result", {"result": 0}, tool_name="count") == "0"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ("user not found", "Error: user not found"),
        ("Error: user not found", "Error: user not found"),
        ({"type": "Timeout", "message": "no answer", "status": 504}, "Error: Timeout: no answer\nstatus: 504"),
    ],
)
def test_an_error_says_what_went_wrong(error: JsonValue, text: str) -> None:
    assert text_of("tool.result", {"error": error}, tool_name="x") == text


def test_a_decision_keeps_everything_it_says() -> None:
    text = text_of(
        "agent.decision", {"decision": "refund", "reason": "late by 3 days", "options": ["refund", "voucher"]}
    )
    assert text == "decision: refund\nreason: late by 3 days\noptions: refund, voucher"


def test_an_event_without_content_is_named_by_its_type_and_tool() -> None:
    assert text_of("tool.call", None, tool_name="ping") == "tool call ping"


@pytest.mark.parametrize(
    ("event_type", "payload", "text"),
    [
        (
            "user.message",
            {"text": "See this", "attachments": [{"title": "bill.pdf"}], "data": {"invoice": "R-17"}},
            "See this\nattachments: (title: bill.pdf)\ndata: (invoice: R-17)",
        ),
        (
            "tool.result",
            {"arguments": {"q": 1}, "result": "found", "text": "a note"},
            "call(q: 1)\nfound\na note",
        ),
        ("agent.message", {"message": {"role": "assistant", "content": "Hello"}}, "Hello"),
        ("agent.message", {"messages": [{"role": "user", "content": "Hi"}, {"role": "tool", "content": "7"}]}, "Hi\n7"),
    ],
)
def test_nothing_that_is_said_is_left_out_nor_is_wire_syntax_taken_in(
    event_type: str, payload: JsonValue, text: str
) -> None:
    assert text_of(event_type, payload) == text


def test_a_long_text_keeps_its_head_and_its_tail() -> None:
    text = text_of("tool.result", {"output": "HEAD " + "x" * 50_000 + " TAIL"}, tool_name="sh")
    assert len(text) <= MAX_TEXT
    assert text.startswith("HEAD")
    assert " … " in text
    assert text.endswith("TAIL")


def test_depth_cannot_exhaust_the_reader() -> None:
    nested: JsonValue = "core"
    for _ in range(900):
        nested = [{"type": "x", "content": nested}]
    assert "core" in text_of("user.message", {"content": nested})


@pytest.mark.parametrize(
    ("event_type", "payload", "tool", "speaker"),
    [
        ("user.message", {"text": "x", "speaker": "Ann"}, None, "Ann"),
        ("user.message", {"text": "x"}, None, "user"),
        ("agent.message", {"content": "x", "role": "assistant"}, None, "assistant"),
        ("agent.message", {"text": "x"}, None, "support"),
        ("tool.call", {"arguments": {}}, "search", "support"),
        ("tool.result", {"content": "x"}, "search", "search"),
        ("system.error", {"error": "x"}, None, "system"),
    ],
)
def test_the_speaker_is_who_said_it(event_type: str, payload: JsonValue, tool: str | None, speaker: str) -> None:
    assert searchable(envelope(event_type, payload, tool_name=tool)).speaker == speaker


def test_receipts_and_feedback_are_not_searched() -> None:
    assert not indexed(envelope("memory.receipt", {}))
    assert not indexed(envelope("memory.feedback", {}))
    assert indexed(envelope("memory.summary", {}))


def test_a_summary_is_a_document_of_its_scope_that_names_the_events_it_cites() -> None:
    payload: JsonValue = {
        "scope": "session/s1",
        "text": "Mia booked a flight.",
        "sentences": [{"text": "Mia booked", "event_ids": ["a", "b"]}, {"text": "a flight.", "event_ids": ["b", "c"]}],
    }
    event = LedgerEvent(TenantId("t"), Position(0, 1, 0), envelope("memory.summary", payload))
    document = document_of(event, 6)
    assert (document.id, document.kind) == ("summary:session/s1", "summary")
    assert (document.text, document.event_ids) == ("Mia booked a flight.", ("a", "b", "c"))


def test_names_are_findable_by_the_words_inside_them() -> None:
    assert name_parts("see src/auth/parse_token.py and getUserName") == "src auth parse token py get user name"


json_values: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(
    payload=json_values,
    event_type=st.sampled_from(["user.message", "tool.call", "tool.result", "system.error", "memory.summary", "x"]),
)
def test_any_payload_has_a_text_within_the_limit(payload: JsonValue, event_type: str) -> None:
    found = searchable(envelope(event_type, payload))
    assert len(found.text) <= MAX_TEXT
    assert found.speaker
