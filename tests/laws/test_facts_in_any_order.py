"""Facts that end each other stand the same whatever the order in which the sessions that say them are read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from context_graph.domain.event import EventId, LedgerEvent, TenantId
from context_graph.domain.learned import LearnedFact, Standing, Supersession, fact_of, standing, supersession_of
from context_graph.domain.position import Position
from enrichment.reconsolidation.facts import Known, Said, read_answer
from enrichment.reconsolidation.noted import events_of
from tests.fact_answers import START, noted, preference, says

TENANT = TenantId("default")
THINGS = ("tea", "desks", "trains")

Saying = tuple[int, int]
"""When somebody says what they prefer now (minutes), and of which of the things."""


def said(place: int, saying: Saying) -> Said:
    minute, thing = saying
    text = f"I prefer choice {place} of {THINGS[thing]} now"
    envelope = says(text, minute, session=f"s{place}", event_id=EventId(f"e{place}"))
    return Said(LedgerEvent(TENANT, Position(0, START, place), envelope), text, "user")


class Memory:
    """Sessions read one after another by a model that sees which of what it is told is about the same thing."""

    def __init__(self) -> None:
        self.facts: dict[str, LearnedFact] = {}
        self.ended: dict[str, list[Supersession]] = {}

    def read(self, line: Said, thing: int) -> None:
        since = line.event.envelope.occurred_at
        known = [s.fact for s in self.standing() if s.ended is None or s.ended.valid_to >= since]
        told = Known.of(sorted(known, key=lambda fact: (fact.valid_from, fact.id), reverse=True), 40)
        same = [f"K{n}" for n, (fact, *_) in enumerate(told.groups, 1) if THINGS[thing] in fact.object]
        about = line.text.removeprefix("I prefer ").removesuffix(" now")
        answer = read_answer(noted(preference(1, about, line.text, contradicts=same)).text, [line])
        for envelope in events_of(line.event.envelope.session_id, [line], answer, told, "model"):
            event = LedgerEvent(TENANT, Position(0, START, 1000 + len(self.facts)), envelope)
            if (fact := fact_of(event)) is not None:
                self.facts[fact.id] = fact
            if (ended := supersession_of(event)) is not None:
                self.ended.setdefault(ended.old, []).append(ended)

    def standing(self) -> list[Standing]:
        return standing(self.facts.values(), self.ended, self.facts.__contains__)

    def held(self) -> dict[str, tuple[str, int] | None]:
        """By what is preferred: by what it was ended, and when."""
        return {
            each.fact.object: (self.facts[each.ended.new].object, each.ended.valid_to)
            if each.ended is not None
            else None
            for each in self.standing()
        }


@given(st.data(), st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2)), min_size=1, max_size=9))
def test_whatever_is_read_first_the_same_holds_and_ends_at_the_same_time(
    data: st.DataObject, sayings: list[Saying]
) -> None:
    lines = [(said(place, saying), saying[1]) for place, saying in enumerate(sayings)]
    in_order, shuffled = Memory(), Memory()
    for line, thing in sorted(lines, key=lambda one: (one[0].event.envelope.occurred_at, one[0].position)):
        in_order.read(line, thing)
    for line, thing in data.draw(st.permutations(lines)):
        shuffled.read(line, thing)
    assert shuffled.held() == in_order.held()
    current = [each.fact for each in shuffled.standing() if each.current]
    assert len(current) == len({thing for _, thing in sayings})  # of each thing the last saying alone
