"""Which summaries of forgotten sessions leave index and vectors, so that these do not grow for ever. Pure.

A session rests when nothing is left of it but what stays of what is forgotten, and nothing in it is pinned. Of the
summaries of such sessions the policy's `keep_summaries` are found in a partition; beyond them the least valuable go:
those that helped least and of these the oldest. What goes is a decision in the ledger as for events, and comes back
with the recall of its session.

Of a session whose summary has gone, and of which no event is left, the timeline goes as well: by a decision about all
of it, which overrules those before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from context_graph.domain.event import Envelope, LedgerEvent
from context_graph.domain.forgetting import MOST_EVENTS, Decisions, Member, Place, Stretch, decision_event
from context_graph.domain.partition import Partition
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


def decisions_about_all(
    partition: Partition, session_id: str, events: Sequence[Member], policy: ForgettingPolicy, decided: str
) -> Iterator[Envelope]:
    """What to append about a session of which nothing is left. `events`: all of them in order; `decided`: as above."""
    for start in range(0, len(events), MOST_EVENTS):
        members = events[start : start + MOST_EVENTS]
        places = [member.place for member in members]
        yield decision_event(
            True, partition.bucket, session_id,
            [Stretch(places[0], places[-1], max(place.order for place in places))], members,
            occurred_at=max(place.occurred_at for place in places),
            said={
                "reason": "nothing is left of the session",
                "policy_version": policy.version,
                "counts": {"events": len(members), "stretches": 1},
            },
            after=decided, places=True,
        )  # fmt: skip
