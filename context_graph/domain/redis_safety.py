"""Which Redis configurations can lose what was acknowledged, in plain words.

Pure: facts in, sentences out. The API's readiness and `context-graph doctor` say the same because both ask here; how
the facts are read from a server is the store's business.
"""

from __future__ import annotations

from dataclasses import dataclass

BASELINE = (7, 4)
"""The oldest Redis that the service supports: the first with hash-field expiry and the current stream commands."""

PACKED_HASH = 16_384
"""`hash-max-listpack-value` that documents and vectors need to be lists: as tables they take twice the memory."""

NEARLY_FULL = 0.9
"""Share of `maxmemory` above which an operator should act; at 1.0 Redis refuses every write."""


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """What a server says of itself. None where it would not say (managed servers forbid CONFIG)."""

    version: str
    search_version: str | None
    """Version of the search module, None when it is not loaded."""
    append_only: bool
    fsync: str | None
    """`always`, `everysec` or `no`."""
    eviction: str | None
    """The `maxmemory-policy`."""
    max_memory: int
    """Bytes; 0: no limit."""
    used_memory: int
    """Bytes."""
    last_append_ok: bool
    last_rewrite_ok: bool
    replicas: int
    """Connected replicas."""
    packed_hash: int | None = None
    """`hash-max-listpack-value`, bytes."""

    @property
    def used_share(self) -> float:
        """Used memory as a share of `max_memory`, 0.0 without a limit."""
        return self.used_memory / self.max_memory if self.max_memory else 0.0


def version_numbers(version: str) -> tuple[int, ...]:
    """`8.2.3` as (8, 2, 3); what is not a number ends it."""
    numbers: list[int] = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)


def is_old(version: str) -> bool:
    """Whether a server of this version is older than the baseline."""
    return version_numbers(version)[:2] < BASELINE


def fsync_for(durability: str) -> str:
    """The `appendfsync` that a durability (CG_LEDGER__DURABILITY) needs."""
    return "everysec" if durability == "fast" else "always"


@dataclass(frozen=True, slots=True)
class RedisFinding:
    """One aspect of a server: what it is (`fact`), and what is wrong with that and what to do, or None and empty."""

    fact: str
    problem: str | None = None
    remedy: str = ""


def redis_findings(facts: RedisFacts, durability: str, replicas: int = 1) -> list[RedisFinding]:
    """Every aspect that decides whether the server is fit for the ledger; `durability` is CG_LEDGER__DURABILITY.

    `replicas` is CG_LEDGER__REPLICAS, which counts for `replicated` alone.

    An fsync or eviction policy that the server keeps to itself is not counted against it.
    """
    return [
        _version(facts),
        _search(facts),
        _append_only(facts),
        _fsync(facts, durability),
        _eviction(facts),
        _last_writes(facts),
        *([_replica(facts, replicas)] if durability == "replicated" else []),
    ]


def redis_problems(facts: RedisFacts, durability: str, replicas: int = 1) -> list[str]:
    """What is wrong with the server, one sentence each with what to do; empty when it is fit for the ledger."""
    findings = redis_findings(facts, durability, replicas)
    return [f"{found.problem}: {found.remedy}" for found in findings if found.problem]


def _version(facts: RedisFacts) -> RedisFinding:
    if is_old(facts.version):
        return RedisFinding("version", f"Redis {facts.version} is too old", "use Redis 7.4 or newer")
    return RedisFinding(f"Redis {facts.version}")


def _search(facts: RedisFacts) -> RedisFinding:
    if facts.search_version is None:
        return RedisFinding("search", "Redis has no search module", "use Redis 8, or load redisearch.so")
    return RedisFinding(f"search module {facts.search_version} is loaded")


def _append_only(facts: RedisFacts) -> RedisFinding:
    if not facts.append_only:
        return RedisFinding("append-only file", "the append-only file is off", "set `appendonly yes`")
    return RedisFinding("the append-only file is on")


def _fsync(facts: RedisFacts, durability: str) -> RedisFinding:
    needed = fsync_for(durability)
    if facts.fsync is None:
        return RedisFinding("the server does not tell its fsync policy")
    if facts.fsync not in ("always", needed):
        return RedisFinding(
            "fsync",
            f"appendfsync is {facts.fsync}, which CG_LEDGER__DURABILITY={durability} cannot rest on",
            f"set `appendfsync {needed}`",
        )
    return RedisFinding(f"appendfsync is {facts.fsync}, enough for CG_LEDGER__DURABILITY={durability}")


def _eviction(facts: RedisFacts) -> RedisFinding:
    if facts.eviction not in (None, "noeviction"):
        return RedisFinding(
            "eviction",
            f"maxmemory-policy is {facts.eviction}, which deletes events when memory is short",
            "set `maxmemory-policy noeviction`",
        )
    return RedisFinding(f"maxmemory-policy is {facts.eviction or 'not told by the server'}")


def _last_writes(facts: RedisFacts) -> RedisFinding:
    if not facts.last_append_ok:
        return RedisFinding("last write", "the last write to the append-only file failed", "look at the server's disk")
    if not facts.last_rewrite_ok:
        return RedisFinding(
            "last rewrite", "the last rewrite of the append-only file failed", "look at the server's disk and log"
        )
    return RedisFinding("the last writes to disk went well")


def _replica(facts: RedisFacts, wanted: int) -> RedisFinding:
    if facts.replicas == 0:
        return RedisFinding(
            "replica",
            "no replica is connected, which CG_LEDGER__DURABILITY=replicated rests on",
            "connect one, or choose `durable`",
        )
    if facts.replicas < wanted:
        return RedisFinding(
            "replica",
            f"connected replicas: {facts.replicas}, CG_LEDGER__REPLICAS={wanted}",
            "connect more, or lower the setting",
        )
    return RedisFinding(f"connected replicas: {facts.replicas}")
