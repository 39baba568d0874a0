"""Words on a real Redis: every word of any text is found by itself, and the text is shown as it was said."""

from __future__ import annotations

import random

import pytest

from context_graph.bootstrap import Resources
from context_graph.domain.document import Document
from context_graph.domain.event import Envelope, EventId, LedgerEvent, SessionId, TenantId
from context_graph.domain.filters import NO_FILTERS
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.domain.query import terms
from context_graph.domain.text import MAX_TEXT, document_of
from context_graph.domain.words import storable
from context_graph.store.queries import Searcher
from tests.waiting import until

PARTITION = Partition(TenantId("acme"), 0)
_SCRIPTS = (
    "abcXYZ019",
    "aéÖßİÇe\u0301",
    "яЖйЁ",
    "λάΣ",
    "洗衣机坏",
    "ไทยครับ",
    "ひカの",
    "한국어",
    "हिन्दी",
    "a_1",
    "ﬁ½²",
)
_BETWEEN = (
    " \n\r\t\0\\\u00a0\u2009\u200b\u00ad\u2028—–…“”„’«»•、。「」（）·!?.,;:'\"-/()[]{}*|@$%~#<=>\x07\x7f\u0085\ufffe🙂"
)


def document(doc_id: str, text: str) -> Document:
    envelope = Envelope(
        event_id=EventId(doc_id),
        event_type="user.message",
        session_id=SessionId("s1"),
        agent_id="support",
        occurred_at=1000,
        payload={"text": text},
    )
    return document_of(LedgerEvent(TenantId("acme"), Position(0, 1, 0), envelope), 5)


async def found(resources: Resources, question: str) -> list[str]:
    searcher = Searcher(resources.derived_redis)
    return list(await searcher.matching(PARTITION, terms(question), NO_FILTERS, 500))


async def put(resources: Resources, texts: dict[str, str]) -> None:
    await resources.index.put_documents(PARTITION, [document(doc_id, text) for doc_id, text in texts.items()])

    async def indexed() -> bool:
        return (await resources.index.statistics(PARTITION)).documents == len(texts)

    await until(indexed)


async def test_every_word_of_any_text_is_found_and_the_text_is_shown_as_it_was(resources: Resources) -> None:
    chance = random.Random(7)
    words = {
        f"d{number}": ["".join(chance.choices(chance.choice(_SCRIPTS), k=chance.randint(1, 9))) for _ in range(8)]
        for number in range(60)
    }
    texts = {
        doc_id: "".join(word + "".join(chance.choices(_BETWEEN, k=chance.randint(1, 3))) for word in said)
        for doc_id, said in words.items()
    }
    await put(resources, texts)
    for doc_id, said in words.items():
        for word in said:
            if any(letter.isalnum() for letter in word):
                assert doc_id in await found(resources, word), (texts[doc_id], word)
    shown = await resources.index.read_documents(PARTITION, list(texts))
    assert [one.document.text for one in shown if one] == [storable(text).strip() for text in texts.values()]


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("first line alphaone\nbetatwo second", "alphaone"),
        ("first line alphaone\nbetatwo second", "betatwo"),
        ("wait—gammathree…", "gammathree"),
        ("before\0deltafour", "deltafour"),
        ("crème brûlée for two", "creme brulee"),
        ("creme brulee for two", "crème brûlée"),
        ("CAFÉ", "café"),
        ("我的洗衣机坏了", "洗衣机"),
        ("called __init__ twice", "init"),
        ("word " * 2000 + "epsilonfive " + "word " * 30_000, "epsilonfive"),
    ],
)
async def test_a_word_is_found_wherever_it_stands(resources: Resources, text: str, question: str) -> None:
    await put(resources, {"it": text, "other": "nothing of that"})
    assert await found(resources, question) == ["it"]
    [stored] = await resources.index.read_documents(PARTITION, ["it"])
    assert stored is not None
    assert len(stored.document.text) <= MAX_TEXT
