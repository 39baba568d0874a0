"""`context-graph doctor`: every kind of trouble is named with its remedy, and the exit code tells right from wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from context_graph.bootstrap import Resources
from context_graph.cli.doctor import gather
from context_graph.domain.findings import Finding
from context_graph.domain.redis_safety import PACKED_HASH, RedisFacts, redis_problems, version_numbers
from context_graph.domain.stages import PROJECTION, StageLimits, StageProgress
from context_graph.local.checks import Facts, IndexFacts, examine
from context_graph.local.data_folder import DataFolder
from context_graph.local.model_checks import EmbedderFacts, ModelFacts
from context_graph.local.redis_server import embedded_redis
from context_graph.settings import Settings
from context_graph.store.connection import open_redis
from context_graph.store.readiness import read_redis_facts

WELL = RedisFacts(
    version="8.2.3",
    search_version="2.10.5",
    append_only=True,
    fsync="everysec",
    eviction="noeviction",
    max_memory=1000,
    used_memory=100,
    last_append_ok=True,
    last_rewrite_ok=True,
    replicas=0,
)
STAGE = StageProgress("t.0", PROJECTION, lag=0, pending=0, waiting_seconds=0.0, living=1, idle_seconds=None)
HEALTHY = Facts(
    data_dir=".context-graph",
    durability="fast",
    dimensions=384,
    limits=StageLimits(stall_seconds=60, dead_letters=100, parked=1000),
    redis=WELL,
    redis_problem=None,
    models=(ModelFacts("minilm", "vectors", dimensions=384), ModelFacts("spacy", "entities")),
    indexes=(IndexFacts("default.0", 384),),
    stages=(STAGE,),
    tenants=1,
    events=10,
)

AWAY = ModelFacts("minilm", "vectors", away="the embedder did not answer", remote=True)


def _troubles(facts: Facts) -> list[Finding]:
    return [finding for finding in examine(facts) if finding.level != "ok"]


def _with_redis(**changes: object) -> Facts:
    return replace(HEALTHY, redis=replace(WELL, **changes))  # type: ignore[arg-type]


def test_nothing_is_said_against_a_healthy_service() -> None:
    assert _troubles(HEALTHY) == []
    assert redis_problems(WELL, "fast") == []


@pytest.mark.parametrize(
    ("facts", "level", "words", "remedy"),
    [
        (replace(HEALTHY, redis=None, redis_problem="away"), "wrong", "away", "context-graph up"),
        (_with_redis(version="7.0.15"), "wrong", "7.0.15 is too old", "7.4 or newer"),
        (_with_redis(search_version=None), "wrong", "no search module", "redisearch.so"),
        (_with_redis(append_only=False), "wrong", "append-only file is off", "appendonly yes"),
        (_with_redis(fsync="no"), "wrong", "appendfsync is no", "appendfsync everysec"),
        (replace(HEALTHY, durability="durable"), "wrong", "appendfsync is everysec", "appendfsync always"),
        (_with_redis(eviction="allkeys-lru"), "wrong", "allkeys-lru", "noeviction"),
        (_with_redis(last_append_ok=False), "wrong", "last write", "disk"),
        (_with_redis(last_rewrite_ok=False), "wrong", "last rewrite", "disk"),
        (_with_redis(packed_hash=64), "warn", "twice the memory", "hash-max-listpack-value 16384"),
        (_with_redis(max_memory=0), "warn", "without a limit", "maxmemory"),
        (_with_redis(used_memory=950), "warn", "nearly full", "more memory"),
        (_with_redis(used_memory=1000), "wrong", "writes are refused", "more memory"),
        (replace(HEALTHY, models=(ModelFacts("m", "vectors", problem="no folder"),)), "wrong", "no folder", "models"),
        (replace(HEALTHY, models=(ModelFacts("m", "vectors", dimensions=768),)), "wrong", "768", "DIMENSIONS=768"),
        (replace(HEALTHY, models=(AWAY,)), "warn", "did not answer", "CG_EMBEDDING__URL"),
        (
            replace(HEALTHY, models=(AWAY,), embedders=(EmbedderFacts("t", away="did not answer"),)),
            "warn",
            "t: did not answer",
            "CG_EMBEDDING__URL",
        ),
        (replace(HEALTHY, models=(replace(AWAY, away=None, problem="refused"),)), "wrong", "refused", "mend what"),
        (replace(HEALTHY, models=(replace(AWAY, away=None, dimensions=512),)), "wrong", "512 numbers", "rebuild"),
        (replace(HEALTHY, indexes=(IndexFacts("t.0", 768),)), "wrong", "768 dimensions, not 384", "rebuild"),
        (replace(HEALTHY, indexes=(IndexFacts("t.0", None),)), "warn", "no index yet", "worker enrichment"),
        (
            replace(HEALTHY, stages=(replace(STAGE, living=0, lag=3, waiting_seconds=61.0),)),
            "wrong",
            "3 events wait",
            "worker projection",
        ),
        (replace(HEALTHY, stages=(replace(STAGE, living=0),)), "warn", "no worker lives", "worker projection"),
        (
            replace(HEALTHY, stages=(replace(STAGE, pending=1, waiting_seconds=61.0, idle_seconds=61.0),)),
            "wrong",
            "taken none for 61 s",
            "log of worker projection",
        ),
        (replace(HEALTHY, stages=(replace(STAGE, lag=5000, idle_seconds=0.5),)), "warn", "5,000 events", "by itself"),
        (replace(HEALTHY, stages=(replace(STAGE, dead_letters=2),)), "warn", "2 dead letters", "re-drive"),
        (replace(HEALTHY, stages=(replace(STAGE, dead_letters=101),)), "wrong", "101 dead letters", "re-drive"),
        (replace(HEALTHY, tenants=0, indexes=(), stages=()), "warn", "no tenant", "up"),
    ],
)
def test_each_trouble_is_said_once_with_its_remedy(facts: Facts, level: str, words: str, remedy: str) -> None:
    (trouble,) = _troubles(facts)
    assert trouble.level == level
    assert words in trouble.words
    assert remedy in trouble.remedy


def test_a_replicated_ledger_needs_a_replica() -> None:
    always = replace(WELL, fsync="always")
    (problem,) = redis_problems(always, "replicated")
    assert "no replica" in problem
    assert redis_problems(replace(always, replicas=1), "replicated") == []


def test_a_policy_that_the_server_keeps_to_itself_is_not_held_against_it() -> None:
    assert redis_problems(replace(WELL, fsync=None, eviction=None), "durable") == []


def test_versions_compare_as_numbers() -> None:
    assert version_numbers("8.10.1") > version_numbers("8.2.3")
    assert version_numbers("7.4.0-v1") == (7, 4, 0)
    assert version_numbers("255.255.255")[:2] >= (7, 4)


async def test_facts_of_a_real_server_follow_its_configuration(tmp_path: Path) -> None:
    async with embedded_redis(tmp_path) as redis, open_redis(redis.url) as client:
        assert (await read_redis_facts(client)).max_memory == 0
        for name, value in (("maxmemory", "64mb"), ("maxmemory-policy", "allkeys-lru"), ("appendfsync", "always")):
            await client.config_set(name, value)
        await client.config_set("appendonly", "no")
        facts = await read_redis_facts(client)
    assert (facts.max_memory, facts.eviction, facts.fsync) == (64 * 2**20, "allkeys-lru", "always")
    assert facts.packed_hash == PACKED_HASH
    assert 0 < facts.used_share < 1
    assert not facts.append_only
    assert len(redis_problems(facts, "fast")) == 2


async def test_a_server_that_forbids_config_still_tells_enough(redis_url: str) -> None:
    async with open_redis(redis_url) as client:
        await client.execute_command(  # type: ignore[no-untyped-call]
            "ACL", "SETUSER", "limited", "on", ">pw", "~*", "&*", "+@all", "-config"
        )
        host = redis_url.rpartition("@")[2]
        async with open_redis(f"redis://limited:pw@{host}") as limited:
            facts = await read_redis_facts(limited)
        await client.execute_command("ACL", "DELUSER", "limited")  # type: ignore[no-untyped-call]
    assert facts.fsync is None
    assert facts.eviction == "noeviction"
    assert redis_problems(facts, "fast") == []


async def test_gathering_sees_the_ledger_and_stages_without_workers(settings: Settings, resources: Resources) -> None:
    await resources.tenants.ensure("default", 2)
    facts = await gather(settings)
    assert facts.redis is not None
    assert facts.redis.search_version is not None
    assert [model.problem for model in facts.models] == [None, None]
    assert facts.models[0].dimensions == 384
    assert (facts.tenants, facts.events) == (1, 0)
    assert {stage.stage.group: stage.living for stage in facts.stages} == {
        "projection": 0,
        "indexing": 0,
        "enrichment": 0,
    }
    assert [index.partition for index in facts.indexes] == ["default.0", "default.1"]


def _doctor(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CG_")}
    return subprocess.run(
        [sys.executable, "-m", "context_graph.cli.main", "doctor", "--data", str(folder)],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


async def test_the_folder_s_master_key_counts_while_the_service_is_stopped(tmp_path: Path) -> None:
    settings = Settings(redis_url=None, data_dir=tmp_path)
    assert not (await gather(settings)).sealed
    DataFolder.at(tmp_path).master_key.write_text("AAAA")
    assert (await gather(settings)).sealed


def test_without_a_redis_it_says_how_to_start_one(tmp_path: Path) -> None:
    answer = _doctor(tmp_path)
    assert answer.returncode == 1
    assert f"context-graph up --data {tmp_path}" in answer.stdout
    assert answer.stderr == ""


def test_a_sound_service_is_exit_code_0_and_an_unsafe_one_1(redis_url: str, tmp_path: Path) -> None:
    sound = _doctor(tmp_path, CG_REDIS_URL=redis_url)
    assert sound.returncode == 0, sound.stdout + sound.stderr
    assert "Nothing is wrong" in sound.stdout
    unsafe = _doctor(tmp_path, CG_REDIS_URL=redis_url, CG_LEDGER__DURABILITY="durable")
    assert unsafe.returncode == 1
    assert "appendfsync always" in unsafe.stdout


def test_a_setting_that_is_wrong_is_named_in_one_line(tmp_path: Path) -> None:
    answer = _doctor(tmp_path, CG_LEDGER__DURABILITY="eternal")
    assert answer.returncode == 1
    assert answer.stderr.startswith("context-graph: the settings are not valid: CG_LEDGER__DURABILITY:")
    assert "Traceback" not in answer.stderr


def test_the_command_line_starts_without_loading_models_or_the_web_framework() -> None:
    heavy = ("fastembed", "spacy", "litellm", "onnxruntime", "tiktoken", "fastapi", "uvicorn")
    code = f"import sys, context_graph.cli.main; print([m for m in {heavy!r} if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout.strip() == "[]"


def test_wrong_usage_is_exit_code_2() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "context_graph.cli.main", "up", "--no-such-option"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert said.returncode == 2
