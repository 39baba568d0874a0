"""Dead letters over HTTP and on the command line: listed, shown, re-driven, discarded; each tenant its own."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner, Result

from context_graph.bootstrap import open_resources
from context_graph.cli.main import build_app
from context_graph.domain.event import Envelope, EventId, SessionId, TenantId
from context_graph.domain.partition import Partition
from context_graph.store import codec
from context_graph.store.keys import PartitionKeys
from context_graph.store.ledger import Appendable
from tests.events import event, post_all, settled
from tests.service import Service
from tests.waiting import until

PATH = "/v1/admin/dead-letters"


def partition_of(service: Service) -> Partition:
    return Partition(TenantId(service.tenant), 0)


async def poison(service: Service, *numbers: int) -> None:
    """Summaries without a scope: Stage 1 cannot fold them."""
    async with open_resources(service.settings) as resources:
        for number in numbers:
            bad = Envelope(
                event_id=EventId(f"bad{number}"), event_type="memory.summary", session_id=SessionId("s"), agent_id="a",
                occurred_at=1_750_000_000_000, origin="derived", payload={"text": "no scope"},
            )  # fmt: skip
            await resources.ledger.append(
                partition_of(service), [Appendable(bad.event_id, bad.session_id, codec.encode(bad))]
            )


async def letters(http: httpx2.AsyncClient, **query: str) -> list[dict[str, Any]]:
    answer = await http.get(PATH, params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["dead_letters"]
    return found


async def of_projection(http: httpx2.AsyncClient, count: int) -> list[dict[str, Any]]:
    async def there() -> bool:
        return len(await letters(http, group="projection")) == count

    await until(there)
    return await letters(http, group="projection")


async def test_a_poison_event_is_listed_and_shown_with_everything_that_explains_it(
    service: Service, http: httpx2.AsyncClient
) -> None:
    await poison(service, 1)
    [letter] = await of_projection(http, 1)
    assert (letter["event_id"], letter["event_type"], letter["session_id"]) == ("bad1", "memory.summary", "s")
    assert letter["reason"].startswith("PermanentError: summary 'bad1' has no scope")
    assert (letter["state"], letter["deliveries"], letter["redriven"], letter["lost"]) == ("dead", 1, 0, 0)
    assert "traceback" not in letter
    whole = (await http.get(f"{PATH}/{letter['id']}")).json()
    assert "_summary" in whole.pop("traceback")
    assert whole == letter
    # The event itself is kept, and what stands beside it goes on.
    assert (await http.get("/v1/events/bad1")).status_code == 200
    await settled(http, await post_all(http, [event(1)]))


async def test_pages_are_stable_while_letters_go(service: Service, http: httpx2.AsyncClient) -> None:
    await poison(service, *range(5))
    await of_projection(http, 5)
    first = (await http.get(PATH, params={"group": "projection", "limit": "2"})).json()
    assert [letter["event_id"] for letter in first["dead_letters"]] == ["bad0", "bad1"]
    assert (await http.delete(f"{PATH}/{first['dead_letters'][1]['id']}")).status_code == 200
    cursor = first["page"]["next_cursor"]
    second = (await http.get(PATH, params={"group": "projection", "limit": "3", "cursor": cursor})).json()
    assert [letter["event_id"] for letter in second["dead_letters"]] == ["bad2", "bad3", "bad4"]
    assert second["page"]["next_cursor"] is None
    assert await letters(http, reason="'bad3' has no")


async def test_redriving_what_cannot_work_buries_it_again_with_a_higher_count(
    service: Service, http: httpx2.AsyncClient
) -> None:
    await poison(service, 1)
    [letter] = await of_projection(http, 1)
    answer = await http.post(f"{PATH}/{letter['id']}/redrive")
    assert (answer.status_code, answer.json()["state"]) == (202, "redriving")

    async def again() -> bool:
        return [found["redriven"] for found in await letters(http, group="projection")] == [1]

    await until(again)
    [second] = await letters(http, group="projection")
    assert second["deliveries"] == 2
    assert (await http.get(f"{PATH}/{letter['id']}")).status_code == 404, "the first letter is replaced"
    answer = await http.post(f"{PATH}/redrive", json={"group": "projection"})
    assert (answer.status_code, answer.json()) == (202, {"count": 1})


async def test_redriving_what_works_now_removes_the_letter(service: Service, http: httpx2.AsyncClient) -> None:
    position = await post_all(http, [event(1)])
    await settled(http, position)
    async with open_resources(service.settings) as resources:  # as if the stage had failed for a passing reason
        [at] = [await resources.ledger.position_of(partition_of(service), "e1")]
        assert at is not None
        await resources.dead_letters.bury(
            partition_of(service), "indexing", at, event_id="e1", reason="KeyError: once", traceback="t", deliveries=5
        )
    assert (await http.get(PATH)).json()["counts"] == {"indexing": 1}
    answer = await http.post(f"{PATH}/redrive", json={})
    assert answer.json() == {"count": 1}

    async def gone() -> bool:
        return await letters(http) == []

    await until(gone)


async def test_discarding_keeps_the_event_and_counts(service: Service, http: httpx2.AsyncClient) -> None:
    await poison(service, 1, 2)
    await of_projection(http, 2)
    answer = await http.delete(PATH, params={"group": "projection"})
    assert (answer.status_code, answer.json()) == (200, {"count": 2})
    assert await letters(http, group="projection") == []
    assert (await http.get("/v1/events/bad2")).status_code == 200


async def test_a_tenant_sees_and_touches_only_its_own(service: Service, http: httpx2.AsyncClient) -> None:
    await poison(service, 1)
    [letter] = await of_projection(http, 1)
    async with open_resources(service.settings) as resources:
        other = await resources.api_keys.create((await resources.tenants.ensure("neighbour", 1)).name, name="n")
        reader = (
            await resources.api_keys.make(
                TenantId(service.tenant), name="r", scopes=["read", "ingest"], expires_at=None
            )
        ).key
    async with service.client(other) as stranger:
        assert (await stranger.get(PATH)).json()["dead_letters"] == []
        for method, path in (("GET", ""), ("POST", "/redrive"), ("DELETE", "")):
            assert (await stranger.request(method, f"{PATH}/{letter['id']}{path}")).status_code == 404
        assert (await stranger.post(f"{PATH}/redrive", json={})).json() == {"count": 0}
        assert (await stranger.delete(PATH, params={"group": "projection"})).json() == {"count": 0}
    async with service.client(reader) as unprivileged:
        assert (await unprivileged.get(PATH)).status_code == 403
    assert len(await letters(http, group="projection")) == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "?cursor=x", 422), ("GET", "?cursor=7-1-1", 422), ("GET", "?limit=0", 422), ("GET", "?surprise=1", 422),
        ("GET", "/x", 404), ("GET", "/7-1-1", 404), ("GET", "/0-1-1", 404), ("GET", "/00-1-1", 404),
        ("DELETE", "/0-1-1", 404), ("POST", "/0-1-1/redrive", 404), ("DELETE", "", 422),
    ],
)  # fmt: skip
async def test_what_is_not_there_is_said(http: httpx2.AsyncClient, method: str, path: str, status: int) -> None:
    assert (await http.request(method, PATH + path)).status_code == status


async def test_an_erased_events_letter_goes(service: Service, http: httpx2.AsyncClient) -> None:
    """Also of an event that was never projected, which no timeline names; its error quotes what it said."""
    async with open_resources(service.settings) as resources:
        secret = Envelope(
            event_id=EventId("quoted"), event_type="memory.summary", session_id=SessionId("s"), agent_id="a",
            user_id="ada", occurred_at=1_750_000_000_000, origin="derived", payload={"text": "canary"},
        )  # fmt: skip
        await resources.ledger.append(
            partition_of(service), [Appendable(secret.event_id, secret.session_id, codec.encode(secret))]
        )
        await of_projection(http, 1)
        answer = await http.delete("/v1/users/ada", params={"wait_ms": "30000"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["removed"]["dead_letters"] >= 1
        assert await letters(http) == []
        assert await resources.ledger_redis.xlen(PartitionKeys(partition_of(service)).dead_letters) == 0


async def test_the_command_line_lists_shows_redrives_and_discards(service: Service, http: httpx2.AsyncClient) -> None:
    await poison(service, 1)
    [letter] = await of_projection(http, 1)
    listed = await command(service, "list", "--group", "projection")
    assert letter["id"] in listed
    assert "bad1" in listed
    assert "dead letters: projection 1" in listed
    shown = await command(service, "show", letter["id"])
    assert "Traceback" in shown
    assert "again" in await command(service, "redrive", letter["id"])

    async def again() -> bool:
        return [found["redriven"] for found in await letters(http, group="projection")] == [1]

    await until(again)
    [second] = await letters(http, group="projection")
    assert "is discarded" in await command(service, "discard", second["id"], "--yes")
    assert await letters(http, group="projection") == []
    refused = await run(service, "show", second["id"])
    assert "there is no dead letter" in str(refused.exception)
    assert (await run(service, "redrive")).exit_code == 2


async def run(service: Service, *arguments: str) -> Result:
    """In a thread: the command has an event loop of its own."""
    line = ["dead-letters", *arguments, "--url", service.url, "--key", service.key]
    return await asyncio.to_thread(CliRunner().invoke, build_app(), line)


async def command(service: Service, *arguments: str) -> str:
    done = await run(service, *arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output
