"""Laws of the table of generations: whatever is asked in whatever order, what is read is there and is fed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from context_graph.domain.generations import Recipe, Table
from context_graph.errors import AlreadyExists, NotNow, UnknownThing
from context_graph.store.generations import decoded, encoded

RECIPE = Recipe(fold=1, text=1, index=1, model="m", dimensions=3)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "ready", "promote", "roll back", "drop", "dropped", "fail"]), st.integers(0, 5)
    ),
    max_size=30,
)


def stepped(table: Table, step: str, pick: int, now: int) -> Table:
    """The table after a step on one of its rebuilds; refusals leave it as it is."""
    rebuild = table.rebuilds[pick % len(table.rebuilds)] if table.rebuilds else None
    if step == "begin":
        return table.begin(f"rebuild-{now}", RECIPE, "never", events=0, now=now)
    if step == "dropped":
        return table.dropped(table.dropping[0]) if table.dropping else table
    if rebuild is None:
        return table
    if step == "ready":
        running = table.running
        return table if running is None else table.update(replace(running, state="ready"))
    changes: dict[str, Callable[[], Table]] = {
        "promote": lambda: table.promote(rebuild.id, now),
        "roll back": lambda: table.roll_back(rebuild.id, now),
        "drop": lambda: table.drop(rebuild.number),
        "fail": lambda: table.fail(rebuild.number, "no model"),
    }
    return changes[step]()


@given(STEPS)
def test_what_is_read_is_always_one_that_is_fed_and_is_never_being_removed(steps: list[tuple[str, int]]) -> None:
    table = Table()
    for now, (step, pick) in enumerate(steps):
        before = table
        with suppress(NotNow, AlreadyExists, UnknownThing):
            table = stepped(table, step, pick, now)
        assert table.live in table.fed
        assert len(set(table.all)) == len(table.all), "one generation in two roles"
        assert not set(table.fed) & set(table.dropping)
        assert table.last >= before.last >= max(before.all)
        assert set(before.all) - set(table.all) <= set(before.dropping), "gone without being removed"
        if table.live != before.live:
            assert table.previous == before.live, "the way back is one step"
        assert sum(rebuild.state == "promoted" for rebuild in table.rebuilds if rebuild.number == table.live) <= 1
        assert decoded(encoded(table)) == table


@given(STEPS)
def test_a_number_is_never_given_twice(steps: list[tuple[str, int]]) -> None:
    table, given_numbers = Table(), [1]
    for now, (step, pick) in enumerate(steps):
        with suppress(NotNow, AlreadyExists, UnknownThing):
            table = stepped(table, step, pick, now)
        if table.last != given_numbers[-1]:
            given_numbers.append(table.last)
    assert given_numbers == sorted(set(given_numbers))
