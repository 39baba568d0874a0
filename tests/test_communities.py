"""Communities: the same from the same mentions, in any order and any process; lists tie nothing."""

from __future__ import annotations

import os
import random
import subprocess
import sys

from context_graph.resolution.communities import communities

GARDEN = {"rose": ["a", "b", "c"], "soil": ["a", "b"], "spade": ["b", "c", "x"]}
HARBOUR = {"ship": ["m", "n", "o", "x"], "crane": ["m", "n"], "quay": ["n", "o"]}
MENTIONS = GARDEN | HARBOUR | {"alone": ["z"]}


def test_what_is_mentioned_together_is_one_community_with_its_most_central_member_first() -> None:
    found = communities(MENTIONS)
    assert sorted({member.entity_id for member in one.members} for one in found) == sorted([set(GARDEN), set(HARBOUR)])
    for one in found:
        central = [member.centrality for member in one.members]
        assert central == sorted(central, reverse=True)
    garden = next(one for one in found if one.members[0].entity_id in GARDEN)
    assert garden.event_ids == ("a", "b", "c")  # x mentions one of them alone
    assert 0.99 < sum(member.centrality for one in found for member in one.members) < 1.01


def test_the_same_mentions_give_the_same_communities_in_any_order_and_process() -> None:
    known = communities(MENTIONS)
    chance = random.Random(7)
    for _ in range(20):
        names = list(MENTIONS)
        chance.shuffle(names)
        assert communities({name: chance.sample(MENTIONS[name], len(MENTIONS[name])) for name in names}) == known
    code = (
        "import random; from context_graph.resolution.communities import communities;"
        "r = random.Random(1); m = {f'n{i}': [f'e{r.randrange(150)}' for _ in range(6)] for i in range(200)};"
        "print(communities(m))"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert outputs[0].count(b"Community(") > 3


def test_an_event_that_mentions_very_many_is_a_list() -> None:
    assert communities({f"n{i}": ["list"] for i in range(30)}) == ()
    assert communities({}) == ()
