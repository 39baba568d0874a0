"""Extractive summaries: verbatim, cited, bounded, in order of occurrence, and the same for the same input."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from context_graph.domain.event import Envelope, EventId, JsonValue, LedgerEvent, SessionId, TenantId
from context_graph.domain.position import Position
from context_graph.domain.text import cited_events, summary_scope
from context_graph.store import codec
from enrichment.importance import importance_of
from enrichment.reconsolidation.plan import ConsolidationPlan, Rules, plan_session
from enrichment.reconsolidation.reading import SessionReading
from enrichment.reconsolidation.sentences import LONGEST, Sentence, most_important, prose, split, terms
from enrichment.reconsolidation.summaries import MOST_CITED, MOST_SENTENCES, choose, joined
from tests.quality.episodes import DATA
from tests.quality.summaries import compared, meetings

RULES = Rules(gap_seconds=1800, sentences=3, min_events=3, max_payload_bytes=256 * 1024)
TALK = [
    "My parcel with order 4711 has not arrived in Lisbon.",
    "I am sorry to hear that. Let me look for the parcel of order 4711.",
    "The carrier lost the parcel between Madrid and Lisbon.",
    "Thanks!",
    "We will refund order 4711 to your card within five days.",
    "By the way, the weather here is lovely today, is it not?",
]


def sentence(text: str, event: int = 0, *, importance: int = 5, index: int = 0) -> Sentence:
    return Sentence(text, f"e{event}", event * 1000, Position(0, event + 1, 0).sort_key, index, importance)


def event(i: int, text: str, **fields: object) -> LedgerEvent:
    envelope = Envelope(
        event_id=EventId(f"e{i}"),
        event_type="user.message",
        session_id=SessionId("order-4711"),
        agent_id="support",
        occurred_at=i * 60_000,
        payload={"text": text},
    )
    return LedgerEvent(TenantId("t"), Position(0, i + 1, 0), replace(envelope, **fields))  # type: ignore[arg-type]


def planned(events: list[LedgerEvent], rules: Rules = RULES) -> ConsolidationPlan | None:
    reading = SessionReading("order-4711")
    reading.add(events, importance_of)
    return plan_session(reading, rules)


def payload_of(plan: ConsolidationPlan | None) -> dict[str, JsonValue]:
    assert plan is not None
    return cast("dict[str, JsonValue]", plan.summary.payload)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It failed on start. Then it ran well enough!", ["It failed on start.", "Then it ran well enough!"]),
        ("Dr. Ada Lovelace wrote to J. Doe about it.", ["Dr. Ada Lovelace wrote to J. Doe about it."]),
        ("1. Check the order number first.\n- call the carrier about it", ["1. Check the order number first.",
                                                                          "call the carrier about it"]),
        ("use version 2.10.5 of the module please", ["use version 2.10.5 of the module please"]),
        ("“It is broken again!” she said to me", ["“It is broken again!”", "she said to me"]),
        ("包裹还没有到。请帮我查一下。", ["包裹还没有到。", "请帮我查一下。"]),
        ("OK. Thanks!", []),
        ('{"id": 1, "tags": ["a", "b"], "size": {"w": 3, "h": 4}}', []),
        ("", []),
    ],
)  # fmt: skip
def test_texts_are_split_where_a_person_would(text: str, expected: list[str]) -> None:
    assert split(text) == expected


@given(st.text(max_size=2000))
def test_what_is_quoted_stands_in_the_text_and_is_bounded(text: str) -> None:
    for piece in split(text):
        assert len(piece) <= LONGEST
        assert piece in text or (piece.endswith("…") and piece[:-1] in text)


def test_words_read_like_prose_and_records_do_not() -> None:
    assert prose("The carrier lost the parcel between Madrid and Lisbon.") > 0.9
    assert prose("flight: HAT083, from: JFK, to: SEA, (economy: 16), (business: 3)") < 0.1
    assert prose("") == 0


def test_what_many_sentences_speak_of_is_chosen_before_an_aside() -> None:
    quotes = choose([sentence(text, i) for i, text in enumerate(TALK)], 3)
    assert "By the way, the weather here is lovely today, is it not?" not in [quote.text for quote in quotes]
    assert any("4711" in quote.text for quote in quotes)


def test_importance_decides_between_sentences_that_are_equally_central() -> None:
    plain = [sentence("alpha beta gamma delta", 0), sentence("epsilon zeta eta theta", 1)]
    assert choose(plain, 1)[0].event_ids == ("e0",)
    weighty = [plain[0], replace(plain[1], importance=9)]
    assert choose(weighty, 1)[0].event_ids == ("e1",)


def test_a_paraphrase_gives_way_to_something_new() -> None:
    texts = [
        "The carrier lost the parcel between Madrid and Lisbon.",
        "The carrier lost the parcel between Lisbon and Madrid yesterday.",
        "We refund the parcel to the card of the customer.",
    ]
    assert [quote.event_ids for quote in choose([sentence(t, i) for i, t in enumerate(texts)], 2)][-1] == ("e2",)


def test_a_sentence_said_often_is_quoted_once_and_cites_its_events_up_to_a_bound() -> None:
    said = [sentence("Please check the order again.", i) for i in range(20)]
    (quote,) = choose(said, 5)
    assert quote.event_ids == tuple(f"e{i}" for i in range(MOST_CITED))


def test_nothing_said_gives_nothing() -> None:
    assert choose([], 5) == ()


@given(st.lists(st.text(alphabet="abc d.", min_size=1, max_size=30), max_size=25), st.integers(1, 6), st.randoms())
def test_quotes_are_verbatim_bounded_in_order_and_independent_of_the_order_read(
    texts: list[str], count: int, rng: random.Random
) -> None:
    said = [sentence(text, i, importance=1 + i % 10) for i, text in enumerate(texts) if terms(text)]
    quotes = choose(said, count)
    assert len(quotes) <= count
    assert all(quote.text in texts and quote.event_ids for quote in quotes)
    firsts = [int(quote.event_ids[0][1:]) for quote in quotes]
    assert firsts == sorted(firsts)
    assert sorted(quote.rank for quote in quotes) == list(range(1, len(quotes) + 1))
    rng.shuffle(said)
    assert choose(said, count) == quotes


def test_a_long_session_is_sampled_evenly_below_the_most_important_and_page_by_page_alike() -> None:
    said = [sentence(f"word{i} and some more words", i, importance=9 if i % 100 == 0 else 5) for i in range(5000)]
    kept = most_important(said, 1000)
    assert sum(s.importance == 9 for s in kept) == 50
    early = sum(s.occurred_at < 2_500_000 for s in kept)
    assert 400 < early < 600
    by_pages: list[Sentence] = []
    for start in range(0, 5000, 700):
        by_pages = most_important(by_pages + said[start : start + 700], 1000)
    assert set(by_pages) == set(kept)


def test_sentences_are_joined_into_one_readable_text() -> None:
    quotes = choose([sentence("the first thing that was said", 0), sentence("Then came the second one!", 1)], 2)
    assert joined(quotes) == "the first thing that was said. Then came the second one!"


def test_the_plan_is_a_derived_event_whose_sentences_cite_events_of_the_session() -> None:
    plan = planned([event(i, text, user_id="nadia" if i == 0 else None) for i, text in enumerate(TALK)])
    payload = payload_of(plan)
    assert plan is not None
    summary = plan.summary
    assert (summary.event_type, summary.origin, summary.agent_id) == ("memory.summary", "derived", "context-graph")
    assert (summary.session_id, summary.occurred_at, summary.user_id) == ("order-4711", 5 * 60_000, "nadia")
    assert summary_scope(summary) == "session/order-4711"
    assert set(cited_events(summary)) <= {f"e{i}" for i in range(6)}
    assert payload["method"] == "extractive"
    assert payload["covers"] == {"events": 6, "first_position": "0-1-0", "last_position": "0-6-0"}
    assert payload["episodes"] == [
        {
            "index": 0,
            "started_at": "1970-01-01T00:00:00.000Z",
            "ended_at": "1970-01-01T00:05:00.000Z",
            "event_ids": [f"e{i}" for i in range(6)],
        }
    ]
    assert codec.decode(codec.encode(summary)) == summary


def test_two_people_in_a_session_leave_the_summary_without_a_user() -> None:
    plan = planned([event(i, text, user_id=f"user-{i % 2}") for i, text in enumerate(TALK)])
    assert plan is not None
    assert plan.summary.user_id is None


def test_the_same_events_make_the_same_event_and_any_change_makes_another() -> None:
    events = [event(i, text) for i, text in enumerate(TALK)]
    first, again = planned(events), planned(events)
    assert first is not None
    assert first == again
    others = [
        planned(events[:-1]),
        planned([*events[:-1], event(5, TALK[5], importance_hint=9)]),
        planned(events, replace(RULES, sentences=2)),
        planned(events, replace(RULES, gap_seconds=30)),
    ]
    ids = {first.summary.event_id} | {other.summary.event_id for other in others if other is not None}
    assert len(ids) == 5
    assert first.under_another_id("0-9-0").event_id not in ids
    assert first.under_another_id("0-9-0").payload == first.summary.payload


def test_short_sessions_and_sessions_without_a_sentence_get_no_summary() -> None:
    assert planned([event(0, TALK[0]), event(1, TALK[1])]) is None
    assert planned([event(i, "OK.") for i in range(10)]) is None


def test_derived_events_and_repeated_pages_are_not_read() -> None:
    events = [event(i, text) for i, text in enumerate(TALK)]
    derived = event(9, "A summary of it all that nobody said.", event_type="memory.summary", origin="derived")
    assert planned([*events, derived, events[-1]]) == planned(events)


def test_a_summary_stays_under_the_payload_limit_by_naming_less_of_its_episodes() -> None:
    long_ago = [event(i, f"{TALK[i % 6]} Case {i}.", occurred_at=i * 3_600_000) for i in range(300)]
    whole = payload_of(planned(long_ago))
    assert len(cast("list[JsonValue]", whole["episodes"])) == 300
    for limit in (30_000, 8_000, 2_000, 1_100):
        payload = payload_of(planned(long_ago, replace(RULES, max_payload_bytes=limit)))
        assert len(codec.canonical_json(payload)) <= limit
        episodes = cast("list[dict[str, JsonValue]]", payload["episodes"])
        assert len(episodes) + cast("int", payload["episodes_left_out"]) == 300
        assert payload["sentences"]
        if episodes:
            assert episodes[-1]["index"] == 299
            assert episodes[-1]["first"] == episodes[-1]["last"] == "e299"


def test_a_long_episode_names_its_ends_and_its_length() -> None:
    payload = payload_of(planned([event(i, f"{TALK[i % 6]} Case {i}.") for i in range(100)]))
    (episode,) = cast("list[dict[str, JsonValue]]", payload["episodes"])
    assert (episode["first"], episode["last"], episode["count"]) == ("e0", "e99", 100)


def test_the_work_on_a_session_of_many_thousand_sentences_is_bounded() -> None:
    reading = SessionReading("long")
    for start in range(0, 6000, 500):
        reading.add([event(i, f"{TALK[i % 6]} Case {i} is open.") for i in range(start, start + 500)], importance_of)
    assert len(reading.sentences) == MOST_SENTENCES
    plan = plan_session(reading, RULES)
    assert plan is not None
    assert (plan.events, plan.episodes) == (6000, 1)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the development data is not here ({DATA})")
def test_on_real_meetings_a_summary_shares_more_with_a_written_one_than_the_first_or_random_sentences() -> None:
    found = compared(list(meetings()), 4)
    for other in ("first", "random"):
        assert all(ours > theirs for ours, theirs in zip(found["extractive"], found[other], strict=True)), found
