"""Understanding a query: whom it names, what is left of it without them, what it asks for."""

from __future__ import annotations

import time

from context_graph.domain.query import understand

PEOPLE = ("Caroline", "Melanie", "Will", "Grad A", "support-agent")


def test_the_speakers_named_are_cut_out_of_what_is_searched_and_embedded() -> None:
    found = understand("When did Caroline's sister call Melanie?", known_speakers=PEOPLE)
    assert found.speakers == {"caroline", "melanie"}
    assert found.subject == "When did sister call ?"
    assert found.terms == ("sister", "call")


def test_names_are_found_however_they_are_written_unless_they_are_common_words() -> None:
    assert understand("what did caroline say", known_speakers=PEOPLE).speakers == {"caroline"}
    assert understand("what will happen", known_speakers=PEOPLE).speakers == frozenset()
    assert understand("what did Will say", known_speakers=PEOPLE).speakers == {"will"}
    assert understand("the willow tree", known_speakers=PEOPLE).speakers == frozenset()
    assert understand("what did the support-agent and Grad A say", known_speakers=PEOPLE).speakers == {
        "support-agent",
        "grad a",
    }


def test_a_query_of_nothing_but_names_is_asked_as_it_stands() -> None:
    found = understand("Caroline Melanie", known_speakers=PEOPLE)
    assert (found.subject, found.terms) == ("Caroline Melanie", ("caroline", "melanie"))


def test_understanding_takes_well_under_a_millisecond() -> None:
    known = [f"agent-{number}" for number in range(200)]
    rounds = []
    for _ in range(20):
        began = time.perf_counter()
        understand("why did agent-7 refund nadia twice last May, and who is she?", known_speakers=known)
        rounds.append(time.perf_counter() - began)
    assert min(rounds) < 0.001
