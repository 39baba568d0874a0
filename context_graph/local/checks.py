"""What readiness and `context-graph doctor` conclude: one table of pure checks over a frozen record of facts.

Each check reads the facts and answers with findings, in plain words and with a remedy; adding a check is adding a row.
Readiness fails on what is `wrong`; the doctor shows everything, and has tried the models too. What a stage may do is
judged by `domain/stages.py`, a server by `domain/redis_safety.py`, models by `model_checks.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from context_graph.domain.findings import Finding
from context_graph.domain.partition import Partition
from context_graph.domain.redis_safety import NEARLY_FULL, PACKED_HASH, RedisFacts, redis_findings
from context_graph.domain.stages import ENRICHMENT, StageLimits, StageProgress, stage_findings
from context_graph.local.model_checks import EmbedderFacts, ModelFacts, model_findings

_COMPARING = 900.0  # seconds; a million events take a few minutes
_UNFED = 60.0  # seconds that workers may take to find a new generation, or to be restarted


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """A partition's vector index: its dimensions, None when there is no index yet, and those it is to have.

    `expected` None: those of the settings.
    """

    partition: str
    dimensions: int | None
    expected: int | None = None


@dataclass(frozen=True, slots=True)
class ArchiveFacts:
    """The archive over all partitions: events in it, its newest ones' age in ms (None: it is empty), what is wrong."""

    url: str
    events: int
    newest_ms: int | None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RebuildFacts:
    """A tenant's newest rebuild: how long it is in this state (s), and its stages that no worker runs."""

    tenant: str
    id: str
    state: str
    problem: str | None
    seconds: float
    unfed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything the checks look at. `redis` is None when the server did not answer; `redis_problem` says why."""

    data_dir: str
    durability: str
    dimensions: int
    limits: StageLimits
    redis: RedisFacts | None
    redis_problem: str | None
    models: tuple[ModelFacts, ...]
    indexes: tuple[IndexFacts, ...] = ()
    embedders: tuple[EmbedderFacts, ...] = ()
    stages: tuple[StageProgress, ...] = ()
    tenants: int = 0
    replicas: int = 1
    """CG_LEDGER__REPLICAS."""
    events: int = 0
    archive: ArchiveFacts | None = None
    behind: tuple[str, ...] = ()
    """Of each partition that lacks events which the archive holds: what, and what to do."""
    rebuilds: tuple[RebuildFacts, ...] = ()
    sealed: bool = True
    """Whether there is a master key."""


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


def _packing(facts: Facts) -> list[Finding]:
    packed = None if facts.redis is None else facts.redis.packed_hash
    if packed is None or packed >= PACKED_HASH:
        return []
    words = f"hash-max-listpack-value is {packed}: documents and vectors take twice the memory"
    return [Finding("warn", "memory", words, f"set `hash-max-listpack-value {PACKED_HASH}`")]


def _models(facts: Facts) -> list[Finding]:
    return model_findings(facts.models, facts.embedders, facts.dimensions)


def _indexes(facts: Facts) -> list[Finding]:
    findings: list[Finding] = []
    for index in facts.indexes:
        if index.dimensions is None and facts.events == 0:
            words = f"partition {index.partition} is empty; the first events make its index"
            findings.append(Finding("ok", "index", words))
        elif index.dimensions is None:
            words = f"partition {index.partition} has no index yet; the enrichment worker makes it"
            findings.append(Finding("warn", "index", words, "start `context-graph worker enrichment`"))
        elif index.dimensions != (index.expected or facts.dimensions):
            expected = index.expected or facts.dimensions
            words = f"partition {index.partition} is indexed with {index.dimensions} dimensions, not {expected}"
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


def _behind(facts: Facts) -> list[Finding]:
    remedy = "nothing is taken there until then"
    return [Finding("wrong", "archive", problem, remedy) for problem in facts.behind]


def _archive(facts: Facts) -> list[Finding]:
    archive = facts.archive
    if archive is None:
        return []
    others = [problem for problem in archive.problems if problem not in facts.behind]
    if others or facts.behind:
        remedy = "run `context-graph archive verify` and bring back what it names; nothing is trimmed meanwhile"
        return [Finding("wrong", "archive", problem, remedy) for problem in others]
    newest = "" if archive.newest_ms is None else f", the newest {archive.newest_ms / 3_600_000:,.1f} h old"
    words = f"{archive.events:,} events in {archive.url}{newest}; {facts.events:,} in Redis"
    return [Finding("ok", "archive", words)]


def _stages(facts: Facts) -> list[Finding]:
    """What is to be said of each partition, and one line for each stage of which nothing is."""
    findings: list[Finding] = []
    sound: dict[str, list[StageProgress]] = {}
    for progress in facts.stages:
        found = stage_findings(progress, facts.limits)
        if progress.living and progress.stage.name == ENRICHMENT.group and _is_away(facts, progress.partition):
            found = [replace(f, level="warn") if f.subject == "stages" else f for f in found]
        findings += found
        if not any(finding.subject == "stages" for finding in found):
            sound.setdefault(progress.stage.name, []).append(progress)
    for name, those in sound.items():
        words = f"{name}: {sum(p.waiting for p in those):,} events to go, workers: {max(p.living for p in those)}"
        findings.append(Finding("ok", "stages", words))
    if facts.stages and not any(progress.dead_letters for progress in facts.stages):
        findings.append(Finding("ok", "dead letters", "none"))
    return findings


def _is_away(facts: Facts, partition: str) -> bool:
    return any(one.away is not None and Partition.parse(partition).tenant == one.tenant for one in facts.embedders)


def _rebuilds(facts: Facts) -> list[Finding]:
    """A failed rebuild costs the live generation nothing; one that does not move holds the ledger and its memory."""
    findings: list[Finding] = []
    for known in facts.rebuilds:
        whose = f"the rebuild {known.id} of {known.tenant}"
        if known.state == "failed":
            words = f"{whose} failed: {known.problem}"
            findings.append(Finding("warn", "rebuild", words, "mend what it names, then `context-graph rebuild` again"))
        elif known.state == "comparing" and known.seconds > _COMPARING:
            words = f"{whose} is being compared for {known.seconds:,.0f} s"
            remedy = "look at the projection worker's log; `context-graph rebuild drop` gives it up"
            findings.append(Finding("wrong", "rebuild", words, remedy))
        elif known.unfed and known.seconds > _UNFED:
            words = f"{whose} does not move: nobody runs {', '.join(known.unfed)}"
            remedy = "start the workers, or give it up by `context-graph rebuild drop`"
            findings.append(Finding("wrong", "rebuild", words, remedy))
    return findings


CHECKS: tuple[Callable[[Facts], list[Finding]], ...] = (
    _reachable,
    _configuration,
    _memory,
    _packing,
    _models,
    _ledger,
    _behind,
    _archive,
    _sealing,
    _indexes,
    _stages,
    _rebuilds,
)
