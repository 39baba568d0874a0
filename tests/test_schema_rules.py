"""Which schemas are taken, what they find in payloads, and that none of them can be made slow."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from context_graph.domain.event import Envelope, EventId, SessionId
from context_graph.errors import InvalidInput
from context_graph.ingest.builtin_schemas import SCHEMAS, builtin_schemas
from context_graph.ingest.schema_rules import SchemaRules, compile_schema
from tests.laws.strategies import ENVELOPES

EVENT = Envelope(
    event_id=EventId("e1"), event_type="order.placed", session_id=SessionId("s"), agent_id="shop", occurred_at=0,
    payload={"id": "#W1", "lines": [{"n": 1}]},
)  # fmt: skip
ORDER = {
    "type": "object",
    "required": ["id", "to/do"],
    "properties": {"id": {"type": "string"}, "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}}},
    "$defs": {"line": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}}},
}


def _nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


def _chain(length: int) -> dict[str, Any]:
    links: dict[str, Any] = {f"d{number}": {"$ref": f"#/$defs/d{number + 1}"} for number in range(length)}
    return {"$defs": links | {f"d{length}": {}}}


def _doubling(levels: int) -> dict[str, Any]:
    defs: dict[str, Any] = {"d0": {"type": "string"}}
    for level in range(1, levels):
        below = {"$ref": f"#/$defs/d{level - 1}"}
        defs[f"d{level}"] = {"allOf": [below, below]}
    return {"$ref": f"#/$defs/d{levels - 1}", "$defs": defs}


REFUSED: list[tuple[str, object, str]] = [
    ("not an object", True, "object"),
    ("not a schema", {"type": "text"}, "schema"),
    ("a foreign reference", {"$ref": "http://127.0.0.1/schema"}, "reference"),
    ("a foreign reference under a property named default", {"properties": {"default": {"$ref": "other"}}}, "reference"),
    ("a dynamic reference", {"$dynamicRef": "#x"}, "reference"),
    ("an inner id", {"properties": {"a": {"$id": "http://127.0.0.1/a"}}}, "reference"),
    ("another spelling of a place", {"$ref": "#/%24defs/a", "$defs": {"a": {}}}, "reference"),
    ("a reference to nothing", {"$ref": "#/$defs/none"}, "reference"),
    ("a circle", {"$ref": "#"}, "recursion"),
    ("a tree of itself", {"properties": {"child": {"$ref": "#"}}}, "recursion"),
    ("a circle under a property named $defs", {"properties": {"$defs": {"$ref": "#"}}}, "recursion"),
    ("a circle of two", {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "recursion"),
    ("doubling references", _doubling(30), "complexity"),
    ("a chain of references", _chain(99), "complexity"),
    ("too deep", _nested(60), "depth"),
    ("deeper than JSON is written", _nested(400), "json"),
    ("lookaround", {"pattern": "(?=a)b"}, "schema"),
    ("a backreference", {"pattern": r"(a)\1"}, "schema"),
    ("an enormous pattern", {"pattern": "(a{1000}){1000}"}, "schema"),
    ("another dialect", {"$schema": "http://json-schema.org/draft-07/schema#"}, "dialect"),
    ("too large", {"description": "x" * 70_000}, "too-large"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "schema", "code"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_could_cost_too_much_or_reaches_out_is_refused(what: str, schema: object, code: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        compile_schema("order.placed", 1, schema, "tenant")
    assert refused.value.problems[0].code == code, what
    assert refused.value.problems[0].remedy


def test_problems_point_into_the_event() -> None:
    schema = compile_schema("order.placed", 1, ORDER, "tenant")
    found = schema.problems({"id": 5, "lines": [{"n": 1}, {"n": 0}]})
    assert {problem.pointer for problem in found} == {"/payload/id", "/payload/lines/1/n", "/payload/to~1do"}
    assert schema.problems({"id": "x", "to/do": 1}) == []


def test_the_number_and_the_length_of_problems_are_bounded() -> None:
    schema = compile_schema("order.placed", 1, {"items": {"type": "integer"}}, "tenant")
    found = schema.problems(["x" * 10_000] * 100)
    assert len(found) == 20
    assert all(len(problem.detail) <= 300 for problem in found)


def test_no_text_makes_a_pattern_slow() -> None:
    schema = compile_schema("a.b", 1, {"pattern": "^(a+)+$"}, "tenant")
    began = time.perf_counter()
    assert schema.problems("a" * 100_000 + "!")
    assert time.perf_counter() - began < 1  # an engine that backtracks would need longer than the universe has


def test_strict_refuses_what_nobody_described_and_lenient_lets_it_pass() -> None:
    schemas = {"order.placed": {1: compile_schema("order.placed", 1, ORDER, "tenant")}}
    strict, lenient = SchemaRules("strict", schemas), SchemaRules("lenient", schemas)
    for event, pointer in (
        (replace(EVENT, event_type="order.lost"), "/event_type"),
        (replace(EVENT, schema_version=2), "/schema_version"),
    ):
        assert lenient.check(event) == ()
        with pytest.raises(InvalidInput) as refused:
            strict.check(event)
        assert [problem.pointer for problem in refused.value.problems] == [pointer]
    assert [problem.pointer for problem in lenient.check(EVENT)] == ["/payload/to~1do"]
    with pytest.raises(InvalidInput, match="to/do"):
        strict.check(EVENT)
    assert strict.check(replace(EVENT, payload=None, payload_ref="s3://there")) == ()
    with pytest.raises(InvalidInput):
        strict.check(replace(EVENT, payload=None))


@pytest.mark.parametrize("event_type", sorted(SCHEMAS))
def test_the_services_own_schemas_are_in_order(event_type: str) -> None:
    schema = builtin_schemas()[event_type][1]
    assert schema.owner == "service"
    for payload in ({}, {"text": "hello", "more": [1]}, "just text", None, {"arguments": {"a": 1}}, {"result": [1]}):
        assert schema.problems(payload) == []


@given(ENVELOPES)
def test_checking_never_fails_on_any_payload(envelope: Envelope) -> None:
    SchemaRules("lenient", builtin_schemas()).check(envelope)
