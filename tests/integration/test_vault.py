"""Sealed events: what Redis holds of them, how they are recognised, and what a destroyed key means."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from pydantic import SecretStr

from context_graph.bootstrap import Resources, open_resources
from context_graph.domain.erasure import Subject
from context_graph.domain.event import LedgerEvent
from context_graph.domain.partition import Partition
from context_graph.errors import PermanentError, VaultLocked
from context_graph.settings import Settings, VaultSettings
from context_graph.store import sealing
from context_graph.store.keys import PartitionKeys
from tests.ledger_events import append, appendable, envelope, only_partition
from tests.stages import Recorder, running
from tests.waiting import until

MASTER = b64encode(bytes(range(32))).decode()
OTHER_MASTER = b64encode(bytes(range(1, 33))).decode()
CANARY = "a secret about nadia"


def with_vault(settings: Settings, **fields: Any) -> Settings:
    fields = {"master_key": SecretStr(MASTER), "cache_seconds": 0.0} | fields
    return settings.model_copy(update={"vault": VaultSettings.model_validate(fields)})


@pytest.fixture
async def sealing_resources(settings: Settings) -> AsyncIterator[Resources]:
    async with open_resources(with_vault(settings)) as opened:
        yield opened


@pytest.fixture
async def here(sealing_resources: Resources) -> Partition:
    return await only_partition(sealing_resources.tenants)


def told(number: int = 0, **fields: Any) -> Any:
    return envelope(number, **{"user_id": "nadia", "payload": {"text": CANARY}} | fields)


async def raw_bodies(resources: Resources, partition: Partition) -> list[bytes]:
    entries: Any = await resources.ledger_redis.xrange(PartitionKeys(partition).ledger)
    return [fields[b"e"] for _, fields in entries]


async def test_payload_and_person_of_a_sealed_event_are_not_in_the_stream_and_come_back_when_read(
    sealing_resources: Resources, here: Partition
) -> None:
    known = told(1, payload_ref="s3://bucket/nadia")
    await append(sealing_resources.ledger, here, [known])
    (body,) = await raw_bodies(sealing_resources, here)
    assert sealing.is_sealed(body)
    assert b"nadia" not in body
    (event,) = await sealing_resources.ledger.after(here, None, 10)
    assert event.envelope == known
    assert not event.erased


async def test_the_same_content_is_a_duplicate_and_other_content_a_conflict_though_every_sealing_differs(
    sealing_resources: Resources, here: Partition
) -> None:
    ledger = sealing_resources.ledger
    answers = [(await ledger.append(here, [appendable(told(1))]))[0] for _ in range(2)]
    assert [answer.status for answer in answers] == ["created", "duplicate"]
    assert answers[0].position == answers[1].position
    (changed,) = await ledger.append(here, [appendable(told(1, payload={"text": "other"}))])
    assert changed.status == "conflict"
    (moved,) = await ledger.append(here, [appendable(told(1, user_id="lena"))])
    assert moved.status == "conflict"


async def test_an_event_from_before_sealing_is_still_recognised_as_a_duplicate(settings: Settings) -> None:
    async with open_resources(settings) as plain:
        here = await only_partition(plain.tenants)
        await append(plain.ledger, here, [told(1)])
    async with open_resources(with_vault(settings)) as sealed:
        (again,) = await sealed.ledger.append(here, [appendable(told(1))])
        (other,) = await sealed.ledger.append(here, [appendable(told(1, payload={"text": "other"}))])
    assert (again.status, other.status) == ("duplicate", "conflict")


async def test_without_sessions_only_events_about_people_are_sealed(settings: Settings) -> None:
    async with open_resources(with_vault(settings, sessions=False)) as resources:
        here = await only_partition(resources.tenants)
        await append(resources.ledger, here, [told(1), envelope(2)])
        assert [sealing.is_sealed(body) for body in await raw_bodies(resources, here)] == [True, False]


@pytest.mark.parametrize("subject", [Subject("user", "nadia"), Subject("session", "s1")])
async def test_an_erased_subject_is_read_as_a_tombstone_and_takes_nothing_more(
    sealing_resources: Resources, here: Partition, subject: Subject
) -> None:
    ledger, vault = sealing_resources.ledger, sealing_resources.vault
    await append(ledger, here, [told(1), told(2, user_id="lena", session_id="s2")])
    await vault.destroy(here, subject, "erasure-1")
    erased, kept = await ledger.after(here, None, 10)
    assert erased.erased
    assert (erased.envelope.payload, erased.envelope.user_id) == (None, None)
    assert erased.envelope.event_id == "e1"
    assert kept.envelope.payload == {"text": CANARY}
    (again,) = await ledger.append(here, [appendable(told(1))])
    (new,) = await ledger.append(here, [appendable(told(3))])
    assert (again.status, new.status) == ("erased", "erased")
    assert (again.erased, new.erased) == (subject, subject)
    assert await ledger.length(here) == 2


async def test_a_process_that_still_remembers_a_destroyed_key_cannot_append_with_it(settings: Settings) -> None:
    async with (
        open_resources(with_vault(settings, cache_seconds=60.0)) as slow,
        open_resources(with_vault(settings)) as other,
    ):
        here = await only_partition(slow.tenants)
        await append(slow.ledger, here, [told(1)])
        await other.vault.destroy(here, Subject("user", "nadia"), "erasure-1")
        (late,) = await slow.ledger.append(here, [appendable(told(2))])
        assert (late.status, late.erased) == ("erased", Subject("user", "nadia"))
        assert await slow.ledger.length(here) == 1


async def test_what_was_kept_in_the_clear_is_hidden_when_its_person_is_erased(settings: Settings) -> None:
    async with open_resources(settings) as plain:
        here = await only_partition(plain.tenants)
        await append(plain.ledger, here, [told(1), told(2, user_id="lena")])
    async with open_resources(with_vault(settings)) as sealed:
        await sealed.vault.destroy(here, Subject("user", "nadia"), "erasure-1")
        events = await sealed.ledger.after(here, None, 10)
    assert [(event.erased, event.envelope.payload) for event in events] == [(True, None), (False, {"text": CANARY})]


async def test_stages_get_opened_events_and_tombstones_in_one_batch(
    sealing_resources: Resources, here: Partition
) -> None:
    await append(sealing_resources.ledger, here, [told(1), told(2, user_id="lena"), envelope(3)])
    await sealing_resources.vault.destroy(here, Subject("user", "nadia"), "erasure-1")
    seen: list[LedgerEvent] = []

    async def keep(events: Sequence[LedgerEvent]) -> None:
        seen.extend(events)

    async with running(sealing_resources.source, Recorder(react=keep)):
        await until(lambda: len(seen) == 3)
    assert [event.erased for event in seen] == [True, False, False]
    assert seen[1].envelope.user_id == "lena"


async def test_a_changed_or_moved_entry_cannot_be_opened(sealing_resources: Resources, here: Partition) -> None:
    await append(sealing_resources.ledger, here, [told(1)])
    (body,) = await raw_bodies(sealing_resources, here)
    changed = body.replace(b'"event_id":"e1"', b'"event_id":"e2"')
    with pytest.raises(PermanentError, match="cannot be opened"):
        await sealing_resources.vault.open(here, [changed])


async def test_without_the_master_key_sealed_events_say_what_to_set(settings: Settings) -> None:
    async with open_resources(with_vault(settings)) as sealed:
        here = await only_partition(sealed.tenants)
        await append(sealed.ledger, here, [told(1)])
    async with open_resources(settings) as plain:
        with pytest.raises(VaultLocked, match="CG_VAULT__MASTER_KEY"):
            await plain.ledger.after(here, None, 10)
    other = with_vault(settings, master_key=SecretStr(OTHER_MASTER))
    async with open_resources(other) as wrong:
        with pytest.raises(VaultLocked, match="another master key"):
            await wrong.ledger.after(here, None, 10)


async def test_after_a_rotation_keys_are_wrapped_anew_and_the_previous_master_key_can_be_dropped(
    settings: Settings,
) -> None:
    async with open_resources(with_vault(settings)) as first:
        here = await only_partition(first.tenants)
        await append(first.ledger, here, [told(1)])
    rotated = with_vault(settings, master_key=SecretStr(OTHER_MASTER), previous_keys=SecretStr(MASTER))
    async with open_resources(rotated) as second:
        assert (await second.ledger.after(here, None, 10))[0].envelope == told(1)
        assert await second.vault.keys.rewrap(here) == 3  # pepper, person, session
        assert await second.vault.keys.rewrap(here) == 0
    async with open_resources(with_vault(settings, master_key=SecretStr(OTHER_MASTER))) as third:
        assert (await third.ledger.after(here, None, 10))[0].envelope == told(1)


async def test_a_session_keeps_the_order_of_the_ledger_whoever_its_events_of_one_batch_are_about(
    sealing_resources: Resources, here: Partition
) -> None:
    people = ["nadia", None, "omar", None, "nadia", "omar"]
    await append(sealing_resources.ledger, here, [told(n, user_id=who) for n, who in enumerate(people)])
    expected = [f"e{n}" for n in range(len(people))]
    listed = await sealing_resources.ledger.of_session(here, "s1", None, 100)
    assert [event.envelope.event_id for event in listed] == expected
    backwards = await sealing_resources.ledger.of_session_before(here, "s1", listed[3].position, 100)
    assert [event.envelope.event_id for event in backwards] == expected[2::-1]
