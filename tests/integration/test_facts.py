"""Facts and preferences on a real Redis and a real server: noted once, held by a quote, ended by what came later."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from context_graph.api.metric_samples import read_samples
from context_graph.bootstrap import Resources
from context_graph.domain.event import FACT_SUPERSEDED_TYPE, FACT_TYPE, FACTS_READ_TYPE, Envelope, TenantId
from context_graph.domain.learned import FAULTS, Standing
from context_graph.domain.partition import Partition
from context_graph.errors import LeaseLostError
from context_graph.models.language_model import LitellmModel
from context_graph.observability.metrics import Metrics
from context_graph.settings import LlmSettings
from context_graph.store.keys import GraphKeys
from context_graph.store.learned import LearnedFacts
from context_graph.store.model_usage import ModelUsage
from context_graph.store.state import StateReader
from enrichment.reconsolidation.run import Outcome, consolidate
from enrichment.reconsolidation.writing import Writer
from projections.fold import fold
from tests.fact_answers import START, noted, preference, says
from tests.integration.test_consolidation import everything, happen, project
from tests.llm_server import LlmServer, Reply, llm_server
from tests.waiting import until

HERE = Partition(TenantId("default"), 0)
TEA = preference(1, "green tea", "I always drink green tea")


@pytest.fixture
def server() -> Iterator[LlmServer]:
    with llm_server() as served:
        served.answer = lambda _: noted(TEA)
        yield served


def with_model(resources: Resources, server: LlmServer, **settings: object) -> tuple[Resources, Writer]:
    llm = LlmSettings.model_validate({"model": "openai/small", "api_base": server.url, "retries": 0} | settings)
    changed = replace(resources, settings=resources.settings.model_copy(update={"llm": llm}))
    return changed, Writer(LitellmModel("openai/small", llm), ModelUsage(resources.ledger_redis), llm, lambda: START)


async def of_type(resources: Resources, *types: str) -> list[Envelope]:
    return [event.envelope for event in await everything(resources) if event.envelope.event_type in types]


async def standing(resources: Resources, user: str = "nadia") -> list[Standing]:
    learned = LearnedFacts(resources.derived_redis, resources.graph)
    return await learned.standing([HERE], await learned.listed([HERE], ("user", user), 100))


async def test_a_fact_is_noted_once_with_its_evidence(resources: Resources, server: LlmServer) -> None:
    await happen(resources, [says("Hello. I always drink green tea, please."), says("Thanks!", 1)])
    there, writer = with_model(resources, server)
    assert await consolidate(there, HERE, "w", writer=writer) == Outcome(short=1, facts=1)
    (fact,) = await of_type(resources, FACT_TYPE)
    made: Any = fact.payload
    assert (fact.session_id, fact.user_id, fact.caused_by, fact.occurred_at) == ("s1", "nadia", ("s1-0",), START)
    assert (made["text"], made["quote"], made["kind"]) == ("user prefers green tea", TEA["quote"], "preference")
    assert made["evidence"]["event_id"] == "s1-0"
    assert "[1] 2025-11-24 user: Hello. I always drink green tea, please." in server.material()
    await project(resources)
    assert await consolidate(there, HERE, "w", writer=writer) == Outcome(short=1)
    assert len(server.requests) == 1


async def test_without_a_model_none_are_invented(resources: Resources, server: LlmServer) -> None:
    await happen(resources, [says("I always drink green tea.")])
    await consolidate(resources, HERE, "w")
    assert await of_type(resources, FACT_TYPE, FACTS_READ_TYPE) == []
    there, writer = with_model(resources, server, facts=False)
    await consolidate(there, HERE, "w", writer=writer)
    assert server.requests == []


@pytest.mark.parametrize(
    "claim",
    [
        preference(1, "green tea", "I always drink a lot of green tea"),  # nobody said these words
        preference(1, "40 cups of coffee", "I always drink green tea"),  # the quote does not hold it
        preference(2, "green tea", "I always drink green tea"),  # another line
        preference(1, "green tea", "I always drink green tea", subject="The Hilton"),  # of nothing that was named
        preference(1, "green tea", "I always drink green tea", kind="rumour"),
        preference(9, "green tea", "I always drink green tea"),
    ],
)
async def test_a_fact_that_its_quote_does_not_hold_is_refused(
    resources: Resources, server: LlmServer, claim: dict[str, Any]
) -> None:
    await happen(resources, [says("I always drink green tea."), says("And you?", 1)])
    there, writer = with_model(resources, server, answer_tries=1)
    server.answer = lambda _: noted(claim)
    await consolidate(there, HERE, "w", writer=writer)
    assert await of_type(resources, FACT_TYPE) == []
    (mark,) = await of_type(resources, FACTS_READ_TYPE)
    assert isinstance(mark.payload, dict)
    assert (mark.payload["facts"], mark.payload["reason"]) == (0, "unsupported")


async def test_metrics_count_what_was_noted_what_ended_and_why_others_were_refused(
    resources: Resources, server: LlmServer
) -> None:
    await resources.tenants.ensure(HERE.tenant, 1)
    await happen(resources, [says("I always drink green tea."), says("Now I drink mint tea.", 1)])
    there, writer = with_model(resources, server)
    server.answer = lambda _: noted(
        TEA,
        preference(2, "mint tea", "I drink mint tea", replaces=["F1"]),
        preference(9, "green tea", "I always drink green tea"),
        preference(1, "green tea", "I always drink a lot of green tea"),
        preference(1, "40 cups of coffee", "I always drink green tea"),
        preference(1, "green tea", "I always drink green tea", subject="The Hilton"),
        preference(1, "green tea", "I always drink green tea", kind="rumour"),
    )
    await consolidate(there, HERE, "w", writer=writer)
    await project(resources)
    await resources.derived_redis.delete(GraphKeys(HERE).consolidated("s1"))
    await consolidate(there, HERE, "w", writer=writer)  # read on from the mark: nothing is counted twice
    samples = {(s.name, s.labels): s.value for s in await read_samples(resources) if str(HERE) in s.labels}
    counted = {key: value for key, value in samples.items() if key[0].startswith("cg_facts")}
    expected: dict[tuple[str, tuple[str, ...]], float] = {
        ("cg_facts_noted", (str(HERE),)): 2,
        ("cg_facts_superseded", (str(HERE), "updated")): 1,
        ("cg_facts_superseded", (str(HERE), "contradicted")): 0,
        **{("cg_facts_refused", (str(HERE), fault)): 1 for fault in FAULTS},
    }
    assert counted == expected
    asked = {s.labels[1]: s.value for s in await read_samples(resources) if s.name == "cg_llm_calls"}
    assert asked["answered"] == 1
    assert "cg_facts_noted_total" in Metrics().exposition(await read_samples(resources)).decode()


async def test_what_tools_and_documents_say_is_not_read(resources: Resources, server: LlmServer) -> None:
    page = says("I always drink green tea.", event_type="tool.result", tool_name="browse")
    await happen(resources, [page])
    there, writer = with_model(resources, server)
    await consolidate(there, HERE, "w", writer=writer)
    assert server.requests == []


async def test_what_came_later_takes_the_place_and_the_old_stays_readable(
    resources: Resources, server: LlmServer
) -> None:
    """In two sessions, of which the later is read first."""
    there, writer = with_model(resources, server)
    await happen(resources, [says("I always drink black coffee now.", 60, session="s2")])
    coffee = preference(1, "black coffee", "I always drink black coffee now")
    server.answer = lambda _: noted(coffee)
    await consolidate(there, HERE, "w", writer=writer)
    await happen(resources, [says("I always drink green tea.")])
    server.answer = lambda _: noted(TEA | {"contradicts": ["K1"]})
    await consolidate(there, HERE, "w", writer=writer)
    assert "K1 user prefers black coffee (2025-11-24)" in server.material()
    await project(resources)
    tea, later = await standing(resources)
    assert (tea.fact.object, later.fact.object, later.current) == ("green tea", "black coffee", True)
    assert tea.ended is not None
    assert (tea.ended.new, tea.ended.reason, tea.ended.valid_to) == (
        later.fact.id, "contradicted", START + 60 * 60_000,
    )  # fmt: skip
    (told,) = await of_type(resources, FACT_SUPERSEDED_TYPE)
    assert told.caused_by == (later.fact.id, tea.fact.id)


async def test_a_change_within_one_answer_and_between_sessions_of_one_pass(
    resources: Resources, server: LlmServer
) -> None:
    there, writer = with_model(resources, server)
    await happen(resources, [says("I always drink green tea."), says("No: I always drink mint tea.", 1)])
    server.answer = lambda _: noted(TEA, preference(2, "mint tea", "I always drink mint tea", replaces=["F1"]))
    await consolidate(there, HERE, "w", writer=writer)
    await project(resources)
    mint, green = await standing(resources)
    assert (mint.current, green.ended is not None and green.ended.new) == (True, mint.fact.id)


async def test_sessions_of_one_pass_are_read_oldest_first_so_that_a_chain_of_changes_has_no_overlap(
    resources: Resources, server: LlmServer
) -> None:
    """And each takes the place of the one before it, whatever the model says that it replaces of what it is told."""
    there, writer = with_model(resources, server)
    drinks = ("green tea", "black coffee", "mint tea")
    for number, drink in enumerate(drinks):
        await happen(resources, [says(f"I always drink {drink}.", 60 * number, session=f"s{number}")])

    def answer(asked: dict[str, Any]) -> Reply:
        material = str(asked["messages"][-1]["content"])
        drink = next(drink for drink in drinks if f"user: I always drink {drink}" in material)
        return noted(preference(1, drink, f"I always drink {drink}", replaces=["K1"] if "K1" in material else []))

    server.answer = answer
    assert (await consolidate(there, HERE, "w", writer=writer)).facts == 3
    await project(resources)
    found = sorted(await standing(resources), key=lambda one: one.fact.valid_from)
    assert [one.fact.object for one in found] == list(drinks)
    ends = [one.ended and one.ended.valid_to for one in found]
    assert ends == [START + 60 * 60_000, START + 120 * 60_000, None]


async def test_another_person_is_never_told_nor_touched(resources: Resources, server: LlmServer) -> None:
    there, writer = with_model(resources, server)
    await happen(resources, [says("I always drink green tea.")])
    await consolidate(there, HERE, "w", writer=writer)
    await happen(resources, [says("I always drink black coffee now.", session="s2", user="omar")])
    coffee = preference(1, "black coffee", "I always drink black coffee now", replaces=["K1"])
    server.answer = lambda _: noted(coffee)
    await consolidate(there, HERE, "w", writer=writer)
    assert "Known facts" not in server.material()
    assert await of_type(resources, FACT_SUPERSEDED_TYPE) == []


async def test_new_events_alone_are_read_whatever_is_forgotten_of_the_last_pass(
    resources: Resources, server: LlmServer
) -> None:
    there, writer = with_model(resources, server)
    await happen(resources, [says("I always drink green tea.")])
    await consolidate(there, HERE, "w", writer=writer)
    await resources.derived_redis.delete(GraphKeys(HERE).consolidated("s1"))
    await consolidate(there, HERE, "w", writer=writer)
    assert len(server.requests) == 1
    await happen(resources, [says("And my cat is called Miso.", 1)])
    await resources.derived_redis.delete(GraphKeys(HERE).consolidated("s1"))
    await consolidate(there, HERE, "w", writer=writer)
    assert len(server.requests) == 2
    assert "Miso" in server.material()
    assert "[1]" in server.material()
    assert "drink green tea." not in server.material()


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_an_outage_is_a_retry_and_loses_nothing(resources: Resources, server: LlmServer, status: int) -> None:
    there, writer = with_model(resources, server)
    await happen(resources, [says("I always drink green tea.")])
    right = server.answer
    server.answer = lambda _: Reply("down", status=status)
    assert await consolidate(there, HERE, "w", writer=writer) == Outcome(short=1, waiting=1)
    assert await of_type(resources, FACTS_READ_TYPE) == []
    server.answer = right
    assert await consolidate(there, HERE, "w", writer=writer) == Outcome(short=1, facts=1)


async def test_nonsense_is_not_paid_for_twice(resources: Resources, server: LlmServer) -> None:
    there, writer = with_model(resources, server, answer_tries=1)
    await happen(resources, [says("I always drink green tea.")])
    server.answer = lambda _: Reply("Sure! Here you go.")
    assert await consolidate(there, HERE, "w", writer=writer) == Outcome(short=1)
    await resources.derived_redis.delete(GraphKeys(HERE).consolidated("s1"))
    assert await consolidate(there, HERE, "w", writer=writer) == Outcome(short=1)
    (mark,) = await of_type(resources, FACTS_READ_TYPE)
    assert isinstance(mark.payload, dict)
    assert (mark.payload["reason"], len(server.requests)) == ("not-json", 1)


async def test_a_long_session_is_read_in_stretches(resources: Resources, server: LlmServer) -> None:
    there, writer = with_model(resources, server, max_input_characters=3000)
    await happen(resources, [says("What a long story that is, dear friend. " * 15, number) for number in range(4)])
    server.answer = lambda _: noted()
    await consolidate(there, HERE, "w", writer=writer)
    assert len(server.requests) == len(await of_type(resources, FACTS_READ_TYPE)) == 4
    await consolidate(there, HERE, "w", writer=writer)
    assert len(server.requests) == 4


async def test_two_leaders_note_one_set_of_facts(resources: Resources, server: LlmServer) -> None:
    """One waits for its answer so long that another takes over the lease and notes first."""
    await happen(resources, [says("I always drink green tea."), says("My cat is called Miso.", 1)])
    there, writer = with_model(resources, server)
    go_on = threading.Event()
    server.answer = lambda _: replace(noted(TEA, preference(2, "Miso", "My cat is called Miso")), after=go_on)
    slow = asyncio.create_task(consolidate(there, HERE, "slow", writer=writer))
    try:

        async def asked() -> bool:
            return len(server.requests) == 1

        await until(asked)
        await resources.ledger_redis.delete("cg:{default.0}:lease:consolidation")
        server.answer = lambda _: noted(TEA)
        await consolidate(there, HERE, "fast", writer=writer)
    finally:
        go_on.set()
    with pytest.raises(LeaseLostError):
        await slow
    assert len(await of_type(resources, FACT_TYPE)) == 1


async def test_a_replay_gives_the_same_state_without_a_call(resources: Resources, server: LlmServer) -> None:
    there, writer = with_model(resources, server)
    await happen(resources, [says("I always drink green tea."), says("No: I always drink mint tea.", 1)])
    server.answer = lambda _: noted(TEA, preference(2, "mint tea", "I always drink mint tea", replaces=["F1"]))
    await consolidate(there, HERE, "w", writer=writer)
    await project(resources)
    reader, calls = StateReader(resources.derived_redis), len(server.requests)
    for event in reversed(await everything(resources)):  # one by one, twice, backwards
        for _ in range(2):
            await resources.graph.at(2).apply(HERE, fold([event]))
    live, again = await reader.tally(GraphKeys(HERE, 1)), await reader.tally(GraphKeys(HERE, 2))
    assert (live.counts["learned"], live.counts["superseded"]) == (2, 1)
    assert live.hash == again.hash
    assert len(server.requests) == calls
