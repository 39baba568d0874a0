"""Waiting until the stages of a generation have passed a position: for a bounded time in all, saying what for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from context_graph.bootstrap import Resources
from context_graph.domain.generations import Recipe
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.domain.stages import ENRICHMENT, stages_of
from context_graph.errors import NotNow
from context_graph.facts import ask_embedder
from context_graph.models.embedder_pool import open_embedders
from context_graph.operations import Tell
from context_graph.store.group_state import GroupState

_PATIENCE = 15.0  # seconds for stages that are behind, over all partitions
_LOOK_AGAIN = 0.05
_TELL_EVERY = 2.0  # seconds between two lines about how long it waits


class Passing:
    """The stages of one generation; `recipe` is what it is made by."""

    def __init__(self, resources: Resources, generation: int, recipe: Recipe | None, tell: Tell) -> None:
        self._resources = resources
        self._generation = generation
        self._recipe = recipe
        self._tell = tell
        self._waited = 0.0

    async def passed(self, partition: Partition, until: Position) -> None:
        """Return once every stage has finished everything up to `until`.

        Raises NotNow at once where they wait for the embedder, else when the time for all partitions is used up.
        """
        loop = asyncio.get_running_loop()
        began, told = loop.time() - self._waited, float("-inf")
        while behind := await self._behind(partition, until):
            words = ", ".join(f"{group} by {_to_do(state):,} events" for group, state in behind.items())
            self._waited = loop.time() - began
            if loop.time() - told >= _TELL_EVERY:
                await self._refuse_without_embedder(partition, behind, words)
                told = loop.time()
                self._tell(
                    f"{partition}: stages are behind ({words}): waited {self._waited:.0f} s of at most {_PATIENCE:.0f}"
                )
            if self._waited >= _PATIENCE:
                raise NotNow(
                    f"{partition}: stages are behind ({words}) after {self._waited:.0f} s; "
                    "run their workers, then verify again"
                )
            await asyncio.sleep(_LOOK_AGAIN)

    async def _behind(self, partition: Partition, until: Position) -> dict[str, GroupState]:
        behind: dict[str, GroupState] = {}
        for stage in stages_of(self._generation):
            state = await self._resources.groups.state(partition, stage.group)
            if not state.has_passed(until):
                behind[stage.group] = state
        return behind

    async def _refuse_without_embedder(
        self, partition: Partition, behind: Mapping[str, GroupState], words: str
    ) -> None:
        enrichment = behind.get(ENRICHMENT.of(self._generation).group)
        if enrichment is None or not enrichment.again:
            return
        settings = self._resources.settings
        async with open_embedders(settings.embedding, settings.data_dir / "models") as pool:
            found = await ask_embedder(self._resources, pool, self._recipe)
        if found.away or found.wrong:
            raise NotNow(
                f"{partition}: stages are behind ({words}) and wait for the embedder: {found.away or found.wrong}; "
                "verify again when it is back and they have caught up"
            )


def _to_do(state: GroupState) -> int:
    return state.lag + state.pending + state.again + state.parked
