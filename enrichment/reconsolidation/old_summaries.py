"""Which summaries of forgotten sessions leave index and vectors, so that these do not grow for ever. Pure.

A session rests when nothing is left of it but what stays of what is forgotten, and nothing in it is pinned. Of the
summaries of such sessions the policy's `keep_summaries` are found in a partition; beyond them the least valuable go:
those that helped least and of these the oldest. What goes is a decision in the ledger as for events, and comes back
with the recall of its session.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from context_graph.domain.event import Envelope, LedgerEvent
from context_graph.domain.forgetting import Decisions, Member, Place, decision_event
from context_graph.domain.retention import ForgettingPolicy, value_of

_IMPORTANCE = 5  # of every summary: what tells them apart is age and use


@dataclass(frozen=True, slots=True)
class Resting:
    """A session that rests. `since`: ms UTC; `order`: the sort key of its newest summary."""

    session_id: str
    since: int
    order: str


def leaving(resting: Sequence[Resting], uses: Sequence[int], policy: ForgettingPolicy, now: int) -> list[Resting]:
    """The sessions whose summaries go, least valuable first: as many as there are too many. `uses`: of each."""
    ranked = sorted(
        zip(resting, uses, strict=True),
        key=lambda one: (value_of(now - one[0].since, _IMPORTANCE, one[1]), one[0].since, one[0].session_id),
    )
    most = min(len(resting) - policy.keep_summaries, policy.max_events_per_run)
    return [session for session, _ in ranked[: max(most, 0)]]


def decision_about(summary: LedgerEvent, policy: ForgettingPolicy, known: Decisions) -> Envelope:
    """What to append. `known`: what was decided about its session; the newest of it is part of the event's id."""
    envelope, order = summary.envelope, summary.position.sort_key
    return decision_event(
        True, summary.position.bucket, envelope.session_id, [],
        [Member(envelope.event_id, Place(envelope.occurred_at, order))],
        occurred_at=envelope.occurred_at,
        said={
            "reason": f"more than {policy.keep_summaries} summaries of forgotten sessions",
            "policy_version": policy.version,
            "summary": envelope.event_id,
            "counts": {"summaries": 1},
        },
        after=known.known[0].order if known.known else "",
        summaries_through=order,
    )  # fmt: skip
