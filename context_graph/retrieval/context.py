"""Working memory: from candidates to items within the budget, each with its section and the reason it is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp

from context_graph.domain.query import Understanding
from context_graph.domain.scoring import IMPORTANCE_WEIGHT, STRENGTH_WEIGHT, WHY_WEIGHT, strength
from context_graph.retrieval.items import Candidate, Item, Section
from context_graph.retrieval.pool import DocumentKey

_HOUR_MS = 3_600_000
_LONGEST_SHARE = 0.25  # of the budget, for one item; characters are estimated at four a token
_SHORTEST_CHARACTERS = 240


def merged(*groups: Sequence[Candidate]) -> list[Candidate]:
    """Candidates of several rounds as one list: channels united, the highest score kept; best first."""
    known: dict[DocumentKey, Candidate] = {}
    for candidate in (c for group in groups for c in group):
        key = (candidate.partition, candidate.document.id)
        other = known.get(key)
        if other is None:
            known[key] = candidate
        else:
            channels = {**other.channels, **candidate.channels}
            known[key] = other._replace(channels=channels, score=max(other.score, candidate.score))
    return sorted(known.values(), key=lambda c: (-c.score, c.document.position, c.document.id))


def weighed(
    candidates: Sequence[Candidate], understanding: Understanding, now_ms: int, uses: Mapping[str, int]
) -> list[Candidate]:
    """Scores with importance, strength (recency of occurrence, feedback) and the query's intents; best first.

    The weights are logits, as those of the ranking: a score is multiplied by e to the sum.
    """
    why = understanding.weight("why")
    result = []
    for candidate in candidates:
        document = candidate.document
        age = max(0, now_ms - document.occurred_at) / _HOUR_MS
        more = IMPORTANCE_WEIGHT * (document.importance - 5) / 5
        more += STRENGTH_WEIGHT * strength(age, uses.get(document.id, 0))
        more += WHY_WEIGHT * why * candidate.channels.get("causal", 0.0)
        score = candidate.score * exp(more)
        result.append(Candidate(candidate.partition, document, candidate.channels, score, candidate.causes))
    return sorted(result, key=lambda c: (-c.score, c.document.position, c.document.id))


def items_of(
    candidates: Sequence[Candidate], tail: Sequence[Candidate], bonds: Mapping[str, str], token_budget: int
) -> list[Item]:
    """Ranked items: what is pinned, facts, summaries, relevant events, and the session's recent tail; each once."""
    recent = {candidate.document.id for candidate in tail}
    limit = max(_SHORTEST_CHARACTERS, int(token_budget * _LONGEST_SHARE * 4))
    items: list[Item] = []
    for candidate in merged(candidates, tail) if tail else candidates:
        document = candidate.document
        text, cut = shortened(document.text, limit)
        items.append(
            Item(
                document=document,
                section=_section(candidate, recent),
                text=text,
                score=candidate.score,
                channels=candidate.channels,
                rank=len(items) + 1,
                bond=bonds.get(document.id, document.id),
                cut=cut,
            )
        )
    return [item for item in items if item.text]


def _section(candidate: Candidate, recent: set[str]) -> Section:
    if "pinned" in candidate.channels:
        return "pinned"
    if candidate.document.kind == "fact":
        return "profile"
    if candidate.document.kind == "summary":
        return "summary"
    return "recent" if candidate.document.id in recent else "relevant"


def shortened(text: str, limit: int) -> tuple[str, bool]:
    """At most `limit` characters: the head and, a third of it, the tail, with a mark between."""
    if len(text) <= limit:
        return text, False
    tail = limit // 3
    return f"{text[: limit - tail - 3].rstrip()} … {text[len(text) - tail :].lstrip()}", True


def bonds_of(candidates: Sequence[Candidate]) -> dict[str, str]:
    """A tool's result is bonded to its call: event id to the id of the call."""
    present = {c.document.id: c.document for c in candidates}
    bonds: dict[str, str] = {}
    for candidate in candidates:
        document = candidate.document
        if document.event_type != "tool.result":
            continue
        for cause in candidate.causes:
            call = present.get(cause)
            if call is not None and call.event_type == "tool.call":
                bonds[document.id] = bonds[call.id] = call.id
                break
    return bonds
