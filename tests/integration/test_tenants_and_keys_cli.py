"""`context-graph tenants` and `keys`: what an operator does at the machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from context_graph.cli.main import build_app
from context_graph.errors import AlreadyExists, ConfigurationError, UnknownThing
from context_graph.local.redis_server import EmbeddedRedis
from context_graph.settings import Settings


@pytest.fixture
def on_this_machine(
    redis_server: EmbeddedRedis, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The environment of an operator, on the test's empty Redis."""
    del settings  # it has emptied the Redis
    monkeypatch.setenv("CG_REDIS_URL", redis_server.url)
    monkeypatch.setenv("CG_DATA_DIR", str(tmp_path))


def said(*words: str) -> Result:
    """What a command prints; raises what it raises."""
    result = CliRunner().invoke(build_app(), list(words), catch_exceptions=False)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.usefixtures("on_this_machine")
def test_a_tenant_gets_its_quotas_and_a_key_that_is_listed_rotated_and_revoked() -> None:
    said("tenants", "create", "acme", "--buckets", "2", "--events-per-second", "500", "--stored-events", "10000")
    with pytest.raises(AlreadyExists, match="acme"):
        said("tenants", "create", "acme")
    listed = said("tenants", "list").stdout
    assert "acme" in listed
    assert "500" in listed
    assert "10,000" in listed

    made = said("keys", "create", "ops", "--tenant", "acme", "--scope", "operator", "--scope", "read")
    key = made.stdout.strip()
    assert key.startswith("cg_")
    [line] = [line for line in said("keys", "list", "--tenant", "acme").stdout.splitlines() if "ops" in line]
    key_id = line.split()[0]
    assert "operator read" in line
    assert key not in line

    rotated = said("keys", "rotate", key_id, "--grace", "60")
    assert rotated.stdout.strip() not in (key, "")
    assert len(said("keys", "list").stdout.splitlines()) == 3
    assert "revoked" in said("keys", "revoke", key_id).stdout
    with pytest.raises(UnknownThing):
        said("keys", "revoke", key_id)
    assert len(said("keys", "list").stdout.splitlines()) == 2


@pytest.mark.usefixtures("on_this_machine")
def test_what_cannot_be_is_told_with_its_reason() -> None:
    with pytest.raises(UnknownThing, match="nobody"):
        said("keys", "create", "x", "--tenant", "nobody")
    with pytest.raises(ConfigurationError, match="name"):
        said("tenants", "create", "Not A Name")
    said("tenants", "create", "default")
    with pytest.raises(ConfigurationError, match="offset"):
        said("keys", "create", "x", "--expires-at", "2030-01-01T00:00:00")
    with pytest.raises(ConfigurationError, match="root"):
        said("keys", "create", "x", "--scope", "root")
