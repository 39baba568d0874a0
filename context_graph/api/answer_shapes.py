"""What the answers look like, for OpenAPI: JSON Schemas of the bodies that `rendering.py` and the routes write.

The routes write their bodies by hand for speed, so these are not checked by the framework on the way out; the suite
holds every answer it gets against them (`tests/integration/test_openapi.py`).
"""

from __future__ import annotations

from typing import Any

Shape = dict[str, Any]


def _object(required: str, /, **properties: Shape) -> Shape:
    return {"type": "object", "required": required.split(), "properties": properties}


def _nullable(kind: str) -> Shape:
    return {"type": [kind, "null"]}


def _list(items: Shape) -> Shape:
    return {"type": "array", "items": items}


def _map(values: Shape) -> Shape:
    return {"type": "object", "additionalProperties": values}


def ref(name: str) -> Shape:
    """A component of the OpenAPI document."""
    return {"$ref": f"#/components/schemas/{name}"}


def answer(description: str, schema: Shape, example: object = None) -> Shape:
    """A row of OpenAPI's `responses`: a JSON body."""
    content: Shape = {"schema": schema}
    if example is not None:
        content["example"] = example
    return {"description": description, "content": {"application/json": content}}


_S: Shape = {"type": "string"}
_I: Shape = {"type": "integer", "minimum": 0}
_N: Shape = {"type": "number"}
_B: Shape = {"type": "boolean"}
_IDS = _list(_S)
_TIME: Shape = {"type": "string", "format": "date-time"}
_POSITION: Shape = {"type": "string", "description": "opaque: hand it back as it is"}
_PAGE = _object("next_cursor", next_cursor=_nullable("string"))

_EVENT = _object(
    "event_id event_type session_id agent_id occurred_at schema_version position recorded_at tenant",
    event_id=_S, event_type=_S, session_id=_S, agent_id=_S, occurred_at=_TIME, trace_id=_S, user_id=_S,
    parent_event_id=_S, caused_by=_IDS, tool_name=_S, ended_at=_TIME, status=_S, schema_version=_I,
    stored_schema_version={**_I, "description": "present when the payload is shown in a newer version than stored"},
    importance_hint=_I, origin=_S, payload={}, payload_ref=_S, position=_POSITION, recorded_at=_TIME, tenant=_S,
    erased=_IDS,
)  # fmt: skip
_WARNING = _object("pointer detail remedy code", pointer=_S, detail=_S, remedy=_S, code=_S)
_POSTED = _object(
    "event_id position status",
    event_id=_S, position=_POSITION, status={"enum": ["created", "duplicate"]}, warnings=_list(_WARNING),
)  # fmt: skip
_RESULT = _object(
    "index status",
    index=_I, status={"enum": ["created", "duplicate", "conflict", "invalid", "failed"]}, event_id=_S,
    position=_POSITION, problem=ref("Problem"), warnings=_list(_WARNING),
)  # fmt: skip
_COUNTS = _object("created duplicate conflict invalid failed",
                  created=_I, duplicate=_I, conflict=_I, invalid=_I, failed=_I)  # fmt: skip
_CUT: Shape = {**_B, "description": "the text is shown with its middle left out"}
_CHARACTERS = _object(
    "shown whole", shown=_I, whole={**_I, "description": "of the text as it was said, with nothing left out"}
)
_ITEM = _object(
    "id ref kind event_ids position text tokens section rank score reason channels",
    id=_S, ref=_I, kind=_S, event_ids=_IDS, position=_POSITION, session_id=_nullable("string"),
    agent_id=_nullable("string"), user_id=_nullable("string"), event_type=_nullable("string"),
    tool_name=_nullable("string"), speaker=_nullable("string"), occurred_at=_TIME, text=_S, cut=_CUT,
    characters=_CHARACTERS, tokens=_I,
    section=_S, rank=_I, score=_N, reason=_S, channels=_map(_N), importance=_N, bond=_nullable("string"),
)  # fmt: skip
_BUDGET = _object(
    "limit used tokenizer estimated by_section dropped dropped_total",
    limit=_I, used=_I, tokenizer=_S, estimated=_B, by_section=_map(_I),
    dropped=_list(_object("id reason tokens", id=_S, reason=_S, tokens=_I)), dropped_total=_I,
)  # fmt: skip
_BEHIND: Shape = {**_IDS, "description": "stages that have not passed min_position, waited for or not"}
_CONTEXT_META = _object(
    "intents terms seeds channels timings_ms as_of complete truncated behind recall_available",
    intents=_map(_N), terms=_IDS, seeds=_IDS,
    channels={**_map(_N), "description": "what part of the answer each channel brought in, 0 to 1"},
    timings_ms=_map(_N), as_of=_nullable("string"), complete=_B, truncated=_IDS, behind=_BEHIND, recall_available=_IDS,
)  # fmt: skip
_CONTEXT = _object(
    "receipt_id items budget meta",
    receipt_id=_nullable("string"),
    content={"description": "as `format` asks; absent for json", "type": ["string", "array", "object"]},
    items=_list(_ITEM), budget=_BUDGET, meta=_CONTEXT_META,
)  # fmt: skip
_FOUND = _object(
    "id kind event_ids position occurred_at text score channels",
    id=_S, kind=_S, event_ids=_IDS, position=_POSITION, session_id=_nullable("string"), agent_id=_nullable("string"),
    user_id=_nullable("string"), event_type=_nullable("string"), tool_name=_nullable("string"), occurred_at=_TIME,
    text=_S, cut=_CUT, characters=_CHARACTERS, score=_N, channels=_map(_N),
)  # fmt: skip
_SEARCH = _object(
    "results page meta",
    results=_list(_FOUND), page=_PAGE,
    meta=_object("complete truncated behind as_of", complete=_B, truncated=_IDS, behind=_BEHIND,
                 as_of=_nullable("string")),
)  # fmt: skip
_SAME_AS = _object(
    "source target type tier confidence evidence",
    source=_S, target=_S, type=_S, tier=_S, confidence=_N, evidence=_S,
)  # fmt: skip
_EVIDENCE = _object("source target tier confidence evidence",
                    source=_S, target=_S, tier=_S, confidence=_N, evidence=_S)  # fmt: skip
_ENTITY_NAME = _object("id label forms events last_occurred_at",
                       id=_S, label=_S, forms=_IDS, events=_I, last_occurred_at=_TIME)  # fmt: skip
_ENTITY = _object("id label name names same_as",
                  id=_S, label=_S, name=_S, names=_list(_ENTITY_NAME), same_as=_list(_SAME_AS))  # fmt: skip
_MENTION = _object("entity_id name role spans", entity_id=_S, name=_S, role=_S, spans=_list(_list(_I)))
_ENTITY_EVENT = _object(
    "event_id position occurred_at session_id agent_id mentions",
    event_id=_S, position=_POSITION, occurred_at=_TIME, session_id=_nullable("string"), agent_id=_nullable("string"),
    mentions=_list(_MENTION),
)  # fmt: skip
_RELATED = _object("source target type events", source=_S, target=_S, type=_S, events=_I)
_STAGE = _object(
    "partition stage lag pending again parked waiting_seconds oldest_pending_seconds consumers dead_letters lost",
    partition=_S, stage=_S, lag=_I, pending=_I, again=_I, parked=_I, waiting_seconds=_N,
    oldest_pending_seconds=_nullable("number"), consumers=_I, dead_letters=_I, lost=_I,
)  # fmt: skip
_READINESS = _object(
    "status problems notes stages dead_letters",
    status={"enum": ["ready", "not ready"]}, problems=_IDS, notes=_IDS,
    durability={"type": "object"}, stages=_list(_STAGE), dead_letters=_map(_I),
)  # fmt: skip
_OWNED: Shape = {"version": _I, "owner": {"enum": ["tenant", "service"]}}
_WHOLE = _object("version owner schema", **_OWNED, schema={"type": "object"})

_DEAD_LETTER = _object(
    "id group position state event_id event_type session_id reason deliveries redriven lost parked_behind buried_at",
    id=_S, group={**_S, "description": "the consumer group that gave up"}, position=_POSITION,
    state={"enum": ["dead", "redriving"]}, reason=_S,
    event_id={**_nullable("string"), "description": "null where the entry is no envelope, or is lost"},
    event_type=_nullable("string"), session_id=_nullable("string"),
    traceback={**_S, "description": "of one letter alone, not in lists"},
    deliveries={**_I, "description": "all of them, those of earlier letters included"},
    redriven={**_I, "description": "times that it was re-driven before"},
    lost={**_I, "description": "events trimmed unread that are nowhere; 0: it is about one event"},
    lost_after={**_S, "description": "they were behind this position"},
    parked_behind={**_I, "description": "later events of the session that wait, where order matters"},
    buried_at=_TIME,
)  # fmt: skip

COMPONENTS: dict[str, Shape] = {
    "DeadLetter": _DEAD_LETTER,
    "DeadLetters": _object("dead_letters counts page", dead_letters=_list(ref("DeadLetter")), counts=_map(_I),
                           page=_PAGE),
    "EventRead": _EVENT, "Posted": _POSTED, "BatchResults": _object("results counts", results=_list(_RESULT),
                                                                  counts=_COUNTS),
    "Context": _CONTEXT, "SearchResults": _SEARCH, "Readiness": _READINESS,
}  # fmt: skip
"""Under `components.schemas` of the OpenAPI document, beside `Problem`."""

_POSTED_EXAMPLE = {"event_id": "msg-1", "position": "0-1788254999123-0", "status": "created"}
POSTED = answer("It is in the ledger", ref("Posted"), _POSTED_EXAMPLE)
POSTED_BEFORE = answer("The same event was there already", ref("Posted"), _POSTED_EXAMPLE | {"status": "duplicate"})
BATCHED = answer(
    "One result for each event, in order",
    ref("BatchResults"),
    {
        "results": [{"index": 0, **_POSTED_EXAMPLE}],
        "counts": {"created": 1, "duplicate": 0, "conflict": 0, "invalid": 0, "failed": 0},
    },
)
EVENT = answer("The event", ref("EventRead"))
EVENTS = answer("A page of the ledger", _object("events page", events=_list(ref("EventRead")), page=_PAGE))
CONTEXT = answer("Working memory within the budget", ref("Context"))
SEARCH = answer("Best first", ref("SearchResults"))
RECEIPT = answer("The receipt: an event", ref("EventRead"))
LIVE = answer("It lives", _object("status", status=_S), {"status": "alive"})
READY = answer("Every promise can be kept", ref("Readiness"))
NOT_READY = answer("Not now; `problems` says why", ref("Readiness"))
PROBLEM_KIND = answer(
    "What the problem means", _object("code status title remedy", code=_S, status=_I, title=_S, remedy=_S)
)
_REBUILD = _object(
    "id state generation live_generation promotion progress live_hash shadow_hash equal comparison problem",
    id=_S,
    state={"enum": ["building", "comparing", "ready", "promoted", "rolled back", "dropped", "failed"]},
    generation=_I,
    live_generation=_I,
    previous_generation=_nullable("integer"),
    promotion={"enum": ["never", "when equal", "always"]},
    progress={
        "oneOf": [
            {"type": "null"},
            _object(
                "events of share events_per_second seconds_left lag",
                events=_I,
                of=_I,
                share={"type": "number"},
                events_per_second=_nullable("number"),
                seconds_left=_nullable("number"),
                lag=_map(_I),
            ),
        ]
    },
    live_hash=_nullable("string"),
    shadow_hash=_nullable("string"),
    equal=_nullable("boolean"),
    comparison=_nullable("object"),
    waits_for=_nullable("string"),
    problem=_nullable("string"),
)
REBUILD = answer("The rebuild as it stands", _REBUILD)
REBUILDS = answer("The newest first", _object("live_generation rebuilds", live_generation=_I, rebuilds=_list(_REBUILD)))
SCHEMAS = answer(
    "Mode and described types",
    _object(
        "mode schemas",
        mode={"enum": ["strict", "lenient"]},
        schemas=_list(
            _object("event_type versions", event_type=_S, versions=_list(_object("version owner", **_OWNED)))
        ),
    ),
)
SCHEMA_MODE = answer("The mode in force", _object("mode", mode={"enum": ["strict", "lenient"]}), {"mode": "strict"})
SCHEMA_VERSIONS = answer("Every version", _object("event_type versions", event_type=_S, versions=_list(_WHOLE)))
SCHEMA = answer(
    "The schema", _object("event_type version owner schema", event_type=_S, **_OWNED, schema={"type": "object"})
)
_WHOLE = _object("complete truncated", complete=_B, truncated=_IDS)
ENTITIES = answer("Entities", _object("entities page meta", entities=_list(_ENTITY), page=_PAGE, meta=_WHOLE))
ENTITY_DETAIL = answer(
    "The entity, its events newest first, its neighbours",
    {
        "allOf": [
            _ENTITY,
            _object(
                "candidates events related page meta",
                candidates=_list(_EVIDENCE),
                events=_list(_ENTITY_EVENT),
                related=_list(_RELATED),
                page=_PAGE,
                meta=_WHOLE,
            ),
        ]
    },
)
ENTITY_DECISION = answer(
    "What was decided, as an event",
    _object("event_id position entities same", event_id=_S, position=_POSITION, entities=_IDS, same=_B),
)
