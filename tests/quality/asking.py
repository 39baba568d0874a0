"""Asking the service the questions of a conversation, and measuring what it answers, as the data's README says.

A line of a context counts for the turns it cites; a summary only for those whose text it holds word for word, so it
cannot bring evidence by citing it. In rankings a summary has a rank that no turn has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from tests.quality.metrics import ndcg, recall
from tests.quality.sets import Conversation, Question
from tests.quality.stand import Asked

BUDGETS = (500, 1000, 2000, 4000)
DEPTHS = (5, 10, 20)
_AT_ONCE = 2
_NO_TURN = -1

Values = dict[str, float]


async def ask_all(asked: Asked, context: Mapping[str, Any] | None = None) -> list[tuple[Question, Values]]:
    """Every question with its measures. `context`: what the body of each context says besides."""
    places = {f"{asked.conversation.name}/{turn.id}": n for n, turn in enumerate(asked.conversation.turns)}
    lanes = asyncio.Semaphore(_AT_ONCE)

    async def one(question: Question) -> tuple[Question, Values]:
        async with lanes:
            return question, await _values(asked, question, places, context or {})

    return await asyncio.gather(*map(one, asked.conversation.questions))


async def _values(asked: Asked, question: Question, places: Mapping[str, int], context: Mapping[str, Any]) -> Values:
    found = await _post(asked, "/v1/search", {"query": question.text, "limit": 20})
    values = of_ranking([places.get(result["id"], _NO_TURN) for result in found["results"]], question.evidence)
    for budget in BUDGETS:
        served = await _post(asked, "/v1/context", {"query": question.text, "token_budget": budget, **context})
        values[f"summaries{budget}"] = sum(item["kind"] == "summary" for item in served["items"])
        turns = turns_told(asked.conversation, places, served["items"])
        values[f"tok{budget}"] = len(turns & question.evidence) / len(question.evidence)
        if served["budget"]["used"] > budget:
            raise RuntimeError(f"{served['budget']['used']} tokens for a budget of {budget}")
    ranked = sorted(served["items"], key=lambda item: int(item["rank"]))
    in_context = [places.get(item["id"], _NO_TURN) for item in ranked]
    return values | {f"context R@{k}": recall(in_context, question.evidence, k) for k in DEPTHS}


def of_ranking(ranking: Sequence[int], evidence: frozenset[int]) -> Values:
    """Recall and nDCG of numbers of turns, best first."""
    values = {f"R@{k}": recall(ranking, evidence, k) for k in DEPTHS}
    return {**values, "nDCG@10": ndcg(ranking, evidence)}


def turns_told(conversation: Conversation, places: Mapping[str, int], items: Sequence[Mapping[str, Any]]) -> set[int]:
    """Numbers of the turns that these lines of a context bring."""
    told: set[int] = set()
    for item in items:
        cited = {places[event_id] for event_id in item["event_ids"] if event_id in places}
        if item["kind"] == "summary":
            words = _plain(item["text"])
            cited = {n for n in cited if _plain(conversation.turns[n].text) in words}
        told |= cited
    return told


def _plain(text: str) -> str:
    return " ".join(text.split())


async def _post(asked: Asked, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await asked.http.post(path, json=body)
    if answer.status_code != 200:
        raise RuntimeError(f"{path}: {answer.status_code} {answer.text[:300]}")
    found: dict[str, Any] = answer.json()
    return found
