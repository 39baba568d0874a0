"""Every key the service writes, its type and its lifetime.

A partition's keys share its hash tag, so scripts are atomic and a cluster keeps them together. What is derived carries
a generation after the tag: a rebuild fills another generation beside the live one. `CATALOGUE` lists every pattern; a
test fixture fails the test that leaves a key without a home in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from context_graph.domain.partition import Partition

TENANTS = "cg:tenants"
API_KEYS = "cg:api-keys"
API_KEYS_USED = "cg:api-keys-used"
QUOTAS = "cg:quotas"
WORKERS = "cg:workers"
"""Consumer -> ms of its last heartbeat: those that live, and those that died within the last hour."""
WAKE_CHANNEL = "cg:wake"
PEPPER = "pepper"
"""A field of a vault beside the tags, which have 16 characters."""


def quota_tokens(tenant: str) -> str:
    """What is left in a tenant's token buckets; all API processes draw from it."""
    return f"cg:quota:{tenant}"


def model_usage(tenant: str) -> str:
    """What a tenant has asked of the language model: totals, and `day:<date>` -> tokens of that day."""
    return f"cg:model-usage:{tenant}"


def forgetting_policy(tenant: str) -> str:
    """A tenant's policy of forgetting (JSON)."""
    return f"cg:forgetting:{tenant}"


def consolidation_runs(tenant: str) -> str:
    """Run id -> what was asked for and what came of it (JSON)."""
    return f"cg:consolidation-runs:{tenant}"


ASKED_RUNS = "cg:consolidation-asked"
"""`<tenant> <run id>` -> ms since when it waits for a worker."""


def schemas(tenant: str) -> str:
    """A tenant's registry of payload schemas: `mode`, `revision`, and `<event type>@<version>` -> JSON Schema."""
    return f"cg:schemas:{tenant}"


def idempotency(tenant: str, digest: str) -> str:
    """A request's mark while it runs, then its answer. `digest`: of its route and Idempotency-Key."""
    return f"cg:idempotency:{tenant}:{digest}"


def worker_heartbeat(consumer: str) -> str:
    """What the worker has done so far (JSON); it exists while the worker lives."""
    return f"cg:worker:{consumer}"


def generations(tenant: str) -> str:
    """A tenant's table of generations (JSON): which one is read, which are fed, what each is made by."""
    return f"cg:{{{tenant}.0}}:generations"


@dataclass(frozen=True, slots=True)
class PartitionKeys:
    """Keys of the ledger's side of a partition: durable, never rebuilt."""

    partition: Partition

    @property
    def _tag(self) -> str:
        return f"cg:{self.partition.tag}"

    @property
    def ledger(self) -> str:
        return f"{self._tag}:ledger"

    @property
    def ids(self) -> str:
        """event id -> stream id and content hash: the deduplication, for as long as the event exists."""
        return f"{self._tag}:ids"

    def session_events(self, session_id: str) -> str:
        """Stream ids of a session in ledger order."""
        return f"{self._tag}:session:{session_id}"

    @property
    def vault(self) -> str:
        """Subject tag -> its data key, wrapped by the master key; `pepper` -> what tags are made with, wrapped too."""
        return f"{self._tag}:vault"

    @property
    def erased(self) -> str:
        """Subject tag -> erasure id: whose key was destroyed."""
        return f"{self._tag}:erased"

    @property
    def erasures(self) -> str:
        """Erasure id -> its record and certificate (JSON). In a tenant's first partition."""
        return f"{self._tag}:erasures"

    @property
    def erasing(self) -> str:
        """Ids of the erasures that are not done. In a tenant's first partition."""
        return f"{self._tag}:erasing"

    @property
    def dead_letters(self) -> str:
        return f"{self._tag}:dead"

    @property
    def dead_places(self) -> str:
        """`<group>/<stream id>` -> id of its dead letter."""
        return f"{self._tag}:dead:places"

    @property
    def dead_counts(self) -> str:
        """Group -> its dead letters; `lost/<group>` -> events that are nowhere any more."""
        return f"{self._tag}:dead:counts"

    def held(self, group: str) -> str:
        """Session -> the group's dead letters in it."""
        return f"{self._tag}:held:{group}"

    def again(self, group: str) -> str:
        """Entries that the group gets once more: sort key -> ms from when on one may be taken."""
        return f"{self._tag}:again:{group}"

    def tries(self, group: str) -> str:
        """Sort key -> deliveries of an entry in `again` or `parked`."""
        return f"{self._tag}:tries:{group}"

    def parked(self, group: str) -> str:
        """Entries that wait behind a failed one of their session, by bytes: session, NUL, sort key."""
        return f"{self._tag}:parked:{group}"

    def gaps(self, group: str) -> str:
        """Last id of a stretch that was trimmed before the group had read it -> how far it was made good (JSON)."""
        return f"{self._tag}:gaps:{group}"

    def lease(self, name: str) -> str:
        return f"{self._tag}:lease:{name}"

    @property
    def replication_mark(self) -> str:
        """Rewritten after each append that waits for replicas: a repeated append too needs a write to wait for."""
        return f"{self._tag}:replication-mark"

    @property
    def archived(self) -> str:
        """Up to where the stream is archived, and up to where it was trimmed: the archive's manifests are the truth."""
        return f"{self._tag}:archived"

    def fence(self, name: str) -> str:
        """The counter that numbers a lease's holders."""
        return f"{self._tag}:fence:{name}"


MOST_CHUNKS = 8
"""Vectors of one document at most; a digit in their keys."""


@dataclass(frozen=True, slots=True)
class GraphKeys:
    """Keys of what is derived in a partition: one generation of graph and index."""

    partition: Partition
    generation: int = 1

    @property
    def tag(self) -> str:
        return f"cg:{self.partition.tag}:g{self.generation}"

    # nodes
    def event(self, event_id: str) -> str:
        """An event's attributes (Stage 1) and its entities (Stage 2)."""
        return f"{self.tag}:event:{event_id}"

    def entity(self, entity_id: str) -> str:
        return f"{self.tag}:entity:{entity_id}"

    def summary(self, scope: str) -> str:
        """The newest summary of a scope (`session/<id>`)."""
        return f"{self.tag}:summary:{scope}"

    def episodes(self, session_id: str) -> str:
        """Episodes of a session as last cut, by index."""
        return f"{self.tag}:episodes:{session_id}"

    # timelines: score = occurred_at ms, member = position sort key + event id
    def timeline(self, kind: str, identifier: str) -> str:
        """Events of a session, agent, user, tool or entity in order of occurrence."""
        return f"{self.tag}:timeline:{kind}:{identifier}"

    def effects(self, event_id: str) -> str:
        """Events that name this one as a cause; there even before this one has arrived."""
        return f"{self.tag}:effects:{event_id}"

    def registry(self, kind: str) -> str:
        """Identifiers of a kind (session, agent, user, tool, entity) by their latest occurrence."""
        return f"{self.tag}:registry:{kind}"

    def session(self, session_id: str) -> str:
        """What appears in a session (`agent:support`, `user:`, `tool:`, `type:`) -> sort key of its first position."""
        return f"{self.tag}:session:{session_id}"

    @property
    def started(self) -> str:
        """Sessions by their first position, which no later event changes."""
        return f"{self.tag}:started"

    # entities: score 0, read by ranges of their members (store/entities.py)
    @property
    def entity_names(self) -> str:
        """Every entity's id, and every block by which it is looked up."""
        return f"{self.tag}:names"

    @property
    def entity_decisions(self) -> str:
        """What was ever decided about two names."""
        return f"{self.tag}:decisions"

    # what came of it: score 0, members as on timelines, so that their order is the ledger's
    def receipts(self, of: str, identifier: str) -> str:
        """Receipts of the contexts that held an event, told about a user, or were served to a session or an agent."""
        return f"{self.tag}:receipts:{of}:{identifier}"

    def versions(self, scope: str) -> str:
        """Every summary of a scope."""
        return f"{self.tag}:versions:{scope}"

    def feedback(self, event_id: str) -> str:
        """Opinions on an event: `uses`, and receipt (or citing event) and position -> verdict."""
        return f"{self.tag}:feedback:{event_id}"

    @property
    def opined(self) -> str:
        """Events that anybody has an opinion on: where nobody has, no question reads any."""
        return f"{self.tag}:opined"

    # what was learned: facts and preferences
    def fact(self, fact_id: str) -> str:
        """A fact: `at` (sort key), and the rest as JSON."""
        return f"{self.tag}:fact:{fact_id}"

    def facts(self, of: str, identifier: str) -> str:
        """Facts of all, a user, session, subject, statement, an event that is evidence; who said that a fact ended."""
        return f"{self.tag}:facts:{of}:{identifier}"

    def superseded(self, fact_id: str) -> str:
        """Sort key of what says so -> what took the fact's place, and since when (JSON)."""
        return f"{self.tag}:superseded:{fact_id}"

    # what is forgotten
    def forgotten(self, session_id: str) -> str:
        """Decisions about stretches of a session: sort key of the decision -> verdict, time and stretches (JSON)."""
        return f"{self.tag}:forgotten:{session_id}"

    @property
    def pins(self) -> str:
        """Event id -> sort key of the newest decision, then 1 for pinned, 0 for not any more."""
        return f"{self.tag}:pins"

    @property
    def pin_decisions(self) -> str:
        """Sorted set: every decision about a pin, in the order of the ledger."""
        return f"{self.tag}:pin-decisions"

    def sessions_of(self, user_id: str) -> str:
        """Sessions that a person appears in, forgotten ones too: erasure finds them here."""
        return f"{self.tag}:sessions-of:{user_id}"

    # search
    @property
    def document_prefix(self) -> str:
        return f"{self.tag}:doc:"

    def document(self, doc_id: str) -> str:
        """The searchable text and filters of an event or summary."""
        return f"{self.document_prefix}{doc_id}"

    @property
    def vector_prefix(self) -> str:
        return f"{self.tag}:vec:"

    def vector(self, doc_id: str, chunk: int = 0) -> str:
        """One vector of a document, with the filters, the model and the hash of the text it was made from.

        Chunk 0 is the head of the text, further ones are passages of a long text: at most MOST_CHUNKS in all.
        """
        return f"{self.vector_prefix}{chunk}:{doc_id}"

    def vectors(self, doc_id: str) -> list[str]:
        """The keys of all the vectors that a document may have."""
        return [self.vector(doc_id, chunk) for chunk in range(MOST_CHUNKS)]

    @property
    def text_index(self) -> str:
        return f"{self.tag}:idx:text"

    @property
    def vector_index(self) -> str:
        return f"{self.tag}:idx:vec"

    def consolidated(self, session_id: str) -> str:
        """What the last consolidation of a session saw, so that unchanged input costs nothing."""
        return f"{self.tag}:consolidated:{session_id}"

    def retention(self, session_id: str) -> str:
        """What the last look at a session found for forgetting, and when the next one is due."""
        return f"{self.tag}:retention:{session_id}"

    @property
    def consolidation(self) -> str:
        """Up to where the last pass had read (`through`, ms), events by tier, forgotten; for triggers and metrics."""
        return f"{self.tag}:consolidation"


@dataclass(frozen=True, slots=True)
class KeyPattern:
    """A row of the catalogue: which keys, what type, whether ledger or derived, how long they live."""

    pattern: str
    type: str
    side: str
    lifetime: str

    def matches(self, key: str) -> bool:
        return re.fullmatch(self.pattern, key, re.DOTALL) is not None


_P = r"cg:\{[a-z0-9_-]+\.\d+\}"
_G = _P + r":g\d+"

CATALOGUE: tuple[KeyPattern, ...] = (
    KeyPattern(r"cg:tenants", "hash", "ledger", "for ever"),
    KeyPattern(r"cg:api-keys", "hash", "ledger", "until revoked"),
    KeyPattern(r"cg:api-keys-used", "hash", "ledger", "until revoked"),
    KeyPattern(r"cg:quotas", "hash", "ledger", "for ever"),
    KeyPattern(r"cg:quota:[a-z0-9_-]+", "hash", "ledger", "until the buckets are full"),
    KeyPattern(r"cg:model-usage:[a-z0-9_-]+", "hash", "ledger", "for ever"),
    KeyPattern(r"cg:schemas:[a-z0-9_-]+", "hash", "ledger", "for ever"),
    KeyPattern(r"cg:forgetting:[a-z0-9_-]+", "string", "ledger", "for ever"),
    KeyPattern(r"cg:consolidation-runs:[a-z0-9_-]+", "hash", "ledger", "the newest 100"),
    KeyPattern(r"cg:consolidation-asked", "zset", "ledger", "until a worker has done them"),
    KeyPattern(r"cg:idempotency:[a-z0-9_-]+:[0-9a-f]{32}", "string", "ledger", "CG_READS__IDEMPOTENCY_SECONDS"),
    KeyPattern(r"cg:worker:.+", "string", "ledger", "five heartbeats"),
    KeyPattern(r"cg:workers", "zset", "ledger", "an hour after the last heartbeat of each"),
    KeyPattern(_P + r":ledger", "stream", "ledger", "until archived and behind every group"),
    KeyPattern(_P + r":ids", "hash", "ledger", "as long as the event exists anywhere"),
    KeyPattern(_P + r":session:.+", "list", "ledger", "as long as the event exists anywhere"),
    KeyPattern(_P + r":vault", "hash", "ledger", "a key until its subject is erased"),
    KeyPattern(_P + r":erased", "hash", "ledger", "for ever"),
    KeyPattern(_P + r":erasures", "hash", "ledger", "for ever"),
    KeyPattern(_P + r":erasing", "set", "ledger", "until the erasure is done"),
    KeyPattern(_P + r":dead", "stream", "ledger", "until re-driven or discarded"),
    KeyPattern(_P + r":dead:(places|counts)", "hash", "ledger", "as their dead letters"),
    KeyPattern(_P + r":held:.+", "hash", "ledger", "as their dead letters"),
    KeyPattern(_P + r":again:.+", "zset", "ledger", "until handled or buried"),
    KeyPattern(_P + r":tries:.+", "hash", "ledger", "until handled or buried"),
    KeyPattern(_P + r":parked:.+", "zset", "ledger", "until what they wait for is re-driven or discarded"),
    KeyPattern(_P + r":gaps:.+", "hash", "ledger", "until read from the archive, or told as lost"),
    KeyPattern(_P + r":lease:.+", "string", "ledger", "the lease"),
    KeyPattern(_P + r":fence:.+", "string", "ledger", "for ever"),
    KeyPattern(_P + r":archived", "hash", "ledger", "for ever"),
    KeyPattern(_P + r":generations", "string", "ledger", "for ever"),
    KeyPattern(_P + r":replication-mark", "string", "ledger", "for ever"),
    KeyPattern(_G + r":event:.+", "hash", "derived", "the generation"),
    KeyPattern(_G + r":entity:.+", "hash", "derived", "the generation"),
    KeyPattern(_G + r":(names|decisions|started|opined|pin-decisions)", "zset", "derived", "the generation"),
    KeyPattern(_G + r":summary:.+", "hash", "derived", "the generation"),
    KeyPattern(_G + r":episodes:.+", "hash", "derived", "the generation"),
    KeyPattern(_G + r":timeline:(session|agent|user|tool|entity):.+", "zset", "derived", "the generation"),
    KeyPattern(_G + r":effects:.+", "zset", "derived", "the generation"),
    KeyPattern(_G + r":registry:(session|agent|user|tool|entity)", "zset", "derived", "the generation"),
    KeyPattern(_G + r":session:.+", "hash", "derived", "the generation"),
    KeyPattern(_G + r":receipts:(event|session|agent|user):.+", "zset", "derived", "the generation"),
    KeyPattern(_G + r":versions:.+", "zset", "derived", "the generation"),
    KeyPattern(_G + r":feedback:.+", "hash", "derived", "the generation"),
    KeyPattern(_G + r":fact:.+", "hash", "derived", "the generation"),
    KeyPattern(_G + r":facts:(all|event|same|subject|superseded-by):.+", "zset", "derived", "the generation"),
    KeyPattern(_G + r":facts:(superseded-)?(user|session):.+", "zset", "derived", "the generation"),
    KeyPattern(_G + r":(superseded|forgotten|retention):.+", "hash", "derived", "the generation"),
    KeyPattern(_G + r":(pins|consolidation)", "hash", "derived", "the generation"),
    KeyPattern(_G + r":sessions-of:.+", "zset", "derived", "the generation"),
    KeyPattern(_G + r":doc:.+", "hash", "derived", "the generation"),
    KeyPattern(_G + r":vec:\d+:.+", "hash", "derived", "the generation"),
    KeyPattern(_G + r":consolidated:.+", "hash", "derived", "the generation"),
)


def home_of(key: str) -> KeyPattern | None:
    """The catalogue's row for a key, or None when the key has no home."""
    return next((row for row in CATALOGUE if row.matches(key)), None)
