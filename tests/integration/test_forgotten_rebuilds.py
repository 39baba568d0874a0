"""What is forgotten is so in every generation: a rebuild reaches the same state without deciding again."""

from __future__ import annotations

from context_graph.bootstrap import Resources
from context_graph.domain.event import SessionId
from tests import forgetting
from tests.events import event
from tests.graph_state import graph_state
from tests.ledger_events import append, parsed
from tests.rebuilding import caught_up, tenant_of, told_by_rebuild_and_verify, working

RECEIPT = "receipt-0198a3c2-5b1e-7c44-9d3a-2f6b8e0d1c55"


async def test_a_rebuild_ends_with_the_same_things_forgotten_and_recalled(resources: Resources) -> None:
    tenant = await tenant_of(resources)
    [partition] = tenant.partitions
    events = [
        event(
            n, session_id=f"s{n % 3}", agent_id=f"agent-{n % 3}", tool_name="refund" if n % 3 == 0 else None,
            caused_by=[f"e{n - 1}", RECEIPT] if n else [], user_id="nadia",
            payload={"text": f"Parcel {n} was sent to Hamburg by Maria Lopez, who pays {n} euros."},
        )
        for n in range(24)
    ]  # fmt: skip
    await append(resources.ledger, partition, parsed(events))
    by_session = {
        name: await resources.ledger.of_session(partition, SessionId(name), None, 100) for name in ("s0", "s1", "s2")
    }
    async with working(resources):
        await caught_up(resources, partition)
        await forgetting.append(
            resources, partition,
            [forgetting.decided(by_session[name], forgotten=True, occurred_at=0) for name in ("s0", "s1")],
        )  # fmt: skip
        again = forgetting.decided(by_session["s1"], forgotten=False, occurred_at=1, after="1")
        await forgetting.append(resources, partition, [again])
        await caught_up(resources, partition)
        state = await graph_state(resources.derived_redis, partition)
        gone = {f"e{n}" for n in range(0, 24, 3)}
        assert {key.removeprefix("doc:") for key in state if key.startswith("doc:")} == {
            f"e{n}" for n in range(24)
        } - gone
        assert not any(f"{prefix}{name}" in state for name in gone for prefix in ("event:", "vec:0:"))
        assert "timeline:agent:agent-0" not in state
        cited = {f"feedback:e{n - 1}" for n in range(1, 24) if f"e{n}" not in gone}
        assert {key for key in state if key.startswith("feedback:")} == cited
        report = await told_by_rebuild_and_verify(resources, tenant, partition, state)
    assert report["ledger_counts"]["forgotten"] == 3
