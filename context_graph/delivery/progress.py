"""How far the stages are: read once for readiness, `context-graph doctor` and `/metrics` alike."""

from __future__ import annotations

import time
from collections.abc import Sequence

from context_graph.delivery.source import Source
from context_graph.domain.partition import Partition
from context_graph.domain.stages import Stage, StageLimits, StageProgress
from context_graph.settings import DeliverySettings
from context_graph.store.group_state import GroupState
from context_graph.store.ledger import Ledger


def limits_of(settings: DeliverySettings) -> StageLimits:
    """Where the settings say that a stage is no longer well."""
    return StageLimits(settings.stall_seconds, settings.dead_letter_limit, settings.max_parked)


async def read_progress(source: Source, asked: Sequence[tuple[Partition, Stage]]) -> list[StageProgress]:
    """How far each of these stages is in its partition, in their order; few round trips. Raises StoreUnavailable."""
    partitions = list(dict.fromkeys(partition for partition, _ in asked))
    counts = dict(zip(partitions, await source.dead_letters.counts_of(partitions), strict=True))
    groups = [(partition, stage.group) for partition, stage in asked]
    states = await source.groups.states(groups)
    members = await source.groups.members_of(groups)
    return [
        StageProgress(
            partition=str(partition),
            stage=stage,
            lag=state.lag,
            pending=state.pending,
            waiting_seconds=await _waiting_seconds(source.ledger, partition, state),
            living=of.living,
            idle_seconds=0.0 if state.taken else of.idle_seconds,
            held_seconds=None if state.oldest_pending_ms is None else state.oldest_pending_ms / 1000,
            again=state.again,
            parked=state.parked,
            gaps=state.gaps,
            gap_problems=state.gap_problems,
            dead_letters=counts[partition].letters.get(stage.group, 0),
            lost=counts[partition].lost.get(stage.group, 0),
        )
        for (partition, stage), state, of in zip(asked, states, members, strict=True)
    ]


async def _waiting_seconds(ledger: Ledger, partition: Partition, state: GroupState) -> float:
    """How long the first event that the stage has not finished has been in the ledger; 0 when there is none."""
    if state.lag == 0 and state.pending == 0 and state.again == 0:
        return 0.0
    firsts = [position for position in (state.first_pending, state.unfinished) if position is not None]
    if not firsts:
        behind = await ledger.first_after(partition, state.last_delivered)
        firsts = [behind] if behind is not None else []
    if not firsts or min(firsts).ms == 0:  # a gap from the beginning on: nothing tells when that was
        return 0.0
    return max(0.0, time.time() - min(firsts).ms / 1000)
