"""Which stretches of a long text have vectors of their own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from enrichment.passages import PASSAGE, further_passages


def test_a_text_that_the_model_reads_whole_has_none() -> None:
    assert further_passages("short", 3) == ()
    assert further_passages("a" * PASSAGE, 3) == ()
    assert further_passages("word " * 1000, 0) == ()


def test_the_tail_comes_first_then_what_says_most_that_is_new() -> None:
    dull = "the same line again and again\n" * 40
    telling = "checkout ledger refund carrier parcel invoice voucher airport passport luggage\n" * 14
    text = dull + dull + telling + dull + dull + "Traceback: it ended here"
    assert further_passages(text, 1)[0].endswith("it ended here")
    two = further_passages(text, 2)
    assert "passport" in two[0]
    assert two[1].endswith("it ended here")


@given(st.text(alphabet=st.sampled_from("abcdefg .\n"), max_size=6000), st.integers(0, 7))
def test_passages_are_stretches_of_the_text_and_no_more_than_asked(text: str, most: int) -> None:
    found = further_passages(text, most)
    assert len(found) <= most
    assert all(0 < len(piece) <= PASSAGE and piece in text for piece in found)
    assert found == further_passages(text, most)
