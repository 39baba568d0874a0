"""Files of records: forms told apart, breaks named by line and column, nothing before a break lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from context_graph.cli.files import BrokenFile, events_of_file, files_of, importer_for
from context_graph.errors import ConfigurationError
from context_graph.ingest.transcript_envelopes import JsonObject
from context_graph.ingest.transcripts import TranscriptOptions
from tests.test_transcripts import kinds, payload, read

_OPTIONS = TranscriptOptions()


def test_single_messages_on_lines_are_one_conversation(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    path.write_text('{"role": "user", "content": "hi"}\n\n{"role": "assistant", "content": "hello"}\n')
    events = read(path)
    assert kinds(events) == ["user.message", "agent.message"]
    assert {event["session_id"] for event in events} == {"talk"}


def test_lines_of_different_forms_may_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mixed.ndjson"
    path.write_text(
        '\ufeff{"event_type": "a.b", "agent_id": "x"}\r\n{"messages": [{"role": "user", "content": "hi"}]}\r\n'
    )
    assert kinds(read(path)) == ["a.b", "user.message"]


def test_an_array_of_runs_that_breaks_gives_what_was_before_and_the_place(tmp_path: Path) -> None:
    path = tmp_path / "runs.json"
    run = '{"messages": [{"role": "user", "content": "hi"}]}'
    path.write_text(f'[\n  {run},\n  {run},\n  {{"messages": [}}\n]')
    read_so_far: list[JsonObject] = []
    with pytest.raises(BrokenFile, match=r"runs\.json, line 4, column 17: not JSON"):
        read_so_far.extend(located.event for located in events_of_file(path, importer_for(path, _OPTIONS)))
    events = iter(events_of_file(path, importer_for(path, _OPTIONS)))
    assert [next(events).line, next(events).line] == [2, 3]


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    path.write_text('{"event_type": "a.b"}\n{"event_type": "a.\n')
    events = iter(events_of_file(path, importer_for(path, _OPTIONS)))
    assert next(events).line == 1
    with pytest.raises(BrokenFile, match=r"events\.ndjson, line 2, column"):
        next(events)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[1, 2]", "line 1: this is no event"),
        ('[{"role": "user", "content": "x"}', "ends without"),
        ('{"messages": []} trailing', "something follows"),
        ('{"messages": [{"role": "user", "content": NaN}]}', "NaN"),
        ("not json", "not JSON"),
    ],
)
def test_what_is_no_transcript_says_why(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(content)
    with pytest.raises(BrokenFile, match=reason):
        read(path)


def test_unpaired_surrogates_are_repaired(tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_text('{"role": "user", "content": "broken \\ud83d end"}\n')
    assert payload(read(path)[0])["text"] == "broken \ufffd end"


def test_an_empty_file_has_no_events_and_a_missing_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.json").write_text(" \n")
    (tmp_path / "none.json").write_text("[]")
    assert read(tmp_path / "empty.json") == read(tmp_path / "none.json") == []
    with pytest.raises(ConfigurationError, match=r"absent\.json"):
        files_of([tmp_path / "absent.json"])
