"""As of a position, every read answers what a replay of the ledger up to there answers.

A ledger of random events, receipts, feedback and summaries is replayed up to random cuts into another tenant, and both
are asked the same: lineage, impact, graph, sessions, timelines, receipts and what agents knew are equal to the letter
(positions aside, which the other tenant's ledger assigns itself). Working memory and search find the same, and where no
summary was replaced since (it has no vector any more, adr/0021) in the same order with the same scores as the replay
has as of its own end.
"""

from __future__ import annotations

import difflib
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from context_graph.bootstrap import Resources, open_resources
from context_graph.domain.edges import EDGE_TYPES
from context_graph.domain.event import SUMMARY_TYPE, LedgerEvent
from context_graph.domain.partition import Partition
from context_graph.store import codec
from context_graph.store.ledger import Appendable
from enrichment.reconsolidation.run import consolidate
from tests.events import event, post_all, settled
from tests.integration.test_receipts_api import say
from tests.service import Service

Body = dict[str, Any]
SCORES = 1e-3  # of the best's: ages are taken from the moment of asking, and the index counts in single precision
WORDS = "parcel tent refund carrier office street invoice courier address rope label scan".split()


@pytest.fixture
async def resources(service: Service) -> AsyncIterator[Resources]:
    async with open_resources(service.settings) as opened:
        yield opened


def random_event(chance: random.Random, number: int) -> Body:
    kind = chance.choice(["user.message", "agent.message", "tool.call", "tool.result"])
    fields: Body = {
        "event_id": f"e{number}",
        "event_type": kind,
        "session_id": f"s{chance.randrange(4)}",
        "agent_id": chance.choice(["support", "billing"]),
        "caused_by": [f"e{n}" for n in {chance.randrange(60) for _ in range(chance.randrange(3))} if n != number],
        "payload": {"text": " ".join(chance.choices(WORDS, k=8)) + f" number {number}"},
    }
    if chance.random() < 0.4:
        fields["user_id"] = chance.choice(["nadia", "omar"])
    if kind.startswith("tool"):
        fields["tool_name"] = chance.choice(["track", "refund"])
    return event(chance.randrange(50), **fields)


async def fill(
    http: httpx2.AsyncClient,
    resources: Resources,
    partition: Partition,
    chance: random.Random,
    summaries: tuple[int, ...],
) -> None:
    """Sixty events with contexts, feedback and consolidations (behind the event of these numbers) in between."""
    for start in range(0, 60, 10):
        await settled(http, await post_all(http, [random_event(chance, n) for n in range(start, start + 10)]))
        for _ in range(2):
            body = {"query": chance.choice(WORDS), "session_id": f"s{chance.randrange(4)}", "agent_id": "support"}
            served = (await http.post("/v1/context", json=body)).json()
            ids = [item["id"] for item in served["items"]]
            if ids:
                await say(http, served["receipt_id"], useful=ids[:1], not_useful=ids[1:2])
        if start in summaries:
            await consolidate(resources, partition, "test")
    last = await resources.ledger.last(partition)
    await settled(http, [{"position": str(last)}])


async def everything(resources: Resources, partition: Partition) -> list[LedgerEvent]:
    found: list[LedgerEvent] = []
    while page := await resources.ledger.after(partition, found[-1].position if found else None, 500):
        found += page
    return found


async def replay(resources: Resources, events: list[LedgerEvent], into: Partition) -> None:
    for one in events:
        envelope = one.envelope
        copy = Appendable(envelope.event_id, envelope.session_id, codec.encode(envelope))
        await resources.ledger.append(into, [copy])


_ASSIGNED = {"position", "began_at", "began_at_position", "as_of", "recorded_at", "tenant", "next_cursor", "scanned"}


def bare(value: Any) -> Any:
    """Without what another ledger assigns otherwise."""
    if isinstance(value, dict):
        return {name: bare(inner) for name, inner in value.items() if name not in _ASSIGNED}
    return [bare(inner) for inner in value] if isinstance(value, list) else value


async def asked(http: httpx2.AsyncClient, events: list[LedgerEvent], as_of: str | None) -> dict[str, Any]:
    """Every read of the graph, by what was asked."""
    then = {} if as_of is None else {"as_of": as_of}
    answers: dict[str, Any] = {}
    ids = [one.envelope.event_id for one in events if not one.envelope.is_derived]
    paths = [f"/v1/sessions/s{n}" for n in range(4)] + ["/v1/sessions", "/v1/sessions?user_id=omar"]
    for name in ids[::11]:
        paths += [f"/v1/events/{name}/{what}" for what in ("lineage", "impact", "receipts", "context")]
        paths.append(f"/v1/events/{name}/lineage?max_nodes=5&fan_out=2")
    for kind in ("session_id=s1", "agent_id=support", "user_id=nadia", "tool_name=refund"):
        paths += [f"/v1/timeline?{kind}&order=desc&limit=20", f"/v1/timeline?{kind}"]
    paths += ["/v1/events?limit=500", "/v1/events?order=desc&limit=7&session_id=s1"]
    for path in paths:
        answer = await http.get(path, params=None if as_of is None else httpx2.URL(path).params.merge(then))
        answers[path] = (answer.status_code, bare(answer.json()) if answer.status_code == 200 else None)
    for start in ({"kind": "session", "id": "s1"}, {"kind": "user", "id": "nadia"}, {"id": ids[-1]}):
        # Without RELATED_TO: sessions are related by their summaries too, and a summary of then has no vector.
        types = [name for name in EDGE_TYPES if name != "RELATED_TO"]
        body = {"start": [start], "edges": types, "max_depth": 2, "fan_out": 5, "max_nodes": 60} | then
        answer = await http.post("/v1/graph/query", json=body)
        answers[f"graph {start}"] = (answer.status_code, bare(answer.json()) if answer.status_code == 200 else None)
    return answers


async def found(http: httpx2.AsyncClient, as_of: str | None, query: str, mode: str) -> dict[str, Body]:
    """What search finds, by id."""
    body = {"query": query, "mode": mode, "limit": 200} | ({} if as_of is None else {"as_of": as_of})
    results = (await http.post("/v1/search", json=body)).json()["results"]
    return {one["id"]: one for one in results}


async def served(http: httpx2.AsyncClient, as_of: str | None, query: str) -> dict[str, Body]:
    """What working memory holds when it has room for everything, by id."""
    body = {"query": query, "token_budget": 50_000} | ({} if as_of is None else {"as_of": as_of})
    return {one["id"]: one for one in (await http.post("/v1/context", json=body)).json()["items"]}


@pytest.mark.parametrize(("seed", "summaries"), [(1, (20, 40)), (2, ())])
async def test_as_of_equals_a_replay_up_to_there(
    http: httpx2.AsyncClient, service: Service, resources: Resources, seed: int, summaries: tuple[int, ...]
) -> None:
    chance = random.Random(seed)
    partition = (await resources.tenants.ensure(service.tenant, 1)).partitions[0]
    await fill(http, resources, partition, chance, summaries)
    ledger = await everything(resources, partition)
    for share in (0.55, 0.85):
        cut = ledger[int(len(ledger) * share)].position
        then = [one for one in ledger if one.position <= cut]
        replaced_since = any(one.envelope.event_type == SUMMARY_TYPE for one in ledger[len(then) :])
        assert replaced_since == (share < 0.8 and bool(summaries))
        other = await resources.tenants.ensure(f"{service.tenant}-{int(share * 100)}", 1)
        key = await resources.api_keys.create(other.name, name="test")
        await replay(resources, then, other.partitions[0])
        async with service.client(key) as replayed:
            last = await resources.ledger.last(other.partitions[0])
            await settled_without_receipt(replayed, str(last))
            # What was written anew, or while the index was made, counts twice in it until it has swept; as of a
            # position nothing does.
            its_end = str(last)
            mine, theirs = await asked(http, then, str(cut)), await asked(replayed, then, None)
            for what, answer in theirs.items():
                assert mine[what] == answer, difference(what, mine[what], answer)
            for query in ("parcel refund", "which invoice and label"):
                for mode in ("hybrid", "keyword"):
                    one, two = await found(http, str(cut), query, mode), await found(replayed, None, query, mode)
                    assert {name: bare(shown(one[name])) for name in one} == {n: bare(shown(two[n])) for n in two}
                    if not replaced_since:
                        ranked_alike(one, await found(replayed, its_end, query, mode))
                kept, again = await served(http, str(cut), query), await served(replayed, None, query)
                assert {name: shown(kept[name]) for name in kept} == {name: shown(again[name]) for name in again}
                if not replaced_since:
                    ranked_alike(kept, await served(replayed, its_end, query))


def ranked_alike(one: dict[str, Body], two: dict[str, Body]) -> None:
    """The same scores by name and by place: one order, but for what scores the same."""
    mine, theirs = ([item["score"] for item in items.values()] for items in (one, two))
    assert mine == pytest.approx(theirs, abs=SCORES), difference("ranked", list(one), list(two))
    assert [one[name]["score"] for name in two] == pytest.approx(theirs, abs=SCORES)


def shown(item: Body) -> Body:
    """What is said of an item, how it ranks aside."""
    names = ("id", "kind", "event_ids", "text", "session_id", "occurred_at")
    return {name: item[name] for name in names}


async def settled_without_receipt(http: httpx2.AsyncClient, position: str) -> None:
    """Wait by a read that leaves no receipt behind."""
    answer = await http.post(
        "/v1/search", json={"query": "x", "mode": "keyword", "min_position": position, "wait_ms": 60_000}
    )
    assert answer.json()["meta"]["complete"], answer.text


def difference(what: str, one: Any, other: Any) -> str:
    """Where two answers part, line by line."""
    mine, its = (json.dumps(value, indent=1, sort_keys=True).splitlines() for value in (one, other))
    return "\n".join([what, *difflib.unified_diff(mine, its, "as of", "replay", lineterm="", n=2)][:60])


async def test_the_recent_tail_is_that_of_then_however_much_has_come_since(http: httpx2.AsyncClient) -> None:
    then = await post_all(http, [event(n, event_id=f"old{n}") for n in range(5)])
    now = await post_all(http, [event(n + 100, event_id=f"new{n}") for n in range(60)])
    await settled(http, now)
    body = {"query": "", "session_id": "s1", "token_budget": 2000, "as_of": then[-1]["position"]}
    items = (await http.post("/v1/context", json=body)).json()["items"]
    assert {item["id"] for item in items if item["section"] == "recent"} == {f"old{n}" for n in range(5)}
