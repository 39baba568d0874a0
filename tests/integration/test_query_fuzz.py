"""The query compiler against the real server: whatever is asked, Redis lives and the answer is 200 or 422.

A RediSearch union that begins with two stop words of the index ends redis-server (adr/0009); syntax that gets through
from a question or a filter is an injection. Neither may happen for any text.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import hypothesis
import pytest
from hypothesis import strategies as st

from context_graph.domain.filters import FIELDS, OPERATORS
from context_graph.domain.query import STOP_WORDS
from tests.events import event, post_all, settled
from tests.service import Service

SPECIAL = r""",.<>{}[]"':;!@#$%^&*()-+=~|/\?_ """
HOSTILE = [
    "a the", "the a", "is the of", "to be or not to be", "*", "-*", "a*", "%%a%%", "%%%%%%a%%%%%%", '"', "'", "\\",
    "\\\\", "@text:(x)", "@user:{*}", "-@kind:{event}", "@occurred:[-inf +inf]", "=>[KNN 10 @vec $vector AS d]",
    "$t0", "$vector", "(", ")", "((((", "|", "a|", "|a", "~a", "{", "}", "{}", "[", "[1 2]", "a => {$weight: 9}",
    "w'fo*'", "ismissing(@x)", "\x00", "a\x00b", "\n", "\r\nFLUSHALL\r\n", "\u202e", "\ufeff", "\ud7ff\ue000",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467", "\ufb01", "\u0130", "\u1e9e", "\U0001d4b3", "a" * 8000,
    "a " * 4000, "DIALECT 2 PARAMS 0", "_", "__", "a_b_c", "1e999", "0x", "NaN", "null", "\u0663", "\u7684",
    "\u0627", "za\u017c\xf3\u0142\u0107", "99999999 days ago", "0000-00-00", "29 February", "last May 9999",
    "9999-12-31", "## Relevant\n[1] a: b", "what did nadia and (nadia|*) say",
]  # fmt: skip
WORDS = st.sampled_from(sorted(STOP_WORDS)) | st.sampled_from(["refund", "parcel", "order", "w7209932", "x"])
QUESTIONS = (
    st.sampled_from(HOSTILE)
    | st.text(max_size=80)
    | st.text(alphabet=SPECIAL + "ab", max_size=40)
    | st.lists(WORDS, max_size=12).map(" ".join)
)
NUMBERS = st.integers() | st.floats() | st.sampled_from([1e300, -1e300, 5e-324, 2**64, -(2**64)])
VALUES: st.SearchStrategy[Any] = (
    QUESTIONS
    | NUMBERS
    | st.none()
    | st.booleans()
    | st.sampled_from(["2026-09-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59Z", "2026-W01-1T00+00"])
)
FILTERS = st.dictionaries(
    st.sampled_from(FIELDS) | st.text(max_size=5),
    st.dictionaries(
        st.sampled_from(OPERATORS) | st.text(max_size=5), VALUES | st.lists(VALUES, max_size=3), max_size=2
    ),
    max_size=3,
)
_BOUNDED = hypothesis.settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.fixture
async def filled(http: httpx2.AsyncClient) -> None:
    """A tenant in which every index exists and something can be found."""
    texts = ["My parcel W7209932 has not arrived", "the a an of to", "Refund the order, please", SPECIAL]
    await settled(http, await post_all(http, [event(n, payload={"text": text}) for n, text in enumerate(texts)]))


def _ask(service: Service, path: str, body: dict[str, Any]) -> httpx2.Response:
    with httpx2.Client(base_url=service.url, headers={"X-Engine-API-Key": service.key}, timeout=30) as http:
        return http.post(path, json=body)


def _lives(service: Service) -> None:
    body = {"query": "parcel", "mode": "keyword"}
    assert _ask(service, "/v1/search", body).json()["results"], "the server lives and still finds"


@pytest.mark.usefixtures("filled")
def test_no_question_and_no_filter_breaks_a_search(service: Service) -> None:
    @_BOUNDED
    @hypothesis.given(QUESTIONS, st.sampled_from(["keyword", "hybrid", "semantic"]), st.none() | FILTERS)
    def check(query: str, mode: str, filters: Any) -> None:
        body = {"query": query, "mode": mode} | ({"filters": filters} if filters is not None else {})
        try:
            answer = _ask(service, "/v1/search", body)
        except ValueError:
            hypothesis.reject()  # NaN and infinities are no JSON
        assert answer.status_code in {200, 422}, answer.text

    check()
    _lives(service)


@pytest.mark.usefixtures("filled")
def test_no_question_and_no_scope_breaks_a_context(service: Service) -> None:
    names = st.none() | st.sampled_from(HOSTILE) | st.text(alphabet=SPECIAL, min_size=1, max_size=20)

    @hypothesis.settings(_BOUNDED, max_examples=60)
    @hypothesis.given(QUESTIONS, names, names, names)
    def check(query: str, session: str | None, user: str | None, agent: str | None) -> None:
        body = {"query": query, "session_id": session, "user_id": user, "agent_id": agent, "token_budget": 64}
        answer = _ask(service, "/v1/context", body)
        assert answer.status_code in {200, 422}, answer.text

    check()
    _lives(service)


def _may_be_a_name(text: str) -> bool:
    """Ids with control characters are refused at the door."""
    return not any(ord(character) < 0x20 or character == "\x7f" for character in text)


@pytest.mark.parametrize("start", range(0, len(HOSTILE), 16))
async def test_hostile_names_are_found_by_their_very_name_only(http: httpx2.AsyncClient, start: int) -> None:
    names = [name for name in HOSTILE[start : start + 16] if 0 < len(name) <= 128 and _may_be_a_name(name)]
    events = [
        event(number, event_id=f"{number}:{name[:100]}", session_id=name, user_id=name, agent_id=name, tool_name=name,
              payload={"text": f"named {name}"})
        for number, name in enumerate(names)
    ]  # fmt: skip
    await settled(http, await post_all(http, events))

    async def found(field: str, name: str) -> set[str]:
        body = {"query": "named", "mode": "keyword", "limit": 50, "filters": {field: {"eq": name}}}
        answer = await http.post("/v1/search", json=body)
        assert answer.status_code == 200, answer.text
        return {row["id"] for row in answer.json()["results"]}

    for field in ("session_id", "user_id", "agent_id", "tool_name"):
        results = await asyncio.gather(*(found(field, name) for name in names))
        assert results == [{row["event_id"]} for row in events], field
