"""Summaries by a language model on a real Redis and a real server: asked once, believed when held, never in the way."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from context_graph.bootstrap import Resources
from context_graph.domain.event import Envelope, TenantId
from context_graph.domain.partition import Partition
from context_graph.errors import LeaseLostError
from context_graph.models.language_model import LitellmModel
from context_graph.settings import LlmSettings
from context_graph.store.keys import GraphKeys
from context_graph.store.model_usage import ModelUsage
from enrichment.reconsolidation.run import Outcome, consolidate
from enrichment.reconsolidation.writing import Writer
from tests.integration.test_consolidation import happen, project, summaries, talk
from tests.llm_server import LlmServer, Reply, llm_server
from tests.waiting import until

HERE = Partition(TenantId("default"), 0)
DAY = 1_764_000_000_000  # ms: some day in November 2025


@pytest.fixture
def server() -> Iterator[LlmServer]:
    with llm_server() as served:
        served.answer = lambda _: Reply(said("The parcel for first was checked by the carrier at every step.", [1, 2]))
        yield served


def said(text: str, lines: list[int]) -> str:
    return json.dumps({"sentences": [{"text": text, "lines": lines}]})


def with_model(
    resources: Resources, server: LlmServer, *, day: int = DAY, **settings: object
) -> tuple[Resources, Writer]:
    llm = LlmSettings.model_validate(
        {"model": "openai/small", "api_base": server.url, "retries": 0, "facts": False} | settings
    )
    changed = replace(resources, settings=resources.settings.model_copy(update={"llm": llm}))
    usage = ModelUsage(resources.ledger_redis)
    return changed, Writer(LitellmModel("openai/small", llm), usage, llm, lambda: day)


def payload(summary: Envelope) -> dict[str, Any]:
    found: Any = summary.payload
    return dict(found)


async def test_the_model_is_asked_once_and_its_sentences_cite_their_events(
    resources: Resources, server: LlmServer
) -> None:
    await happen(resources, talk("first", 8))
    there, writer = with_model(resources, server)
    assert await consolidate(there, HERE, "w", writer=writer) == Outcome(summarised=1)
    (summary,) = await summaries(resources)
    made = payload(summary)
    assert (made["method"], made["model"], made["prompt_version"]) == ("llm", "openai/small", 1)
    assert made["sentences"][0]["event_ids"] == ["first-0"]  # two lines of one event
    assert "[1] user: Step 0 of the parcel for first was checked by the carrier." in server.material()
    assert await consolidate(there, HERE, "w", writer=writer) == Outcome(unchanged=1)
    assert len(server.requests) == 1
    totals = await ModelUsage(resources.ledger_redis).totals(HERE.tenant)
    assert (totals.calls, totals.input_tokens, totals.output_tokens) == (1, 100, 20)


async def test_a_pass_that_died_after_the_append_does_not_cost_a_second_call(
    resources: Resources, server: LlmServer
) -> None:
    await happen(resources, talk("first", 8))
    there, writer = with_model(resources, server)
    await consolidate(there, HERE, "w", writer=writer)
    await resources.derived_redis.delete(GraphKeys(HERE).consolidated("first"))
    await project(resources)
    assert await consolidate(there, HERE, "w", writer=writer) == Outcome(unchanged=1)
    assert (len(server.requests), len(await summaries(resources))) == (1, 1)


async def test_an_outage_leaves_an_extractive_summary_and_is_made_good_at_the_next_pass(
    resources: Resources, server: LlmServer
) -> None:
    await happen(resources, talk("first", 8))
    there, writer = with_model(resources, server)
    right = server.answer
    server.answer = lambda _: Reply("down", status=503)
    assert await consolidate(there, HERE, "w", writer=writer) == Outcome(summarised=1, waiting=1)
    assert await consolidate(there, HERE, "w", writer=writer) == Outcome(unchanged=1, waiting=1)
    (fallback,) = await summaries(resources)
    assert payload(fallback)["method"] == "extractive"
    assert payload(fallback)["instead_of"]["reason"] == "unavailable"
    server.answer = right
    assert await consolidate(there, HERE, "w", writer=writer) == Outcome(summarised=1)
    assert payload((await summaries(resources))[-1])["method"] == "llm"
    await project(resources)
    node = await resources.graph.summary(HERE, "session/first")
    assert node is not None
    assert node.id == (await summaries(resources))[-1].event_id


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Sorry, no.", "not-json"),
        (said("The parcel went to Reykjavik with 40 others.", [1]), "unsupported"),
        (said("", []), "no-sentences"),
    ],
)
async def test_an_answer_that_cannot_be_believed_is_refused_and_not_paid_for_again(
    resources: Resources, server: LlmServer, text: str, reason: str
) -> None:
    await happen(resources, talk("first", 8))
    there, writer = with_model(resources, server, answer_tries=1)
    server.answer = lambda _: Reply(text)
    assert await consolidate(there, HERE, "w", writer=writer) == Outcome(summarised=1)
    assert await consolidate(there, HERE, "w", writer=writer) == Outcome(unchanged=1)
    (summary,) = await summaries(resources)
    assert (payload(summary)["method"], payload(summary)["instead_of"]["reason"]) == ("extractive", reason)
    assert len(server.requests) == 1
    assert (await ModelUsage(resources.ledger_redis).totals(HERE.tenant)).refused == 1


async def test_a_budget_that_is_used_up_asks_nothing_until_the_next_day(
    resources: Resources, server: LlmServer
) -> None:
    await happen(resources, talk("first", 8))
    there, writer = with_model(resources, server, tokens_per_day=2500)
    usage = ModelUsage(resources.ledger_redis)
    assert await usage.take(HERE.tenant, "2025-11-24", 2000, 2500)  # somebody else has taken most of today
    assert await consolidate(there, HERE, "w", writer=writer) == Outcome(summarised=1, waiting=1)
    assert server.requests == []
    assert payload((await summaries(resources))[0])["instead_of"]["reason"] == "budget"
    there, writer = with_model(resources, server, tokens_per_day=2500, day=DAY + 86_400_000)
    assert await consolidate(there, HERE, "w", writer=writer) == Outcome(summarised=1)
    assert payload((await summaries(resources))[-1])["method"] == "llm"
    assert await usage.take(HERE.tenant, "2025-11-25", 2380, 2500)  # of the worst case, 120 were used
    assert not await usage.take(HERE.tenant, "2025-11-25", 1, 2500)


async def test_two_leaders_write_one_summary(resources: Resources, server: LlmServer) -> None:
    """One waits for its answer so long that another takes over the lease and writes first."""
    await happen(resources, talk("first", 8))
    there, writer = with_model(resources, server)
    right, go_on = server.answer, threading.Event()
    server.answer = lambda asked: Reply(right(asked).text, after=go_on)
    slow = asyncio.create_task(consolidate(there, HERE, "slow", writer=writer))
    try:

        async def asked() -> bool:
            return len(server.requests) == 1

        await until(asked)
        await resources.ledger_redis.delete("cg:{default.0}:lease:consolidation")
        server.answer = right
        assert await consolidate(there, HERE, "fast", writer=writer) == Outcome(summarised=1)
    finally:
        go_on.set()
    with pytest.raises(LeaseLostError):
        await slow
    assert len(await summaries(resources)) == 1


async def test_without_a_model_summaries_keep_their_ids(resources: Resources, server: LlmServer) -> None:
    await happen(resources, talk("first", 8))
    await consolidate(resources, HERE, "w")
    (before,) = await summaries(resources)
    assert "instead_of" not in payload(before)
    there, _ = with_model(resources, server)
    assert await consolidate(there, HERE, "w") == Outcome(unchanged=1)
    assert server.requests == []
