"""Files through the whole service: ingested once, found, followed to their causes, refused with a reason.

The commands run as processes of their own, as a person runs them.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import pytest

from context_graph.cli.client import ServiceAway, ServiceClient, ServiceRefused
from context_graph.cli.client_commands import open_client
from context_graph.ingest.transcript_envelopes import JsonObject
from context_graph.ingest.transcripts import TranscriptOptions
from tests.service import Service

_REPOSITORY = Path(__file__).parents[2]
_SAMPLE = _REPOSITORY / "context_graph" / "local" / "sample"
_SHARED = Path(os.environ.get("CG_SHARED_DATA", _REPOSITORY.parent / "shared" / "data"))
_QUESTION = "Why was Nadia Brandt refunded twice for order LF-20817?"


@pytest.fixture
async def client(service: Service) -> AsyncIterator[ServiceClient]:
    """A client with the key of the test's own tenant."""
    async with ServiceClient(service.url, service.key) as opened:
        yield opened


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command printed and returned."""

    code: int
    out: str
    err: str


async def run(service: Service, *arguments: str | Path, environment: dict[str, str] | None = None) -> Ran:
    """Run `context-graph` with these arguments against the service."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "context_graph.cli.main", *map(str, arguments)),
        env={**os.environ, "CG_URL": service.url, "CG_API_KEY": service.key, "NO_COLOR": "1", **(environment or {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return Ran(process.returncode or 0, out.decode(), err.decode())


async def wait_for(client: ServiceClient, *positions: str) -> None:
    for position in positions:
        await client.wait_for(position, timeout=120)


def airline_runs(tmp_path: Path, count: int) -> Path:
    """The first runs of the airline transcripts as a file; a skip when they are not there."""
    source = _SHARED / "tau_bench" / "gpt-4o-airline.json"
    if not source.exists():
        pytest.skip(f"no development data at {source}; set CG_SHARED_DATA")
    path = tmp_path / "airline.json"
    path.write_bytes(orjson.dumps(orjson.loads(source.read_bytes())[:count]))
    return path


async def test_a_second_ingest_of_the_same_files_adds_nothing(client: ServiceClient, tmp_path: Path) -> None:
    for path in (_SAMPLE / "support.ndjson", _SAMPLE / "coding.ndjson", airline_runs(tmp_path, 5)):
        first = await client.ingest_file(path)
        second = await client.ingest_file(path)
        assert first.complete and first.created == first.events > 100
        assert second.complete and second.duplicates == second.events == first.events
        assert second.last_positions == first.last_positions


async def test_the_lineage_of_a_tool_result_reaches_its_call_and_the_user(
    client: ServiceClient, service: Service, tmp_path: Path
) -> None:
    report = await client.ingest_file(airline_runs(tmp_path, 3))
    await wait_for(client, *report.last_positions)
    async with service.client() as http:
        session = "airline-task0-trial0"
        listed = (await http.get("/v1/events", params={"session_id": session, "limit": 200})).json()["events"]
    results = [event for event in listed if event["event_type"] == "tool.result"]
    assert results
    for result in results:
        nodes = (await client.lineage(result["event_id"], "causes", 100))["nodes"]
        assert isinstance(nodes, dict)
        kinds = {node["attributes"].get("event_type") for node in nodes.values()}  # type: ignore[index, union-attr, call-overload]
        assert {"tool.call", "user.message"} <= kinds


async def test_refused_events_are_counted_and_shown_with_line_field_and_remedy(
    service: Service, tmp_path: Path
) -> None:
    good: JsonObject = {
        "event_id": "g",
        "event_type": "user.message",
        "session_id": "s",
        "agent_id": "a",
        "occurred_at": "2026-09-01T09:30:00Z",
        "payload": {"text": "fine"},
    }
    naive = good | {"event_id": "n", "occurred_at": "2026-09-01T09:30:00"}
    taken = good | {"payload": {"text": "other words"}}
    path = tmp_path / "events.ndjson"
    path.write_bytes(b"\n".join(orjson.dumps(event) for event in (good, naive, taken)))
    ran = await run(service, "ingest", path)
    assert ran.code == 1
    assert "3 events: 1 new, 1 invalid, 1 in conflict" in ran.out
    assert "line 2, event n: invalid" in ran.out
    assert "/occurred_at" in ran.out and "RFC 3339" in ran.out
    assert "line 3, event g: conflict" in ran.out
    assert "2 events were not taken" in ran.err
    assert "Traceback" not in ran.err


async def test_a_file_that_breaks_in_the_middle_keeps_what_was_before(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "support.ndjson"
    lines = (_SAMPLE / "support.ndjson").read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:20], lines[20][:50], *lines[21:]]))
    ran = await run(service, "ingest", path, "--json")
    assert ran.code == 1
    [report] = orjson.loads(ran.out)
    assert (report["created"], report["events"]) == (20, 20)
    assert f"{path}, line 21, column" in ran.err
    async with service.client() as http:
        assert (await http.get("/v1/events/nadia-0824-20")).status_code == 200


async def test_a_message_beyond_the_payload_limit_is_taken_in_parts(
    client: ServiceClient, service: Service, tmp_path: Path
) -> None:
    text = "".join(f"line {number} of a very long log\n" for number in range(40_000))
    path = tmp_path / "long.json"
    path.write_bytes(orjson.dumps({"session_id": "long", "messages": [{"role": "user", "content": text}]}))
    report = await client.ingest_file(path)
    assert report.complete and report.created > 4
    async with service.client() as http:
        events = (await http.get("/v1/events", params={"session_id": "long"})).json()["events"]
    assert "".join(event["payload"]["text"] for event in events) == text


async def test_events_without_an_id_are_given_one_before_they_are_sent(client: ServiceClient) -> None:
    event: JsonObject = {
        "event_type": "user.message",
        "session_id": "s",
        "agent_id": "a",
        "occurred_at": "2026-09-01T09:30:00Z",
    }
    told: list[int] = []
    report = await client.ingest_events((event for _ in range(1200)), told.append)
    assert (report.created, sum(told), told[0]) == (1200, 1200, 500)


async def test_the_sample_is_ingested_asked_searched_and_followed_by_commands(service: Service) -> None:
    ingested = await run(service, "ingest", _SAMPLE / "support.ndjson", _SAMPLE / "coding.ndjson", "--wait")
    assert ingested.code == 0
    assert all(line.startswith("waiting: ") for line in ingested.err.splitlines()), "what --wait tells, nothing else"
    assert "2 files: 297 events: 297 new" in ingested.out

    asked = await run(service, "context", _QUESTION, "--budget", "1500", "--explain")
    assert (asked.code, asked.err) == (0, "")
    assert "[1]" in asked.out and "LF-20817" in asked.out
    assert "support-nadia-0824" in asked.out and "support-nadia-0902" in asked.out
    assert "of 1500 tokens" in asked.out and "intents:" in asked.out

    found = await run(service, "search", "refund timeout", "--filter", "status=timeout", "--limit", "5")
    assert found.code == 0 and "nadia-0824-15" in found.out and "nadia-0902-16" in found.out
    raw = await run(service, "search", "refund timeout", "--filter", "tool_name=refund_create", "--json")
    assert {result["tool_name"] for result in orjson.loads(raw.out)["results"]} == {"refund_create"}

    tree = await run(service, "lineage", "chk412-07", "--depth", "12")
    assert tree.code == 0 and "← " in tree.out
    assert "tomas-0824-29" in tree.out and "agent.handover" in tree.out
    forward = await run(service, "lineage", "tomas-0824-29", "--direction", "effects", "--depth", "3")
    assert "→ " in forward.out and "chk412-02" in forward.out


async def test_the_service_is_found_in_the_data_folder_whose_key_stays_on_this_machine(
    service: Service, tmp_path: Path
) -> None:
    (tmp_path / "api-url").write_text(service.url + "\n")
    (tmp_path / "api-key").write_text(service.key + "\n")
    found = await run(service, "search", "anything", "--data", tmp_path, environment={"CG_URL": "", "CG_API_KEY": ""})
    assert (found.code, found.out) == (0, "Nothing was found.\n")
    client = open_client("http://service.example", None, tmp_path)
    assert not client.has_key
    assert open_client(None, None, tmp_path).has_key


async def test_mistakes_end_in_one_clear_line(service: Service, tmp_path: Path) -> None:
    absent = await run(service, "ingest", tmp_path / "absent.json")
    assert absent.code == 1 and absent.err == f"context-graph: there is no file {tmp_path / 'absent.json'}\n"
    unknown = await run(service, "lineage", "no-such-event")
    assert unknown.code == 1 and "no-such-event" in unknown.err and "Traceback" not in unknown.err
    field = await run(service, "search", "x", "--filter", "colour=red")
    assert field.code == 1 and "/filters/colour" in field.err and "filter by one of" in field.err
    shape = await run(service, "search", "x", "--filter", "colour")
    assert shape.code == 1 and "not field=value" in shape.err
    key = await run(replace(service, key="cg_wrong"), "search", "x")
    assert key.code == 1 and "key" in key.err.lower() and "Traceback" not in key.err


async def test_a_service_that_is_away_is_waited_for_and_then_named(service: Service) -> None:
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    async with ServiceClient("http://127.0.0.1:9", "k", sleep=note) as client:
        with pytest.raises(ServiceAway, match=r"127\.0\.0\.1:9 did not answer"):
            await client.search({"query": "x"})
    assert waits == [0.25, 0.5, 1.0]


async def test_a_busy_service_is_asked_again_when_it_says(service: Service) -> None:
    """A real local server that answers 503 with Retry-After twice, cuts the connection once, then answers."""
    waits: list[float] = []
    answers = [
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n",
        b"",
        b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n",
        b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"results":[]}',
    ]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[16:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: "))
        await reader.readexactly(length)
        writer.write(answers.pop(0).replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def note(seconds: float) -> None:
        waits.append(seconds)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with ServiceClient(f"http://127.0.0.1:{port}", "k", sleep=note) as client:
            assert await client.search({"query": "x"}) == {"results": []}
    assert waits == [3.0, 0.5, 7.0]


async def test_a_refused_request_says_each_field_and_remedy(client: ServiceClient) -> None:
    with pytest.raises(ServiceRefused, match=r"/token_budget") as refused:
        await client.context({"query": "x", "token_budget": 1})
    assert refused.value.status == 422


async def test_options_name_what_a_transcript_does_not(client: ServiceClient, service: Service, tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    path.write_text('{"role": "user", "content": "hi"}\n')
    options = TranscriptOptions(session="mine", agent="helper-1", user="u-1")
    report = await client.ingest_file(path, options)
    async with service.client() as http:
        [event] = (await http.get("/v1/events", params={"session_id": "mine"})).json()["events"]
    assert report.created == 1
    assert (event["agent_id"], event["user_id"], event["payload"]) == ("helper-1", "u-1", {"text": "hi"})
