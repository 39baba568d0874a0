"""Opinions: feedback on a served context as the event that is appended. Pure.

The opinions on a receipt are numbered, and each says everything: what helped, what did not, and what is taken back of
what earlier ones said. So one counts without the others, whatever order they are folded in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from context_graph.domain.event import FEEDBACK_TYPE, Envelope, EventId, JsonValue, LedgerEvent, opinion_id
from context_graph.errors import FieldProblem, InvalidInput
from context_graph.retrieval.receipts import Receipt


@dataclass(frozen=True, slots=True)
class Feedback:
    """What an agent says of a served context: ids of items or events that helped, and that did not."""

    useful: tuple[str, ...] = ()
    not_useful: tuple[str, ...] = ()
    note: str | None = None


def opinion_of(receipt: Receipt, said: Feedback, last: LedgerEvent | None, number: int, now_ms: int) -> Envelope:
    """The event. What earlier opinions named and this one does not is withdrawn, so that each stands by itself."""
    useful, not_useful = _events_of(receipt, said.useful), _events_of(receipt, said.not_useful)
    named = {*useful, *not_useful}
    before = last.envelope.payload if last is not None and isinstance(last.envelope.payload, dict) else {}
    earlier = (name for kind in ("useful", "not_useful", "withdrawn") for name in _ids(before.get(kind)))
    withdrawn = [name for name in dict.fromkeys(earlier) if name not in named]
    payload: dict[str, JsonValue] = {
        "receipt_id": receipt.id,
        "useful": list(useful),
        "not_useful": list(not_useful),
        "withdrawn": list(withdrawn),
    }
    if said.note is not None:
        payload["note"] = said.note
    envelope = receipt.event.envelope
    return Envelope(
        event_id=opinion_id(receipt.id, number),
        event_type=FEEDBACK_TYPE,
        session_id=envelope.session_id,
        agent_id=envelope.agent_id,
        occurred_at=now_ms,
        user_id=envelope.user_id,
        parent_event_id=receipt.id,
        caused_by=tuple(EventId(name) for name in (*useful, *not_useful, *withdrawn)),
        origin="derived",
        payload=payload,
    )


def same_opinion(one: JsonValue, other: JsonValue) -> bool:
    """Whether two opinions say the same; what they withdraw follows from what came before."""
    names = ("useful", "not_useful", "note")
    return isinstance(one, dict) and isinstance(other, dict) and all(one.get(name) == other.get(name) for name in names)


def _ids(value: JsonValue) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _events_of(receipt: Receipt, names: Sequence[str]) -> tuple[str, ...]:
    """The items' events in the receipt's order. A summary stands for itself and not for what it cites."""
    chosen = set(names)
    found: dict[str, None] = {}
    for item in receipt.items:
        if item.id in chosen:
            found[item.id] = None
        found |= dict.fromkeys(name for name in item.event_ids if name in chosen)
    return tuple(found)


def check(receipt: Receipt, said: Feedback) -> None:
    """Raises InvalidInput for ids that were not in the context, and for those said to be both."""
    problems = []
    useful = set(said.useful)
    for name, ids in (("useful", said.useful), ("not_useful", said.not_useful)):
        for place, identifier in enumerate(ids):
            pointer = f"/{name}/{place}"
            if identifier not in receipt.known_ids:
                detail = f"{identifier!r} is not in that context"
                remedy = "send ids of its items, or of the events that these cite"
                problems.append(FieldProblem(pointer, detail, remedy, "not-served"))
            elif name == "not_useful" and identifier in useful:
                detail = f"{identifier!r} is said to be useful as well"
                problems.append(FieldProblem(pointer, detail, "send it in one of the two", "both"))
    if problems:
        raise InvalidInput(problems)
