"""Commands of the command line, run as an operator runs them, for tests."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from context_graph.cli.main import build_app
from context_graph.settings import Settings


def operated_here(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment of an operator, on the test's Redis."""
    assert settings.redis_url is not None
    monkeypatch.setenv("CG_REDIS_URL", settings.redis_url.get_secret_value())
    monkeypatch.setenv("CG_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr("context_graph.cli.rebuilding.configure_logging", lambda settings: None)


async def said(*words: str) -> Result:
    """What a command prints, run in a thread of its own as a process would be; raises what it raises."""
    result = await asyncio.to_thread(CliRunner().invoke, build_app(), list(words))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
