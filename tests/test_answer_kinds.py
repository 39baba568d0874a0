"""A turn that has the kind of thing a question asks for is told from one that has not, and only if it is asked for."""

from __future__ import annotations

import pytest

from context_graph.domain.document import Document
from context_graph.domain.position import Position
from context_graph.domain.query import understand
from context_graph.retrieval.ranking import FEATURES, Match, Placed, features_of

_COLUMN = [feature.name for feature in FEATURES].index("answer_kind")


def _turn(place: int, text: str) -> Placed:
    document = Document(
        id=f"e{place}", kind="event", text=text, speaker="nadia", event_ids=(f"e{place}",), origin="user",
        position=Position(0, 1, place), event_type="user.message", session_id="s", agent_id="nadia",
        occurred_at=1_788_048_000_000 + place * 1000,
    )  # fmt: skip
    return Placed(document, place, 4, Match())


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("How many parcels came?", [1.0, 0.0, 1.0, 0.0]),
        ("Where was the parcel sent?", [0.0, 1.0, 0.0, 0.0]),
        ("Why is it late?", [0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_turns_have_the_kind_of_answer_that_is_asked_for(query: str, expected: list[float]) -> None:
    texts = ["It was seven of them.", "it went to Lisbon", "Order 4711 is on its way.", "Thank you so much."]
    features = features_of([_turn(place, text) for place, text in enumerate(texts)], understand(query))
    assert features[:, _COLUMN].tolist() == expected
