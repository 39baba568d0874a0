"""Answers of the language model that cannot be believed: asked for again a few times, given up, read again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from context_graph.api.metric_samples import read_samples
from context_graph.bootstrap import Resources, open_resources
from context_graph.domain.event import ANSWER_REFUSED_TYPE, FACT_TYPE, FACTS_READ_TYPE
from context_graph.store.keys import GraphKeys
from context_graph.store.state import StateReader
from enrichment.reconsolidation.run import Outcome, consolidate
from projections.fold import fold
from tests.events import event, post_all, settled
from tests.fact_answers import noted, preference, says
from tests.integration.test_consolidation import everything, happen, summaries, talk
from tests.integration.test_facts import HERE, of_type, with_model
from tests.integration.test_written_summaries import payload, said
from tests.llm_server import LlmServer, Reply, llm_server
from tests.service import Service

TEA = noted(preference(1, "green tea", "I always drink green tea"))
UNHELD = noted(preference(1, "green tea", "I only ever drink green tea"))
NONSENSE = Reply("Sure! Here you go.")
AT_ONCE = {"answer_backoff_seconds": 0}


@pytest.fixture
def server() -> Iterator[LlmServer]:
    with llm_server() as served:
        yield served


def answers(server: LlmServer, *replies: Reply) -> None:
    """These, one after another; the last one from then on."""
    left = itertools.chain(replies, itertools.repeat(replies[-1]))
    server.answer = lambda _: next(left)


@pytest.mark.parametrize("wrong", [NONSENSE, UNHELD])
async def test_nonsense_and_then_a_good_answer_gives_the_facts(
    resources: Resources, server: LlmServer, wrong: Reply
) -> None:
    there, writer = with_model(resources, server, **AT_ONCE)
    await happen(resources, [says("I always drink green tea.")])
    answers(server, wrong, TEA)
    assert await consolidate(there, HERE, "w", writer=writer) == Outcome(short=1, waiting=1)
    assert await consolidate(there, HERE, "w", writer=writer) == Outcome(short=1, facts=1)
    assert "An earlier answer was refused" in server.requests[1]["messages"][0]["content"]
    assert "An earlier answer" not in server.requests[0]["messages"][0]["content"]
    assert await consolidate(there, HERE, "w", writer=writer) == Outcome(short=1)
    assert len(server.requests) == 2


async def test_between_tries_there_is_a_pause(resources: Resources, server: LlmServer) -> None:
    there, writer = with_model(resources, server, answer_backoff_seconds=3600)
    await happen(resources, [says("I always drink green tea.")])
    answers(server, NONSENSE, TEA)
    for _ in range(3):
        assert await consolidate(there, HERE, "w", writer=writer) == Outcome(short=1, waiting=1)
    assert len(server.requests) == 1


async def test_tries_are_counted_in_the_ledger_and_given_up(resources: Resources, server: LlmServer) -> None:
    """Derived state is lost after each: the count is not. What comes new in the session is read."""
    await resources.tenants.ensure(HERE.tenant, 1)
    there, writer = with_model(resources, server, **AT_ONCE)
    await happen(resources, [says("I always drink green tea.")])
    answers(server, NONSENSE)
    found = []
    for _ in range(5):
        found.append((await consolidate(there, HERE, "w", writer=writer)).waiting)
        await resources.derived_redis.delete(GraphKeys(HERE).consolidated("s1"))
    assert (found, len(server.requests)) == ([1, 1, 0, 0, 0], 3)
    tries: list[Any] = [each.payload for each in await of_type(resources, ANSWER_REFUSED_TYPE)]
    assert [(each["try"], each["given_up"], each["reason"]) for each in tries] == [
        (1, False, "not-json"), (2, False, "not-json"), (3, True, "not-json"),
    ]  # fmt: skip
    (mark,) = await of_type(resources, FACTS_READ_TYPE)
    assert isinstance(mark.payload, dict)
    assert mark.payload["given_up"] is True
    told = {s.labels[1:]: s.value for s in await read_samples(resources) if s.name == "cg_llm_answers_refused"}
    assert (told["facts", "again"], told["facts", "given_up"], told["summary", "again"]) == (2, 1, 0)
    await happen(resources, [says("And my cat is called Miso.", 1)])
    answers(server, noted(preference(1, "Miso", "my cat is called Miso")))
    assert (await consolidate(there, HERE, "w", writer=writer)).facts == 1
    assert "green tea" not in server.material()


async def test_a_summary_is_asked_for_again_and_its_stand_in_is_replaced(
    resources: Resources, server: LlmServer
) -> None:
    there, writer = with_model(resources, server, facts=False, **AT_ONCE)
    await happen(resources, talk("first", 8))
    answers(server, NONSENSE, Reply(said("The parcel for first was checked by the carrier at every step.", [1, 2])))
    assert await consolidate(there, HERE, "w", writer=writer) == Outcome(summarised=1, waiting=1)
    assert await consolidate(there, HERE, "w", writer=writer) == Outcome(summarised=1)
    assert await consolidate(there, HERE, "w", writer=writer) == Outcome(unchanged=1)
    made = [payload(each) for each in await summaries(resources)]
    assert [each["method"] for each in made] == ["extractive", "llm"]
    assert (made[0]["instead_of"]["reason"], len(server.requests)) == ("not-json", 2)


async def test_what_was_given_up_is_read_again_when_somebody_asks_and_a_replay_asks_nobody(
    http: httpx2.AsyncClient, service: Service, server: LlmServer
) -> None:
    async with open_resources(service.settings) as resources:
        partition = (await resources.tenants.ensure(service.tenant, 1)).partitions[0]
        there, writer = with_model(resources, server, answer_tries=1)
        texts = ["I always drink green tea.", "Thanks for the tea, it was lovely and warm."]
        posted = [event(n, session_id="s1", user_id="nadia", payload={"text": text}) for n, text in enumerate(texts)]
        await settled(http, await post_all(http, posted))
        answers(server, NONSENSE, TEA)
        for _ in range(2):
            assert (await consolidate(there, partition, "w", writer=writer)).facts == 0
        assert len(server.requests) == 1
        asked = await http.post("/v1/sessions/s1/reread")
        assert (asked.status_code, asked.json()["reread"]) == (202, 1)
        assert (await http.get(f"/v1/admin/consolidation/runs/{asked.json()['run_id']}")).status_code == 200
        assert (await http.post("/v1/sessions/nowhere/reread")).status_code == 404
        assert (await consolidate(there, partition, "w", writer=writer)).facts == 1
        assert (await consolidate(there, partition, "w", writer=writer)).facts == 0
        assert len(server.requests) == 2
        events = await everything(resources, partition)
        assert [each.envelope.event_type for each in events].count(FACT_TYPE) == 1
        reader = StateReader(resources.derived_redis)
        for generation in (8, 9):
            await resources.graph.at(generation).apply(partition, fold(events))
        eight, nine = [await reader.tally(GraphKeys(partition, generation)) for generation in (8, 9)]
        assert (eight.hash, len(server.requests)) == (nine.hash, 2)
        for generation in (8, 9):
            await resources.graph.at(generation).remove(partition)
