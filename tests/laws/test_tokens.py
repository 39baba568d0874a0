"""A law of counting: a long text has as many tokens by its lines as in one piece, whatever the lines are."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from context_graph.models.tokens import TokenCounter, open_counter

_PIECES = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["\n", "\n\n", " \n", "\n ", "\n/", "\r\n", "\t", "[3] ", "[1000] ", "## A\n", "9 May\n", ".\n", "x: y\n"]
    ),
)
_TEXTS = st.lists(_PIECES, min_size=1, max_size=60).map("".join)


@pytest.fixture(scope="module", params=["o200k_base", "cl100k_base"])
def pair(request: pytest.FixtureRequest) -> tuple[TokenCounter, tiktoken.Encoding]:
    """The service's counter and tiktoken's own encoding."""
    spec = find_spec("litellm")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "TIKTOKEN_CACHE_DIR", str(Path(spec.submodule_search_locations[0]) / "litellm_core_utils/tokenizers")
        )
        return open_counter(request.param), tiktoken.get_encoding(request.param)


@given(text=_TEXTS)
def test_lines_add_up(pair: tuple[TokenCounter, tiktoken.Encoding], text: str) -> None:
    counter, encoding = pair
    long = text * (1 + 1200 // len(text)) if text else "\n" * 1200
    assert counter.count(long) == len(encoding.encode_ordinary(long))
