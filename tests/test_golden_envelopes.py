"""Every stored version of an envelope stays readable: the golden corpus (tests/golden/README.md)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from context_graph.domain.event import Envelope, LedgerEvent, TenantId
from context_graph.domain.position import Position
from context_graph.domain.upcast import UPCASTERS
from context_graph.store import codec

_FOLDER = Path(__file__).parent / "golden" / "envelopes"
_ROWS = [
    pytest.param(json.loads(line), id=f"{path.stem}-{number}")
    for path in sorted(_FOLDER.glob("*.ndjson"))
    for number, line in enumerate(path.read_text().splitlines(), 1)
]


def _exact(value: Any) -> str:
    """A text that differs where values differ in type or in the last digit: 1 and 1.0, 0.0 and -0.0."""
    return json.dumps(value, sort_keys=True)


def _fields(envelope: Envelope) -> dict[str, Any]:
    return {**dataclasses.asdict(envelope), "caused_by": list(envelope.caused_by)}


@pytest.mark.parametrize("row", _ROWS)
def test_a_stored_envelope_reads_as_it_always_did(row: dict[str, Any]) -> None:
    body = row["stored"].encode()
    decoded = codec.decode(body)
    assert isinstance(decoded.caused_by, tuple)
    expected = dict.fromkeys(_fields(decoded)) | row["expected"]  # a field that came later is absent in older rows
    assert _exact(_fields(decoded)) == _exact(expected)
    assert codec.content_hash(body).hex() == row["content_hash"], "the same event sent again would be a conflict"


@pytest.mark.parametrize("row", [param for param in _ROWS if str(param.id).startswith("v1-")])
def test_the_same_envelope_is_stored_as_the_same_bytes(row: dict[str, Any]) -> None:
    fields = row["expected"] | {"caused_by": tuple(row["expected"]["caused_by"])}
    assert codec.encode(Envelope(**fields)).decode() == row["stored"]


@pytest.mark.parametrize("row", _ROWS)
def test_upcasting_reads_every_stored_version(row: dict[str, Any]) -> None:
    event = LedgerEvent(TenantId("t"), Position(0, 1, 0), codec.decode(row["stored"].encode()))
    newest = UPCASTERS.newest(event)
    expected = row.get("newest", {name: row["expected"][name] for name in ("payload", "schema_version")})
    assert _exact(newest.envelope.payload) == _exact(expected["payload"])
    assert newest.envelope.schema_version == expected["schema_version"]
    assert UPCASTERS.newest(newest) == newest


def test_the_corpus_holds_every_field_and_every_version() -> None:
    rows: list[Any] = [param.values[0] for param in _ROWS]
    for field in dataclasses.fields(Envelope):
        assert any(row["expected"].get(field.name) not in (None, []) for row in rows), field.name
    assert (_FOLDER / "v1.ndjson").exists()
