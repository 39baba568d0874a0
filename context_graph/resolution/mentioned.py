"""What communities follow from: which events mention which entities, and which sessions such events are of.

Read alike when communities are asked for and when topics are summarised. Bounded: `_ENTITIES` for each partition, those
mentioned last (as of a position: last by then, of the `_LOOKED_AT` mentioned last now), and the newest `_MENTIONS`
events of each. Tools and agents are left out: they are mentioned by whatever they do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from context_graph.domain.graph import EventNode
from context_graph.domain.partition import Partition
from context_graph.store.graph import Graph, TimelineEntry
from context_graph.store.receipts import Until
from context_graph.store.sorted_pages import Stretch
from context_graph.store.timelines import Timelines, order_key

COUNTED_EVENTS = 300  # of a community, whose sessions are counted
_SESSIONS = 20
_ENTITIES = 1000
_LOOKED_AT = 5000  # as of a position
_MENTIONS = 50
_READ = 100  # entities whose mentions are read at once: the event loop goes on in between
_EVERYWHERE = ("tool:", "agent:")


async def mentions_of(
    graph: Graph, timelines: Timelines, partitions: Sequence[Partition], until: Until | None = None
) -> tuple[dict[str, list[str]], int | None]:
    """Entity to the ids of its events, newest first, of those that have any; and how many entities the bounds left, or
    None where they left out none. Raises StoreUnavailable."""
    most = _ENTITIES if until is None else _LOOKED_AT
    pages = [await graph.registry(partition, "entity", limit=most + 1) for partition in partitions]
    names = sorted({name for page in pages for name, _ in page[:most] if not name.startswith(_EVERYWHERE)})
    keys = [(partition, await graph.keys(partition)) for partition in partitions]
    found: dict[str, list[TimelineEntry]] = {}
    for start in range(0, len(names), _READ):
        some = names[start : start + _READ]
        stretches = [(p, Stretch(k.timeline("entity", name), "desc")) for name in some for p, k in keys]
        read = await timelines.first(stretches, _MENTIONS, until)
        for place, name in enumerate(some):
            mine = [entry for entries, _ in read[place * len(keys) : (place + 1) * len(keys)] for entry in entries]
            if mine:
                found[name] = _newest(mine)
    newest = sorted(found, key=lambda name: (-found[name][0].occurred_at, name))
    kept = newest[: _ENTITIES * len(partitions)]
    left_out = len(newest) > len(kept) or any(len(page) > most for page in pages)
    return {name: [entry.event_id for entry in found[name]] for name in sorted(kept)}, len(kept) if left_out else None


def _newest(entries: Sequence[TimelineEntry]) -> list[TimelineEntry]:
    return sorted(entries, key=order_key, reverse=True)[:_MENTIONS]


def sessions_by_events(events: Iterable[EventNode]) -> list[tuple[str, int]]:
    """The sessions that most of these events are of, with how many; ties by name."""
    counts = Counter(event.session_id for event in events)
    return sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:_SESSIONS]
