"""Which names a text mentions: forms, known names, and what of the recogniser's guesses is believed."""

from __future__ import annotations

import json
import time

import pytest

from context_graph.domain.text import MAX_TEXT
from context_graph.models.languages import LanguageTest
from context_graph.models.recogniser import Span, open_recogniser
from context_graph.settings import EntitySettings
from enrichment.entities import MAX_MENTIONS, find_mentions
from tests.quality.entities import labelled, wnut
from tests.quality.entities.wnut import shared_data


def names(text: str, *spans: Span, **known: str) -> list[str]:
    return [mention.entity_id for mention in find_mentions(text, spans, **known)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("on May 20, 2024 at noon", ["date:may 20, 2024"]),
        ("origin: JFK, destination: QQX, price: 12", ["place:jfk", "place:qqx"]),
        ("fly from LAX to SEA.", ["place:lax", "place:sea"]),
        ("first name: Zyx, last name: Vuter", ["person:zyx", "person:vuter"]),
        ("we met Amelia Davis's agent", ["person:amelia davis"]),
        ("ship to 12 Elm Street", ["place:12 elm street"]),
        ("moved to New York City", ["place:new york city"]),
        ("pays with PayPal", ["org:paypal"]),
        ("src/a.py:1:0: C0114: Missing docstring", ["path:src/a.py", "error:c0114"]),
        ("grep -n 'class Sum(' pkg/mod/sub", ["symbol:sum", "path:pkg/mod/sub"]),
        ("import os.path\nself.items.add(NdarrayMix)", ["symbol:os.path", "symbol:items.add", "symbol:ndarraymix"]),
        ("<returncode>0</returncode>", []),
        ("will you mark this in may?", []),
        ("I like BattlestarGalactica", []),
    ],
)  # fmt: skip
def test_rules_and_known_names(text: str, expected: list[str]) -> None:
    assert names(text) == expected


@pytest.mark.parametrize(
    ("text", "written", "entity"),
    [
        ("pay 45,00 EUR now", "45,00 EUR", "money:45.00 eur"),
        ("pay 4500 EUR now", "4500 EUR", "money:4500 eur"),
        ("pay 1.234,56 EUR now", "1.234,56 EUR", "money:1234.56 eur"),
        ("pay €1.234,56 now", "€1.234,56", "money:€1234.56"),
        ("pay $1,234.56, now", "$1,234.56", "money:$1234.56"),
        ("pay 1 000 EUR now", "1 000 EUR", "money:1000 eur"),
        ("pay 1\u202f000,50 € now", "1\u202f000,50 €", "money:1000.50 €"),
        ("pay 1'000.50 CHF now", "1'000.50 CHF", "money:1000.50 chf"),
        ("pay EUR 30 now", "EUR 30", "money:eur 30"),
        ("pay EUR30 now", "EUR30", "money:eur30"),
        ("pay $1,234 now", "$1,234", "money:$1234"),
        ("pay 1.234 EUR now", "1.234 EUR", "money:1234 eur"),
        ("pay 1.234.567 EUR now", "1.234.567 EUR", "money:1234567 eur"),
        ("pay $0.002 a token", "$0.002", "money:$0.002"),
        ("pay $3.5M now", "$3.5M", "money:$3.5m"),
        ("pay 5 million dollars now", "5 million dollars", "money:5 million dollars"),
        ("for $5 300 people came", "$5", "money:$5"),
        ("金額は1.234,56 EURです", "1.234,56 EUR", "money:1234.56 eur"),
    ],
)
def test_an_amount_is_taken_whole_and_keeps_its_value(text: str, written: str, entity: str) -> None:
    [found] = find_mentions(text, [])
    assert (text[found.start : found.end], found.entity_id) == (written, entity)


def test_each_of_two_amounts_has_its_own_currency() -> None:
    assert names("20 € 30 €, $4 €5") == ["money:20 €", "money:30 €", "money:$4", "money:€5"]


def test_the_span_of_a_rule_wins_over_a_longer_one_of_the_recogniser() -> None:
    assert names("4500 € due", Span("4500 € due", "MONEY", 0, 10)) == ["money:4500 €"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("注文LF-99881を確認", ["id:lf-99881"]),
        ("订单号ORD-2024-0007已发货", ["id:ord-2024-0007"]),
        ("LF-31313の件", ["id:lf-31313"]),
        ("주문LF-31313을 확인", ["id:lf-31313"]),
        ("注文#10045を確認", ["id:10045"]),
        ("番号12345678は", ["id:12345678"]),
        ("日付2024-05-20に", ["date:2024-05-20"]),
        ("サーバ10.0.0.7で", ["host:10.0.0.7"]),
        ("版はv1.2.3です", ["version:v1.2.3"]),
        ("例外ValueErrorが", ["error:valueerror"]),
        ("网址https://example.cn/a。请看", ["url:https://example.cn/a"]),
        ("https://example.jp/aを見て", ["url:https://example.jp/a"]),
        ("(https://example.kr/a)을", ["url:https://example.kr/a"]),
        ("https://example.de/Köln, bitte", ["url:https://example.de/köln"]),
        ("メールはtaro@example.jp", ["email:taro@example.jp"]),
        ("taro@example.jpへ", ["email:taro@example.jp"]),
        ("éLF-99881", []),
        ("e\u0301LF-99881", []),
        ("LF-99881é", []),
        ("éa@example.jp", []),
    ],
)
def test_a_name_in_ascii_ends_at_letters_of_another_script_not_at_accented_ones(text: str, expected: list[str]) -> None:
    assert names(text) == expected


def test_of_a_long_result_the_first_names_are_kept_whatever_their_labels() -> None:
    rows = [{"id": f"LF-{10_000 + row}", "email": f"u{row}@example.com"} for row in range(3_500)]
    found = find_mentions(json.dumps(rows), [])
    expected = [name for row in range(32) for name in (f"id:lf-{10_000 + row}", f"email:u{row}@example.com")]
    assert [mention.entity_id for mention in found] == expected
    assert len(found) == MAX_MENTIONS


@pytest.mark.parametrize(
    ("text", "span", "expected"),
    [
        ("Amelia went home", Span("Amelia", "GPE", 0, 6), ["person:amelia"]),  # known better
        ("Quorvex went home", Span("Quorvex", "PERSON", 0, 7), ["person:quorvex"]),
        ("ordered a Foldable Stool", Span("Foldable Stool", "ORG", 10, 24), []),  # a company nobody knows
        ("ordered at Foldable Stool Inc", Span("Foldable Stool Inc", "ORG", 11, 29), ["org:foldable stool inc"]),
        ("name: Luggage Set, price: 3", Span("Luggage Set", "PERSON", 6, 17), []),  # a value behind a key
        ("x = Store(1)", Span("Store", "PERSON", 4, 9), []),  # code
        ("lol wooow", Span("lol wooow", "PERSON", 0, 9), []),
    ],
)
def test_the_recogniser_is_believed_where_it_may_be_right(text: str, span: Span, expected: list[str]) -> None:
    assert names(text, span) == expected


def test_a_mention_keeps_its_span_and_the_role_it_is_there_for() -> None:
    text = "book(origin: JFK, date: 2024-05-20) for Amelia Davis"
    found = find_mentions(text, [], tool_name="book", role="argument")
    assert [(text[m.start : m.end], m.role) for m in found] == [
        ("book", "tool"),
        ("JFK", "origin"),
        ("2024-05-20", "date"),
        ("Amelia Davis", "argument"),
    ]


@pytest.mark.parametrize(
    "unit",
    [
        "_a",
        "a.",
        "a/",
        "A1",
        "Ab",
        "-a",
        "a_",
        "1,",
        "(a",
        "self.",
        "from a",
        "Mary ",
        "é",
        "1 000",
        "1.000",
        "1,00",
        "EUR ",
        "を1",
    ],
)
def test_a_text_made_to_be_slow_is_not(unit: str) -> None:
    text = (unit * MAX_TEXT)[:MAX_TEXT]
    began = time.process_time()
    find_mentions(text, [])
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("the order of my friend was sent to the old house", True),
        ("die bestellung von herrn müller wurde am montag versandt und kommt bald an", False),
        ("el pedido del señor garcía llegó ayer con tres días de retraso", False),
        ("order 12 qx7", True),
    ],
)
def test_a_text_of_another_language_is_told_by_its_function_words(text: str, fits: bool) -> None:
    assert LanguageTest("en").fits(text.split()) is fits


async def test_other_languages_and_scripts_get_no_false_labels() -> None:
    texts = [
        "Le colis de Madame Dupont est arrivé hier matin et elle est contente",
        "El pedido del señor García llegó ayer con tres días de retraso",
        "订单 W3470184 已于 2024-05-20 发往北京",
        "Заказ Ивана Петрова #W3470184 отправлен",
    ]
    async with open_recogniser(EntitySettings()) as recogniser:
        named = await recogniser.recognise(texts)
    found = [names(text, *spans) for text, spans in zip(texts, named, strict=True)]
    assert found == [[], [], ["id:w3470184", "date:2024-05-20"], ["id:w3470184"]]


@pytest.mark.parametrize("model", ["blank:en", "blank:xx", "blank:zh"])
async def test_a_blank_pipeline_labels_nothing_and_the_rules_still_do(model: str) -> None:
    async with open_recogniser(EntitySettings(model=model)) as recogniser:
        [spans] = await recogniser.recognise(["Tim Cook mailed a@example.com, 北京"])
    assert spans == []
    assert names("Tim Cook mailed a@example.com, 北京") == ["person:tim cook", "email:a@example.com"]


async def test_the_labelled_events_and_wnut_reach_what_is_promised() -> None:
    """F1 of mentions >= 0.80 on the labelled events, and of every label above bare spaCy on WNUT17."""
    async with open_recogniser(EntitySettings()) as recogniser:
        events = labelled.read_labelled()
        scores = labelled.measure(events, await recogniser.recognise([event.text for event in events]))
        assert len(events) == 100
        assert scores["all"].f1 >= 0.9
        unseen = labelled.read_labelled(labelled.UNSEEN)
        scores = labelled.measure(unseen, await recogniser.recognise([event.text for event in unseen]))
        assert scores["all"].f1 >= 0.9
        file = shared_data() / wnut.FILES["dev"]
        if not file.is_file():
            pytest.skip(f"the other half needs {file}")
        posts = wnut.read_posts(file)
        compared = wnut.measure(posts, await recogniser.recognise([post.text for post in posts]))
    for label, bare in compared["bare"].items():
        assert compared["ours"][label].f1 > bare.f1, label
