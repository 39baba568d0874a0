"""Laws of packing: the budget holds for any items, budget, shares, format and tokenizer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from context_graph.domain.document import Document
from context_graph.domain.position import Position
from context_graph.models.tokens import EstimatedCounter, TokenCounter, open_counters
from context_graph.retrieval.items import SECTIONS, Item, Share
from context_graph.retrieval.pack import pack
from context_graph.retrieval.render import FORMATS

COUNTERS = open_counters()


@pytest.fixture(scope="module", params=["o200k_base", "cl100k_base", "claude"])
def counter(request: pytest.FixtureRequest) -> TokenCounter | EstimatedCounter:
    return COUNTERS[request.param]


def _items(rows: list[tuple[str, str, int, int]]) -> list[Item]:
    return [
        Item(
            document=Document(
                id=f"e{place}", kind="summary" if section == "summary" else "event", text=text, speaker="nadia",
                event_ids=(f"e{place}",), position=Position(0, 1, place), event_type="user.message", session_id="s",
                agent_id="a", occurred_at=1_788_000_000_000 + place * 1000, origin=("user", "tool")[bond % 2],
            ),
            section=section,  # type: ignore[arg-type]
            text=text,
            score=1.0 / (1 + rank),
            channels={"text": 1.0},
            rank=rank,
            bond=f"e{bond % len(rows)}" if bond % 3 == 0 else f"e{place}",
        )
        for place, (section, text, rank, bond) in enumerate(rows)
    ]  # fmt: skip


ROWS = st.lists(
    st.tuples(
        st.sampled_from(SECTIONS),
        st.text(max_size=120).filter(str.strip) | st.just("the same words again"),
        st.integers(1, 50),
        st.integers(0, 20),
    ),
    max_size=25,
)


@given(
    rows=ROWS,
    limit=st.integers(0, 900),
    shape=st.sampled_from(sorted(FORMATS)),
    shares=st.fixed_dictionaries({section: st.builds(Share, st.floats(0, 1), st.floats(0, 1)) for section in SECTIONS}),
)
def test_packing_keeps_its_promises(
    counter: TokenCounter | EstimatedCounter,
    rows: list[tuple[str, str, int, int]],
    limit: int,
    shape: str,
    shares: dict[str, Share],
) -> None:
    items = _items(rows)
    row = FORMATS[shape]
    packed = pack(items, limit=limit, shares=shares, shape=row, count=counter.count)  # type: ignore[arg-type]
    counted = row.counted(packed.items)
    assert packed.used == (counter.count(counted) if counted else 0) <= limit
    served = {item.id for item in packed.items}
    dropped = {entry.id for entry in packed.dropped}
    assert served | dropped == {item.id for item in items}, "every item is served or accounted for"
    assert not served & dropped
    for item in packed.items:
        partners = {other.id for other in items if other.bond == item.bond}
        assert partners <= served, "what is bonded is served together"
        assert item.event_ids
    order = [(SECTIONS.index(i.section), i.document.occurred_at) for i in packed.items]
    assert order == sorted(order)


@given(rows=ROWS, limit=st.integers(0, 900), looks=st.integers(0, 12))
def test_when_time_is_over_no_more_is_taken_and_the_budget_holds(
    rows: list[tuple[str, str, int, int]], limit: int, looks: int
) -> None:
    counter = COUNTERS["o200k_base"]
    left = iter(range(looks))
    shares = dict.fromkeys(SECTIONS, Share(0.3))
    packed = pack(
        _items(rows), limit=limit, shares=shares, shape=FORMATS["markdown"], count=counter.count,
        late=lambda: next(left, None) is None,
    )  # fmt: skip
    counted = FORMATS["markdown"].counted(packed.items)
    assert packed.used == (counter.count(counted) if counted else 0) <= limit
    assert len({item.bond for item in packed.items}) <= looks
    assert packed.late or looks > 0
