"""What a language model is asked about a session, and which of its sentences are believed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrichment.reconsolidation.sentences import Sentence
from enrichment.reconsolidation.written import Line, Refused, lines_of, prompt_of, read_answer, supported

LINES = (
    Line("Nadia", "I was charged twice for order LF-20817, 149.90 € each time.", ("e1",)),
    Line("support", "The duplicate payment is refunded and should be there by Thursday.", ("e2", "e3")),
    Line("Nadia", "Please write by e-mail, I work night shifts.", ("e4",)),
)


def answer(*sentences: tuple[str, list[int]]) -> str:
    return json.dumps({"sentences": [{"text": text, "lines": numbers} for text, numbers in sentences]})


def test_the_model_reads_numbered_lines_with_their_speakers() -> None:
    prompt = prompt_of(LINES, 4)
    assert prompt.material.splitlines()[1] == (
        "[2] support: The duplicate payment is refunded and should be there by Thursday."
    )
    assert "at most 4 short sentences" in prompt.rules


def test_a_sentence_cites_the_events_of_its_lines() -> None:
    (first, second) = read_answer(
        answer(
            ("Nadia was charged twice for LF-20817; the duplicate payment was refunded.", [1, 2]),
            ("She prefers e-mail since she works nights.", [3]),
        ),
        LINES,
        5,
    )
    assert first.event_ids == ("e1", "e2", "e3")
    assert second.event_ids == ("e4",)


@pytest.mark.parametrize(
    "said",
    [
        "Nadia was charged 159.90 € twice.",  # another amount
        "Order LF-20818 was charged twice.",  # another order
        "Nadia Brandt was charged twice.",  # a name that the lines do not have
        "The merchant apologised profusely and upgraded shipping.",  # nothing of it
    ],
)
def test_what_the_lines_do_not_hold_is_not_supported(said: str) -> None:
    assert not supported(said, LINES)


def test_rewording_is_supported() -> None:
    assert supported("The duplicates were refunding, payments arrive Thursday for Nadia's order.", LINES)


def test_unsupported_sentences_are_left_out_and_an_answer_of_them_is_refused() -> None:
    good, bad = ("Nadia was charged twice for LF-20817.", [1]), ("She lives in Oslo with 3 dogs.", [3])
    assert [quote.text for quote in read_answer(answer(good, bad), LINES, 5)] == [good[0]]
    with pytest.raises(Refused, match="unsupported"):
        read_answer(answer(good, bad, bad), LINES, 5)


@pytest.mark.parametrize("numbers", [[], [0], [4], [1, 9], [-1]])
def test_a_sentence_without_lines_that_exist_does_not_stand(numbers: list[int]) -> None:
    with pytest.raises(Refused, match="unsupported"):
        read_answer(answer(("Nadia was charged twice for LF-20817.", numbers)), LINES, 5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I cannot do that.", "not-json"),
        ("[1, 2]", "not-json"),
        ('{"sentences": "Nadia was charged twice."}', "not-json"),
        ('{"sentences": []}', "no-sentences"),
        ('{"sentences": [{"text": "  "}, 7, {"lines": [1]}]}', "no-sentences"),
    ],
)
def test_nonsense_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        read_answer(text, LINES, 5)


def test_json_in_a_code_fence_is_read() -> None:
    fenced = "```json\n" + answer(("Nadia was charged twice for LF-20817.", [1])) + "\n```"
    assert len(read_answer(fenced, LINES, 5)) == 1


def test_no_more_sentences_than_asked_for() -> None:
    said = [("Nadia was charged twice for LF-20817.", [1])] * 7
    assert len(read_answer(answer(*said), LINES, 3)) == 3


def sentence(number: int, words: int) -> Sentence:
    text = " ".join(f"w{number}x{word}" for word in range(words))
    return Sentence(text, f"e{number}", number, f"{number:06d}", 0, 5, "someone")


@given(st.lists(st.integers(4, 30), max_size=60), st.integers(200, 2000))
def test_what_the_model_reads_fits_and_is_in_order(sizes: list[int], characters: int) -> None:
    lines = lines_of([sentence(number, words) for number, words in enumerate(sizes)], characters)
    assert sum(len(line.text) for line in lines) <= characters
    numbers = [int(line.event_ids[0][1:]) for line in lines]
    assert numbers == sorted(numbers)


@given(st.text(max_size=200))
def test_any_answer_is_read_or_refused(text: str) -> None:
    try:
        quotes = read_answer(text, LINES, 3)
    except Refused as refusal:
        assert refusal.reason in ("not-json", "no-sentences", "unsupported")
    else:
        assert all(quote.event_ids for quote in quotes)
