"""Compressed JSON bodies: read like plain ones, with limits behind the compression; what is not known is refused."""

from __future__ import annotations

import gzip
from typing import Any

import httpx2
import orjson
import pytest
import zstandard

from tests.events import event
from tests.service import Service


def packed(body: bytes, encoding: str) -> bytes:
    return gzip.compress(body) if encoding == "gzip" else zstandard.compress(body)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
async def test_a_compressed_event_and_batch_are_taken(http: httpx2.AsyncClient, encoding: str) -> None:
    headers = {"Content-Encoding": encoding}
    one = packed(orjson.dumps(event(1)), encoding)
    assert (await http.post("/v1/events", content=one, headers=headers)).status_code == 201
    batch = packed(orjson.dumps({"events": [event(1), event(2)]}), encoding)
    answer: Any = (await http.post("/v1/events/batch", content=batch, headers=headers)).json()
    assert [result["status"] for result in answer["results"]] == ["duplicate", "created"]


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
async def test_a_bomb_is_refused_by_its_size_when_unpacked(
    service: Service, http: httpx2.AsyncClient, encoding: str
) -> None:
    body = packed(b'"' + b" " * (service.settings.api.max_body_bytes + 1) + b'"', encoding)
    answer = await http.post("/v1/events", content=body, headers={"Content-Encoding": encoding})
    assert answer.status_code == 413
    assert "decompressed" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/v1/events", "/v1/events/batch", "/v1/context", "/v1/search"])
async def test_an_unknown_encoding_is_415_and_a_broken_one_400(http: httpx2.AsyncClient, path: str) -> None:
    unknown = await http.post(path, content=b"{}", headers={"Content-Encoding": "br"})
    assert (unknown.status_code, unknown.json()["code"]) == (415, "unsupported-encoding")
    broken = await http.post(path, content=gzip.compress(b"{}")[:-4], headers={"Content-Encoding": "gzip"})
    assert broken.status_code == 400
    assert "cut off" in broken.json()["detail"]
