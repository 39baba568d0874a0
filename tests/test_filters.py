"""What a filter leaves out, it leaves out of what is quoted too."""

from __future__ import annotations

import pytest

from context_graph.domain.filters import holds, parse

SUMMARY = {"kind": ["summary"], "agent_id": ["context-graph"], "session_id": ["s1"], "origin": ["derived"]}
EVENT = {"kind": ["event"], "agent_id": ["melanie"], "session_id": ["s1"], "origin": ["user"]}


@pytest.mark.parametrize("field", ["agent_id", "user_id", "tool_name", "event_type", "status", "origin"])
def test_what_excludes_events_by_a_field_of_theirs_excludes_summaries_that_may_quote_them(field: str) -> None:
    filters = parse({field: {"ne": "caroline"}})
    assert holds(filters, EVENT)
    assert not holds(filters, SUMMARY)


def test_a_summary_is_of_its_own_session_and_kind() -> None:
    assert holds(parse({"session_id": {"ne": "s2"}}), SUMMARY)
    assert holds(parse({"kind": {"ne": "event"}}), SUMMARY)
