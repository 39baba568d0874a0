"""`python -m tests.quality.as_of [--turns N]`: how search as of a moment ranks beside a replay up to there.

Of a LoCoMo conversation the first N turns go into one tenant, the first half of them into another. Every question is
asked of the first as of the half's last position, and of the second as it is. The index weighs words by all documents
it has now, so scores are made again from the numbers of then. Here is how well: the share of
questions with the same best result, with the same ten in the same order, and the mean overlap of the ten.

JSON on stdout. Without the data it says so and ends well.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import httpx2
from pydantic import SecretStr

from context_graph.bootstrap import Resources, open_resources
from context_graph.local.redis_server import embedded_redis
from context_graph.settings import Settings
from tests.quality.sets import DATA, locomo
from tests.service import Service, ServiceThread

_WAIT_MS = 60_000
_DEEP = 10
_BATCH = 10  # turns: of one batch all have one millisecond, and an index knows of a position no more than that


async def main(turns: int) -> int:
    """Measure and print."""
    if not (DATA / "locomo").is_dir():
        sys.stderr.write(f"no conversations in {DATA}: nothing measured\n")
        return 0
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        async with embedded_redis(Path(folder)) as server:
            settings = Settings(redis_url=SecretStr(server.url), data_dir=Path(folder) / "data", log_level="error")
            thread = ServiceThread(settings)
            await asyncio.to_thread(thread.start)
            try:
                async with open_resources(settings) as resources:
                    found = await _measure(thread.url, resources, settings, turns)
            finally:
                await asyncio.to_thread(thread.stop)
    print(json.dumps({"as_of": found}, indent=2))
    return 0


async def _measure(url: str, resources: Resources, settings: Settings, turns: int) -> dict[str, Mapping[str, float]]:
    conversation = locomo()[0]
    envelopes = [turn.envelope(conversation.name) for turn in conversation.turns[:turns]]
    half = len(envelopes) // 2 // _BATCH * _BATCH
    clients = [await _client(url, resources, settings, name) for name in ("whole", "replayed")]
    async with clients[0] as whole, clients[1] as replayed:
        positions = await _filled(whole, envelopes)
        await _filled(replayed, envelopes[:half])
        questions = [question.text for question in conversation.questions]
        return {
            mode: await _compared(whole, replayed, questions, mode, positions[half - 1])
            for mode in ("keyword", "semantic", "hybrid")
        }


async def _client(url: str, resources: Resources, settings: Settings, name: str) -> httpx2.AsyncClient:
    tenant = await resources.tenants.ensure(name, 1)
    key = await resources.api_keys.create(tenant.name, name="quality")
    return Service(url, key, name, settings).client()


async def _filled(http: httpx2.AsyncClient, envelopes: Sequence[dict[str, Any]]) -> list[str]:
    """Post all and wait until they are enriched; the positions in order."""
    positions: list[str] = []
    for start in range(0, len(envelopes), _BATCH):
        answer = await http.post("/v1/events/batch", json={"events": envelopes[start : start + _BATCH]})
        positions += [result["position"] for result in answer.json()["results"]]
    body = {"query": "hello", "mode": "keyword", "min_position": positions[-1], "wait_ms": _WAIT_MS}
    for _ in range(30):
        if (await http.post("/v1/search", json=body)).json()["meta"]["complete"]:
            return positions
    raise RuntimeError("the turns were not enriched within half an hour")


async def _compared(
    whole: httpx2.AsyncClient, replayed: httpx2.AsyncClient, questions: Sequence[str], mode: str, as_of: str
) -> dict[str, float]:
    first, order, overlap = [], [], []
    for question in questions:
        body = {"query": question, "mode": mode, "limit": _DEEP}
        mine = _ids(await whole.post("/v1/search", json=body | {"as_of": as_of}))
        its = _ids(await replayed.post("/v1/search", json=body))
        first.append(mine[:1] == its[:1])
        order.append(mine == its)
        overlap.append(len(set(mine) & set(its)) / len(set(mine) | set(its)) if mine or its else 1.0)
    return {
        "questions": len(questions),
        "same_best": round(mean(first), 3),
        "same_ten_in_order": round(mean(order), 3),
        "overlap_of_ten": round(mean(overlap), 3),
    }


def _ids(answer: httpx2.Response) -> list[str]:
    return [result["id"] for result in answer.json()["results"]]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=400)
    sys.exit(asyncio.run(main(parser.parse_args().turns)))
