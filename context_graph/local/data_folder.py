"""The data folder of a local installation: where everything lies, who may read it, and that only one uses it.

DIR/lock             held (flock) by the `up` that runs on this folder; its process id is inside
DIR/api-key          the service key, clear, readable by its owner only
DIR/master-key       what wraps the keys that events are sealed with: without it the ledger cannot be read; back it up
DIR/redis-password   the embedded Redis' password, made once
DIR/redis.conf       its configuration, written anew at each start
DIR/redis.port       the port it listens on, there while it is meant to run
DIR/redis.pid        its process id, written and removed by Redis itself
DIR/redis/           its append-only files
DIR/logs/            one file per process
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from context_graph.errors import ConfigurationError

_LONGEST_LOG = 20 * 1024 * 1024  # bytes above which a log is set aside at the next start
_OWNER_ONLY = 0o600


@dataclass(frozen=True, slots=True)
class DataFolder:
    """Paths of one data folder; `root` is absolute."""

    root: Path

    @classmethod
    def at(cls, path: Path) -> DataFolder:
        """The folder at `path`, which need not exist yet."""
        return cls(path.expanduser().resolve())

    @property
    def api_key(self) -> Path:
        return self.root / "api-key"

    @property
    def api_url(self) -> Path:
        return self.root / "api-url"

    @property
    def master_key(self) -> Path:
        return self.root / "master-key"

    @property
    def redis_password(self) -> Path:
        return self.root / "redis-password"

    @property
    def redis_conf(self) -> Path:
        return self.root / "redis.conf"

    @property
    def redis_port(self) -> Path:
        return self.root / "redis.port"

    @property
    def redis_pid(self) -> Path:
        return self.root / "redis.pid"

    @property
    def redis_data(self) -> Path:
        return self.root / "redis"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def log_of(self, name: str) -> Path:
        """Where the process `name` writes what it has to say."""
        return self.logs / f"{name}.log"

    def create(self) -> None:
        """Make the folder and its parts, readable by their owner only."""
        try:
            for folder in (self.root, self.redis_data, self.logs):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"the data folder {self.root} cannot be made: {error}") from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for this process. Raises ConfigurationError when another process has it.

        The lock is the kernel's, so it ends with its holder, however that dies.
        """
        self.create()
        path = self.root / "lock"
        with path.open("a+") as file:
            if not take_lock(file.fileno()):
                file.seek(0)
                raise ConfigurationError(
                    f"`context-graph up` runs on {self.root} already (process {file.read().strip() or 'unknown'}): "
                    "stop it first, or name another folder with --data"
                )
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield

    def set_aside_long_logs(self) -> None:
        """Rename every log that has grown long to `<name>.log.1`."""
        for log in self.logs.glob("*.log"):
            if log.stat().st_size > _LONGEST_LOG:
                log.replace(log.with_suffix(".log.1"))


def take_lock(descriptor: int) -> bool:
    """Try to take the exclusive flock on an open file; False when another open file holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_secret(path: Path, text: str) -> None:
    """Write `text` whole or not at all, readable by the owner only from its first byte on."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def read_text(path: Path) -> str | None:
    """The stripped content of a small file, or None when it is not there or empty."""
    try:
        return path.read_text().strip() or None
    except FileNotFoundError:
        return None
