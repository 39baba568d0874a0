"""Query parameters that a route does not have are refused: one that is ignored answers another question than was asked.

What a route has is what its OpenAPI operation says, so that the document and the check cannot part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Request

from context_graph.errors import FieldProblem, InvalidInput
from context_graph.ingest.wording import nearest

_NO_AS_OF: Mapping[str, str] = {
    "/v1/entities": "names are joined from what is known now: POST /v1/graph/query with as_of shows entities of then",
    "/v1/entities/{entity_id}": "names are joined from what is known now: GET /v1/timeline?entity=… with as_of lists "
    "what mentioned it then, POST /v1/graph/query with as_of what was around it",
    "/v1/receipts/{receipt_id}": "a receipt never changes: leave it out",
    "/v1/receipts/{receipt_id}/content": "a receipt never changes: leave it out",
    "/v1/events/tail": "the tail follows what comes: GET /v1/events takes as_of",
    "/v1/context": "send it in the body",
    "/v1/search": "send it in the body",
    "/v1/graph/query": "send it in the body",
}
"""What to do instead, of reads that have no `as_of` in their address."""


async def known_names(request: Request) -> None:
    """A dependency of every route. Raises InvalidInput for parameters that it does not have or that come twice."""
    if not request.scope["query_string"]:
        return
    path = request.scope["route"].path_format
    document = request.app.openapi()
    operation = document["paths"].get(path, {}).get(_method(request.method))
    if operation is None:
        return  # what the document leaves out takes what it likes
    known = {p["name"]: p["schema"] for p in operation.get("parameters", ()) if p["in"] == "query"}
    problems: list[FieldProblem] = []
    for name in dict.fromkeys(request.query_params):
        if name not in known:
            problems.append(_unknown(path, name, list(known)))
        elif len(request.query_params.getlist(name)) > 1 and not _is_array(known[name]):
            problems.append(FieldProblem(f"/{name}", "it comes more than once", "send it once", "repeated"))
    if problems:
        raise InvalidInput(problems)


def _method(method: str) -> str:
    return "get" if method == "HEAD" else method.lower()


def _unknown(path: str, name: str, known: list[str]) -> FieldProblem:
    pointer = "/" + name.replace("~", "~0").replace("/", "~1")
    if name == "as_of" and path in _NO_AS_OF:
        return FieldProblem(pointer, "this read has no as_of in its address", _NO_AS_OF[path], "extra_forbidden")
    near = nearest(name, known)
    if near is not None:
        remedy = f"did you mean {near}?"
    elif known:
        remedy = f"remove it; there are {', '.join(known)}"
    else:
        remedy = "remove it; this takes none"
    return FieldProblem(pointer, "there is no such parameter here", remedy, "extra_forbidden")


def _is_array(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "array" or any(_is_array(one) for one in schema.get("anyOf", ()))
