"""Which names are one thing: evidence by tier, clusters whatever the order, decisions that win."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from context_graph.domain.entity_names import blocks, split_id
from context_graph.resolution.clusters import Decision, cluster, pair_of
from context_graph.resolution.evidence import evidence
from tests.quality.entities import pairs


@pytest.mark.parametrize(
    ("left", "right", "tier"),
    [
        ("date:2024-05-20", "date:may 20, 2024", "alias"),
        ("date:may 20", "date:20th of may", "alias"),
        ("date:2024-05-20", "date:may 20th", "part"),
        ("place:usa", "place:united states", "alias"),
        ("place:12 elm st", "place:12 elm street", "alias"),
        ("org:acme inc.", "org:the acme", "alias"),
        ("person:dr. mia li", "person:li, mia", "alias"),
        ("person:josé díaz", "person:jose diaz", "alias"),
        ("money:$1200.50", "money:1200.5 usd", "alias"),
        ("money:45.00 eur", "money:€45", "alias"),
        ("money:eur 1.234,50", "money:1234.5 euros", "alias"),
        ("money:$3.5m", "money:3,500,000 usd", "alias"),
        ("money:5 million dollars", "money:$5m", "alias"),
        ("version:v2.1.0", "version:2.1.0", "alias"),
        ("error:http 503", "error:status code 503", "alias"),
        ("error:commanderror", "error:django.core.commanderror", "part"),
        ("path:./src/a.py", "path:src/a.py", "alias"),
        ("path:parser.py", "path:src/lib/parser.py", "part"),
        ("symbol:gridsearchcv", "symbol:sklearn.model_selection.gridsearchcv", "part"),
        ("id:4856383", "id:certificate_4856383", "part"),
        ("person:amelia johansson", "person:amelia johanson", "fuzzy"),
        ("org:jet blue airways", "org:jetblue airways", "fuzzy"),
        ("person:m. kowalczyk", "person:marta kowalczyk", "initials"),
        ("person:kowalczyk, m.", "person:marta kowalczyk", "initials"),
        ("person:marta j. kowalczyk", "person:marta jolanta kowalczyk", "initials"),
        ("person:kowalczyk, marta", "person:marta kowalczyk", "alias"),
        ("acronym:who", "org:world health organization", "initials"),
        ("acronym:jfk", "place:jfk", "alias"),
    ],
)
def test_names_of_one_thing_are_told_by_the_first_tier_that_can(left: str, right: str, tier: str) -> None:
    found = evidence(left, right)
    assert found is not None
    assert found.tier == tier
    assert evidence(right, left) == found
    assert blocks(*split_id(left)) & blocks(*split_id(right)), "they would never be compared"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("id:hat136", "id:hat139"),
        ("id:w3470184", "id:w3470185"),
        ("version:3.3.0", "version:3.3.1"),
        ("money:$30", "money:$300"),
        ("money:45,00 eur", "money:4500 eur"),
        ("money:$1234567", "money:$1234568"),
        ("money:$5 to $10", "money:$5"),
        ("money:5 million dollars", "money:$5"),
        ("person:mei li", "person:mia li"),
        ("person:m. kowalczyk", "person:anna kowalczyk"),
        ("person:m. kowalczyk", "person:n. kowalczyk"),
        ("person:m. kowalczyk", "person:marta nowak"),
        ("person:m. kowalczyk", "person:marta jolanta kowalczyk"),
        ("person:m. j. kowalczyk", "person:marta a. kowalczyk"),
        ("person:m. kowalczyk", "org:marta kowalczyk"),
        ("person:kowalczyk", "person:marta kowalczyk"),
        ("person:amelia davis", "person:amelia silva"),
        ("person:amelia", "person:amelia davis"),
        ("place:445 maple drive", "place:943 maple drive"),
        ("path:models.py", "path:app/models.py"),
        ("path:src/a.py", "path:lib/a.py"),
        ("symbol:fit", "symbol:model.fit"),
        ("product:iphone 13", "product:iphone 14"),
        ("person:paris", "place:paris"),
    ],
)
def test_other_things_stay_apart(left: str, right: str) -> None:
    assert evidence(left, right) is None


def test_meaning_joins_what_is_written_alike_but_never_persons() -> None:
    def close(_left: str, _right: str) -> float:
        return 0.95

    assert evidence("org:northwind trading house", "org:northwind trading") is None
    joined = evidence("org:northwind trading house", "org:northwind trading", close)
    assert joined is not None
    assert joined.tier == "embedding"
    assert evidence("person:olivia lopez", "person:olivia gomez", close) is None


def test_a_part_that_fits_two_different_names_is_nobodys() -> None:
    one = cluster(["path:cookie.py", "path:a/cookie.py"], {})
    assert one.of["path:cookie.py"] == ("path:a/cookie.py", "path:cookie.py")
    two = cluster(["path:cookie.py", "path:x/cookie.py", "path:y/cookie.py"], {})
    assert two.of["path:cookie.py"] == ("path:cookie.py",)


def test_what_was_decided_wins_over_the_evidence_and_over_names_between() -> None:
    names = ["place:new york", "place:ny", "place:nyc", "org:acme"]
    together = cluster(names, {})
    assert len(together.of["place:ny"]) == 3
    apart = {pair_of("place:ny", "place:nyc"): Decision(False, "e1")}
    split = cluster(names, apart)
    assert "place:nyc" not in split.of["place:ny"]
    merged = cluster(names, {pair_of("org:acme", "place:ny"): Decision(True, "e2")})
    assert "org:acme" in merged.of["place:new york"]
    [link] = [link for link in merged.links if link.evidence.tier == "decided"]
    assert link.evidence.why == "decided by event e2"


_NAMES = st.sampled_from(pairs.names_around()[::3])


@given(st.sets(_NAMES, max_size=40), st.lists(st.tuples(_NAMES, _NAMES, st.booleans()), max_size=6), st.randoms())
def test_clusters_are_a_function_of_the_set_in_whatever_order_names_come(
    names: set[str], decided: list[tuple[str, str, bool]], chance: random.Random
) -> None:
    decisions = {pair_of(a, b): Decision(same, f"{a}{b}") for a, b, same in decided if a != b}
    shuffled, turned = list(names), list(decisions.items())
    chance.shuffle(shuffled)
    chance.shuffle(turned)
    first, second = cluster(sorted(names), decisions), cluster(shuffled, dict(turned))
    assert first == second
    for (left, right), decision in decisions.items():
        if not decision.same and {left, right} <= names:
            assert right not in first.of[left]


def test_the_labelled_pairs_reach_what_is_promised() -> None:
    """Pairwise precision >= 0.95, recall >= 0.75."""
    labelled = pairs.read_pairs()
    score, wrong = pairs.measure(labelled)
    assert len(labelled) >= 200
    assert score.precision >= 0.95, wrong
    assert score.recall >= 0.75, wrong


def test_initials_that_fit_two_people_are_nobodys_and_those_that_fit_one_are_theirs() -> None:
    one = cluster(["person:m. kowalczyk", "person:marta kowalczyk", "person:kowalczyk, marta"], {})
    assert set(one.of.values()) == {("person:kowalczyk, marta", "person:m. kowalczyk", "person:marta kowalczyk")}
    assert one.candidates == ()
    two = cluster(KOWALCZYK, {})
    assert all(len(group) == 1 for group in two.of.values())


KOWALCZYK = ("person:m. kowalczyk", "person:marek kowalczyk", "person:marta kowalczyk")


def test_what_an_ambiguous_name_fits_is_told_until_somebody_decides() -> None:
    initials, marek, marta = KOWALCZYK
    told = cluster(KOWALCZYK, {}).candidates
    assert [(one.left, one.right, one.evidence.tier) for one in told] == [
        (initials, marek, "initials"),
        (initials, marta, "initials"),
    ]
    split = cluster(KOWALCZYK, {pair_of(initials, marek): Decision(False, "e1")})
    assert [(one.left, one.right) for one in split.candidates] == [(initials, marta)]
    merged = cluster(KOWALCZYK, {pair_of(initials, marta): Decision(True, "e2")})
    assert (merged.of[initials], merged.candidates) == ((initials, marta), ())
