"""The decision: which episodes of a partition's sessions are forgotten, and why the others stay. Pure.

An episode goes whole or not at all. It goes when every event of it is due (`domain/retention.py`), none is pinned or
within the policy's steps of causes and effects of a pinned or hot one, and the newest summary of its session covers it
and names the sources of each sentence. The least valuable go first, as many as a run may take.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

from context_graph.domain.event import Envelope, JsonValue
from context_graph.domain.forgetting import MOST_EVENTS, Member, Place, Stretch, decision_event
from context_graph.domain.retention import DAY_MS, ForgettingPolicy, Tier, value_of

KeptBecause = Literal["hot", "warm", "cold", "pinned", "causal chain", "no summary", "limit of the run", "telling"]


@dataclass(frozen=True, slots=True)
class EventFacts:
    """An event that is in the graph. `since`: ms UTC it counts from, when it occurred or was last recalled."""

    event_id: str
    place: Place
    since: int
    importance: int
    uses: int
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class EpisodeFacts:
    """An episode of a session: what of it is in the graph, in order. `size`: its events, forgotten ones too."""

    events: tuple[EventFacts, ...]
    size: int

    def tier(self, policy: ForgettingPolicy, now: int) -> Tier:
        """That of its hottest event."""
        tiers = [policy.tier(now - e.since, value_of(now - e.since, e.importance, e.uses)) for e in self.events]
        return min(tiers, key=_HEAT.index)

    def value(self, now: int) -> float:
        """That of its most valuable event."""
        return max(value_of(now - e.since, e.importance, e.uses) for e in self.events)


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """A session: its episodes, what covers it, and what was decided last.

    `summary`: id of the newest summary when it covers every event and each sentence names its sources, else None.
    `decided`: order of the newest decision about the session. `gone`: events that are forgotten already.
    """

    session_id: str
    episodes: tuple[EpisodeFacts, ...]
    summary: str | None
    decided: str = ""
    gone: int = 0
    summary_gone: bool = False
    newest: int = 0
    """When its newest event occurred, or it was last recalled, ms UTC."""
    left: tuple[Member, ...] = ()
    """All events of a session of which nothing is left in graph and index, its summary neither; else none."""

    def rests(self, policy: ForgettingPolicy, now: int) -> int:
        """Since when nothing is left of it but what stays of what is forgotten; -1 when its summary must be found."""
        events = [event for episode in self.episodes for event in episode.events]
        busy = any(episode.tier(policy, now) != "due" for episode in self.episodes)
        if busy or not self.gone or self.summary is None or self.summary_gone or any(e.pinned for e in events):
            return -1
        return max(self.newest, 0)


@dataclass(frozen=True, slots=True)
class Choice:
    """Episodes of a session that are forgotten, as one batch of decisions. `kept`: events of these that stay."""

    session_id: str
    summary: str
    decided: str
    episodes: tuple[EpisodeFacts, ...]
    kept: frozenset[str] = frozenset()

    @property
    def events(self) -> int:
        return sum(len(_going(episode, self.kept)) for episode in self.episodes)

    def decisions(self, bucket: int, policy: ForgettingPolicy) -> list[Envelope]:
        """What to append. A long episode is more than one stretch, many stretches are more than one event."""
        made = []
        for stretches in _batches([part for episode in self.episodes for part in _parts(episode, self.kept)]):
            members = [Member(event.event_id, event.place) for part in stretches for event in part]
            said: dict[str, JsonValue] = {
                "reason": f"older than {policy.forget_after_days:g} days, worth less than {policy.keep_value:g}",
                "policy_version": policy.version,
                "summary": self.summary,
                "counts": {"events": len(members), "stretches": len(stretches)},
            }
            made.append(
                decision_event(
                    True, bucket, self.session_id, [_stretch(part) for part in stretches], members,
                    occurred_at=max(member.place.occurred_at for member in members), said=said, after=self.decided,
                )
            )  # fmt: skip
        return made


@dataclass(slots=True)
class ForgettingPlan:
    """What would be forgotten, and what stays for which reason, in events."""

    chosen: list[Choice] = field(default_factory=list)
    kept: Counter[KeptBecause] = field(default_factory=Counter)
    tiers: Counter[str] = field(default_factory=Counter)
    summaries: list[str] = field(default_factory=list)
    """Sessions whose summary leaves the index."""
    left: list[str] = field(default_factory=list)
    """Sessions of which nothing was left, and that leave the lists."""

    @property
    def events(self) -> int:
        return sum(choice.events for choice in self.chosen)

    @property
    def episodes(self) -> int:
        return sum(len(choice.episodes) for choice in self.chosen)

    def as_json(self, listed: int = 100) -> dict[str, JsonValue]:
        """To print: counts, and the first `listed` sessions."""
        sessions: list[JsonValue] = [
            {"session_id": c.session_id, "episodes": len(c.episodes), "events": c.events, "summary": c.summary}
            for c in self.chosen[:listed]
        ]
        return {
            "events": self.events,
            "episodes": self.episodes,
            "sessions": len(self.chosen),
            "summaries": len(self.summaries),
            "kept": dict(sorted(self.kept.items())),
            "tiers": dict(sorted(self.tiers.items())),
            "listed": sessions,
        }


_HEAT: Sequence[Tier] = ("hot", "warm", "cold", "due")


def due_episodes(session: SessionFacts, policy: ForgettingPolicy, now: int) -> list[EpisodeFacts]:
    """Those that age and value give up, and nothing pinned in them keeps: what the chains are asked about."""
    return [e for e in session.episodes if e.tier(policy, now) == "due" and not any(x.pinned for x in e.events)]


def room_of(episodes: Sequence[EpisodeFacts], share: float) -> int:
    """How many events of a session's episodes stay together when these are forgotten and `share` may."""
    return int(share * sum(episode.size for episode in episodes) + 0.5)


def plan_forgetting(
    sessions: Sequence[SessionFacts], policy: ForgettingPolicy, now: int, chained: Collection[str], room: int,
    *, telling: frozenset[str] = frozenset(),
) -> ForgettingPlan:  # fmt: skip
    """What goes and what stays. `chained`: ids of due events that a pinned or hot one is near.

    `room`: events that may go. `telling`: events that stay of what goes. Nothing goes by a policy that is not enabled.
    """
    plan = ForgettingPlan()
    due: list[tuple[SessionFacts, EpisodeFacts]] = []
    for session in sessions:
        for episode in session.episodes:
            because = _kept_because(session, episode, policy, now, chained)
            plan.tiers[episode.tier(policy, now)] += len(episode.events)
            if because is None:
                due.append((session, episode))
            else:
                plan.kept[because] += len(episode.events)
    due.sort(key=lambda one: (one[1].value(now), one[1].events[0].place, one[0].session_id))
    taken: dict[str, list[EpisodeFacts]] = {}
    for session, episode in due:
        going = len(_going(episode, telling))
        if not policy.enabled or going > room:
            plan.kept["limit of the run"] += len(episode.events)
            continue
        plan.kept["telling"] += len(episode.events) - going
        if not going:
            continue
        room -= going
        taken.setdefault(session.session_id, []).append(episode)
    known = {session.session_id: session for session in sessions}
    for session_id, episodes in taken.items():
        session = known[session_id]
        episodes.sort(key=lambda episode: episode.events[0].place)
        plan.chosen.append(Choice(session_id, session.summary or "", session.decided, tuple(episodes), telling))
    return plan


def _kept_because(
    session: SessionFacts, episode: EpisodeFacts, policy: ForgettingPolicy, now: int, chained: Collection[str]
) -> KeptBecause | None:
    tier = episode.tier(policy, now)
    if tier != "due":
        return tier
    if any(event.pinned for event in episode.events):
        return "pinned"
    if any(event.event_id in chained for event in episode.events):
        return "causal chain"
    return "no summary" if session.summary is None else None


def next_look(session: SessionFacts, policy: ForgettingPolicy, now: int, share: float = 0.0) -> int:
    """When this session is to be looked at again although nothing happens in it, ms UTC: within a day where it is due.

    An episode of which no more than `share` is left has been forgotten as far as it will be.

    A session of which nothing is left has nothing to look at for a year.
    """
    times = [now + 365 * DAY_MS]
    due = [episode for episode in session.episodes if episode.tier(policy, now) == "due"]
    unsettled = sum(len(episode.events) for episode in due) > room_of(due, share)
    for episode in session.episodes:
        changes = [policy.next_change(event.since, now) for event in episode.events]
        times += [change for change in changes if change is not None]
    if unsettled:
        times.append(now + DAY_MS)
    return min(times)


def cut_like(
    events: Sequence[EventFacts], ids_in_order: Sequence[str], firsts: Collection[str]
) -> tuple[EpisodeFacts, ...]:
    """A session's events in the graph, cut before each event that begins an episode (`firsts`).

    `ids_in_order`: all events of the session, forgotten ones too: an episode may begin with one of these.
    """
    number, numbers = 0, dict[str, int]()
    sizes: Counter[int] = Counter()
    for event_id in ids_in_order:
        number += event_id in firsts
        numbers[event_id] = number
        sizes[number] += 1
    episodes: dict[int, list[EventFacts]] = {}
    for event in events:
        episodes.setdefault(numbers[event.event_id], []).append(event)
    return tuple(EpisodeFacts(tuple(found), sizes[number]) for number, found in sorted(episodes.items()))


def _going(episode: EpisodeFacts, kept: Collection[str]) -> list[EventFacts]:
    return [event for event in episode.events if event.event_id not in kept]


def _parts(episode: EpisodeFacts, kept: Collection[str]) -> Iterator[Sequence[EventFacts]]:
    """What goes, between the events that stay."""
    for stays, run in groupby(episode.events, key=lambda event: event.event_id in kept):
        events = [] if stays else list(run)
        for start in range(0, len(events), MOST_EVENTS):
            yield events[start : start + MOST_EVENTS]


def _batches(parts: Sequence[Sequence[EventFacts]]) -> Iterator[list[Sequence[EventFacts]]]:
    batch: list[Sequence[EventFacts]] = []
    for part in parts:
        if batch and sum(map(len, batch)) + len(part) > MOST_EVENTS:
            yield batch
            batch = []
        batch.append(part)
    if batch:
        yield batch


def _stretch(events: Sequence[EventFacts]) -> Stretch:
    return Stretch(events[0].place, events[-1].place, max(event.place.order for event in events))
