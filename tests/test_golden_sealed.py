"""Every stored form of a sealed event stays readable and hides what it has to (tests/golden/README.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from context_graph.store import codec, sealing
from tests.laws.strategies import ENVELOPES

_FOLDER = Path(__file__).parent / "golden" / "sealed"
_ROWS = [
    pytest.param(json.loads(line), id=f"{path.stem}-{number}")
    for path in sorted(_FOLDER.glob("*.ndjson"))
    for number, line in enumerate(path.read_text().splitlines(), 1)
]
_TAGS = ("AAECAwQFBgcICQoL", "yMjIyMjIyMjIyMjI")
_KEY = sealing.event_key([bytes(32), bytes([1]) * 32])


@pytest.mark.parametrize("row", _ROWS)
def test_a_sealed_event_opens_as_it_always_did(row: dict[str, Any]) -> None:
    stored, key = bytes.fromhex(row["stored"]), sealing.event_key([bytes.fromhex(key) for key in row["keys"]])
    assert sealing.is_sealed(stored)
    assert sealing.tags_of(stored) == tuple(row["tags"])
    assert orjson.loads(sealing.unseal(stored, key, row["tenant"])) == row["opened"]
    clear = {name: value for name, value in row["opened"].items() if name not in sealing.SECRET_FIELDS}
    assert orjson.loads(sealing.clear_part(stored)) == clear
    assert codec.identity(stored) == (clear["event_id"], clear["session_id"])
    assert codec.event_type(stored) == clear["event_type"]
    canonical = codec.canonical_json(row["opened"])
    assert key.content_hash(canonical).hex() == row["content_hash"], "the same event sent again would be a conflict"


def test_the_corpus_holds_both_forms() -> None:
    stored = {str(param.id)[:5]: bytes.fromhex(param.values[0]["stored"])[:1] for param in _ROWS}  # type: ignore[index]
    assert stored == {"form1": b"{", "form2": b"\x01"}


@given(envelope=ENVELOPES, nonce=st.binary(min_size=12, max_size=12))
def test_what_is_sealed_opens_to_the_same_bytes_and_shows_no_secret(envelope: Any, nonce: bytes) -> None:
    body = codec.encode(envelope)
    stored = sealing.seal(orjson.loads(body), _TAGS, _KEY, "acme", nonce)
    assert codec.decode(sealing.unseal(stored, _KEY, "acme")) == envelope
    assert sealing.tags_of(stored) == _TAGS
    assert not set(orjson.loads(sealing.clear_part(stored))) & set(sealing.SECRET_FIELDS)


@given(envelope=ENVELOPES, at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_changed_bit_anywhere_is_seen(envelope: Any, at: int, bit: int) -> None:
    stored = bytearray(sealing.seal(orjson.loads(codec.encode(envelope)), _TAGS, _KEY, "acme", bytes(12)))
    stored[at % len(stored)] ^= 1 << bit
    changed = bytes(stored)
    if sealing.is_sealed(changed):
        with pytest.raises(ValueError, match=r"sealed entry|subsection"):
            sealing.unseal(changed, _KEY, "acme")


@given(cut=st.integers(1, 60))
def test_an_entry_that_is_cut_off_is_seen(cut: int) -> None:
    stored = sealing.seal({"agent_id": "a", "event_id": "e", "payload": 1}, _TAGS, _KEY, "acme", bytes(12))
    with pytest.raises(ValueError, match=r"cut off|changed"):
        sealing.unseal(stored[:cut], _KEY, "acme")


def test_another_tenant_cannot_open_it() -> None:
    stored = sealing.seal({"agent_id": "a", "event_id": "e", "payload": 1}, _TAGS, _KEY, "acme", bytes(12))
    with pytest.raises(ValueError, match="changed"):
        sealing.unseal(stored, _KEY, "acme2")


def test_a_large_payload_takes_less_room_sealed_than_in_the_clear() -> None:
    fields = {"agent_id": "a", "event_id": "e", "payload": {"result": ["Where is my parcel to Berlin?"] * 100}}
    assert len(sealing.seal(fields, _TAGS, _KEY, "acme", bytes(12))) < len(codec.canonical_json(fields)) / 10


def test_as_many_subjects_as_a_session_may_have_people() -> None:
    tags = tuple(sorted(_TAGS[0][:12] + f"{number:04d}" for number in range(1000)))
    key = sealing.event_key([bytes(32)] * 1000)
    stored = sealing.seal({"agent_id": "a", "event_id": "e", "payload": 1}, tags, key, "acme", bytes(12))
    assert sealing.tags_of(stored) == tags
    assert orjson.loads(sealing.unseal(stored, key, "acme"))["payload"] == 1
