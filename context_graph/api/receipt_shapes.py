"""What the answers about receipts look like, for OpenAPI. As `answer_shapes.py`."""

from __future__ import annotations

from typing import Any

from context_graph.api.answer_shapes import answer

Shape = dict[str, Any]

_S: Shape = {"type": "string"}
_SN: Shape = {"type": ["string", "null"]}
_I: Shape = {"type": "integer", "minimum": 0}
_N: Shape = {"type": "number"}
_B: Shape = {"type": "boolean"}
_IDS: Shape = {"type": "array", "items": _S}
_TIME: Shape = {"type": "string", "format": "date-time"}


def _all(**properties: Shape) -> Shape:
    """An object that has all of these."""
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(items: Shape) -> Shape:
    return {"type": "array", "items": items}


_PAGE = _all(next_cursor=_SN)
_META = _all(complete=_B, truncated=_IDS)
_HEAD: dict[str, Shape] = {
    "receipt_id": _S, "position": _S, "served_at": _TIME, "session_id": _SN, "agent_id": _S, "user_id": _SN,
    "query": _SN, "as_of": _SN, "format": _SN, "erased": _B,
}  # fmt: skip
_PLACE: dict[str, Shape] = {
    "ref": _I, "id": _S, "event_ids": _IDS, "position": _S, "section": _S, "rank": _I, "score": _N,
}  # fmt: skip
_BRIEF = _all(
    event_id=_S, event_type=_S, session_id=_S, agent_id=_S, occurred_at=_TIME, position=_S, text=_S, erased=_B
)
_ITEM_EXAMPLE = {
    "ref": 1, "id": "msg-1", "event_ids": ["msg-1"], "position": "0-1788254999123-0", "section": "relevant", "rank": 1,
    "score": 0.91,
}  # fmt: skip
_HEAD_EXAMPLE = {
    "receipt_id": "receipt-0198", "position": "0-1788254999200-0", "served_at": "2026-09-20T10:00:05.000Z",
    "session_id": "chat-17", "agent_id": "support", "user_id": "lena", "query": "where does lena want her parcels?",
    "as_of": None, "format": "markdown", "erased": False,
}  # fmt: skip
_BRIEF_EXAMPLE = {
    "event_id": "msg-2", "event_type": "agent.message", "session_id": "chat-17", "agent_id": "support",
    "occurred_at": "2026-09-20T10:00:06.000Z", "position": "0-1788254999300-0", "text": "To your office, then.",
    "erased": False,
}  # fmt: skip
_REPRODUCED = _all(
    receipt_id=_S,
    state={"enum": ["reproduced", "different", "erased", "incomplete"]},
    format=_S,
    items=_list(
        _all(
            ref=_I, id=_S, kind=_S, event_ids=_IDS, position=_S, session_id=_S, occurred_at=_TIME, speaker=_S,
            section=_S, rank=_I, score=_N, text=_S, cut=_B,
        )
    ),
    sha256=_all(served=_SN, now=_SN),
    erased=_IDS,
    missing=_IDS,
)  # fmt: skip
_REPRODUCED["properties"]["content"] = {
    "description": "as it was served; absent for json, and where it cannot be had",
    "type": ["string", "array"],
}
REPRODUCED = answer(
    "What was served",
    _REPRODUCED,
    {
        "receipt_id": "receipt-0198", "state": "reproduced", "format": "markdown",
        "content": "## Relevant\n- 2026-09-20 10:00 user: Please send everything to my office. [1]",
        "items": [{**_ITEM_EXAMPLE, "kind": "event", "session_id": "chat-17", "speaker": "user", "cut": False,
                   "occurred_at": "2026-09-20T10:00:00.000Z", "text": "Please send everything to my office."}],
        "sha256": {"served": "9f2b…", "now": "9f2b…"}, "erased": [], "missing": [],
    },
)  # fmt: skip
_RECORDED = _all(event_id=_S, position=_S, status={"enum": ["created", "duplicate"]})
_RECORDED_EXAMPLE = {
    "event_id": "feedback-1-receipt-0198", "position": "0-1788254999400-0", "status": "created"
}  # fmt: skip
RECORDED = answer("It is in the ledger", _RECORDED, _RECORDED_EXAMPLE)
RECORDED_BEFORE = answer("This is what was said last", _RECORDED, _RECORDED_EXAMPLE | {"status": "duplicate"})
HOLDING = answer(
    "Newest first",
    _all(
        event_id=_S,
        receipts=_list(
            _all(**_HEAD, **{"as": _list(_all(how={"enum": ["itself", "summary", "folded"]}, **_PLACE))})
        ),
        page=_PAGE,
        meta=_META,
    ),
    {
        "event_id": "msg-1",
        "receipts": [{**_HEAD_EXAMPLE, "as": [{"how": "itself", **_ITEM_EXAMPLE}]}],
        "page": {"next_cursor": None}, "meta": {"complete": True, "truncated": []},
    },
)  # fmt: skip
KNOWLEDGE = answer(
    "Newest first",
    _all(
        event=_BRIEF,
        receipts=_list(_all(**_HEAD, items=_list(_all(**_PLACE)), dropped=_IDS)),
        unserved=_list(_BRIEF),
        since=_list(_BRIEF),
        page=_PAGE,
        meta=_META,
    ),
    {
        "event": _BRIEF_EXAMPLE, "receipts": [{**_HEAD_EXAMPLE, "items": [_ITEM_EXAMPLE], "dropped": []}],
        "unserved": [], "since": [], "page": {"next_cursor": None}, "meta": {"complete": True, "truncated": []},
    },
)  # fmt: skip
