"""`context-graph up` as a newcomer runs it: the whole service by one command, and none of it left after one signal."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import orjson
import pytest

from context_graph.local.data_folder import DataFolder
from context_graph.local.redis_server import running_url
from tests.waiting import until

pytestmark = pytest.mark.xdist_group("up")  # six processes each: one at a time

READY = "Context Graph is ready."
STOPPED = "All is stopped."


@dataclass(frozen=True, slots=True)
class Up:
    """A running `context-graph up`, its folder, and what it has printed so far."""

    process: subprocess.Popen[bytes]
    folder: DataFolder
    output: Path

    @property
    def said(self) -> str:
        return self.output.read_text()

    @property
    def url(self) -> str:
        return self.folder.api_url.read_text().strip()

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Engine-API-Key": self.folder.api_key.read_text().strip()}

    async def has_said(self, words: str, seconds: float = 120) -> None:
        await until(lambda: words in self.said or self.process.poll() is not None, seconds=seconds)
        assert words in self.said, self.said

    async def ends(self) -> int:
        await until(lambda: self.process.poll() is not None, seconds=60)
        return int(self.process.returncode)


@dataclass(frozen=True, slots=True)
class Starter:
    """Starts `context-graph up` on a folder; everything is gone after the test, whatever happens in it."""

    root: Path
    started: list[Up]

    def __call__(self, *arguments: str, data: Path | None = None, **environment: str) -> Up:
        folder = DataFolder.at(data or self.root / "data")
        output = self.root / f"up-{len(self.started)}.out"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CG_")}
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "context_graph.cli.main", "up", "--data", str(folder.root), *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=clean | environment,
                start_new_session=True,  # a process group of its own, as a terminal makes one
            )
        up = Up(process, folder, output)
        self.started.append(up)
        return up


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    starter = Starter(tmp_path, [])
    yield starter
    for up in starter.started:
        up.process.kill()
        up.process.wait()
        for pid in processes_of(up.folder).values():
            os.kill(pid, signal.SIGKILL)


def processes_of(folder: DataFolder) -> dict[str, int]:
    """Live processes that work on the folder, by command: Redis by its working directory, others by environment."""
    found: dict[str, int] = {}
    for proc in Path("/proc").iterdir():
        if not proc.name.isdecimal() or int(proc.name) == os.getpid():
            continue
        try:
            inside = (proc / "cwd").resolve() == folder.redis_data
            named = f"CG_DATA_DIR={folder.root}".encode() in (proc / "environ").read_bytes().split(b"\0")
            words = (proc / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue
        if words and (inside or named):
            found["redis" if inside else words.rpartition("context_graph.cli.main ")[2]] = int(proc.name)
    return found


def _count(up: Up) -> int:
    """Events of the sample's sessions as the service tells it, without what was derived from them."""
    total = 0
    with httpx2.Client(base_url=up.url, headers=up.headers, trust_env=False, timeout=30) as http:
        for session in _sample_sessions():
            page = http.get("/v1/events", params={"session_id": session, "limit": 1000}).raise_for_status().json()
            assert page["page"]["next_cursor"] is None
            total += sum(event.get("origin") != "derived" for event in page["events"])
    return total


def _sample() -> Path:
    import context_graph.local

    return Path(str(context_graph.local.__file__)).with_name("sample")


def _sample_sessions() -> list[str]:
    lines = [line for file in _sample().glob("*.ndjson") for line in file.read_bytes().splitlines() if line.strip()]
    return sorted({orjson.loads(line)["session_id"] for line in lines})


def _sample_size() -> int:
    return sum(bool(line.strip()) for file in _sample().glob("*.ndjson") for line in file.read_bytes().splitlines())


async def test_a_newcomer_sees_working_memory_with_sources_and_finds_it_again_after_a_restart(start: Starter) -> None:
    up = start("--port", "0")
    await up.has_said(READY)
    assert f"{_sample_size():,} new events, 0 known already" in up.said
    questions = orjson.loads((_sample() / "questions.json").read_bytes())
    assert len(questions) == 3
    for row in questions:
        shown = up.said.partition(f"Q: {row['question']}")[2].partition("Q: ")[0]
        content, _, sources = shown.partition("Sources")
        cited = re.findall(r"\[\d+\] (\S+) in session (\S+)", sources)
        assert cited, shown
        assert "[1]" in content
        event = httpx2.get(f"{up.url}/v1/events/{cited[0][0]}", headers=up.headers, trust_env=False).json()
        assert event["session_id"] == cited[0][1]
    assert up.said.count("Sources") == 3
    assert up.said.count(" tokens, ") == 3
    assert "(nothing was found)" not in up.said
    assert up.url in up.said
    assert up.folder.api_key.read_text().strip() in up.said
    assert up.folder.api_key.stat().st_mode & 0o777 == 0o600
    assert set(processes_of(up.folder)) == {
        "redis", "api", "worker projection", "worker enrichment", "worker consolidation"
    }  # fmt: skip
    assert _count(up) == _sample_size()
    assert httpx2.post(f"{up.url}/v1/context", json={"query": "x"}, trust_env=False).status_code == 401
    os.killpg(up.process.pid, signal.SIGINT)  # as Ctrl-C in a terminal
    assert await up.ends() == 0
    assert STOPPED in up.said
    assert "starting it again" not in up.said
    assert processes_of(up.folder) == {}

    again = start("--port", "0")
    await again.has_said(READY)
    assert f"0 new events, {_sample_size():,} known already" in again.said
    assert "events of earlier runs" in again.said
    assert _count(again) == _sample_size()
    again.process.send_signal(signal.SIGTERM)
    assert await again.ends() == 0
    assert processes_of(again.folder) == {}


async def test_a_child_that_dies_is_started_again_and_this_is_said(start: Starter) -> None:
    up = start("--port", "0", "--no-sample", "--workers", "2")
    await up.has_said(READY)
    before = processes_of(up.folder)
    event = {"event_type": "user.message", "session_id": "s", "agent_id": "a", "occurred_at": "2026-01-01T00:00:00Z"}
    for name in ("worker consolidation", "redis", "api"):
        os.kill(before[name], signal.SIGKILL)
    for name in ("consolidation", "redis", "api"):
        await up.has_said(f"{name} was ended by signal 9; starting it again")
    await until(lambda: _ready(up.url), seconds=60)
    sent = httpx2.post(f"{up.url}/v1/events", json=event, headers=up.headers, trust_env=False)
    assert sent.status_code == 201
    found = httpx2.post(
        f"{up.url}/v1/search",
        json={"query": "message", "min_position": sent.json()["position"], "wait_ms": 60_000},
        headers=up.headers,
        trust_env=False,
        timeout=70,
    )
    assert found.status_code == 200  # every stage has passed the event: the workers found their way back
    up.process.send_signal(signal.SIGTERM)
    assert await up.ends() == 0
    assert processes_of(up.folder) == {}


def _ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health/ready", trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False


async def test_kill_9_leaves_no_process_and_loses_nothing(start: Starter) -> None:
    up = start("--port", "0", "--no-sample")
    await up.has_said(READY)
    event = {"event_type": "user.message", "session_id": "s", "agent_id": "a", "occurred_at": "2026-01-01T00:00:00Z"}
    sent = httpx2.post(f"{up.url}/v1/events", json=event, headers=up.headers, trust_env=False)
    assert sent.status_code == 201
    up.process.kill()
    await until(lambda: processes_of(up.folder) == {}, seconds=60)
    again = start("--port", "0", "--no-sample")
    await again.has_said(READY)
    event_id = sent.json()["event_id"]
    kept = httpx2.get(f"{again.url}/v1/events/{event_id}", headers=again.headers, trust_env=False)
    assert kept.json()["position"] == sent.json()["position"]
    again.process.send_signal(signal.SIGTERM)
    assert await again.ends() == 0


@pytest.mark.parametrize("moment", ["data in", "   Redis ...", "   API and workers ..."])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_during_the_start_leaves_nothing_behind(
    start: Starter, moment: str, number: signal.Signals
) -> None:
    up = start("--port", "0", "--no-sample")
    await up.has_said(moment)
    up.process.send_signal(number)
    assert await up.ends() == 0
    assert STOPPED in up.said
    assert "Traceback" not in up.said
    assert processes_of(up.folder) == {}
    assert running_url(up.folder.root) is None


async def test_a_taken_port_is_refused_with_the_option_to_change_it(start: Starter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        up = start("--port", str(taken.getsockname()[1]))
        assert await up.ends() == 1
    assert "choose another port with --port" in up.said
    assert "Traceback" not in up.said
    assert processes_of(up.folder) == {}


async def test_a_second_up_on_the_same_folder_is_refused_and_the_first_goes_on(start: Starter) -> None:
    up = start("--port", "0", "--no-sample")
    await up.has_said(READY)
    second = start("--port", "0", "--no-sample")
    assert await second.ends() == 1
    assert f"already (process {up.process.pid})" in second.said
    assert _ready(up.url)
    up.process.send_signal(signal.SIGTERM)
    assert await up.ends() == 0


async def test_another_redis_is_used_when_it_is_named_and_left_running(
    start: Starter, redis_url: str, tmp_path: Path
) -> None:
    up = start("--port", "0", "--no-sample", CG_REDIS_URL=redis_url)
    await up.has_said(READY)
    assert "redis" not in processes_of(up.folder)
    up.process.send_signal(signal.SIGTERM)
    assert await up.ends() == 0


async def test_a_worker_that_cannot_work_is_named_with_its_log_instead_of_waiting_for_ever(start: Starter) -> None:
    up = start("--port", "0", "--no-sample", CG_EMBEDDING__MODEL_PATH="/nowhere")
    assert await up.ends() == 1
    assert "keeps ending; the end of its log" in up.said
    assert "CG_EMBEDDING__MODEL_PATH" in up.said
    assert processes_of(up.folder) == {}
