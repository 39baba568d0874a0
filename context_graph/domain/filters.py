"""The filter grammar: `{field: {op: value}}`, several fields and-ed, as typed conditions.

Parsed here once for every read; compiled for the index in `store/queries.py`; evaluated again by `holds` on every
document on its way out, so that a filter is never merely hoped to have worked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

from context_graph.domain.leap_seconds import without_leap_second
from context_graph.errors import FieldProblem, InvalidInput

Operator = Literal["eq", "ne", "any", "all", "gt", "gte", "lt", "lte", "between"]
OPERATORS: tuple[Operator, ...] = get_args(Operator)

TAG_FIELDS = ("event_type", "tool_name", "agent_id", "user_id", "session_id", "entity", "status", "origin", "kind")
NUMBER_FIELDS = ("occurred_at", "importance")
FIELDS = TAG_FIELDS + NUMBER_FIELDS

_TAG_OPERATORS: tuple[Operator, ...] = ("eq", "ne", "any", "all")
_NUMBER_OPERATORS: tuple[Operator, ...] = ("eq", "ne", "gt", "gte", "lt", "lte", "between")
_MOST_VALUES = 256
_OF_EVENTS = frozenset({"event_type", "tool_name", "agent_id", "user_id", "status", "origin"})
"""Fields that a summary has of itself, while the events it quotes may have any other value."""


@dataclass(frozen=True, slots=True)
class TagCondition:
    """A field with exact values: equals one, differs from it, equals any, has all."""

    field: str
    operator: Operator
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NumberCondition:
    """A field with an order (ms UTC, or importance): within bounds, exclusive where `open_*`; `negated` for ne."""

    field: str
    low: float
    high: float
    open_low: bool = False
    open_high: bool = False
    negated: bool = False


Condition = TagCondition | NumberCondition


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions that must all hold. `alternatives` are groups of which at least one must hold, for scopes."""

    conditions: tuple[Condition, ...] = ()
    alternatives: tuple[tuple[TagCondition, ...], ...] = ()

    def plus(self, *conditions: Condition) -> Filters:
        """These filters and more conditions."""
        return Filters(self.conditions + conditions, self.alternatives)


NO_FILTERS = Filters()


def parse(raw: Mapping[str, object], prefix: str = "/filters") -> Filters:
    """The typed filters. Raises InvalidInput naming each wrong field, operator or value.

    What excludes events by a field of theirs excludes summaries too: they quote events that may be excluded.
    """
    problems: list[FieldProblem] = []
    conditions: list[Condition] = []
    for field, operations in raw.items():
        pointer = f"{prefix}/{field}"
        if field not in FIELDS:
            remedy = f"filter by one of {', '.join(FIELDS)}"
            problems.append(FieldProblem(pointer, f"there is no field {field!r}", remedy, "field"))
        elif not isinstance(operations, Mapping) or not operations:
            remedy = f'write {{"{field}": {{"eq": value}}}}'
            problems.append(FieldProblem(pointer, "a filter is an object of operator and value", remedy, "shape"))
        else:
            for operator, value in operations.items():
                parsed = _parse_one(field, str(operator), value, f"{pointer}/{operator}")
                if isinstance(parsed, FieldProblem):
                    problems.append(parsed)
                else:
                    conditions.append(parsed)
    if problems:
        raise InvalidInput(problems)
    if any(isinstance(c, TagCondition) and c.operator == "ne" and c.field in _OF_EVENTS for c in conditions):
        conditions.append(TagCondition("kind", "ne", ("summary",)))
    return Filters(tuple(conditions))


def _parse_one(field: str, operator: str, value: object, pointer: str) -> Condition | FieldProblem:
    allowed = _TAG_OPERATORS if field in TAG_FIELDS else _NUMBER_OPERATORS
    known = next((candidate for candidate in allowed if candidate == operator), None)
    if known is None:
        detail = f"{field} has no operator {operator!r}"
        return FieldProblem(pointer, detail, f"use one of {', '.join(allowed)}", "operator")
    try:
        return _tag_condition(field, known, value) if field in TAG_FIELDS else _number_condition(field, known, value)
    except ValueError as error:
        return FieldProblem(pointer, str(error), _value_remedy(field, known), "value")


def _value_remedy(field: str, operator: Operator) -> str:
    one = (
        "a string" if field in TAG_FIELDS else ("a number" if field == "importance" else "an RFC 3339 time with offset")
    )
    many = {"any": f"an array of 1 to {_MOST_VALUES}, each {one}", "between": f"an array of two, each {one}"}
    return f"send {many.get('any' if operator == 'all' else operator, one)}"


def _tag_condition(field: str, operator: Operator, value: object) -> TagCondition:
    values = value if operator in {"any", "all"} else [value]
    if not isinstance(values, list) or not 1 <= len(values) <= _MOST_VALUES:
        raise ValueError(f"{operator} takes an array of 1 to {_MOST_VALUES}")
    texts = tuple(item for item in values if isinstance(item, str))
    if len(texts) != len(values):
        raise ValueError(f"{field} is compared with strings")
    return TagCondition(field, operator, texts)


def _number_condition(field: str, operator: Operator, value: object) -> NumberCondition:
    if operator == "between":
        if not isinstance(value, list) or len(value) != 2:
            raise ValueError("between takes an array of two")
        low, high = _number(field, value[0]), _number(field, value[1])
        if low > high:
            raise ValueError("the first of the two is greater than the second, so nothing lies between")
        return NumberCondition(field, low, high)
    bound = _number(field, value)
    infinity = float("inf")
    match operator:
        case "gt":
            return NumberCondition(field, bound, infinity, open_low=True)
        case "gte":
            return NumberCondition(field, bound, infinity)
        case "lt":
            return NumberCondition(field, -infinity, bound, open_high=True)
        case "lte":
            return NumberCondition(field, -infinity, bound)
        case _:
            return NumberCondition(field, bound, bound, negated=operator == "ne")


def _number(field: str, value: object) -> float:
    if field == "occurred_at":
        return float(moment(value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{field} is compared with a number")
    return float(value)


def moment(value: object) -> int:
    """Milliseconds UTC of an RFC 3339 time with an offset, of a year from 1 to 9999 in UTC. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError("a time is a string")
    parsed = datetime.fromisoformat(without_leap_second(value.upper().replace(" ", "T")))
    if parsed.tzinfo is None:
        raise ValueError(f"{value!r} has no offset")
    try:
        return int(parsed.astimezone(UTC).timestamp() * 1000)
    except OverflowError as error:
        raise ValueError(f"{value!r} lies outside of the calendar") from error


def holds(filters: Filters, values: Mapping[str, Sequence[str] | float | None]) -> bool:
    """Whether a document satisfies the filters. `values`: tag fields as sequences, number fields as numbers."""
    if not all(_condition_holds(condition, values) for condition in filters.conditions):
        return False
    groups = filters.alternatives
    return not groups or any(all(_condition_holds(c, values) for c in group) for group in groups)


def _condition_holds(condition: Condition, values: Mapping[str, Sequence[str] | float | None]) -> bool:
    value = values.get(condition.field)
    if isinstance(condition, NumberCondition):
        inside = isinstance(value, int | float) and _within(condition, float(value))
        return inside != condition.negated
    found = set(value) if isinstance(value, Sequence) else set()
    match condition.operator:
        case "ne":
            return condition.values[0] not in found
        case "all":
            return found.issuperset(condition.values)
        case _:
            return not found.isdisjoint(condition.values)


def _within(condition: NumberCondition, value: float) -> bool:
    above = value > condition.low if condition.open_low else value >= condition.low
    below = value < condition.high if condition.open_high else value <= condition.high
    return above and below
