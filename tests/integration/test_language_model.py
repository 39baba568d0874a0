"""The language model through litellm itself, against a real server that answers, fails, stalls or is not there."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from pydantic import SecretStr

from context_graph.errors import ConfigurationError, ModelUnavailable, PermanentError
from context_graph.models.language_model import Breaker, LitellmModel, Prompt, open_language_model
from context_graph.settings import LlmSettings
from tests.llm_server import LlmServer, Reply, llm_server

PROMPT = Prompt("Answer shortly.", "What is it?")


@pytest.fixture
def server() -> Iterator[LlmServer]:
    with llm_server() as served:
        yield served


def model(server: LlmServer, now: Callable[[], float] = time.monotonic, **settings: object) -> LitellmModel:
    values = {"model": "openai/small", "api_base": server.url, "retries": 0, "timeout_seconds": 10} | settings
    chosen = LlmSettings.model_validate(values)
    return LitellmModel("openai/small", chosen, now)


async def test_it_answers_and_says_what_it_cost(server: LlmServer) -> None:
    server.answer = lambda _: Reply("a parcel")
    found = await model(server, max_output_tokens=77, api_key=SecretStr("k")).complete(PROMPT)
    assert (found.text, found.input_tokens, found.output_tokens, found.cut) == ("a parcel", 100, 20, False)
    asked = server.requests[0]
    assert (asked["model"], asked["max_tokens"]) == ("small", 77)
    assert [message["content"] for message in asked["messages"]] == [PROMPT.rules, PROMPT.material]


async def test_an_answer_that_ends_at_the_token_cap_is_marked(server: LlmServer) -> None:
    server.answer = lambda _: Reply("a par", finish_reason="length")
    assert (await model(server).complete(PROMPT)).cut


async def test_what_passes_quickly_is_retried_within_the_call(server: LlmServer) -> None:
    server.answer = lambda _: Reply("busy", status=503) if len(server.requests) < 2 else Reply("there")
    assert (await model(server, retries=2).complete(PROMPT)).text == "there"
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_an_outage_is_temporary(server: LlmServer, status: int) -> None:
    server.answer = lambda _: Reply("no", status=status)
    with pytest.raises(ModelUnavailable, match="openai/small did not answer"):
        await model(server).complete(PROMPT)


async def test_a_server_that_stalls_is_an_outage_after_the_timeout(server: LlmServer) -> None:
    never = threading.Event()
    server.answer = lambda _: Reply("late", after=never)
    try:
        with pytest.raises(ModelUnavailable):
            await model(server, timeout_seconds=0.3).complete(PROMPT)
    finally:
        never.set()


async def test_a_server_that_is_not_there_is_an_outage() -> None:
    nowhere = LlmServer(url="http://127.0.0.1:1/v1")
    with pytest.raises(ModelUnavailable):
        await model(nowhere).complete(PROMPT)


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_wrong_key_or_name_says_what_to_change(server: LlmServer, status: int) -> None:
    server.answer = lambda _: Reply("no", status=status)
    with pytest.raises(ConfigurationError, match="CG_LLM__API_KEY"):
        await model(server).complete(PROMPT)


async def test_a_prompt_that_cannot_be_taken_is_permanent(server: LlmServer) -> None:
    server.answer = lambda _: Reply("too long", status=400)
    with pytest.raises(PermanentError):
        await model(server).complete(PROMPT)


async def test_after_failures_in_a_row_the_server_is_left_alone(server: LlmServer) -> None:
    server.answer = lambda _: Reply("no", status=500)
    asking = model(server, breaker_failures=2, breaker_seconds=60)
    for _ in range(4):
        with pytest.raises(ModelUnavailable):
            await asking.complete(PROMPT)
    assert len(server.requests) == 2


def test_the_breaker_lets_one_try_through_when_its_time_is_over() -> None:
    now = 0.0
    breaker = Breaker(2, 10, lambda: now)
    let: list[list[bool]] = []
    for moment, succeeds in ((0, False), (0, False), (9.9, None), (10, None), (10, False), (20, True), (20, False)):
        now = moment
        if succeeds is not None:
            (breaker.succeeded if succeeds else breaker.failed)()
        let.append([breaker.lets_through(), breaker.lets_through()])
    assert let == [[True] * 2, [False] * 2, [False] * 2, [True, False], [False] * 2, [True] * 2, [True] * 2]


@pytest.mark.parametrize("status", [200, 400, 500])
async def test_when_the_rest_is_over_one_of_many_callers_asks_and_decides_for_all(
    server: LlmServer, status: int
) -> None:
    now = 0.0
    held = threading.Event()
    server.answer = lambda _: Reply("no", status=500)
    asking = model(server, lambda: now, breaker_failures=1, breaker_seconds=60)
    with pytest.raises(ModelUnavailable):
        await asking.complete(PROMPT)
    now = 61.0
    server.answer = lambda _: Reply("there", status=status, after=held)
    callers = [asyncio.create_task(asking.complete(PROMPT), name=f"caller {n}") for n in range(5)]
    waiting = set(callers)
    while len(waiting) > 1:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert all(isinstance(one.exception(), ModelUnavailable) for one in done)
    held.set()
    await asyncio.wait(waiting)
    assert len(server.requests) == 2
    server.answer = lambda _: Reply("there")
    if status == 500:
        with pytest.raises(ModelUnavailable):
            await asking.complete(PROMPT)
    else:  # an answer, were it a refusal: the server is there
        assert (await asking.complete(PROMPT)).text == "there"


def test_without_a_name_there_is_no_model() -> None:
    assert open_language_model(LlmSettings()) is None
