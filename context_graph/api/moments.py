"""Positions and moments from outside, as values."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from context_graph.domain.filters import moment
from context_graph.domain.position import Position
from context_graph.errors import FieldProblem, InvalidInput
from context_graph.retrieval.request import AsOf

AsOfText = Annotated[
    str | None, Query(max_length=64, description="a position, or an RFC 3339 time of recording: as it was then")
]


def parse_position(field: str, text: str | None) -> Position | None:
    """A position from outside. Raises InvalidInput naming the field."""
    if text is None:
        return None
    try:
        return Position.parse(text)
    except ValueError as error:
        remedy = "send a position or cursor that this service returned"
        raise InvalidInput([FieldProblem(f"/{field}", str(error), remedy, "position")]) from error


def parse_as_of(text: str | None) -> AsOf | None:
    """A position, or a time of recording. Raises InvalidInput."""
    if text is None:
        return None
    try:
        position = Position.parse(text)
        return AsOf(position.ms, position)
    except ValueError:
        try:
            return AsOf(moment(text))
        except ValueError as error:
            detail = f"{text!r} is neither a position nor a time: {error}"
            remedy = "send a position this service returned, or RFC 3339 with an offset"
            raise InvalidInput([FieldProblem("/as_of", detail, remedy, "as-of")]) from error
