"""The OpenAPI document is true: generated requests, good and bad, get no 500 and no answer that it does not describe.

Bounded and with fixed seeds: every operation gets the same requests in every run. Hand-made oddities follow, of kinds
that no schema describes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx2
import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from context_graph.api.app import create_app
from context_graph.settings import Settings
from tests.events import event
from tests.service import Service

_DOCUMENT = create_app(Settings()).openapi()
_STREAMS = {"/v1/events/tail"}  # answers without an end: tests of their own
_CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]
_LONGEST_ADDRESS = 60_000  # characters; beyond these the HTTP parser answers by itself
_BOUNDED = hypothesis.settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)


@schemathesis.serializer("application/x-ndjson", "application/gzip", "application/zstd")
def _as_it_is(_: Any, value: Any) -> bytes:
    """Bodies of an import: generated text or bytes, which hardly ever are what they say."""
    return value if isinstance(value, bytes) else str(value).encode()


def _operations() -> Iterator[Any]:
    for found in schemathesis.openapi.from_dict(_DOCUMENT).get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]  # the document is valid, or this raises
        if operation.path not in _STREAMS:
            yield pytest.param(operation, id=f"{operation.method.upper()} {operation.path}")


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["good", "bad"])
@pytest.mark.parametrize("operation", list(_operations()))
def test_every_answer_is_one_that_is_described(service: Service, operation: Any, mode: GenerationMode) -> None:
    try:
        cases = operation.as_strategy(generation_mode=mode)
        cases.validate()
    except (hypothesis.errors.Unsatisfiable, hypothesis.errors.InvalidArgument):
        pytest.skip("nothing can be wrong about this request")

    @hypothesis.seed(20260901)
    @_BOUNDED
    @hypothesis.given(case=cases)
    def check(case: Any) -> None:
        answer = case.call(base_url=service.url, headers={"X-Engine-API-Key": service.key}, timeout=30)
        if len(str(answer.request.url)) <= _LONGEST_ADDRESS:
            case.validate_response(answer, checks=_CHECKS)

    check()


def test_every_operation_says_what_goes_wrong_and_how_it_is_used() -> None:
    for path, operations in _DOCUMENT["paths"].items():
        for method, operation in operations.items():
            name = f"{method.upper()} {path}"
            assert operation["summary"], name
            assert set(operation["responses"]) & {"200", "201", "202", "204", "207"}, name
            for status, response in operation["responses"].items():
                assert response.get("content") or status == "204", f"{name}: {status} has no body"
                assert "X-Request-Id" in response["headers"], name
            if operation.get("security") != []:
                assert {"401", "403", "503"} <= set(operation["responses"]), name
            if "requestBody" in operation:
                for media, content in operation["requestBody"]["content"].items():
                    assert media != "application/json" or "example" in content, f"{name} has no example"
    text = json.dumps(_DOCUMENT)
    assert "#/$defs/" not in text
    assert "HTTPValidationError" not in text


async def _raw(service: Service, request: bytes) -> tuple[int, bytes]:
    """The status and the rest of what is answered to these bytes."""
    host, _, port = service.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    await writer.drain()
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    await writer.wait_closed()
    return int(answer.split(b" ", 2)[1]), answer


def _nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def _event_with(payload: bytes) -> bytes:
    head = b'{"event_type":"a.b","session_id":"s","agent_id":"a","occurred_at":"2026-09-01T09:00:00Z","payload":'
    return head + payload + b"}"


ODD_BODIES: list[tuple[str, bytes, set[int]]] = [
    ("nothing", b"", {400}),
    ("invalid UTF-8", b'{"event_type": "\xff\xfe"}', {400}),
    ("a lone surrogate", _event_with(b'"\\ud800"'), {400}),
    ("a NUL character", _event_with(b'"a\\u0000b"'), {201}),
    ("a huge number", _event_with(b"1e400"), {400}),
    ("a number of 400 digits", _event_with(b"1" * 400), {400}),
    ("a number over 64 bits", _event_with(b"123456789012345678901234567890"), {422}),
    ("an array 100,000 deep", _event_with(_nested(100_000)), {400}),
    ("an array as deep as is parsed", _event_with(_nested(1000)), {422}),
    ("an array as deep as is taken", _event_with(_nested(220)), {201}),
    ("one level more than is taken", _event_with(_nested(226)), {422}),
    ("a duplicated key", b'{"event_type":"x","event_type":"a.b"}', {422}),
    ("NaN", _event_with(b"NaN"), {400}),
    ("a number for a body", b"5", {422}),
    ("a name of NUL in the body", b'{"\\u0000": 1}', {422}),
]


@pytest.mark.parametrize(("what", "body", "statuses"), ODD_BODIES, ids=[row[0] for row in ODD_BODIES])
async def test_odd_bodies_are_answered_and_what_is_kept_is_read_back(
    http: httpx2.AsyncClient, what: str, body: bytes, statuses: set[int]
) -> None:
    answer = await http.post("/v1/events", content=body)
    assert answer.status_code in statuses, (what, answer.text)
    for path in ("/v1/events/batch", "/v1/context", "/v1/search", "/v1/schemas/mode"):
        method = "PUT" if path.endswith("mode") else "POST"
        assert (await http.request(method, path, content=body)).status_code in {400, 422}, (what, path)
    assert (await http.put("/v1/schemas/a.b/1", content=body)).status_code < 500
    if answer.status_code == 201:
        event_id = answer.json()["event_id"]
        assert (await http.get(f"/v1/events/{event_id}")).status_code == 200
        assert len((await http.get("/v1/events")).json()["events"]) == 1


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/events/%ff%fe", b"/v1/events/%00", b"/v1/events/a%2F..%2Fb", b"/v1/events/%zz", b"/v1/events/",
        b"/v1/events/" + b"x" * 5000, b"/v1/events/%F0%9F%91%8D?%00=%00", b"/v1/events/%E2%80%AE/lineage",
        b"/v1/events?after=%ff", b"/v1/events?limit=1&limit=2", b"/v1/events?limit=%F0%9D%9F%93", b"/v1/events?=&&;=",
        b"/v1/events?session_id=", b"/v1/events?after=0-999999999999999-999999999999999999",
        b"/v1/events//lineage?max_depth=1e9", b"/v1/events/e/lineage?as_of=0001-01-01T00:00:00%2B23:59",
        b"/v1/receipts/%00", b"/v1/schemas/%00/1", b"/v1/schemas/a.b/99999999999999999999999", b"/problems/%ff",
        b"/problems/..%2f", b"//v1/events", b"/v1/search/",
    ],
)  # fmt: skip
async def test_odd_targets_are_answered(service: Service, target: bytes) -> None:
    head = b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Engine-API-Key: " + service.key.encode()
    status, answer = await _raw(service, head + b"\r\n\r\n")
    assert status in {200, 404, 405, 422}, answer
    assert b"x-request-id" in answer.lower()


@pytest.mark.parametrize("event_id", ["a/b", "a//b", " ", "%2F", "?#", "é👍", ".."])
async def test_an_event_of_any_id_can_be_read(http: httpx2.AsyncClient, event_id: str) -> None:
    await http.post("/v1/events", json=event(1, event_id=event_id))
    path = "/v1/events/" + quote(event_id, safe="").replace(".", "%2E")
    answer = await http.get(path)
    assert (answer.status_code, answer.json().get("event_id")) == (200, event_id)
    assert (await http.get(f"{path}/lineage")).status_code in {200, 404}, "it is in the graph a moment later"


@pytest.mark.parametrize(
    "headers",
    [
        b"X-Engine-API-Key: \xff\xfe", b"X-Engine-API-Key: \xe2\x82\xac", b"X-Engine-API-Key: " + b"k" * 8000,
        b"Authorization: Bearer", b"Authorization: \xff", b"Authorization: Basic x",
    ],
)  # fmt: skip
async def test_odd_keys_are_no_keys(service: Service, headers: bytes) -> None:
    request = b"GET /v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + headers + b"\r\n\r\n"
    assert (await _raw(service, request))[0] == 401


@pytest.mark.parametrize(
    "as_of", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "1969-12-31T23:59:59Z", "0-999999999999999-0"]
)
async def test_times_at_the_end_of_the_calendar_are_answered(http: httpx2.AsyncClient, as_of: str) -> None:
    await http.post("/v1/events", json=event(1))
    for path in ("/v1/context", "/v1/search"):
        answer = await http.post(path, json={"query": "message", "as_of": as_of})
        assert answer.status_code in {200, 422}, answer.text
    filtered = {"query": "message", "filters": {"occurred_at": {"gte": as_of}}}
    assert (await http.post("/v1/search", json=filtered)).status_code in {200, 422}
    assert (await http.get("/v1/events/e1/lineage", params={"as_of": as_of})).status_code in {200, 404, 422}
