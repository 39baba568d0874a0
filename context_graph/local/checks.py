"""What `context-graph doctor` concludes: a table of pure checks over a frozen record of facts.

Each check reads the facts and answers with findings, in plain words and with a remedy; adding a check is adding a row.
How the facts were gathered is the command's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from context_graph.domain.redis_safety import NEARLY_FULL, RedisFacts, redis_findings

Level = Literal["ok", "warn", "wrong"]


_MANY_BEHIND = 1_000  # events that an operator should know to be waiting


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model after a trial: its name, what it is for, what went wrong, and the numbers of a vector it made."""

    name: str
    use: str
    problem: str | None = None
    dimensions: int | None = None


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """A partition's vector index: its dimensions, None when there is no index yet."""

    partition: str
    dimensions: int | None


@dataclass(frozen=True, slots=True)
class StageFacts:
    """How far a stage is over all partitions: events undelivered and unfinished, living workers, their idle time."""

    group: str
    worker: str
    lag: int
    pending: int
    idle_seconds: float | None
    living: int
    dead_letters: int


@dataclass(frozen=True, slots=True)
class ArchiveFacts:
    """The archive over all partitions: events in it, its newest ones' age in ms (None: it is empty), what is wrong."""

    url: str
    events: int
    newest_ms: int | None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything the checks look at. `redis` is None when the server did not answer; `redis_problem` says why."""

    data_dir: str
    durability: str
    dimensions: int
    stall_seconds: float
    dead_letter_limit: int
    redis: RedisFacts | None
    redis_problem: str | None
    models: tuple[ModelFacts, ...]
    indexes: tuple[IndexFacts, ...] = ()
    stages: tuple[StageFacts, ...] = ()
    tenants: int = 0
    replicas: int = 1
    """CG_LEDGER__REPLICAS."""
    events: int = 0
    archive: ArchiveFacts | None = None
    sealed: bool = True
    """Whether there is a master key."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's answer."""

    level: Level
    subject: str
    words: str
    remedy: str = ""


def examine(facts: Facts) -> list[Finding]:
    """Every check's findings, in the order of the table."""
    return [finding for check in CHECKS for finding in check(facts)]


def _reachable(facts: Facts) -> list[Finding]:
    if facts.redis is None:
        return [
            Finding(
                "wrong",
                "redis",
                facts.redis_problem or "Redis does not answer",
                f"start it with `context-graph up --data {facts.data_dir}`, or set CG_REDIS_URL",
            )
        ]
    return [Finding("ok", "redis", "Redis answers")]


def _configuration(facts: Facts) -> list[Finding]:
    if facts.redis is None:
        return []
    return [
        Finding("wrong", "redis", found.problem, found.remedy) if found.problem else Finding("ok", "redis", found.fact)
        for found in redis_findings(facts.redis, facts.durability, facts.replicas)
    ]


def _memory(facts: Facts) -> list[Finding]:
    redis = facts.redis
    if redis is None:
        return []
    used = f"{redis.used_memory / 2**20:,.0f} MiB used"
    if redis.max_memory == 0:
        remedy = "set `maxmemory` below the machine's memory: writes are then refused in time, and nothing is killed"
        return [Finding("warn", "memory", f"{used}, without a limit", remedy)]
    words = f"{used} of {redis.max_memory / 2**20:,.0f} MiB ({redis.used_share:.0%})"
    if redis.used_share >= 1:
        return [
            Finding("wrong", "memory", f"{words}: writes are refused", "give Redis more memory, or archive and trim")
        ]
    if redis.used_share >= NEARLY_FULL:
        return [Finding("warn", "memory", f"{words}: nearly full", "give Redis more memory, or archive and trim")]
    return [Finding("ok", "memory", words)]


def _models(facts: Facts) -> list[Finding]:
    return [_model(model, facts.dimensions) for model in facts.models]


def _model(model: ModelFacts, dimensions: int) -> Finding:
    if model.problem is not None:
        return Finding(
            "wrong", "models", f"{model.use}: {model.problem}", "install the extra `models`, or set its path"
        )
    if model.dimensions is None:
        return Finding("ok", "models", f"{model.use}: {model.name} loads")
    if model.dimensions != dimensions:
        return Finding(
            "wrong",
            "models",
            f"{model.use}: {model.name} gives {model.dimensions} numbers, CG_EMBEDDING__DIMENSIONS says {dimensions}",
            f"set CG_EMBEDDING__DIMENSIONS={model.dimensions}, or name another model",
        )
    return Finding("ok", "models", f"{model.use}: {model.name} loads and gives {model.dimensions} numbers")


def _indexes(facts: Facts) -> list[Finding]:
    findings: list[Finding] = []
    for index in facts.indexes:
        if index.dimensions is None and facts.events == 0:
            words = f"partition {index.partition} is empty; the first events make its index"
            findings.append(Finding("ok", "index", words))
        elif index.dimensions is None:
            words = f"partition {index.partition} has no index yet; the enrichment worker makes it"
            findings.append(Finding("warn", "index", words, "start `context-graph worker enrichment`"))
        elif index.dimensions != facts.dimensions:
            words = f"partition {index.partition} is indexed with {index.dimensions} dimensions, not {facts.dimensions}"
            remedy = f"set CG_EMBEDDING__DIMENSIONS={index.dimensions}, or rebuild the index"
            findings.append(Finding("wrong", "index", words, remedy))
        else:
            words = f"partition {index.partition} is indexed with {index.dimensions} dimensions"
            findings.append(Finding("ok", "index", words))
    return findings


def _ledger(facts: Facts) -> list[Finding]:
    if facts.redis is None:
        return []
    if facts.tenants == 0:
        return [Finding("warn", "ledger", "there is no tenant yet", "the first `context-graph up` makes one")]
    return [Finding("ok", "ledger", f"{facts.events:,} events, tenants: {facts.tenants}")]


def _sealing(facts: Facts) -> list[Finding]:
    if facts.sealed:
        return [Finding("ok", "erasure", "events are sealed: people and sessions can be erased")]
    words = "there is no master key: events are kept in the clear, and nobody can be erased"
    remedy = "set CG_VAULT__MASTER_KEY (`openssl rand -base64 32`) for the API and every worker, and keep a copy of it"
    return [Finding("warn", "erasure", words, remedy)]


def _archive(facts: Facts) -> list[Finding]:
    archive = facts.archive
    if archive is None:
        return []
    if archive.problems:
        remedy = "run `context-graph archive verify` and bring back what it names; nothing is trimmed meanwhile"
        return [Finding("wrong", "archive", problem, remedy) for problem in archive.problems]
    newest = "" if archive.newest_ms is None else f", the newest {archive.newest_ms / 3_600_000:,.1f} h old"
    words = f"{archive.events:,} events in {archive.url}{newest}; {facts.events:,} in Redis"
    return [Finding("ok", "archive", words)]


def _stages(facts: Facts) -> list[Finding]:
    return [_stage(stage, facts.stall_seconds) for stage in facts.stages]


def _stage(stage: StageFacts, stall_seconds: float) -> Finding:
    behind = stage.lag + stage.pending
    words = f"{stage.group}: {behind:,} events to go, workers: {stage.living}"
    if stage.living == 0:
        return Finding("wrong", "stages", words, f"start `context-graph worker {stage.worker}`")
    if behind and stage.idle_seconds is not None and stage.idle_seconds > stall_seconds:
        age = f"none was taken for {stage.idle_seconds:.0f} s"
        return Finding("wrong", "stages", f"{words}, {age}", f"look at the log of worker {stage.worker}")
    if behind > _MANY_BEHIND:
        return Finding("warn", "stages", words, f"it goes on by itself; sooner with more `worker {stage.worker}`")
    return Finding("ok", "stages", words)


def _dead_letters(facts: Facts) -> list[Finding]:
    findings: list[Finding] = []
    for stage in facts.stages:
        if stage.dead_letters:
            level: Level = "wrong" if stage.dead_letters > facts.dead_letter_limit else "warn"
            words = f"{stage.group}: {stage.dead_letters:,} events could not be handled"
            findings.append(Finding(level, "dead letters", words, f"look at the log of worker {stage.worker}"))
    if facts.stages and not findings:
        findings.append(Finding("ok", "dead letters", "none"))
    return findings


CHECKS: tuple[Callable[[Facts], list[Finding]], ...] = (
    _reachable,
    _configuration,
    _memory,
    _models,
    _ledger,
    _archive,
    _sealing,
    _indexes,
    _stages,
    _dead_letters,
)
