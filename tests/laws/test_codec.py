"""Laws of the stored form: what is written is read back, and equal content has equal bytes."""

from __future__ import annotations

import orjson
from hypothesis import given

from context_graph.domain.event import Envelope
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.position import Position
from context_graph.store import codec
from tests.laws.strategies import ENVELOPES, LEDGERS


@given(ENVELOPES)
def test_an_envelope_survives_being_stored(envelope: Envelope) -> None:
    assert codec.decode(codec.encode(envelope)) == envelope


@given(ENVELOPES)
def test_the_order_of_keys_does_not_change_the_content(envelope: Envelope) -> None:
    body = codec.encode(envelope)
    shuffled = dict(reversed(list(orjson.loads(body).items())))
    again = codec.encode(codec.decode(orjson.dumps(shuffled)))
    assert codec.content_hash(again) == codec.content_hash(body)


@given(LEDGERS)
def test_positions_order_by_text_key_as_they_order_by_number(ledger: list) -> None:  # type: ignore[type-arg]
    positions = [event.position for event in ledger]
    assert sorted(positions) == sorted(positions, key=lambda position: position.sort_key)
    for position in positions:
        assert Position.parse(str(position)) == position
        assert Position.of_sort_key(0, position.sort_key) == position


def test_partitions_and_their_names_convert_both_ways() -> None:
    tenant = Tenant("a-b_c", 4)  # type: ignore[arg-type]
    for partition in tenant.partitions:
        assert Partition.parse(str(partition)) == partition
        assert partition.tag == f"{{{partition}}}"
