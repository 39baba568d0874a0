"""Pools as retrieval itself makes them, kept on disk: what ranking is fitted and tried on in seconds.

`python -m tests.quality.pools [SET]` fills `.quality/pools-SET.pickle` from the running service's own data; features
are computed from it anew, so a change of features needs no new pools.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
from contextlib import AsyncExitStack

from context_graph.api.app import services_from
from context_graph.models.embedder_pool import EmbedderPool
from context_graph.models.tokens import open_counter
from context_graph.retrieval.request import ContextQuery
from tests.quality.recorded import Question, pool_file
from tests.quality.sets import SETS, Conversation
from tests.quality.stand import Asked, Stand, open_stand


async def record(name: str, conversations: tuple[Conversation, ...]) -> list[Question]:
    """Ask every question of the set for its pool."""
    async with open_stand(name, conversations) as stand:
        return [question for asked in stand.conversations for question in await _of(stand, asked)]


async def _of(stand: Stand, asked: Asked) -> list[Question]:
    found: list[Question] = []
    settings = stand.resources.settings
    async with AsyncExitStack() as stack:
        embedders = EmbedderPool(settings.embedding, settings.data_dir / "models", stack)
        retrieval = services_from(stand.resources, embedders).retrieval
        count = open_counter("o200k_base").count
        places = {f"{asked.conversation.name}/{turn.id}": n for n, turn in enumerate(asked.conversation.turns)}
        for question in asked.conversation.questions:
            understanding, pool = await retrieval.pool(asked.tenant, ContextQuery(query=question.text))
            _, placed = pool.placed()
            found.append(
                Question(
                    conversation=asked.conversation.name,
                    category=question.category,
                    understanding=understanding,
                    placed=placed,
                    relevant=[places.get(p.document.id, -1) in question.evidence for p in placed],
                    tokens=[count(f"[99] {p.document.speaker}: {p.document.text}\n") for p in placed],
                    evidence=len(question.evidence),
                )
            )
    sys.stderr.write(f"  {asked.conversation.name}: {len(found)} questions\n")
    return found


def main() -> None:
    """Record the sets named, or all."""
    for name in sys.argv[1:] or list(SETS):
        path, read = SETS[name]
        if not path.exists():
            sys.stderr.write(f"{name}: no data at {path}; set CG_SHARED_DATA\n")
            continue
        questions = asyncio.run(record(name, read()))
        pool_file(name).write_bytes(pickle.dumps(questions))
        sys.stderr.write(f"{name}: {len(questions)} pools in {pool_file(name)}\n")


if __name__ == "__main__":
    main()
