"""The embedded Redis: found, started, protected, stopped, and never losing what it acknowledged."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from context_graph.domain.redis_safety import redis_problems
from context_graph.errors import ConfigurationError, StoreUnavailable
from context_graph.local.data_folder import DataFolder
from context_graph.local.process import Child, Program
from context_graph.local.redis_server import (
    embedded_redis,
    find_server,
    free_port,
    prepared_redis,
    running_url,
    until_answering,
)
from context_graph.store.connection import RedisClient, open_redis
from context_graph.store.readiness import read_redis_facts, wait_until_ready
from tests.waiting import until


async def _value(url: str, key: str) -> object:
    async with open_redis(url) as client:
        return await client.get(key)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def _command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


async def _gone(pid: int) -> None:
    await until(lambda: not _alive(pid))


async def test_it_starts_with_search_and_a_configuration_that_is_safe(tmp_path: Path) -> None:
    async with embedded_redis(tmp_path) as redis, open_redis(redis.url) as client:
        facts = await read_redis_facts(client)
        assert redis_problems(facts, "fast") == []
        assert facts.search_version is not None
        assert facts.append_only
        assert facts.fsync == "everysec"
        assert facts.eviction == "noeviction"
        assert await client.config_get("bind") == {"bind": "127.0.0.1"}


async def test_vectors_are_allocated_in_blocks_that_waste_little(tmp_path: Path) -> None:
    """A block of 1,024 vectors, the module's own, is a few bytes above a size class and takes the next one."""
    count, vector = 4000, bytes(2 * 384)
    shape = ("TYPE", "FLOAT16", "DIM", 384, "DISTANCE_METRIC", "COSINE", "EF_CONSTRUCTION", 2)
    took: dict[str, float] = {}
    for blocks in ("bounded", "its own"):
        async with embedded_redis(tmp_path / blocks) as redis, open_redis(redis.url) as client:
            command: Callable[..., Awaitable[object]] = client.execute_command
            if blocks == "its own":
                await command("FT.CONFIG", "SET", "VSS_MAX_RESIZE", 0)
            empty = await _allocated(client)
            await command("FT.CREATE", "i", "PREFIX", 1, "v:", "SCHEMA", "x", "VECTOR", "HNSW", len(shape), *shape)
            pipe = client.pipeline(transaction=False)
            for number in range(count):
                pipe.hset(f"v:{number}", "x", vector)
            await pipe.execute()
            took[blocks] = (await _allocated(client) - empty) / count
    assert took["bounded"] < took["its own"] - 80, took


async def _allocated(client: RedisClient) -> int:
    facts = await client.info("memory")
    return int(facts["used_memory"]) - int(facts["mem_clients_normal"]) - int(facts["mem_aof_buffer"])


@pytest.mark.parametrize("durability", ["durable", "replicated"])
async def test_durable_profiles_fsync_before_they_answer(tmp_path: Path, durability: str) -> None:
    async with embedded_redis(tmp_path, durability=durability) as redis, open_redis(redis.url) as client:
        assert (await read_redis_facts(client)).fsync == "always"


async def test_nobody_gets_in_without_the_password(tmp_path: Path) -> None:
    async with embedded_redis(tmp_path) as redis:
        async with open_redis(f"redis://127.0.0.1:{redis.port}/0") as stranger:
            with pytest.raises(RedisError, match="Authentication required"):
                await stranger.ping()
        with pytest.raises(StoreUnavailable, match="refuses the password"):
            await wait_until_ready(f"redis://:guess@127.0.0.1:{redis.port}/0", 5)


async def test_secrets_are_readable_by_their_owner_only_and_not_in_the_command_line(tmp_path: Path) -> None:
    folder = DataFolder.at(tmp_path / "data")
    async with embedded_redis(folder.root):
        password = folder.redis_password.read_text().strip()
        assert len(password) >= 32
        for path in (folder.redis_password, folder.redis_conf):
            assert path.stat().st_mode & 0o777 == 0o600
        assert folder.root.stat().st_mode & 0o077 == 0
        assert password not in _command_line(int(folder.redis_pid.read_text()))


async def test_a_restart_finds_the_data_and_keeps_the_password(tmp_path: Path) -> None:
    async with embedded_redis(tmp_path) as redis, open_redis(redis.url) as client:
        await client.set("cg:tenants", "kept")
        password = DataFolder.at(tmp_path).redis_password.read_text()
    async with embedded_redis(tmp_path) as redis:
        assert await _value(redis.url, "cg:tenants") == b"kept"
    assert DataFolder.at(tmp_path).redis_password.read_text() == password


async def test_others_find_the_running_server_by_its_folder_and_only_while_it_runs(tmp_path: Path) -> None:
    assert running_url(tmp_path) is None
    async with embedded_redis(tmp_path) as redis:
        assert running_url(tmp_path) == redis.url
        pid = int(DataFolder.at(tmp_path).redis_pid.read_text())
    assert running_url(tmp_path) is None
    assert not _alive(pid)


async def test_a_second_start_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    async with embedded_redis(tmp_path) as redis:
        with pytest.raises(ConfigurationError, match=f"already \\(process {os.getpid()}\\)"):
            async with embedded_redis(tmp_path):
                pass
        assert await _value(redis.url, "nothing") is None


async def test_a_port_can_be_given_and_a_folder_may_have_spaces_and_quotes(tmp_path: Path) -> None:
    port = free_port()
    async with embedded_redis(tmp_path / 'my "own" data', port=port) as redis:
        assert redis.port == port


async def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    async with embedded_redis(tmp_path / "one") as redis:
        with pytest.raises(ConfigurationError, match="Address already in use"):
            async with embedded_redis(tmp_path / "two", port=redis.port):
                pass


async def test_what_was_acknowledged_in_durable_mode_survives_kill_9_of_the_server(tmp_path: Path) -> None:
    folder = DataFolder.at(tmp_path)
    acknowledged = 0

    async def write(url: str) -> None:
        nonlocal acknowledged
        async with open_redis(url) as client:
            while True:
                await client.rpush("cg:{t.0}:session:s", acknowledged)
                acknowledged += 1

    async with prepared_redis(folder, durability="durable") as redis:
        child = Child.start(redis.program)
        await until_answering(redis, child)
        writing = asyncio.create_task(write(redis.url))
        await until(lambda: acknowledged >= 200)
        child.kill()
        with pytest.raises(RedisError):
            await writing
    assert acknowledged >= 200
    async with embedded_redis(tmp_path, durability="durable") as redis, open_redis(redis.url) as client:
        kept = await client.lrange("cg:{t.0}:session:s", 0, -1)
    assert [int(item) for item in kept[:acknowledged]] == list(range(acknowledged))


_HOLDER = """
import asyncio, sys
from pathlib import Path
from context_graph.local.redis_server import embedded_redis

async def main():
    async with embedded_redis(Path(sys.argv[1])) as redis:
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def _start_holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", _HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


async def test_the_server_does_not_outlive_a_killed_parent_and_the_next_start_goes_well(tmp_path: Path) -> None:
    holder = _start_holder(tmp_path)
    pid = int(DataFolder.at(tmp_path).redis_pid.read_text())
    url = running_url(tmp_path)
    assert url is not None
    async with open_redis(url) as client:
        await client.set("cg:tenants", "kept")
    holder.kill()
    holder.communicate()
    async with embedded_redis(tmp_path) as redis:  # at once: the old server may still be going down
        assert await _value(redis.url, "cg:tenants") == b"kept"
    await _gone(pid)


async def test_a_server_left_behind_is_stopped_before_another_uses_its_data(tmp_path: Path) -> None:
    async with prepared_redis(DataFolder.at(tmp_path), durability="fast") as redis:
        leftover = _start_unbound(redis.program)  # as where the kernel cannot bind it to its parent
        await wait_until_ready(redis.url, 20)
        async with open_redis(redis.url) as client:
            await client.set("cg:tenants", "kept")
    assert leftover.poll() is None
    async with embedded_redis(tmp_path) as redis:
        assert leftover.poll() == 0
        assert await _value(redis.url, "cg:tenants") == b"kept"


def _start_unbound(program: Program) -> subprocess.Popen[bytes]:
    return subprocess.Popen(program.argv, pass_fds=program.pass_fds)


def test_the_packaged_server_is_preferred() -> None:
    files = find_server()
    assert files.server.is_file()
    assert files.search is not None
    assert files.search.name == "redisearch.so"
