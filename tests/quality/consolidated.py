"""What each part of the consolidation adds to retrieval at equal budget: `python -m tests.quality --consolidated`.

On a copy of the set as it is kept (its vectors come along) the same questions are asked again after each of: nothing
of Stage 3; a pass with episodes and summaries of sessions, with a fifth of a context promised to them and with none;
with summaries of agents and people; with summaries of topics. The passes are the product's, extractive, and each is
asked after the stages have passed what it wrote; one that writes nothing on a set is left out. Shown are the means, and
the paired differences to the first part and to the one before, with their 95 % intervals by bootstrap over
conversations. `summaries` counts those among the lines of a context.

The profile and pins take no part: without a language model there are no facts, nobody pins anything in these sets, and
the metric's requests name no session or person, whom a profile is of.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from context_graph.bootstrap import Resources
from enrichment.reconsolidation.passes import Passes
from enrichment.reconsolidation.run import Outcome
from tests.quality.asking import BUDGETS, Values, ask_all
from tests.quality.metrics import interval
from tests.quality.sets import Conversation
from tests.quality.stand import Stand, folder_of, open_stand, until_enriched

COLUMNS = ("R@10", "nDCG@10", *(f"tok{budget}" for budget in BUDGETS), "summaries1000", "summaries4000")

Rows = dict[tuple[str, int], Values]
"""By conversation and number of the question."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the consolidation: settings of the pass (None: no pass), and what each context's body says besides."""

    name: str
    consolidation: Mapping[str, Any] | None
    context: Mapping[str, Any] | None = None


_PROMISED = {"sections": {"summary": 0.2, "relevant": 0.5, "recent": 0.3}}
# In this order on one set: each adds to what those before it have left.
PARTS = (
    Part("nothing of Stage 3", None),
    Part("sessions, a fifth promised", {"scopes": False, "topics": 0}, _PROMISED),
    Part("summaries of sessions", {"scopes": False, "topics": 0}),
    Part("and of agents, people", {"scopes": True, "topics": 0}),
    Part("and of topics", {"scopes": True, "topics": 20}),
)


async def compare(name: str, conversations: Sequence[Conversation], every: int = 1) -> str:
    """The table of a set. `every`: only each so-manieth question of a conversation is asked."""
    conversations = [_thinned(conversation, every) for conversation in conversations]
    async with open_stand(name, conversations):
        pass  # everything is posted and has its vectors
    found: dict[str, Rows] = {}
    with tempfile.TemporaryDirectory(prefix="context-graph-quality-", dir="/tmp") as copy:
        folder = Path(copy) / name
        shutil.copytree(folder_of(name), folder)
        async with open_stand(name, conversations, folder) as stand:
            before = PARTS[0]
            for part in PARTS:
                wrote = part.consolidation is None or await _consolidate(stand, part)
                if wrote or part.context != before.context:
                    found[part.name] = await _ask(stand, part)
                    sys.stderr.write(table(name, found))
                before = part
    return table(name, found)


def _thinned(conversation: Conversation, every: int) -> Conversation:
    answerable = [question for question in conversation.questions if question.category != "unanswerable"]
    return replace(conversation, questions=tuple(answerable[::every]))


async def _consolidate(stand: Stand, part: Part) -> bool:
    """A pass over every conversation with a part's settings, and the stages behind it; whether it wrote anything."""
    passes, total = Passes(_set(stand.resources, part.consolidation or {})), Outcome()
    for asked in stand.conversations:
        for partition in asked.tenant.partitions:
            total += (await passes.patiently(partition, asyncio.Event(), "summaries")).summaries
            await until_enriched(asked, str(await stand.resources.ledger.last(partition)))
    if total.failed or total.busy:
        raise RuntimeError(f"the pass is not whole: {total.words}")
    sys.stderr.write(f"{part.name}: {total.words}\n")
    return bool(total.summarised or total.scopes)


def _set(resources: Resources, consolidation: Mapping[str, Any]) -> Resources:
    changed = resources.settings.consolidation.model_copy(update=dict(consolidation))
    return replace(resources, settings=resources.settings.model_copy(update={"consolidation": changed}))


async def _ask(stand: Stand, part: Part) -> Rows:
    return {
        (asked.conversation.name, number): values
        for asked in stand.conversations
        for number, (_, values) in enumerate(await ask_all(asked, part.context))
    }


def table(name: str, found: Mapping[str, Rows]) -> str:
    """Means of each part, and what has changed beside the first and beside the one before it."""
    rows = list(found.items())
    lines = [f"{name + f', {len(rows[0][1])} questions':28}" + "".join(f"{column:>24}" for column in COLUMNS)]
    for number, (part, values) in enumerate(rows):
        means = [_mean(values, column)[0] for column in COLUMNS]
        lines.append(f"{part:28}" + "".join(f"{mean:24.3f}" for mean in means))
        if number:
            lines.append(f"{'  beside nothing':28}" + _changes(values, rows[0][1]))
        if number > 1:
            lines.append(f"{'  beside the one before':28}" + _changes(values, rows[number - 1][1]))
    return "\n".join(lines) + "\n"


def _changes(values: Rows, beside: Rows) -> str:
    changes = [_mean(values, column, beside) for column in COLUMNS]
    return "".join(f"{f'{mean:+.3f} ({low:+.3f} {high:+.3f})':>24}" for mean, low, high in changes)


def _mean(rows: Rows, column: str, beside: Rows | None = None) -> tuple[float, float, float]:
    """Mean of a column with its interval; of the differences to the same questions in `beside`."""
    groups: dict[str, list[float]] = {}
    for key, values in rows.items():
        groups.setdefault(key[0], []).append(values[column] - (beside[key][column] if beside else 0.0))
    return interval(groups)
