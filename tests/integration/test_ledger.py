"""The ledger's promises on a real Redis: each event once, in one order, whatever is repeated, raced or restarted."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from context_graph.bootstrap import Resources, open_resources
from context_graph.domain.event import Envelope
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.settings import Settings
from context_graph.store.connection import open_redis
from context_graph.store.keys import PartitionKeys
from context_graph.store.ledger import Appended, Ledger
from tests.ledger_events import append, appendable, envelope, only_partition


@pytest.fixture
async def ledger(resources: Resources) -> Ledger:
    return resources.ledger


@pytest.fixture
async def partition(resources: Resources) -> Partition:
    return await only_partition(resources.tenants)


async def put(ledger: Ledger, partition: Partition, *envelopes: Envelope) -> list[Appended]:
    return await ledger.append(partition, [appendable(known) for known in envelopes])


async def everything(ledger: Ledger, partition: Partition) -> list[Envelope]:
    return [found.envelope for found in await ledger.after(partition, None, 10_000)]


async def test_what_was_appended_is_read_back_by_id_by_session_and_in_order(
    ledger: Ledger, partition: Partition
) -> None:
    events = [envelope(n, session_id=f"s{n % 2}", user_id="nadia", caused_by=[f"e{n - 1}"]) for n in range(1, 7)]
    positions = await append(ledger, partition, events)
    assert await everything(ledger, partition) == events
    for known, position in zip(events, positions, strict=True):
        found = await ledger.get(partition, known.event_id)
        assert found is not None
        assert (found.envelope, found.position, found.tenant) == (known, position, "acme")
    of_session = await ledger.of_session(partition, "s1", None, 100)
    assert [found.envelope for found in of_session] == [known for known in events if known.session_id == "s1"]
    assert await ledger.last(partition) == positions[-1]
    assert await ledger.length(partition) == len(events)


async def test_what_is_not_there_is_not_found(ledger: Ledger, partition: Partition) -> None:
    assert await ledger.get(partition, "nothing") is None
    assert await ledger.position_of(partition, "nothing") is None
    assert await ledger.last(partition) is None
    assert await ledger.of_session(partition, "nothing", None, 10) == []
    assert await ledger.of_session(partition, "nothing", Position(0, 5, 5), 10) == []
    assert await ledger.append(partition, []) == []


async def test_a_repeated_event_is_a_duplicate_for_other_clients_and_after_the_script_is_forgotten(
    ledger: Ledger, partition: Partition, settings: Settings
) -> None:
    [first] = await put(ledger, partition, envelope(1))
    assert settings.redis_url is not None
    for _ in range(3):
        async with open_redis(settings.redis_url.get_secret_value()) as client:
            await client.script_flush()
            [again] = await put(Ledger(client), partition, envelope(1))
        assert again == Appended("duplicate", first.position)
    assert await ledger.length(partition) == 1


async def test_the_script_is_loaded_again_by_a_client_that_had_it(ledger: Ledger, partition: Partition) -> None:
    for number in range(3):
        [answer] = await put(ledger, partition, envelope(number))
        assert answer.status == "created"
        await ledger._redis.script_flush()
    assert await ledger.length(partition) == 3


async def test_a_conflict_writes_nothing_and_names_the_first_position(
    ledger: Ledger, partition: Partition, resources: Resources
) -> None:
    [first] = await put(ledger, partition, envelope(1))
    before = await dump(resources)
    others = [envelope(1, payload={"text": "another"}), envelope(1, session_id="s2"), envelope(1, user_id="nadia")]
    assert await put(ledger, partition, *others) == [Appended("conflict", first.position)] * 3
    assert await dump(resources) == before
    assert await everything(ledger, partition) == [envelope(1)]


async def test_equal_content_written_differently_is_the_same_event(ledger: Ledger, partition: Partition) -> None:
    one = envelope(1, payload={"a": 1, "b": [1, {"d": 1, "c": 2}]}, occurred_at="2026-09-01T09:00:00Z")
    two = envelope(1, payload={"b": [1, {"c": 2, "d": 1}], "a": 1}, occurred_at="2026-09-01T11:00:00+02:00")
    [first, second] = await put(ledger, partition, one, two)
    assert (first.status, second) == ("created", Appended("duplicate", first.position))


async def test_within_one_batch_the_first_of_an_id_counts(ledger: Ledger, partition: Partition) -> None:
    answers = await put(
        ledger, partition, envelope(1), envelope(2), envelope(1), envelope(2, payload="another"), envelope(3)
    )
    assert [answer.status for answer in answers] == ["created", "created", "duplicate", "conflict", "created"]
    assert answers[2].position == answers[0].position
    assert answers[3].position == answers[1].position
    assert [known.event_id for known in await everything(ledger, partition)] == ["e1", "e2", "e3"]


async def test_a_batch_of_a_thousand_over_hundreds_of_sessions_is_kept_whole(
    ledger: Ledger, partition: Partition
) -> None:
    events = [envelope(n, session_id=f"s{n % 400}") for n in range(1000)]
    positions = await append(ledger, partition, events)
    assert positions == sorted(set(positions))
    assert await everything(ledger, partition) == events
    assert len(await ledger.of_session(partition, "s7", None, 10)) == 3


async def test_an_append_whose_answer_was_lost_is_safe_to_repeat(ledger: Ledger, partition: Partition) -> None:
    events = [envelope(n) for n in range(50)]
    answers = await put(ledger, partition, *events)  # pretend that this answer never came
    again = await put(ledger, partition, *events)
    assert again == [Appended("duplicate", answer.position) for answer in answers]
    assert await ledger.length(partition) == 50
    assert len(await ledger.of_session(partition, "s1", None, 100)) == 50


async def test_racing_writers_of_the_same_event_create_exactly_one(
    resources: Resources, partition: Partition, settings: Settings
) -> None:
    async with open_resources(settings) as other:
        ledgers = [resources.ledger, other.ledger]
        raced = await asyncio.gather(*(put(ledgers[n % 2], partition, envelope(1)) for n in range(20)))
    answers = [answer for answers in raced for answer in answers]
    assert Counter(answer.status for answer in answers) == {"created": 1, "duplicate": 19}
    assert len({answer.position for answer in answers}) == 1
    assert await resources.ledger.length(partition) == 1
    assert len(await resources.ledger.of_session(partition, "s1", None, 100)) == 1


async def test_racing_writers_of_other_contents_leave_one_and_conflicts(ledger: Ledger, partition: Partition) -> None:
    versions = [envelope(1, payload={"version": n}) for n in range(20)]
    raced = await asyncio.gather(*(put(ledger, partition, version) for version in versions))
    assert Counter(answers[0].status for answers in raced) == {"created": 1, "conflict": 19}
    winner = next(version for version, [answer] in zip(versions, raced, strict=True) if answer.status == "created")
    assert await everything(ledger, partition) == [winner]


async def test_positions_increase_strictly_however_many_write(ledger: Ledger, partition: Partition) -> None:
    raced = await asyncio.gather(
        *(append(ledger, partition, [envelope(n * 10 + m) for m in range(10)]) for n in range(30))
    )
    for positions in raced:
        assert positions == sorted(set(positions))
    stored = [found.position for found in await ledger.after(partition, None, 1000)]
    assert stored == sorted(position for positions in raced for position in positions)
    assert len(set(stored)) == 300
    assert len({position.sort_key for position in stored}) == 300


async def test_pages_of_the_ledger_have_no_gap_and_no_repeat(ledger: Ledger, partition: Partition) -> None:
    positions = await append(ledger, partition, [envelope(n) for n in range(25)])
    seen: list[Position] = []
    while page := await ledger.after(partition, seen[-1] if seen else None, 7):
        seen += [found.position for found in page]
    assert seen == positions


async def test_a_session_is_paged_from_any_position_its_own_or_not(ledger: Ledger, partition: Partition) -> None:
    mixed = [envelope(n, session_id="mine" if n % 3 == 0 else "other") for n in range(40)]
    positions = await append(ledger, partition, mixed)
    mine = [place for place, known in zip(positions, mixed, strict=True) if known.session_id == "mine"]
    first, last = positions[0], positions[-1]
    between = [
        Position(0, first.ms - 1, 0),
        *positions,
        Position(0, last.ms, last.seq + 1),
        Position(0, last.ms + 9, 0),
    ]
    for after in between:
        page = await ledger.of_session(partition, "mine", after, 5)
        assert [found.position for found in page] == [place for place in mine if place > after][:5], after
    assert [found.position for found in await ledger.of_session(partition, "mine", None, 100)] == mine


async def test_ids_and_sessions_may_hold_any_character(ledger: Ledger, partition: Partition) -> None:
    strange = ["a b", "{x}:ledger", "é山🏕", "*", ":ids", "%00"]
    events = [envelope(n, event_id=text, session_id=text) for n, text in enumerate(strange)]
    await append(ledger, partition, events)
    for known in events:
        found = await ledger.get(partition, known.event_id)
        assert found is not None
        assert found.envelope == known
        assert len(await ledger.of_session(partition, known.session_id, None, 9)) == 1


async def test_partitions_share_nothing(resources: Resources) -> None:
    acme, other = await only_partition(resources.tenants, "acme"), await only_partition(resources.tenants, "acme-2")
    await append(resources.ledger, acme, [envelope(1)])
    await append(resources.ledger, other, [envelope(1, payload="another")])
    assert await everything(resources.ledger, acme) == [envelope(1)]
    assert await everything(resources.ledger, other) == [envelope(1, payload="another")]


async def dump(resources: Resources) -> dict[bytes, bytes | None]:
    """Every key's bytes, as Redis serialises them."""
    return {key: await resources.ledger_redis.dump(key) async for key in resources.ledger_redis.scan_iter()}


async def test_the_ids_hash_alone_decides_so_a_trimmed_event_stays_known(
    ledger: Ledger, partition: Partition, resources: Resources
) -> None:
    positions = await append(ledger, partition, [envelope(n) for n in range(10)])
    await resources.ledger_redis.xtrim(PartitionKeys(partition).ledger, minid=positions[5].stream_id, approximate=False)
    assert [answer.status for answer in await put(ledger, partition, envelope(1), envelope(7))] == ["duplicate"] * 2
    assert [answer.status for answer in await put(ledger, partition, envelope(2, payload="x"))] == ["conflict"]
    assert await ledger.get(partition, "e1") is None
    assert [found.position for found in await ledger.of_session(partition, "s1", None, 100)] == positions[5:]
