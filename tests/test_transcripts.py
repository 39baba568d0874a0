"""Transcripts become events whose causes can be followed, the same events every time.

The real transcripts are those in the folder that CG_SHARED_DATA names (default: beside the repository).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from context_graph.cli.files import events_of_file, files_of, importer_for
from context_graph.domain.event import JsonValue
from context_graph.ingest.transcript_envelopes import (
    PART_BYTES,
    Draft,
    JsonObject,
    envelopes_of,
    moment_of,
    parsed_json,
)
from context_graph.ingest.transcripts import EPOCH_MS, TranscriptOptions, events_of_transcript, form_of
from context_graph.ingest.validation import Validator
from context_graph.settings import LedgerSettings

_SHARED = Path(os.environ.get("CG_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
_OPTIONS = TranscriptOptions()


def shared(name: str) -> Path:
    """A folder of development data, or a skip that says which is missing."""
    path = _SHARED / name
    if not path.exists():
        pytest.skip(f"no development data at {path}; set CG_SHARED_DATA")
    return path


def read(path: Path, options: TranscriptOptions = _OPTIONS) -> list[JsonObject]:
    return [located.event for located in events_of_file(path, importer_for(path, options))]


def chat(*messages: JsonObject, **fields: JsonValue) -> list[JsonObject]:
    record: JsonObject = {"messages": list(messages), **fields}
    return list(events_of_transcript(record, _OPTIONS, stem="chat"))


def causes(event: JsonObject) -> list[str]:
    found = event.get("caused_by", [])
    return [str(cause) for cause in found] if isinstance(found, list) else []


def payload(event: JsonObject) -> JsonObject:
    found = event["payload"]
    assert isinstance(found, dict)
    return found


def kinds(events: Iterable[JsonObject]) -> list[str]:
    return [str(event["event_type"]) for event in events]


def ancestors(event: JsonObject, by_id: dict[str, JsonObject]) -> set[str]:
    """The types of all events that an event's causes lead to."""
    seen: set[str] = set()
    stack = causes(event)
    while stack:
        cause = stack.pop()
        if cause not in seen and cause in by_id:
            seen.add(cause)
            stack += causes(by_id[cause])
    return {str(by_id[cause]["event_type"]) for cause in seen}


def assert_lineage(events: list[JsonObject]) -> None:
    """Ids are unique, every result has its call among its causes, and its lineage reaches the user."""
    by_id = {str(event["event_id"]): event for event in events}
    assert len(by_id) == len(events)
    results = [event for event in events if event["event_type"] == "tool.result"]
    assert results
    for event in results:
        direct = [by_id[cause] for cause in causes(event) if cause in by_id]
        calls = [cause for cause in direct if cause["event_type"] == "tool.call"]
        assert calls, f"no call among the causes of {event}"
        assert payload(calls[0])["tool_call_id"] == payload(event)["tool_call_id"]
        assert "user.message" in ancestors(event, by_id)


def assert_taken(events: Iterable[JsonObject]) -> None:
    """The service's own gate takes each event."""
    validator = Validator(LedgerSettings(), lambda: moment_of("2030-01-01T00:00:00Z") or 0)
    for event in events:
        validator.envelope(event)


# --- real transcripts


def test_every_tool_result_of_the_airline_runs_reaches_its_call_and_the_user() -> None:
    path = shared("tau_bench") / "gpt-4o-airline.json"
    events = read(path)
    runs = orjson.loads(path.read_bytes())
    assert_lineage(events)
    assert_taken(events)
    sessions = {str(event["session_id"]) for event in events}
    assert len(sessions) == len(runs) == 200
    assert "gpt-4o-airline-task0-trial0" in sessions
    roles = Counter(message["role"] for run in runs for message in run["traj"])
    assert Counter(kinds(events))["tool.result"] == roles["tool"]
    assert Counter(kinds(events))["user.message"] == roles["user"]
    first = next(event for event in events if event["session_id"] == "gpt-4o-airline-task0-trial0")
    assert (first["user_id"], first["agent_id"]) == ("mia_li_3668", "assistant")
    assert str(first["occurred_at"]).startswith(("2024-05-15", "2024-05-16"))


def test_reused_call_ids_lead_each_result_to_a_call_of_its_own() -> None:
    path = shared("tau_bench") / "gpt-4o-airline.json"
    reused = 0
    for index, run in enumerate(orjson.loads(path.read_bytes())):
        events = list(events_of_transcript(run, _OPTIONS, stem="airline", index=index))
        calls = [payload(event)["tool_call_id"] for event in events if event["event_type"] == "tool.call"]
        reused += len(set(map(str, calls))) < len(calls)
        answered = [causes(event)[0] for event in events if event["event_type"] == "tool.result"]
        assert len(set(answered)) == len(answered)
    assert reused == 49


@pytest.mark.parametrize("name", ["MockAirlineDomainEnv-few_shot.jsonl", "MockRetailDomainEnv-few_shot.jsonl"])
def test_every_tool_result_of_the_few_shot_texts_reaches_a_call_and_the_user(name: str) -> None:
    path = shared("tau_bench") / name
    events = read(path)
    by_id = {str(event["event_id"]): event for event in events}
    assert_lineage(events)
    assert_taken(events)
    lines = path.read_bytes().splitlines()
    assert len({event["session_id"] for event in events}) == len(lines)
    tools = sum(orjson.loads(line)["messages_display"].count("\ntool: ") for line in lines)
    assert kinds(events).count("tool.result") == tools
    # Where the assistant spoke before the tool's line, the result's lineage passes through these words.
    for before, event in pairwise(events):
        if before["event_type"] == "agent.message" and event["event_type"] == "tool.call":
            assert causes(event) == [before["event_id"]]
    assert all(cause in by_id for event in events for cause in causes(event))


def test_coding_runs_keep_their_times_and_their_long_outputs() -> None:
    for path in files_of([shared("mini_swe_agent")]):
        events = read(path)
        assert_lineage(events)
        assert_taken(events)
        run = orjson.loads(path.read_bytes())
        assert {event["session_id"] for event in events} == {run["instance_id"]}
        times = [str(event["occurred_at"]) for event in events]
        assert times == sorted(times)
        assert times[0].startswith("2025-")
        said = sum(len(message["content"]) for message in run["messages"] if message["role"] == "assistant")
        kept = sum(len(str(payload(event)["text"])) for event in events if event["event_type"] == "agent.message")
        assert kept == said


def test_coding_sessions_join_calls_and_results_and_hang_sub_agents_on_their_call() -> None:
    paths = files_of([shared("claude_code")])
    importers = {path: importer_for(path, _OPTIONS) for path in paths}
    events = [located.event for path in paths for located in events_of_file(path, importers[path])]
    by_id = {str(event["event_id"]): event for event in events}
    assert_lineage(events)
    assert_taken(events)
    assert all(cause in by_id for event in events for cause in causes(event))
    of_sub_agent = [event for event in events if event["agent_id"] == "a7be2f0"]
    start = by_id[causes(of_sub_agent[0])[0]]
    assert start["event_type"] == "agent.started"
    assert by_id[causes(start)[0]]["tool_name"] == "Task"
    skipped = sum(sum(importer.skipped.values()) for importer in importers.values())
    lines = sum(len(path.read_bytes().splitlines()) for path in paths)
    started = kinds(events).count("agent.started")
    assert len(events) - started + skipped == lines


def test_a_second_reading_gives_the_same_events() -> None:
    folders = [shared("tau_bench"), shared("mini_swe_agent"), shared("claude_code")]
    for path in files_of(folders):
        assert read(path) == read(path)


# --- the chat form


def test_an_assistant_message_with_text_and_calls_becomes_a_message_and_its_calls() -> None:
    events = chat(
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Two cities"}, {"type": "image_url", "image_url": "x"}]},
        {
            "role": "assistant",
            "content": "I look both up.",
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}},
                {"id": "b", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"'}},
            ],
        },
        {"role": "tool", "tool_call_id": "b", "content": "Error: not JSON"},
        {"role": "tool", "tool_call_id": "a", "content": '{"degrees": 4}'},
        {"role": "assistant", "content": "Oslo has 4 degrees."},
    )
    system, user, message, first, second, failed, completed, answer = events
    assert kinds(events[:3]) == ["system.message", "user.message", "agent.message"]
    assert kinds(events[3:]) == ["tool.call", "tool.call", "tool.result", "tool.result", "agent.message"]
    assert "caused_by" not in system and "caused_by" not in user
    assert payload(user) == {"text": "Two cities", "parts": [{"type": "image_url", "image_url": "x"}]}
    assert causes(message) == [user["event_id"]]
    assert causes(first) == causes(second) == [message["event_id"]]
    assert payload(first) == {"tool_call_id": "a", "arguments": {"city": "Oslo"}}
    assert payload(second)["arguments"] == '{"city": "Rome"'
    assert (causes(failed), failed["status"]) == ([second["event_id"]], "failed")
    assert (causes(completed), completed["status"]) == ([first["event_id"]], "completed")
    assert (completed["tool_name"], payload(completed)["result"]) == ("weather", {"degrees": 4})
    assert causes(answer) == [failed["event_id"], completed["event_id"]]
    assert_taken(events)


def test_a_reused_call_id_belongs_to_the_nearest_earlier_call_without_an_answer() -> None:
    def call(city: str) -> JsonObject:
        function: JsonObject = {"name": "weather", "arguments": f'{{"city": "{city}"}}'}
        return {"role": "assistant", "content": None, "tool_calls": [{"id": "same", "function": function}]}

    events = chat(
        {"role": "user", "content": "hi"},
        call("Oslo"),
        {"role": "tool", "tool_call_id": "same", "content": "4"},
        call("Rome"),
        {"role": "tool", "tool_call_id": "same", "content": "31"},
    )
    _, oslo, four, rome, thirty_one = events
    assert causes(four) == [oslo["event_id"]]
    assert causes(rome) == [four["event_id"]]
    assert causes(thirty_one) == [rome["event_id"]]


def test_legacy_function_calls_and_their_results_are_joined() -> None:
    events = chat(
        {"role": "user", "content": "time?"},
        {"role": "assistant", "content": None, "function_call": {"name": "clock", "arguments": "{}"}},
        {"role": "function", "name": "clock", "content": "12:00"},
    )
    assert kinds(events) == ["user.message", "tool.call", "tool.result"]
    assert causes(events[2]) == [events[1]["event_id"]]


def test_a_user_message_answers_what_the_assistant_said_last() -> None:
    events = chat(
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "What is your order?"},
        {"role": "user", "content": "LF-1"},
    )
    assert causes(events[2]) == [events[1]["event_id"]]


def test_times_in_messages_are_kept_and_gaps_are_filled_in_order() -> None:
    events = chat(
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "timestamp": 1_700_000_000},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d", "timestamp": "2023-11-14T22:13:25+00:00"},
    )
    assert [event["occurred_at"] for event in events] == [
        "2023-11-14T22:13:19.000Z",
        "2023-11-14T22:13:20.000Z",
        "2023-11-14T22:13:20.001Z",
        "2023-11-14T22:13:25.000Z",
    ]


def test_made_up_times_come_from_the_content_or_the_options_never_from_the_clock() -> None:
    record: JsonObject = {"messages": [{"role": "user", "content": "hi"}]}
    [untold] = events_of_transcript(record, _OPTIONS, stem="x")
    assert 0 <= (moment_of(untold["occurred_at"]) or 0) - EPOCH_MS < 480 * 60_000
    told = TranscriptOptions(started_at=moment_of("2026-09-01T09:30:00Z"))
    [event] = events_of_transcript(record, told, stem="x")
    assert event["occurred_at"] == "2026-09-01T09:30:00.000Z"


def test_the_same_chat_under_another_name_is_another_session_with_other_ids() -> None:
    record: JsonObject = {"task_id": 3, "trial": 1, "messages": [{"role": "user", "content": "hi"}]}
    [one] = events_of_transcript(record, _OPTIONS, stem="airline")
    [other] = events_of_transcript(record, _OPTIONS, stem="retail")
    assert (one["session_id"], other["session_id"]) == ("airline-task3-trial1", "retail-task3-trial1")
    assert one["event_id"] != other["event_id"]


def test_a_chat_that_has_grown_keeps_the_ids_of_what_it_had() -> None:
    messages: list[JsonObject] = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "bye"},
    ]
    assert chat(*messages, session_id="s")[:2] == chat(*messages[:2], session_id="s")


def test_options_name_session_agent_and_user() -> None:
    options = TranscriptOptions(session="s", agent="a", user="u")
    [event] = events_of_transcript([{"role": "user", "content": "hi"}], options, stem="x")
    assert (event["session_id"], event["agent_id"], event["user_id"]) == ("s", "a", "u")


def test_numbers_that_json_would_round_stay_text() -> None:
    assert parsed_json("[12345678901234567890123]") == "[12345678901234567890123]"
    assert parsed_json("[0.30000000000000004]") == [0.30000000000000004]
    assert parsed_json("plain words") == "plain words"


@pytest.mark.parametrize(
    ("record", "form"),
    [
        ({"event_type": "user.message"}, "envelope"),
        ({"event_id": "1", "payload": {}}, "envelope"),
        ({"messages": []}, "chat"),
        ({"traj": [{"role": "user", "content": "x"}]}, "chat"),
        ({"messages_display": "user: x"}, "display"),
        ({"role": "user", "content": "x"}, "message"),
        ([{"role": "user", "content": "x"}], "messages"),
        ({"type": "user", "uuid": "1", "sessionId": "2"}, "claude"),
        ({"type": "point"}, "unknown"),
        (7, "unknown"),
    ],
)
def test_the_form_of_a_record_is_told_by_its_members(record: JsonValue, form: str) -> None:
    assert form_of(record) == form


# --- long payloads


@given(st.text(min_size=1, max_size=40), st.integers(min_value=1, max_value=12_000))
def test_a_long_text_is_split_into_parts_that_fit_and_lose_nothing(piece: str, times: int) -> None:
    text = piece * (times * 100 // len(piece) + 1)
    draft = Draft(
        event_id="e",
        event_type="tool.result",
        session_id="s",
        agent_id="a",
        occurred_at=EPOCH_MS,
        origin="tool",
        content="result",
        payload={"tool_call_id": "c", "result": text},
        caused_by=("call",),
    )
    parts = list(envelopes_of(draft))
    assert "".join(str(payload(part)["result"]) for part in parts) == text
    assert all(len(orjson.dumps(payload(part))) <= PART_BYTES for part in parts)
    assert all("call" in causes(part) for part in parts)
    for number, (before, part) in enumerate(pairwise(parts), 2):
        assert before["event_id"] in causes(part)
        assert (payload(part)["part"], payload(part)["parts_total"]) == (number, len(parts))


def test_a_long_structured_result_is_split_as_json() -> None:
    rows: list[JsonValue] = [{"row": number, "text": "x" * 100} for number in range(5000)]
    events = chat(
        {"role": "user", "content": "dump"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": {"name": "dump"}}]},
        {"role": "tool", "tool_call_id": "c", "content": orjson.dumps(rows).decode()},
        {"role": "assistant", "content": "done"},
    )
    parts = [event for event in events if event["event_type"] == "tool.result"]
    assert orjson.loads("".join(str(payload(part)["result"]) for part in parts)) == rows
    assert causes(events[-1]) == [parts[-1]["event_id"]]
    assert_lineage(events)
    assert_taken(events)


def test_an_embedded_image_is_kept_whole() -> None:
    image: JsonObject = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "QUJD" * 100_000}}
    events = chat({"role": "user", "content": [{"type": "text", "text": "see"}, image]})
    kept = orjson.loads("".join(str(payload(event)["text"]) for event in events))
    assert kept == {"text": "see", "parts": [image]}
    assert_taken(events)
