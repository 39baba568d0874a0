"""Importance, entities and keywords by rule."""

from __future__ import annotations

from itertools import pairwise

import pytest

from context_graph.domain.event import Envelope, EventId, JsonValue, SessionId, Status
from context_graph.domain.keywords import MAX_KEYWORDS, keywords_of
from context_graph.models.recogniser import Span
from enrichment.entities import MAX_MENTIONS, find_mentions
from enrichment.importance import importance_of


def rated(event_type: str, payload: JsonValue, *, status: Status | None = None, hint: int | None = None) -> int:
    return importance_of(
        Envelope(
            event_id=EventId("e"),
            event_type=event_type,
            session_id=SessionId("s"),
            agent_id="a",
            occurred_at=0,
            payload=payload,
            status=status,
            importance_hint=hint,
        )
    )


def test_the_callers_hint_wins() -> None:
    assert rated("user.message", {"text": "hi"}, hint=9) == 9


def test_failures_rate_above_successes() -> None:
    assert rated("tool.result", {"content": "done"}) < rated("tool.result", {"content": "done"}, status="failed")
    assert rated("tool.result", {"error": "boom"}) == rated("tool.result", {"content": "Error: boom"}) == 7


def test_decisions_and_handovers_rate_above_messages() -> None:
    message = rated("agent.message", {"text": "I looked at the order and it is on its way."})
    assert rated("agent.decision", {"decision": "replace the item"}) > message
    assert rated("agent.handover", {"to": "billing", "why": "needs an approval"}) > message


@pytest.mark.parametrize(
    "words", ["Hi!", "Hello there", "Thanks a lot!", "ok", "Yes, sounds good.", "Thank you so much"]
)
def test_greetings_and_acknowledgements_rate_low(words: str) -> None:
    assert rated("user.message", {"text": words}) == 2


def test_what_asks_for_action_rates_above_small_talk_and_plain_messages() -> None:
    plain = rated("user.message", {"text": "I flew to Rome in spring."})
    assert rated("user.message", {"text": "I want a refund, this is urgent."}) == plain + 1


@pytest.mark.parametrize("status", [None, "failed", "completed"])
def test_ratings_stay_between_one_and_ten(status: Status | None) -> None:
    for event_type in ("system.error", "agent.decision", "user.message", "x", "tool.call"):
        assert 1 <= rated(event_type, {"error": "urgent"}, status=status) <= 10
        assert 1 <= rated(event_type, None, status=status) <= 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mail mia.li3818@example.com now", "email:mia.li3818@example.com"),
        ("see https://x.io/a?b=1.", "url:https://x.io/a?b=1"),
        ("in src/auth/token.py, line 3", "path:src/auth/token.py"),
        ("open /var/log/app.log please", "path:/var/log/app.log"),
        ("edit pyproject.toml", "path:pyproject.toml"),
        ("order #W7209932 is late", "id:w7209932"),
        ("flight HAT136 leaves", "id:hat136"),
        ("reservation XEWRD9", "id:xewrd9"),
        ("The reservation id is IFOYYZ.", "id:ifoyyz"),
        ("I am mia_li_3668", "id:mia_li_3668"),
        ("ticket PROJ-1234", "id:proj-1234"),
        ("commit 3f2a9bc broke it", "id:3f2a9bc"),
        ("a TypeError was raised", "error:typeerror"),
        ("got ECONNREFUSED", "error:econnrefused"),
        ("HTTP 503 again", "error:http 503"),
        ("since v2.14.0", "version:v2.14.0"),
        ("call parse_token() first", "symbol:parse_token"),
        ("it costs $1,200.50 in all", "money:$1200.50"),
        ("due 2026-05-20", "date:2026-05-20"),
        ("at 10.0.0.1:8080", "host:10.0.0.1:8080"),
    ],
)
def test_names_with_a_form_are_found_by_rule(text: str, expected: str) -> None:
    (mention,) = find_mentions(text, [])
    assert mention.entity_id == expected
    assert text[mention.start : mention.end] == mention.name


def test_a_rule_overrules_the_recogniser_and_noise_is_dropped() -> None:
    text = "Mia's order #W7209932 of the Acme Corp came in three boxes, 40% broken"
    spans = [
        Span("Mia's", "PERSON", 0, 5),
        Span("#W7209932", "ORG", 12, 21),
        Span("the Acme Corp", "ORG", 25, 38),
        Span("three", "CARDINAL", 47, 52),
        Span("40%", "PERCENT", 60, 63),
    ]
    assert [m.entity_id for m in find_mentions(text, spans)] == ["person:mia", "id:w7209932", "org:acme corp"]


def test_a_bare_acronym_has_one_id_whatever_the_recogniser_takes_it_for() -> None:
    person = find_mentions("ask QXV", [Span("QXV", "PERSON", 4, 7)])
    place = find_mentions("ask QXV", [Span("QXV", "GPE", 4, 7)])
    assert person == place
    assert person[0].entity_id == "acronym:qxv"


def test_the_tool_and_the_agent_are_known_by_name() -> None:
    found = find_mentions("book-flight failed, ask billing-bot", [], tool_name="book-flight", agent_id="billing-bot")
    assert [m.entity_id for m in found] == ["tool:book-flight", "agent:billing-bot"]


def test_mentions_are_bounded_and_do_not_overlap() -> None:
    found = find_mentions(" ".join(f"src/m{i}/f{i}.py" for i in range(300)), [])
    assert len(found) == MAX_MENTIONS
    assert all(left.end <= right.start for left, right in pairwise(found))


def test_keywords_are_what_a_text_is_about() -> None:
    text = "The payment method failed. I will use another payment method, the gift card, for reservation HAT136."
    words = keywords_of(text)
    assert words[0] == "payment method"
    assert {"hat136", "reservation"} <= set(words)
    assert not {"the", "will", "payment"} & set(words)
    assert len(words) <= MAX_KEYWORDS


def test_a_text_without_words_has_no_keywords() -> None:
    assert keywords_of("255.0 -- !?") == ()
