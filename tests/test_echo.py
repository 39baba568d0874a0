"""What was served and comes back is cut out; everything else stays as it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from context_graph.domain.document import Document
from context_graph.domain.echo import without_echo
from context_graph.domain.event import Envelope, EventId, SessionId
from context_graph.domain.position import Position
from context_graph.domain.text import searchable
from context_graph.retrieval.items import SECTIONS, Item
from context_graph.retrieval.render import anthropic, markdown, messages

_DAY = 86_400_000


def _items(texts: list[str], sections: list[int]) -> list[Item]:
    rows = sorted(zip(sections, texts, strict=True), key=lambda row: row[0])
    return [
        Item(
            document=Document(
                id=f"e{n}", kind="event", text=text, speaker="nadia", event_ids=(f"e{n}",), position=Position(0, 1, n),
                event_type="user.message", session_id="s", agent_id="a", occurred_at=1_788_000_000_000 + n * _DAY,
                origin=("user", "tool")[n % 2],
            ),
            section=SECTIONS[section], text=text, score=1.0, channels={}, rank=n + 1, bond=f"e{n}",
        )
        for n, (section, text) in enumerate(rows)
    ]  # fmt: skip


def _message(payload: dict[str, object]) -> Envelope:
    return Envelope(
        event_id=EventId("m"), event_type="user.message", session_id=SessionId("s"), agent_id="a",
        occurred_at=1_788_000_000_000, payload=payload,  # type: ignore[arg-type]
    )  # fmt: skip


_SAID = st.lists(
    st.tuples(st.text(min_size=1, max_size=60).filter(str.strip), st.integers(0, 2)), min_size=1, max_size=9
)
_OWN = st.sampled_from(["", "Where is my parcel?", "## Plan\n1. look\n2. answer", "[1] is a footnote", "8 May 2023"])


@given(said=_SAID, before=_OWN, after=_OWN)
def test_of_a_pasted_context_only_what_stands_around_it_is_left(
    said: list[tuple[str, int]], before: str, after: str
) -> None:
    pasted = markdown(_items([text for text, _ in said], [section for _, section in said]))
    assert without_echo("\n".join((before, pasted, "", after))).split() == f"{before} {after}".split()


@pytest.mark.parametrize(
    "text",
    [
        "## Relevant\nThe plan is good.",
        "## Relevant",
        "[1] nadia: hello\n[2] tim: hello",
        "# Recent changes\n[1] fixed the door",
        "## Summary\n\n[1] below an empty line",
    ],
)
def test_what_only_looks_alike_is_kept(text: str) -> None:
    assert without_echo(text) == text


def test_numbers_that_do_not_go_up_by_one_end_the_block() -> None:
    assert without_echo("## Relevant\n[1] nadia: one\n[1] mine") == "[1] mine"


def test_messages_and_blocks_that_come_back_are_not_searched() -> None:
    items = _items(["the parcel is lost", "it was found"], [1, 1])
    (sent,) = messages(items)
    assert isinstance(sent, dict)
    assert searchable(_message({"text": f"{sent['content']}\n\nAnd now?"})).text == "And now?"
    blocks = [*anthropic(items), {"type": "text", "text": "And now?"}]
    assert searchable(_message({"content": blocks})).text == "And now?"


def test_a_message_of_nothing_else_is_found_by_its_type_alone() -> None:
    assert searchable(_message({"text": markdown(_items(["the parcel is lost"], [1]))})).text == "user message"
