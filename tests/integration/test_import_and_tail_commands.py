"""`context-graph ingest --import` and `context-graph tail` against a running service."""

from __future__ import annotations

import asyncio
import gzip
import os
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
import zstandard

from context_graph.cli.client import ServiceClient
from context_graph.cli.tail import messages
from tests.api_process import api_process
from tests.events import event, post_all
from tests.service import Service

_RUN = (sys.executable, "-m", "context_graph.cli.main")


async def run(service: Service, *arguments: str) -> tuple[int, str, str]:
    """The command with the service's address and key: exit code, standard output, standard error."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CG_")}
    process = await asyncio.create_subprocess_exec(
        *_RUN, *arguments, env=kept | {"CG_URL": service.url, "CG_API_KEY": service.key},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def lines(count: int) -> bytes:
    return b"".join(orjson.dumps(event(number)) + b"\n" for number in range(count))


@pytest.mark.parametrize(("name", "pack"), [
    ("events.ndjson", bytes), ("events.jsonl.gz", gzip.compress), ("events.ndjson.zst", zstandard.compress),
])  # fmt: skip
async def test_a_file_is_imported_once_however_often_it_is_sent(
    service: Service, http: httpx2.AsyncClient, tmp_path: Path, name: str, pack: Any
) -> None:
    file = tmp_path / name
    file.write_bytes(pack(lines(700)))
    for created in (700, 0):
        code, out, err = await run(service, "ingest", "--import", "--json", str(file))
        assert code == 0, err
        [report] = orjson.loads(out)
        assert (report["events"], report["created"]) == (700, created)


async def test_a_broken_file_is_told_with_its_line_and_what_was_kept(
    service: Service, http: httpx2.AsyncClient, tmp_path: Path
) -> None:
    file = tmp_path / "events.ndjson"
    file.write_bytes(lines(3) + orjson.dumps(event(3, flavour="mint")) + b"\n{nope}\n")
    code, out, err = await run(service, "ingest", "--import", str(file))
    assert code == 1
    assert "line 5" in err
    assert "/flavour" in out + err
    assert len((await http.get("/v1/events")).json()["events"]) == 3


async def test_what_is_no_file_of_lines_is_refused(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    file.write_bytes(b"[]")
    code, _, err = await run(service, "ingest", "--import", str(file))
    assert (code, ".ndjson" in err) == (1, True)


async def test_tail_prints_events_as_they_come(service: Service, http: httpx2.AsyncClient) -> None:
    await post_all(http, [event(1), event(2, session_id="other"), event(3, payload={"text": "two\nlines"})])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CG_")}
    process = await asyncio.create_subprocess_exec(
        *_RUN, "tail", "--after", "0-0-0", "--session", "s1",
        env=kept | {"CG_URL": service.url, "CG_API_KEY": service.key}, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            first = await process.stdout.readline()
            second = await process.stdout.readline()
            await post_all(http, [event(4)])
            third = await process.stdout.readline()
    finally:
        process.terminate()
        await process.wait()
    assert first.decode() == "2026-09-01T09:00:01.000Z  s1  user.message  message number 1\n"
    assert "two lines" in second.decode()
    assert "message number 4" in third.decode()


async def test_a_tail_goes_on_by_itself_when_the_api_was_restarted(tmp_path: Path, redis_url: str) -> None:
    async with api_process(tmp_path, redis_url) as api:
        client = ServiceClient(api.url, api.key)
        async with client, aclosing(messages(client, {})) as stream:
            await anext(stream)
            async with api.client() as http:
                await post_all(http, [event(1)])
            assert await _next_id(stream) == "e1"
            api.child.kill()
            async with api_process(tmp_path, redis_url, port=api.port) as second, second.client() as http:
                await post_all(http, [event(2)])
                assert await _next_id(stream) == "e2"


async def _next_id(stream: Any) -> str:
    async with asyncio.timeout(60):
        while True:
            message = await anext(stream)
            if message.data is not None:
                return str(message.data["event_id"])
